//! Files of rows that appear whole or not at all.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use rlt_files::{ResumableWriter, WholeFile};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::parquet::{RowShape, write_rows};
use crate::error::{Error, Result, io_error, with_rows_kept};

/// Writes one JSON object a line under a temporary name beside `path`; [`Self::finish`] makes the file
/// durable and gives it its name. Dropped before that, nothing is left behind.
#[derive(Debug)]
pub struct JsonlWriter(WholeFile);

impl JsonlWriter {
    /// Starts a file that will be called `path`. Missing parent folders are made.
    ///
    /// # Errors
    /// As [`WholeFile::create`].
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self(WholeFile::create(path)?))
    }

    /// Appends one row.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written (a full disk, for example).
    pub fn write(&mut self, row: &impl Serialize) -> Result<()> {
        let written = serde_json::to_writer(&mut self.0, row).map_err(std::io::Error::from);
        written.and_then(|()| self.0.write_all(b"\n")).map_err(io_error(self.0.path()))
    }

    /// Flushes, syncs and renames.
    ///
    /// # Errors
    /// [`Error::Io`] when the data cannot be made durable; the temporary file is then removed.
    pub fn finish(self) -> Result<()> {
        Ok(self.0.finish()?)
    }
}

/// Rows to the format that the file's name asks for: parquet for `.parquet`, else JSON Lines. Either appears whole or
/// not at all, and goes on after a kill as a [`ResumableWriter`] does.
///
/// The type of a parquet column is known only when its last value is, so the rows wait as JSON Lines.
#[derive(Debug)]
pub struct RowWriter<S> {
    path: PathBuf,
    rows: ResumableWriter<Written<S>>,
    /// Of a parquet file.
    shape: Option<RowShape>,
}

/// The caller's state and how many rows there are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Written<S> {
    n_rows: usize,
    state: S,
}

impl<S: Clone + Default + Serialize + DeserializeOwned> RowWriter<S> {
    /// Starts a file that will be called `path`, or goes on with it when the last attempt had the same `work`. Missing
    /// parent folders are made.
    ///
    /// # Errors
    /// As [`ResumableWriter::begin`]; [`Error::Usage`] for parquet to a device or a pipe.
    pub fn begin(path: &Path, work: &str) -> Result<Self> {
        let mut rows = ResumableWriter::<Written<S>>::begin(path, work)?;
        let parquet = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
        let mut shape = parquet.then(RowShape::new);
        if parquet && !rows.is_resumable() {
            let what =
                format!("{}: parquet cannot be written to a device or a pipe; write .jsonl", path.display());
            return Err(Error::Usage(what));
        }
        if let Some(shape) = &mut shape {
            for line in BufReader::new(rows.written()?).lines() {
                let row = serde_json::from_str(&line.map_err(io_error(path))?);
                shape.see(path, &row.map_err(|e| io_error(path)(e.into()))?)?;
            }
        }
        Ok(Self { path: path.to_path_buf(), rows, shape })
    }

    /// The state after the rows written so far; the default one at the very beginning.
    pub fn state(&self) -> &S {
        &self.rows.state().state
    }

    /// Rows written so far.
    pub fn n_rows(&self) -> usize {
        self.rows.state().n_rows
    }

    /// Appends rows after which the state is `state`, and commits about once a second.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be written (a full disk, for example); [`Error::File`] when a column of a
    /// parquet file would need two types.
    pub fn append(&mut self, rows: &[Map<String, Value>], state: S) -> Result<()> {
        if let Some(shape) = &mut self.shape {
            rows.iter().try_for_each(|row| shape.see(&self.path, row))?;
        }
        let n_rows = self.n_rows() + rows.len();
        let appended = self.rows.append(rows, Written { n_rows, state });
        appended.map_err(|error| with_rows_kept(error, self.rows.has_committed()))
    }

    /// Commits all rows and leaves them to be gone on with; what that means for whoever calls again, in words.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn suspend(self) -> Result<&'static str> {
        let is_resumable = self.rows.is_resumable();
        self.rows.suspend()?;
        Ok(if is_resumable {
            "the same command continues"
        } else {
            "the same command begins again: its rows went to no file"
        })
    }

    /// Makes everything durable and gives the file its name.
    ///
    /// # Errors
    /// [`Error::Io`]; what was committed is still there to go on with.
    pub fn finish(self) -> Result<()> {
        let Self { path, rows, shape } = self;
        match shape {
            None => drop(rows.finish()?),
            Some(shape) => {
                rows.finish_as(|rows, file| write_rows(&path, rows, &shape, file))?;
            }
        }
        Ok(())
    }

    /// Removes what there is to go on with.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn discard(self) -> Result<()> {
        Ok(self.rows.discard()?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_json_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/rows.jsonl");
        let mut writer = JsonlWriter::create(&path).unwrap();
        writer.write(&json!({"b": 1, "a": "x\ny"})).unwrap();
        writer.write(&json!({"b": 2})).unwrap();
        assert!(!path.exists());
        writer.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"b\":1,\"a\":\"x\\ny\"}\n{\"b\":2}\n");
    }

    #[test]
    fn parquet_goes_on_after_a_kill_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.parquet");
        let row = |value: Value| value.as_object().unwrap().clone();
        let mut writer = RowWriter::<u8>::begin(&path, "w").unwrap();
        writer.append(&[row(json!({"a": 1}))], 1).unwrap();
        writer.rows.suspend().unwrap();
        let mut writer = RowWriter::<u8>::begin(&path, "w").unwrap();
        assert_eq!((*writer.state(), writer.n_rows()), (1, 1));
        // The type that the first row gave its column still holds.
        assert!(writer.append(&[row(json!({"a": "x"}))], 2).unwrap_err().to_string().contains("one type"));
        drop(writer);
        let mut writer = RowWriter::<u8>::begin(&path, "w").unwrap();
        writer.append(&[row(json!({"a": 2}))], 2).unwrap();
        writer.finish().unwrap();
        let rows = super::super::read_records(&path, 0).unwrap();
        assert_eq!(rows.iter().map(|row| row.columns["a"].clone()).collect::<Vec<_>>(), [json!(1), json!(2)]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
