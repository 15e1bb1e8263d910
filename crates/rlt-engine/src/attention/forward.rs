//! Forward pass of packed attention: the tasks, and the products of a tile in f32 ([`super::forward_bf16`] has the
//! others).

use pulp::Simd;
use rayon::prelude::*;

use super::forward_bf16::{Factors, attend_bf16};
use super::key_panels::{KeyPanels, value_cols};
use super::key_runs::TILE_KEYS;
use super::key_tiles::{Factor, KeyTiles};
use super::layout::{AttentionShape, Layout};
use super::query_tile::{QueryTile, Scratch, tile_queries};
use crate::arithmetic::Arithmetic;
use crate::device::Device;
use crate::parallel::SharedMut;
use crate::simd::{self, Vectors};
use crate::sizes::{Operation, Sizes};
use crate::tensor::Tensor;
use crate::tile::{ByTiles, Tiled, strip};

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
    let device = qkv.device();
    if let Device::Cuda(gpu) = device {
        let (segments, on_gpu) = (layout.on_gpu(), shape.on_gpu());
        let (out, log_sums) = match arithmetic {
            Arithmetic::Bf16 if on_gpu.suits_tensor_cores() => {
                gpu.attention_bf16(&gpu.rounded(qkv.memory()), &segments, on_gpu)
            }
            Arithmetic::F32 | Arithmetic::Bf16 => gpu.attention(qkv.memory(), &segments, on_gpu),
        };
        let features = shape.n_heads * shape.head_dim;
        return (
            Tensor::of_memory(out, layout.rows(), features),
            Tensor::of_memory(log_sums, layout.rows(), shape.n_heads),
        );
    }
    let mut out = qkv.beside(layout.rows(), shape.n_heads * shape.head_dim);
    let mut log_sums = qkv.beside(layout.rows(), shape.n_heads);
    if let Device::Sizes(sizes) = device
        && sizes.is_of_gpu()
    {
        count(sizes, layout, shape);
        let _rounded = on_tensor_cores(arithmetic, shape).then(|| qkv.rounded_on_gpu());
        return (out, log_sums);
    }
    let (out_ptr, sums_ptr) = (out.shared_mut(), log_sums.shared_mut());

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
    let tasks = tiles.par_iter().with_min_len(TILES_AT_LEAST);
    // Each task writes the rows of its own tile and the columns of its own heads only.
    match arithmetic {
        Arithmetic::F32 => {
            let (segments, heads) = (0..layout.segments().len(), 0..shape.n_kv_heads);
            let of_keys = |head| shape.key_col(head);
            let keys = &KeyPanels::across(qkv, layout, shape, segments.clone(), heads.clone(), of_keys);
            let values = &KeyPanels::inner(qkv, layout, shape, segments, heads, |head| shape.value_col(head));
            if let Device::Sizes(sizes) = device {
                count(sizes, layout, shape);
                let threads = tiles.chunks(TILES_AT_LEAST);
                sizes.in_lanes(threads, |_| drop(Scratch::new(device, shape, arithmetic)));
                return (out, log_sums);
            }
            let vectors = Vectors::in_use();
            tasks.for_each_init(
                || Scratch::new(device, shape, arithmetic),
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
            if let Device::Sizes(sizes) = device {
                count(sizes, layout, shape);
                let threads = tiles.chunks(TILES_AT_LEAST);
                sizes.in_lanes(threads, |_| {
                    drop((Scratch::new(device, shape, arithmetic), Factors::new(device, shape)));
                });
                return (out, log_sums);
            }
            tasks.for_each_init(
                || (Scratch::new(device, shape, arithmetic), Factors::new(device, shape)),
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

/// Whether a GPU's tensor cores take attention, whose operands are rounded for them first.
pub(super) fn on_tensor_cores(arithmetic: Arithmetic, shape: AttentionShape) -> bool {
    arithmetic == Arithmetic::Bf16 && shape.on_gpu().suits_tensor_cores()
}

/// Tiles that a thread takes at least.
const TILES_AT_LEAST: usize = 4;

/// Counts the forward pass without computing it: scores, and weighted values.
fn count(sizes: &Sizes, layout: &Layout, shape: AttentionShape) {
    let (keys, features) = (layout.keys_seen(shape), shape.n_heads * shape.head_dim);
    sizes.did(
        Operation::Attention,
        2.0 * keys * features as f64,
        layout.rows() * (shape.qkv_cols() + features),
    );
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
        for keys in tile.layout.key_tiles(tile.index, tile.first, tile.n, tile.shape) {
            // Head by head: the scores of one stay in the first-level cache.
            for (head, queries) in queries.chunks_exact(tile.n).enumerate() {
                all_keys.scores::<S, MR, NV>(simd, tile.kv_head, keys, queries, &mut scratch.scores);
                scratch.softmax(simd, tile, head, keys);
                let Scratch { scores, out: values, corrections, .. } = &mut *scratch;
                let values = &mut values.data_mut()[head * tile.n * vd..];
                let corrections = &corrections[head * tile.n..];
                let probabilities: Vec<&[f32]> = scores.data().chunks_exact(TILE_KEYS).take(tile.n).collect();
                for column in (0..shape.head_dim).step_by(strip::<S, NV>()) {
                    all_values.weighted::<S, MR, NV>(
                        simd,
                        tile.kv_head,
                        keys,
                        column,
                        &probabilities,
                        #[inline(always)]
                        |query, products| {
                            let to = &mut values[query * vd + column..][..strip::<S, NV>()];
                            let (to, _) = S::as_mut_simd_f32s(to);
                            let correction = simd.splat_f32s(corrections[query]);
                            for v in 0..NV {
                                to[v] = simd::mul_add(simd, to[v], correction, products[v]);
                            }
                        },
                    );
                }
            }
        }
        // SAFETY: this tile's rows and heads belong to this task alone.
        unsafe { scratch.finish(tile, out, log_sums) };
    }
}
