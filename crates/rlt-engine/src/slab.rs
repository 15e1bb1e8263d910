//! Memory mapped from the operating system, in huge pages where it gives them, and the disjoint
//! blocks it is cut into.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

/// Bytes of a huge page (x86-64 and the usual ARM64 configuration); a wrong guess costs speed only.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Zeroed memory that begins at a multiple of the huge page size.
pub(crate) struct Slab {
    /// Keeps the memory mapped.
    _map: MmapMut,
    start: NonNull<f32>,
    elements: usize,
}

// SAFETY: the mapping may be used and unmapped from any thread; access to its elements goes through
// blocks, each of which owns its range.
unsafe impl Send for Slab {}
// SAFETY: as above; a shared slab gives no access to its elements.
unsafe impl Sync for Slab {}

impl Slab {
    /// A slab of at least `elements` values, all zero.
    ///
    /// # Panics
    /// If the operating system has no memory left, as any other allocation.
    pub(crate) fn new(elements: usize) -> Self {
        let bytes = elements * size_of::<f32>();
        // Room to begin at a multiple: what is never touched costs address space only.
        let mut map = MmapMut::map_anon(bytes + HUGE_PAGE_BYTES)
            .unwrap_or_else(|error| panic!("{bytes} bytes of memory: {error}"));
        let offset = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // A kernel without huge pages refuses, and nothing but speed is lost.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, offset, bytes);
        let start = NonNull::from(&mut map[offset..offset + bytes]).cast();
        Self { _map: map, start, elements }
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
