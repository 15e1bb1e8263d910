//! Heads, and which rows of a packed batch belong together.

use rlt_cuda::Span;

/// Heads of an attention layer. Query, key and value heads lie side by side in a row of the packed
/// matrix: `[n_heads | n_kv_heads | n_kv_heads] x head_dim` columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; each serves `n_heads / n_kv_heads` query heads.
    pub n_kv_heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// Tokens that one sees, its own and those before it; none: all of these.
    pub window: Option<usize>,
    /// What scores are divided by the root of.
    pub score_divisor: f32,
}

impl AttentionShape {
    /// Attention to all tokens before, of scores divided by the root of the head width.
    pub const fn full(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> Self {
        Self { n_heads, n_kv_heads, head_dim, window: None, score_divisor: head_dim as f32 }
    }

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

    /// What scores are multiplied by.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / self.score_divisor.sqrt()
    }

    /// The same for a GPU.
    pub(crate) fn on_gpu(&self) -> rlt_cuda::AttentionShape {
        rlt_cuda::AttentionShape {
            heads: self.n_heads,
            kv_heads: self.n_kv_heads,
            width: self.head_dim,
            window: self.window.unwrap_or(0),
            scale: self.scale(),
        }
    }

    /// The first position that a token at `position` sees.
    pub(crate) fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Where a running maximum begins: below all scores, and finite where a token may see none of the first keys that
    /// pass by, so that nothing is taken from infinity.
    pub(crate) fn before_any_score(&self) -> f32 {
        if self.window.is_some() { -1e30 } else { f32::NEG_INFINITY }
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

    /// The segments as a GPU takes them: each with the one before it, empty without one.
    pub(crate) fn on_gpu(&self) -> Vec<(Span, Span)> {
        let span = |segment: Segment| Span { row: segment.start, len: segment.len };
        let prefix = |prefix: Option<usize>| prefix.map(|prefix| span(self.segments[prefix]));
        let segments = self.segments.iter();
        segments.map(|s| (span(*s), prefix(s.prefix).unwrap_or(Span { row: 0, len: 0 }))).collect()
    }

    /// Keys seen, summed over the rows.
    pub(crate) fn keys_seen(&self, shape: AttentionShape) -> f64 {
        // Up to the window's length each token sees one more.
        let of_first = |tokens: usize| {
            let window = shape.window.unwrap_or(usize::MAX).min(tokens) as f64;
            window * (window + 1.0) / 2.0 + (tokens as f64 - window) * window
        };
        let of_segment = |segment: &Segment| {
            let before = segment.prefix.map_or(0, |prefix| self.segments[prefix].len);
            of_first(before + segment.len) - of_first(before)
        };
        self.segments.iter().map(of_segment).sum()
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
