//! One row of a data file, before anybody asks what its columns mean; and how large one may be.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Lack, Result};

/// The most bytes of one row, in a file of text: no row is longer, but a file without line ends is. In parquet, of one
/// value.
pub(super) const MAX_ROW_BYTES: usize = 64 << 20;

/// The most values of one row, those in its lists and objects included: a token's id, for example, is one.
pub(super) const MAX_VALUES: usize = 2 << 20;

/// The most columns that a file of a fixed number of them may have.
pub(super) const MAX_COLUMNS: usize = 4096;

/// One row of a data file, before anybody asks what its columns mean.
#[derive(Debug, Clone)]
pub struct Record {
    /// The file.
    pub path: Arc<Path>,
    /// Where in the file, from 1: the line of a .jsonl file, the element of a .json array, the data row
    /// of a .csv or .parquet file.
    pub row: usize,
    /// The columns in the file's order.
    pub columns: Map<String, Value>,
}

impl Record {
    /// An error about this row.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::Row { path: self.path.to_path_buf(), row: self.row, what: what.into() }
    }

    /// The error of a row that lacks what it must have, and nothing worse.
    pub fn gap(&self, lack: Lack, what: impl Into<String>) -> Error {
        Error::Gap { path: self.path.to_path_buf(), row: self.row, what: what.into(), lack }
    }

    /// The text in column `name`; `None` when the column is absent or null. Numbers and booleans are
    /// taken as they are written, a list of one text (the thoughts of s1K) as that text.
    ///
    /// # Errors
    /// [`Error::Row`] when the column holds another list or an object.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        match self.columns.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Some(Value::Array(items)) if matches!(items.as_slice(), [Value::String(_)]) => {
                Ok(items[0].as_str().map(str::to_owned))
            }
            Some(Value::Array(_)) => Err(self.error(format!("column `{name}` is a list, not text"))),
            Some(Value::Object(_)) => Err(self.error(format!("column `{name}` is an object, not text"))),
        }
    }

    /// The column names, for messages.
    pub fn column_names(&self) -> String {
        self.columns.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }
}

/// What a record takes beside its columns' entries: itself, twice where a list of them grows, and an empty map.
pub(super) const BYTES_PER_RECORD: usize = 3 * size_of::<Record>();

/// What an entry of a map takes beside its name's text and its value: the name, its hash, its place.
const BYTES_PER_ENTRY: usize = 64;

/// About how many bytes of memory a row's columns take.
///
/// # Errors
/// What is wrong with a row in which a text is longer than one may be.
pub(super) fn weight(columns: &Map<String, Value>) -> std::result::Result<usize, String> {
    let entry = |(name, value): (&String, &Value)| Ok(name.len() + BYTES_PER_ENTRY + of_value(value)?);
    fn of_value(value: &Value) -> std::result::Result<usize, String> {
        Ok(size_of::<Value>()
            + match value {
                Value::String(text) if text.len() > MAX_ROW_BYTES => return Err(too_long()),
                Value::String(text) => text.len(),
                Value::Array(items) => items.iter().map(of_value).sum::<std::result::Result<_, _>>()?,
                Value::Object(columns) => weight(columns)?,
                _ => 0,
            })
    }
    columns.iter().map(entry).sum()
}

/// What is wrong with a row that is too long.
pub(super) fn too_long() -> String {
    format!(
        "over {} MB long, which is more than a row may have (is the file of the kind that its name says?)",
        MAX_ROW_BYTES >> 20
    )
}

/// What is wrong with a file in which a name stands for two columns: which one was meant nobody can tell.
pub(super) fn two_columns(name: &str) -> String {
    format!("two columns are called `{name}`; rename one")
}

pub(super) fn file_error(path: &Path, what: impl Into<String>) -> Error {
    Error::File { path: path.to_path_buf(), what: what.into() }
}
