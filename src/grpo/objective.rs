//! The equations of GRPO (arXiv 2402.03300; arXiv 2506.08388, section 2) as pure functions.
//!
//! One optimizer step is taken for each batch of completions, so the ratio of new to old policy is 1
//! everywhere and there is nothing to clip. Log-probabilities are in nats and at the sampling
//! temperature.

/// Added to the standard deviation of a group's rewards.
pub const ADVANTAGE_EPSILON: f64 = 1e-4;

/// A_i = (r_i - mean(r)) / (std(r) + 1e-4) over the rewards of one question's completions, with G - 1 in
/// the standard deviation's denominator. All zero where all rewards are equal.
pub fn group_advantages(rewards: &[f32]) -> Vec<f32> {
    let n = rewards.len() as f64;
    let mean = rewards.iter().map(|&r| f64::from(r)).sum::<f64>() / n;
    let squares = rewards.iter().map(|&r| (f64::from(r) - mean).powi(2)).sum::<f64>();
    let std = (squares / (n - 1.0).max(1.0)).sqrt();
    if has_zero_variance(rewards) {
        return vec![0.0; rewards.len()];
    }
    rewards.iter().map(|&r| ((f64::from(r) - mean) / (std + ADVANTAGE_EPSILON)) as f32).collect()
}

/// Whether a group teaches nothing: all its rewards are equal.
pub fn has_zero_variance(rewards: &[f32]) -> bool {
    rewards.windows(2).all(|pair| pair[0] == pair[1])
}

/// Schulman's estimator of KL(policy || reference) at one token, never negative:
/// `exp(ref - logp) - (ref - logp) - 1`.
pub fn k3(logprob: f32, reference: f32) -> f64 {
    let difference = f64::from(reference) - f64::from(logprob);
    difference.exp_m1() - difference
}

/// Loss of one token: `-(exp(logp - logp.detach()) * A - beta * k3)`, at ratio 1. `reference` is the
/// reference model's log-probability, absent where `beta` is 0.
pub fn token_loss(advantage: f32, beta: f32, logprob: f32, reference: Option<f32>) -> f64 {
    let kl = reference.map_or(0.0, |reference| k3(logprob, reference));
    -f64::from(advantage) + f64::from(beta) * kl
}

/// Derivative of [`token_loss`] by the token's log-probability: `-A + beta * (1 - exp(ref - logp))`. The
/// ratio is 1 in value, but its derivative is not 0: that is the policy gradient.
pub fn token_loss_derivative(advantage: f32, beta: f32, logprob: f32, reference: Option<f32>) -> f64 {
    let kl = reference.map_or(0.0, |reference| -(f64::from(reference) - f64::from(logprob)).exp_m1());
    -f64::from(advantage) + f64::from(beta) * kl
}

/// What a token's loss counts in the loss of the step: the mean is taken over the tokens of each
/// completion, then over the completions.
pub fn token_weight(n_tokens: usize, n_completions: usize) -> f64 {
    1.0 / (n_tokens as f64 * n_completions as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(ours: f64, expected: f64, tolerance: f64) {
        assert!((ours - expected).abs() < tolerance, "{ours}, expected {expected}");
    }

    #[test]
    fn advantages_by_hand() {
        // Mean 2, squares 4 + 0 + 4 over 2: standard deviation 2.
        let advantages = group_advantages(&[0.0, 2.0, 4.0]);
        for (ours, expected) in advantages.iter().zip([-2.0 / 2.0001, 0.0, 2.0 / 2.0001]) {
            assert_close((*ours).into(), expected, 1e-7);
        }
    }

    #[test]
    fn equal_rewards_give_no_advantage() {
        assert!(has_zero_variance(&[0.1, 0.1, 0.1]) && !has_zero_variance(&[0.1, 0.1, 0.2]));
        assert_eq!(group_advantages(&[0.1, 0.1, 0.1]), [0.0; 3]);
    }

    #[test]
    fn k3_by_hand() {
        // exp(ln 2) - ln 2 - 1
        let ln2 = std::f32::consts::LN_2;
        assert_close(k3(-1.0 - ln2, -1.0), 1.0 - f64::from(ln2), 1e-6);
        assert_eq!(k3(-1.3, -1.3), 0.0);
        assert!(k3(-0.5, -1.0) > 0.0 && k3(-1.0, -0.5) > 0.0);
    }

    #[test]
    fn the_token_loss_by_hand() {
        let ln2 = std::f32::consts::LN_2;
        let (policy, reference) = (-1.0 - ln2, Some(-1.0));
        assert_close(token_loss(0.5, 0.1, policy, reference), -0.5 + 0.1 * (1.0 - f64::from(ln2)), 1e-6);
        // 1 - exp(ln 2) = -1
        assert_close(token_loss_derivative(0.5, 0.1, policy, reference), -0.5 - 0.1, 1e-6);
        assert_eq!(token_loss_derivative(0.5, 0.1, policy, None), -0.5);
    }

    #[test]
    fn the_derivative_agrees_with_finite_differences() {
        // The ratio is taken against the log-probability at which the completion was sampled.
        let loss = |logprob: f64, old: f64, advantage: f64, beta: f64, reference: f64| {
            let difference = reference - logprob;
            -((logprob - old).exp() * advantage - beta * (difference.exp() - difference - 1.0))
        };
        let h = 1e-5;
        for (advantage, beta, old, reference) in
            [(1.5, 0.04, -0.7, -1.1), (-0.8, 0.5, -2.0, -0.4), (0.0, 1.0, -0.1, -3.0)]
        {
            let at = |logprob| loss(logprob, old, advantage, beta, reference);
            let difference = (at(old + h) - at(old - h)) / (2.0 * h);
            let ours =
                token_loss_derivative(advantage as f32, beta as f32, old as f32, Some(reference as f32));
            assert_close(ours, difference, 1e-6);
            let value = token_loss(advantage as f32, beta as f32, old as f32, Some(reference as f32));
            assert_close(value, at(old), 1e-6);
        }
    }

    #[test]
    fn weights_add_up_to_one() {
        let lengths = [3, 1, 7];
        let total: f64 = lengths.iter().map(|&n| n as f64 * token_weight(n, lengths.len())).sum();
        assert_close(total, 1.0, 1e-12);
    }
}
