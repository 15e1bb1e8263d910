//! Explanations of questions with known solutions, by a teacher.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dataset::{Finish, QuestionRow, TraceRow};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::prompts::TypedCheck;
use crate::sampling::{Sampler, TokenRate};
use crate::traces::{Flaw, flaw, sampled_trace};

/// What keys this work's random draws.
const STREAM: u64 = u64::from_be_bytes(*b"explain.");

/// Counts over the traces of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainSummary {
    /// Questions explained.
    pub questions: usize,
    /// Traces written.
    pub traces: usize,
    /// Traces whose explanation was closed with its end tag.
    pub closed: usize,
    /// Closed explanations with nothing in them.
    pub empty: usize,
    /// Closed explanations that write a tag of the format, or a special token, themselves.
    pub forged: usize,
    /// Traces cut at the length limit.
    pub truncated: usize,
    /// Tokens sampled.
    pub tokens: usize,
}

impl AddAssign for ExplainSummary {
    fn add_assign(&mut self, other: Self) {
        self.questions += other.questions;
        self.traces += other.traces;
        self.closed += other.closed;
        self.empty += other.empty;
        self.forged += other.forged;
        self.truncated += other.truncated;
        self.tokens += other.tokens;
    }
}

/// Explains every row `n` times: all traces, in the order of the rows and then of the samples.
///
/// # Errors
/// As [`explain_each`].
pub fn explain(
    teacher: &Sampler,
    rows: &[QuestionRow],
    n: usize,
    progress: &dyn Progress,
) -> Result<Vec<TraceRow>> {
    let mut traces = Vec::with_capacity(rows.len() * n);
    explain_each(teacher, rows, n, ExplainSummary::default(), progress, |batch, _| {
        traces.extend(batch);
        Ok(())
    })?;
    Ok(traces)
}

/// Explains every row `n` times and hands the traces of each batch to `write` as soon as it is done, in the
/// order of the rows and then of the samples, with the counts up to then. A trace's column `sample` counts from 0.
/// `done` is what an earlier call counted last; its rows are not explained again.
///
/// Every prompt is checked before the first token is sampled. A trace depends on the seed, the row's
/// place in `rows` and the sample alone.
///
/// # Errors
/// [`Error::Usage`] when there is nothing to do, [`Error::Failed`] for a prompt that does not fit the
/// context, and whatever templates, tokenizer, generator and `write` report.
pub fn explain_each(
    teacher: &Sampler,
    rows: &[QuestionRow],
    n: usize,
    done: ExplainSummary,
    progress: &dyn Progress,
    mut write: impl FnMut(Vec<TraceRow>, ExplainSummary) -> Result<()>,
) -> Result<ExplainSummary> {
    if rows.is_empty() || n == 0 {
        return Err(Error::Usage(format!("nothing to explain: {} questions, {n} samples each", rows.len())));
    }
    TypedCheck::of_rows(teacher.chat, rows, progress)?;
    for row in rows {
        teacher.check_prompt(row.row, &teacher.style.teacher_prompt(teacher.chat, row)?)?;
    }
    let mut summary = done;
    let mut rate = TokenRate::new();
    let batch_rows = teacher.prompts_at_once(n);
    progress.start("explain", ((rows.len() - done.questions) * n) as u64, "traces");
    for batch in rows[done.questions..].chunks(batch_rows) {
        let prompts =
            batch.iter().map(|row| teacher.style.teacher_prompt(teacher.chat, row)).collect::<Result<_>>()?;
        let mut finished = 0;
        let completions = teacher.sample(STREAM, summary.questions, prompts, n, &mut |now| {
            progress.advance((now.finished - finished) as u64, &rate.text(now.tokens));
            finished = now.finished;
        })?;
        let mut traces = Vec::with_capacity(batch.len() * n);
        let mut of_batch = ExplainSummary { questions: batch.len(), ..ExplainSummary::default() };
        for (row, samples) in batch.iter().zip(completions) {
            for (sample, completion) in samples.into_iter().enumerate() {
                let finish = Finish::from(completion.finish);
                of_batch.traces += 1;
                of_batch.tokens += completion.ids.len();
                of_batch.truncated += usize::from(finish == Finish::Length);
                let mut question = row.clone();
                question.columns.insert("sample".into(), Value::from(sample));
                let trace =
                    sampled_trace(question, teacher.style, &teacher.chat.tokenizer, completion.ids, finish);
                let flaw = flaw(&trace, teacher.style, teacher.chat);
                of_batch.closed += usize::from(matches!(flaw, None | Some(Flaw::Empty | Flaw::Forged)));
                of_batch.empty += usize::from(flaw == Some(Flaw::Empty));
                of_batch.forged += usize::from(flaw == Some(Flaw::Forged));
                traces.push(trace);
            }
        }
        progress.advance((of_batch.traces - finished.min(of_batch.traces)) as u64, "");
        rate.add(of_batch.tokens);
        summary += of_batch;
        write(traces, summary)?;
    }
    progress.finish(&rate.text(0));
    Ok(summary)
}
