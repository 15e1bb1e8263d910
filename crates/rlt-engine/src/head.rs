//! The log-probability head: `log softmax(h . W^T / T)` at given target tokens, in chunks of rows.
//!
//! The logits of one chunk exist at a time; rows x vocabulary never does.
//!
//! Shape legend: R scored tokens, D hidden width, V vocabulary.

use rayon::prelude::*;
use rlt_cuda::Gpu;

use crate::arithmetic::Arithmetic;
use crate::device::Device;
use crate::output::Output;
use crate::packed::{PackedWeight, matmul_packed};
use crate::simd;
use crate::tensor::Tensor;

/// Logits held at once, elements (64 MiB).
const CHUNK_ELEMENTS: usize = 16 << 20;

/// Rows of a chunk: a function of the vocabulary only, so that results have a fixed shape.
fn chunk_rows(vocab: usize) -> usize {
    (CHUNK_ELEMENTS / vocab).clamp(64, 512)
}

/// The output matrix (V x D) and how products with it are computed.
#[derive(Clone, Copy)]
pub struct OutputMatrix<'a> {
    /// V x D.
    pub weight: &'a Tensor,
    /// Number format of the products; the softmax is f32.
    pub arithmetic: Arithmetic,
}

impl<'a> From<&'a Tensor> for OutputMatrix<'a> {
    fn from(weight: &'a Tensor) -> Self {
        Self { weight, arithmetic: Arithmetic::F32 }
    }
}

impl OutputMatrix<'_> {
    /// Its rows, V.
    pub fn vocabulary(self) -> usize {
        self.weight.rows()
    }

    /// Packed once for all chunks of rows: a large vocabulary's matrix is hundreds of megabytes.
    fn packed(self) -> PackedWeight {
        PackedWeight::for_arithmetic(self.weight, self.arithmetic)
    }
}

/// Logits (rows x V) of all rows of `hidden`.
fn packed_logits(hidden: &Tensor, w: &PackedWeight) -> Tensor {
    let mut out = hidden.beside(hidden.rows(), w.out_features());
    matmul_packed(hidden, w, &mut out, Output::Replace);
    out
}

/// Log-probabilities (nats) of `targets[i]` after hidden state `rows[i]` of `hidden` (M x D), under
/// the output matrix `w` (V x D) at `temperature`.
///
/// # Panics
/// If lengths differ or a target is not below V.
pub fn token_logprobs(
    hidden: &Tensor,
    rows: &[usize],
    w: OutputMatrix,
    targets: &[u32],
    temperature: f32,
) -> Vec<f32> {
    all_logprobs(hidden, rows, w, targets, temperature, |row| row.target)
}

/// What a model says of a given token.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TokenLogprob {
    /// Its log-probability, nats.
    pub given: f32,
    /// That of the most likely token in its place: never less, and equal to the last bit where that is the given one.
    pub best: f32,
}

/// As [`token_logprobs`], with the log-probability of the most likely token beside each, of the same pass.
///
/// # Panics
/// As there.
pub fn token_logprobs_beside_best(
    hidden: &Tensor,
    rows: &[usize],
    w: OutputMatrix,
    targets: &[u32],
    temperature: f32,
) -> Vec<TokenLogprob> {
    let of_row = |row: RowLogprob| TokenLogprob { given: row.target, best: row.best };
    all_logprobs(hidden, rows, w, targets, temperature, of_row)
}

/// `of_row` of every row, chunk by chunk.
fn all_logprobs<T>(
    hidden: &Tensor,
    rows: &[usize],
    w: OutputMatrix,
    targets: &[u32],
    temperature: f32,
    of_row: impl Fn(RowLogprob) -> T,
) -> Vec<T> {
    let mut all = Vec::with_capacity(rows.len());
    let (chunk, w) = (chunk_rows(w.vocabulary()), w.packed());
    for (rows, targets) in rows.chunks(chunk).zip(targets.chunks(chunk)) {
        let logits = packed_logits(&hidden.gather_rows(rows), &w);
        all.extend(chunk_logprobs(&logits, targets, temperature).into_iter().map(&of_row));
    }
    all
}

/// What is taken of a row of logits.
#[derive(Debug, Clone, Copy, Default)]
struct RowLogprob {
    /// The log of the softmax denominator.
    log_sum: f32,
    /// The target's log-probability.
    target: f32,
    /// The largest of the row.
    best: f32,
}

fn chunk_logprobs(logits: &Tensor, targets: &[u32], temperature: f32) -> Vec<RowLogprob> {
    if let Device::Sizes(sizes) = logits.device() {
        sizes.did_rows(logits.len());
        return vec![RowLogprob::default(); logits.rows()];
    }
    let scale = 1.0 / temperature;
    if let Some(gpu) = logits.gpu() {
        let of_rows = gpu.target_logprobs(logits.memory(), logits.cols(), targets, scale).to_host::<f32>();
        let of_row = |&[log_sum, target, best]: &[f32; 3]| RowLogprob { log_sum, target, best };
        return of_rows.as_chunks().0.iter().map(of_row).collect();
    }
    (0..logits.rows())
        .into_par_iter()
        .with_min_len(8)
        .map(|i| {
            let row = logits.row(i);
            let (max, log_sum) = max_and_log_sum_exp(row, scale);
            // Both by the same rounding: equal where the target is the largest.
            let [target, best] = [row[targets[i] as usize], max].map(|x| x.mul_add(scale, -log_sum));
            RowLogprob { log_sum, target, best }
        })
        .collect()
}

/// `ln sum_v exp(x_v * scale)`.
pub(crate) fn log_sum_exp(x: &[f32], scale: f32) -> f32 {
    max_and_log_sum_exp(x, scale).1
}

/// `max_v x_v`, and `ln sum_v exp(x_v * scale)`, which starts from it.
fn max_and_log_sum_exp(x: &[f32], scale: f32) -> (f32, f32) {
    simd::vectorized(
        #[inline(always)]
        || {
            let max = simd::max(x);
            let shift = max * scale;
            (max, shift + simd::sum_exp_scaled(x, scale, shift).ln())
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
    w: OutputMatrix,
    targets: &[u32],
    temperature: f32,
    dhidden: &mut Tensor,
    mut dw: Option<&mut Tensor>,
    mut gradient: impl FnMut(usize, &[f32]) -> Result<Vec<f32>, E>,
) -> Result<Vec<f32>, E> {
    let mut all = Vec::with_capacity(rows.len());
    let (vocab, scale) = (w.vocabulary(), 1.0 / temperature);
    let (chunk, packed) = (chunk_rows(vocab), w.packed());
    for (rows, targets) in rows.chunks(chunk).zip(targets.chunks(chunk)) {
        let h = hidden.gather_rows(rows);
        let mut logits = packed_logits(&h, &packed);
        let of_rows = chunk_logprobs(&logits, targets, temperature);
        let logprobs: Vec<f32> = of_rows.iter().map(|row| row.target).collect();
        let g = gradient(all.len(), &logprobs)?;
        all.extend(logprobs);

        logit_gradients(&mut logits, targets, &of_rows, &g, scale);
        let mut dh = h.beside(rows.len(), h.cols());
        w.arithmetic.nn(&logits, w.weight, &mut dh, Output::Replace);
        dhidden.scatter_add_rows(rows, &dh);
        if let Some(dw) = dw.as_deref_mut() {
            w.arithmetic.tn(&logits, &h, dw, Output::Accumulate);
        }
    }
    Ok(all)
}

/// Turns logits into their gradients: row `i` by the log of its softmax denominator and the derivative `g[i]` by its
/// log-probability.
fn logit_gradients(logits: &mut Tensor, targets: &[u32], of_rows: &[RowLogprob], g: &[f32], scale: f32) {
    if let Device::Sizes(sizes) = logits.device() {
        return sizes.did_rows(2 * logits.len());
    }
    let vocab = logits.cols();
    if let Some(gpu) = logits.gpu() {
        let log_sums: Vec<f32> = of_rows.iter().map(|row| row.log_sum).collect();
        return gpu.target_gradients(logits.memory_mut(), vocab, targets, &log_sums, g, scale);
    }
    logits.data_mut().par_chunks_mut(vocab).enumerate().with_min_len(8).for_each(|(i, row)| {
        simd::vectorized(
            #[inline(always)]
            || {
                let (log_sum, g) = (of_rows[i].log_sum, g[i] * scale);
                for x in row.iter_mut() {
                    *x = -g * simd::exp(x.mul_add(scale, -log_sum));
                }
                row[targets[i] as usize] += g;
            },
        );
    });
}

/// Next-token distributions that are never written out: `softmax(h . W^T / T)` at some rows of some hidden states.
#[derive(Clone, Copy)]
pub struct Distributions<'a> {
    /// Hidden states, M x D.
    pub hidden: &'a Tensor,
    /// The rows that are meant, R of them.
    pub rows: &'a [usize],
    /// Output matrix, V x D.
    pub w: OutputMatrix<'a>,
    /// Divides the logits; above 0.
    pub temperature: f32,
}

impl Distributions<'_> {
    /// Logits of some of the rows, before the temperature.
    fn logits(&self, rows: std::ops::Range<usize>, w: &PackedWeight) -> Tensor {
        packed_logits(&self.hidden.gather_rows(&self.rows[rows]), w)
    }
}

/// Exact divergence `KL(p_i || q_i) = sum_v p_i(v) (log p_i(v) - log q_i(v))` over the whole vocabulary, row by
/// row, in nats. The widths of the two models may differ. Two chunks of logits exist at a time.
///
/// Both log denominators come first, so that the sum is over differences of log-probabilities and does not
/// cancel where the two distributions are close. Sums over the vocabulary are f64 over blocks of f32.
///
/// # Panics
/// If the numbers of rows or the vocabularies differ.
pub fn full_divergence(p: Distributions, q: Distributions) -> Vec<f32> {
    assert_eq!(p.rows.len(), q.rows.len(), "one distribution of q for each of p");
    assert_eq!(p.w.vocabulary(), q.w.vocabulary(), "both over one vocabulary");
    let (n, chunk) = (p.rows.len(), chunk_rows(p.w.vocabulary()));
    let (p_packed, q_packed) = (p.w.packed(), q.w.packed());
    let mut divergences = Vec::with_capacity(n);
    for first in (0..n).step_by(chunk) {
        let rows = first..n.min(first + chunk);
        let (p_logits, q_logits) = (p.logits(rows.clone(), &p_packed), q.logits(rows.clone(), &q_packed));
        if let Device::Sizes(sizes) = p.hidden.device() {
            sizes.did_rows(2 * p_logits.len());
            divergences.resize(rows.end, 0.0);
            continue;
        }
        if let Some(gpu) = p.hidden.gpu() {
            let pair = ((&p_logits, p.temperature), (&q_logits, q.temperature));
            divergences.extend(divergences_on_gpu(&gpu, pair.0, pair.1));
            continue;
        }
        let of_row = |i| row_divergence(p_logits.row(i), q_logits.row(i), p.temperature, q.temperature);
        divergences.par_extend((0..rows.len()).into_par_iter().with_min_len(8).map(of_row));
    }
    divergences
}

/// KL(p || q) of every row of logits, each with a temperature.
fn divergences_on_gpu(gpu: &Gpu, p: (&Tensor, f32), q: (&Tensor, f32)) -> Vec<f32> {
    let (p, q, vocabulary) = ((p.0.memory(), 1.0 / p.1), (q.0.memory(), 1.0 / q.1), p.0.cols());
    gpu.divergences(p, q, vocabulary).to_host()
}

/// Elements whose sum is taken in f32 before it is added in f64.
const BLOCK: usize = 1024;

/// Sum of `exp(x * scale - shift)`. A loop, not `Iterator::sum`: the iterator's own function would be compiled for the plainest
/// processor, and the exponentials with it.
#[inline(always)]
fn sum_exp(x: &[f32], scale: f32, shift: f32) -> f64 {
    let mut sum = 0.0;
    for block in x.chunks(BLOCK) {
        sum += f64::from(simd::sum_exp_scaled(block, scale, shift));
    }
    sum
}

fn row_divergence(p: &[f32], q: &[f32], p_temperature: f32, q_temperature: f32) -> f32 {
    let (p_scale, q_scale) = (1.0 / p_temperature, 1.0 / q_temperature);
    simd::vectorized(
        #[inline(always)]
        || {
            let (p_shift, q_shift) = (simd::max(p) * p_scale, simd::max(q) * q_scale);
            let (p_sum, q_sum) = (sum_exp(p, p_scale, p_shift), sum_exp(q, q_scale, q_shift));
            // log p - log q = (p logit - p shift) - (q logit - q shift) + offset.
            let offset = (q_sum / p_sum).ln() as f32;
            let mut total = 0.0_f64;
            for (p, q) in p.chunks(BLOCK).zip(q.chunks(BLOCK)) {
                total += f64::from(simd::sum_weighted_difference(
                    (p, p_scale, p_shift),
                    (q, q_scale, q_shift),
                    offset,
                ));
            }
            // Rounding alone can make it negative. (A NaN stays one.)
            let divergence = (total / p_sum) as f32;
            if divergence < 0.0 { 0.0 } else { divergence }
        },
    )
}

/// Which way a Kullback-Leibler divergence between a model in training (p) and a fixed one (q) is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kl {
    /// KL(p || q): the mean is over what the model in training would say.
    Reverse,
    /// KL(q || p): over what the fixed one would.
    Forward,
}

impl Kl {
    fn of_row(self, p: (&[f32], f32), q: (&[f32], f32)) -> f32 {
        match self {
            Self::Reverse => row_divergence(p.0, q.0, p.1, q.1),
            Self::Forward => row_divergence(q.0, p.0, q.1, p.1),
        }
    }
}

/// The divergences of [`full_divergence`], the way that `kl` says, and their gradient by p in the same sweep over the chunks; q
/// is a constant.
///
/// `weight(i, divergences)` is called for each chunk with the index of its first row and its divergences (nats), and
/// returns the derivative of the loss by each. The gradient of p's hidden states is added to `dhidden` (M x D), that of its
/// output matrix, where it is wanted, to `dw` (V x D). Returns all divergences.
///
/// Gradient of a logit of p at weight g: `g / T * p_v (log p_v - log q_v - KL(p || q))` for the reverse divergence,
/// `g / T * (p_v - q_v)` for the forward one.
///
/// # Panics
/// If the numbers of rows or the vocabularies differ.
///
/// # Errors
/// What `weight` returns.
pub fn divergence_with_backward<E>(
    p: Distributions,
    q: Distributions,
    kl: Kl,
    dhidden: &mut Tensor,
    mut dw: Option<&mut Tensor>,
    mut weight: impl FnMut(usize, &[f32]) -> Result<Vec<f32>, E>,
) -> Result<Vec<f32>, E> {
    assert_eq!(p.rows.len(), q.rows.len(), "one distribution of q for each of p");
    assert_eq!(p.w.vocabulary(), q.w.vocabulary(), "both over one vocabulary");
    let (n, chunk) = (p.rows.len(), chunk_rows(p.w.vocabulary()));
    let (p_packed, q_packed) = (p.w.packed(), q.w.packed());
    let mut all = Vec::with_capacity(n);
    for first in (0..n).step_by(chunk) {
        let rows = first..n.min(first + chunk);
        let h = p.hidden.gather_rows(&p.rows[rows.clone()]);
        let mut logits = packed_logits(&h, &p_packed);
        let q_logits = q.logits(rows.clone(), &q_packed);
        let divergences: Vec<f32> = if let Device::Sizes(sizes) = p.hidden.device() {
            sizes.did_rows(4 * logits.len());
            vec![0.0; rows.len()]
        } else if let Some(gpu) = p.hidden.gpu() {
            let (p, q) = ((&logits, p.temperature), (&q_logits, q.temperature));
            let (first, second) = if kl == Kl::Reverse { (p, q) } else { (q, p) };
            divergences_on_gpu(&gpu, first, second)
        } else {
            let of_row = |i| kl.of_row((logits.row(i), p.temperature), (q_logits.row(i), q.temperature));
            (0..rows.len()).into_par_iter().with_min_len(8).map(of_row).collect()
        };
        let g = weight(first, &divergences)?;
        if p.hidden.device().has_numbers() {
            let temperatures = (p.temperature, q.temperature);
            divergence_gradients(&mut logits, &q_logits, temperatures, kl, &divergences, &g);
        }
        drop(q_logits);
        let mut dh = h.beside(rows.len(), h.cols());
        p.w.arithmetic.nn(&logits, p.w.weight, &mut dh, Output::Replace);
        dhidden.scatter_add_rows(&p.rows[rows], &dh);
        if let Some(dw) = dw.as_deref_mut() {
            p.w.arithmetic.tn(&logits, &h, dw, Output::Accumulate);
        }
        all.extend(divergences);
    }
    Ok(all)
}

/// Turns p's logits into their gradients, row `i` at weight `g[i]`.
fn divergence_gradients(
    p: &mut Tensor,
    q: &Tensor,
    (p_temperature, q_temperature): (f32, f32),
    kl: Kl,
    divergences: &[f32],
    g: &[f32],
) {
    let (p_scale, q_scale) = (1.0 / p_temperature, 1.0 / q_temperature);
    let vocab = p.cols();
    if let Some(gpu) = p.gpu() {
        let (p, q) = ((p.memory_mut(), p_scale), (q.memory(), q_scale));
        return match kl {
            Kl::Reverse => gpu.reverse_gradients(p, q, vocab, divergences, g),
            Kl::Forward => gpu.forward_gradients(p, q, vocab, g),
        };
    }
    p.data_mut().par_chunks_mut(vocab).enumerate().with_min_len(8).for_each(|(i, row)| {
        let (p_sum, q_sum) = (log_sum_exp(row, p_scale), log_sum_exp(q.row(i), q_scale));
        let (g, divergence) = (g[i] * p_scale, divergences[i]);
        simd::vectorized(
            #[inline(always)]
            || match kl {
                Kl::Reverse => {
                    for (x, y) in row.iter_mut().zip(q.row(i)) {
                        let p_logprob = x.mul_add(p_scale, -p_sum);
                        let difference = p_logprob - y.mul_add(q_scale, -q_sum);
                        *x = g * simd::exp(p_logprob) * (difference - divergence);
                    }
                }
                Kl::Forward => {
                    for (x, y) in row.iter_mut().zip(q.row(i)) {
                        let p = simd::exp(x.mul_add(p_scale, -p_sum));
                        *x = g * (p - simd::exp(y.mul_add(q_scale, -q_sum)));
                    }
                }
            },
        );
    });
}

/// Logits (rows x V) of all rows of `hidden`, for parity tests and for sampling.
pub fn logits(hidden: &Tensor, w: &Tensor) -> Tensor {
    packed_logits(hidden, &OutputMatrix::from(w).packed())
}
