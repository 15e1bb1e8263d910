//! Records of an evaluation that is not over: written as they come, so that a killed one goes on.

use std::io::{BufRead, BufReader};
use std::path::Path;

use rlt_files::{Place, ResumableWriter};
use serde_json::Value;

use super::QuestionRecord;
use crate::error::{Error, Result, io_error};

/// The records of an unfinished evaluation beside its file. No other process evaluates to the same file while it lives.
#[derive(Debug)]
pub struct PartialRecords(ResumableWriter<usize>);

impl PartialRecords {
    /// Goes on with what an attempt at `out` with the same `settings` left, and gives its records. Those of other
    /// settings are dropped.
    ///
    /// # Errors
    /// As [`ResumableWriter::begin`]; [`Error::Usage`] where `out` is a device or a pipe, which has no room for the files
    /// beside it.
    pub fn open(out: &Path, settings: &Value) -> Result<(Self, Vec<QuestionRecord>)> {
        if let Place::Stream(_) = Place::of(out)? {
            let what = format!("{}: an evaluation writes files beside this one; name a file", out.display());
            return Err(Error::Usage(what));
        }
        let mut writer = ResumableWriter::begin(out, &settings.to_string())?;
        let mut records = Vec::new();
        for line in BufReader::new(writer.written()?).lines() {
            let record = serde_json::from_str(&line.map_err(io_error(out))?);
            records.push(record.map_err(|e| io_error(out)(e.into()))?);
        }
        Ok((Self(writer), records))
    }

    /// Records there are.
    pub fn n_records(&self) -> usize {
        *self.0.state()
    }

    /// Appends records, and makes all durable about once a second.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, records: &[QuestionRecord]) -> Result<()> {
        Ok(self.0.append(records, self.n_records() + records.len())?)
    }

    /// Makes them durable and leaves them to go on with.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn suspend(self) -> Result<()> {
        self.0.suspend()?;
        Ok(())
    }

    /// Removes them: the evaluation is over and written.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(self) -> Result<()> {
        Ok(self.0.discard()?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_of_the_same_settings_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("eval.json");
        let settings = json!({"seed": 1});
        let record =
            |row| QuestionRecord { row, question: "q\n".into(), gold: "g".into(), answers: Vec::new() };
        let (mut partial, records) = PartialRecords::open(&out, &settings).unwrap();
        assert!(records.is_empty());
        partial.append(&[record(1), record(2)]).unwrap();
        assert!(PartialRecords::open(&out, &settings).is_err(), "two evaluations to one file");
        partial.suspend().unwrap();
        let (mut partial, records) = PartialRecords::open(&out, &settings).unwrap();
        assert_eq!(records, [record(1), record(2)]);
        partial.append(&[record(3)]).unwrap();
        partial.suspend().unwrap();
        assert_eq!(PartialRecords::open(&out, &settings).unwrap().1.len(), 3);
        let (partial, records) = PartialRecords::open(&out, &json!({"seed": 2})).unwrap();
        assert!(records.is_empty());
        partial.remove().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(PartialRecords::open(Path::new("/dev/null"), &settings).is_err());
    }
}
