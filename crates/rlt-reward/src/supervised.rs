//! The loss of supervised fine-tuning: the mean negative log-likelihood of the tokens that count.

/// `-1/N sum_i log p(token_i)` over the `n_tokens` tokens that count in the whole batch, given the sum of
/// their log-probabilities (nats).
pub fn loss(sum_logprobs: f64, n_tokens: usize) -> f64 {
    -sum_logprobs / n_tokens as f64
}

/// Derivative of [`loss`] by each log-probability; the same for every token of the batch, so that the
/// gradients of its micro-batches add up to the batch's.
pub fn derivative(n_tokens: usize) -> f32 {
    (-1.0 / n_tokens as f64) as f32
}

/// What a token counts in surprisal-gated imitation (Pedagogical RL): `sigmoid(kappa (log p - gamma))` of its log-probability
/// under the model that learns, a constant to the gradient. Near 1 where the model could have written it, near 0 where it never
/// would; 1/2 at `gamma` nats. At `kappa = 0` all tokens count in full.
pub fn surprisal_gate(logprob: f32, kappa: f32, gamma: f32) -> f32 {
    if kappa == 0.0 {
        return 1.0;
    }
    let (logprob, kappa, gamma) = (f64::from(logprob), f64::from(kappa), f64::from(gamma));
    (1.0 / (1.0 + (-kappa * (logprob - gamma)).exp())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivative_is_that_of_the_loss() {
        let (sum, h) = (-3.5, 1e-3);
        assert_eq!(loss(sum, 4), 0.875);
        let difference = (loss(sum + h, 4) - loss(sum - h, 4)) / (2.0 * h);
        assert!((difference - f64::from(derivative(4))).abs() < 1e-9);
    }

    #[test]
    fn a_gate_by_hand() {
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} is not {b}");
        near(surprisal_gate(-3.5, 2.0, -3.5), 0.5);
        // Odds of e^(2 * ln 3) = 9 to 1, one way and the other.
        near(surprisal_gate(-3.5 + 3.0_f32.ln(), 2.0, -3.5), 0.9);
        near(surprisal_gate(-3.5 - 3.0_f32.ln(), 2.0, -3.5), 0.1);
        near(surprisal_gate(-1e30, 1e6, -3.5), 0.0);
        near(surprisal_gate(0.0, 1e6, -3.5), 1.0);
        near(surprisal_gate(-50.0, 0.0, -3.5), 1.0);
    }
}
