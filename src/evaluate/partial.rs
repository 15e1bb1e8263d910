//! Records of an evaluation that is not over: appended batch by batch, so that a killed one goes on.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::QuestionRecord;
use crate::{Error, Result};

/// The file of an unfinished evaluation. Its first line holds the settings its records were made with.
#[derive(Debug)]
pub struct PartialRecords {
    path: PathBuf,
    file: File,
    n_records: usize,
}

impl PartialRecords {
    /// Opens the file beside `out`, and gives the records in it that were made with the same `settings`: all
    /// of them, up to the first line that is not whole. Anything else in it is dropped.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read or written.
    pub fn open(out: &Path, settings: &Value) -> Result<(Self, Vec<QuestionRecord>)> {
        let name = out.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let path = out.with_file_name(format!(".{name}.partial.jsonl"));
        let io = |source| Error::Io { path: path.clone(), source };
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(io(error)),
        };
        let header = format!("{settings}\n");
        let mut kept = header.clone();
        let mut records = Vec::new();
        if let Some(lines) = text.strip_prefix(&header) {
            for line in lines.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let Ok(record) = serde_json::from_str(line) else { break };
                records.push(record);
                kept.push_str(line);
            }
        }
        crate::checkpoint::write_atomic(&path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        Ok((Self { path, file, n_records: records.len() }, records))
    }

    /// Appends a batch and makes it durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, records: &[QuestionRecord]) -> Result<()> {
        let io = |source| Error::Io { path: self.path.clone(), source };
        let mut lines = String::new();
        for record in records {
            let line = serde_json::to_string(record)
                .map_err(|error| Error::File { path: self.path.clone(), what: error.to_string() })?;
            lines.push_str(&line);
            lines.push('\n');
        }
        self.n_records += records.len();
        self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data()).map_err(io)
    }

    /// Leaves the file for the next attempt, unless there is nothing in it to go on with.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn abandon(self) -> Result<()> {
        if self.n_records == 0 { self.remove() } else { Ok(()) }
    }

    /// Removes the file: the evaluation is over and written.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|source| Error::Io { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_lines_of_the_same_settings_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("eval.json");
        let settings = json!({"seed": 1});
        let record =
            |row| QuestionRecord { row, question: "q\n".into(), gold: "g".into(), answers: Vec::new() };
        let (mut partial, records) = PartialRecords::open(&out, &settings).unwrap();
        assert!(records.is_empty());
        partial.append(&[record(1), record(2)]).unwrap();
        // Killed in the middle of a line.
        partial.file.write_all(b"{\"row\":3,\"que").unwrap();
        drop(partial);
        let (mut partial, records) = PartialRecords::open(&out, &settings).unwrap();
        assert_eq!(records, [record(1), record(2)]);
        partial.append(&[record(3)]).unwrap();
        drop(partial);
        assert_eq!(PartialRecords::open(&out, &settings).unwrap().1.len(), 3);
        let (partial, records) = PartialRecords::open(&out, &json!({"seed": 2})).unwrap();
        assert!(records.is_empty());
        partial.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
