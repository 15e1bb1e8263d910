//! Keys and values of sequences that are being decoded, and attention of their newest tokens.
//!
//! A sequence's keys and values live in pages of 64 tokens, taken as the sequence grows and given
//! back when it ends. The pages of a prompt are shared by all completions of it. Within a page and
//! head, keys are stored column by column (so 64 scores are computed side by side) and values row
//! by row.

use std::sync::Arc;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::attention::AttentionShape;
use crate::parallel::SharedMut;
use crate::simd;
use crate::tensor::Tensor;
use crate::tile::tile;

/// Tokens of a page.
pub const PAGE_TOKENS: usize = 64;

/// Keys and values of a run of tokens, in all layers.
pub struct KvPages {
    n_layers: usize,
    shape: AttentionShape,
    /// Per page: per layer and head, keys (head_dim x 64) and values (64 x head_dim).
    pages: Vec<Tensor>,
    len: usize,
}

impl KvPages {
    /// No tokens yet.
    pub fn new(n_layers: usize, shape: AttentionShape) -> Self {
        Self { n_layers, shape, pages: Vec::new(), len: 0 }
    }

    /// Number of tokens stored in every layer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is stored.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `n` more tokens.
    fn reserve(&mut self, n: usize) {
        let head = 2 * self.shape.head_dim * PAGE_TOKENS;
        while self.pages.len() * PAGE_TOKENS < self.len + n {
            // Stale values beyond the stored tokens are never read.
            self.pages.push(Tensor::scratch(self.n_layers * self.shape.n_kv_heads, head));
        }
    }

    /// Stores the keys and values of one layer for the tokens `self.len ..`, found in consecutive
    /// rows of `qkv` from `first_row`. [`Self::advance`] makes them count.
    pub fn store(&mut self, layer: usize, qkv: &Tensor, first_row: usize, n: usize) {
        self.reserve(n);
        let (hd, heads) = (self.shape.head_dim, self.shape.n_kv_heads);
        for i in 0..n {
            let (page, slot) = ((self.len + i) / PAGE_TOKENS, (self.len + i) % PAGE_TOKENS);
            let row = qkv.row(first_row + i);
            let cols = self.pages[page].cols();
            for head in 0..heads {
                let at = (layer * heads + head) * cols;
                let (keys, values) =
                    self.pages[page].data_mut()[at..at + cols].split_at_mut(hd * PAGE_TOKENS);
                let key = &row[self.shape.key_col(head)..][..hd];
                for (d, value) in key.iter().enumerate() {
                    keys[d * PAGE_TOKENS + slot] = *value;
                }
                let value = &row[self.shape.value_col(head)..][..hd];
                values[slot * hd..(slot + 1) * hd].copy_from_slice(value);
            }
        }
    }

    /// Counts `n` tokens that were stored in every layer.
    pub fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// Keys and values of one page in one layer and head.
    fn head(&self, page: usize, layer: usize, head: usize) -> (&[f32], &[f32]) {
        let row = self.pages[page].row(layer * self.shape.n_kv_heads + head);
        row.split_at(self.shape.head_dim * PAGE_TOKENS)
    }
}

/// A sequence that is being decoded: a shared prompt and its own tokens.
pub struct KvSequence {
    /// The prompt's keys and values.
    pub prefix: Arc<KvPages>,
    /// The sequence's own.
    pub own: KvPages,
}

/// Attention of one new token per sequence, in one layer. Row `i` of `qkv` is the new token of
/// `sequences[i]`, whose key and value have been stored but not counted yet.
///
/// Returns rows x `n_heads * head_dim`. A row's bits depend on its own sequence only.
pub fn decode_attention(
    qkv: &Tensor,
    sequences: &[&KvSequence],
    layer: usize,
    shape: AttentionShape,
) -> Tensor {
    let hd = shape.head_dim;
    let mut out = Tensor::scratch(qkv.rows(), shape.n_heads * hd);
    let base = SharedMut(out.data_mut().as_mut_ptr());
    // A task is one key/value head of a run of sequences with the same prompt, so that a page of
    // the prompt is read once for all of them.
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for i in 0..sequences.len() {
        match runs.last_mut() {
            Some(run)
                if run.len() < RUN_SEQUENCES
                    && Arc::ptr_eq(&sequences[run.start].prefix, &sequences[i].prefix) =>
            {
                run.end = i + 1;
            }
            _ => runs.push(i..i + 1),
        }
    }
    let tasks: Vec<_> =
        runs.iter().flat_map(|run| (0..shape.n_kv_heads).map(move |head| (run.clone(), head))).collect();
    let arch = pulp::Arch::new();
    let work = |(run, kv_head): (std::ops::Range<usize>, usize)| {
        arch.dispatch(HeadRun { qkv, sequences, run, kv_head, layer, shape, out: base });
    };
    if sequences.len() < 4 {
        tasks.into_iter().for_each(work);
    } else {
        tasks.into_par_iter().for_each(work);
    }
    out
}

/// Sequences of a task: enough to reuse a page, few enough to leave work for every thread.
const RUN_SEQUENCES: usize = 8;

/// One key/value head of a run of sequences.
struct HeadRun<'a> {
    qkv: &'a Tensor,
    sequences: &'a [&'a KvSequence],
    run: std::ops::Range<usize>,
    kv_head: usize,
    layer: usize,
    shape: AttentionShape,
    out: SharedMut,
}

/// Running maximum, sum and weighted values of one query (online softmax).
#[derive(Clone)]
struct Running {
    max: f32,
    sum: f32,
    values: Vec<f32>,
}

/// Asks for memory that the next page will read: pages lie apart, so the hardware cannot foresee it,
/// and decoding many sequences is bound by how fast their keys and values arrive.
#[inline(always)]
fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address changes nothing but caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Adds weighted values to each query's sums, from `column` on.
#[inline(always)]
fn add_values<S: Simd, const Q: usize, const VV: usize>(
    simd: S,
    running: &mut [Running],
    column: usize,
    sums: &[[S::f32s; VV]; Q],
) {
    for (running, sums) in running.iter_mut().zip(sums) {
        let (vectors, _) = S::as_mut_simd_f32s(&mut running.values[column..column + VV * S::F32_LANES]);
        for (v, sum) in vectors.iter_mut().zip(sums) {
            *v = simd.add_f32s(*v, *sum);
        }
    }
}

impl WithSimd for HeadRun<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hd = self.shape.head_dim;
        let per_kv = self.shape.queries_per_kv();
        let query =
            |sequence: usize, r: usize| &self.qkv.row(sequence)[(self.kv_head * per_kv + r) * hd..][..hd];
        let queries: Vec<&[f32]> =
            self.run.clone().flat_map(|s| (0..per_kv).map(move |r| query(s, r))).collect();
        let fresh = Running { max: f32::NEG_INFINITY, sum: 0.0, values: vec![0.0; hd] };
        let mut running = vec![fresh; queries.len()];

        let prefix = &self.sequences[self.run.start].prefix;
        self.pages(simd, prefix, prefix.len, &queries, &mut running);
        for (i, sequence) in self.run.clone().enumerate() {
            let span = i * per_kv..(i + 1) * per_kv;
            let own = &self.sequences[sequence].own;
            self.pages(simd, own, own.len + 1, &queries[span.clone()], &mut running[span]);
        }
        for (i, running) in running.iter().enumerate() {
            let (sequence, head) = (self.run.start + i / per_kv, self.kv_head * per_kv + i % per_kv);
            let inverse = 1.0 / running.sum;
            // SAFETY: this sequence's row and this head's columns are written by this task alone.
            unsafe {
                let to = self.out.get().add((sequence * self.shape.n_heads + head) * hd);
                for (c, value) in running.values.iter().enumerate() {
                    *to.add(c) = value * inverse;
                }
            }
        }
    }
}

impl HeadRun<'_> {
    /// Lets `queries` attend to the first `n` tokens of `pages`.
    #[inline(always)]
    fn pages<S: Simd>(
        &self,
        simd: S,
        pages: &KvPages,
        n: usize,
        queries: &[&[f32]],
        running: &mut [Running],
    ) {
        for page in 0..n.div_ceil(PAGE_TOKENS) {
            let (keys, values) = pages.head(page, self.layer, self.kv_head);
            let count = PAGE_TOKENS.min(n - page * PAGE_TOKENS);
            if (page + 1) * PAGE_TOKENS < n {
                let (keys, values) = pages.head(page + 1, self.layer, self.kv_head);
                prefetch(keys);
                prefetch(values);
            }
            let mut first = 0;
            while first < queries.len() {
                let width = match queries.len() - first {
                    1 => 1,
                    2 | 3 => 2,
                    _ => 4,
                };
                let (queries, running) = (&queries[first..first + width], &mut running[first..first + width]);
                match width {
                    1 => self.page_of::<S, 1>(simd, keys, values, count, queries, running),
                    2 => self.page_of::<S, 2>(simd, keys, values, count, queries, running),
                    _ => self.page_of::<S, 4>(simd, keys, values, count, queries, running),
                }
                first += width;
            }
        }
    }

    /// One page for `Q` queries, with the vectors of this CPU: a page row is four of 512 bits, eight
    /// of 256 or sixteen of 128.
    #[inline(always)]
    fn page_of<S: Simd, const Q: usize>(
        &self,
        simd: S,
        keys: &[f32],
        values: &[f32],
        count: usize,
        queries: &[&[f32]],
        running: &mut [Running],
    ) {
        match S::F32_LANES {
            16 => self.page::<S, Q, 4, 1, 2>(simd, keys, values, count, queries, running),
            8 => self.page::<S, Q, 8, 2, 4>(simd, keys, values, count, queries, running),
            4 => self.page::<S, Q, 16, 4, 8>(simd, keys, values, count, queries, running),
            _ => self.page::<S, Q, 64, 16, 32>(simd, keys, values, count, queries, running),
        }
    }

    /// One page for `Q` queries: `KV` vectors hold 64 scores, `VV` vectors hold 16 value columns and
    /// `VV2` hold 32.
    #[inline(always)]
    fn page<S: Simd, const Q: usize, const KV: usize, const VV: usize, const VV2: usize>(
        &self,
        simd: S,
        keys: &[f32],
        values: &[f32],
        count: usize,
        queries: &[&[f32]],
        running: &mut [Running],
    ) {
        let hd = self.shape.head_dim;
        let scale = self.shape.scale();
        let queries: [&[f32]; Q] = std::array::from_fn(|q| queries[q]);
        let sums = tile::<S, Q, KV>(simd, queries, keys, PAGE_TOKENS, hd);
        let mut weights = [[0.0_f32; PAGE_TOKENS]; Q];
        for q in 0..Q {
            let (vectors, _) = S::as_mut_simd_f32s(&mut weights[q]);
            vectors.copy_from_slice(&sums[q]);
            let running = &mut running[q];
            let max = running.max.max(simd::max(&weights[q][..count]) * scale);
            let sum = simd::exp_scaled_sum(&mut weights[q][..count], scale, max);
            let correction = simd::exp(running.max - max);
            running.sum = running.sum.mul_add(correction, sum);
            running.max = max;
            for value in &mut running.values {
                *value *= correction;
            }
        }
        let weights: [&[f32]; Q] = std::array::from_fn(|q| &weights[q][..]);
        // 32 columns at a time where there are as many keep more sums in flight.
        let (pairs, whole) = (hd - hd % 32, hd - hd % 16);
        for column in (0..pairs).step_by(32) {
            let sums = tile::<S, Q, VV2>(simd, weights, &values[column..], hd, count);
            add_values(simd, running, column, &sums);
        }
        for column in (pairs..whole).step_by(16) {
            let sums = tile::<S, Q, VV>(simd, weights, &values[column..], hd, count);
            add_values(simd, running, column, &sums);
        }
        for column in whole..hd {
            for q in 0..Q {
                let sum = (0..count).fold(0.0, |s, j| weights[q][j].mul_add(values[j * hd + column], s));
                running[q].values[column] += sum;
            }
        }
    }
}
