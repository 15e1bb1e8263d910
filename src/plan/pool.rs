//! The engine's recycled memory, without the memory: which blocks a run asks for, and how much of them it touches.

use std::collections::BTreeMap;

use rlt_engine::tensor::{block_elements, blocks_serving};

/// Huge pages: a large block is touched by whole ones.
const HUGE_PAGE_BYTES: u64 = 2 << 20;
/// Elements from which on a block has memory of its own, and with it huge pages of its own.
const OWN_MEMORY_ELEMENTS: usize = 1 << 20;

/// A block in use.
#[derive(Debug)]
#[must_use]
pub struct Block {
    /// Its own elements, which may be more than were asked for.
    class: usize,
    touched: u64,
}

/// What would be held.
#[derive(Debug, Default)]
pub struct Pool {
    /// Bytes touched of the free blocks, by class.
    free: BTreeMap<usize, Vec<u64>>,
    held: u64,
    peak: u64,
}

impl Pool {
    /// A pool beside `bytes` of memory of other kinds.
    pub fn beside(bytes: u64) -> Self {
        Self { held: bytes, peak: bytes, ..Self::default() }
    }

    /// A block of `elements` numbers of 4 bytes, all of them written.
    pub fn take(&mut self, elements: usize) -> Block {
        let class = block_elements(elements);
        let bytes = match class {
            0 => 0,
            class if class >= OWN_MEMORY_ELEMENTS => (4 * elements as u64).next_multiple_of(HUGE_PAGE_BYTES),
            _ => 4 * elements as u64,
        };
        let (class, before) = self.recycled(class).unwrap_or((class, 0));
        let touched = before.max(bytes);
        self.hold(touched - before);
        Block { class, touched }
    }

    /// Elements and bytes touched of the smallest free block that serves.
    fn recycled(&mut self, class: usize) -> Option<(usize, u64)> {
        let (&size, _) = self.free.range(blocks_serving(class)).next()?;
        let blocks = self.free.get_mut(&size)?;
        let touched = blocks.pop()?;
        if blocks.is_empty() {
            self.free.remove(&size);
        }
        Some((size, touched))
    }

    /// Hands a block back.
    pub fn give(&mut self, Block { class, touched }: Block) {
        if class > 0 {
            self.free.entry(class).or_default().push(touched);
        }
    }

    /// Hands blocks back.
    pub fn give_all(&mut self, blocks: impl IntoIterator<Item = Block>) {
        for block in blocks {
            self.give(block);
        }
    }

    /// A block that is needed for a moment.
    pub fn touch(&mut self, elements: usize) {
        let block = self.take(elements);
        self.give(block);
    }

    /// Memory that does not come from the pool and stays.
    pub fn hold(&mut self, bytes: u64) {
        self.held += bytes;
        self.peak = self.peak.max(self.held);
    }

    /// Memory that does not come from the pool, for a moment.
    pub fn pass(&mut self, bytes: u64) {
        self.hold(bytes);
        self.held -= bytes;
    }

    /// Gives the free blocks back to the operating system.
    pub fn release(&mut self) {
        self.held -= std::mem::take(&mut self.free).into_values().flatten().sum::<u64>();
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Most bytes held so far, from here on counted anew.
    pub fn take_peak(&mut self) -> u64 {
        std::mem::replace(&mut self.peak, self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_used_again_within_their_class_and_released() {
        let mut pool = Pool::beside(1000);
        let (a, b) = (pool.take(100_000), pool.take(100_000));
        pool.give(a);
        let c = pool.take(99_000);
        assert_eq!(pool.held(), 1000 + 2 * 400_000);
        pool.give(b);
        pool.give(c);
        pool.touch(300_000);
        assert_eq!(pool.take_peak(), 1000 + 2 * 400_000 + 1_200_000);
        pool.release();
        assert_eq!(pool.held(), 1000);
        // What the allocator handles is not counted; large blocks are whole huge pages.
        pool.touch(100);
        pool.touch(1_100_000);
        assert_eq!(pool.take_peak(), 1000 + 3 * HUGE_PAGE_BYTES);
        pool.pass(7);
        assert_eq!(pool.held(), 1000 + 3 * HUGE_PAGE_BYTES);
    }
}
