//! Runs of numbers that become a row of a tile.

use super::tile_size::TILE_WORDS;

/// Numbers of a tile's row.
pub(super) const NUMBERS: usize = 2 * TILE_WORDS;

/// Work that rounds runs of numbers, which come out of its own computations, into words.
pub(crate) trait WithRounding {
    /// Runs it; `round` makes 16 words of 32 numbers. Mark it `#[inline(always)]`.
    fn with_rounding(self, round: impl Fn(&[f32; NUMBERS], &mut [u32; TILE_WORDS]) + Copy);
}
