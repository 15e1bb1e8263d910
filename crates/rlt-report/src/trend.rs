//! Where a metric stood as a run began and as it ended.

use serde_json::{Map, Value};

use rlt_method::metrics::Metric;

/// Means over the first and the last few rows that have the metric, and how many those are.
pub(super) fn first_and_last(rows: &[Map<String, Value>], metric: &Metric) -> Option<(f64, f64, usize)> {
    let values: Vec<f64> = rows.iter().filter_map(|row| metric.of(row)).collect();
    let few = (values.len() / 10).clamp(1, 5);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    (!values.is_empty()).then(|| (mean(&values[..few]), mean(&values[values.len() - few..]), few))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_headline_averages_a_few_steps_at_each_end() {
        let rows: Vec<_> =
            (1..=40).map(|step| json!({"step": step, "loss": step}).as_object().unwrap().clone()).collect();
        assert_eq!(first_and_last(&rows, &rlt_method::metrics::LOSS), Some((2.5, 38.5, 4)));
        assert_eq!(first_and_last(&rows, &rlt_method::metrics::REWARD.mean), None);
    }
}
