//! Which blocks of memory serve again, and how much of it all is held: the rules of every device's memory. What a block
//! is, memory or its size alone, is the device's.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::slab::HUGE_PAGE_BYTES;

/// Smaller buffers are left to the allocator, which handles them well, and are not counted.
pub(crate) const SMALLEST_ELEMENTS: usize = 1 << 13;

/// Elements of a slab that several buffers share.
pub(crate) const SLAB_ELEMENTS: usize = 1 << 22;

/// From here on a block has a slab, and with it huge pages, of its own.
pub(crate) const OWN_SLAB_ELEMENTS: usize = SLAB_ELEMENTS / 4;

/// Rounds a size up to one of eight classes per power of two (at most 12.5 % waste).
///
/// # Panics
/// If that is more than an address can count.
pub(crate) fn size_class(elements: usize) -> usize {
    let class = elements.checked_next_power_of_two().and_then(|next| {
        let step = (next / 16).max(1);
        elements.div_ceil(step).checked_mul(step)
    });
    class.unwrap_or_else(|| panic!("a tensor of {elements} numbers is more than memory can hold"))
}

/// Elements of the free blocks that serve where a block of `class` elements is asked for. Completions differ in
/// length from step to step: would each size keep blocks of its own, memory would grow with the number of sizes met.
fn serving(class: usize) -> RangeInclusive<usize> {
    class..=class + class / 4
}

/// Bytes of a block that `elements` numbers of 4 bytes touch: memory counts from its first touch on.
fn touched_bytes(class: usize, elements: usize) -> u64 {
    let bytes = 4 * elements as u64;
    if class >= OWN_SLAB_ELEMENTS { bytes.next_multiple_of(HUGE_PAGE_BYTES as u64) } else { bytes }
}

/// A block in use, or free.
pub(crate) struct Piece<M> {
    pub memory: M,
    /// Its own elements, which may be more than were asked for.
    class: usize,
    /// Bytes that were ever touched.
    touched: u64,
    /// Bytes that its present use touches.
    in_use: u64,
}

impl<M> Piece<M> {
    /// Elements of the whole block.
    pub(crate) fn class(&self) -> usize {
        self.class
    }
}

/// Free blocks by their elements.
pub(crate) struct Free<M>(BTreeMap<usize, Vec<Piece<M>>>);

impl<M> Free<M> {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The smallest block that serves, the last that was handed back of its size.
    pub(crate) fn pop(&mut self, class: usize) -> Option<Piece<M>> {
        let (&size, _) = self.0.range(serving(class)).next()?;
        let blocks = self.0.get_mut(&size)?;
        let block = blocks.pop();
        if blocks.is_empty() {
            self.0.remove(&size);
        }
        block
    }

    pub(crate) fn push(&mut self, piece: Piece<M>) {
        self.0.entry(piece.class).or_default().push(piece);
    }

    /// Adds all blocks of `other`.
    pub(crate) fn append(&mut self, other: Self) {
        for (class, mut blocks) in other.0 {
            self.0.entry(class).or_default().append(&mut blocks);
        }
    }

    fn touched(&self) -> u64 {
        self.0.values().flatten().map(|piece| piece.touched).sum()
    }

    #[cfg(test)]
    pub(crate) fn has(&self, class: usize) -> bool {
        self.0.contains_key(&class)
    }
}

/// Bytes that a device holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// What is in use now.
    pub in_use: u64,
    /// That, and what waits for its next use.
    pub held: u64,
    /// The most that was held since the last [`crate::device::Device::take_peak`].
    pub peak: u64,
}

impl Usage {
    pub(crate) const NOTHING: Self = Self { in_use: 0, held: 0, peak: 0 };

    /// Counts a block that was free.
    pub(crate) fn again<M>(&mut self, piece: &mut Piece<M>, elements: usize) {
        piece.in_use = touched_bytes(piece.class, elements);
        let more = piece.in_use.saturating_sub(piece.touched);
        piece.touched += more;
        self.in_use += piece.in_use;
        self.hold(more);
    }

    /// Counts a new block of `class` elements, in which `elements` are used.
    pub(crate) fn begin<M>(&mut self, memory: M, class: usize, elements: usize) -> Piece<M> {
        let touched = touched_bytes(class, elements);
        self.in_use += touched;
        self.hold(touched);
        Piece { memory, class, touched, in_use: touched }
    }

    /// A block goes back to the free ones.
    pub(crate) fn give<M>(&mut self, piece: &Piece<M>) {
        self.in_use = self.in_use.saturating_sub(piece.in_use);
    }

    /// A block's memory goes back to where it came from.
    pub(crate) fn lose<M>(&mut self, piece: &Piece<M>) {
        self.in_use = self.in_use.saturating_sub(piece.in_use);
        self.held = self.held.saturating_sub(piece.touched);
    }

    /// The memory of free blocks goes back to where it came from.
    pub(crate) fn release<M>(&mut self, free: &Free<M>) {
        self.held = self.held.saturating_sub(free.touched());
    }

    fn hold(&mut self, more: u64) {
        self.held += more;
        self.peak = self.peak.max(self.held);
    }

    /// Memory that is not recycled.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.in_use += bytes;
        self.hold(bytes);
    }

    /// Such memory goes back.
    pub(crate) fn subtract(&mut self, bytes: u64) {
        self.in_use = self.in_use.saturating_sub(bytes);
        self.held = self.held.saturating_sub(bytes);
    }

    /// The peak, from here on counted anew.
    pub(crate) fn take_peak(&mut self) -> u64 {
        std::mem::replace(&mut self.peak, self.held)
    }
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
    fn what_is_held_is_what_was_touched() {
        let (mut usage, mut free) = (Usage::NOTHING, Free::new());
        let piece = usage.begin((), size_class(100_000), 100_000);
        assert_eq!((usage.in_use, usage.held), (400_000, 400_000));
        usage.give(&piece);
        free.push(piece);
        // A part of it again, and more of it.
        let mut piece = free.pop(size_class(99_000)).unwrap();
        usage.again(&mut piece, 99_000);
        assert_eq!((usage.in_use, usage.held), (396_000, 400_000));
        usage.give(&piece);
        usage.again(&mut piece, 101_000);
        assert_eq!(usage.held, 404_000);
        // Large blocks are whole huge pages.
        let large = usage.begin((), size_class(1_100_000), 1_100_000);
        assert_eq!(usage.held, 404_000 + 3 * HUGE_PAGE_BYTES as u64);
        usage.lose(&large);
        usage.give(&piece);
        free.push(piece);
        usage.release(&free);
        assert_eq!((usage.in_use, usage.held), (0, 0));
        assert_eq!(usage.take_peak(), 404_000 + 3 * HUGE_PAGE_BYTES as u64);
        assert_eq!(usage.peak, 0);
    }
}
