//! How far whoever draws completions is from the policy that learns from them.

use serde_json::{Map, Value};

use super::sample::{Group, Sample};
use crate::metrics::{CORRECTED_SHARE, MISMATCH_MAX, MISMATCH_MEAN, MISMATCH_OUTSIDE_SHARE, VERSION_LAG_MAX};

/// Metrics of the completions that others drew for `step`, whose policy has learnt from one step less. `weights` are what
/// tokens count in the loss; ratios further from 1 than `band` are counted.
pub(super) fn describe_mismatch(
    groups: &[Group],
    step: u64,
    band: f32,
    weights: impl Fn(&Sample) -> Vec<f32>,
) -> Map<String, Value> {
    let (mut n, mut sum, mut max, mut outside, mut corrected, mut lag) =
        (0_usize, 0.0, 0.0_f64, 0_usize, 0_usize, 0);
    for sample in groups.iter().flat_map(|group| &group.samples) {
        lag = lag.max((step - 1).saturating_sub(sample.completion.version));
        let weights = weights(sample);
        let own = sample.completion.logprobs.iter().zip(&sample.behaviour);
        for ((&own, &behaviour), &weight) in own.zip(&weights) {
            let log_ratio = f64::from(own) - f64::from(behaviour);
            let ratio = log_ratio.exp();
            n += 1;
            sum += log_ratio.abs();
            max = max.max(log_ratio.abs());
            outside += usize::from((ratio - 1.0).abs() > band.into());
            // A weight that is the ratio itself is no correction of it.
            corrected += usize::from((f64::from(weight) - ratio).abs() > 1e-6 * ratio.max(1.0));
        }
    }
    let mut metrics = Map::new();
    let share = |count: usize| count as f64 / n.max(1) as f64;
    MISMATCH_MEAN.put(&mut metrics, sum / n.max(1) as f64);
    MISMATCH_MAX.put(&mut metrics, max);
    MISMATCH_OUTSIDE_SHARE.put(&mut metrics, share(outside));
    CORRECTED_SHARE.put(&mut metrics, share(corrected));
    VERSION_LAG_MAX.put(&mut metrics, lag);
    metrics
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::grpo::sample::tests::{question, sample};

    #[test]
    fn a_mismatch_by_hand() {
        let question = question();
        let mut one = sample(&[1, 2, 3, 4], 1.0);
        // The policy finds them as likely as the sampler, twice, half and four times as likely.
        let ln2 = std::f32::consts::LN_2;
        one.take_own(vec![-0.5, -0.5 + ln2, -0.5 - ln2, -0.5 + 2.0 * ln2]);
        assert_eq!(one.behaviour, [-0.5; 4]);
        one.completion.version = 3;
        let groups = [Group { question: &question, samples: vec![one] }];
        // Ratios 1, 2, 0.5 and 4, the last of which counts 2.
        let row = describe_mismatch(&groups, 5, 0.6, |_| vec![1.0, 2.0, 0.5, 2.0]);
        let near = |name: &str, expected: f64| {
            assert!((row[name].as_f64().unwrap() - expected).abs() < 1e-6, "{name}");
        };
        near("mismatch_mean", f64::from(ln2));
        near("mismatch_max", 2.0 * f64::from(ln2));
        assert_eq!((&row["mismatch_outside_share"], &row["corrected_share"]), (&json!(0.5), &json!(0.25)));
        assert_eq!(row["version_lag_max"], 1);
    }
}
