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
}
