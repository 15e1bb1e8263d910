//! Rewards to advantages, as pure functions.

use crate::choice::{Baseline, ObjectiveSettings, Scale};

/// Added to a standard deviation before it divides.
pub const ADVANTAGE_EPSILON: f64 = 1e-4;

/// The advantages of a batch: rewards in groups of `group_size`, less `baseline`, divided by `scale`. One a
/// reward.
pub fn advantages(rewards: &[f32], group_size: usize, settings: &ObjectiveSettings) -> Vec<f32> {
    match (settings.baseline, settings.scale) {
        (Baseline::Group, Scale::Group) => rewards.chunks(group_size).flat_map(group_advantages).collect(),
        (baseline, scale) => {
            let differences = differences(rewards, group_size, baseline);
            scaled(&differences, rewards, group_size, scale).into_iter().map(|a| a as f32).collect()
        }
    }
}

/// A_i = (r_i - mean(r)) / (std(r) + 1e-4) over the rewards of one question's completions, with G - 1 in
/// the standard deviation's denominator (arXiv 2402.03300; the paper's). All zero where all rewards are equal.
pub fn group_advantages(rewards: &[f32]) -> Vec<f32> {
    let differences = differences(rewards, rewards.len(), Baseline::Group);
    scaled(&differences, rewards, rewards.len(), Scale::Group).into_iter().map(|a| a as f32).collect()
}

/// r_i - b_i. The baseline b is the mean of the group (arXiv 2402.03300), of its other completions
/// (arXiv 2402.14740, equation 7), of the whole batch (arXiv 2501.03262), or 0.
pub fn differences(rewards: &[f32], group_size: usize, baseline: Baseline) -> Vec<f64> {
    let size = if baseline == Baseline::Batch { rewards.len() } else { group_size };
    let of_group = |group: &[f32]| -> Vec<f64> {
        if baseline != Baseline::None && has_zero_variance(group) {
            // Exactly zero, whatever the rounding of a mean of equal numbers.
            return vec![0.0; group.len()];
        }
        let (n, sum) = (group.len() as f64, group.iter().map(|&r| f64::from(r)).sum::<f64>());
        let baseline_of = |reward: f64| match baseline {
            Baseline::Group | Baseline::Batch => sum / n,
            Baseline::LeaveOneOut => (sum - reward) / (n - 1.0),
            Baseline::None => 0.0,
        };
        group.iter().map(|&reward| f64::from(reward) - baseline_of(reward.into())).collect()
    };
    rewards.chunks(size.max(1)).flat_map(of_group).collect()
}

/// Differences divided by (std(r) + 1e-4) of the group's rewards (arXiv 2402.03300) or the batch's
/// (arXiv 2508.08221, section 4.2), or as they are (arXiv 2503.20783).
pub fn scaled(differences: &[f64], rewards: &[f32], group_size: usize, scale: Scale) -> Vec<f64> {
    let size = match scale {
        Scale::None => return differences.to_vec(),
        Scale::Group => group_size,
        Scale::Batch => rewards.len(),
    };
    let groups = differences.chunks(size.max(1)).zip(rewards.chunks(size.max(1)));
    groups
        .flat_map(|(differences, rewards)| {
            let divisor = standard_deviation(rewards) + ADVANTAGE_EPSILON;
            differences.iter().map(move |difference| difference / divisor)
        })
        .collect()
}

/// With n - 1 in the denominator; 0 for a single number.
fn standard_deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let squares = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>();
    (squares / (n - 1.0).max(1.0)).sqrt()
}

/// Whether a group teaches nothing: all its rewards are equal.
pub fn has_zero_variance(rewards: &[f32]) -> bool {
    rewards.windows(2).all(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::Objective;

    fn assert_close(ours: impl IntoIterator<Item = f64>, expected: &[f64]) {
        let ours: Vec<f64> = ours.into_iter().collect();
        assert_eq!(ours.len(), expected.len());
        for (ours, expected) in ours.iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-6, "{ours}, expected {expected}");
        }
    }

    #[test]
    fn advantages_by_hand() {
        // Mean 2, squares 4 + 0 + 4 over 2: standard deviation 2.
        let advantages = group_advantages(&[0.0, 2.0, 4.0]);
        assert_close(advantages.into_iter().map(f64::from), &[-2.0 / 2.0001, 0.0, 2.0 / 2.0001]);
    }

    #[test]
    fn equal_rewards_give_no_advantage() {
        assert!(has_zero_variance(&[0.1, 0.1, 0.1]) && !has_zero_variance(&[0.1, 0.1, 0.2]));
        assert_eq!(group_advantages(&[0.1, 0.1, 0.1]), [0.0; 3]);
        assert_eq!(differences(&[0.1, 0.1, 0.1], 3, Baseline::LeaveOneOut), [0.0; 3]);
    }

    /// Two groups of two.
    const REWARDS: [f32; 4] = [1.0, 3.0, 6.0, 2.0];

    #[test]
    fn baselines_by_hand() {
        assert_close(differences(&REWARDS, 2, Baseline::Group), &[-1.0, 1.0, 2.0, -2.0]);
        // The other of two: 1 - 3, 3 - 1, 6 - 2, 2 - 6.
        assert_close(differences(&REWARDS, 2, Baseline::LeaveOneOut), &[-2.0, 2.0, 4.0, -4.0]);
        // Of four, the mean of the other three: 1 - 11/3 ..
        let expected = [-8.0 / 3.0, 0.0, 4.0, -4.0 / 3.0];
        assert_close(differences(&REWARDS, 4, Baseline::LeaveOneOut), &expected);
        assert_close(differences(&REWARDS, 2, Baseline::Batch), &[-2.0, 0.0, 3.0, -1.0]);
        assert_close(differences(&REWARDS, 2, Baseline::None), &[1.0, 3.0, 6.0, 2.0]);
    }

    #[test]
    fn scales_by_hand() {
        let differences = [-1.0, 1.0, 2.0, -2.0];
        // sqrt(2) and sqrt(8) within the groups; squares 4 + 0 + 9 + 1 over 3 in the batch.
        let (first, second) = (2_f64.sqrt() + 1e-4, 8_f64.sqrt() + 1e-4);
        let expected = [-1.0 / first, 1.0 / first, 2.0 / second, -2.0 / second];
        assert_close(scaled(&differences, &REWARDS, 2, Scale::Group), &expected);
        let batch = (14.0_f64 / 3.0).sqrt() + 1e-4;
        assert_close(scaled(&differences, &REWARDS, 2, Scale::Batch), &differences.map(|d| d / batch));
        assert_eq!(scaled(&differences, &REWARDS, 2, Scale::None), differences);
    }

    #[test]
    fn settings_choose_baseline_and_scale() {
        let of = |baseline, scale| {
            let settings = ObjectiveSettings { baseline, scale, ..ObjectiveSettings::of(Objective::Grpo) };
            advantages(&REWARDS, 2, &settings).into_iter().map(f64::from)
        };
        assert_close(of(Baseline::Group, Scale::None), &[-1.0, 1.0, 2.0, -2.0]);
        let batch = (14.0_f64 / 3.0).sqrt() + 1e-4;
        assert_close(of(Baseline::LeaveOneOut, Scale::Batch), &[-2.0, 2.0, 4.0, -4.0].map(|d| d / batch));
        let paper: Vec<f64> = REWARDS.chunks(2).flat_map(group_advantages).map(f64::from).collect();
        assert_close(of(Baseline::Group, Scale::Group), &paper);
    }
}
