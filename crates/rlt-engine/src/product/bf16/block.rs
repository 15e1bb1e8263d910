//! What a kernel computes at a time.

use super::tile_size::{TILE_ROWS, TILE_WORDS};
use crate::tile::PANEL;

/// A block of at most 32 rows by 32 columns.
pub(super) struct Block<'a> {
    /// Tiles of the first 16 rows and, where there are more, of the others.
    pub a: [&'a [u32]; 2],
    /// A panel.
    pub b: &'a [u32],
    /// Tiles of the inner dimension.
    pub tiles: usize,
    pub rows: usize,
    /// Where the block is written, and the elements between its rows.
    pub out: *mut f32,
    pub stride: usize,
    /// Whether the sums begin with what is there.
    pub add: bool,
}

impl Block<'_> {
    /// Checks once what a kernel's inner loop relies on.
    pub(super) fn check(&self) {
        let row_groups = self.rows.div_ceil(TILE_ROWS);
        assert!(self.rows > 0 && row_groups <= 2, "rows of a block");
        for a in &self.a[..row_groups] {
            assert!(a.len() >= self.tiles * TILE_ROWS * TILE_WORDS, "left factor of a block");
        }
        assert!(self.b.len() >= self.tiles * TILE_WORDS * PANEL, "right factor of a block");
    }
}
