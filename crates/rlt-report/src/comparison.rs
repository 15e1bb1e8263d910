//! Several runs on one page: what they came to, which settings differ, and their curves over each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::curves::{OverlaySection, overlays};
use super::number::{compact, duration, percent, thousands};
use super::run_files::RunFiles;
use super::trend::first_and_last;
use rlt_method::error::{Error, Result};
use rlt_method::metrics::{self, Metric};

/// Lines of one chart that eyes can tell apart; as many colours are in the style sheet.
const MOST_RUNS: usize = 8;

/// Settings that say where a run writes, not what it does.
const NAMES: [&str; 2] = ["name", "run_dir"];

/// Label, metric, how to write it. The mean of the last few steps, where a run has the metric.
type Column = (&'static str, Metric, fn(f64) -> String);

const COLUMNS: [Column; 11] = [
    ("Reward", metrics::REWARD.mean, compact),
    ("Held-out reward", metrics::EVAL_REWARD_MEAN, compact),
    ("Accuracy", metrics::ACCURACY, percent),
    ("Held-out accuracy", metrics::EVAL_ACCURACY, percent),
    ("Format rate", metrics::FORMAT_RATE, percent),
    ("Think tokens", metrics::THINK_TOKENS_MEAN, compact),
    ("KL to reference", metrics::KL_TO_REFERENCE, compact),
    ("Loss", metrics::LOSS, compact),
    ("Held-out loss", metrics::EVAL_LOSS, compact),
    ("Gradient norm", metrics::GRAD_NORM, compact),
    ("Tokens/s", metrics::TOKENS_PER_S, compact),
];

/// The whole page.
#[derive(Serialize)]
pub(super) struct Comparison {
    style: &'static str,
    columns: Vec<&'static str>,
    runs: Vec<Run>,
    /// Of those settings that differ; one value a run.
    settings: Vec<Setting>,
    charts: Vec<OverlaySection>,
}

#[derive(Serialize)]
struct Run {
    path: String,
    steps: String,
    time: String,
    /// One a column; empty where the run has no such metric.
    figures: Vec<String>,
}

#[derive(Serialize)]
struct Setting {
    key: String,
    values: Vec<String>,
}

impl Comparison {
    /// The page of the runs in `run_dirs`, in their order.
    ///
    /// # Errors
    /// [`Error::Usage`] for more runs than a page can show; what their files report.
    pub fn of(run_dirs: &[&Path]) -> Result<Self> {
        if run_dirs.len() > MOST_RUNS {
            return Err(Error::Usage(format!(
                "{} runs are more than one page can show; compare at most {MOST_RUNS}",
                run_dirs.len()
            )));
        }
        let runs = run_dirs.iter().map(|dir| RunFiles::read(dir)).collect::<Result<Vec<_>>>()?;
        let has = |metric: &Metric| runs.iter().any(|run| run.metrics.iter().any(|row| metric.is_in(row)));
        // GRPO's loss says nothing that the reward does not.
        let columns: Vec<Column> = COLUMNS
            .into_iter()
            .filter(|(_, metric, _)| has(metric) && (*metric != metrics::LOSS || !has(&metrics::REWARD.mean)))
            .collect();
        let rows: Vec<&[Map<String, Value>]> = runs.iter().map(|run| &run.metrics[..]).collect();
        Ok(Self {
            style: crate::STYLE,
            columns: columns.iter().map(|(label, ..)| *label).collect(),
            runs: run_dirs.iter().zip(&rows).map(|(dir, rows)| Run::of(dir, rows, &columns)).collect(),
            settings: differing(&runs)?,
            charts: overlays(&rows),
        })
    }
}

impl Run {
    fn of(dir: &Path, rows: &[Map<String, Value>], columns: &[Column]) -> Self {
        let last = |metric: Metric| metric.of(rows.last()?);
        let figure = |(_, metric, write): &Column| {
            first_and_last(rows, metric).map_or_else(String::new, |(_, last, _)| write(last))
        };
        Self {
            path: dir.display().to_string(),
            steps: thousands(last(metrics::STEP).unwrap_or(0.0) as u64),
            time: last(metrics::WALL_S).map_or_else(String::new, duration),
            figures: columns.iter().map(figure).collect(),
        }
    }
}

/// The settings that are not the same in all runs.
fn differing(runs: &[RunFiles]) -> Result<Vec<Setting>> {
    let settings = runs
        .iter()
        .map(|run| {
            run.config.as_ref().map_or_else(|| Ok(BTreeMap::new()), rlt_method::config::Config::settings)
        })
        .collect::<Result<Vec<_>>>()?;
    let keys: BTreeSet<&String> = settings.iter().flat_map(BTreeMap::keys).collect();
    let row = |key: &String| {
        let values: Vec<String> =
            settings.iter().map(|of_run| of_run.get(key).cloned().unwrap_or_default()).collect();
        let differs = values.iter().any(|value| *value != values[0]) && !NAMES.contains(&key.as_str());
        differs.then(|| Setting { key: key.clone(), values })
    };
    Ok(keys.into_iter().filter_map(row).collect())
}
