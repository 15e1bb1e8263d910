//! Parquet in and out: rows as JSON objects, nested lists and structs included.
//!
//! Reading uses the record interface of the `parquet` crate. Writing takes each column's type from its
//! values and shreds rows into repetition and definition levels (Melnik et al., "Dremel", 2010): every
//! field is optional, a list is the three-level group that other readers expect.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};

use super::Record;
use super::source::two_columns;
use super::writer::PartialFile;
use crate::error::{Error, Result};

/// Rows of one row group: enough for compression, little enough to hold.
const ROWS_PER_GROUP: usize = 10_000;

/// Appends the rows of a parquet file to `records`, at most `limit` of them.
pub(super) fn read(path: &Path, limit: usize, records: &mut Vec<Record>) -> Result<()> {
    let damaged = |e: &dyn std::fmt::Display| Error::File {
        path: path.to_path_buf(),
        what: format!("not a parquet file that can be read: {e}"),
    };
    let file = File::open(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let reader = SerializedFileReader::new(file).map_err(|e| damaged(&e))?;
    let mut names = HashSet::new();
    for field in reader.metadata().file_metadata().schema().get_fields() {
        if !names.insert(field.name().to_owned()) {
            return Err(Error::File { path: path.to_path_buf(), what: two_columns(field.name()) });
        }
    }
    let shared: Arc<Path> = path.into();
    let rows = reader.get_row_iter(None).map_err(|e| damaged(&e))?;
    for (i, row) in rows.take(limit).enumerate() {
        let row = row.map_err(|e| Error::Row {
            path: path.to_path_buf(),
            row: i + 1,
            what: format!("cannot be decoded: {e}"),
        })?;
        let Value::Object(columns) = row.to_json_value() else {
            return Err(damaged(&"a row is not a record"));
        };
        records.push(Record { path: shared.clone(), row: i + 1, columns });
    }
    Ok(())
}

/// The type of a column, as its values tell it.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// No value seen but null (or an object without fields, which parquet cannot hold).
    Unknown,
    Bool,
    Int,
    Float,
    Text,
    List(Box<Shape>),
    Struct(Vec<(String, Shape)>),
}

impl Shape {
    fn of(value: &Value) -> std::result::Result<Self, String> {
        Ok(match value {
            Value::Null => Self::Unknown,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() => Self::Int,
            Value::Number(_) => Self::Float,
            Value::String(_) => Self::Text,
            Value::Array(items) => {
                let mut element = Self::Unknown;
                for item in items {
                    element = element.merged(Self::of(item)?)?;
                }
                Self::List(Box::new(element))
            }
            Value::Object(fields) if fields.is_empty() => Self::Unknown,
            Value::Object(fields) => Self::Struct(
                fields
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), Self::of(value)?)))
                    .collect::<std::result::Result<_, String>>()?,
            ),
        })
    }

    /// The type that holds both; `Err` says what the two are.
    fn merged(self, other: Self) -> std::result::Result<Self, String> {
        Ok(match (self, other) {
            (Self::Unknown, shape) | (shape, Self::Unknown) => shape,
            (Self::Int, Self::Float) | (Self::Float, Self::Int) => Self::Float,
            (Self::List(a), Self::List(b)) => Self::List(Box::new(a.merged(*b)?)),
            (Self::Struct(mut fields), Self::Struct(others)) => {
                for (name, shape) in others {
                    match fields.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => {
                            *known = std::mem::replace(known, Self::Unknown)
                                .merged(shape)
                                .map_err(|what| format!("{what} (field `{name}`)"))?;
                        }
                        None => fields.push((name, shape)),
                    }
                }
                Self::Struct(fields)
            }
            (a, b) if a == b => a,
            (a, b) => return Err(format!("{} and {}", a.noun(), b.noun())),
        })
    }

    fn noun(&self) -> &'static str {
        match self {
            Self::Unknown => "null",
            Self::Bool => "a boolean",
            Self::Int | Self::Float => "a number",
            Self::Text => "text",
            Self::List(_) => "a list",
            Self::Struct(_) => "an object",
        }
    }

    fn schema(&self, name: &str) -> parquet::errors::Result<TypePtr> {
        let leaf = |physical, logical| {
            Type::primitive_type_builder(name, physical)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(logical)
                .build()
        };
        let group = |name: &str, repetition, logical, fields| {
            Type::group_type_builder(name)
                .with_repetition(repetition)
                .with_logical_type(logical)
                .with_fields(fields)
                .build()
        };
        let schema = match self {
            Self::Unknown | Self::Text => leaf(Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Self::Bool => leaf(Physical::BOOLEAN, None),
            Self::Int => leaf(Physical::INT64, None),
            Self::Float => leaf(Physical::DOUBLE, None),
            Self::List(element) => {
                let list = group("list", Repetition::REPEATED, None, vec![element.schema("element")?])?;
                group(name, Repetition::OPTIONAL, Some(LogicalType::List), vec![Arc::new(list)])
            }
            Self::Struct(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, shape)| shape.schema(name))
                    .collect::<parquet::errors::Result<_>>()?;
                group(name, Repetition::OPTIONAL, None, fields)
            }
        }?;
        Ok(Arc::new(schema))
    }

    /// Appends the empty columns of this shape, in the order of the schema.
    fn columns(&self, columns: &mut Vec<Column>) {
        match self {
            Self::List(element) => element.columns(columns),
            Self::Struct(fields) => fields.iter().for_each(|(_, shape)| shape.columns(columns)),
            Self::Bool => columns.push(Column::new(Values::Bool(Vec::new()))),
            Self::Int => columns.push(Column::new(Values::Int(Vec::new()))),
            Self::Float => columns.push(Column::new(Values::Float(Vec::new()))),
            Self::Unknown | Self::Text => columns.push(Column::new(Values::Text(Vec::new()))),
        }
    }

    /// Shreds `value` into the first columns of `columns` and returns the rest. `repetition` is the level
    /// at which this value repeats, `definition` how many optional or repeated fields above it are there,
    /// `lists` how many lists it lies in.
    fn shred<'a>(
        &self,
        value: &Value,
        repetition: i16,
        definition: i16,
        lists: i16,
        columns: &'a mut [Column],
    ) -> &'a mut [Column] {
        match (self, value) {
            (Self::Struct(fields), Value::Object(object)) => {
                fields.iter().fold(columns, |columns, (name, shape)| {
                    let value = object.get(name).unwrap_or(&Value::Null);
                    shape.shred(value, repetition, definition + 1, lists, columns)
                })
            }
            (Self::List(element), Value::Array(items)) if !items.is_empty() => {
                let n = element.n_columns();
                for (i, item) in items.iter().enumerate() {
                    let level = if i == 0 { repetition } else { lists + 1 };
                    element.shred(item, level, definition + 2, lists + 1, &mut columns[..n]);
                }
                &mut columns[n..]
            }
            (Self::Struct(_) | Self::List(_), _) => {
                let there = i16::from(value.is_array());
                let (own, rest) = columns.split_at_mut(self.n_columns());
                for column in own.iter_mut() {
                    column.level(repetition, definition + there);
                }
                rest
            }
            _ => {
                let (own, rest) = columns.split_at_mut(1);
                let there = i16::from(own[0].values.push(value));
                own[0].level(repetition, definition + there);
                rest
            }
        }
    }

    fn n_columns(&self) -> usize {
        match self {
            Self::List(element) => element.n_columns(),
            Self::Struct(fields) => fields.iter().map(|(_, shape)| shape.n_columns()).sum(),
            _ => 1,
        }
    }
}

/// The values of one leaf, without nulls.
enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Text(Vec<ByteArray>),
}

impl Values {
    /// Whether `value` was one (not null).
    fn push(&mut self, value: &Value) -> bool {
        match self {
            Self::Bool(values) => value.as_bool().map(|value| values.push(value)).is_some(),
            Self::Int(values) => value.as_i64().map(|value| values.push(value)).is_some(),
            Self::Float(values) => value.as_f64().map(|value| values.push(value)).is_some(),
            Self::Text(values) => value.as_str().map(|value| values.push(value.into())).is_some(),
        }
    }
}

/// One leaf of the schema.
struct Column {
    values: Values,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl Column {
    fn new(values: Values) -> Self {
        Self { values, definition: Vec::new(), repetition: Vec::new() }
    }

    fn level(&mut self, repetition: i16, definition: i16) {
        self.repetition.push(repetition);
        self.definition.push(definition);
    }
}

/// Writes `rows` to a file that is there whole or not at all.
pub(super) fn write(mut file: PartialFile, rows: &[Map<String, Value>]) -> Result<()> {
    let error = |what: String| Error::File { path: file.path().to_path_buf(), what };
    let mut shape = Shape::Struct(Vec::new());
    for (i, row) in rows.iter().enumerate() {
        let of_row = if row.is_empty() { Ok(Shape::Unknown) } else { Shape::of(&Value::Object(row.clone())) };
        shape = of_row.and_then(|of_row| shape.merged(of_row)).map_err(|what| {
            error(format!(
                "row {}: a column holds {what}, but in parquet it has one type; write .jsonl",
                i + 1
            ))
        })?;
    }
    let path = file.path().to_path_buf();
    write_groups(&mut file, &shape, rows).map_err(|e| match e {
        parquet::errors::ParquetError::External(e) if e.is::<std::io::Error>() => {
            Error::Io { path: path.clone(), source: *e.downcast().expect("just checked") }
        }
        e => Error::File { path: path.clone(), what: format!("cannot be written as parquet: {e}") },
    })?;
    file.finish()
}

fn write_groups(
    file: &mut PartialFile,
    shape: &Shape,
    rows: &[Map<String, Value>],
) -> parquet::errors::Result<()> {
    let Shape::Struct(fields) = shape else { unreachable!("rows are objects") };
    let schema = Type::group_type_builder("schema")
        .with_fields(
            fields.iter().map(|(name, shape)| shape.schema(name)).collect::<parquet::errors::Result<_>>()?,
        )
        .build()?;
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
    for group in rows.chunks(ROWS_PER_GROUP) {
        let mut columns = Vec::new();
        shape.columns(&mut columns);
        for row in group {
            fields.iter().fold(columns.as_mut_slice(), |columns, (name, shape)| {
                shape.shred(row.get(name).unwrap_or(&Value::Null), 0, 0, 0, columns)
            });
        }
        let mut writer = writer.next_row_group()?;
        for column in &columns {
            let mut leaf = writer.next_column()?.expect("as many columns as the schema has leaves");
            let (definition, repetition) = (Some(&column.definition[..]), Some(&column.repetition[..]));
            match &column.values {
                Values::Bool(values) => leaf.typed::<BoolType>().write_batch(values, definition, repetition),
                Values::Int(values) => leaf.typed::<Int64Type>().write_batch(values, definition, repetition),
                Values::Float(values) => {
                    leaf.typed::<DoubleType>().write_batch(values, definition, repetition)
                }
                Values::Text(values) => {
                    leaf.typed::<ByteArrayType>().write_batch(values, definition, repetition)
                }
            }?;
            leaf.close()?;
        }
        writer.close()?;
    }
    writer.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataset::{RowWriter, read_records};

    fn rows(values: Value) -> Vec<Map<String, Value>> {
        serde_json::from_value(values).unwrap()
    }

    fn round_trip(rows: &[Map<String, Value>]) -> Vec<Map<String, Value>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.parquet");
        let mut writer = RowWriter::create(&path).unwrap();
        for row in rows {
            writer.write(row).unwrap();
        }
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
    fn a_column_of_two_types_is_refused_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = RowWriter::create(&dir.path().join("rows.parquet")).unwrap();
        for row in &rows(json!([{"a": 1}, {"a": "x"}])) {
            writer.write(row).unwrap();
        }
        let error = writer.finish().unwrap_err().to_string();
        assert!(error.contains("row 2: a column holds a number and text (field `a`)"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
