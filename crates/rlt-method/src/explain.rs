//! Explanations of questions with known solutions, by a teacher.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicUsize, Ordering};

use rlt_model::Stop;
use rlt_model::generate::{Completion, GenerationProgress};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dataset::{Finish, QuestionRow, TraceRow};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::prompts::TypedCheck;
use crate::sampling::{Author, TokenRate};
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
    teacher: &Author,
    rows: &[QuestionRow],
    n: usize,
    progress: &dyn Progress,
) -> Result<Vec<TraceRow>> {
    let mut traces = Vec::with_capacity(rows.len() * n);
    explain_each(teacher, rows, n, ExplainSummary::default(), Stop::never(), progress, |batch, _| {
        traces.extend(batch);
        Ok(())
    })?;
    Ok(traces)
}

/// Explains every row `n` times and hands the traces of the next rows to `write` as soon as they are done, in the
/// order of the rows and then of the samples, with the counts up to then. A trace's column `sample` counts from 0.
/// `done` is what an earlier call counted last; its rows are not explained again. Once it is asked to stop, or no more
/// completions come, the rows that are done are written.
///
/// Every prompt is checked before the first token is sampled. A trace depends on the seed, the row's
/// place in `rows` and the sample alone.
///
/// # Errors
/// [`Error::Usage`] when there is nothing to do, [`Error::Failed`] for a prompt that does not fit the
/// context, and whatever templates, tokenizer, sampler and `write` report; [`Error::Interrupted`] after `stop`.
pub fn explain_each(
    teacher: &Author,
    rows: &[QuestionRow],
    n: usize,
    done: ExplainSummary,
    stop: Stop,
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
    let rate = TokenRate::new();
    // Traces that the progress line knows of: they are drawn in any order, and written in theirs.
    let told = AtomicUsize::new(0);
    let tell = |n: usize, text: &str| {
        let before = told.fetch_max(n, Ordering::Relaxed);
        progress.advance(n.saturating_sub(before) as u64, text);
    };
    let (mut drawn, mut is_write_error) = (GenerationProgress::default(), false);
    progress.start("explain", ((rows.len() - done.questions) * n) as u64, "traces");
    let prompts =
        rows[done.questions..].iter().map(|row| Ok(teacher.style.teacher_prompt(teacher.chat, row)?.into()));
    let mut on_progress = |now: GenerationProgress| {
        tell(now.finished, &rate.text(now));
        drawn = now;
    };
    let outcome =
        teacher.write(STREAM, done.questions, prompts, n, stop, &mut on_progress, &mut |completions| {
            let batch = &rows[summary.questions..summary.questions + completions.len()];
            let (traces, counts) = traces_of(teacher, batch, completions);
            summary += counts;
            tell(summary.traces - done.traces, "");
            let written = write(traces, summary);
            is_write_error = written.is_err();
            written
        });
    match outcome {
        Ok(()) => {
            progress.finish(&rate.text(GenerationProgress { under_way: 0, ..drawn }));
            Ok(summary)
        }
        Err(error) if is_write_error => Err(error),
        Err(error) => {
            let is_stopped = matches!(error, Error::Model(rlt_model::Error::Stopped));
            if summary.questions == done.questions && !is_stopped {
                return Err(error);
            }
            let what = format!("{} of {} questions are explained", summary.questions, rows.len());
            Err(error.of_unfinished(what))
        }
    }
}

/// The traces of `rows`, given the completions of each, and their counts.
fn traces_of(
    teacher: &Author,
    rows: &[QuestionRow],
    completions: Vec<Vec<Completion>>,
) -> (Vec<TraceRow>, ExplainSummary) {
    let mut traces = Vec::new();
    let mut counts = ExplainSummary { questions: completions.len(), ..ExplainSummary::default() };
    for (row, samples) in rows.iter().zip(completions) {
        for (sample, completion) in samples.into_iter().enumerate() {
            let finish = Finish::from(completion.finish);
            counts.traces += 1;
            counts.tokens += completion.ids.len();
            counts.truncated += usize::from(finish == Finish::Length);
            let mut question = row.clone();
            question.columns.insert("sample".into(), Value::from(sample));
            let (ids, tokenizer) = (completion.ids.to_vec(), &teacher.chat.tokenizer);
            let trace = sampled_trace(question, teacher.style, tokenizer, ids, finish);
            let flaw = flaw(&trace, teacher.style, teacher.chat);
            counts.closed += usize::from(matches!(flaw, None | Some(Flaw::Empty | Flaw::Forged)));
            counts.empty += usize::from(flaw == Some(Flaw::Empty));
            counts.forged += usize::from(flaw == Some(Flaw::Forged));
            traces.push(trace);
        }
    }
    (traces, counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::prompts::PromptStyle;
    use crate::prompts::test_chat::test_chat;
    use crate::sampler::ScriptedSampler;

    fn rows(n: usize) -> Vec<QuestionRow> {
        let row = |i: usize| QuestionRow {
            question: format!("q{i}"),
            solution: "4".into(),
            reasoning_trace: None,
            system: None,
            columns: serde_json::Map::new(),
            row: i + 1,
        };
        (0..n).map(row).collect()
    }

    #[test]
    fn what_was_written_before_a_stop_is_kept_and_gone_on_from() {
        let (chat, style, rows) = (test_chat(), PromptStyle::stratos(), rows(40));
        // The text says whose it is: the place of the row among all, and the sample.
        let answer = |stream: [u64; 2], sample: usize| {
            let text = format!("{}.{sample}", stream[1]);
            let mut ids = test_chat().tokenizer.encode(&text).unwrap();
            ids.push(0);
            ids
        };
        let explain = |done: ExplainSummary, stops_after: usize, traces: &mut Vec<TraceRow>| {
            let sampler = ScriptedSampler { answer, version: 0, stops_after };
            let teacher = Author::new(&sampler, &chat, style).unwrap();
            let mut summary = done;
            let outcome = explain_each(&teacher, &rows, 3, done, Stop::never(), &Silent, |batch, now| {
                traces.extend(batch);
                summary = now;
                Ok(())
            });
            (outcome, summary)
        };
        let mut whole = Vec::new();
        let all = explain(ExplainSummary::default(), usize::MAX, &mut whole).0.unwrap();
        assert_eq!((all.questions, whole.len()), (40, 120));
        assert_eq!(whole[7].completion, "2.1");

        let (mut parts, mut summary, mut calls) = (Vec::new(), ExplainSummary::default(), 0);
        loop {
            calls += 1;
            // 11 completions: three questions, and two of the three explanations of a fourth.
            let (outcome, now) = explain(summary, 11, &mut parts);
            summary = now;
            match outcome {
                Err(Error::Interrupted(what)) => {
                    assert_eq!(what, format!("{} of 40 questions are explained", 3 * calls));
                }
                outcome => break assert_eq!(outcome.unwrap(), all),
            }
        }
        assert_eq!(calls, 14);
        assert_eq!(parts, whole);
    }
}
