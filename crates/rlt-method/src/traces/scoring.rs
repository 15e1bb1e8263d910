//! What `rlt score` does: a file of traces to a file of scored traces, in bounded memory, going on after a kill.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rlt_files::ResumableWriter;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{Config, DataConfig};
use crate::dataset::{Record, RecordStream, TraceRow, check_can_be_read_again, traces_of};
use crate::error::{Error, Lack, Result, with_rows_kept};
use crate::in_order::in_order;
use crate::progress::{Progress, Silent};
use crate::prompts::{PromptStyle, TypedCheck};
use crate::score::added::{Adding, Written};
use crate::score::{Formats, ledger_columns, number, score_columns, score_traces};
use crate::scorer::{InTurn, Scorer};
use crate::traces::reasons::Reasons;

/// How much is written of every trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// Reward and parts.
    Parts,
    /// The per-token arrays as well.
    Ledger,
}

/// A file of traces that was looked through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckedTraces {
    /// Rows of the file.
    pub n_rows: u64,
    /// CRC-32C over the rows.
    pub checksum: u32,
}

/// Whether rows that lack their question, their solution or their explanation end the work, or are written without a reward
/// and with the reason. Where no row has a column for it, the call names another one, and that is an error either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gaps {
    /// They are rows as others are.
    Written,
    /// The first one is an error.
    Refused,
}

/// Reads every row once, so that a fault in the last is found before the first is scored. `typed` looks at the text
/// of each; sampled ids are what they are.
///
/// # Errors
/// As [`TypedCheck::look`] and [`crate::dataset::read_traces`], but [`Error::Gap`] only where `gaps` refuses them or no row has
/// the column.
pub fn check_traces(
    data: &DataConfig,
    style: &PromptStyle,
    gaps: Gaps,
    typed: &mut TypedCheck,
) -> Result<CheckedTraces> {
    check_can_be_read_again(&data.path)?;
    let mut checked = CheckedTraces { n_rows: 0, checksum: 0 };
    let mut absent = AbsentColumns::default();
    for record in RecordStream::open(&data.path, data.max_rows)? {
        let record = record?;
        match traces_of(&record, data, style) {
            Err(gap @ Error::Gap { .. }) if gaps == Gaps::Written => absent.see(gap),
            outcome => {
                for trace in outcome? {
                    let explanation = if trace.completion_ids.is_some() { "" } else { &trace.explanation };
                    typed.look(&trace.question, Some(explanation))?;
                }
            }
        }
        let text = serde_json::to_vec(&record.columns).map_err(|e| record.error(e.to_string()))?;
        checked.checksum = crc32c::crc32c_append(checked.checksum, &text);
        checked.n_rows += 1;
    }
    absent.check(checked.n_rows)?;
    Ok(checked)
}

/// Rows that have no column for what they lack.
#[derive(Debug, Default)]
pub(super) struct AbsentColumns {
    n: u64,
    first: Option<Error>,
}

impl AbsentColumns {
    /// Takes the [`Error::Gap`] of a row.
    fn see(&mut self, gap: Error) {
        if let Error::Gap { lack: Lack::Absent, .. } = gap {
            self.n += 1;
            self.first.get_or_insert(gap);
        }
    }

    /// An error when that is all of `n_rows`: then the call names another column.
    pub fn check(self, n_rows: u64) -> Result<()> {
        match self.first.filter(|_| self.n == n_rows) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// How far the work is, and what it came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Rows read.
    pub rows: u64,
    /// Traces written: more than rows where rows hold several completions.
    pub traces: u64,
    /// Rows that lack their question, their solution or their explanation.
    #[serde(default)]
    pub gaps: u64,
    /// Why the status of rows is not `ok`.
    #[serde(default)]
    pub reasons: Reasons,
    /// Traces that have a reward of their own.
    pub scored: u64,
    /// Sum of those rewards, nats.
    pub reward_sum: f64,
}

/// Who scores traces, and how they are written.
#[derive(Clone, Copy)]
pub struct TraceScorer<'a> {
    /// The text side of both models.
    pub formats: Formats<'a>,
    /// Gives the teacher's log-probabilities.
    pub teacher: &'a dyn Scorer,
    /// Gives the student's.
    pub student: &'a dyn Scorer,
    /// The reward's settings and what is added.
    pub config: &'a Config,
    /// How much is written of every trace.
    pub detail: Detail,
    /// Tokens computed at a time.
    pub tokens_per_batch: usize,
}

/// Scores the rows of `data` into `out`. `work` describes everything that decides the bytes (models, settings,
/// rows): an attempt with the same words goes on where the last one was stopped or killed.
///
/// Rows are scored in lots whose borders depend on the rows and the scorer's `tokens_per_batch` alone, so an interrupted
/// attempt ends in the same bytes; where models are asked elsewhere, the next lots are asked about while one is waited for.
///
/// # Errors
/// What rows, models and files report; [`Error::Interrupted`] after `stop`, with everything saved.
pub fn score_file(
    data: &DataConfig,
    checked: &CheckedTraces,
    out: &Path,
    work: &str,
    scorer: &TraceScorer,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Tally> {
    let mut writer = ResumableWriter::<Tally>::begin(out, work)?;
    let done = writer.state().rows;
    if done > 0 {
        progress.note(&format!("going on after {done} of {} rows", checked.n_rows));
    }
    progress.start("score", checked.n_rows - done, "rows");
    let records = RecordStream::open(&data.path, data.max_rows)?.skip(done as usize);
    let (started, mut n_tokens) = (Instant::now(), 0);
    let lots = lots(records, scorer.tokens_per_batch).map(|lot| {
        let lot = Lot::of(&lot?, data, scorer.formats.style, Gaps::Written, &mut AbsentColumns::default())?;
        Ok((scorer.answered(), lot))
    });
    let (teacher, student) = (InTurn::of(scorer.teacher), InTurn::of(scorer.student));
    let in_turn = TraceScorer { teacher: &teacher, student: &student, ..*scorer };
    let score = |(answered, lot): ([u64; 2], Lot)| (answered, in_turn.rows(&lot.traces), lot);
    // Answers that were there before the lot that is written next was begun are of lots that are written.
    let outcome = in_order(scorer.calls_at_once(), lots, score, |(answered, scored, lot)| {
        scorer.release(answered)?;
        let scored = scored?;
        let mut tally = writer.state().clone();
        tally.add(&lot, &scored);
        n_tokens += scored.n_tokens;
        let n_rows = lot.n_rows as u64;
        let rows = lot.with_gaps(scored.rows);
        rows.iter().filter_map(status).for_each(|status| tally.reasons.count(status));
        writer.append(&rows, tally)?;
        let rate = n_tokens as f64 / started.elapsed().as_secs_f64();
        progress.advance(n_rows, &format!("{rate:.0} scored tokens/s"));
        let is_interrupted = stop.load(Ordering::SeqCst) && writer.state().rows < checked.n_rows;
        if is_interrupted { Err(rlt_model::Error::Stopped.into()) } else { Ok(()) }
    });
    match outcome {
        Ok(()) => {}
        Err(Error::Model(rlt_model::Error::Stopped)) => return Err(interrupted(writer, checked)?),
        Err(error) => {
            // Whoever scores may be back later: what it has scored is made safe. A disk that is full says so again.
            if writer.state().rows > 0 && !matches!(error, Error::Io { .. }) {
                writer.commit()?;
            }
            return Err(with_rows_kept(error, writer.has_committed()));
        }
    }
    let kept = writer.has_committed();
    let tally = writer.finish().map_err(|error| with_rows_kept(error, kept))?;
    progress.finish("");
    Ok(tally)
}

/// Makes what is scored safe; the interruption that says how much it is.
fn interrupted(writer: ResumableWriter<Tally>, checked: &CheckedTraces) -> Result<Error> {
    let resumable = writer.is_resumable();
    let tally = writer.suspend()?;
    let next = if resumable { "continues" } else { "begins again: its rows went to no file" };
    let what = format!("{} of {} rows are scored; the same command {next}", tally.rows, checked.n_rows);
    Ok(Error::Interrupted(what))
}

/// Rows that are scored together.
pub(super) struct Lot {
    pub traces: Vec<TraceRow>,
    /// The written form of the rows that lack something, each with how many traces stand before it.
    gaps: Vec<(usize, Map<String, Value>)>,
    n_rows: usize,
}

impl Lot {
    /// The traces of `records`.
    ///
    /// # Errors
    /// As [`traces_of`], but [`Error::Gap`] only where `gaps` refuses them.
    pub fn of(
        records: &[Record],
        data: &DataConfig,
        style: &PromptStyle,
        gaps: Gaps,
        absent: &mut AbsentColumns,
    ) -> Result<Self> {
        let mut lot = Self { traces: Vec::new(), gaps: Vec::new(), n_rows: records.len() };
        for record in records {
            match traces_of(record, data, style) {
                Err(gap @ Error::Gap { .. }) if gaps == Gaps::Written => {
                    lot.gaps.push((lot.traces.len(), gap_columns(record, &gap)));
                    absent.see(gap);
                }
                outcome => lot.traces.extend(outcome?),
            }
        }
        Ok(lot)
    }

    /// The written form of all rows, given that of the traces.
    pub fn with_gaps(self, mut rows: Vec<Map<String, Value>>) -> Vec<Map<String, Value>> {
        for (before, columns) in self.gaps.into_iter().rev() {
            rows.insert(before, columns);
        }
        rows
    }
}

/// `parts.status` of a scored row.
pub fn status(columns: &Map<String, Value>) -> Option<&str> {
    columns.get("parts")?.get("status")?.as_str()
}

/// The written form of a row that lacks something: no reward, and the reason.
fn gap_columns(record: &Record, gap: &Error) -> Map<String, Value> {
    let what = match gap {
        Error::Gap { what, .. } => what.clone(),
        other => other.to_string(),
    };
    let mut columns = record.columns.clone();
    columns.insert("reward".into(), Value::Null);
    columns.insert("parts".into(), json!({ "status": what }));
    columns
}

/// Traces that were scored.
pub(super) struct ScoredTraces {
    /// As they are written.
    pub rows: Vec<Map<String, Value>>,
    /// What each is worth, nats; none for those that have no reward of their own.
    rewards: Vec<Option<f32>>,
    /// Tokens that were scored.
    n_tokens: usize,
}

impl Tally {
    /// Counts a lot that was scored.
    fn add(&mut self, lot: &Lot, scored: &ScoredTraces) {
        self.rows += lot.n_rows as u64;
        self.gaps += lot.gaps.len() as u64;
        self.traces += scored.rewards.len() as u64;
        for reward in scored.rewards.iter().flatten() {
            self.scored += 1;
            self.reward_sum += f64::from(*reward);
        }
    }
}

impl TraceScorer<'_> {
    /// Lots to score at the same time: several where a model is asked elsewhere. Of what is computed here, one has its turn.
    fn calls_at_once(&self) -> usize {
        self.teacher.calls_at_once().max(self.student.calls_at_once())
    }

    /// Of teacher and student; see [`Scorer::answered`].
    fn answered(&self) -> [u64; 2] {
        [self.teacher.answered(), self.student.answered()]
    }

    /// See [`Scorer::release`].
    fn release(&self, [of_teacher, of_student]: [u64; 2]) -> Result<()> {
        self.teacher.release(of_teacher)?;
        self.student.release(of_student)
    }

    /// Scores `traces`.
    pub(super) fn rows(&self, traces: &[TraceRow]) -> Result<ScoredTraces> {
        let Self { formats, teacher, student, config, detail, tokens_per_batch } = *self;
        let reward = &config.reward;
        let results = score_traces(traces, &formats, teacher, student, reward, tokens_per_batch, &Silent)?;
        let adding = Adding::of(config, formats.style);
        let (n, n_tokens) = (traces.len(), 0);
        let mut all = ScoredTraces { rows: Vec::with_capacity(n), rewards: Vec::with_capacity(n), n_tokens };
        for (trace, (sample, scored)) in traces.iter().zip(&results) {
            let mut columns = trace.to_columns();
            columns.extend(score_columns(sample.as_ref(), scored, formats.student));
            let mut reward = scored.score.reward;
            if let (Some(adding), Some(sample)) = (&adding, sample) {
                let n_tokens = match &trace.completion_ids {
                    Some(ids) => ids.len(),
                    None => formats.teacher.tokenizer.encode(&trace.completion)?.len(),
                };
                let (row, explanation) = (&trace.question, Some((trace.explanation.as_str(), sample)));
                let written = Written { row, tokens: sample.think_ids(), n_tokens, explanation };
                let sum = adding.sum("rlt", reward, &written);
                reward = sum.reward;
                columns.insert("reward".into(), number(reward));
                let parts = sum.parts.into_iter().map(|(name, value)| (name.to_string(), number(value)));
                columns.insert("rewards".into(), Value::Object(parts.collect()));
            }
            if let (Detail::Ledger, Some(sample)) = (detail, sample) {
                columns.extend(ledger_columns(sample, scored, formats.student));
            }
            all.rows.push(columns);
            all.rewards.push(scored.score.parts.is_ok().then_some(reward));
            all.n_tokens += scored.student_logprobs.len() + scored.solution_logprobs.len();
        }
        Ok(all)
    }
}

/// Rows in lots of about `tokens` tokens, taken to be three bytes each; one row at least.
pub(super) fn lots(
    mut records: impl Iterator<Item = Result<Record>>,
    tokens: usize,
) -> impl Iterator<Item = Result<Vec<Record>>> {
    std::iter::from_fn(move || {
        let (mut lot, mut bytes) = (Vec::new(), 0);
        while bytes < tokens.saturating_mul(3) {
            match records.next() {
                None => break,
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(record)) => {
                    bytes += record.columns.values().map(text_bytes).sum::<usize>();
                    lot.push(record);
                }
            }
        }
        (!lot.is_empty()).then_some(Ok(lot))
    })
}

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(text_bytes).sum(),
        Value::Object(columns) => columns.values().map(text_bytes).sum(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::dataset::read_records;
    use crate::prompts::test_chat::test_chat;
    use crate::scorer::TokenTable;
    use crate::traces::in_memory::score_records;

    /// Sets the flag after so many rows.
    struct StopAfter<'a>(AtomicUsize, &'a AtomicBool);

    impl Progress for StopAfter<'_> {
        fn start(&self, _: &str, _: u64, _: &str) {}
        fn advance(&self, n: u64, _: &str) {
            let before = self.0.load(Ordering::SeqCst);
            self.0.store(before.saturating_sub(n as usize), Ordering::SeqCst);
            self.1.store(before <= n as usize, Ordering::SeqCst);
        }
        fn finish(&self, _: &str) {}
        fn note(&self, _: &str) {}
        fn warn(&self, _: &str) {}
    }

    #[test]
    fn stopped_anywhere_and_called_again_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataConfig { path: dir.path().join("traces.jsonl"), ..DataConfig::default() };
        let rows: Vec<String> = (0..40)
            .map(|i| {
                if i % 9 == 4 {
                    let lack =
                        [r#""solution":null,"completion":"x""#, r#""completion":"x""#, r#""solution":"x""#];
                    return format!(r#"{{"question":"q{i}",{}}}"#, lack[i / 9 % 3]);
                }
                let completion = "think ".repeat(i * 7 % 11) + ["<|end_of_explanation|>", ""][i % 2];
                format!(
                    r#"{{"question":"q{}","solution":"{i}","completions":["{completion}","b{i}"]}}"#,
                    i / 3
                )
            })
            .collect();
        fs::write(&data.path, rows.join("\n")).unwrap();
        let table = TokenTable { logprobs: |id| -0.07 * (id % 5) as f32, context_tokens: 10_000 };
        let chat = test_chat();
        let formats = Formats { style: PromptStyle::stratos(), teacher: &chat, student: &chat };
        let checked = check_traces(&data, formats.style, Gaps::Written, &mut TypedCheck::new(&chat)).unwrap();
        assert_eq!(checked.n_rows, 40);
        let scorer = TraceScorer {
            formats,
            teacher: &table,
            student: &table,
            config: &Config::default(),
            detail: Detail::Ledger,
            tokens_per_batch: 40,
        };
        let score = |out: &Path, progress: &dyn Progress, stop: &AtomicBool| {
            score_file(&data, &checked, out, "w", &scorer, progress, stop)
        };
        let whole = dir.path().join("whole.jsonl");
        let tally = score(&whole, &Silent, &AtomicBool::new(false)).unwrap();
        assert_eq!((tally.rows, tally.traces, tally.gaps), (40, 72, 4));
        let reasons = tally.reasons.to_string();
        for reason in [
            "2 the solution is empty (null)",
            "1 no column `solution`",
            "1 no column `completion`",
            " empty thought",
        ] {
            assert!(reasons.contains(reason), "{reasons}");
        }
        assert_eq!(tally.reasons.total(), 76 - tally.scored);
        assert!(tally.scored >= 62 && tally.scored < 72, "some thoughts are empty: {tally:?}");
        let lines = fs::read_to_string(&whole).unwrap();
        let gap: Map<String, Value> = serde_json::from_str(lines.lines().nth(8).unwrap()).unwrap();
        assert_eq!((&gap["question"], &gap["reward"]), (&json!("q4"), &Value::Null));
        assert_eq!(gap["parts"], json!({"status": "the solution is empty (null)"}));
        assert!(matches!(
            check_traces(&data, formats.style, Gaps::Refused, &mut TypedCheck::new(&chat)),
            Err(Error::Gap { row: 5, .. })
        ));

        let out = dir.path().join("out.jsonl");
        let mut attempts = 0;
        loop {
            attempts += 1;
            let stop = AtomicBool::new(false);
            match score(&out, &StopAfter(AtomicUsize::new(attempts), &stop), &stop) {
                Err(Error::Interrupted(what)) => assert!(what.contains("of 40 rows"), "{what}"),
                Ok(again) => {
                    assert_eq!(again, tally);
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            assert!(!out.exists());
        }
        assert!(attempts > 3, "{attempts} attempts");
        assert_eq!(fs::read(&out).unwrap(), fs::read(&whole).unwrap());

        // Without a file it is the same, and the caller may end it before any lot.
        let records = || read_records(&data.path, 0).unwrap();
        let in_memory = score_records(records(), &data, Gaps::Written, &scorer, &mut || Ok(())).unwrap();
        let text = |rows: &[Map<String, Value>]| {
            rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect::<String>()
        };
        assert_eq!(text(&in_memory), lines);
        let refused = score_records(records(), &data, Gaps::Refused, &scorer, &mut || Ok(()));
        assert!(matches!(refused, Err(Error::Gap { row: 5, .. })), "{refused:?}");
        let mut lots = 0;
        let ended = score_records(records(), &data, Gaps::Written, &scorer, &mut || {
            lots += 1;
            if lots < 3 { Ok(()) } else { Err(Error::Interrupted("enough".into())) }
        });
        assert!(matches!(ended, Err(Error::Interrupted(_))) && lots == 3, "{ended:?}");
    }
}
