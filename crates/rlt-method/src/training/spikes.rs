//! Values that jump away from those of the steps before: told at once, so that nobody finds out in the morning.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use crate::metrics::{DIVERGENCE, GRAD_NORM, LOSS, Metric, REWARD};

/// The metrics that are watched, where a row has them, and how far from the median they may always go, as a share of
/// it: the norms of RL's gradients often double without harm.
const WATCHED: [(Metric, f64); 4] = [(GRAD_NORM, 2.0), (REWARD.mean, 0.5), (LOSS, 0.5), (DIVERGENCE, 0.5)];

/// GRPO's loss is near 0 by construction; where there is a reward, that is watched in its place.
const UNLESS_REWARDED: Metric = LOSS;

/// Steps that a value is compared with.
const WINDOW: usize = 32;
/// Fewer steps say nothing about what is usual.
const LEAST: usize = 8;
/// A spike is also so many robust standard deviations away.
const DEVIATIONS: f64 = 8.0;
/// The median absolute deviation of a normal distribution, times this, is its standard deviation.
const MAD_TO_STD: f64 = 1.4826;

/// The last values of each watched metric.
#[derive(Debug, Clone, Default)]
pub struct SpikeWatch {
    recent: [VecDeque<f64>; WATCHED.len()],
}

/// One value far from its predecessors.
#[derive(Debug, Clone, PartialEq)]
pub struct Spike {
    /// The metric.
    pub metric: &'static str,
    /// Its value.
    pub value: f64,
    /// The median of the steps before.
    pub median: f64,
}

impl SpikeWatch {
    /// The spikes in a step's row; the row then counts among those before. A watch that was shown the rows of a run
    /// is the one that saw them being written.
    pub fn look(&mut self, row: &Map<String, Value>) -> Vec<Spike> {
        let mut spikes = Vec::new();
        for ((metric, share), recent) in WATCHED.into_iter().zip(&mut self.recent) {
            if metric == UNLESS_REWARDED && REWARD.mean.is_in(row) {
                continue;
            }
            let Some(value) = metric.of(row) else { continue };
            if let Some(median) =
                usual(recent).filter(|usual| usual.is_left_by(value, share)).map(|usual| usual.median)
            {
                spikes.push(Spike { metric: metric.name, value, median });
            }
            if recent.len() == WINDOW {
                recent.pop_front();
            }
            recent.push_back(value);
        }
        spikes
    }
}

/// What the last values were like.
struct Usual {
    median: f64,
    /// Robust standard deviation.
    spread: f64,
}

impl Usual {
    fn is_left_by(&self, value: f64, share: f64) -> bool {
        let distance = (value - self.median).abs();
        // Values that were all the same (a reward of -1 for every answer) are left by learning, too.
        self.spread > 0.0 && distance > DEVIATIONS * self.spread && distance > share * self.median.abs()
    }
}

fn usual(recent: &VecDeque<f64>) -> Option<Usual> {
    if recent.len() < LEAST {
        return None;
    }
    let median = median(recent.iter().copied());
    let spread = MAD_TO_STD * self::median(recent.iter().map(|value| (value - median).abs()));
    Some(Usual { median, spread })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    /// Looks at gradient norms one after another and returns those that were called spikes.
    fn spikes(norms: &[f64]) -> Vec<f64> {
        let mut watch = SpikeWatch::default();
        norms
            .iter()
            .flat_map(|norm| watch.look(&row(&json!({"grad_norm": norm}))))
            .map(|spike| spike.value)
            .collect()
    }

    #[test]
    fn one_norm_far_from_the_others_is_a_spike_and_does_not_hide_the_next() {
        // Median 1.0, deviations 0 or 0.1 with median 0.1: 8 * 0.148 = 1.19, so that twice the median decides: a spike is
        // beyond 3.
        let mut norms = vec![0.9, 1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.1];
        norms.extend([2.9, 40.0, 1.0, 1.1, 35.0]);
        assert_eq!(spikes(&norms), [40.0, 35.0]);
    }

    #[test]
    fn beginnings_drifts_and_constants_are_none() {
        assert_eq!(spikes(&[1.0, 1.1, 50.0]), [0.0; 0]);
        let drift: Vec<f64> = (0..200).map(|step| f64::from(step) * 0.1).collect();
        assert_eq!(spikes(&drift), [0.0; 0]);
        let mut learns = vec![1.0; 20];
        learns.push(3.0);
        assert_eq!(spikes(&learns), [0.0; 0]);
    }

    #[test]
    fn a_reward_that_falls_is_named_with_what_was_usual() {
        let mut watch = SpikeWatch::default();
        for step in 0..12 {
            let reward = -2.0 + 0.01 * f64::from(step % 3);
            assert!(watch.look(&row(&json!({"reward_mean": reward, "loss": step * 100}))).is_empty());
        }
        let spikes = watch.look(&row(&json!({"reward_mean": -9.0, "loss": 1e6})));
        assert_eq!(spikes, [Spike { metric: "reward_mean", value: -9.0, median: -1.99 }]);
    }
}
