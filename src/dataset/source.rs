//! Files to records: one JSON object a row, with the place it came from.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::RecordStream;
use super::measured::too_long;
use crate::error::{Error, Result};

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
    pub fn gap(&self, what: &str) -> Error {
        Error::Gap { path: self.path.to_path_buf(), row: self.row, what: what.into() }
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

/// The most bytes of one row, in a file of text: no row is longer, but a file without line ends is. In parquet, of one
/// value.
pub(super) const MAX_ROW_BYTES: usize = 64 << 20;

/// The most values of one row, those in its lists and objects included: a token's id, for example, is one.
pub(super) const MAX_VALUES: usize = 2 << 20;

/// The most columns that a file of a fixed number of them may have.
pub(super) const MAX_COLUMNS: usize = 4096;

/// The rows of a .jsonl, .json, .csv or .parquet file, of every such file of a folder in the order of their
/// names, or of a data set of the Hugging Face hub; the first `max_rows` of them unless that is 0.
///
/// # Errors
/// [`Error::Io`] when a file cannot be read, [`Error::File`] when it is of another kind, has no rows, cannot be
/// fetched or would take more memory than its length can mean, [`Error::Row`] when a row is not an object, too long or
/// not valid UTF-8.
pub fn read_records(path: &Path, max_rows: usize) -> Result<Vec<Record>> {
    let mut stream = RecordStream::open(path, max_rows)?;
    let (mut records, mut held) = (Vec::new(), 0);
    while let Some(record) = stream.next_record()? {
        if let Some(most) = stream.most_held() {
            held += BYTES_PER_RECORD + weight(&record.columns).unwrap_or(0);
            if held > most {
                let what = format!(
                    "{} rows and more repeat what the file says in a few bytes, and would take over {} MB; give \
                     fewer with data.max_rows",
                    records.len(),
                    most >> 20
                );
                return Err(file_error(&record.path, what));
            }
        }
        records.push(record);
    }
    Ok(records)
}

/// What a record takes beside its columns' entries: itself, twice where a list of them grows, and an empty map.
const BYTES_PER_RECORD: usize = 3 * size_of::<Record>();

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

pub(super) fn file_error(path: &Path, what: impl Into<String>) -> Error {
    Error::File { path: path.to_path_buf(), what: what.into() }
}

/// The record in one line of a .jsonl file, or in one element of a list.
pub(super) fn json_record(path: &Arc<Path>, row: usize, line: &[u8]) -> Result<Record> {
    let row_error = |what: String| Error::Row { path: path.to_path_buf(), row, what };
    if has_too_many_values(line) {
        return Err(row_error(format!("it holds more than {} million values", MAX_VALUES >> 20)));
    }
    let line = std::str::from_utf8(line)
        .map_err(|e| row_error(format!("not valid UTF-8 at byte {} of the line", e.valid_up_to() + 1)))?;
    let Row(columns) =
        serde_json::from_str(line).map_err(|e| row_error(format!("malformed JSON: {}", brief(&e))))?;
    Ok(Record { path: path.clone(), row, columns: columns.map_err(row_error)? })
}

/// Whether a row has more commas outside its texts than values are allowed: each value takes far more memory than its
/// two bytes.
fn has_too_many_values(row: &[u8]) -> bool {
    if row.len() / 2 < MAX_VALUES {
        return false;
    }
    let (mut n, mut in_text, mut is_escaped) = (0, false, false);
    for &byte in row {
        if in_text {
            in_text = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
        } else {
            in_text = byte == b'"';
            n += usize::from(matches!(byte, b',' | b'[' | b'{'));
        }
    }
    n > MAX_VALUES
}

/// The column names of a .csv file, each once.
pub(super) fn csv_names<R: std::io::Read>(
    path: &Path,
    reader: &mut csv::Reader<R>,
) -> Result<csv::StringRecord> {
    let names = reader.headers().map_err(|e| file_error(path, format!("the header line: {e}")))?;
    if names.len() > MAX_COLUMNS {
        return Err(file_error(path, format!("{} columns; a row has at most {MAX_COLUMNS}", names.len())));
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err(file_error(path, two_columns(name))),
        None => Ok(names.clone()),
    }
}

/// What is wrong with a file in which a name stands for two columns: which one was meant nobody can tell.
pub(super) fn two_columns(name: &str) -> String {
    format!("two columns are called `{name}`; rename one")
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

/// One row of JSON: its columns, or what is wrong with them. `serde_json`'s own maps keep the last of two
/// values under one name and say nothing.
struct Row(std::result::Result<Map<String, Value>, String>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(RowVisitor)
    }
}

struct RowVisitor;

impl RowVisitor {
    fn not_an_object() -> Row {
        Row(Err("not a JSON object; every row must be one".into()))
    }
}

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Row, A::Error> {
        let (mut columns, mut twice) = (Map::new(), None);
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if columns.contains_key(&name) {
                twice = Some(two_columns(&name));
            }
            columns.insert(name, value);
        }
        Ok(Row(twice.map_or(Ok(columns), Err)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Row, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::not_an_object())
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Row, E> {
        Ok(Self::not_an_object())
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Row, E> {
        Ok(Self::not_an_object())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Row, E> {
        Ok(Self::not_an_object())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Row, E> {
        Ok(Self::not_an_object())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Row, E> {
        Ok(Self::not_an_object())
    }

    fn visit_unit<E>(self) -> std::result::Result<Row, E> {
        Ok(Self::not_an_object())
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
    use std::fs;
    use std::path::PathBuf;

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
        assert_eq!(w("h.json", b"[{}, {]"), ", row 2: malformed JSON: key must be a string at column 2");
        assert!(w("o.json", b"[{}, ]").starts_with(", row 2: malformed JSON: EOF"));
        assert_eq!(w("p.json", b"[{}"), ": the file ends within its list");
        assert_eq!(w("q.json", b"[{}] {}"), ": something stands behind its list");
        let wide = format!("{}\n", "q,".repeat(MAX_COLUMNS));
        assert!(w("r.csv", wide.as_bytes()).contains("4097 columns; a row has at most 4096"));
        let many = format!("{{\"q\":[{}1]}}", "1,".repeat(MAX_VALUES));
        assert!(w("s.jsonl", many.as_bytes()).ends_with(", row 1: it holds more than 2 million values"));
        assert!(w("i.parquet", b"PAR1").starts_with(": not a parquet file that can be read: "));
        let twice = ": two columns are called `q`; rename one";
        assert_eq!(w("k.csv", b"q,n,q\n1,2,3\n"), twice);
        assert_eq!(w("l.jsonl", b"{}\n{\"q\": 1, \"n\": 2, \"q\": 3}\n"), format!(", row 2{twice}"));
        assert_eq!(w("m.json", b"[{\"q\": 1, \"q\": 3}]"), format!(", row 1{twice}"));
        assert_eq!(w("n.json", b"[null]"), ", row 1: not a JSON object; every row must be one");
        assert!(w("j.txt", b"text").contains("not a data file"));
        assert!(matches!(read_records(&dir.path().join("absent.jsonl"), 0), Err(Error::Io { .. })));
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert!(message(&empty).contains("holds no .jsonl"));
    }
}
