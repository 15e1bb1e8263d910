//! Drawing the next token from a row of logits.

use crate::device::Device;
use crate::head::log_sum_exp;
use crate::simd;
use crate::tensor::Tensor;

/// How a token is drawn. The fields mean what Hugging Face's generation settings of the same name
/// mean, and apply in that order: repetition penalty, temperature, top-k, top-p, min-p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Softmax temperature; 0 takes the most likely token.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides (multiplies) the positive (negative) logits of tokens already in the sequence.
    pub repetition_penalty: f32,
}

/// Index of the largest logit (the first of equals).
fn argmax(logits: &[f32]) -> usize {
    let best = simd::vectorized(
        #[inline(always)]
        || simd::max(logits),
    );
    logits.iter().position(|l| *l == best).unwrap_or(0)
}

/// Log-probability (nats) of `token` under the softmax of `logits` at `temperature`.
fn logprob(logits: &[f32], token: usize, temperature: f32) -> f32 {
    let scale = 1.0 / temperature;
    logits[token].mul_add(scale, -log_sum_exp(logits, scale))
}

impl Sampling {
    /// Whether every token may be drawn, by its probability.
    fn draws_from_all(&self) -> bool {
        self.top_k == 0 && self.top_p >= 1.0 && self.min_p <= 0.0
    }
}

/// As [`sample`] with the first row of `logits`, the second and so on, where they lie: a token of each row, drawn with the
/// numbers that `uniforms` gives. None where it is for the host to draw: on the processor, and from a part of the vocabulary
/// or with a penalty on every device.
pub fn sample_there(
    logits: &Tensor,
    sampling: &Sampling,
    uniforms: impl FnOnce() -> Vec<f64>,
) -> Option<Vec<(u32, f32)>> {
    let gpu = logits.gpu()?;
    let vocabulary = logits.cols();
    if sampling.repetition_penalty != 1.0 {
        None
    } else if sampling.temperature == 0.0 {
        Some(gpu.most_likely_tokens(logits.memory(), vocabulary, logits.rows()))
    } else if sampling.draws_from_all() {
        Some(gpu.draw_tokens(logits.memory(), vocabulary, &uniforms(), sampling.temperature))
    } else {
        None
    }
}

/// As [`sample`], from row `row` of `logits` (rows x vocabulary): here logits come to the host. Without numbers it is
/// token 0 with log-probability 0.
pub fn sample_row(
    logits: &Tensor,
    row: usize,
    sampling: &Sampling,
    seen: impl IntoIterator<Item = u32>,
    uniform: f64,
) -> (u32, f32) {
    match logits.device() {
        Device::Cpu => sample(logits.row(row), sampling, seen, uniform),
        Device::Sizes(_) => (0, 0.0),
        Device::Cuda(_) => sample(&logits.gather_rows(&[row]).to_host(), sampling, seen, uniform),
    }
}

/// Draws a token with the random number `uniform` in [0, 1). `seen` gives the tokens of the
/// sequence so far, in any order (asked by the repetition penalty only).
///
/// Returns the token and its log-probability (nats) under the softmax of the untouched logits at
/// the temperature (at 1 for temperature 0), which is what training computes for it.
pub fn sample(
    logits: &[f32],
    sampling: &Sampling,
    seen: impl IntoIterator<Item = u32>,
    uniform: f64,
) -> (u32, f32) {
    let penalised = (sampling.repetition_penalty != 1.0).then(|| {
        let mut all = logits.to_vec();
        for token in seen {
            // From the untouched logit, so that a token seen twice is penalised once.
            let logit = logits[token as usize];
            let penalty = sampling.repetition_penalty;
            all[token as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
        }
        all
    });
    let drawn_from = penalised.as_deref().unwrap_or(logits);
    if sampling.temperature == 0.0 {
        let token = argmax(drawn_from);
        return (token as u32, logprob(logits, token, 1.0));
    }
    let token = if sampling.draws_from_all() {
        draw_from_all(drawn_from, sampling.temperature, uniform)
    } else {
        draw_filtered(drawn_from, sampling, uniform)
    };
    (token as u32, logprob(logits, token, sampling.temperature))
}

/// Draws from the whole vocabulary: the first token at which the running sum passes the number.
fn draw_from_all(logits: &[f32], temperature: f32, uniform: f64) -> usize {
    let mut weights = logits.to_vec();
    let scale = 1.0 / temperature;
    let sum = simd::vectorized(
        #[inline(always)]
        || {
            let max = simd::max(&weights) * scale;
            let mut lanes = simd::NO_LANES;
            simd::exp_scaled(&mut weights, scale, max, &mut lanes);
            simd::sum_lanes(lanes)
        },
    );
    walk(weights.iter().copied().enumerate(), f64::from(sum) * uniform)
}

/// The first index at which the running sum of weights passes `goal`; the last index of a positive
/// weight where rounding leaves the sum short.
fn walk(weights: impl Iterator<Item = (usize, f32)>, goal: f64) -> usize {
    let (mut sum, mut last) = (0.0, 0);
    for (index, weight) in weights {
        if weight > 0.0 {
            sum += f64::from(weight);
            last = index;
            if sum > goal {
                break;
            }
        }
    }
    last
}

/// Draws after top-k, top-p and min-p.
fn draw_filtered(logits: &[f32], sampling: &Sampling, uniform: f64) -> usize {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let descending = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if sampling.top_k > 0 && sampling.top_k < order.len() {
        order.select_nth_unstable_by(sampling.top_k - 1, descending);
        order.truncate(sampling.top_k);
    }
    order.sort_unstable_by(descending);
    let top = f64::from(logits[order[0]]);
    let weight = |i: usize| ((f64::from(logits[i]) - top) / f64::from(sampling.temperature)).exp();
    let weights: Vec<f64> = order.iter().map(|&i| weight(i)).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = weights.len();
    if sampling.top_p < 1.0 {
        let mut sum = 0.0;
        let reached = weights.iter().position(|w| {
            sum += w;
            sum >= f64::from(sampling.top_p) * total
        });
        kept = reached.map_or(kept, |i| i + 1);
    }
    // The most likely token has weight 1, so a share of it is the weight itself.
    kept = kept.min(weights.iter().take_while(|w| **w >= f64::from(sampling.min_p)).count()).max(1);
    let sum: f64 = weights[..kept].iter().sum();
    let candidates = order.iter().copied().zip(weights[..kept].iter().map(|w| *w as f32));
    walk(candidates, sum * uniform)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Sampling =
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };

    fn logits() -> Vec<f32> {
        [0.1_f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln() + 5.0).collect()
    }

    fn tokens(sampling: &Sampling) -> Vec<u32> {
        (0..1000).map(|i| sample(&logits(), sampling, [1], f64::from(i) / 1000.0).0).collect()
    }

    fn share(tokens: &[u32], token: u32) -> f64 {
        tokens.iter().filter(|t| **t == token).count() as f64 / tokens.len() as f64
    }

    #[test]
    fn frequencies_are_the_probabilities() {
        let drawn = tokens(&ALL);
        for (token, p) in [(0, 0.1), (1, 0.4), (2, 0.2), (3, 0.3)] {
            assert!((share(&drawn, token) - p).abs() < 2e-3);
        }
        let cold = tokens(&Sampling { temperature: 0.5, ..ALL });
        assert!((share(&cold, 1) - 0.16 / 0.30).abs() < 2e-3);
    }

    #[test]
    fn filters_keep_what_they_say() {
        let kept = |s: Sampling| {
            let mut t = tokens(&s);
            t.sort_unstable();
            t.dedup();
            t
        };
        assert_eq!(kept(Sampling { top_k: 2, ..ALL }), [1, 3]);
        assert_eq!(kept(Sampling { top_p: 0.65, ..ALL }), [1, 3]);
        assert_eq!(kept(Sampling { top_p: 0.75, ..ALL }), [1, 2, 3]);
        assert_eq!(kept(Sampling { min_p: 0.6, ..ALL }), [1, 3]);
        assert_eq!(kept(Sampling { temperature: 0.0, ..ALL }), [1]);
        // Token 1 is in the sequence: a strong penalty makes it the least likely.
        let penalised = Sampling { temperature: 0.0, repetition_penalty: 10.0, ..ALL };
        assert_eq!(kept(penalised), [3]);
    }

    #[test]
    fn logprobs_are_those_of_the_untouched_softmax() {
        let (token, logprob) = sample(&logits(), &Sampling { top_k: 1, ..ALL }, [], 0.9);
        assert_eq!(token, 1);
        assert!((logprob - 0.4_f32.ln()).abs() < 1e-6);
        let (_, cold) = sample(&logits(), &Sampling { temperature: 0.5, top_k: 1, ..ALL }, [], 0.9);
        assert!((cold - (0.16_f32 / 0.30).ln()).abs() < 1e-6);
    }
}
