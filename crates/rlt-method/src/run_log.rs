//! What a run writes as it goes: `metrics.jsonl`, `samples/` and TensorBoard scalars.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use rlt_files::{MOST_ROWS, write_atomic};
use serde_json::{Map, Value};

use crate::error::{Error, Result, io_error};
use crate::metrics;
use crate::tensorboard::EventWriter;

/// The growing records of a run. One process at a time, under a [`rlt_files::OwnedFolder`].
#[derive(Debug)]
pub struct RunLog {
    metrics_path: PathBuf,
    metrics: File,
    samples_dir: PathBuf,
    events: EventWriter,
    wall_s: f64,
    kept: Vec<Map<String, Value>>,
}

impl RunLog {
    /// Opens the records in `run_dir` for a run that continues after `resume_step`, or from the
    /// beginning when there is no checkpoint to go on from.
    ///
    /// Steps count from 1, so a checkpoint of step 25 keeps rows 1 to 25. Later rows and samples,
    /// which the run will write again, are dropped, and so is a last line that a kill tore.
    ///
    /// # Errors
    /// [`Error::Row`] when an earlier line of `metrics.jsonl` is not a step's object; [`Error::File`] when not all rows are
    /// there; [`Error::Io`].
    pub fn create_or_resume(run_dir: &Path, resume_step: Option<u64>) -> Result<Self> {
        let last_step = resume_step.unwrap_or(0);
        Self::check_rows(run_dir, last_step)?;
        Self::open(run_dir, last_step, last_step)
    }

    /// Refuses records without all the rows of the steps up to `last_step`, in their order: somebody removed or shortened
    /// the file, and what is lost will not be written again. Changes nothing.
    ///
    /// # Errors
    /// As [`Self::create_or_resume`].
    pub fn check_rows(run_dir: &Path, last_step: u64) -> Result<()> {
        let path = run_dir.join("metrics.jsonl");
        let steps: Vec<u64> = read_kept(&path, last_step)?.into_iter().map(|(step, ..)| step).collect();
        if steps.iter().copied().eq(1..=last_step) {
            return Ok(());
        }
        let found = match (1..=last_step).find(|step| !steps.contains(step)) {
            Some(missing) => format!("the row of step {missing} is not there"),
            None => "rows stand twice or in another order".to_owned(),
        };
        let what = format!(
            "{found}, but the run's checkpoint is of step {last_step}; restore the file, or give this run another name \
             or run_dir"
        );
        Err(Error::File { path, what })
    }

    /// As [`Self::create_or_resume`], unchecked, for a run whose rows are kept up to one step and whose samples up to
    /// another.
    ///
    /// # Errors
    /// As [`Self::create_or_resume`].
    pub(crate) fn open(run_dir: &Path, last_row: u64, last_sample: u64) -> Result<Self> {
        fs::create_dir_all(run_dir).map_err(io_error(run_dir))?;
        let metrics_path = run_dir.join("metrics.jsonl");
        let kept = drop_rows_after(&metrics_path, last_row)?;
        let wall_s = kept.last().and_then(|row| metrics::WALL_S.of(row)).unwrap_or(0.0);
        let samples_dir = run_dir.join("samples");
        drop_samples_after(&samples_dir, last_sample)?;
        let metrics = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&metrics_path)
            .map_err(io_error(&metrics_path))?;
        let purge_from = if last_row == 0 { 0 } else { last_row + 1 };
        let events = EventWriter::create(&run_dir.join("tb"), purge_from)?;
        Ok(Self { metrics_path, metrics, samples_dir, events, wall_s, kept })
    }

    /// `wall_s` of the last row that was kept: seconds that the run has already taken.
    pub fn wall_s(&self) -> f64 {
        self.wall_s
    }

    /// The rows that an earlier process wrote and that still hold.
    pub fn kept(&self) -> &[Map<String, Value>] {
        &self.kept
    }

    /// Appends one row, `step` first, then `metrics` in their order. Numbers also go to TensorBoard.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn log(&mut self, step: u64, metrics: &Map<String, Value>) -> Result<()> {
        let mut row = Map::new();
        metrics::STEP.put(&mut row, step);
        row.extend(
            metrics.iter().filter(|(key, _)| *key != metrics::STEP.name).map(|(k, v)| (k.clone(), v.clone())),
        );
        let mut line = Value::Object(row).to_string();
        line.push('\n');
        // One write a row: a kill loses the row or tears its end, never mixes two.
        self.metrics.write_all(line.as_bytes()).map_err(io_error(&self.metrics_path))?;

        let scalars: Vec<(&str, f32)> = metrics
            .iter()
            .filter(|(key, _)| *key != metrics::STEP.name)
            .filter_map(|(key, value)| Some((key.as_str(), value.as_f64()? as f32)))
            .collect();
        self.events.scalars(step, &scalars)
    }

    /// Writes `samples/step-000012.jsonl`, one row a line.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn samples(&mut self, step: u64, rows: &[Value]) -> Result<()> {
        fs::create_dir_all(&self.samples_dir).map_err(io_error(&self.samples_dir))?;
        let mut lines = String::new();
        for row in rows {
            lines.push_str(&row.to_string());
            lines.push('\n');
        }
        Ok(write_atomic(&self.samples_dir.join(format!("step-{step:06}.jsonl")), lines.as_bytes())?)
    }

    /// Makes the rows durable. Called before a checkpoint is saved, so that no checkpoint outlives
    /// the rows it stands on.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&mut self) -> Result<()> {
        self.metrics.sync_all().map_err(io_error(&self.metrics_path))
    }
}

/// Reads a file of one JSON object a line. A last line without its end is left out: it is being
/// written, or a kill tore it.
///
/// # Errors
/// [`Error::Row`] for a complete line that is not an object; [`Error::Io`].
pub fn read_rows(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let bytes = rlt_files::read_bytes(path, MOST_ROWS).map_err(io_error(path))?;
    complete_lines(&bytes).map(|(number, line)| parse_row(path, number, line)).collect()
}

/// The lines that are not blank and have their end, numbered from 1.
fn complete_lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    (1..)
        .zip(bytes.split_inclusive(|&b| b == b'\n'))
        .filter(|(_, line)| line.ends_with(b"\n") && !line.trim_ascii().is_empty())
}

fn parse_row(path: &Path, number: usize, line: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(line).map_err(|e| Error::Row {
        path: path.to_path_buf(),
        row: number,
        what: format!("not a JSON object ({e}); remove the line, or the file"),
    })
}

/// A kept row: its step, its line byte for byte, and what that says.
type Kept = (u64, Vec<u8>, Map<String, Value>);

/// The rows up to `last_step`; none where there is no file.
fn read_kept(path: &Path, last_step: u64) -> Result<Vec<Kept>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bytes = rlt_files::read_bytes(path, MOST_ROWS).map_err(io_error(path))?;
    let mut kept = Vec::new();
    for (number, line) in complete_lines(&bytes) {
        let row = parse_row(path, number, line)?;
        let Some(step) = row.get(metrics::STEP.name).and_then(Value::as_u64) else {
            let what = "no `step`: not a row of metrics; remove the file, or use another `run_dir`".into();
            return Err(Error::Row { path: path.to_path_buf(), row: number, what });
        };
        if step <= last_step {
            kept.push((step, line.to_vec(), row));
        }
    }
    Ok(kept)
}

/// Rewrites `metrics.jsonl`, where there is one, without what comes after `last_step`; returns the kept rows.
fn drop_rows_after(path: &Path, last_step: u64) -> Result<Vec<Map<String, Value>>> {
    let kept = read_kept(path, last_step)?;
    if path.exists() {
        let lines: Vec<u8> = kept.iter().flat_map(|(_, line, _)| line).copied().collect();
        write_atomic(path, &lines)?;
    }
    Ok(kept.into_iter().map(|(.., row)| row).collect())
}

fn drop_samples_after(dir: &Path, last_step: u64) -> Result<()> {
    for (step, path) in sample_files(dir)? {
        if step > last_step {
            fs::remove_file(&path).map_err(io_error(&path))?;
        }
    }
    Ok(())
}

/// The files `samples/step-000012.jsonl` by ascending step; none when there is no such folder.
///
/// # Errors
/// [`Error::Io`].
pub fn sample_files(samples_dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !samples_dir.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(samples_dir).map_err(io_error(samples_dir))? {
        let path = entry.map_err(io_error(samples_dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let step = name.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".jsonl"));
        if let Some(step) = step.and_then(|digits| digits.parse().ok()) {
            files.push((step, path));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn log_steps(log: &mut RunLog, steps: std::ops::RangeInclusive<u64>) {
        for step in steps {
            let wall_s = step as f64 * 0.5;
            log.log(step, &object(&json!({"wall_s": wall_s, "loss": 1.0 / step as f64}))).unwrap();
            log.samples(step, &[json!({"step": step}), json!({"step": step})]).unwrap();
        }
    }

    fn steps_in(path: &Path) -> Vec<u64> {
        read_rows(path).unwrap().iter().map(|row| row["step"].as_u64().unwrap()).collect()
    }

    #[test]
    fn rows_keep_their_order_with_the_step_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RunLog::create_or_resume(dir.path(), None).unwrap();
        log.log(1, &object(&json!({"wall_s": 0.25, "loss": 2.0, "step": 9, "a": 1}))).unwrap();
        let text = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text, "{\"step\":1,\"wall_s\":0.25,\"loss\":2.0,\"a\":1}\n");
    }

    #[test]
    fn a_resumed_log_equals_an_uninterrupted_one() {
        let whole = tempfile::tempdir().unwrap();
        log_steps(&mut RunLog::create_or_resume(whole.path(), None).unwrap(), 1..=6);

        let resumed = tempfile::tempdir().unwrap();
        let mut log = RunLog::create_or_resume(resumed.path(), None).unwrap();
        log_steps(&mut log, 1..=5);
        log.metrics.write_all(b"{\"step\":6,\"lo").unwrap();
        drop(log);
        let mut log = RunLog::create_or_resume(resumed.path(), Some(3)).unwrap();
        assert_eq!(log.wall_s(), 1.5);
        assert_eq!(steps_in(&resumed.path().join("metrics.jsonl")), [1, 2, 3]);
        assert_eq!(sample_files(&resumed.path().join("samples")).unwrap().last().unwrap().0, 3);
        log_steps(&mut log, 4..=6);

        for file in ["metrics.jsonl", "samples/step-000003.jsonl", "samples/step-000006.jsonl"] {
            assert_eq!(
                fs::read(whole.path().join(file)).unwrap(),
                fs::read(resumed.path().join(file)).unwrap(),
                "{file}"
            );
        }
    }

    #[test]
    fn without_a_checkpoint_the_log_starts_again() {
        let dir = tempfile::tempdir().unwrap();
        log_steps(&mut RunLog::create_or_resume(dir.path(), None).unwrap(), 1..=3);
        let log = RunLog::create_or_resume(dir.path(), None).unwrap();
        assert_eq!(log.wall_s(), 0.0);
        assert!(steps_in(&dir.path().join("metrics.jsonl")).is_empty());
        assert!(sample_files(&dir.path().join("samples")).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_earlier_line_is_named_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let damaged = "{\"step\":1}\n{\"step\n{\"step\":3}\n";
        fs::write(&path, damaged).unwrap();
        let message = RunLog::create_or_resume(dir.path(), Some(3)).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl, row 2"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }

    #[test]
    fn a_file_of_something_else_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, "{\"epoch\":1}\n").unwrap();
        let message = RunLog::create_or_resume(dir.path(), None).unwrap_err().to_string();
        assert!(message.contains("row 1: no `step`"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"epoch\":1}\n");
    }
}
