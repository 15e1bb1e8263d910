//! Column types as values tell them, and rows shredded into columns (Melnik et al., "Dremel", 2010).

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::ByteArray;
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};

/// The type of a column, as its values tell it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
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
            Value::Object(fields) => Self::of_object(fields)?,
        })
    }

    pub(super) fn of_object(fields: &Map<String, Value>) -> std::result::Result<Self, String> {
        let fields = fields.iter().map(|(name, value)| Ok((name.clone(), Self::of(value)?)));
        Ok(Self::Struct(fields.collect::<std::result::Result<_, String>>()?))
    }

    /// The type that holds both; `Err` says what the two are.
    pub(super) fn merged(self, other: Self) -> std::result::Result<Self, String> {
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

    pub(super) fn schema(&self, name: &str) -> parquet::errors::Result<TypePtr> {
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
    pub(super) fn columns(&self, columns: &mut Vec<Column>) {
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
    pub(super) fn shred<'a>(
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
pub(super) enum Values {
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
pub(super) struct Column {
    pub(super) values: Values,
    pub(super) definition: Vec<i16>,
    pub(super) repetition: Vec<i16>,
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
