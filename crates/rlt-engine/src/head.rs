//! The log-probability head: `log softmax(h . W^T / T)` at given target tokens, in chunks of rows.
//!
//! The logits of one chunk exist at a time; rows x vocabulary never does.
//!
//! Shape legend: R scored tokens, D hidden width, V vocabulary.

use rayon::prelude::*;

use crate::matmul::{Output, matmul_nn, matmul_nt, matmul_tn};
use crate::simd;
use crate::tensor::Tensor;

/// Logits held at once, elements (64 MiB).
const CHUNK_ELEMENTS: usize = 16 << 20;

/// Rows of a chunk: a function of the vocabulary only, so that results have a fixed shape.
fn chunk_rows(vocab: usize) -> usize {
    (CHUNK_ELEMENTS / vocab).clamp(64, 512)
}

/// Log-probabilities (nats) of `targets[i]` after hidden state `rows[i]` of `hidden` (M x D), under
/// the output matrix `w` (V x D) at `temperature`.
///
/// # Panics
/// If lengths differ or a target is not below V.
pub fn token_logprobs(
    hidden: &Tensor,
    rows: &[usize],
    w: &Tensor,
    targets: &[u32],
    temperature: f32,
) -> Vec<f32> {
    let mut logprobs = Vec::with_capacity(rows.len());
    for (rows, targets) in rows.chunks(chunk_rows(w.rows())).zip(targets.chunks(chunk_rows(w.rows()))) {
        let h = hidden.gather_rows(rows);
        let mut logits = Tensor::scratch(rows.len(), w.rows());
        matmul_nt(&h, w, &mut logits, Output::Replace);
        logprobs.extend(chunk_logprobs(&logits, targets, temperature).into_iter().map(|(_, lp)| lp));
    }
    logprobs
}

/// Per row: the log of the softmax denominator and the target's log-probability.
fn chunk_logprobs(logits: &Tensor, targets: &[u32], temperature: f32) -> Vec<(f32, f32)> {
    let scale = 1.0 / temperature;
    (0..logits.rows())
        .into_par_iter()
        .with_min_len(8)
        .map(|i| {
            let row = logits.row(i);
            let log_sum = log_sum_exp(row, scale);
            (log_sum, row[targets[i] as usize].mul_add(scale, -log_sum))
        })
        .collect()
}

/// `ln sum_v exp(x_v * scale)`.
pub(crate) fn log_sum_exp(x: &[f32], scale: f32) -> f32 {
    simd::vectorized(
        #[inline(always)]
        || {
            let max = simd::max(x) * scale;
            max + simd::sum_exp_scaled(x, scale, max).ln()
        },
    )
}

/// Forward and backward pass of the head in one sweep over the chunks.
///
/// `gradient(i, logprobs)` is called for each chunk with the index of its first token and its
/// log-probabilities, and returns the derivative of the loss by each. The hidden states' gradient
/// is added to `dhidden` (M x D) and the output matrix's, where it is wanted, to `dw` (V x D).
/// Returns all log-probabilities.
///
/// Gradient of a logit: `dlogit_v = g / T * ([v = target] - p_v)`.
///
/// # Errors
/// What `gradient` returns.
pub fn token_logprobs_with_backward<E>(
    hidden: &Tensor,
    rows: &[usize],
    w: &Tensor,
    targets: &[u32],
    temperature: f32,
    dhidden: &mut Tensor,
    mut dw: Option<&mut Tensor>,
    mut gradient: impl FnMut(usize, &[f32]) -> Result<Vec<f32>, E>,
) -> Result<Vec<f32>, E> {
    let mut all = Vec::with_capacity(rows.len());
    let (chunk, scale) = (chunk_rows(w.rows()), 1.0 / temperature);
    for (rows, targets) in rows.chunks(chunk).zip(targets.chunks(chunk)) {
        let h = hidden.gather_rows(rows);
        let mut logits = Tensor::scratch(rows.len(), w.rows());
        matmul_nt(&h, w, &mut logits, Output::Replace);
        let sums_and_logprobs = chunk_logprobs(&logits, targets, temperature);
        let logprobs: Vec<f32> = sums_and_logprobs.iter().map(|(_, lp)| *lp).collect();
        let g = gradient(all.len(), &logprobs)?;
        all.extend(logprobs);

        let vocab = w.rows();
        logits.data_mut().par_chunks_mut(vocab).enumerate().with_min_len(8).for_each(|(i, row)| {
            simd::vectorized(
                #[inline(always)]
                || {
                    let (log_sum, g) = (sums_and_logprobs[i].0, g[i] * scale);
                    for x in row.iter_mut() {
                        *x = -g * simd::exp(x.mul_add(scale, -log_sum));
                    }
                    row[targets[i] as usize] += g;
                },
            );
        });
        let mut dh = Tensor::scratch(rows.len(), w.cols());
        matmul_nn(&logits, w, &mut dh, Output::Replace);
        dhidden.scatter_add_rows(rows, &dh);
        if let Some(dw) = dw.as_deref_mut() {
            matmul_tn(&logits, &h, dw, Output::Accumulate);
        }
    }
    Ok(all)
}

/// Logits (rows x V) of all rows of `hidden`, for parity tests and for sampling.
pub fn logits(hidden: &Tensor, w: &Tensor) -> Tensor {
    let mut out = Tensor::scratch(hidden.rows(), w.rows());
    matmul_nt(hidden, w, &mut out, Output::Replace);
    out
}
