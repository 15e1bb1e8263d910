//! The reward of "Reinforcement Learning Teachers of Test Time Scaling" (arXiv 2506.08388).
//!
//! Everything here is arithmetic on log-probabilities in nats. Indices: `k` runs over the solution's
//! tokens, `j` over the think tokens. Sums are taken in `f64`, results are `f32`.
//!
//! Where the defaults differ from the paper's text: D_j is the sampled token's log-ratio, as in the official
//! code. With [`KlEstimator::Full`] it is the paper's divergence over the vocabulary, which takes the models' whole
//! distributions and is handed in.

use std::fmt;

use crate::settings::{KlEstimator, Reduction, RltSettings};

/// What the reward of one explanation is computed from. All log-probabilities in nats.
#[derive(Debug, Clone, Copy)]
pub struct RltInputs<'a> {
    /// Names the sample in errors ("row 12", "step 3, question 4, sample 5").
    pub sample: &'a str,
    /// Student's log pi_S(s_k | t, q, s_<k), one per solution token.
    pub solution_logprobs: &'a [f32],
    /// Student's log pi_S(t_j | q, t_<j), one per think token.
    pub student_think_logprobs: &'a [f32],
    /// Teacher's log pi_T(t_j | s, q, t_<j), one per think token.
    pub teacher_think_logprobs: &'a [f32],
    /// KL(pi_T || pi_S) over the vocabulary before each think token, for [`KlEstimator::Full`]; empty otherwise.
    pub full_divergence: &'a [f32],
    /// Whether the explanation's end tag was written.
    pub has_end_tag: bool,
}

/// The reward of one explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct RltScore {
    /// What the teacher is trained on.
    pub reward: f32,
    /// What the missing end tag added to [`Self::reward`]: 0 or [`RltSettings::format_penalty`].
    pub format_penalty: f32,
    /// The parts, or why there are none.
    pub parts: Result<RltParts, Unscorable>,
}

impl RltScore {
    /// A score without parts: the reward is the setting for that, so that a batch can go on.
    pub fn unscorable(reason: Unscorable, settings: &RltSettings) -> Self {
        Self { reward: settings.unscorable_reward, format_penalty: 0.0, parts: Err(reason) }
    }

    /// `ok`, or why the sample cannot be scored.
    pub fn status(&self) -> String {
        match &self.parts {
            Ok(_) => "ok".into(),
            Err(reason) => reason.to_string(),
        }
    }
}

/// The parts of the reward of one explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct RltParts {
    /// mean_k log pi_S(s_k), nats.
    pub solution_logprob_mean: f32,
    /// min_k log pi_S(s_k), nats.
    pub solution_logprob_min: f32,
    /// The solution token where the minimum is.
    pub solution_logprob_min_at: usize,
    /// mean_j D_j, nats.
    pub kl_mean: f32,
    /// max_j D_j, nats.
    pub kl_max: f32,
    /// The think token where the maximum is.
    pub kl_max_at: usize,
    /// D_j per think token, nats.
    pub d_j: Vec<f32>,
    /// r_SS, how well the student understands the solution after the thought.
    pub r_ss: f32,
    /// r_KL, how unnatural the thought is to the student (not yet multiplied by lambda).
    pub r_kl: f32,
    /// The reward with D_j = -log pi_S(t_j): without the teacher's own log-probability.
    pub reward_no_entropy: f32,
}

/// Why a sample has no reward of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unscorable {
    /// No token lies wholly inside the thought, or nothing but white space stands there.
    EmptyThought,
    /// No token lies wholly inside the solution.
    EmptySolution,
    /// A sequence does not fit a model's context.
    TooLong {
        /// `teacher` or `student`.
        model: &'static str,
        /// Length of the sequence, tokens.
        tokens: usize,
        /// The model's context, tokens.
        context: usize,
    },
    /// The row contradicts itself.
    Inconsistent(String),
}

impl fmt::Display for Unscorable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyThought => {
                f.write_str("empty thought: white space only, or no token that lies wholly inside it")
            }
            Self::EmptySolution => f.write_str("empty solution: no token lies wholly inside it"),
            Self::TooLong { model, tokens, context } => {
                write!(f, "too long: {tokens} tokens, the {model}'s context is {context}")
            }
            Self::Inconsistent(what) => f.write_str(what),
        }
    }
}

/// r = r_SS - lambda * r_KL, plus the format penalty when the end tag is missing (the paper's RLT reward).
/// With other settings than the paper's, r_SS has a weight of its own and all is clipped at the end.
///
/// A sample without think or solution tokens is not an error: it is [`Unscorable`], with
/// [`RltSettings::unscorable_reward`] as its reward.
///
/// # Errors
/// [`NonFinite`] names the sample, the token and the term of the first number that is not finite.
///
/// # Panics
/// When the two arrays over the think tokens differ in length.
pub fn rlt_reward(inputs: &RltInputs, settings: &RltSettings) -> Result<RltScore, NonFinite> {
    assert_eq!(
        inputs.student_think_logprobs.len(),
        inputs.teacher_think_logprobs.len(),
        "teacher and student score the same think tokens"
    );
    check_finite(inputs.sample, "student's solution log-probability", inputs.solution_logprobs)?;
    check_finite(inputs.sample, "student's think log-probability", inputs.student_think_logprobs)?;
    check_finite(inputs.sample, "teacher's think log-probability", inputs.teacher_think_logprobs)?;

    let d_j = match kl_estimator(settings.kl) {
        Some(estimator) => {
            let pairs = inputs.teacher_think_logprobs.iter().zip(inputs.student_think_logprobs);
            pairs.map(|(&teacher, &student)| estimator(teacher, student)).collect()
        }
        None => inputs.full_divergence.to_vec(),
    };
    assert_eq!(d_j.len(), inputs.student_think_logprobs.len(), "one D_j for each think token");
    check_finite(inputs.sample, "D_j", &d_j)?;

    let Some((kl_max_at, kl_max)) = arg_extreme(&d_j, |new, best| new > best) else {
        return Ok(RltScore::unscorable(Unscorable::EmptyThought, settings));
    };
    let Some((solution_logprob_min_at, solution_logprob_min)) =
        arg_extreme(inputs.solution_logprobs, |new, best| new < best)
    else {
        return Ok(RltScore::unscorable(Unscorable::EmptySolution, settings));
    };

    let r_ss = solution_score(inputs.solution_logprobs, settings);
    let r_kl = divergence(&d_j, settings);
    let surprise: Vec<f32> = inputs.student_think_logprobs.iter().map(|&student| -student).collect();
    let format_penalty = if inputs.has_end_tag { 0.0 } else { settings.format_penalty };
    let total = |r_kl: f32| {
        clip(settings.solution_weight * r_ss - settings.lambda * r_kl + format_penalty, settings.reward_clip)
    };
    let score = total(r_kl);
    let reward_no_entropy = total(divergence(&surprise, settings));
    check_finite(inputs.sample, "reward", &[score, reward_no_entropy])?;

    Ok(RltScore {
        reward: score,
        format_penalty,
        parts: Ok(RltParts {
            solution_logprob_mean: mean(inputs.solution_logprobs),
            solution_logprob_min,
            solution_logprob_min_at,
            kl_mean: mean(&d_j),
            kl_max,
            kl_max_at,
            d_j,
            r_ss,
            r_kl,
            reward_no_entropy,
        }),
    })
}

/// r_SS = mean_k log pi_S(s_k | t, q, s_<k) + alpha * min_k log pi_S(s_k | t, q, s_<k) (the paper's r_SS).
///
/// `solution_logprobs` in nats, clipped from below where [`RltSettings::logprob_clip`] says so; NaN when there
/// are none.
pub fn solution_score(solution_logprobs: &[f32], settings: &RltSettings) -> f32 {
    let logprobs: Vec<f32> = solution_logprobs.iter().map(|&x| clip(x, settings.logprob_clip)).collect();
    let min = logprobs.iter().copied().fold(f32::INFINITY, f32::min);
    reduce(&logprobs, settings.solution_reduction) + weighted(settings.alpha_min, min)
}

/// r_KL = mean_j D_j + alpha * max_j D_j (the paper's r_KL).
///
/// `d_j` in nats, clipped on both sides where [`RltSettings::kl_clip`] says so; NaN when there are none.
pub fn divergence(d_j: &[f32], settings: &RltSettings) -> f32 {
    let d_j: Vec<f32> = d_j.iter().map(|&x| clip(x, settings.kl_clip)).collect();
    let max = d_j.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    reduce(&d_j, settings.kl_reduction) + weighted(settings.alpha_max, max)
}

/// What the explanation is worth: r_SS after it less r_SS of the same solution without any thought, nats.
///
/// Both in nats, one per solution token; NaN when there are none.
pub fn explanation_value(with: &[f32], without: &[f32], settings: &RltSettings) -> f32 {
    solution_score(with, settings) - solution_score(without, settings)
}

/// `x` brought to at most `most` on either side of 0; as it is when `most` is 0.
fn clip(x: f32, most: f32) -> f32 {
    if most > 0.0 { x.clamp(-most, most) } else { x }
}

/// `weight * x`, which is 0 for weight 0 whatever `x` is.
fn weighted(weight: f32, x: f32) -> f32 {
    if weight == 0.0 { 0.0 } else { weight * x }
}

fn reduce(values: &[f32], reduction: Reduction) -> f32 {
    match reduction {
        Reduction::Mean => mean(values),
        Reduction::Sum => values.iter().map(|&v| f64::from(v)).sum::<f64>() as f32,
        Reduction::Median => quantiles(values, [0.5])[0],
    }
}

/// Quantiles at `shares` (0 to 1), interpolated linearly between neighbours as numpy does; NaN of nothing.
pub fn quantiles<const N: usize>(values: &[f32], shares: [f64; N]) -> [f32; N] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    shares.map(|share| {
        let at = share * sorted.len().saturating_sub(1) as f64;
        let value = |at: f64| sorted.get(at as usize).map_or(f64::NAN, |&v| f64::from(v));
        let (low, high) = (value(at.floor()), value(at.ceil()));
        (low + (high - low) * at.fract()) as f32
    })
}

/// D_j as the sampled token's log-ratio: log pi_T(t_j) - log pi_S(t_j), signed (the official code's).
pub fn sampled_log_ratio(teacher_logprob: f32, student_logprob: f32) -> f32 {
    teacher_logprob - student_logprob
}

/// D_j as Schulman's k3: exp(log pi_S - log pi_T) - (log pi_S - log pi_T) - 1, never negative
/// (<http://joschu.net/blog/kl-approx.html>; an option of the official code).
pub fn k3(teacher_logprob: f32, student_logprob: f32) -> f32 {
    let log_ratio = f64::from(student_logprob) - f64::from(teacher_logprob);
    (log_ratio.exp_m1() - log_ratio) as f32
}

/// D_j from two log-probabilities; `None` where it takes whole distributions.
fn kl_estimator(kl: KlEstimator) -> Option<fn(f32, f32) -> f32> {
    match kl {
        KlEstimator::Sampled => Some(sampled_log_ratio),
        KlEstimator::K3 => Some(k3),
        KlEstimator::Full => None,
    }
}

fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64) as f32
}

/// Index and value of the first extreme; `None` when there is none.
fn arg_extreme(values: &[f32], better: impl Fn(f32, f32) -> bool) -> Option<(usize, f32)> {
    values.iter().copied().enumerate().reduce(|best, new| if better(new.1, best.1) { new } else { best })
}

/// A number that must be finite and is not.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{sample}: the {term} of token {token} is {value}")]
pub struct NonFinite {
    /// The sample, as [`RltInputs::sample`] names it.
    pub sample: String,
    /// Which of its numbers.
    pub term: String,
    /// The token among those of the term, from 0.
    pub token: usize,
    /// The number itself.
    pub value: f32,
}

/// # Errors
/// [`NonFinite`] with sample, term and token of the first number that is not finite.
pub fn check_finite(sample: &str, term: &str, values: &[f32]) -> Result<(), NonFinite> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(token) => {
            Err(NonFinite { sample: sample.into(), term: term.into(), token, value: values[token] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs<'a>(solution: &'a [f32], student: &'a [f32], teacher: &'a [f32]) -> RltInputs<'a> {
        RltInputs {
            sample: "row 7",
            solution_logprobs: solution,
            student_think_logprobs: student,
            teacher_think_logprobs: teacher,
            full_divergence: &[],
            has_end_tag: true,
        }
    }

    fn close(a: f32, b: f32) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }

    #[test]
    fn parts_and_reward_by_hand() {
        let score =
            rlt_reward(&inputs(&[-1.0, -3.0, -2.0], &[-1.0, -4.0], &[-2.0, -1.0]), &RltSettings::default())
                .unwrap();
        let parts = score.parts.as_ref().unwrap();
        close(parts.solution_logprob_mean, -2.0);
        close(parts.solution_logprob_min, -3.0);
        assert_eq!(parts.solution_logprob_min_at, 1);
        assert_eq!(parts.d_j, [-1.0, 3.0]);
        close(parts.kl_mean, 1.0);
        close(parts.kl_max, 3.0);
        assert_eq!(parts.kl_max_at, 1);
        close(parts.r_ss, -2.0 + 0.01 * -3.0);
        close(parts.r_kl, 1.0 + 0.01 * 3.0);
        close(score.reward, -2.03 - 3.0 * 1.03);
        close(parts.reward_no_entropy, -2.03 - 3.0 * (2.5 + 0.01 * 4.0));
        assert_eq!(score.format_penalty, 0.0);
        assert_eq!(score.status(), "ok");
    }

    #[test]
    fn a_missing_end_tag_adds_the_penalty_to_both_variants() {
        let with = rlt_reward(&inputs(&[-1.0], &[-2.0], &[-3.0]), &RltSettings::default()).unwrap();
        let cut = RltInputs { has_end_tag: false, ..inputs(&[-1.0], &[-2.0], &[-3.0]) };
        let without = rlt_reward(&cut, &RltSettings::default()).unwrap();
        close(without.reward, with.reward - 1.0);
        close(without.parts.unwrap().reward_no_entropy, with.parts.unwrap().reward_no_entropy - 1.0);
        assert_eq!(without.format_penalty, -1.0);
    }

    #[test]
    fn alpha_and_lambda_are_the_configured_ones() {
        let config = RltSettings { alpha_min: 0.5, alpha_max: 0.5, lambda: 2.0, ..RltSettings::default() };
        let score = rlt_reward(&inputs(&[-1.0, -3.0], &[-1.0], &[0.0]), &config).unwrap();
        close(score.reward, (-2.0 - 1.5) - 2.0 * (1.0 + 0.5));
    }

    #[test]
    fn k3_is_the_bregman_form_and_never_negative() {
        close(k3(-1.0, -1.0), 0.0);
        // log-ratio -1: e^-1 - (-1) - 1 = e^-1.
        close(k3(-1.0, -2.0), (-1.0_f32).exp());
        // log-ratio 2: e^2 - 2 - 1.
        close(k3(-3.0, -1.0), 2.0_f32.exp() - 3.0);
        for i in -40_i16..40 {
            assert!(k3(-5.0, -5.0 + f32::from(i) / 8.0) >= 0.0);
        }
        let config = RltSettings { kl: KlEstimator::K3, ..RltSettings::default() };
        let score = rlt_reward(&inputs(&[-1.0], &[-2.0], &[-1.0]), &config).unwrap();
        close(score.parts.unwrap().kl_mean, (-1.0_f32).exp());
    }

    #[test]
    fn nothing_to_score_is_a_reason_and_has_a_reward_of_its_own() {
        let config = RltSettings { unscorable_reward: -7.5, ..RltSettings::default() };
        for has_end_tag in [true, false] {
            let empty = RltInputs { has_end_tag, ..inputs(&[-1.0], &[], &[]) };
            let score = rlt_reward(&empty, &config).unwrap();
            assert_eq!((score.reward, score.format_penalty), (-7.5, 0.0));
            assert_eq!(score.parts, Err(Unscorable::EmptyThought));
            let default = rlt_reward(&empty, &RltSettings::default()).unwrap();
            assert_eq!(default.reward, RltSettings::default().format_penalty);
        }
        let score = rlt_reward(&inputs(&[], &[-1.0], &[-1.0]), &config).unwrap();
        assert_eq!(score.parts, Err(Unscorable::EmptySolution));
        assert!(score.status().starts_with("empty solution"));
    }

    /// Every setting alone, on solution log-probabilities -1, -3, -2 and log-ratios -1, 3, 0.5 (r_SS -2.03 and
    /// r_KL 2.5 / 3 + 0.03 by default).
    #[test]
    fn each_setting_by_hand() {
        let default = RltSettings::default;
        let (r_ss, r_kl) = (-2.03, 2.5 / 3.0 + 0.03);
        let cases: [(&str, RltSettings, f32); 14] = [
            ("defaults", default(), r_ss - 3.0 * r_kl),
            (
                "alpha",
                RltSettings { alpha_min: 0.5, alpha_max: 0.5, ..default() },
                -3.5 - 3.0 * (2.5 / 3.0 + 1.5),
            ),
            ("alpha 0", RltSettings { alpha_min: 0.0, alpha_max: 0.0, ..default() }, -2.0 - 2.5),
            ("alpha_min", RltSettings { alpha_min: 0.5, ..default() }, -3.5 - 3.0 * r_kl),
            ("alpha_max", RltSettings { alpha_max: 0.0, ..default() }, r_ss - 2.5),
            ("lambda", RltSettings { lambda: 0.0, ..default() }, r_ss),
            ("solution_weight", RltSettings { solution_weight: 2.0, ..default() }, 2.0 * r_ss - 3.0 * r_kl),
            (
                "solution sum",
                RltSettings { solution_reduction: Reduction::Sum, ..default() },
                -6.03 - 3.0 * r_kl,
            ),
            ("kl sum", RltSettings { kl_reduction: Reduction::Sum, ..default() }, r_ss - 3.0 * 2.53),
            ("kl median", RltSettings { kl_reduction: Reduction::Median, ..default() }, r_ss - 3.0 * 0.53),
            ("logprob_clip", RltSettings { logprob_clip: 1.5, ..default() }, -4.0 / 3.0 - 0.015 - 3.0 * r_kl),
            ("kl_clip", RltSettings { kl_clip: 0.5, ..default() }, r_ss - 3.0 * (0.5 / 3.0 + 0.005)),
            ("reward_clip", RltSettings { reward_clip: 2.0, ..default() }, -2.0),
            ("format_penalty", RltSettings { format_penalty: -5.0, ..default() }, r_ss - 3.0 * r_kl),
        ];
        let inputs = inputs(&[-1.0, -3.0, -2.0], &[-1.0, -4.0, -1.5], &[-2.0, -1.0, -1.0]);
        for (name, config, expected) in cases {
            let score = rlt_reward(&inputs, &config).unwrap();
            assert!((score.reward - expected).abs() < 1e-5, "{name}: {} is not {expected}", score.reward);
            // The parts say what was measured, before any clipping.
            assert_eq!(score.parts.unwrap().solution_logprob_min, -3.0, "{name}");
        }
    }

    #[test]
    fn the_full_divergence_is_taken_as_it_is_given() {
        let config = RltSettings { kl: KlEstimator::Full, ..RltSettings::default() };
        let given =
            RltInputs { full_divergence: &[0.5, 1.5], ..inputs(&[-1.0], &[-9.0, -8.0], &[-1.0, -2.0]) };
        let score = rlt_reward(&given, &config).unwrap();
        close(score.reward, -1.01 - 3.0 * (1.0 + 0.015));
        let parts = score.parts.unwrap();
        assert_eq!((parts.d_j, parts.kl_max_at), (vec![0.5, 1.5], 1));
        let broken = RltInputs { full_divergence: &[0.5, f32::NAN], ..given };
        assert_eq!(rlt_reward(&broken, &config).unwrap_err().to_string(), "row 7: the D_j of token 1 is NaN");
    }

    #[test]
    fn an_explanation_is_worth_what_it_adds_to_the_solution_s_score() {
        let value = explanation_value(&[-1.0, -2.0], &[-2.0, -6.0], &RltSettings::default());
        close(value, (-1.5 - 0.02) - (-4.0 - 0.06));
    }

    #[test]
    fn one_token_is_its_own_mean_extreme_and_quantile() {
        let score = rlt_reward(&inputs(&[-2.0], &[-1.0], &[-0.5]), &RltSettings::default()).unwrap();
        let parts = score.parts.unwrap();
        assert_eq!((parts.solution_logprob_mean, parts.solution_logprob_min), (-2.0, -2.0));
        assert_eq!((parts.kl_mean, parts.kl_max, parts.kl_max_at), (0.5, 0.5, 0));
        assert_eq!(quantiles(&[-2.0], [0.05, 0.5, 1.0]), [-2.0; 3]);
    }

    #[test]
    fn quantiles_lie_between_neighbours_and_extremes_are_the_first() {
        assert_eq!(quantiles(&[4.0, 1.0, 3.0, 0.0], [0.0, 0.25, 0.5, 1.0]), [0.0, 0.75, 2.0, 4.0]);
        assert!(quantiles(&[], [0.5])[0].is_nan());
        let score =
            rlt_reward(&inputs(&[-1.0, -2.0, -2.0], &[-1.0; 3], &[0.0, 0.0, -1.0]), &RltSettings::default());
        let parts = score.unwrap().parts.unwrap();
        assert_eq!((parts.solution_logprob_min_at, parts.kl_max_at), (1, 0));
    }

    #[test]
    fn a_non_finite_number_names_sample_token_and_term() {
        let cases: [(RltInputs, &str); 3] = [
            (
                inputs(&[-1.0, f32::NAN], &[-1.0], &[-1.0]),
                "student's solution log-probability of token 1 is NaN",
            ),
            (
                inputs(&[-1.0], &[f32::NEG_INFINITY], &[-1.0]),
                "student's think log-probability of token 0 is -inf",
            ),
            (inputs(&[-1.0], &[-1.0], &[f32::NAN]), "teacher's think log-probability of token 0 is NaN"),
        ];
        for (bad, message) in cases {
            let error = rlt_reward(&bad, &RltSettings::default()).unwrap_err();
            assert_eq!(error.to_string(), format!("row 7: the {message}"));
        }
        let config = RltSettings { kl: KlEstimator::K3, ..RltSettings::default() };
        let error = rlt_reward(&inputs(&[-1.0], &[-1.0], &[-200.0]), &config).unwrap_err();
        assert_eq!(error.to_string(), "row 7: the D_j of token 0 is inf");
    }
}
