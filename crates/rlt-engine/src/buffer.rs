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
    /// Some of the elements of another one.
    Part(Part),
    /// Of a device without numbers.
    Sizes(Outline),
    /// Of a GPU.
    Cuda(OnGpu),
}

/// A buffer that was cut into [`Part`]s; dropped with the last of them.
struct Whole(Buffer);

impl Drop for Whole {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.0));
    }
}

/// Consecutive elements of a buffer, which no other part has.
pub(crate) struct Part {
    #[expect(dead_code, reason = "keeps the memory")]
    whole: Arc<Whole>,
    first: *mut f32,
    len: usize,
}

// SAFETY: its elements are its own, as those of a `Vec` are.
unsafe impl Send for Part {}
// SAFETY: as above.
unsafe impl Sync for Part {}

/// What is left of a buffer while its [`Part`]s are in use: what they become again.
pub(crate) struct Divided {
    whole: Arc<Whole>,
    first: *mut f32,
    elements: usize,
}

impl Divided {
    /// Cuts a buffer of so many elements into parts of `len` and a smaller last one. Where there are no numbers, the whole alone
    /// counts.
    ///
    /// # Panics
    /// On a GPU.
    pub(crate) fn new(mut buffer: Buffer, elements: usize, len: usize) -> (Self, Vec<Buffer>) {
        let starts = (0..elements).step_by(len);
        if let Buffer::Sizes(Outline { device, .. }) = &buffer {
            let parts = starts.map(|_| Buffer::counted_elsewhere(device)).collect();
            return (Self { whole: Arc::new(Whole(buffer)), first: std::ptr::null_mut(), elements }, parts);
        }
        assert_eq!(buffer.len(), elements, "elements of a buffer");
        let first = buffer.as_mut_ptr();
        let whole = Arc::new(Whole(buffer));
        let part = |at: usize| {
            // SAFETY: inside the buffer, whose memory stays where it is as long as `whole` lives.
            let first = unsafe { first.add(at) };
            Buffer::Part(Part { whole: whole.clone(), first, len: len.min(elements - at) })
        };
        let parts = starts.map(part).collect();
        (Self { whole, first, elements }, parts)
    }

    /// The whole again.
    ///
    /// # Panics
    /// If these are not its parts in their order, or others are left.
    pub(crate) fn join(self, parts: Vec<Buffer>) -> Buffer {
        let mut next = self.first;
        for part in parts {
            match part {
                Buffer::Part(Part { first, len, .. }) if first == next => next = next.wrapping_add(len),
                Buffer::Sizes(_) => next = next.wrapping_add(self.elements),
                _ => panic!("another buffer in the place of a part"),
            }
        }
        let mut whole = Arc::into_inner(self.whole).expect("a part that is elsewhere");
        std::mem::take(&mut whole.0)
    }
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
            Self::Owned(..) | Self::Small(..) | Self::Recycled(..) | Self::Part(_) => &CPU,
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
            // SAFETY: elements of `whole`, which lives, and nobody else's.
            Self::Part(Part { first, len, .. }) => unsafe { std::slice::from_raw_parts(*first, *len) },
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
            // SAFETY: as in `deref`.
            Self::Part(Part { first, len, .. }) => unsafe { std::slice::from_raw_parts_mut(*first, *len) },
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
    fn parts_are_of_the_whole_which_goes_back_to_where_it_came_from() {
        // A size that no other test asks for.
        let buffer = take(7_123_457);
        let address = buffer.as_ptr();
        let (divided, mut parts) = Divided::new(buffer, 7_123_457, 3_000_000);
        assert_eq!(
            parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
            [3_000_000, 3_000_000, 1_123_457]
        );
        for (i, part) in parts.iter_mut().enumerate() {
            part.fill(i as f32);
        }
        let whole = divided.join(parts);
        assert_eq!((whole.len(), whole.as_ptr()), (7_123_457, address));
        assert!(whole.iter().enumerate().all(|(i, value)| *value == (i / 3_000_000) as f32));
        // Dropped in parts, it serves again, too, when the last of them has gone.
        let (divided, mut parts) = Divided::new(whole, 7_123_457, 4_000_000);
        drop((divided, parts.remove(0)));
        parts[0].fill(7.0);
        drop(parts);
        assert_eq!(take(7_123_457).as_ptr(), address);
    }

    #[test]
    #[should_panic(expected = "another buffer in the place of a part")]
    fn parts_in_another_order_are_refused() {
        let (divided, mut parts) = Divided::new(take(100), 100, 40);
        parts.swap(0, 1);
        let _ = divided.join(parts);
    }

    #[test]
    #[should_panic(expected = "a part that is elsewhere")]
    fn a_part_that_is_kept_is_noticed() {
        let (divided, mut parts) = Divided::new(take(100), 100, 40);
        let _kept = parts.pop();
        let _ = divided.join(parts);
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
