//! Files to records: one JSON object a row, with the place it came from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One row of a data file, before anybody asks what its columns mean.
#[derive(Debug, Clone)]
pub struct Record {
    /// The file.
    pub path: Arc<Path>,
    /// Where in the file, from 1: the line of a .jsonl file, the element of a .json array, the data row
    /// of a .csv file.
    pub row: usize,
    /// The columns in the file's order.
    pub columns: Map<String, Value>,
}

impl Record {
    /// An error about this row.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::Row { path: self.path.to_path_buf(), row: self.row, what: what.into() }
    }

    /// The text in column `name`; `None` when the column is absent or null. Numbers and booleans are
    /// taken as they are written.
    ///
    /// # Errors
    /// [`Error::Row`] when the column holds a list or an object.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        match self.columns.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Some(Value::Array(_)) => Err(self.error(format!("column `{name}` is a list, not text"))),
            Some(Value::Object(_)) => Err(self.error(format!("column `{name}` is an object, not text"))),
        }
    }

    /// The column names, for messages.
    pub fn column_names(&self) -> String {
        self.columns.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }
}

/// The rows of a .jsonl, .json or .csv file, or of every such file of a folder in the order of their
/// names; the first `max_rows` of them unless that is 0.
///
/// # Errors
/// [`Error::Io`] when a file cannot be read, [`Error::File`] when it is of another kind or has no rows,
/// [`Error::Row`] when a row is not an object or not valid UTF-8.
pub fn read_records(path: &Path, max_rows: usize) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for file in data_files(path)? {
        read_file(&file, &mut records)?;
        if max_rows > 0 && records.len() >= max_rows {
            records.truncate(max_rows);
            break;
        }
    }
    Ok(records)
}

/// What a file name says about the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// JSON Lines, or one JSON array: told apart by the first character.
    Json,
    Csv,
    Parquet,
}

pub(super) fn kind(path: &Path) -> Option<Kind> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jsonl" | "json" | "ndjson" => Some(Kind::Json),
        "csv" => Some(Kind::Csv),
        "parquet" => Some(Kind::Parquet),
        _ => None,
    }
}

pub(super) fn data_files(path: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    if !fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && file.is_file() && kind(&file).is_some() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(file_error(path, "the folder holds no .jsonl, .json or .csv file"));
    }
    Ok(files)
}

pub(super) fn file_error(path: &Path, what: impl Into<String>) -> Error {
    Error::File { path: path.to_path_buf(), what: what.into() }
}

fn read_file(path: &Path, records: &mut Vec<Record>) -> Result<()> {
    let kind = kind(path)
        .ok_or_else(|| file_error(path, "not a data file; a .jsonl, .json or .csv file is expected"))?;
    let before = records.len();
    let bytes = |path: &Path| fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source });
    match kind {
        Kind::Parquet => {
            return Err(file_error(path, "parquet is not read yet; convert it to .jsonl, one object a line"));
        }
        Kind::Csv => read_csv(path, &bytes(path)?, records)?,
        Kind::Json => {
            let bytes = bytes(path)?;
            let content = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
            if content.trim_ascii_start().first() == Some(&b'[') {
                read_array(path, content, records)?;
            } else {
                read_lines(path, content, records)?;
            }
        }
    }
    if records.len() == before {
        return Err(file_error(path, "the file has no rows"));
    }
    Ok(())
}

fn read_lines(path: &Path, content: &[u8], records: &mut Vec<Record>) -> Result<()> {
    let shared: Arc<Path> = path.into();
    for (i, line) in content.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        records.push(json_record(&shared, i + 1, line)?);
    }
    Ok(())
}

/// The record in one line of a .jsonl file.
pub(super) fn json_record(path: &Arc<Path>, row: usize, line: &[u8]) -> Result<Record> {
    let row_error = |what: String| Error::Row { path: path.to_path_buf(), row, what };
    let line = std::str::from_utf8(line)
        .map_err(|e| row_error(format!("not valid UTF-8 at byte {} of the line", e.valid_up_to() + 1)))?;
    let value =
        serde_json::from_str(line).map_err(|e| row_error(format!("malformed JSON: {}", brief(&e))))?;
    Ok(Record { path: path.clone(), row, columns: object(value).map_err(row_error)? })
}

fn read_array(path: &Path, content: &[u8], records: &mut Vec<Record>) -> Result<()> {
    let text = std::str::from_utf8(content)
        .map_err(|e| file_error(path, format!("not valid UTF-8 at byte {}", e.valid_up_to() + 1)))?;
    let values: Vec<Value> =
        serde_json::from_str(text).map_err(|e| file_error(path, format!("malformed JSON: {e}")))?;
    let shared: Arc<Path> = path.into();
    for (i, value) in values.into_iter().enumerate() {
        let row_error = |what| Error::Row { path: path.to_path_buf(), row: i + 1, what };
        records.push(Record { path: shared.clone(), row: i + 1, columns: object(value).map_err(row_error)? });
    }
    Ok(())
}

fn read_csv(path: &Path, content: &[u8], records: &mut Vec<Record>) -> Result<()> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut reader = csv::Reader::from_reader(content);
    let names = reader.headers().map_err(|e| file_error(path, format!("the header line: {e}")))?.clone();
    let shared: Arc<Path> = path.into();
    for (i, record) in reader.into_records().enumerate() {
        records.push(csv_record(&shared, i + 1, &names, record)?);
    }
    Ok(())
}

/// The record in one data row of a .csv file.
pub(super) fn csv_record(
    path: &Arc<Path>,
    row: usize,
    names: &csv::StringRecord,
    record: csv::Result<csv::StringRecord>,
) -> Result<Record> {
    let record = record.map_err(|e| {
        let what = match e.kind() {
            csv::ErrorKind::Utf8 { err, .. } => {
                format!("not valid UTF-8 in column `{}`", names.get(err.field()).unwrap_or("?"))
            }
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} fields where the header has {expected_len}")
            }
            _ => e.to_string(),
        };
        Error::Row { path: path.to_path_buf(), row, what }
    })?;
    let columns =
        names.iter().zip(&record).map(|(name, field)| (name.to_owned(), Value::from(field))).collect();
    Ok(Record { path: path.clone(), row, columns })
}

fn object(value: Value) -> std::result::Result<Map<String, Value>, String> {
    match value {
        Value::Object(columns) => Ok(columns),
        _ => Err("not a JSON object; every row must be one".into()),
    }
}

/// `serde_json` counts lines from the start of what it was given: only the column means something here.
fn brief(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let cause = message.split(" at line ").next().unwrap_or(&message);
    format!("{cause} at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn message(path: &Path) -> String {
        let error = read_records(path, 0).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        error[path.display().to_string().len()..].to_owned()
    }

    #[test]
    fn the_same_rows_from_every_format() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            write(
                dir.path(),
                "a.jsonl",
                "{\"q\":\"one\",\"n\":\"1\"}\n\n{\"q\":\"two, \\\"2\\\"\",\"n\":\"2\"}\r\n",
            ),
            write(
                dir.path(),
                "b.json",
                "\u{feff} [{\"q\":\"one\",\"n\":\"1\"},{\"q\":\"two, \\\"2\\\"\",\"n\":\"2\"}]",
            ),
            write(dir.path(), "c.csv", "q,n\none,1\n\"two, \"\"2\"\"\",2\n"),
        ];
        for file in &files {
            let records = read_records(file, 0).unwrap();
            assert_eq!(records.len(), 2, "{}", file.display());
            assert_eq!(records[1].text("q").unwrap().unwrap(), "two, \"2\"");
            assert_eq!(records[1].column_names(), "`q`, `n`");
        }
        assert_eq!(read_records(&files[0], 0).unwrap()[1].row, 3);
        assert_eq!(read_records(&files[1], 0).unwrap()[1].row, 2);

        let all = read_records(dir.path(), 0).unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!(read_records(dir.path(), 3).unwrap().len(), 3);
    }

    #[test]
    fn wrong_files_say_what_and_where() {
        let dir = tempfile::tempdir().unwrap();
        let w = |name, content: &[u8]| message(&write(dir.path(), name, content));
        assert_eq!(
            w("a.jsonl", b"{\"q\": 1}\n{\"q\": 1,}\n"),
            ", row 2: malformed JSON: trailing comma at column 9"
        );
        assert_eq!(w("b.jsonl", b"{}\n[1]\n"), ", row 2: not a JSON object; every row must be one");
        assert_eq!(w("c.jsonl", b"{\"q\": \"\xff\"}\n"), ", row 1: not valid UTF-8 at byte 8 of the line");
        assert_eq!(w("d.jsonl", b"\n \n"), ": the file has no rows");
        assert_eq!(w("e.csv", b"q,n\n"), ": the file has no rows");
        assert_eq!(w("f.csv", b"q,n\n1,2\n1\n"), ", row 2: 1 fields where the header has 2");
        assert_eq!(w("g.csv", b"q,n\n1,\xff\n"), ", row 1: not valid UTF-8 in column `n`");
        assert!(w("h.json", b"[{}, {]").starts_with(": malformed JSON: key must be a string"));
        assert!(w("i.parquet", b"PAR1").contains("parquet is not read yet"));
        assert!(w("j.txt", b"text").contains("not a data file"));
        assert!(matches!(read_records(&dir.path().join("absent.jsonl"), 0), Err(Error::Io { .. })));
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert!(message(&empty).contains("holds no .jsonl"));
    }
}
