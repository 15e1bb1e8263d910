//! What a training run's own records say about its way.

use serde_json::{Map, Value};

use super::work::SeedWork;
use rlt_method::error::Result;
use rlt_method::run_log::read_rows;

/// Step and held-out accuracy wherever run `name` was evaluated.
///
/// # Errors
/// When its records cannot be read.
pub fn curve(work: &SeedWork, name: &str) -> Result<Vec<(f64, f64)>> {
    let number = |row: &Map<String, Value>, key: &str| row.get(key).and_then(Value::as_f64);
    let rows = records(work, name)?;
    Ok(rows.iter().filter_map(|row| Some((number(row, "step")?, number(row, "eval_accuracy")?))).collect())
}

/// Mean of a metric over the last tenth of the steps of run `name`; none where it has none.
///
/// # Errors
/// When its records cannot be read.
pub fn last(work: &SeedWork, name: &str, metric: &str) -> Result<Option<f64>> {
    let values: Vec<f64> = records(work, name)?.iter().filter_map(|row| row.get(metric)?.as_f64()).collect();
    let few = (values.len() / 10).max(1).min(values.len());
    let end = &values[values.len() - few..];
    Ok((!end.is_empty()).then(|| end.iter().sum::<f64>() / end.len() as f64))
}

/// Sum of a metric over the steps of run `name`.
///
/// # Errors
/// When its records cannot be read.
pub fn sum(work: &SeedWork, name: &str, metric: &str) -> Result<f64> {
    Ok(records(work, name)?.iter().filter_map(|row| row.get(metric)?.as_f64()).sum())
}

/// Tokens sampled up to each step of run `name`: step and sum.
///
/// # Errors
/// When its records cannot be read.
pub fn tokens_sampled(work: &SeedWork, name: &str, completions_per_step: usize) -> Result<Vec<(f64, f64)>> {
    let mut sum = 0.0;
    let rows = records(work, name)?;
    let up_to = rows.iter().filter_map(|row| {
        sum += row.get("completion_tokens_mean")?.as_f64()? * completions_per_step as f64;
        Some((row.get("step")?.as_f64()?, sum))
    });
    Ok(up_to.collect())
}

/// The records of run `name`; none while nothing has been run.
fn records(work: &SeedWork, name: &str) -> Result<Vec<Map<String, Value>>> {
    let path = work.at(name).join("metrics.jsonl");
    if path.exists() { read_rows(&path) } else { Ok(Vec::new()) }
}
