//! The size of a tile of a left factor.

/// Words of a tile row: 64 bytes, 32 numbers.
pub(crate) const TILE_WORDS: usize = 16;

/// Rows of a tile of the left factor.
pub(super) const TILE_ROWS: usize = 16;
