//! Two evaluations of the same questions, side by side.

use std::path::Path;

use rlt_files::{MOST_ROWS, is_plain_name};
use serde::Serialize;

use super::metrics::{bootstrap_interval, mean, paired_p_value};
use super::{EvalReport, QuestionRecord};
use crate::{Error, Result};

/// Random exchanges behind a p-value.
const N_EXCHANGES: usize = 10_000;

/// An evaluation read back from its files.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedEvaluation {
    /// The figures and settings.
    pub report: EvalReport,
    /// Every question with its answers.
    pub records: Vec<QuestionRecord>,
}

impl SavedEvaluation {
    /// Reads an evaluation's .json file and its per-question file.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::File`] when a file is not what `rlt eval` writes.
    pub fn read(path: &Path) -> Result<Self> {
        let read = |path: &Path| {
            rlt_files::read_text(path, MOST_ROWS)
                .map_err(|source| Error::Io { path: path.to_owned(), source })
        };
        let what = |path: &Path, error: serde_json::Error| Error::File {
            path: path.to_owned(),
            what: format!("not an evaluation that `rlt eval` wrote: {error}"),
        };
        let report: EvalReport = serde_json::from_str(&read(path)?).map_err(|error| what(path, error))?;
        let name = report.per_question_file.to_str().filter(|name| is_plain_name(name));
        let Some(name) = name else {
            let what = format!(
                "`per_question_file` is {}, not the name of a file beside it; put the file there",
                report.per_question_file.display()
            );
            return Err(Error::File { path: path.to_owned(), what });
        };
        let questions = path.with_file_name(name);
        let records = read(&questions)?
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|error| what(&questions, error)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { report, records })
    }
}

/// The second evaluation minus the first, over the questions both asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The first model.
    pub first: String,
    /// The second model.
    pub second: String,
    /// The task of both.
    pub task: String,
    /// Questions both asked.
    pub n_questions: usize,
    /// Mean difference of the accuracies, -1 to 1.
    pub difference: f64,
    /// Lower end of its 95 % interval, by bootstrap over questions.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Two-sided p-value of no difference (randomisation within questions).
    pub p_value: f64,
}

/// Compares two evaluations of one task, question by question.
///
/// # Errors
/// [`Error::Usage`] when they are of different tasks or share no question.
pub fn compare(first: &SavedEvaluation, second: &SavedEvaluation) -> Result<Comparison> {
    if first.report.task != second.report.task {
        return Err(Error::Usage(format!(
            "{} and {} are different tasks; compare evaluations of the same one",
            first.report.task, second.report.task
        )));
    }
    let accuracy = |record: &QuestionRecord| record.n_correct() as f64 / record.answers.len().max(1) as f64;
    let differences: Vec<f64> = second
        .records
        .iter()
        .filter_map(|record| {
            let same = |other: &&QuestionRecord| other.row == record.row && other.question == record.question;
            first.records.iter().find(same).map(|other| accuracy(record) - accuracy(other))
        })
        .collect();
    if differences.is_empty() {
        return Err(Error::Usage("the evaluations share no question".into()));
    }
    let difference = mean(differences.iter().copied());
    // The bootstrap works on any mean; only its stand-in for no spread needs shares.
    let constant = differences.iter().all(|d| *d == differences[0]);
    let (low, high) = if constant {
        (difference, difference)
    } else {
        let interval = bootstrap_interval(&differences, 4000, first.report.seed);
        (interval.low, interval.high)
    };
    Ok(Comparison {
        first: first.report.model.clone(),
        second: second.report.model.clone(),
        task: first.report.task.clone(),
        n_questions: differences.len(),
        difference,
        low,
        high,
        p_value: paired_p_value(&differences, N_EXCHANGES, first.report.seed),
    })
}
