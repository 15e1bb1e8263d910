//! Backward pass of packed attention: its tasks, and what those in f32 ([`super::backward_f32`]) and in bf16
//! ([`super::backward_bf16`]) share.

use rayon::prelude::*;

use super::backward_bf16::FamilyHead;
use super::backward_f32::{self, Queries};
use super::{AttentionShape, KeyTile, Layout, TILE_KEYS};
use crate::arithmetic::Arithmetic;
use crate::parallel::{SharedMut, on_this_thread};
use crate::simd;
use crate::tensor::Tensor;

/// Query rows of a tile, at most.
pub(super) const TILE_QUERIES: usize = 64;

/// Gradient of the packed query/key/value matrix, given the gradient `dout` of the output and what
/// [`super::attention`] read (`qkv`) and returned (`out`, `log_sums`).
///
/// A task is one key/value head of one family (a prefix and the segments that share it): it alone
/// adds to the keys and values of that family, in a fixed order, so the sums do not depend on the
/// number of threads.
///
/// # Panics
/// If shapes do not fit.
pub fn attention_backward(
    dout: &Tensor,
    qkv: &Tensor,
    out: &Tensor,
    log_sums: &Tensor,
    layout: &Layout,
    shape: AttentionShape,
    arithmetic: Arithmetic,
) -> Tensor {
    assert_eq!((dout.rows(), dout.cols()), (out.rows(), out.cols()), "attention gradient shape");
    // In f32 every element is written once; in bf16, whose products are quicker than copies, sums are taken in place.
    let mut dqkv = match arithmetic {
        Arithmetic::F32 => Tensor::scratch(qkv.rows(), qkv.cols()),
        Arithmetic::Bf16 => Tensor::zeros(qkv.rows(), qkv.cols()),
    };
    let dqkv_ptr = SharedMut(dqkv.data_mut().as_mut_ptr());
    let mut tasks: Vec<(Vec<usize>, usize)> = layout
        .families()
        .into_iter()
        .flat_map(|family| (0..shape.n_kv_heads).map(move |kv_head| (family.clone(), kv_head)))
        .collect();
    // The longest first, so that no thread is left alone with one at the end.
    let work = |family: &[usize]| -> usize {
        family.iter().map(|&s| layout.segments()[s]).map(|s| s.len * (s.len + 256)).sum()
    };
    tasks.sort_by_cached_key(|(family, _)| std::cmp::Reverse(work(family)));
    let inputs = Inputs { dout, qkv, out, log_sums, layout, shape };
    match arithmetic {
        Arithmetic::F32 => tasks.par_iter().for_each_init(
            || (Scratch::new(), Queries::new(&inputs)),
            |(scratch, queries), (family, kv_head)| {
                on_this_thread(|| {
                    let head = backward_f32::FamilyHead::new(&inputs, family, *kv_head);
                    // SAFETY: this task alone touches this family's rows of these heads.
                    unsafe { head.write_gradients(scratch, queries, dqkv_ptr) };
                });
            },
        ),
        Arithmetic::Bf16 => tasks.par_iter().for_each_init(Scratch::new, |scratch, (family, kv_head)| {
            // SAFETY: this task alone touches this family's rows of these heads.
            unsafe { FamilyHead::new(&inputs, family, *kv_head).add_gradients(scratch, dqkv_ptr) };
        }),
    }
    dqkv
}

pub(super) struct Inputs<'a> {
    pub dout: &'a Tensor,
    pub qkv: &'a Tensor,
    pub out: &'a Tensor,
    pub log_sums: &'a Tensor,
    pub layout: &'a Layout,
    pub shape: AttentionShape,
}

/// Buffers of one thread: probabilities and their gradients, a tile each.
pub(super) struct Scratch {
    /// Queries x [`TILE_KEYS`].
    pub p: Tensor,
    pub dp: Tensor,
}

impl Scratch {
    fn new() -> Self {
        Self { p: Tensor::scratch(TILE_QUERIES, TILE_KEYS), dp: Tensor::scratch(TILE_QUERIES, TILE_KEYS) }
    }

    /// Turns scores and the gradients of probabilities into probabilities and the gradients of scores:
    /// `P = exp(S scale - log_sum)`, `dS = P (dP - delta) scale`, for the keys that each of `n` queries sees.
    pub(super) fn softmax_backward(&mut self, keys: KeyTile, n: usize, rows: &RowSums, scale: f32) {
        simd::vectorized(
            #[inline(always)]
            || {
                let tiles = self.p.data_mut().chunks_exact_mut(TILE_KEYS);
                let tiles = tiles.zip(self.dp.data_mut().chunks_exact_mut(TILE_KEYS));
                for (i, (p, dp)) in tiles.take(n).enumerate() {
                    let visible = keys.visible(i);
                    let (p, dp) = (&mut p[..keys.len], &mut dp[..keys.len]);
                    p[visible..].fill(0.0);
                    dp[visible..].fill(0.0);
                    for (p, dp) in p[..visible].iter_mut().zip(&mut dp[..visible]) {
                        *p = simd::exp_below_one(p.mul_add(scale, -rows.log_sums[i]));
                        *dp = *p * (*dp - rows.deltas[i]) * scale;
                    }
                }
            },
        );
    }
}

/// What one head's queries of a tile need of the forward pass.
pub(super) struct RowSums {
    /// Log of the softmax denominator.
    log_sums: [f32; TILE_QUERIES],
    /// `rowsum(dO * O)`.
    deltas: [f32; TILE_QUERIES],
}

impl RowSums {
    /// Of `n` queries from batch row `row0` on.
    pub(super) fn new(inputs: &Inputs, row0: usize, n: usize, head: usize) -> Self {
        let span = head * inputs.shape.head_dim..(head + 1) * inputs.shape.head_dim;
        let mut sums = Self { log_sums: [0.0; TILE_QUERIES], deltas: [0.0; TILE_QUERIES] };
        simd::vectorized(
            #[inline(always)]
            || {
                for i in 0..n {
                    sums.log_sums[i] = inputs.log_sums.row(row0 + i)[head];
                    let (dout, out) = (inputs.dout.row(row0 + i), inputs.out.row(row0 + i));
                    sums.deltas[i] = simd::dot(&dout[span.clone()], &out[span.clone()]);
                }
            },
        );
        sums
    }
}
