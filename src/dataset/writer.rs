//! Files of rows that appear whole or not at all.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::parquet::ParquetWriter;
use crate::error::{Error, Result};

/// A file under a temporary name beside `path`; [`Self::finish`] makes it durable and gives it its name.
/// Dropped before that, nothing is left behind.
#[derive(Debug)]
pub(super) struct PartialFile {
    path: PathBuf,
    temporary: PathBuf,
    /// `None` once finished.
    file: Option<BufWriter<File>>,
}

impl PartialFile {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let name = path.file_name().ok_or_else(|| Error::File {
            path: path.to_path_buf(),
            what: "not a file name; name the file to write".into(),
        })?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).map_err(io)?;
        let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let file = BufWriter::new(File::create(&temporary).map_err(io)?);
        Ok(Self { path: path.to_path_buf(), temporary, file: Some(file) })
    }

    /// The name it will have.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn open(&mut self) -> &mut BufWriter<File> {
        self.file.as_mut().expect("open until `finish` consumes the writer")
    }

    /// What was written so far, from its beginning.
    pub(super) fn written(&mut self) -> std::io::Result<BufReader<File>> {
        self.flush()?;
        Ok(BufReader::new(File::open(&self.temporary)?))
    }

    /// Flushes, syncs and renames.
    pub(super) fn finish(mut self) -> Result<()> {
        let rename = |file: Option<BufWriter<File>>| -> std::io::Result<()> {
            if let Some(buffered) = file {
                buffered.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            }
            fs::rename(&self.temporary, &self.path)?;
            // The name is durable only once its folder is.
            self.temporary.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        let file = self.file.take();
        rename(file).map_err(|source| {
            // Already failing: the first error is the one to report.
            let _ = fs::remove_file(&self.temporary);
            Error::Io { path: self.path.clone(), source }
        })
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.open().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.open().flush()
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Nothing useful can be done about a failure here.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes one JSON object a line under a temporary name beside `path`; [`Self::finish`] makes the file
/// durable and gives it its name. Dropped before that, nothing is left behind.
#[derive(Debug)]
pub struct JsonlWriter(PartialFile);

impl JsonlWriter {
    /// Starts a file that will be called `path`. Missing parent folders are made.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder or the temporary file cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        PartialFile::create(path).map(Self)
    }

    /// Appends one row.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written (a full disk, for example).
    pub fn write(&mut self, row: &impl Serialize) -> Result<()> {
        let file = self.0.open();
        let written = serde_json::to_writer(&mut *file, row).map_err(std::io::Error::from);
        written
            .and_then(|()| file.write_all(b"\n"))
            .map_err(|source| Error::Io { path: self.0.path.clone(), source })
    }

    /// Flushes, syncs and renames.
    ///
    /// # Errors
    /// [`Error::Io`] when the data cannot be made durable; the temporary file is then removed.
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

/// Rows to the format that the file's name asks for: parquet for `.parquet`, else JSON Lines. Either
/// appears whole or not at all.
#[derive(Debug)]
pub struct RowWriter(Format);

#[derive(Debug)]
enum Format {
    Jsonl(JsonlWriter),
    Parquet(ParquetWriter),
}

impl RowWriter {
    /// Starts a file that will be called `path`. Missing parent folders are made.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder or the temporary file cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let parquet = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
        Ok(Self(if parquet {
            Format::Parquet(ParquetWriter::create(path)?)
        } else {
            Format::Jsonl(JsonlWriter::create(path)?)
        }))
    }

    /// Appends one row.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written (a full disk, for example); [`Error::File`] when a column of a
    /// parquet file would need two types.
    pub fn write(&mut self, row: &Map<String, Value>) -> Result<()> {
        match &mut self.0 {
            Format::Jsonl(writer) => writer.write(row),
            Format::Parquet(writer) => writer.write(row),
        }
    }

    /// Writes what is left, syncs and renames.
    ///
    /// # Errors
    /// [`Error::Io`] when the data cannot be made durable. The temporary files are then removed.
    pub fn finish(self) -> Result<()> {
        match self.0 {
            Format::Jsonl(writer) => writer.finish(),
            Format::Parquet(writer) => writer.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/rows.jsonl");
        let mut writer = JsonlWriter::create(&path).unwrap();
        writer.write(&json!({"b": 1, "a": "x\ny"})).unwrap();
        writer.write(&json!({"b": 2})).unwrap();
        assert!(!path.exists());
        writer.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"b\":1,\"a\":\"x\\ny\"}\n{\"b\":2}\n");

        let mut abandoned = JsonlWriter::create(&path).unwrap();
        abandoned.write(&json!({"b": 3})).unwrap();
        drop(abandoned);
        assert!(fs::read_to_string(&path).unwrap().ends_with("{\"b\":2}\n"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plain");
        fs::write(&file, "x").unwrap();
        let error = JsonlWriter::create(&file.join("rows.jsonl")).unwrap_err();
        assert!(error.to_string().contains("rows.jsonl"), "{error}");
    }
}
