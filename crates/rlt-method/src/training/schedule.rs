//! The learning rate of each step.

use std::f64::consts::PI;

use crate::config::{OptimizerConfig, Schedule};

/// Steps with a rising rate: a share of `total_steps` (rounded up) when `warmup` is below 1, else that
/// many steps.
pub fn warmup_steps(warmup: f64, total_steps: u64) -> u64 {
    if warmup < 1.0 { (warmup * total_steps as f64).ceil() as u64 } else { warmup as u64 }
}

/// Learning rate of step `step` (from 1) of `total_steps`.
///
/// With `w` warm-up steps the rate rises in equal parts and reaches its peak at step `w + 1`; from there
/// it falls to what would be zero one step after the last. So no step has a rate of zero, unlike the
/// schedules of transformers, whose first warm-up step does nothing.
pub fn learning_rate(optimizer: &OptimizerConfig, step: u64, total_steps: u64) -> f64 {
    let done = step.saturating_sub(1);
    let warmup = warmup_steps(optimizer.warmup, total_steps);
    let factor = if done < warmup {
        step as f64 / (warmup + 1) as f64
    } else {
        let progress = (done - warmup) as f64 / total_steps.saturating_sub(warmup).max(1) as f64;
        match optimizer.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - progress,
            Schedule::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
        }
    };
    optimizer.learning_rate * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, warmup: f64, total_steps: u64) -> Vec<f64> {
        let optimizer =
            OptimizerConfig { learning_rate: 8.0, schedule, warmup, ..OptimizerConfig::default() };
        (1..=total_steps).map(|step| learning_rate(&optimizer, step, total_steps)).collect()
    }

    fn assert_close(ours: &[f64], expected: &[f64]) {
        assert_eq!(ours.len(), expected.len());
        for (a, b) in ours.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{ours:?}, expected {expected:?}");
        }
    }

    #[test]
    fn constant_is_constant() {
        assert_close(&rates(Schedule::Constant, 0.0, 3), &[8.0, 8.0, 8.0]);
    }

    #[test]
    fn linear_falls_in_equal_parts() {
        assert_close(&rates(Schedule::Linear, 0.0, 4), &[8.0, 6.0, 4.0, 2.0]);
    }

    #[test]
    fn cosine_passes_its_middle_half_way() {
        let side = 4.0 * (1.0 + std::f64::consts::FRAC_1_SQRT_2);
        assert_close(&rates(Schedule::Cosine, 0.0, 4), &[8.0, side, 4.0, 8.0 - side]);
    }

    #[test]
    fn warmup_is_a_share_or_a_number_of_steps() {
        assert_eq!((warmup_steps(0.05, 30), warmup_steps(0.0, 30), warmup_steps(3.0, 30)), (2, 0, 3));
        let expected = [2.0, 4.0, 6.0, 8.0, 8.0];
        assert_close(&rates(Schedule::Constant, 3.0, 5), &expected);
        assert_close(&rates(Schedule::Constant, 0.6, 5), &expected);
        assert_close(&rates(Schedule::Linear, 1.0, 5), &[4.0, 8.0, 6.0, 4.0, 2.0]);
    }

    #[test]
    fn a_warmup_longer_than_the_run_only_rises() {
        assert_close(&rates(Schedule::Cosine, 7.0, 2), &[1.0, 2.0]);
    }
}
