//! `rlt compare`: several evaluations on one page.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use rlt::evaluate::comparison::{SavedEvaluation, compare};
use rlt::evaluate::page::render;
use rlt::{Error, Result};
use rlt_files::{Inputs, write_atomic};
use serde_json::json;

use super::common::{Context, check_output};

/// Compare evaluations of the same questions: paired differences with p-values, and a page
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Files that `rlt eval` wrote; each is compared with the first
    #[arg(value_name = "EVAL.json", required = true, num_args = 2..)]
    evaluations: Vec<PathBuf>,
    /// Where the page goes (.html)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl CompareArgs {
    /// Reads, compares, prints.
    pub fn run(&self, context: &Context) -> Result<()> {
        let runs =
            self.evaluations.iter().map(|path| SavedEvaluation::read(path)).collect::<Result<Vec<_>>>()?;
        let (first, others) =
            runs.split_first().ok_or_else(|| Error::Usage("name two evaluations".into()))?;
        let comparisons = others.iter().map(|other| compare(first, other)).collect::<Result<Vec<_>>>()?;
        if let Some(out) = &self.out {
            let inputs = self.evaluations.iter().zip(&runs).fold(Inputs::new(), |inputs, (path, run)| {
                let questions = path.with_file_name(&run.report.per_question_file);
                inputs.with("EVAL.json", path).with("an evaluation", &questions)
            });
            check_output(&inputs, out)?;
            write_atomic(out, render(&runs)?.as_bytes())?;
        }
        let mut text = String::new();
        for c in &comparisons {
            let _ = writeln!(
                text,
                "{}: {} minus {}: {:+.1} points ({:+.1} to {:+.1}), p = {:.4}, {} questions",
                c.task,
                c.second,
                c.first,
                100.0 * c.difference,
                100.0 * c.low,
                100.0 * c.high,
                c.p_value,
                c.n_questions
            );
        }
        context.answer(&text, &json!({ "comparisons": comparisons, "page": self.out }))
    }
}
