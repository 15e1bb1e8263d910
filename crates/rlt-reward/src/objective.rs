//! The objectives as pure functions: what one token or completion adds to the loss, its derivative, and its weight.
//!
//! Log-probabilities are in nats and at the sampling temperature. `old` ones are those recorded while sampling; the
//! log-ratio is `logp - old`. A loss is minimised. At a ratio of 1, where each batch is learnt from once, nothing is
//! clipped and every objective is the policy gradient, differing in advantage and weights only.

use crate::choice::{Correction, KlToReference, LossMean, Objective, ObjectiveSettings};

/// What one token adds to the loss before it is weighted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// The loss.
    pub loss: f64,
    /// Its derivative by the token's log-probability.
    pub derivative: f64,
    /// Whether a bound holds the ratio: it has no gradient then (CISPO: its weight is the bound).
    pub clipped: bool,
}

/// `-min(w A, clip(w, 1 - low, 1 + high) A)` with the ratio `w = exp(log_ratio)` (PPO, arXiv 1707.06347, equation 7; GRPO,
/// arXiv 2402.03300, equation 3; bounds apart: DAPO, arXiv 2503.14476, equation 10). The derivative is by the log-ratio:
/// `-w A`, or 0 where the clipped side is the smaller.
pub fn clipped_term(log_ratio: f64, advantage: f64, low: f64, high: f64) -> Term {
    let ratio = log_ratio.exp();
    let (plain, bounded) = (ratio * advantage, ratio.clamp(1.0 - low, 1.0 + high) * advantage);
    if bounded < plain {
        Term { loss: -bounded, derivative: 0.0, clipped: true }
    } else {
        Term { loss: -plain, derivative: -plain, clipped: false }
    }
}

/// `-sg(min(w, 1 + high)) A logp` (CISPO, arXiv 2506.13585, equations 4 and 5): the weight is a constant to the gradient,
/// so every token keeps one, however far its ratio is.
pub fn bounded_weight_term(log_ratio: f64, logprob: f64, advantage: f64, high: f64) -> Term {
    let (ratio, bound) = (log_ratio.exp(), 1.0 + high);
    let weight = ratio.min(bound);
    Term { loss: -weight * advantage * logprob, derivative: -weight * advantage, clipped: ratio > bound }
}

/// Terms of consecutive tokens of one completion. The objectives with one ratio a completion need all its tokens; the
/// others take any run of them.
pub fn policy_terms(
    settings: &ObjectiveSettings,
    advantage: f32,
    logprobs: &[f32],
    old: &[f32],
) -> Vec<Term> {
    let (advantage, n) = (f64::from(advantage), logprobs.len());
    let (low, high) = (f64::from(settings.clip_low), f64::from(settings.clip_high));
    let log_ratios = || logprobs.iter().zip(old).map(|(&new, &old)| f64::from(new) - f64::from(old));
    match settings.objective {
        Objective::Grpo | Objective::DrGrpo | Objective::Dapo => {
            log_ratios().map(|log_ratio| clipped_term(log_ratio, advantage, low, high)).collect()
        }
        Objective::Cispo => log_ratios()
            .zip(logprobs)
            .map(|(log_ratio, &logprob)| bounded_weight_term(log_ratio, logprob.into(), advantage, high))
            .collect(),
        Objective::Gspo => {
            let log_ratio = mean_log_ratio(log_ratios());
            vec![clipped_term(log_ratio, advantage, low, high); n]
        }
        Objective::Rloo => {
            let term = clipped_term(total_log_ratio(log_ratios()), advantage, low, high);
            vec![Term { loss: term.loss / n as f64, ..term }; n]
        }
    }
}

impl Term {
    /// What it is where its token counts `weight`, a constant to the gradient.
    #[must_use]
    pub fn counted(self, weight: f64) -> Self {
        Self { loss: weight * self.loss, derivative: weight * self.derivative, ..self }
    }
}

/// `min(exp(log_ratio), cap)`: what a token counts that another program sampled, or earlier weights, where `log_ratio` is the
/// trainer's own log-probability of it less the sampler's (truncated importance sampling, TIS: Yao et al., "Your Efficient RL
/// Framework Secretly Brings You Off-Policy RL Training", 2025, with a cap of 2; the truncation is that of IMPALA, arXiv
/// 1802.01561, section 4.1).
pub fn truncated_weight(log_ratio: f64, cap: f64) -> f64 {
    log_ratio.exp().min(cap)
}

/// `exp(log_ratio)` within `low ..= high`, and 0 outside: a token on which sampler and trainer disagree teaches nothing (IcePop:
/// arXiv 2510.18855, section 3.1, with a band of 0.5 to 5).
pub fn masked_weight(log_ratio: f64, low: f64, high: f64) -> f64 {
    let ratio = log_ratio.exp();
    if (low..=high).contains(&ratio) { ratio } else { 0.0 }
}

/// What each token of a completion counts, from the trainer's own log-probabilities (`old`) and the sampler's: by its own
/// ratio, or, for the objectives with one ratio a completion, by that of the completion.
pub fn importance_weights(
    objective: Objective,
    correction: Correction,
    old: &[f32],
    behaviour: &[f32],
) -> Vec<f32> {
    let log_ratios = || old.iter().zip(behaviour).map(|(&old, &drawn)| f64::from(old) - f64::from(drawn));
    let weight = |log_ratio: f64| match correction {
        Correction::None => 1.0,
        Correction::Truncate { cap } => truncated_weight(log_ratio, cap.into()) as f32,
        Correction::Mask { low, high } => masked_weight(log_ratio, low.into(), high.into()) as f32,
    };
    match objective {
        Objective::Gspo => vec![weight(mean_log_ratio(log_ratios())); old.len()],
        Objective::Rloo => vec![weight(total_log_ratio(log_ratios())); old.len()],
        _ => log_ratios().map(weight).collect(),
    }
}

/// Whether an objective has one ratio a completion ([`policy_terms`] needs all its tokens).
pub fn has_sequence_ratio(objective: Objective) -> bool {
    matches!(objective, Objective::Gspo | Objective::Rloo)
}

/// The logarithm of s_i = (pi(y_i) / pi_old(y_i))^(1 / |y_i|) (GSPO, arXiv 2507.18071, equation 7). Its derivative by one
/// token's log-probability is 1 / |y_i|, which is in [`token_weight`] of [`LossMean::Sequence`].
pub fn mean_log_ratio(log_ratios: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = log_ratios.len() as f64;
    log_ratios.sum::<f64>() / n
}

/// The logarithm of pi(y_i) / pi_old(y_i), the whole completion being one action (RLOO, arXiv 2402.14740, section 3.2).
pub fn total_log_ratio(log_ratios: impl Iterator<Item = f64>) -> f64 {
    log_ratios.sum()
}

/// k1 = logp - ref: its mean over samples of the policy is KL(policy || reference); can be negative.
/// (`http://joschu.net/blog/kl-approx.html` names k1, k2 and k3.)
pub fn k1(logprob: f32, reference: f32) -> f64 {
    f64::from(logprob) - f64::from(reference)
}

/// k2 = (logp - ref)^2 / 2: the mean of its gradient is that of the divergence.
pub fn k2(logprob: f32, reference: f32) -> f64 {
    0.5 * k1(logprob, reference).powi(2)
}

/// Schulman's estimator of KL(policy || reference) at one token, never negative:
/// `exp(ref - logp) - (ref - logp) - 1`.
pub fn k3(logprob: f32, reference: f32) -> f64 {
    let difference = f64::from(reference) - f64::from(logprob);
    difference.exp_m1() - difference
}

/// Value and derivative by `logp` of the KL term in the loss of one token: 0 for [`KlToReference::K1`], which is in the
/// reward ([`reward_less_kl`]); `logp - ref` for k2, `1 - exp(ref - logp)` for k3.
pub fn kl_term(kl: KlToReference, logprob: f32, reference: f32) -> (f64, f64) {
    match kl {
        KlToReference::K1 => (0.0, 0.0),
        KlToReference::K2 => (k2(logprob, reference), k1(logprob, reference)),
        KlToReference::K3 => (k3(logprob, reference), -(-k1(logprob, reference)).exp_m1()),
    }
}

/// r - beta sum_t k1 over the tokens of a completion, at the policy that sampled it (arXiv 2402.14740, equation 1).
pub fn reward_less_kl(reward: f32, beta: f32, old: &[f32], reference: &[f32]) -> f32 {
    let divergence: f64 = old.iter().zip(reference).map(|(&old, &reference)| k1(old, reference)).sum();
    (f64::from(reward) - f64::from(beta) * divergence) as f32
}

/// What counts in the loss of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Completions.
    pub completions: usize,
    /// Their tokens.
    pub tokens: usize,
    /// `sampling.max_new_tokens`.
    pub longest: usize,
}

/// What the loss of each of the `n_tokens` tokens of a completion counts: 1 / (|y_i| N) for the mean over tokens, then
/// over completions (arXiv 2402.03300, equation 3); 1 / sum_i |y_i| for the mean over all tokens (arXiv 2503.14476,
/// equation 8, here over the batch); 1 / (L N) with the constant L (arXiv 2503.20783, section 3.2); 1 / N for the sum.
pub fn token_weight(mean: LossMean, n_tokens: usize, counted: Counted) -> f64 {
    let n_completions = counted.completions as f64;
    match mean {
        LossMean::Sequence => 1.0 / (n_tokens as f64 * n_completions),
        LossMean::Token => 1.0 / counted.tokens as f64,
        LossMean::Constant => 1.0 / (counted.longest as f64 * n_completions),
        LossMean::Sum => 1.0 / n_completions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LN_2: f32 = std::f32::consts::LN_2;

    fn assert_close(ours: f64, expected: f64, tolerance: f64) {
        assert!((ours - expected).abs() < tolerance, "{ours}, expected {expected}");
    }

    fn settings(objective: Objective) -> ObjectiveSettings {
        ObjectiveSettings::of(objective)
    }

    #[test]
    fn the_clipped_term_by_hand() {
        let at = |ratio: f64, advantage: f64| {
            let term = clipped_term(ratio.ln(), advantage, 0.2, 0.3);
            assert_eq!(term.derivative, if term.clipped { 0.0 } else { term.loss });
            (term.loss, term.clipped)
        };
        for (ratio, advantage, loss, clipped) in [
            (1.0, 2.0, -2.0, false),
            (1.25, 2.0, -2.5, false),
            // Above the bound, a good token gains nothing more; a bad one is still pushed down.
            (1.5, 2.0, -2.6, true),
            (1.5, -2.0, 3.0, false),
            // Below the bound, a bad token loses nothing more; a good one is still pulled up.
            (0.5, -2.0, 1.6, true),
            (0.5, 2.0, -1.0, false),
        ] {
            let (ours, was_clipped) = at(ratio, advantage);
            assert_close(ours, loss, 1e-12);
            assert_eq!(was_clipped, clipped, "ratio {ratio}, advantage {advantage}");
        }
    }

    #[test]
    fn the_bounded_weight_by_hand() {
        // Ratio 2 below the bound of 5, then ratio 8 above it: the gradient stays, with weight 5.
        let term = bounded_weight_term(2_f64.ln(), -0.5, 3.0, 4.0);
        assert_close(term.loss, 3.0, 1e-12);
        assert_close(term.derivative, -6.0, 1e-12);
        let term = bounded_weight_term(8_f64.ln(), -0.5, 3.0, 4.0);
        assert_close(term.loss, 7.5, 1e-12);
        assert_close(term.derivative, -15.0, 1e-12);
        assert!(term.clipped);
    }

    #[test]
    fn ratios_of_a_completion_by_hand() {
        // Token ratios 2 and 8: geometric mean 4, product 16.
        let log_ratios = [2_f64.ln(), 8_f64.ln()];
        assert_close(mean_log_ratio(log_ratios.into_iter()).exp(), 4.0, 1e-12);
        assert_close(total_log_ratio(log_ratios.into_iter()).exp(), 16.0, 1e-12);

        let (logprobs, old) = ([-1.0, -1.0], [-1.0 - LN_2, -1.0 - 3.0 * LN_2]);
        let gspo = ObjectiveSettings { clip_high: 9.0, ..settings(Objective::Gspo) };
        for term in policy_terms(&gspo, 0.5, &logprobs, &old) {
            assert_close(term.loss, -2.0, 1e-6);
            assert_close(term.derivative, -2.0, 1e-6);
        }
        // The loss of a completion is spread over its tokens, its derivative is that of each.
        let rloo = ObjectiveSettings { clip_high: 99.0, ..settings(Objective::Rloo) };
        for term in policy_terms(&rloo, 0.5, &logprobs, &old) {
            assert_close(term.loss, -4.0, 1e-5);
            assert_close(term.derivative, -8.0, 1e-5);
        }
        // Against the bound no token of the completion has a gradient.
        for term in policy_terms(&settings(Objective::Gspo), 0.5, &logprobs, &old) {
            assert_eq!((term.derivative, term.clipped), (0.0, true));
            assert_close(term.loss, -0.5 * 1.0004, 1e-6);
        }
    }

    #[test]
    fn importance_weights_by_hand() {
        // The trainer finds the tokens as likely as the sampler, half as likely, four times and ten times as likely.
        let behaviour = [-1.0_f32, -1.0, -3.0, -4.0];
        let old = [-1.0, -1.0 - LN_2, -3.0 + 2.0 * LN_2, -4.0 + 10_f32.ln()];
        let weights = |objective, correction| importance_weights(objective, correction, &old, &behaviour);
        let check = |ours: Vec<f32>, expected: [f64; 4]| {
            ours.into_iter()
                .zip(expected)
                .for_each(|(ours, expected)| assert_close(ours.into(), expected, 1e-5));
        };
        check(weights(Objective::Grpo, Correction::Truncate { cap: 2.0 }), [1.0, 0.5, 2.0, 2.0]);
        check(weights(Objective::Cispo, Correction::Mask { low: 0.4, high: 5.0 }), [1.0, 0.5, 4.0, 0.0]);
        check(weights(Objective::Dapo, Correction::Mask { low: 0.6, high: 5.0 }), [1.0, 0.0, 4.0, 0.0]);
        check(weights(Objective::Grpo, Correction::None), [1.0; 4]);
        // Product 0.5 * 4 * 10 = 20, geometric mean 20^(1/4).
        check(weights(Objective::Gspo, Correction::Truncate { cap: 3.0 }), [20_f64.powf(0.25); 4]);
        check(weights(Objective::Rloo, Correction::Truncate { cap: 3.0 }), [3.0; 4]);
        check(weights(Objective::Rloo, Correction::Mask { low: 0.5, high: 5.0 }), [0.0; 4]);
        assert_close(truncated_weight(0.5_f64.ln(), 2.0), 0.5, 1e-12);
        assert_close(masked_weight(5_f64.ln() - 1e-9, 0.5, 5.0), 5.0, 1e-6);
        // The loss and its derivative count alike.
        let term = clipped_term(0.0, 2.0, 0.2, 0.2).counted(0.5);
        assert_eq!((term.loss, term.derivative, term.clipped), (-1.0, -1.0, false));
    }

    #[test]
    fn the_token_objectives_differ_in_their_bounds() {
        // Ratio 1.25 with a positive advantage: beyond GRPO's 1.2, within DAPO's 1.28.
        let (logprobs, old) = ([1.25_f32.ln() - 1.0], [-1.0]);
        let term = |objective| policy_terms(&settings(objective), 1.0, &logprobs, &old)[0];
        for objective in [Objective::Grpo, Objective::DrGrpo] {
            assert_close(term(objective).loss, -1.2, 1e-6);
            assert!(term(objective).clipped);
        }
        assert_close(term(Objective::Dapo).loss, -1.25, 1e-6);
        assert_close(term(Objective::Cispo).derivative, -1.25, 1e-6);
    }

    #[test]
    fn at_the_sampling_policy_every_objective_is_the_policy_gradient() {
        for objective in [
            Objective::Grpo,
            Objective::DrGrpo,
            Objective::Dapo,
            Objective::Gspo,
            Objective::Cispo,
            Objective::Rloo,
        ] {
            for term in policy_terms(&settings(objective), 0.7, &[-1.3, -0.2, -4.0], &[-1.3, -0.2, -4.0]) {
                assert_close(term.derivative, -f64::from(0.7_f32), 1e-12);
                assert!(!term.clipped);
            }
        }
    }

    #[test]
    fn estimators_of_the_divergence_by_hand() {
        // The policy finds the token half as likely as the reference does.
        let (policy, reference) = (-1.0 - LN_2, -1.0);
        let ln2 = f64::from(LN_2);
        assert_close(k1(policy, reference), -ln2, 1e-6);
        assert_close(k2(policy, reference), 0.5 * ln2 * ln2, 1e-6);
        assert_close(k3(policy, reference), 1.0 - ln2, 1e-6);
        assert_eq!([k1(-1.3, -1.3), k2(-1.3, -1.3), k3(-1.3, -1.3)], [0.0; 3]);
        assert!(k3(-0.5, -1.0) > 0.0 && k3(-1.0, -0.5) > 0.0);
    }

    #[test]
    fn their_means_over_the_policy_are_the_divergence() {
        // Policy (0.6, 0.4), reference (0.5, 0.5): KL = 0.6 ln 1.2 + 0.4 ln 0.8. k2 only nears it.
        let (p, q) = ([0.6_f32, 0.4], [0.5_f32, 0.5]);
        let kl = 0.6 * 1.2_f64.ln() + 0.4 * 0.8_f64.ln();
        let mean = |estimator: fn(f32, f32) -> f64| -> f64 {
            p.iter().zip(&q).map(|(&p, &q)| f64::from(p) * estimator(p.ln(), q.ln())).sum()
        };
        assert_close(mean(k1), kl, 1e-6);
        assert_close(mean(k3), kl, 1e-6);
        assert_close(mean(k2), kl, 1e-3);
        // The gradient of the divergence by log p_0, p_1 fixed by the sum: that of the mean of k2's derivative along
        // the policy gradient; k1's would be zero.
        let score = [1.0, -f64::from(p[0] / p[1])];
        let along = |derivative: [f64; 2]| -> f64 {
            (0..2).map(|i| f64::from(p[i]) * derivative[i] * score[i]).sum()
        };
        let of_k2 = [0, 1].map(|i| kl_term(KlToReference::K2, p[i].ln(), q[i].ln()).1);
        let exact = 0.6 * (1.2_f64.ln() - 0.8_f64.ln());
        assert_close(along(of_k2), exact, 1e-6);
        assert_close(along([1.0, 1.0]), 0.0, 1e-6);
    }

    #[test]
    fn the_kl_term_agrees_with_finite_differences() {
        let h = 1e-3;
        for kl in [KlToReference::K2, KlToReference::K3] {
            for (logprob, reference) in [(-0.75_f32, -1.125_f32), (-2.0, -0.5)] {
                let at = |logprob: f32| kl_term(kl, logprob, reference).0;
                let difference =
                    (at(logprob + h) - at(logprob - h)) / f64::from((logprob + h) - (logprob - h));
                assert_close(kl_term(kl, logprob, reference).1, difference, 1e-5);
            }
        }
        assert_eq!(kl_term(KlToReference::K1, -1.0, -2.0), (0.0, 0.0));
    }

    #[test]
    fn the_reward_less_the_divergence_by_hand() {
        // k1 of 0.5 and 1.5; 1 - 0.1 * 2.
        let reward = reward_less_kl(1.0, 0.1, &[-1.0, -0.5], &[-1.5, -2.0]);
        assert_close(reward.into(), 0.8, 1e-6);
    }

    #[test]
    fn weights_by_hand() {
        let lengths = [3, 1, 4];
        let counted = Counted { completions: 3, tokens: 8, longest: 10 };
        let weights = |mean| lengths.map(|n| token_weight(mean, n, counted));
        assert_eq!(weights(LossMean::Sequence), [1.0 / 9.0, 1.0 / 3.0, 1.0 / 12.0]);
        assert_eq!(weights(LossMean::Token), [1.0 / 8.0; 3]);
        assert_eq!(weights(LossMean::Constant), [1.0 / 30.0; 3]);
        assert_eq!(weights(LossMean::Sum), [1.0 / 3.0; 3]);
        let total = |mean| -> f64 { lengths.iter().zip(weights(mean)).map(|(&n, w)| n as f64 * w).sum() };
        assert_close(total(LossMean::Sequence), 1.0, 1e-12);
        assert_close(total(LossMean::Token), 1.0, 1e-12);
    }
}
