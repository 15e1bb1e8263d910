//! A matrix of f32 or, where it is only read, of bf16.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::bf16::{Bf16Panels, widen};
use crate::buffer::{self, Buffer, Divided, OnGpu};
use crate::device::{CPU, Device, Held, not_on_gpus};
use crate::parallel::{SharedMut, for_row_blocks};
use rlt_cuda::{Gpu, Halves, Memory};

/// A contiguous row-major matrix of f32, `rows x cols`, on a device. A vector is a matrix of one row.
///
/// The weights of a model that is only read may be kept in bf16 ([`Self::from_bf16_rows`]). Products,
/// embedding and head take them, and products in f32 give the bits of the widened weights; every
/// other operation panics on them, because training keeps its parameters in f32.
///
/// The storage is private to this crate: other crates hand whole tensors to operations and copy
/// whole tensors in and out; where it lives is its [`Device`].
pub struct Tensor {
    rows: usize,
    cols: usize,
    storage: Storage,
}

enum Storage {
    F32(Buffer),
    Bf16(Bf16Panels),
    /// On a GPU, as they lie; copies share them.
    Bf16OnGpu(Device, Arc<Halves>),
}

impl Tensor {
    /// All zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self::zeros_on(&CPU, rows, cols)
    }

    /// All zeros, on `device`.
    pub fn zeros_on(device: &Device, rows: usize, cols: usize) -> Self {
        let mut out = Self::scratch_on(device, rows, cols);
        out.fill_zero();
        out
    }

    /// Unspecified contents, for an operation that writes every element.
    pub fn scratch(rows: usize, cols: usize) -> Self {
        Self::scratch_on(&CPU, rows, cols)
    }

    /// As [`Self::scratch`], on `device`.
    pub fn scratch_on(device: &Device, rows: usize, cols: usize) -> Self {
        Self { rows, cols, storage: Storage::F32(buffer::take(device, rows * cols)) }
    }

    /// As [`Self::scratch`], on this tensor's device.
    #[must_use]
    pub fn beside(&self, rows: usize, cols: usize) -> Self {
        Self::scratch_on(self.device(), rows, cols)
    }

    /// All equal to `value`.
    pub fn full(rows: usize, cols: usize, value: f32) -> Self {
        Self::full_on(&CPU, rows, cols, value)
    }

    /// All equal to `value`, on `device`.
    pub fn full_on(device: &Device, rows: usize, cols: usize, value: f32) -> Self {
        let mut out = Self::scratch_on(device, rows, cols);
        match device {
            Device::Cpu => out.data_mut().fill(value),
            Device::Sizes(sizes) => sizes.did_rows(rows * cols),
            Device::Cuda(gpu) => gpu.fill(out.memory_mut(), value),
        }
        out
    }

    /// Copies host values in.
    ///
    /// # Panics
    /// If `data` does not hold `rows * cols` values.
    pub fn from_vec(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        Self::made_on(&CPU, rows, cols, || data)
    }

    /// Host values that `make` makes, on `device`; where that has no numbers, none are made.
    ///
    /// # Panics
    /// If they are not `rows * cols` values.
    pub fn made_on(device: &Device, rows: usize, cols: usize, make: impl FnOnce() -> Vec<f32>) -> Self {
        let checked = || {
            let data = make();
            assert_eq!(data.len(), rows * cols, "{rows} x {cols} tensor from {} values", data.len());
            data
        };
        Self { rows, cols, storage: Storage::F32(Buffer::owned(device, rows * cols, checked)) }
    }

    /// Values that `fill` writes, all of them, on `device`; where that has no numbers, none are written.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn filled_on<E>(
        device: &Device,
        rows: usize,
        cols: usize,
        fill: impl FnOnce(&mut [f32]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut out = Self::scratch_on(device, rows, cols);
        match device {
            Device::Cpu => fill(out.data_mut())?,
            Device::Sizes(sizes) => sizes.did_rows(rows * cols),
            Device::Cuda(_) => out.change_on_host(fill)?,
        }
        Ok(out)
    }

    /// Weights that are only read, kept in bf16. `row(index)` gives the numbers of a row: `cols` of them,
    /// little-endian, two bytes each.
    ///
    /// # Panics
    /// If a row has another length.
    pub fn from_bf16_rows<'a>(rows: usize, cols: usize, row: impl Fn(usize) -> &'a [u8] + Sync) -> Self {
        Self::from_bf16_rows_on(&CPU, rows, cols, row)
    }

    /// As [`Self::from_bf16_rows`], on `device`; where that has no numbers, no row is asked for.
    ///
    /// # Panics
    /// As there.
    pub fn from_bf16_rows_on<'a>(
        device: &Device,
        rows: usize,
        cols: usize,
        row: impl Fn(usize) -> &'a [u8] + Sync,
    ) -> Self {
        if let Device::Cuda(gpu) = device {
            let mut bits = Vec::with_capacity(rows * cols);
            for index in 0..rows {
                let (numbers, rest) = row(index).as_chunks::<2>();
                assert!(numbers.len() == cols && rest.is_empty(), "bytes of a row of {cols}");
                bits.extend(numbers.iter().map(|bytes| u16::from_le_bytes(*bytes)));
            }
            return Self::of_halves(gpu.upload_halves(&bits), rows, cols);
        }
        Self { rows, cols, storage: Storage::Bf16(Bf16Panels::from_rows(device, rows, cols, row)) }
    }

    /// The same numbers as read-only bf16, where it holds every one of them exactly.
    pub fn narrowed(&self) -> Option<Self> {
        let Storage::F32(data) = &self.storage else { return Some(self.clone()) };
        if let Buffer::Sizes(outline) = data {
            return outline
                .fits_bf16
                .then(|| Self::from_bf16_rows_on(self.device(), self.rows, self.cols, |_| &[]));
        }
        let data = self.to_host();
        if data.iter().any(|value| value.to_bits() & 0xffff != 0) {
            return None;
        }
        if self.gpu().is_some() {
            return Some(self.rounded_on_gpu());
        }
        let upper: Vec<u8> = data.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
        let row_bytes = 2 * self.cols;
        let row = |row: usize| &upper[row * row_bytes..(row + 1) * row_bytes];
        Some(Self::from_bf16_rows(self.rows, self.cols, row))
    }

    /// Tells a device without numbers that bf16 would hold all of this tensor's, which it cannot see.
    #[must_use]
    pub fn known_to_fit_bf16(mut self) -> Self {
        if let Storage::F32(Buffer::Sizes(outline)) = &mut self.storage {
            outline.fits_bf16 = true;
        }
        self
    }

    /// Whether [`Self::known_to_fit_bf16`] told its device.
    pub(crate) fn is_known_to_fit_bf16(&self) -> bool {
        matches!(&self.storage, Storage::F32(Buffer::Sizes(outline)) if outline.fits_bf16)
    }

    /// Where it lies.
    pub fn device(&self) -> &Device {
        match &self.storage {
            Storage::F32(data) => data.device(),
            Storage::Bf16(panels) => panels.device(),
            Storage::Bf16OnGpu(device, _) => device,
        }
    }

    /// Whether two tensors have the same shape, number format and bits; without numbers, whether they could.
    pub fn has_bits_of(&self, other: &Self) -> bool {
        (self.rows, self.cols, self.is_bf16()) == (other.rows, other.cols, other.is_bf16())
            && (!self.device().has_numbers()
                || self.to_host().iter().zip(other.to_host().iter()).all(|(a, b)| a.to_bits() == b.to_bits()))
    }

    /// Whether this is read-only bf16.
    pub fn is_bf16(&self) -> bool {
        matches!(self.storage, Storage::Bf16(_) | Storage::Bf16OnGpu(..))
    }

    /// The values as the host sees them, row by row (bf16 widened). A device without numbers gives none, and counts the
    /// memory that a copy would take.
    pub fn to_host(&self) -> Cow<'_, [f32]> {
        match (&self.storage, self.device()) {
            (Storage::F32(data), Device::Cpu) => Cow::Borrowed(data),
            (Storage::Bf16(panels), Device::Cpu) => Cow::Owned(panels.to_f32()),
            (Storage::F32(_), Device::Sizes(_)) => Cow::Borrowed(&[]),
            (Storage::Bf16OnGpu(_, halves), _) => halves.to_host().into_iter().map(widen).collect(),
            (Storage::F32(_) | Storage::Bf16(_), Device::Cuda(_)) => Cow::Owned(self.memory().to_host()),
            (Storage::Bf16(_), device @ Device::Sizes(_)) => {
                drop(device.hold_on_host(4 * self.len() as u64));
                Cow::Borrowed(&[])
            }
        }
    }

    /// The same numbers where the host reads them without a copy.
    #[must_use]
    pub fn on_host(self) -> Self {
        match self.device() {
            Device::Cpu | Device::Sizes(_) => self,
            Device::Cuda(_) => Self::from_vec(self.rows, self.cols, self.to_host().into_owned()),
        }
    }

    /// Lets `change` change the numbers as the host sees them, row by row. A device without numbers has none to change.
    pub fn change_on_host<T>(&mut self, change: impl FnOnce(&mut [f32]) -> T) -> T {
        match self.device() {
            Device::Cpu => change(self.data_mut()),
            Device::Sizes(_) => change(&mut []),
            Device::Cuda(_) => {
                let mut numbers = self.memory().to_host();
                let result = change(&mut numbers);
                self.memory_mut().set(&numbers);
                result
            }
        }
    }

    /// As [`Self::change_on_host`], where `complete` reads no numbers but those that are `known` here, and writes all others: only
    /// the former are copied from a GPU.
    pub fn complete_on_host<T>(&mut self, known: Range<usize>, complete: impl FnOnce(&mut [f32]) -> T) -> T {
        if self.gpu().is_none() {
            return self.change_on_host(complete);
        }
        let mut numbers = vec![0.0; self.len()];
        self.memory().part_to_host(known.start, &mut numbers[known]);
        let result = complete(&mut numbers);
        self.memory_mut().set(&numbers);
        result
    }

    /// As [`Self::to_host`], in memory of the host's own.
    pub fn into_host(self) -> Vec<f32> {
        drop(self.device().hold_on_host(4 * self.len() as u64));
        self.to_host().into_owned()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets every element to zero.
    pub fn fill_zero(&mut self) {
        if let Device::Sizes(sizes) = self.device() {
            return sizes.did_rows(self.len());
        }
        if let Some(gpu) = self.gpu() {
            return gpu.fill(self.memory_mut(), 0.0);
        }
        let cols = self.cols;
        for_row_blocks(self.data_mut(), cols, |_, rows| rows.fill(0.0));
    }

    /// `self += other`, element by element.
    pub fn add(&mut self, other: &Self) {
        assert_eq!((self.rows, self.cols), (other.rows, other.cols), "shapes of a sum");
        if let Device::Sizes(sizes) = self.device() {
            return sizes.did_rows(3 * self.len());
        }
        if let Some(gpu) = self.gpu() {
            return gpu.add_scaled(self.memory_mut(), other.memory(), 1.0);
        }
        let cols = self.cols;
        for_row_blocks(self.data_mut(), cols, |first, rows| {
            for (a, b) in rows.iter_mut().zip(&other.data()[first * cols..]) {
                *a += b;
            }
        });
    }

    /// `self = mix * other + (1 - mix) * self`, element by element (reference synchronisation).
    pub fn mix_in(&mut self, other: &Self, mix: f32) {
        assert_eq!((self.rows, self.cols), (other.rows, other.cols), "shapes of a mixture");
        if let Device::Sizes(sizes) = self.device() {
            return sizes.did_rows(3 * self.len());
        }
        if let Some(gpu) = self.gpu() {
            return gpu.mix_in(self.memory_mut(), other.memory(), mix);
        }
        for (a, b) in self.data_mut().iter_mut().zip(other.data()) {
            *a = mix * b + (1.0 - mix) * *a;
        }
    }

    /// A copy of the rows named, in that order (a row may be named more than once).
    #[must_use]
    pub fn gather_rows(&self, rows: &[usize]) -> Self {
        if let Some(gpu) = self.gpu() {
            let picked = gpu.gather_rows(self.memory(), self.cols, &numbered(rows));
            return Self::of_memory(picked, rows.len(), self.cols);
        }
        let mut out = self.beside(rows.len(), self.cols);
        if let Device::Sizes(sizes) = self.device() {
            sizes.did_rows(2 * out.len());
            return out;
        }
        for_row_blocks(out.data_mut(), self.cols, |first, to| {
            for (to, &from) in to.chunks_exact_mut(self.cols).zip(&rows[first..]) {
                to.copy_from_slice(self.row(from));
            }
        });
        out
    }

    /// Adds row `i` of `source` to row `rows[i]`, in order.
    pub fn scatter_add_rows(&mut self, rows: &[usize], source: &Self) {
        if let Device::Sizes(sizes) = self.device() {
            return sizes.did_rows(3 * source.len());
        }
        if let Some(gpu) = self.gpu() {
            let cols = self.cols;
            return gpu.scatter_add_rows(self.memory_mut(), cols, &numbered(rows), source.memory());
        }
        let cols = self.cols;
        for (from, &to) in source.data().chunks_exact(cols).zip(rows) {
            for (a, b) in self.data_mut()[to * cols..(to + 1) * cols].iter_mut().zip(from) {
                *a += b;
            }
        }
    }

    /// Whether every element is finite; so are those that are not there.
    pub fn is_finite(&self) -> bool {
        self.to_host().iter().all(|v| v.is_finite())
    }

    /// The same in the memory of this one, which counts it.
    fn counted_elsewhere(&self) -> Self {
        let data = Buffer::counted_elsewhere(self.device());
        Self { rows: self.rows, cols: self.cols, storage: Storage::F32(data) }
    }

    /// Cuts it into tensors of `rows` rows, the last one of fewer, that lie where they lay: [`Self::joined`] again later.
    pub(crate) fn into_row_blocks(mut self, rows: usize) -> (Divided, Vec<Self>) {
        let (n_rows, cols) = (self.rows, self.cols);
        let Storage::F32(data) = &mut self.storage else { refuse_bf16() };
        let (divided, parts) = Divided::new(std::mem::take(data), n_rows * cols, rows * cols);
        let block =
            |(index, data)| Self { rows: rows.min(n_rows - index * rows), cols, storage: Storage::F32(data) };
        (divided, parts.into_iter().enumerate().map(block).collect())
    }

    /// What [`Self::into_row_blocks`] cut.
    ///
    /// # Panics
    /// If `blocks` are not what it gave, written to or not.
    pub(crate) fn joined(divided: Divided, blocks: Vec<Self>) -> Self {
        let (rows, cols) = (blocks.iter().map(|block| block.rows).sum(), blocks[0].cols);
        let parts = blocks.into_iter().map(|mut block| match &mut block.storage {
            Storage::F32(data) => std::mem::take(data),
            Storage::Bf16(_) | Storage::Bf16OnGpu(..) => refuse_bf16(),
        });
        Self { rows, cols, storage: Storage::F32(divided.join(parts.collect())) }
    }

    /// The GPU that it lies on, where it does.
    pub(crate) fn gpu(&self) -> Option<Gpu> {
        match self.device() {
            Device::Cuda(gpu) => Some(gpu.clone()),
            Device::Cpu | Device::Sizes(_) => None,
        }
    }

    /// Its numbers on a GPU.
    pub(crate) fn memory(&self) -> &Memory {
        match &self.storage {
            Storage::F32(Buffer::Cuda(own)) => own.memory(),
            Storage::Bf16OnGpu(..) => refuse_bf16(),
            _ => refuse_other_device(),
        }
    }

    /// As [`Self::memory`], to be written to.
    pub(crate) fn memory_mut(&mut self) -> &mut Memory {
        match &mut self.storage {
            Storage::F32(Buffer::Cuda(own)) => own.memory_mut(),
            Storage::Bf16OnGpu(..) => refuse_bf16(),
            _ => refuse_other_device(),
        }
    }

    /// The numbers that a GPU computed.
    pub(crate) fn of_memory(memory: Memory, rows: usize, cols: usize) -> Self {
        assert_eq!(memory.len(), rows * cols, "{rows} x {cols} tensor from {memory:?}");
        let gpu = memory.gpu().clone();
        Self { rows, cols, storage: Storage::F32(Buffer::Cuda(OnGpu::new(&gpu, memory))) }
    }

    /// Numbers of a GPU that are only read, in bf16.
    pub(crate) fn of_halves(halves: Halves, rows: usize, cols: usize) -> Self {
        assert_eq!(halves.len(), rows * cols, "{rows} x {cols} tensor from {halves:?}");
        let device = Device::Cuda(halves.gpu().clone());
        Self { rows, cols, storage: Storage::Bf16OnGpu(device, Arc::new(halves)) }
    }

    /// Its numbers on a GPU, where they are bf16.
    pub(crate) fn halves(&self) -> Option<&Halves> {
        match &self.storage {
            Storage::Bf16OnGpu(_, halves) => Some(halves),
            _ => None,
        }
    }

    /// The same rounded to bf16, on a GPU: shared where it is kept so.
    pub(crate) fn rounded_on_gpu(&self) -> Self {
        if self.is_bf16() {
            return self.clone();
        }
        if !self.device().has_numbers() {
            // Two numbers in the room of one.
            let data = buffer::take(self.device(), self.len().div_ceil(2));
            return Self { rows: self.rows, cols: self.cols, storage: Storage::F32(data) };
        }
        let memory = self.memory();
        Self::of_halves(memory.gpu().rounded(memory), self.rows, self.cols)
    }

    /// The same in f32, on a GPU: shared where it is kept so.
    pub(crate) fn widened_on_gpu(&self) -> Self {
        if !self.device().has_numbers() {
            return if self.is_bf16() { self.beside(self.rows, self.cols) } else { self.counted_elsewhere() };
        }
        let Some(halves) = self.halves() else { return self.clone() };
        Self::of_memory(halves.gpu().widened(halves), self.rows, self.cols)
    }

    #[inline]
    pub(crate) fn data(&self) -> &[f32] {
        match &self.storage {
            Storage::F32(data) => data,
            Storage::Bf16(_) | Storage::Bf16OnGpu(..) => refuse_bf16(),
        }
    }

    /// As [`Self::data`]; nothing of a device without numbers.
    #[inline]
    pub(crate) fn numbers(&self) -> &[f32] {
        match &self.storage {
            Storage::F32(Buffer::Sizes(_)) => &[],
            _ => self.data(),
        }
    }

    #[inline]
    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        match &mut self.storage {
            Storage::F32(data) => data,
            Storage::Bf16(_) | Storage::Bf16OnGpu(..) => refuse_bf16(),
        }
    }

    /// Where several tasks write, each its own elements; nowhere without numbers.
    pub(crate) fn shared_mut(&mut self) -> SharedMut {
        match &mut self.storage {
            Storage::F32(Buffer::Sizes(_)) => SharedMut(std::ptr::null_mut()),
            _ => SharedMut(self.data_mut().as_mut_ptr()),
        }
    }

    #[inline]
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.data()[row * self.cols..(row + 1) * self.cols]
    }

    /// Row `row` (bf16 widened) into `out`.
    #[inline]
    pub(crate) fn copy_row(&self, row: usize, out: &mut [f32]) {
        match &self.storage {
            Storage::F32(_) => out.copy_from_slice(self.row(row)),
            Storage::Bf16(panels) => panels.copy_row(row, out),
            Storage::Bf16OnGpu(..) => not_on_gpus(),
        }
    }

    /// The panels of read-only bf16 weights, where the processor has them.
    pub(crate) fn bf16_panels(&self) -> Option<&Bf16Panels> {
        match &self.storage {
            Storage::F32(_) | Storage::Bf16OnGpu(..) => None,
            Storage::Bf16(panels) => Some(panels),
        }
    }
}

/// Rows that are gathered on the host, batch by batch, and become one tensor.
#[derive(Debug)]
pub struct GatheredRows {
    device: Device,
    cols: usize,
    rows: usize,
    values: Vec<f32>,
    held: Option<Held>,
}

impl GatheredRows {
    /// No rows yet, of `cols` columns, for a tensor on `device`.
    pub fn new(device: &Device, cols: usize) -> Self {
        Self { device: device.clone(), cols, rows: 0, values: Vec::new(), held: None }
    }

    /// Adds the rows of `tensor`.
    pub fn add(&mut self, tensor: &Tensor) {
        assert_eq!(tensor.cols, self.cols, "columns of gathered rows");
        self.rows += tensor.rows;
        self.values.extend_from_slice(&tensor.to_host());
        self.held = None;
        self.held = Some(self.device.hold_on_host(4 * (self.rows * self.cols) as u64));
    }

    /// All of them.
    pub fn into_tensor(self) -> Tensor {
        let Self { device, cols, rows, values, held } = self;
        drop(held);
        Tensor::made_on(&device, rows, cols, || values)
    }
}

/// Numbers of rows, as a GPU counts them.
fn numbered(rows: &[usize]) -> Vec<u32> {
    rows.iter().map(|&row| row as u32).collect()
}

#[cold]
fn refuse_other_device() -> ! {
    panic!("one operation over tensors of two devices")
}

#[cold]
fn refuse_bf16() -> ! {
    panic!("read-only bf16 weights where an operation needs f32: load the model for training instead")
}

impl Default for Tensor {
    /// No rows and no columns.
    fn default() -> Self {
        Self { rows: 0, cols: 0, storage: Storage::F32(Buffer::default()) }
    }
}

impl Clone for Tensor {
    fn clone(&self) -> Self {
        if let Storage::Bf16(panels) = &self.storage {
            return Self { rows: self.rows, cols: self.cols, storage: Storage::Bf16(panels.clone()) };
        }
        if let Storage::Bf16OnGpu(device, halves) = &self.storage {
            let storage = Storage::Bf16OnGpu(device.clone(), halves.clone());
            return Self { rows: self.rows, cols: self.cols, storage };
        }
        if let Storage::F32(Buffer::Cuda(own)) = &self.storage {
            let storage = Storage::F32(Buffer::Cuda(own.shared()));
            return Self { rows: self.rows, cols: self.cols, storage };
        }
        let mut out = self.beside(self.rows, self.cols);
        if let Device::Sizes(sizes) = self.device() {
            sizes.did_rows(2 * self.len());
            if let (Storage::F32(Buffer::Sizes(from)), Storage::F32(Buffer::Sizes(to))) =
                (&self.storage, &mut out.storage)
            {
                to.fits_bf16 = from.fits_bf16;
            }
            return out;
        }
        for_row_blocks(out.data_mut(), self.cols, |first, rows| {
            rows.copy_from_slice(&self.data()[first * self.cols..][..rows.len()]);
        });
        out
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        if let Storage::F32(data) = &mut self.storage {
            buffer::give(std::mem::take(data));
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} x {})", self.rows, self.cols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[[0, 1], [2, 3], [4, 5]]`.
    fn counting() -> Tensor {
        Tensor::from_vec(3, 2, (0..6_u8).map(f32::from).collect())
    }

    #[test]
    fn shapes_and_values() {
        let x = counting();
        assert_eq!((x.rows(), x.cols(), x.len(), x.is_empty()), (3, 2, 6, false));
        assert_eq!(x.row(1), [2.0, 3.0]);
        assert_eq!(x.clone().to_host(), x.to_host());
        assert_eq!(*Tensor::full(1, 3, 2.5).to_host(), [2.5; 3]);
        assert!(Tensor::zeros(0, 4).is_empty());
        assert_eq!(format!("{x:?}"), "Tensor(3 x 2)");
    }

    #[test]
    #[should_panic(expected = "2 x 3 tensor from 5 values")]
    fn too_few_values_are_refused() {
        Tensor::from_vec(2, 3, vec![0.0; 5]);
    }

    #[test]
    fn zeros_are_zeros_in_recycled_memory() {
        // Both sides of the smallest recycled size.
        for n in [100, 30_011] {
            drop(Tensor::full(1, n, 7.0));
            assert!(Tensor::zeros(1, n).data().iter().all(|v| *v == 0.0));
        }
    }

    #[test]
    fn a_clone_has_its_own_memory() {
        let mut x = Tensor::full(1, 30_012, 1.0);
        let copy = x.clone();
        x.fill_zero();
        assert!(copy.data().iter().all(|v| *v == 1.0));
    }

    #[test]
    fn rows_are_gathered_and_scattered_in_order() {
        let x = counting();
        let some = x.gather_rows(&[2, 0, 2]);
        assert_eq!(*some.to_host(), [4.0, 5.0, 0.0, 1.0, 4.0, 5.0]);
        let mut sums = Tensor::full(3, 2, 10.0);
        sums.scatter_add_rows(&[1, 0, 1], &some);
        assert_eq!(*sums.to_host(), [10.0, 11.0, 18.0, 20.0, 10.0, 10.0]);
        assert_eq!(x.gather_rows(&[]).rows(), 0);
    }

    #[test]
    fn mixtures_run_from_self_to_other() {
        for (mix, expected) in [(0.0, [1.0, 2.0]), (1.0, [5.0, -2.0]), (0.25, [2.0, 1.0])] {
            let mut x = Tensor::from_vec(1, 2, vec![1.0, 2.0]);
            x.mix_in(&Tensor::from_vec(1, 2, vec![5.0, -2.0]), mix);
            assert_eq!(*x.to_host(), expected);
        }
    }

    #[test]
    fn one_bad_value_is_not_finite() {
        assert!(counting().is_finite());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!Tensor::from_vec(1, 3, vec![0.0, bad, 1.0]).is_finite());
        }
    }
}
