//! Backward pass of packed attention: the tasks, and a tile of one in f32 ([`super::backward_bf16`] has the other).

use rayon::prelude::*;

use super::backward_bf16::FamilyHead;
use super::key_panels::KeyPanels;
use super::{AttentionShape, KeyTile, Layout, TILE_KEYS};
use crate::arithmetic::Arithmetic;
use crate::matmul::Output;
use crate::parallel::SharedMut;
use crate::product::{Product, Right, View};
use crate::simd;
use crate::tensor::Tensor;

/// Query rows of a tile.
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
    let mut dqkv = Tensor::zeros(qkv.rows(), qkv.cols());
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
        Arithmetic::F32 => {
            let keys = KeyPanels::across(qkv, layout, shape, |head| shape.key_col(head));
            let values = KeyPanels::across(qkv, layout, shape, |head| shape.value_col(head));
            tasks.par_iter().for_each_init(Scratch::new, |scratch, (family, kv_head)| {
                for &index in family {
                    for first in (0..layout.segments()[index].len).step_by(TILE_QUERIES) {
                        for r in 0..shape.queries_per_kv() {
                            let head = kv_head * shape.queries_per_kv() + r;
                            // SAFETY: this task alone touches this family's rows of these heads.
                            unsafe { inputs.tile([&keys, &values], index, first, head, scratch, dqkv_ptr) };
                        }
                    }
                }
            });
        }
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

impl Inputs<'_> {
    /// Adds the gradients that one head of one query tile gives to its queries, keys and values:
    /// with P = softmax(Q K^T scale), `dV += P^T dO`, `dP = dO V^T`,
    /// `dS = P * (dP - rowsum(dO * O))`, `dQ += dS K scale`, `dK += dS^T Q scale`.
    ///
    /// # Safety
    /// No other task may touch these rows and heads of `dqkv`.
    unsafe fn tile(
        &self,
        [all_keys, all_values]: [&KeyPanels; 2],
        segment: usize,
        first: usize,
        head: usize,
        scratch: &mut Scratch,
        dqkv: SharedMut,
    ) {
        let shape = self.shape;
        let hd = shape.head_dim;
        let segments = self.layout.segments();
        let n = TILE_QUERIES.min(segments[segment].len - first);
        let kv_head = head / shape.queries_per_kv();
        let cols = self.qkv.cols();
        let row0 = segments[segment].start + first;
        let (q, dout) = (view(self.qkv, row0, head * hd), view(self.dout, row0, head * hd));
        // SAFETY: row and column lie inside the matrix.
        let at = |row: usize, col: usize| SharedMut(unsafe { dqkv.get().add(row * cols + col) });

        let sums = RowSums::new(self, row0, n, head);
        for keys in self.layout.key_tiles(segment, first, n) {
            let key_row = segments[keys.segment].start + keys.first;
            let [k_across, v_across] = [all_keys, all_values].map(|panels| Right::Panels {
                data: panels.from(kv_head, keys),
                elements: panels.panel_elements(),
            });
            let (p, dp) =
                (SharedMut(scratch.p.data_mut().as_mut_ptr()), SharedMut(scratch.dp.data_mut().as_mut_ptr()));
            // SAFETY: a tile of scores lies inside its buffer.
            unsafe {
                let scores = (n, keys.len, hd);
                Product::new(scores, q, k_across, p, TILE_KEYS, Output::Replace).compute_all();
                Product::new(scores, dout, v_across, dp, TILE_KEYS, Output::Replace).compute_all();
            }
            scratch.softmax_backward(keys, n, &sums, shape.scale());
            let (p, ds) = (View::of(&scratch.p), View::of(&scratch.dp));
            let k = view(self.qkv, key_row, shape.key_col(kv_head));
            let (dk, dv) = (at(key_row, shape.key_col(kv_head)), at(key_row, shape.value_col(kv_head)));
            let (of_keys, of_queries) = ((keys.len, hd, n), (n, hd, keys.len));
            let dq = at(row0, head * hd);
            // SAFETY: the written rows and columns belong to this task.
            unsafe {
                let add = Output::Accumulate;
                Product::new(of_keys, p.transposed(), Right::Rows(dout), dv, cols, add).compute_all();
                Product::new(of_queries, ds, Right::Rows(k), dq, cols, add).compute_all();
                Product::new(of_keys, ds.transposed(), Right::Rows(q), dk, cols, add).compute_all();
            }
        }
    }
}

/// `x` from an element on.
fn view(x: &Tensor, row: usize, col: usize) -> View<'_> {
    View::rows(&x.data()[row * x.cols() + col..], x.cols())
}
