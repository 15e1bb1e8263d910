//! Recycled memory: a training step asks for the same sizes again and again, and fresh pages from
//! the operating system cost more than many of the operations that fill them.
//!
//! Buffers are cut from slabs that ask for huge pages: many operations are bound by how fast memory
//! arrives, and it arrives faster where the hardware's prefetching does not stop at every 4 KiB page.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut, RangeInclusive};
use std::sync::{Arc, Mutex, PoisonError};

use pulp::bytemuck;

use crate::slab::{Block, Slab};

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
    Owned(Vec<f32>),
    /// Small, and how many of its elements are in use.
    Small(Vec<Line>, usize),
    /// A recycled block and how many of its elements are in use.
    Recycled(Block, usize),
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Owned(Vec::new())
    }
}

impl Deref for Buffer {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        match self {
            Self::Owned(values) => values,
            Self::Small(lines, len) => &bytemuck::cast_slice(lines)[..*len],
            Self::Recycled(block, len) => &block.elements()[..*len],
        }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Owned(values) => values,
            Self::Small(lines, len) => &mut bytemuck::cast_slice_mut(lines)[..*len],
            Self::Recycled(block, len) => &mut block.elements_mut()[..*len],
        }
    }
}

/// Blocks that wait for their next use, and the slab that the next new one is cut from.
struct Pool {
    /// By size, elements.
    free: BTreeMap<usize, Vec<Block>>,
    slab: Option<(Arc<Slab>, usize)>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), slab: None });

/// The pool. Nothing is allocated from the system and nothing panics while it is locked: a thread that failed there
/// would leave all others waiting. Should one fail all the same, the pool is whole at every point where it can.
fn pool() -> std::sync::MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Smaller buffers are left to the allocator, which handles them well.
const SMALLEST_ELEMENTS: usize = 1 << 13;

/// Elements of a slab that several buffers share; a buffer of at least a quarter of it has its own.
const SLAB_ELEMENTS: usize = 1 << 22;

/// Rounds a size up to one of eight classes per power of two (at most 12.5 % waste).
///
/// # Panics
/// If that is more than an address can count.
fn size_class(elements: usize) -> usize {
    let class = elements.checked_next_power_of_two().and_then(|next| {
        let step = (next / 16).max(1);
        elements.div_ceil(step).checked_mul(step)
    });
    class.unwrap_or_else(|| panic!("a tensor of {elements} numbers is more than memory can hold"))
}

/// Elements of the block that a buffer of `elements` lies in; 0 where the allocator is asked instead.
pub(crate) fn block_elements(elements: usize) -> usize {
    if elements < SMALLEST_ELEMENTS { 0 } else { size_class(elements) }
}

/// Elements of the free blocks that serve where a block of `class` elements is asked for. Completions differ in
/// length from step to step: would each size keep blocks of its own, memory would grow with the number of sizes met.
pub(crate) fn serving(class: usize) -> RangeInclusive<usize> {
    class..=class + class / 4
}

/// A buffer of `elements` initialised but unspecified values.
pub(crate) fn take(elements: usize) -> Buffer {
    if elements < SMALLEST_ELEMENTS {
        return Buffer::Small(vec![Line([0.0; Line::ELEMENTS]); elements.div_ceil(Line::ELEMENTS)], elements);
    }
    let class = size_class(elements);
    let found = {
        let mut pool = pool();
        pool.recycled(class).or_else(|| pool.cut(class))
    };
    Buffer::Recycled(found.unwrap_or_else(|| fresh(class)), elements)
}

/// A block of `class` elements of a new slab.
fn fresh(class: usize) -> Block {
    if class >= SLAB_ELEMENTS / 4 {
        // SAFETY: the only block of its slab.
        return unsafe { Block::new(Arc::new(Slab::new(class)), 0..class) };
    }
    let slab = Arc::new(Slab::new(SLAB_ELEMENTS));
    let mut pool = pool();
    // Another thread may have been faster: its slab is used up first, and this one given back.
    if let Some(block) = pool.cut(class) {
        return block;
    }
    pool.slab = Some((slab, 0));
    pool.cut(class).expect("a new slab has room")
}

/// Hands a buffer back for the next [`take`].
pub(crate) fn give(buffer: Buffer) {
    if let Buffer::Recycled(block, _) = buffer {
        pool().free.entry(block.elements().len()).or_default().push(block);
    }
}

impl Pool {
    /// The smallest free block that serves.
    fn recycled(&mut self, class: usize) -> Option<Block> {
        let (&size, _) = self.free.range(serving(class)).next()?;
        let blocks = self.free.get_mut(&size)?;
        let block = blocks.pop();
        if blocks.is_empty() {
            self.free.remove(&size);
        }
        block
    }

    /// A new block of `class` elements from what is left of the slab.
    fn cut(&mut self, class: usize) -> Option<Block> {
        let (slab, used) = self.slab.as_mut()?;
        if class >= SLAB_ELEMENTS / 4 || *used + class > SLAB_ELEMENTS {
            return None;
        }
        let first = *used;
        *used += class;
        // SAFETY: a slab is cut from its front to its end, each element once.
        Some(unsafe { Block::new(slab.clone(), first..first + class) })
    }
}

/// Returns all recycled memory to the operating system (between stages of different shape).
pub(crate) fn release_all() {
    let released = {
        let mut pool = pool();
        (std::mem::take(&mut pool.free), pool.slab.take())
    };
    // Unmapping takes its time, and nobody need wait for it.
    drop(released);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for n in [SMALLEST_ELEMENTS, 10_000, 65_537, 1_000_001] {
            let class = size_class(n);
            assert!(class >= n && class <= n + n / 8 + 1, "{n} -> {class}");
            assert_eq!(size_class(class), class);
        }
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
        release_all();
        assert!(!pool().free.contains_key(&class));
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
        assert!(!pool().free.contains_key(&(SMALLEST_ELEMENTS - 1)));
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
