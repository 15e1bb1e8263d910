//! A tile of queries and its running softmax, which products in f32 and in bf16 share.

use std::ops::Range;

use pulp::Simd;

use super::key_panels::value_cols;
use super::key_runs::{KeyTile, TILE_KEYS};
use super::layout::{AttentionShape, Layout};
use crate::arithmetic::Arithmetic;
use crate::device::Device;
use crate::parallel::SharedMut;
use crate::simd::{self, LANES, Lanes, NO_LANES};
use crate::tensor::Tensor;

/// Queries of a tile, of each query head: a multiple of the rows of a register tile, or of a block in bf16.
pub(super) fn tile_queries(arithmetic: Arithmetic) -> usize {
    match arithmetic {
        Arithmetic::F32 => 48,
        Arithmetic::Bf16 => 64,
    }
}

/// Consecutive queries of a segment, of all query heads that share one key/value head.
#[derive(Clone, Copy)]
pub(super) struct QueryTile<'a> {
    pub qkv: &'a Tensor,
    pub layout: &'a Layout,
    pub shape: AttentionShape,
    /// Index of the segment.
    pub index: usize,
    /// First query, relative to the segment.
    pub first: usize,
    /// Queries of each head.
    pub n: usize,
    pub kv_head: usize,
}

impl QueryTile<'_> {
    /// Rows of the tile: query by query, head after head.
    pub(super) fn rows(&self) -> usize {
        self.n * self.shape.queries_per_kv()
    }

    /// Those of one of its heads.
    pub(super) fn rows_of(&self, head: usize) -> Range<usize> {
        head * self.n..(head + 1) * self.n
    }

    /// Row of the first query in the batch.
    pub(super) fn first_row(&self) -> usize {
        self.layout.segments()[self.index].start + self.first
    }

    pub(super) fn query(&self, row: usize) -> &[f32] {
        let (head, query) = (self.head(row), row % self.n);
        &self.qkv.row(self.first_row() + query)[head * self.shape.head_dim..][..self.shape.head_dim]
    }

    fn head(&self, row: usize) -> usize {
        self.kv_head * self.shape.queries_per_kv() + row / self.n
    }
}

/// Buffers of one thread, for the rows of a tile.
pub(super) struct Scratch {
    /// Queries of one head x [`TILE_KEYS`].
    pub scores: Tensor,
    /// Rows x [`value_cols`].
    pub out: Tensor,
    /// Largest scaled score so far.
    pub maxima: Vec<f32>,
    /// What turns sums at the last maximum into sums at the present one.
    pub corrections: Vec<f32>,
    /// Softmax denominators so far.
    pub sums: Vec<Lanes>,
}

impl Scratch {
    pub(super) fn new(device: &Device, shape: AttentionShape, arithmetic: Arithmetic) -> Self {
        let queries = tile_queries(arithmetic);
        let rows = queries * shape.queries_per_kv();
        Self {
            scores: Tensor::scratch_on(device, queries, TILE_KEYS),
            out: Tensor::scratch_on(device, rows, value_cols(shape)),
            maxima: vec![0.0; rows],
            corrections: vec![0.0; rows],
            sums: vec![NO_LANES; rows],
        }
    }

    /// Begins a tile of `rows` rows.
    pub(super) fn begin(&mut self, rows: usize, shape: AttentionShape) {
        self.maxima[..rows].fill(shape.before_any_score());
        self.sums[..rows].fill(NO_LANES);
        self.out.data_mut()[..rows * value_cols(shape)].fill(0.0);
    }

    /// Turns one head's scores of a tile of keys into exponentials by a running maximum and sum (online softmax), and
    /// leaves in `corrections` what the sums so far are multiplied by. What is done query by query is done in several
    /// passes over them: within a pass they do not wait for one another.
    #[inline(always)]
    pub(super) fn softmax<S: Simd>(&mut self, simd: S, tile: QueryTile, head: usize, keys: KeyTile) {
        let scale = tile.shape.scale();
        self.raise_maxima(simd, tile, head, keys);
        let whole = keys.len.div_ceil(LANES);
        for (query, row) in tile.rows_of(head).enumerate() {
            let (max, mut sum) = (self.maxima[row], self.corrected_sum(row));
            let blocks = &mut self.scores_of(query)[..whole];
            let (seen, unseen) = blocks.split_at_mut(keys.visible(query).div_ceil(LANES));
            simd::exp_blocks_scaled(seen, scale, max, &mut sum);
            unseen.fill(NO_LANES);
            self.sums[row] = sum;
        }
    }

    /// Takes one head's scores of a tile of keys into the maxima of its rows, and puts negative infinity in the place of
    /// scores that are not to be seen, up to the end of a block.
    #[inline(always)]
    pub(super) fn raise_maxima<S: Simd>(&mut self, simd: S, tile: QueryTile, head: usize, keys: KeyTile) {
        let (rows, scale) = (tile.rows_of(head), tile.shape.scale());
        if tile.shape.window.is_some() {
            for query in 0..tile.n {
                self.scores_of(query).as_flattened_mut()[..keys.hidden(query)].fill(f32::NEG_INFINITY);
            }
        }
        for (query, row) in rows.clone().enumerate() {
            let seen = simd::first_blocks(self.scores_of(query), keys.visible(query));
            let max = simd::max_of_blocks(simd, seen);
            self.corrections[row] = max * scale;
        }
        for (max, correction) in self.maxima[rows.clone()].iter_mut().zip(&mut self.corrections[rows]) {
            let now = max.max(*correction);
            *correction = simd::exp(*max - now);
            *max = now;
        }
    }

    /// The sum of a row so far, at its present maximum.
    #[inline(always)]
    pub(super) fn corrected_sum(&self, row: usize) -> Lanes {
        let (correction, mut sum) = (self.corrections[row], self.sums[row]);
        for lane in &mut sum {
            *lane *= correction;
        }
        sum
    }

    /// The blocks of a query's scores.
    #[inline(always)]
    pub(super) fn scores_of(&mut self, query: usize) -> &mut [Lanes] {
        const BLOCKS: usize = TILE_KEYS / LANES;
        &mut self.scores.data_mut().as_chunks_mut().0[query * BLOCKS..][..BLOCKS]
    }

    /// Writes what a tile has come to.
    ///
    /// # Safety
    /// The tile's rows and heads of both outputs must be the caller's alone.
    #[inline(always)]
    pub(super) unsafe fn finish(&self, tile: QueryTile, out: SharedMut, log_sums: SharedMut) {
        let (shape, hd) = (tile.shape, tile.shape.head_dim);
        let values = self.out.data().chunks_exact(value_cols(shape));
        for (row, values) in values.take(tile.rows()).enumerate() {
            let (at, head) = (tile.first_row() + row % tile.n, tile.head(row));
            let sum = simd::sum_lanes(self.sums[row]);
            let inverse = 1.0 / sum;
            // SAFETY: this row's columns of this head lie inside the outputs and are the caller's.
            let (to, log_sum) = unsafe {
                let to = out.get().add((at * shape.n_heads + head) * hd);
                (std::slice::from_raw_parts_mut(to, hd), &mut *log_sums.get().add(at * shape.n_heads + head))
            };
            for (to, value) in to.iter_mut().zip(values) {
                *to = value * inverse;
            }
            *log_sum = self.maxima[row] + sum.ln();
        }
    }
}
