//! Parquet in and out: rows as JSON objects, nested lists and structs included.
//!
//! Reading uses the record interface of the `parquet` crate, behind checks of what a file claims (`headers.rs`,
//! `pages.rs`). Writing takes each column's type from its
//! values and shreds rows into repetition and definition levels: every field is optional, a list is the
//! three-level group that other readers expect.

mod headers;
mod pages;
mod rows;
mod shape;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use rlt_files::WholeFile;
use serde_json::{Map, Value};

pub(super) use self::rows::ParquetRows;
use self::shape::{Column, Shape, Values};
use crate::error::{Error, Result};

/// Rows of one row group: enough for compression, little enough to hold.
const ROWS_PER_GROUP: usize = 10_000;

/// A row group ends before that when its rows are this long, as JSON.
const BYTES_PER_GROUP: usize = 64 << 20;

/// What the columns of rows hold: known only when the last row is.
#[derive(Debug)]
pub(super) struct RowShape {
    shape: Shape,
    n_rows: usize,
}

impl RowShape {
    /// Of no row yet.
    pub(super) fn new() -> Self {
        Self { shape: Shape::Struct(Vec::new()), n_rows: 0 }
    }

    /// Takes one more row of the file `path` into account.
    pub(super) fn see(&mut self, path: &Path, row: &Map<String, Value>) -> Result<()> {
        self.n_rows += 1;
        let of_row = if row.is_empty() { Ok(Shape::Unknown) } else { Shape::of_object(row) };
        let known = std::mem::replace(&mut self.shape, Shape::Unknown);
        self.shape = of_row.and_then(|of_row| known.merged(of_row)).map_err(|what| Error::File {
            path: path.to_path_buf(),
            what: format!(
                "row {}: a column holds {what}, but in parquet it has one type; write .jsonl",
                self.n_rows
            ),
        })?;
        Ok(())
    }
}

/// Writes `rows`, as JSON Lines, all of which `shape` has seen, as the parquet file `path`. In memory is one row group
/// at a time.
pub(super) fn write_rows(path: &Path, rows: impl Read, shape: &RowShape, file: &mut WholeFile) -> Result<()> {
    write_groups(rows, shape, file).map_err(|e| {
        let path = path.to_path_buf();
        match e {
            ParquetError::External(e) if e.is::<std::io::Error>() => {
                Error::Io { path, source: *e.downcast().expect("just checked") }
            }
            e => Error::File { path, what: format!("cannot be written as parquet: {e}") },
        }
    })
}

fn write_groups(
    rows: impl Read,
    RowShape { shape, n_rows }: &RowShape,
    file: &mut WholeFile,
) -> parquet::errors::Result<()> {
    let Shape::Struct(fields) = shape else { unreachable!("rows are objects") };
    let types =
        fields.iter().map(|(name, shape)| shape.schema(name)).collect::<parquet::errors::Result<_>>()?;
    let schema = Type::group_type_builder("schema").with_fields(types).build()?;
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut rows = BufReader::new(rows);
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
    let mut line = Vec::new();
    let mut left = *n_rows;
    while left > 0 {
        let mut columns = Vec::new();
        shape.columns(&mut columns);
        let (mut n_rows, mut n_bytes) = (0, 0);
        while n_rows < left.min(ROWS_PER_GROUP) && n_bytes < BYTES_PER_GROUP {
            line.clear();
            n_bytes += rows.read_until(b'\n', &mut line)?;
            let row: Map<String, Value> = serde_json::from_slice(&line).map_err(std::io::Error::from)?;
            fields.iter().fold(columns.as_mut_slice(), |columns, (name, shape)| {
                shape.shred(row.get(name).unwrap_or(&Value::Null), 0, 0, 0, columns)
            });
            n_rows += 1;
        }
        write_group(&mut writer, &columns)?;
        left -= n_rows;
    }
    writer.close()?;
    Ok(())
}

fn write_group(
    writer: &mut SerializedFileWriter<&mut WholeFile>,
    columns: &[Column],
) -> parquet::errors::Result<()> {
    let mut group = writer.next_row_group()?;
    for column in columns {
        let mut leaf = group.next_column()?.expect("as many columns as the schema has leaves");
        let (definition, repetition) = (Some(&column.definition[..]), Some(&column.repetition[..]));
        match &column.values {
            Values::Bool(values) => leaf.typed::<BoolType>().write_batch(values, definition, repetition),
            Values::Int(values) => leaf.typed::<Int64Type>().write_batch(values, definition, repetition),
            Values::Float(values) => leaf.typed::<DoubleType>().write_batch(values, definition, repetition),
            Values::Text(values) => leaf.typed::<ByteArrayType>().write_batch(values, definition, repetition),
        }?;
        leaf.close()?;
    }
    group.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use parquet::file::metadata::RowGroupMetaData;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use serde_json::json;

    use super::*;
    use crate::dataset::{RowWriter, read_records};

    fn rows(values: Value) -> Vec<Map<String, Value>> {
        serde_json::from_value(values).unwrap()
    }

    fn round_trip(rows: &[Map<String, Value>]) -> Vec<Map<String, Value>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.parquet");
        let mut writer = RowWriter::<()>::begin(&path, "").unwrap();
        writer.append(rows, ()).unwrap();
        writer.finish().unwrap();
        read_records(&path, 0).unwrap().into_iter().map(|record| record.columns).collect()
    }

    #[test]
    fn nested_rows_come_back_as_they_were() {
        let rows = rows(json!([
            {"id": 1, "x": 0.5, "ok": true, "tags": ["a", null, ""], "deep": [[1, 2], [], [3]],
             "conversations": [{"from": "user", "value": "q\u{1F600}"}, {"from": "assistant", "value": null}],
             "meta": {"source": "s", "n": [1.5]}, "none": null},
            {"id": null, "x": null, "ok": null, "tags": null, "deep": null, "conversations": null,
             "meta": null, "none": null},
            {"id": -3, "x": 2.0, "ok": false, "tags": [], "deep": [], "conversations": [],
             "meta": {"source": null, "n": []}, "none": null},
        ]));
        assert_eq!(round_trip(&rows), rows);
    }

    #[test]
    fn absent_fields_are_null_and_numbers_widen() {
        let back = round_trip(&rows(json!([{"a": 1}, {"b": {"c": "x"}, "a": 1.5}, {"b": {"d": [true]}}])));
        let expected = json!([
            {"a": 1.0, "b": null},
            {"a": 1.5, "b": {"c": "x", "d": null}},
            {"a": null, "b": {"c": null, "d": [true]}},
        ]);
        assert_eq!(json!(back), expected);
    }

    #[test]
    fn many_and_long_rows_are_cut_into_groups() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.parquet");
        let mut rows: Vec<_> =
            (0..ROWS_PER_GROUP + 5).map(|i| json!({"i": i, "x": i as f64 / 7.0})).collect();
        rows.extend((0..9).map(|i| json!({"i": i, "text": "long ".repeat(2 << 20)})));
        let mut writer = RowWriter::<()>::begin(&path, "").unwrap();
        for row in &rows {
            writer.append(&[row.as_object().unwrap().clone()], ()).unwrap();
        }
        assert!(!path.exists());
        writer.finish().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        let groups: Vec<i64> =
            reader.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect();
        assert_eq!(groups, [10_000, 12, 2], "5 short rows and 7 of 10 MB are the first to pass 64 MiB");
        let back = read_records(&path, 0).unwrap();
        assert_eq!(back.len(), rows.len());
        for (back, row) in back.iter().zip(&rows) {
            for (name, value) in &back.columns {
                assert_eq!(value, row.get(name).unwrap_or(&Value::Null));
            }
        }
    }

    #[test]
    fn a_column_of_two_types_is_refused_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = RowWriter::<()>::begin(&dir.path().join("rows.parquet"), "").unwrap();
        let rows = rows(json!([{"a": 1}, {"a": "x"}]));
        writer.append(&rows[..1], ()).unwrap();
        let error = writer.append(&rows[1..], ()).unwrap_err().to_string();
        drop(writer);
        assert!(error.contains("row 2: a column holds a number and text (field `a`)"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
