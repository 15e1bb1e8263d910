//! A reward that is made of several.

/// `main + sum_k weight_k value_k` over the `(weight, value)` pairs of `added`.
pub fn weighted_sum(main: f32, added: &[(f32, f32)]) -> f32 {
    let sum: f64 = added.iter().map(|&(weight, value)| f64::from(weight) * f64::from(value)).sum();
    (f64::from(main) + sum) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_by_hand() {
        assert_eq!(weighted_sum(-1.5, &[]), -1.5);
        // -1.5 + 2 * 1 - 4 * 0.25
        assert_eq!(weighted_sum(-1.5, &[(2.0, 1.0), (-4.0, 0.25)]), -0.5);
    }
}
