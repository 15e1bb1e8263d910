//! Text to records: a line or an element of JSON, a data row of CSV.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::record::{MAX_COLUMNS, MAX_VALUES, Record, file_error, two_columns};
use crate::error::{Error, Result};

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
    use crate::dataset::read_records;

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
