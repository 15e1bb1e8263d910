//! The memory of whatever holds numbers: recycled blocks of its device.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use pulp::bytemuck;
use rlt_cuda::{Gpu, Memory};

use crate::device::{CPU, Device, Held, not_on_gpus};
use crate::pool;
use crate::recycling::{Piece, SMALLEST_ELEMENTS};
use crate::slab::Block;

/// A cache line: what tile registers are filled from must not straddle two.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Line([f32; Line::ELEMENTS]);

impl Line {
    const ELEMENTS: usize = 16;
}

// SAFETY: sixteen f32 without padding, of which zero bits are zeros.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above; any bits are f32.
unsafe impl bytemuck::Pod for Line {}

/// The memory of a tensor: of whole cache lines, unless it was handed in.
pub(crate) enum Buffer {
    /// Handed in from outside.
    Owned(Vec<f32>, #[expect(dead_code, reason = "counts while it lives")] Held),
    /// Small, and how many of its elements are in use.
    Small(Vec<Line>, usize),
    /// A recycled block and how many of its elements are in use.
    Recycled(Piece<Block>, usize),
    /// Of a device without numbers.
    Sizes(Outline),
    /// Of a GPU.
    Cuda(OnGpu),
}

/// Memory of a GPU. Copies share it until one of them is written to.
pub(crate) struct OnGpu {
    device: Device,
    memory: Arc<Memory>,
}

impl OnGpu {
    pub(crate) fn new(gpu: &Gpu, memory: Memory) -> Self {
        Self { device: Device::Cuda(gpu.clone()), memory: Arc::new(memory) }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// To be written to, by this one alone.
    pub(crate) fn memory_mut(&mut self) -> &mut Memory {
        if Arc::get_mut(&mut self.memory).is_none() {
            self.memory = Arc::new(self.memory.copy());
        }
        Arc::get_mut(&mut self.memory).expect("nobody else has it")
    }

    pub(crate) fn shared(&self) -> Self {
        Self { device: self.device.clone(), memory: self.memory.clone() }
    }
}

/// Memory that is counted and not there.
pub(crate) struct Outline {
    device: Device,
    /// None of small ones, of those that were handed in, and of another's.
    piece: Option<Piece<()>>,
    _held: Option<Held>,
    /// Whether bf16 would hold all numbers, were they there.
    pub fits_bf16: bool,
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Owned(Vec::new(), Held::default())
    }
}

impl Buffer {
    /// Takes what `make` gives, all of it handed in; without numbers, nothing is made.
    pub(crate) fn owned(device: &Device, elements: usize, make: impl FnOnce() -> Vec<f32>) -> Self {
        match device {
            Device::Cpu => Self::Owned(make(), device.hold(4 * elements as u64)),
            // A GPU copies them into memory of its own.
            Device::Sizes(_) if device.works_as_gpu() => take(device, elements),
            Device::Sizes(_) => Self::Sizes(Outline {
                device: device.clone(),
                piece: None,
                _held: Some(device.hold(4 * elements as u64)),
                fits_bf16: false,
            }),
            Device::Cuda(gpu) => Self::Cuda(OnGpu::new(gpu, gpu.upload(&make()))),
        }
    }

    /// The memory of something else, which counts it, where there are no numbers.
    pub(crate) fn counted_elsewhere(device: &Device) -> Self {
        Self::Sizes(Outline { device: device.clone(), piece: None, _held: None, fits_bf16: false })
    }

    /// Where it lies.
    pub(crate) fn device(&self) -> &Device {
        match self {
            Self::Sizes(Outline { device, .. }) | Self::Cuda(OnGpu { device, .. }) => device,
            Self::Owned(..) | Self::Small(..) | Self::Recycled(..) => &CPU,
        }
    }
}

#[cold]
fn refuse(buffer: &Buffer) -> ! {
    match buffer {
        Buffer::Cuda(_) => not_on_gpus(),
        _ => panic!("numbers of a device that holds sizes alone"),
    }
}

impl Deref for Buffer {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        match self {
            Self::Owned(values, _) => values,
            Self::Small(lines, len) => &bytemuck::cast_slice(lines)[..*len],
            Self::Recycled(piece, len) => &piece.memory.elements()[..*len],
            Self::Sizes(_) | Self::Cuda(_) => refuse(self),
        }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Owned(values, _) => values,
            Self::Small(lines, len) => &mut bytemuck::cast_slice_mut(lines)[..*len],
            Self::Recycled(piece, len) => &mut piece.memory.elements_mut()[..*len],
            Self::Sizes(_) | Self::Cuda(_) => refuse(self),
        }
    }
}

/// A buffer of `elements` initialised but unspecified values.
pub(crate) fn take(device: &Device, elements: usize) -> Buffer {
    let is_small = elements < SMALLEST_ELEMENTS;
    match device {
        Device::Cpu if is_small => {
            Buffer::Small(vec![Line([0.0; Line::ELEMENTS]); elements.div_ceil(Line::ELEMENTS)], elements)
        }
        Device::Cpu => Buffer::Recycled(pool::take(elements), elements),
        Device::Sizes(sizes) => Buffer::Sizes(Outline {
            device: device.clone(),
            piece: sizes.take(elements),
            _held: None,
            fits_bf16: false,
        }),
        Device::Cuda(gpu) => Buffer::Cuda(OnGpu::new(gpu, gpu.take(elements))),
    }
}

/// Hands a buffer back for the next [`take`].
pub(crate) fn give(buffer: Buffer) {
    match buffer {
        Buffer::Recycled(piece, _) => pool::give(piece),
        Buffer::Sizes(Outline { device: Device::Sizes(sizes), piece: Some(piece), .. }) => sizes.give(piece),
        _ => {}
    }
}

/// Returns a buffer's memory to where it came from.
pub(crate) fn lose(buffer: Buffer) {
    match buffer {
        Buffer::Recycled(piece, _) => pool::lose(piece),
        Buffer::Sizes(Outline { device: Device::Sizes(sizes), piece: Some(piece), .. }) => sizes.lose(&piece),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recycling::size_class;

    fn take(elements: usize) -> Buffer {
        super::take(&Device::Cpu, elements)
    }

    #[test]
    fn buffers_come_back_for_any_size_of_their_class() {
        // Sizes that no other test asks for, so that nobody else takes these buffers.
        let (class, smaller) = (size_class(3_123_457), 3_100_000);
        assert_eq!(size_class(smaller), class);
        let mut buffer = take(3_123_457);
        buffer[3_123_456] = 1.0;
        assert_eq!(buffer.len(), 3_123_457);
        let address = buffer.as_ptr();
        give(buffer);
        let again = take(smaller);
        assert_eq!((again.len(), again.as_ptr()), (smaller, address));
        give(again);
        pool::release_all();
        assert!(!pool::has_free(class));
    }

    #[test]
    fn a_free_block_that_is_a_little_larger_serves() {
        // Sizes that no other test asks for.
        let large = take(5_100_000);
        let address = large.as_ptr();
        give(large);
        let much_smaller = take(3_900_000);
        assert_ne!(much_smaller.as_ptr(), address);
        let smaller = take(4_300_000);
        assert_eq!((smaller.len(), smaller.as_ptr()), (4_300_000, address));
        give(smaller);
        let again = take(5_100_000);
        assert_eq!(again.as_ptr(), address);
    }

    #[test]
    fn buffers_of_a_slab_do_not_overlap() {
        let mut buffers: Vec<Buffer> = (0..600).map(|i| take(SMALLEST_ELEMENTS + 500 * (i % 7))).collect();
        for (i, buffer) in buffers.iter_mut().enumerate() {
            buffer.fill(i as f32);
        }
        for (i, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|v| *v == i as f32), "buffer {i}");
        }
    }

    #[test]
    fn small_buffers_are_not_kept() {
        give(take(SMALLEST_ELEMENTS - 1));
        assert!(!pool::has_free(SMALLEST_ELEMENTS - 1));
        assert_eq!(*take(3), [0.0; 3]);
        assert!(take(0).is_empty());
    }

    #[test]
    fn buffers_are_of_whole_cache_lines() {
        for elements in [1, 100, SMALLEST_ELEMENTS, 12_345] {
            assert_eq!(take(elements).as_ptr().addr() % size_of::<Line>(), 0, "{elements} elements");
        }
    }
}
