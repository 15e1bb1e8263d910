//! Packed causal attention over segments.
//!
//! A batch is a list of [`Segment`]s laid end to end, without padding. A segment's tokens attend
//! to the whole of its prefix segment, where it has one, and causally to themselves. So the G
//! completions of one question are G segments that share one prompt segment: the prompt's keys and
//! values are computed once, forward and backward.
//!
//! Scores are computed in tiles and never held as a whole: memory is linear in length. The forward
//! pass keeps one number a row and head (the log of the softmax denominator), from which the
//! backward pass computes the tiles again (as in FlashAttention, arXiv 2205.14135).

mod backward;
mod backward_bf16;
mod backward_f32;
mod forward;
mod forward_bf16;
mod key_gradients;
mod key_panels;
mod key_tiles;

pub use backward::attention_backward;
pub use forward::attention;

use crate::tile::PANEL;

/// Heads of an attention layer. Query, key and value heads lie side by side in a row of the packed
/// matrix: `[n_heads | n_kv_heads | n_kv_heads] x head_dim` columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; each serves `n_heads / n_kv_heads` query heads.
    pub n_kv_heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Columns of the packed query/key/value matrix.
    pub fn qkv_cols(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// Query heads per key/value head.
    pub fn queries_per_kv(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// First column of a key head.
    pub(crate) fn key_col(&self, kv_head: usize) -> usize {
        (self.n_heads + kv_head) * self.head_dim
    }

    /// First column of a value head.
    pub(crate) fn value_col(&self, kv_head: usize) -> usize {
        (self.n_heads + self.n_kv_heads + kv_head) * self.head_dim
    }

    /// Scores are divided by the root of the head width.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// A run of rows of the packed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First row.
    pub start: usize,
    /// Number of rows.
    pub len: usize,
    /// Index of the segment whose tokens come before these; it has no prefix of its own.
    pub prefix: Option<usize>,
}

/// Which rows of a packed batch belong together, and where each stands in its sequence.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    segments: Vec<Segment>,
    positions: Vec<u32>,
}

impl Layout {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a segment of `len` rows after the rows so far and returns its index.
    ///
    /// # Panics
    /// If the prefix does not exist yet or has a prefix itself.
    pub fn push(&mut self, len: usize, prefix: Option<usize>) -> usize {
        let offset = prefix.map_or(0, |p| {
            assert!(self.segments[p].prefix.is_none(), "a prefix segment has no prefix");
            self.segments[p].len
        });
        self.segments.push(Segment { start: self.positions.len(), len, prefix });
        self.positions.extend((offset..offset + len).map(|p| p as u32));
        self.segments.len() - 1
    }

    /// The segments in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Position of every row in its sequence.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.positions.len()
    }

    /// Each segment without a prefix, with the segments that have it as theirs.
    pub(crate) fn families(&self) -> Vec<Vec<usize>> {
        let mut families: Vec<Vec<usize>> = Vec::new();
        let mut family_of = vec![usize::MAX; self.segments.len()];
        for (index, segment) in self.segments.iter().enumerate() {
            if let Some(prefix) = segment.prefix {
                families[family_of[prefix]].push(index);
            } else {
                family_of[index] = families.len();
                families.push(vec![index]);
            }
        }
        families
    }
}

/// Segments cut into runs of so many keys, each segment beginning a new run.
struct KeyRuns {
    /// First row in the batch and number of keys of each run.
    rows: Vec<(usize, usize)>,
    /// First run of each segment of the layout; nothing for those that are left out.
    first: Vec<Option<usize>>,
}

impl KeyRuns {
    /// Of some `segments` of `layout`, `size` keys a run.
    fn new(layout: &Layout, segments: impl Iterator<Item = usize>, size: usize) -> Self {
        let (mut rows, mut first) = (Vec::new(), vec![None; layout.segments.len()]);
        for index in segments {
            let Segment { start, len, .. } = layout.segments[index];
            first[index] = Some(rows.len());
            rows.extend((0..len).step_by(size).map(|at| (start + at, size.min(len - at))));
        }
        Self { rows, first }
    }

    /// The run that a tile of keys begins with, if runs are of `size` keys.
    fn of(&self, keys: KeyTile, size: usize) -> usize {
        self.first[keys.segment].expect("a segment that was laid out") + keys.first / size
    }
}

/// Keys of a tile: whole panels.
const TILE_KEYS: usize = 4 * PANEL;

/// A tile of keys as seen by a tile of queries.
#[derive(Debug, Clone, Copy)]
struct KeyTile {
    /// Index of the keys' segment in the layout.
    segment: usize,
    /// First key, relative to the segment.
    first: usize,
    /// Number of keys.
    len: usize,
    /// Keys visible to the first query of the query tile (none where below 1); each later query sees one
    /// more, up to all.
    visible_to_first: isize,
}

impl KeyTile {
    /// How many of the tile's keys query `i` of the query tile sees.
    fn visible(&self, i: usize) -> usize {
        (self.visible_to_first + i as isize).clamp(0, self.len as isize) as usize
    }
}

impl Layout {
    /// The key tiles of queries `first..first + len` (relative to their segment), prefix first.
    fn key_tiles(&self, segment: usize, first: usize, len: usize) -> impl Iterator<Item = KeyTile> {
        let tiles = |segment: usize, len: usize, visible: usize| {
            (0..len).step_by(TILE_KEYS).map(move |first| KeyTile {
                segment,
                first,
                len: TILE_KEYS.min(len - first),
                visible_to_first: visible as isize - first as isize,
            })
        };
        let prefix = self.segments[segment].prefix;
        let of_prefix = prefix.map(|p| tiles(p, self.segments[p].len, self.segments[p].len));
        of_prefix.into_iter().flatten().chain(tiles(segment, first + len, first + 1))
    }
}
