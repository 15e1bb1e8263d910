//! Evaluation: sample answers, grade them, report accuracy with an interval.
//!
//! [`task`] asks a model the questions of a world or of a file. How completions come about is the
//! business of whoever calls [`evaluate`], and so is which grader of [`rlt_grade`] judges
//! them; [`metrics`] are pure functions.

pub mod benchmark;
pub mod comparison;
pub mod metrics;
pub mod page;
pub mod partial;
pub mod task;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rlt_files::write_atomic;
use rlt_grade::Verdict;
use serde::{Deserialize, Serialize};

use self::metrics::{Interval, bootstrap_interval, majority_at_k, mean, pass_at_k, wilson_interval};
use crate::progress::Progress;
use crate::{Error, Result};

/// Bootstrap resamples behind an interval over several samples per question.
const N_RESAMPLES: usize = 2000;

/// A question and its right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalQuestion {
    /// Row of the data file, from 1.
    pub row: usize,
    /// The question.
    pub question: String,
    /// A text that holds the right answer (for worlds, the solution).
    pub gold: String,
}

/// One sampled answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The completion after the prompt, special tokens kept.
    pub text: String,
    /// Its length in tokens.
    pub n_tokens: usize,
    /// It was cut at the length limit.
    pub truncated: bool,
}

/// What the student writes before its solution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thought {
    /// Whatever it likes.
    #[default]
    Free,
    /// Nothing: the prompt goes on with an empty thought, so that the answer comes without steps.
    None,
}

/// How much is evaluated, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalOptions {
    /// Answers per question; at least 1.
    pub n_samples: usize,
    /// The k of pass@k; values above `n_samples` are left out of the summary.
    pub pass_ks: Vec<usize>,
    /// Seed of the bootstrap.
    pub seed: u64,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { n_samples: 1, pass_ks: vec![1], seed: 0 }
    }
}

/// One graded answer, as it is written to the per-question file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GradedAnswer {
    /// The completion.
    pub completion: String,
    /// What the grader read from it.
    pub extracted: Option<String>,
    /// Whether that is right.
    pub correct: bool,
    /// The grader's reason.
    #[serde(default)]
    pub reason: String,
    /// Whether the sections are complete.
    pub formatted: bool,
    /// Whether it was cut at the length limit.
    pub truncated: bool,
    /// Length in tokens.
    pub n_tokens: usize,
}

/// One question with all its answers: a line of the per-question file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionRecord {
    /// Row of the data file, from 1.
    pub row: usize,
    /// The question.
    pub question: String,
    /// The right answer.
    pub gold: String,
    /// The answers, in the order of their samples.
    pub answers: Vec<GradedAnswer>,
}

impl QuestionRecord {
    fn n_correct(&self) -> usize {
        self.answers.iter().filter(|answer| answer.correct).count()
    }
}

/// The figures of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalSummary {
    /// Questions asked.
    pub n_questions: usize,
    /// Answers per question.
    pub n_samples: usize,
    /// Share of right answers (avg@n).
    pub accuracy: f64,
    /// Lower end of its 95 % interval: Wilson's for one sample, cluster bootstrap for more.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Unbiased pass@k by k (as text, since JSON's keys are).
    pub pass_at_k: BTreeMap<String, f64>,
    /// Share of questions whose most frequent answer among k is right, by k: the mean over blocks of k samples, a
    /// tie counted by shares.
    #[serde(default)]
    pub majority_at_k: BTreeMap<String, f64>,
    /// Share of answers with complete sections.
    pub format_rate: f64,
    /// Share of answers cut at the length limit.
    pub truncated_rate: f64,
    /// Mean length of an answer, tokens.
    pub mean_tokens: f64,
}

/// The content of `eval.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// The model folder.
    pub model: String,
    /// What was evaluated, for example `market`.
    pub task: String,
    /// Which of its questions, for example `heldout`.
    pub split: String,
    /// Seed of sampling and bootstrap.
    pub seed: u64,
    /// Softmax temperature of sampling; 0 took the most likely token.
    pub temperature: f32,
    /// Longest answer allowed, tokens.
    pub max_new_tokens: usize,
    /// What the student wrote before its solution.
    pub thought: Thought,
    /// The figures.
    #[serde(flatten)]
    pub summary: EvalSummary,
    /// Name of the file of [`QuestionRecord`]s beside this one.
    pub per_question_file: PathBuf,
}

/// Asks every question `options.n_samples` times and grades the answers.
///
/// `answer` gets the index of the first question that is to be asked and where its answers go, in order: `n_samples` of each
/// of the next questions. Random streams keyed by question and sample make the result independent of how many come at once.
/// `done` are records of an earlier call: the first questions, not asked again. New records go to `save` as they come.
///
/// # Errors
/// [`Error::Usage`] when there is no question or no sample to draw, [`Error::Failed`] when there is another number of
/// answers, and whatever `answer` and `save` report.
pub fn evaluate(
    questions: &[EvalQuestion],
    options: &EvalOptions,
    done: Vec<QuestionRecord>,
    answer: impl FnOnce(usize, &mut dyn FnMut(Vec<Vec<Answer>>) -> Result<()>) -> Result<()>,
    grade: impl Fn(&EvalQuestion, &str) -> Verdict,
    save: &mut dyn FnMut(&[QuestionRecord]) -> Result<()>,
    progress: &dyn Progress,
) -> Result<(EvalSummary, Vec<QuestionRecord>)> {
    if questions.is_empty() || options.n_samples == 0 {
        let (n, samples) = (questions.len(), options.n_samples);
        return Err(Error::Usage(format!("nothing to evaluate: {n} questions, {samples} samples each")));
    }
    let mut records = done;
    records.truncate(questions.len());
    let n_done = records.len();
    let mut n_correct: usize = records.iter().map(QuestionRecord::n_correct).sum();
    progress.start("evaluate", questions.len() as u64, "questions");
    progress.advance(n_done as u64, "");
    if n_done < questions.len() {
        answer(n_done, &mut |answers: Vec<Vec<Answer>>| {
            let first = records.len();
            let to_come = &questions[first..];
            if answers.len() > to_come.len() || answers.iter().any(|list| list.len() != options.n_samples) {
                return Err(Error::Failed(format!(
                    "{} answers for {} questions from question {} on, or not {} for each",
                    answers.len(),
                    to_come.len(),
                    first + 1,
                    options.n_samples
                )));
            }
            for (question, answers) in to_come.iter().zip(answers) {
                let record = grade_question(question, answers, &grade);
                n_correct += record.n_correct();
                records.push(record);
            }
            save(&records[first..])?;
            let share = n_correct as f64 / (records.len() * options.n_samples) as f64;
            progress.advance((records.len() - first) as u64, &format!("accuracy {:.1} %", 100.0 * share));
            Ok(())
        })?;
    }
    if records.len() != questions.len() {
        let (n, all) = (records.len(), questions.len());
        return Err(Error::Failed(format!("{n} of {all} questions were answered")));
    }
    let summary = summarise(&records, options);
    progress.finish(&format!(
        "accuracy {:.1} % ({:.1} to {:.1})",
        100.0 * summary.accuracy,
        100.0 * summary.low,
        100.0 * summary.high
    ));
    Ok((summary, records))
}

fn grade_question(
    question: &EvalQuestion,
    answers: Vec<Answer>,
    grade: &dyn Fn(&EvalQuestion, &str) -> Verdict,
) -> QuestionRecord {
    let graded = answers.into_iter().map(|answer| {
        let verdict = grade(question, &answer.text);
        GradedAnswer {
            completion: answer.text,
            extracted: verdict.extracted,
            correct: verdict.correct,
            formatted: verdict.formatted,
            reason: verdict.reason,
            truncated: answer.truncated,
            n_tokens: answer.n_tokens,
        }
    });
    QuestionRecord {
        row: question.row,
        question: question.question.clone(),
        gold: question.gold.clone(),
        answers: graded.collect(),
    }
}

/// The figures of graded questions, each with `options.n_samples` answers.
pub fn summarise(records: &[QuestionRecord], options: &EvalOptions) -> EvalSummary {
    let n_samples = options.n_samples;
    let n_correct: Vec<usize> = records.iter().map(QuestionRecord::n_correct).collect();
    let total: usize = n_correct.iter().sum();
    let question_means: Vec<f64> = n_correct.iter().map(|&c| c as f64 / n_samples as f64).collect();
    let Interval { low, high } = if n_samples == 1 {
        wilson_interval(total, records.len())
    } else {
        bootstrap_interval(&question_means, N_RESAMPLES, options.seed)
    };
    let answers: Vec<&GradedAnswer> = records.iter().flat_map(|record| &record.answers).collect();
    let share =
        |holds: fn(&GradedAnswer) -> bool| mean(answers.iter().map(|answer| f64::from(holds(answer))));
    let pass = |&k: &usize| {
        let by_question: Option<Vec<f64>> = n_correct.iter().map(|&c| pass_at_k(n_samples, c, k)).collect();
        by_question.map(|values| (k.to_string(), mean(values.into_iter())))
    };
    let majority = |&k: &usize| {
        let votes = |record: &QuestionRecord| {
            let answers: Vec<(Option<&str>, bool)> =
                record.answers.iter().map(|answer| (answer.extracted.as_deref(), answer.correct)).collect();
            majority_at_k(&answers, k)
        };
        let by_question: Option<Vec<f64>> = records.iter().map(votes).collect();
        by_question.map(|values| (k.to_string(), mean(values.into_iter())))
    };
    EvalSummary {
        n_questions: records.len(),
        n_samples,
        accuracy: mean(question_means.iter().copied()),
        low,
        high,
        pass_at_k: options.pass_ks.iter().filter_map(pass).collect(),
        majority_at_k: options.pass_ks.iter().filter(|&&k| k > 1).filter_map(majority).collect(),
        format_rate: share(|answer| answer.formatted),
        truncated_rate: share(|answer| answer.truncated),
        mean_tokens: mean(answers.iter().map(|answer| answer.n_tokens as f64)),
    }
}

/// Writes `eval.json` to `path` and the records to the per-question file beside it.
///
/// # Errors
/// When a file cannot be written.
pub fn write_report(path: &Path, report: &EvalReport, records: &[QuestionRecord]) -> Result<()> {
    let json = |what: serde_json::Result<String>| {
        what.map_err(|error| Error::File { path: path.to_owned(), what: error.to_string() })
    };
    let mut lines = String::new();
    for record in records {
        writeln!(lines, "{}", json(serde_json::to_string(record))?).expect("memory takes every line");
    }
    write_atomic(&path.with_file_name(&report.per_question_file), lines.as_bytes())?;
    let text = format!("{}\n", json(serde_json::to_string_pretty(report))?);
    Ok(write_atomic(path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use rlt_grade::{SolutionTags, grade_integer};

    fn questions(n: usize) -> Vec<EvalQuestion> {
        let question = |i: usize| EvalQuestion {
            row: i + 1,
            question: format!("Question {i}?"),
            gold: format!("Mia has {} shells.", 10 + i),
        };
        (0..n).map(question).collect()
    }

    /// Sample `s` of question `q` is right when `s < q`, and cut short when `q` is 0.
    fn answer(q: usize, s: usize) -> Answer {
        let number = if s < q { 10 + q } else { 99 };
        let end = if q == 0 { "" } else { "<|end_of_solution|>" };
        Answer {
            text: format!("x<|end_of_thought|>\n\n<|begin_of_solution|>Mia has {number} shells.{end}"),
            n_tokens: 10 * (q + 1),
            truncated: q == 0,
        }
    }

    fn run(n: usize, n_samples: usize, at_once: usize) -> (EvalSummary, Vec<QuestionRecord>) {
        let options = EvalOptions { n_samples, pass_ks: vec![1, 2, 9], seed: 3 };
        let generate = |first: usize, take: &mut dyn FnMut(Vec<Vec<Answer>>) -> Result<()>| {
            let of = |q| (0..n_samples).map(|s| answer(q, s)).collect();
            let places: Vec<usize> = (first..n).collect();
            places.chunks(at_once).try_for_each(|chunk| take(chunk.iter().copied().map(of).collect()))
        };
        let grade = |question: &EvalQuestion, text: &str| {
            grade_integer(text, &question.gold, &SolutionTags::default())
        };
        evaluate(&questions(n), &options, Vec::new(), generate, grade, &mut |_| Ok(()), &Silent)
            .expect("evaluated")
    }

    #[test]
    fn figures_by_hand() {
        // Right answers of 2: none, one, two, two.
        let (summary, records) = run(4, 2, 3);
        assert_eq!(summary.accuracy, 5.0 / 8.0);
        assert_eq!(summary.pass_at_k, BTreeMap::from([("1".into(), 5.0 / 8.0), ("2".into(), 3.0 / 4.0)]));
        assert_eq!(summary.format_rate, 6.0 / 8.0);
        assert_eq!(summary.truncated_rate, 2.0 / 8.0);
        assert_eq!(summary.mean_tokens, 25.0);
        assert!(summary.low < 5.0 / 8.0 && summary.high > 5.0 / 8.0);
        assert_eq!(records[1].answers[0].extracted.as_deref(), Some("11"));
        assert_eq!(records[1].answers[1].extracted.as_deref(), Some("99"));
        assert_eq!(records[3].row, 4);
    }

    #[test]
    fn one_sample_takes_wilsons_interval() {
        let (summary, _) = run(10, 1, 64);
        assert_eq!(summary.accuracy, 0.9);
        let interval = wilson_interval(9, 10);
        assert_eq!((summary.low, summary.high), (interval.low, interval.high));
    }

    #[test]
    fn batches_do_not_change_the_result() {
        assert_eq!(run(7, 3, 1), run(7, 3, 100));
    }

    #[test]
    fn nothing_to_evaluate_and_missing_answers_are_errors() {
        let grade = |_: &EvalQuestion, _: &str| Verdict::default();
        type Take<'a> = &'a mut dyn FnMut(Vec<Vec<Answer>>) -> Result<()>;
        let nothing = |_: usize, _: Take| Ok(());
        let options = EvalOptions::default();
        let empty = evaluate(&[], &options, Vec::new(), nothing, grade, &mut |_| Ok(()), &Silent)
            .expect_err("no questions");
        assert!(matches!(empty, Error::Usage(_)), "{empty}");
        let short = evaluate(&questions(2), &options, Vec::new(), nothing, grade, &mut |_| Ok(()), &Silent)
            .expect_err("no answers");
        assert!(short.to_string().contains("0 of 2"), "{short}");
        let too_many = |_: usize, take: Take| take(vec![vec![answer(0, 0)]; 3]);
        let long = evaluate(&questions(2), &options, Vec::new(), too_many, grade, &mut |_| Ok(()), &Silent)
            .expect_err("more answers than questions");
        assert!(long.to_string().contains("3 answers for 2 questions"), "{long}");
    }

    #[test]
    fn the_report_reads_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("eval.json");
        let (summary, records) = run(4, 2, 3);
        let report = EvalReport {
            model: "runs/demo/student".into(),
            task: "market".into(),
            split: "heldout".into(),
            seed: 3,
            temperature: 0.7,
            max_new_tokens: 160,
            thought: Thought::Free,
            summary,
            per_question_file: "eval_questions.jsonl".into(),
        };
        write_report(&path, &report, &records).expect("written");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(serde_json::from_str::<EvalReport>(&text).expect("parsed"), report);
        let value: serde_json::Value = serde_json::from_str(&text).expect("parsed");
        for key in ["model", "task", "split", "seed", "n_questions", "n_samples", "accuracy", "low", "high"] {
            assert!(value.get(key).is_some(), "{key}");
        }
        let lines = std::fs::read_to_string(folder.path().join("eval_questions.jsonl")).expect("read");
        let back: Vec<QuestionRecord> =
            lines.lines().map(|line| serde_json::from_str(line).expect("parsed")).collect();
        assert_eq!(back, records);
    }
}
