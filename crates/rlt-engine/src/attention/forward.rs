//! Forward pass of packed attention.

use rayon::prelude::*;

use super::{AttentionShape, Layout, Segment, TILE_KEYS, TILE_QUERIES, key_tiles};
use crate::matmul::{Output, View, gemm};
use crate::parallel::SharedMut;
use crate::simd;
use crate::tensor::Tensor;

/// Attends within `layout`. `qkv` is the packed matrix (rows x [`AttentionShape::qkv_cols`]).
///
/// Returns the output (rows x `n_heads * head_dim`) and, per row and head, the log of the softmax
/// denominator (rows x n_heads) for the backward pass.
///
/// # Panics
/// If the matrix does not fit the layout or the shape.
pub fn attention(qkv: &Tensor, layout: &Layout, shape: AttentionShape) -> (Tensor, Tensor) {
    assert_eq!((qkv.rows(), qkv.cols()), (layout.rows(), shape.qkv_cols()), "packed qkv shape");
    let mut out = Tensor::scratch(layout.rows(), shape.n_heads * shape.head_dim);
    let mut log_sums = Tensor::scratch(layout.rows(), shape.n_heads);
    let out_ptr = SharedMut(out.data_mut().as_mut_ptr());
    let sums_ptr = SharedMut(log_sums.data_mut().as_mut_ptr());

    let mut tasks: Vec<(Segment, usize, usize)> = Vec::new();
    for segment in layout.segments() {
        for first in (0..segment.len).step_by(TILE_QUERIES) {
            tasks.extend((0..shape.n_heads).map(|head| (*segment, first, head)));
        }
    }
    tasks.par_iter().with_min_len(4).for_each_init(
        || Scratch::new(shape.head_dim),
        |scratch, &(segment, first, head)| {
            let tile = QueryTile { qkv, shape, segment, first, head };
            // SAFETY: each task writes the rows and columns of its own query tile and head only.
            unsafe { tile.attend(layout.prefix_of(&segment), scratch, out_ptr, sums_ptr) };
        },
    );
    (out, log_sums)
}

/// One head of one tile of queries.
struct QueryTile<'a> {
    qkv: &'a Tensor,
    shape: AttentionShape,
    segment: Segment,
    /// First query, relative to the segment.
    first: usize,
    head: usize,
}

/// Buffers of one thread.
struct Scratch {
    scores: Vec<f32>,
    out: Vec<f32>,
}

impl Scratch {
    fn new(head_dim: usize) -> Self {
        Self { scores: vec![0.0; TILE_QUERIES * TILE_KEYS], out: vec![0.0; TILE_QUERIES * head_dim] }
    }
}

impl QueryTile<'_> {
    /// Runs over the keys with a running maximum and sum (online softmax).
    ///
    /// # Safety
    /// No other task may touch this tile's rows and head of the outputs.
    unsafe fn attend(
        &self,
        prefix: Option<Segment>,
        scratch: &mut Scratch,
        out: SharedMut,
        log_sums: SharedMut,
    ) {
        let Self { shape, segment, first, head, .. } = *self;
        let hd = shape.head_dim;
        let n = TILE_QUERIES.min(segment.len - first);
        let kv_head = head / shape.queries_per_kv();
        let scale = shape.scale();
        let view = |row: usize, col: usize| View {
            data: self.qkv.data()[row * self.qkv.cols() + col..].as_ptr(),
            row_stride: self.qkv.cols() as isize,
            col_stride: 1,
        };
        let queries = view(segment.start + first, head * hd);
        let mut maxima = [f32::NEG_INFINITY; TILE_QUERIES];
        let mut sums = [0.0_f32; TILE_QUERIES];
        scratch.out[..n * hd].fill(0.0);

        for keys in key_tiles(segment, prefix, first, n) {
            let k = view(keys.row, shape.key_col(kv_head)).transposed();
            let v = view(keys.row, shape.value_col(kv_head));
            let (scores, stride) = (scratch.scores.as_mut_ptr(), TILE_KEYS as isize);
            // SAFETY: views lie inside qkv, scores inside the scratch buffer.
            unsafe { gemm((n, keys.len, hd), scores, stride, Output::Replace, queries, k, 1.0) };
            simd::vectorized(
                #[inline(always)]
                || {
                    for i in 0..n {
                        let row = &mut scratch.scores[i * TILE_KEYS..i * TILE_KEYS + keys.len];
                        let (seen, unseen) = row.split_at_mut(keys.visible(i));
                        unseen.fill(0.0);
                        if seen.is_empty() {
                            continue;
                        }
                        let max = maxima[i].max(simd::max(seen) * scale);
                        let sum = simd::exp_scaled_sum(seen, scale, max);
                        let correction = simd::exp(maxima[i] - max);
                        sums[i] = sums[i].mul_add(correction, sum);
                        maxima[i] = max;
                        for o in &mut scratch.out[i * hd..(i + 1) * hd] {
                            *o *= correction;
                        }
                    }
                },
            );
            let probabilities = View { data: scratch.scores.as_ptr(), row_stride: stride, col_stride: 1 };
            let (to, mode) = (scratch.out.as_mut_ptr(), Output::Accumulate);
            // SAFETY: as above.
            unsafe { gemm((n, hd, keys.len), to, hd as isize, mode, probabilities, v, 1.0) };
        }

        for i in 0..n {
            let row = segment.start + first + i;
            let inverse = 1.0 / sums[i];
            // SAFETY: this row and head belong to this task.
            unsafe {
                let to = out.get().add(row * shape.n_heads * hd + head * hd);
                for (c, value) in scratch.out[i * hd..(i + 1) * hd].iter().enumerate() {
                    *to.add(c) = value * inverse;
                }
                *log_sums.get().add(row * shape.n_heads + head) = maxima[i] + sums[i].ln();
            }
        }
    }
}
