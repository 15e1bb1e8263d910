//! The page of one or several evaluations: tables, intervals, and wrong answers with the grader's reason.

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use super::comparison::{Comparison, SavedEvaluation, compare};
use crate::{Error, Result};

/// Most wrong answers a page shows of one evaluation.
const MAX_WRONG: usize = 200;
/// Longest completion shown, characters: its end, where the answer is.
const MAX_CHARS: usize = 4000;

#[derive(Serialize)]
struct Page {
    runs: Vec<Run>,
    comparisons: Vec<Compared>,
}

#[derive(Serialize)]
struct Run {
    task: String,
    split: String,
    model: String,
    settings: String,
    n_questions: usize,
    n_samples: usize,
    accuracy: String,
    interval: String,
    /// Positions of the bar and the interval, per cent of the axis.
    width: f64,
    low: f64,
    span: f64,
    pass: Vec<(String, String)>,
    majority: Vec<(String, String)>,
    format_rate: String,
    truncated_rate: String,
    mean_tokens: String,
    n_wrong: usize,
    wrong: Vec<Wrong>,
}

#[derive(Serialize)]
struct Wrong {
    row: usize,
    sample: usize,
    question: String,
    gold: String,
    extracted: Option<String>,
    reason: String,
    truncated: bool,
    completion: String,
}

#[derive(Serialize)]
struct Compared {
    #[serde(flatten)]
    comparison: Comparison,
    points: String,
    interval: String,
    p: String,
}

/// The page as HTML that needs nothing else. Every two evaluations of the same task are compared.
///
/// # Errors
/// [`Error::Failed`] when the template fails, which a test excludes.
pub fn render(runs: &[SavedEvaluation]) -> Result<String> {
    let mut comparisons = Vec::new();
    for (i, first) in runs.iter().enumerate() {
        for second in &runs[i + 1..] {
            // Other tasks, or other questions of it, have nothing to compare.
            if let Ok(comparison) = compare(first, second) {
                comparisons.push(Compared {
                    points: signed(comparison.difference),
                    interval: format!("{} to {}", signed(comparison.low), signed(comparison.high)),
                    p: format!("{:.4}", comparison.p_value),
                    comparison,
                });
            }
        }
    }
    let page = Page { runs: runs.iter().map(Run::of).collect(), comparisons };
    let mut templates = Environment::new();
    templates
        .add_template("evaluation.html", include_str!("evaluation.html"))
        .and_then(|()| templates.get_template("evaluation.html")?.render(Serde(page)))
        .map_err(|e| Error::Failed(format!("evaluation template: {e:#}")))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn signed(share: f64) -> String {
    format!("{:+.1}", 100.0 * share)
}

impl Run {
    fn of(run: &SavedEvaluation) -> Self {
        let (report, summary) = (&run.report, &run.report.summary);
        let figures = |map: &std::collections::BTreeMap<String, f64>| {
            let mut figures: Vec<(String, String)> =
                map.iter().map(|(k, v)| (k.clone(), percent(*v))).collect();
            figures.sort_by_key(|(k, _)| k.parse::<u64>().unwrap_or(u64::MAX));
            figures
        };
        let all: Vec<Wrong> = run
            .records
            .iter()
            .flat_map(|record| {
                record.answers.iter().enumerate().filter(|(_, answer)| !answer.correct).map(
                    |(sample, answer)| Wrong {
                        row: record.row,
                        sample: sample + 1,
                        question: record.question.clone(),
                        gold: record.gold.clone(),
                        extracted: answer.extracted.clone(),
                        reason: answer.reason.clone(),
                        truncated: answer.truncated,
                        completion: tail(&answer.completion),
                    },
                )
            })
            .collect();
        Self {
            task: report.task.clone(),
            split: report.split.clone(),
            model: report.model.clone(),
            settings: format!(
                "temperature {}, at most {} tokens, seed {}",
                report.temperature, report.max_new_tokens, report.seed
            ),
            n_questions: summary.n_questions,
            n_samples: summary.n_samples,
            accuracy: percent(summary.accuracy),
            interval: format!("{:.1} to {:.1}", 100.0 * summary.low, 100.0 * summary.high),
            width: 100.0 * summary.accuracy,
            low: 100.0 * summary.low,
            span: 100.0 * (summary.high - summary.low),
            pass: figures(&summary.pass_at_k),
            majority: figures(&summary.majority_at_k),
            format_rate: percent(summary.format_rate),
            truncated_rate: percent(summary.truncated_rate),
            mean_tokens: format!("{:.1}", summary.mean_tokens),
            n_wrong: all.len(),
            wrong: all.into_iter().take(MAX_WRONG).collect(),
        }
    }
}

/// The end of a long completion.
fn tail(text: &str) -> String {
    let n = text.chars().count();
    if n <= MAX_CHARS {
        text.to_owned()
    } else {
        format!("… {}", text.chars().skip(n - MAX_CHARS).collect::<String>())
    }
}
