//! What the tasks of attention's backward pass in f32 and in bf16 share: their inputs, and the softmax of a tile.

use super::key_runs::{KeyTile, TILE_KEYS};
use super::layout::{AttentionShape, Layout};
use crate::device::Device;
use crate::simd;
use crate::tensor::Tensor;

/// Query rows of a tile, at most.
pub(super) const TILE_QUERIES: usize = 64;

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
    pub(super) fn new(device: &Device) -> Self {
        Self {
            p: Tensor::scratch_on(device, TILE_QUERIES, TILE_KEYS),
            dp: Tensor::scratch_on(device, TILE_QUERIES, TILE_KEYS),
        }
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
                    let (hidden, visible) = (keys.hidden(i), keys.visible(i));
                    let (p, dp) = (&mut p[..keys.len], &mut dp[..keys.len]);
                    for x in [&mut *p, &mut *dp] {
                        x[..hidden].fill(0.0);
                        x[visible..].fill(0.0);
                    }
                    for (p, dp) in p[hidden..visible].iter_mut().zip(&mut dp[hidden..visible]) {
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
