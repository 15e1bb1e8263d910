//! The conventional reward the paper compares with: format, then the final answer.

/// Whether a completion has the two sections, and whether its answer is right.
///
/// -1 when the completion is not formatted, -0.5 when it is but the answer is wrong, +1 when both hold
/// (the baseline of arXiv 2506.08388). `grade` is asked only about the solution section of a formatted completion.
pub fn correctness_reward(solution_section: Option<&str>, grade: impl FnOnce(&str) -> bool) -> f32 {
    match solution_section {
        None => -1.0,
        Some(solution) if grade(solution) => 1.0,
        Some(_) => -0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_values() {
        assert_eq!(correctness_reward(None, |_| unreachable!("not formatted: nothing to grade")), -1.0);
        assert_eq!(correctness_reward(Some("5"), |answer| answer == "4"), -0.5);
        assert_eq!(correctness_reward(Some("4"), |answer| answer == "4"), 1.0);
    }
}
