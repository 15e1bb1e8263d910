//! Forward pass of packed attention: the tasks, the running softmax, and the products of a tile in f32
//! ([`super::forward_bf16`] has the others).

use std::ops::Range;

use pulp::Simd;
use rayon::prelude::*;

use super::forward_bf16::{Factors, attend_bf16};
use super::key_panels::{KeyPanels, value_cols};
use super::key_tiles::{Factor, KeyTiles};
use super::{AttentionShape, KeyTile, Layout, TILE_KEYS};
use crate::arithmetic::Arithmetic;
use crate::parallel::SharedMut;
use crate::simd::{self, LANES, Lanes, NO_LANES, Vectors};
use crate::tensor::Tensor;
use crate::tile::{ByTiles, Tiled, rows_by_strip, strip};

/// Queries of a tile, of each query head: a multiple of the rows of a register tile, or of a block in bf16.
pub(super) fn tile_queries(arithmetic: Arithmetic) -> usize {
    match arithmetic {
        Arithmetic::F32 => 48,
        Arithmetic::Bf16 => 64,
    }
}

/// Attends within `layout`. `qkv` is the packed matrix (rows x [`AttentionShape::qkv_cols`]).
///
/// Returns the output (rows x `n_heads * head_dim`) and, per row and head, the log of the softmax
/// denominator (rows x n_heads) for the backward pass.
///
/// # Panics
/// If the matrix does not fit the layout or the shape.
pub fn attention(
    qkv: &Tensor,
    layout: &Layout,
    shape: AttentionShape,
    arithmetic: Arithmetic,
) -> (Tensor, Tensor) {
    assert_eq!((qkv.rows(), qkv.cols()), (layout.rows(), shape.qkv_cols()), "packed qkv shape");
    let mut out = Tensor::scratch(layout.rows(), shape.n_heads * shape.head_dim);
    let mut log_sums = Tensor::scratch(layout.rows(), shape.n_heads);
    let out_ptr = SharedMut(out.data_mut().as_mut_ptr());
    let sums_ptr = SharedMut(log_sums.data_mut().as_mut_ptr());

    let mut tiles: Vec<QueryTile> = Vec::new();
    for (index, segment) in layout.segments().iter().enumerate() {
        for first in (0..segment.len).step_by(tile_queries(arithmetic)) {
            let n = tile_queries(arithmetic).min(segment.len - first);
            tiles.extend((0..shape.n_kv_heads).map(|kv_head| QueryTile {
                qkv,
                layout,
                shape,
                index,
                first,
                n,
                kv_head,
            }));
        }
    }
    let tasks = tiles.par_iter().with_min_len(4);
    // Each task writes the rows of its own tile and the columns of its own heads only.
    match arithmetic {
        Arithmetic::F32 => {
            let (segments, heads) = (0..layout.segments().len(), 0..shape.n_kv_heads);
            let of_keys = |head| shape.key_col(head);
            let keys = &KeyPanels::across(qkv, layout, shape, segments.clone(), heads.clone(), of_keys);
            let values = &KeyPanels::inner(qkv, layout, shape, segments, heads, |head| shape.value_col(head));
            let vectors = Vectors::in_use();
            tasks.for_each_init(
                || Scratch::new(shape, arithmetic),
                |scratch, &tile| {
                    vectors.run(Tiled(Attend {
                        tile,
                        keys,
                        values,
                        scratch,
                        out: out_ptr,
                        log_sums: sums_ptr,
                    }));
                },
            );
        }
        Arithmetic::Bf16 => {
            let segments = 0..layout.segments().len();
            let factors = [Factor::KeysAcross, Factor::ValuesInner];
            let keys = KeyTiles::new(qkv, layout, shape, segments, 0..shape.n_kv_heads, factors);
            tasks.for_each_init(
                || (Scratch::new(shape, arithmetic), Factors::new(shape)),
                |(scratch, factors), &tile| {
                    attend_bf16(tile, &keys, scratch, factors);
                    // SAFETY: see above.
                    unsafe { scratch.finish(tile, out_ptr, sums_ptr) };
                },
            );
        }
    }
    (out, log_sums)
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

    /// Row of the first query in the batch.
    pub(super) fn first_row(&self) -> usize {
        self.layout.segments()[self.index].start + self.first
    }

    fn query(&self, row: usize) -> &[f32] {
        let (head, query) = (self.head(row), row % self.n);
        &self.qkv.row(self.first_row() + query)[head * self.shape.head_dim..][..self.shape.head_dim]
    }

    fn head(&self, row: usize) -> usize {
        self.kv_head * self.shape.queries_per_kv() + row / self.n
    }
}

/// How many of a tile's keys each query sees, head after head.
#[inline(always)]
pub(super) fn visible_keys(tile: QueryTile, keys: KeyTile) -> impl Iterator<Item = usize> {
    (0..tile.n).cycle().map(move |i| keys.visible(i))
}

/// Buffers of one thread, for the rows of a tile.
pub(super) struct Scratch {
    /// Rows x [`TILE_KEYS`].
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
    fn new(shape: AttentionShape, arithmetic: Arithmetic) -> Self {
        let rows = tile_queries(arithmetic) * shape.queries_per_kv();
        Self {
            scores: Tensor::scratch(rows, TILE_KEYS),
            out: Tensor::scratch(rows, value_cols(shape)),
            maxima: vec![0.0; rows],
            corrections: vec![0.0; rows],
            sums: vec![NO_LANES; rows],
        }
    }

    /// Begins a tile of `rows` rows.
    pub(super) fn begin(&mut self, rows: usize, shape: AttentionShape) {
        self.maxima[..rows].fill(f32::NEG_INFINITY);
        self.sums[..rows].fill(NO_LANES);
        self.out.data_mut()[..rows * value_cols(shape)].fill(0.0);
    }

    /// Turns the scores of a tile of keys into exponentials by a running maximum and sum (online softmax), and
    /// leaves in `corrections` what the sums so far are multiplied by. What is done row by row is done in several
    /// passes over the rows: within a pass they do not wait for one another.
    #[inline(always)]
    fn softmax<S: Simd>(&mut self, simd: S, tile: QueryTile, keys: KeyTile) {
        let (rows, scale) = (0..tile.rows(), tile.shape.scale());
        self.raise_maxima(simd, tile, rows.clone(), keys);
        let whole = keys.len.div_ceil(LANES);
        for (row, visible) in rows.zip(visible_keys(tile, keys)) {
            let (max, mut sum) = (self.maxima[row], self.corrected_sum(row));
            let blocks = &mut self.scores_of(row)[..whole];
            let (seen, unseen) = blocks.split_at_mut(visible.div_ceil(LANES));
            simd::exp_blocks_scaled(seen, scale, max, &mut sum);
            unseen.fill(NO_LANES);
            self.sums[row] = sum;
        }
    }

    /// Takes the scores of a tile of keys into the maxima of some rows, and puts negative infinity in the place of
    /// scores that are not to be seen, up to the end of a block.
    #[inline(always)]
    pub(super) fn raise_maxima<S: Simd>(
        &mut self,
        simd: S,
        tile: QueryTile,
        rows: Range<usize>,
        keys: KeyTile,
    ) {
        let scale = tile.shape.scale();
        for (row, visible) in rows.clone().zip(visible_keys(tile, keys)) {
            let seen = simd::first_blocks(self.scores_of(row), visible);
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

    /// The blocks of a row of scores.
    #[inline(always)]
    pub(super) fn scores_of(&mut self, row: usize) -> &mut [Lanes] {
        const BLOCKS: usize = TILE_KEYS / LANES;
        &mut self.scores.data_mut().as_chunks_mut().0[row * BLOCKS..][..BLOCKS]
    }

    /// Writes what a tile has come to.
    ///
    /// # Safety
    /// The tile's rows and heads of both outputs must be the caller's alone.
    #[inline(always)]
    pub(super) unsafe fn finish(&self, tile: QueryTile, out: SharedMut, log_sums: SharedMut) {
        let shape = tile.shape;
        let hd = shape.head_dim;
        for row in 0..tile.rows() {
            let (at, head) = (tile.first_row() + row % tile.n, tile.head(row));
            let sum = simd::sum_lanes(self.sums[row]);
            let inverse = 1.0 / sum;
            // SAFETY: this row's columns of this head lie inside the outputs and are the caller's.
            unsafe {
                let to = out.get().add((at * shape.n_heads + head) * hd);
                for (c, value) in self.out.row(row)[..hd].iter().enumerate() {
                    *to.add(c) = value * inverse;
                }
                *log_sums.get().add(at * shape.n_heads + head) = self.maxima[row] + sum.ln();
            }
        }
    }
}

/// The attention of one tile of queries.
struct Attend<'a> {
    tile: QueryTile<'a>,
    keys: &'a KeyPanels,
    values: &'a KeyPanels,
    scratch: &'a mut Scratch,
    out: SharedMut,
    log_sums: SharedMut,
}

impl ByTiles for Attend<'_> {
    #[inline(always)]
    fn run<S: Simd, const MR: usize, const NV: usize>(self, simd: S) {
        let Self { tile, keys: all_keys, values: all_values, scratch, out, log_sums } = self;
        let (shape, rows, vd) = (tile.shape, tile.rows(), value_cols(tile.shape));
        let queries: Vec<&[f32]> = (0..rows).map(|row| tile.query(row)).collect();
        scratch.begin(rows, shape);
        for keys in tile.layout.key_tiles(tile.index, tile.first, tile.n) {
            all_keys.scores::<S, MR, NV>(simd, tile.kv_head, keys, &queries, &mut scratch.scores);
            scratch.softmax(simd, tile, keys);
            let Scratch { scores, out: values, corrections, .. } = &mut *scratch;
            let values = values.data_mut();
            let probabilities: Vec<&[f32]> =
                scores.data().chunks_exact(TILE_KEYS).take(rows).map(|scores| &scores[..keys.len]).collect();
            for column in (0..shape.head_dim).step_by(strip::<S, NV>()) {
                let v = &all_values.from(tile.kv_head, keys)[column..];
                rows_by_strip::<S, MR, NV>(
                    simd,
                    &probabilities,
                    v,
                    vd,
                    keys.len,
                    #[inline(always)]
                    |row, products| {
                        let to = &mut values[row * vd + column..][..strip::<S, NV>()];
                        let (to, _) = S::as_mut_simd_f32s(to);
                        let correction = simd.splat_f32s(corrections[row]);
                        for v in 0..NV {
                            to[v] = simd::mul_add(simd, to[v], correction, products[v]);
                        }
                    },
                );
            }
        }
        // SAFETY: this tile's rows and heads belong to this task alone.
        unsafe { scratch.finish(tile, out, log_sums) };
    }
}
