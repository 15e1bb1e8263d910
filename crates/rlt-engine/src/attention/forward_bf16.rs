//! A tile of attention's forward pass with products in bf16.

use std::f32::consts::LOG2_E;

use pulp::{Simd, WithSimd, bytemuck};

use super::key_panels::value_cols;
use super::key_runs::{KeyTile, TILE_KEYS};
use super::key_tiles::{KeyTiles, head_view};
use super::layout::AttentionShape;
use super::query_tile::{QueryTile, Scratch, tile_queries};
use crate::arithmetic::Arithmetic;
use crate::buffer::{self, Buffer};
use crate::device::Device;
use crate::output::Output;
use crate::product::bf16::{
    Kernel, Left, TILE_WORDS, WithRounding, left_row_mut, small_product, vectorized_with_rounding,
};
use crate::simd::{self, LANES, Lanes, Vectors};
use crate::tile::PANEL;

/// Left factors of one thread, and what a product with values comes to.
pub(super) struct Factors {
    /// Queries of every head, then probabilities of one head.
    words: Buffer,
    /// Words of one head's queries.
    of_head: usize,
    /// Queries x [`value_cols`], of one head.
    products: Buffer,
}

impl Factors {
    pub(super) fn new(device: &Device, shape: AttentionShape) -> Self {
        let queries = tile_queries(Arithmetic::Bf16);
        let of_head = queries * shape.head_dim.next_multiple_of(32) / 2;
        let words = shape.queries_per_kv() * of_head + queries * TILE_KEYS / 2;
        let products = queries * value_cols(shape);
        Self { words: buffer::take(device, words), of_head, products: buffer::take(device, products) }
    }
}

impl Drop for Factors {
    fn drop(&mut self) {
        buffer::give(std::mem::take(&mut self.words));
        buffer::give(std::mem::take(&mut self.products));
    }
}

/// As the f32 tile of [`super::forward`]; [`Scratch::finish`] writes the result.
pub(super) fn attend_bf16(tile: QueryTile, keys: &KeyTiles<2>, scratch: &mut Scratch, factors: &mut Factors) {
    let (kernel, vectors) = (Kernel::of_this_cpu(), Vectors::in_use());
    let (shape, n, vd, of_head) = (tile.shape, tile.n, value_cols(tile.shape), factors.of_head);
    let per_kv = shape.queries_per_kv();
    let words: &mut [u32] = bytemuck::cast_slice_mut(&mut factors.words);
    let (queries, probabilities) = words.split_at_mut(per_kv * of_head);
    let mut components = 0;
    for (head, words) in queries.chunks_exact_mut(of_head).enumerate() {
        let column = (tile.kv_head * per_kv + head) * shape.head_dim;
        let view = head_view(tile.qkv, tile.first_row(), column, n, shape.head_dim);
        components = Left::of_rows(view).lay_out_all(words);
    }
    scratch.begin(tile.rows(), shape);
    kernel.on(|| {
        for tile_of_keys in tile.layout.key_tiles(tile.index, tile.first, n, tile.shape) {
            let [keys, values] = keys.get(tile.kv_head, tile_of_keys);
            // Rows of scores have room for whole panels, which need not be put together elsewhere.
            let whole = tile_of_keys.len.next_multiple_of(PANEL);
            // Head by head: the scores of one stay in the first-level cache.
            for (head, queries) in queries.chunks_exact(of_head).enumerate() {
                let scores = scratch.scores.data_mut()[..n * TILE_KEYS].as_mut_ptr();
                // SAFETY: n rows of scores.
                unsafe {
                    small_product(
                        kernel,
                        queries,
                        components,
                        keys,
                        (n, whole),
                        scores,
                        TILE_KEYS,
                        Output::Replace,
                    );
                }
                vectors.run(Maxima { scratch, tile, head, keys: tile_of_keys });
                let inner = whole / PANEL;
                vectorized_with_rounding(Probabilities {
                    scratch,
                    tile,
                    head,
                    keys: tile_of_keys,
                    words: probabilities,
                });
                let products = factors.products.as_mut_ptr();
                // SAFETY: n rows of products, whole panels.
                unsafe {
                    small_product(
                        kernel,
                        probabilities,
                        inner,
                        values,
                        (n, vd),
                        products,
                        vd,
                        Output::Replace,
                    );
                }
                let out = scratch.out.data_mut()[head * n * vd..][..n * vd].chunks_exact_mut(vd);
                let corrections = &scratch.corrections[head * n..];
                simd::vectorized(
                    #[inline(always)]
                    || {
                        for ((out, products), correction) in
                            out.zip(factors.products.chunks_exact(vd)).zip(corrections)
                        {
                            for (out, product) in out.iter_mut().zip(products) {
                                *out = out.mul_add(*correction, *product);
                            }
                        }
                    },
                );
            }
        }
    });
}

/// [`Scratch::raise_maxima`] by the instructions that this processor has.
struct Maxima<'a> {
    scratch: &'a mut Scratch,
    tile: QueryTile<'a>,
    head: usize,
    keys: KeyTile,
}

impl WithSimd for Maxima<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.scratch.raise_maxima(simd, self.tile, self.head, self.keys);
    }
}

/// Exponentials of one head's scores, added to the sums and laid out as a left factor: those of keys that are not to
/// be seen are zero.
struct Probabilities<'a> {
    scratch: &'a mut Scratch,
    tile: QueryTile<'a>,
    head: usize,
    keys: KeyTile,
    words: &'a mut [u32],
}

impl WithRounding for Probabilities<'_> {
    #[inline(always)]
    fn with_rounding(self, round: impl Fn(&Lanes, &mut [u32; TILE_WORDS]) + Copy) {
        let Self { scratch, tile, head, keys, words } = self;
        // Powers of two, which the processor has.
        let scale = tile.shape.scale() * LOG2_E;
        let whole = keys.len.div_ceil(LANES);
        for (query, row) in tile.rows_of(head).enumerate() {
            let shift = scratch.maxima[row] * LOG2_E;
            let mut sum = scratch.corrected_sum(row);
            let seen = keys.visible(query).div_ceil(LANES);
            let scores = &scratch.scores_of(query)[..seen];
            let mut to = left_row_mut(words, whole, query);
            for (block, to) in scores.iter().zip(&mut to) {
                round(&simd::coarse_exp2_block(block, scale, shift, &mut sum), to);
            }
            to.for_each(|unseen| unseen.fill(0));
            scratch.sums[row] = sum;
        }
    }
}
