//! `rlt grade`: verdicts on given answers.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rlt::dataset::{JsonlWriter, Record, read_records};
use rlt::{Error, Result};
use rlt_files::Inputs;
use rlt_grade::{ThoughtRule, Verdict, grade_choice, grade_countdown, grade_math, opened_thought};
use serde_json::{Value, json};

use super::common::{Context, check_output};

/// `--grader`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GraderArg {
    /// Mathematical equivalence
    Math,
    /// The letter of a multiple choice
    Choice,
    /// An expression of each of `nums` once that makes `target`
    Countdown,
}

/// Judge predictions against gold answers: extraction and equivalence, with reasons
#[derive(Debug, Args)]
pub struct GradeArgs {
    /// Rows with `gold` and `prediction` (for countdown `nums`, `target` and `prediction`)
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the rows {"correct", "extracted", "reason", "formatted"} go (.jsonl), one for each row of the data
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What counts as right
    #[arg(long, value_enum, default_value_t = GraderArg::Math)]
    grader: GraderArg,
    /// Look for the answer after the thought section only. Where a row has a text `prompt` that ends with the tag that
    /// opens a thought, its prediction begins inside one
    #[arg(long)]
    remove_thought: bool,
}

impl GradeArgs {
    /// Grades every row in order; nothing is written when one cannot be used.
    pub fn run(&self, context: &Context) -> Result<()> {
        check_output(&Inputs::new().with("--data", &self.data), &self.out)?;
        let records = read_records(&self.data, 0)?;
        let mut out = JsonlWriter::create(&self.out)?;
        let mut n_correct = 0_usize;
        for record in &records {
            let verdict = self.grade(record)?;
            n_correct += usize::from(verdict.correct);
            out.write(&json!({
                "correct": verdict.correct,
                "extracted": verdict.extracted,
                "reason": verdict.reason,
                "formatted": verdict.formatted,
            }))?;
        }
        out.finish()?;
        let n = records.len();
        context.answer(
            &format!(
                "{n_correct} of {n} right ({:.1} %) in {}",
                100.0 * n_correct as f64 / n as f64,
                self.out.display()
            ),
            &json!({ "rows": n, "correct": n_correct, "out": self.out }),
        )
    }

    fn grade(&self, record: &Record) -> Result<Verdict> {
        let thought = if self.remove_thought { ThoughtRule::Remove } else { ThoughtRule::Keep };
        let mut prediction = text(record, "prediction")?;
        let prompt = record.columns.get("prompt").and_then(Value::as_str);
        if let Some(tag) = prompt.and_then(opened_thought) {
            prediction.insert_str(0, tag);
        }
        Ok(match self.grader {
            GraderArg::Math => grade_math(&prediction, &text(record, "gold")?, thought),
            GraderArg::Choice => grade_choice(&prediction, &text(record, "gold")?, thought),
            GraderArg::Countdown => {
                let integer = |value: &Value| value.as_i64();
                let nums = record.columns.get("nums").and_then(Value::as_array);
                let nums: Option<Vec<i64>> = nums.and_then(|nums| nums.iter().map(integer).collect());
                let target = record.columns.get("target").and_then(Value::as_i64);
                let (Some(nums), Some(target)) = (nums, target) else {
                    return Err(wrong(
                        record,
                        "`nums`, a list of whole numbers, and `target`, one, are expected",
                    ));
                };
                grade_countdown(&prediction, &nums, target, thought)
            }
        })
    }
}

fn text(record: &Record, name: &str) -> Result<String> {
    record
        .text(name)?
        .ok_or_else(|| wrong(record, &format!("no column `{name}`; the row has {}", record.column_names())))
}

fn wrong(record: &Record, what: &str) -> Error {
    record.error(what)
}
