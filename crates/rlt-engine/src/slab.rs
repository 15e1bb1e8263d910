//! Memory mapped from the operating system, in huge pages where it gives them, and the disjoint
//! blocks it is cut into.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

/// Bytes of a huge page (x86-64 and the usual ARM64 configuration); a wrong guess costs speed only.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Where a slab's memory comes from.
enum Source {
    /// Mapped; unmapped with it.
    Mapped(#[expect(dead_code, reason = "keeps the memory mapped")] MmapMut),
    /// Of the global allocator, of this layout.
    Allocated(Layout),
}

/// Zeroed memory that begins at a multiple of the huge page size.
pub(crate) struct Slab {
    source: Source,
    start: NonNull<f32>,
    elements: usize,
}

// SAFETY: the memory may be used and given back from any thread; access to its elements goes through
// blocks, each of which owns its range.
unsafe impl Send for Slab {}
// SAFETY: as above; a shared slab gives no access to its elements.
unsafe impl Sync for Slab {}

impl Slab {
    /// A slab of at least `elements` values, all zero. Where the operating system maps none, the global allocator is
    /// asked, and what it does when it has none left is what any collection of the standard library would see.
    ///
    /// # Panics
    /// If `elements` values are more bytes than an address can count.
    pub(crate) fn new(elements: usize) -> Self {
        let bytes = elements.checked_mul(size_of::<f32>());
        // Room to begin at a multiple: what is never touched costs address space only.
        let whole = bytes.and_then(|bytes| bytes.checked_add(HUGE_PAGE_BYTES));
        let (Some(bytes), Some(whole)) = (bytes, whole) else {
            panic!("a tensor of {elements} numbers is more than memory can hold")
        };
        let Ok(mut map) = MmapMut::map_anon(whole) else { return Self::allocated(elements, bytes) };
        let offset = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // A kernel without huge pages refuses, and nothing but speed is lost.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, offset, bytes);
        let start = NonNull::from(&mut map[offset..offset + bytes]).cast();
        Self { source: Source::Mapped(map), start, elements }
    }

    /// As [`Self::new`], by the global allocator.
    fn allocated(elements: usize, bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(1), Self::ALIGNMENT)
            .unwrap_or_else(|_| panic!("a tensor of {elements} numbers is more than memory can hold"));
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { source: Source::Allocated(layout), start: start.cast(), elements }
    }

    /// Of memory that is not mapped: a cache line's.
    const ALIGNMENT: usize = 64;
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Source::Allocated(layout) = self.source {
            // SAFETY: allocated with this layout, and nobody borrows it any more.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) }
        }
    }
}

/// Some elements of a slab, owned by whoever holds the block.
pub(crate) struct Block {
    slab: Arc<Slab>,
    range: Range<usize>,
}

impl Block {
    /// The block of `range` (elements) in `slab`.
    ///
    /// # Safety
    /// No two living blocks of a slab may overlap.
    pub(crate) unsafe fn new(slab: Arc<Slab>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= slab.elements, "a block inside its slab");
        Self { slab, range }
    }

    #[inline]
    pub(crate) fn elements(&self) -> &[f32] {
        // SAFETY: the range lies inside the mapping, which lives as long as the slab; every bit
        // pattern is an f32; no other block overlaps.
        unsafe {
            std::slice::from_raw_parts(self.slab.start.as_ptr().add(self.range.start), self.range.len())
        }
    }

    #[inline]
    pub(crate) fn elements_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and this block is borrowed mutably.
        unsafe {
            std::slice::from_raw_parts_mut(self.slab.start.as_ptr().add(self.range.start), self.range.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_allocator_serves_as_mapped_memory_does() {
        for slab in [Slab::new(100), Slab::allocated(100, 400)] {
            // SAFETY: the only block of its slab.
            let mut block = unsafe { Block::new(Arc::new(slab), 0..100) };
            assert_eq!(block.elements().as_ptr().addr() % Slab::ALIGNMENT, 0);
            assert_eq!(block.elements(), [0.0; 100]);
            block.elements_mut().fill(1.0);
            assert_eq!(block.elements(), [1.0; 100]);
        }
    }

    #[test]
    #[should_panic(expected = "more than memory can hold")]
    fn a_size_that_wraps_is_refused() {
        Slab::new(usize::MAX / 2);
    }
}
