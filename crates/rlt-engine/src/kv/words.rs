//! How a page holds numbers in bf16.

use crate::attention::AttentionShape;
use crate::bf16::rounded;
use crate::tile::PANEL;

/// Tokens of a page.
pub const PAGE_TOKENS: usize = 64;

/// How a page holds bf16 numbers: as [`crate::bf16::tile_bf16`] reads them, keys in runs of 64 and values in runs of 32
/// (the last one filled up).
#[derive(Clone, Copy)]
pub(super) struct Words {
    head_dim: usize,
}

impl Words {
    pub(super) fn of(shape: AttentionShape) -> Self {
        Self { head_dim: shape.head_dim }
    }

    /// Words of a page's keys.
    pub(super) fn keys(self) -> usize {
        self.head_dim * PAGE_TOKENS / 2
    }

    /// Words of one token's value.
    pub(super) fn value(self) -> usize {
        self.head_dim.div_ceil(PANEL) * PANEL / 2
    }

    /// Words of a page.
    pub(super) fn page(self) -> usize {
        self.keys() + PAGE_TOKENS * self.value()
    }

    /// Rounds and stores a token's key and value.
    pub(super) fn store(self, page: &mut [u32], slot: usize, key: &[f32], value: &[f32]) {
        const HALF: usize = PAGE_TOKENS / 2;
        let (keys, values) = page.split_at_mut(self.keys());
        for (words, number) in keys.chunks_exact_mut(HALF).zip(key) {
            put(&mut words[slot % HALF], slot >= HALF, *number);
        }
        let words = &mut values[slot * self.value()..(slot + 1) * self.value()];
        for (words, run) in words.chunks_exact_mut(PANEL / 2).zip(value.chunks(PANEL)) {
            words.fill(0);
            for (i, number) in run.iter().enumerate() {
                put(&mut words[i % (PANEL / 2)], i >= PANEL / 2, *number);
            }
        }
    }
}

/// Puts a rounded number into the upper or lower half of a word.
#[inline(always)]
fn put(word: &mut u32, upper: bool, number: f32) {
    *word =
        if upper { *word & 0xffff | rounded(number) << 16 } else { *word & 0xffff_0000 | rounded(number) };
}
