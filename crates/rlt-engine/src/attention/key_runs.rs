//! Keys in runs and tiles.

use super::layout::{AttentionShape, Layout, Segment};
use crate::tile::PANEL;

/// Segments cut into runs of so many keys, each segment beginning a new run.
pub(super) struct KeyRuns {
    /// First row in the batch and number of keys of each run.
    pub rows: Vec<(usize, usize)>,
    /// First run of each segment of the layout; nothing for those that are left out.
    first: Vec<Option<usize>>,
}

impl KeyRuns {
    /// Of some `segments` of `layout`, `size` keys a run.
    pub(super) fn new(layout: &Layout, segments: impl Iterator<Item = usize>, size: usize) -> Self {
        let (mut rows, mut first) = (Vec::new(), vec![None; layout.segments().len()]);
        for index in segments {
            let Segment { start, len, .. } = layout.segments()[index];
            first[index] = Some(rows.len());
            rows.extend((0..len).step_by(size).map(|at| (start + at, size.min(len - at))));
        }
        Self { rows, first }
    }

    /// The run that a tile of keys begins with, if runs are of `size` keys.
    pub(super) fn of(&self, keys: KeyTile, size: usize) -> usize {
        self.first[keys.segment].expect("a segment that was laid out") + keys.first / size
    }
}

/// Keys of a tile: whole panels.
pub(super) const TILE_KEYS: usize = 4 * PANEL;

/// A tile of keys as seen by a tile of queries.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyTile {
    /// Index of the keys' segment in the layout.
    pub segment: usize,
    /// First key, relative to the segment.
    pub first: usize,
    /// Number of keys.
    pub len: usize,
    /// Keys visible to the first query of the query tile (none where below 1); each later query sees one
    /// more, up to all.
    visible_to_first: isize,
    /// Keys that have left the window of the first query (none where below 1); each later query sees one less.
    hidden_to_first: isize,
}

impl KeyTile {
    /// How many of the tile's keys query `i` of the query tile sees.
    pub(super) fn visible(&self, i: usize) -> usize {
        (self.visible_to_first + i as isize).clamp(0, self.len as isize) as usize
    }

    /// The first query of the query tile that sees the key at `key`: one that the tile does not have, if none does.
    pub(super) fn first_that_sees(&self, key: usize) -> usize {
        (key as isize + 1 - self.visible_to_first).max(0) as usize
    }

    /// How many of these are hidden from it again, as its window begins after them.
    pub(super) fn hidden(&self, i: usize) -> usize {
        self.hidden_to_first.saturating_add(i as isize).clamp(0, self.visible(i) as isize) as usize
    }
}

impl Layout {
    /// The key tiles that some of the queries `first..first + len` (relative to their segment) see, prefix first.
    pub(super) fn key_tiles(
        &self,
        segment: usize,
        first: usize,
        len: usize,
        shape: AttentionShape,
    ) -> impl Iterator<Item = KeyTile> {
        let prefix = self.segments()[segment].prefix;
        let before = prefix.map_or(0, |p| self.segments()[p].len);
        let position = before + first;
        // `offset`: position of the segment's first key.
        let tiles = move |segment: usize, len: usize, visible: usize, offset: usize| {
            let tiles = (0..len).step_by(TILE_KEYS).map(move |first| KeyTile {
                segment,
                first,
                len: TILE_KEYS.min(len - first),
                visible_to_first: visible as isize - first as isize,
                hidden_to_first: match shape.window {
                    Some(window) => {
                        position as isize + 1
                            - window.min(isize::MAX as usize) as isize
                            - (offset + first) as isize
                    }
                    None => isize::MIN,
                },
            });
            // The first query sees the most of what lies before.
            tiles.filter(|tile| tile.hidden_to_first < tile.len as isize)
        };
        let of_prefix = prefix.map(|p| tiles(p, before, before, 0));
        of_prefix.into_iter().flatten().chain(tiles(segment, first + len, first + 1, before))
    }
}
