//! The reward of Pedagogical RL (Chakraborty, Ziems and others, 2026): what somebody writes who is told the answer is worth
//! as much as it is right and as a student who is not told could have written it himself, every step of it.
//!
//! docs/OBJECTIVES.md says where the equations were found. Log-probabilities are in nats; sums are taken in `f64`.

/// `d_t = log max_v p_S(v | x, y_<t) - log p_S(y_t | x, y_<t)`: how far the student's favourite token is ahead of the one that
/// was written; 0 where they are the same.
pub fn surprise_gap(best_logprob: f32, logprob: f32) -> f32 {
    best_logprob - logprob
}

/// `exp(-(lambda / beta) log mean_t exp(beta d_t))`, 0 to 1: how learnable a text is to the student that its `gaps` are of.
///
/// At `beta = 0` it is `exp(-lambda mean_t d_t)`; the larger `beta`, the more the largest gap alone counts. Nothing surprises
/// in a text without tokens: 1.
pub fn learnability(gaps: &[f32], lambda: f32, beta: f32) -> f32 {
    let (lambda, beta) = (f64::from(lambda), f64::from(beta));
    if gaps.is_empty() {
        return 1.0;
    }
    let gaps = || gaps.iter().map(|&gap| f64::from(gap));
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / gaps().len() as f64;
    let surprise = if beta == 0.0 {
        mean(&mut gaps())
    } else {
        // From the largest on, so that no exponential overflows.
        let largest = gaps().fold(f64::NEG_INFINITY, f64::max);
        largest + mean(&mut gaps().map(|gap| (beta * (gap - largest)).exp())).ln() / beta
    };
    (-lambda * surprise).exp() as f32
}

/// The product of being right and being learnable: 0 where the answer is wrong.
pub fn pedagogical_reward(is_right: bool, learnability: f32) -> f32 {
    if is_right { learnability } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f32, b: f32) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }

    #[test]
    fn a_gap_is_the_lead_of_the_favourite() {
        // Probabilities 0.6 and 0.2: three times as likely.
        near(surprise_gap(0.6_f32.ln(), 0.2_f32.ln()), 3.0_f32.ln());
        assert_eq!(surprise_gap(-0.25, -0.25), 0.0);
    }

    #[test]
    fn learnability_by_hand() {
        // Gaps of 0 and ln 3 at beta 1: the mean of 1 and 3 is 2, and 2 to the -lambda is left.
        let gaps = [0.0, 3.0_f32.ln()];
        near(learnability(&gaps, 1.0, 1.0), 0.5);
        near(learnability(&gaps, 2.0, 1.0), 0.25);
        // At beta 2: the mean of 1 and 9 is 5, to the -1/2.
        near(learnability(&gaps, 1.0, 2.0), 5.0_f32.powf(-0.5));
        // At beta 0: the mean gap is half of ln 3.
        near(learnability(&gaps, 1.0, 0.0), 3.0_f32.powf(-0.5));
        // Nearly so at a small beta.
        assert!((learnability(&gaps, 1.0, 1e-4) - learnability(&gaps, 1.0, 0.0)).abs() < 2e-5);
        near(learnability(&gaps, 0.0, 5.0), 1.0);
        near(learnability(&[0.0; 4], 3.0, 5.0), 1.0);
        near(learnability(&[], 3.0, 5.0), 1.0);
    }

    #[test]
    fn one_spike_costs_more_than_the_same_surprise_spread_out() {
        let (spike, spread) = ([0.0, 0.0, 0.0, 8.0], [2.0; 4]);
        for beta in [0.5, 5.0] {
            assert!(learnability(&spike, 0.5, beta) < learnability(&spread, 0.5, beta));
        }
        near(learnability(&spike, 0.5, 0.0), learnability(&spread, 0.5, 0.0));
        // A gap of a thousand nats at beta 100 is the whole of it, and no overflow.
        near(learnability(&[0.0, 1000.0], 1e-3, 100.0), (-1e-3_f32 * (1000.0 - 2.0_f32.ln() / 100.0)).exp());
    }

    #[test]
    fn a_wrong_answer_earns_nothing() {
        assert_eq!([true, false].map(|is_right| pedagogical_reward(is_right, 0.25)), [0.25, 0.0]);
    }
}
