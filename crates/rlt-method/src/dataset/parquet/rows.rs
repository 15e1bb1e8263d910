//! The rows of a parquet file, one at a time.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::record::reader::{ReaderIter, TreeBuilder};
use rlt_model::guarded::guarded;
use serde_json::Value;

use super::pages::{BATCH, BoundedFile};
use crate::dataset::record::{MAX_COLUMNS, Record, file_error, two_columns, weight};
use crate::error::{Error, Result};

/// The most bytes that the rows of one file may take when they are held all at once: of a small file ..
const MAX_HELD: usize = 256 << 20;

/// .. and for each byte of it.
const MAX_HELD_PER_BYTE: usize = 64;

/// Reads a file of any length in the memory of a row and a page of each column.
pub(in crate::dataset) struct ParquetRows {
    path: Arc<Path>,
    file: BoundedFile,
    /// The row group whose turn is next.
    next_group: usize,
    /// What is left of the one before it.
    rows: Option<ReaderIter>,
    n_read: usize,
    n_bytes: usize,
}

impl ParquetRows {
    pub(in crate::dataset) fn open(path: &Path, file: File) -> Result<Self> {
        let n_bytes = file.metadata().map_err(|source| Error::Io { path: path.to_path_buf(), source })?.len();
        let bounded = guarded(|| BoundedFile::new(file)).map_err(|e| unreadable(path, &e))?;
        let bounded = bounded.map_err(|e| unreadable(path, &e))?;
        let metadata = bounded.metadata().file_metadata();
        let mut names = HashSet::new();
        for field in metadata.schema().get_fields() {
            if !names.insert(field.name().to_owned()) {
                return Err(file_error(path, two_columns(field.name())));
            }
        }
        let n_columns = metadata.schema_descr().num_columns();
        if n_columns > MAX_COLUMNS {
            return Err(file_error(path, format!("{n_columns} columns; a row has at most {MAX_COLUMNS}")));
        }
        Ok(Self {
            path: path.into(),
            file: bounded,
            next_group: 0,
            rows: None,
            n_read: 0,
            n_bytes: usize::try_from(n_bytes).unwrap_or(usize::MAX),
        })
    }

    /// The most bytes that its rows may take when they are held all at once, as `weight` counts them. A file can say
    /// the same a million times in a few bytes, and no memory holds what that becomes.
    pub(in crate::dataset) fn most_held(&self) -> usize {
        MAX_HELD.max(self.n_bytes.saturating_mul(MAX_HELD_PER_BYTE))
    }

    pub(in crate::dataset) fn next_record(&mut self) -> Result<Option<Record>> {
        let row = loop {
            let row = guarded(|| self.rows.as_mut().and_then(Iterator::next));
            if let Some(row) = row.map_err(|e| unreadable(&self.path, &e))? {
                break row;
            }
            if self.next_group == self.file.num_row_groups() {
                return Ok(None);
            }
            self.rows = Some(self.group(self.next_group).map_err(|e| unreadable(&self.path, &e))?);
            self.next_group += 1;
        };
        self.n_read += 1;
        let row_error = |what| Error::Row { path: self.path.to_path_buf(), row: self.n_read, what };
        let row = row.map_err(|e| row_error(format!("cannot be decoded: {e}")))?;
        let Value::Object(columns) = row.to_json_value() else {
            return Err(unreadable(&self.path, &"a row is not a record"));
        };
        weight(&columns).map_err(row_error)?;
        Ok(Some(Record { path: self.path.clone(), row: self.n_read, columns }))
    }

    fn group(&self, i: usize) -> parquet::errors::Result<ReaderIter> {
        let columns = self.file.metadata().file_metadata().schema_descr_ptr();
        let group =
            || TreeBuilder::new().with_batch_size(BATCH).as_iter(columns, &*self.file.get_row_group(i)?);
        guarded(group).map_err(ParquetError::General)?
    }
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    file_error(path, format!("not a parquet file that can be read: {why}"))
}
