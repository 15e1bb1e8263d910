//! Typed access to the fields of a JSON object, with errors that name file and field.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// A JSON object and the file it came from. A field that is null counts as absent unless asked.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
    /// "" or "rope_scaling." in messages.
    prefix: &'a str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(json: &'a Value, path: &'a Path) -> Result<Self> {
        match json {
            Value::Object(map) => Ok(Self { map, path, prefix: "" }),
            _ => Err(Error::ModelFile { path: path.to_owned(), what: "is not a JSON object".into() }),
        }
    }

    /// The object in field `key`, if there is one.
    pub(super) fn nested(&self, key: &str, prefix: &'a str) -> Result<Option<Fields<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { map, path: self.path, prefix })),
            Some(other) => Err(self.wrong_type(key, other, "an object")),
        }
    }

    pub(super) fn error(&self, what: &str) -> Error {
        Error::ModelFile { path: self.path.to_owned(), what: what.to_owned() }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.keys().map(String::as_str)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Present, and null.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A whole number above zero.
    pub(super) fn size(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number above zero", |v| {
            v.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0)
        })
    }

    /// A whole number.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A whole number above zero and at most `most`.
    pub(super) fn size_to(&self, key: &str, most: usize) -> Result<Option<usize>> {
        match self.size(key)? {
            Some(n) if n > most => Err(self.beyond(key, n, most)),
            size => Ok(size),
        }
    }

    /// The error about a size that no model has.
    pub(super) fn beyond(&self, what: &str, n: impl std::fmt::Display, most: usize) -> Error {
        self.error(&format!("{}{what} = {n} is beyond what is supported (at most {most})", self.prefix))
    }

    pub(super) fn required_size_to(&self, key: &str, most: usize) -> Result<usize> {
        self.size_to(key, most)?.ok_or_else(|| self.error(&format!("has no field {}{key}", self.prefix)))
    }

    pub(super) fn required_number(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.error(&format!("has no field {}{key}", self.prefix)))
    }

    /// A token id or a list of them; empty where the field is absent.
    pub(super) fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |v: &Value| {
            v.as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .ok_or_else(|| self.wrong_type(key, v, "a token id or a list of token ids"))
        };
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(one) => Ok(vec![id(one)?]),
        }
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => convert(value).map(Some).ok_or_else(|| self.wrong_type(key, value, expected)),
        }
    }

    fn wrong_type(&self, key: &str, value: &Value, expected: &str) -> Error {
        self.error(&format!("{}{key} is {value}, expected {expected}", self.prefix))
    }
}
