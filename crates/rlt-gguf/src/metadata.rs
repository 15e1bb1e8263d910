//! Metadata values. Nothing is copied when a file is opened: a string or an array is its place in the file.

use std::ops::Range;

use super::cursor::{Cursor, Parsed};

/// The type of a value, or of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Type {
    fn from_code(code: u32) -> Parsed<Self> {
        const TYPES: [Type; 13] = [
            Type::U8,
            Type::I8,
            Type::U16,
            Type::I16,
            Type::U32,
            Type::I32,
            Type::F32,
            Type::Bool,
            Type::Text,
            Type::Array,
            Type::U64,
            Type::I64,
            Type::F64,
        ];
        let known = TYPES.get(code as usize).copied();
        known.ok_or_else(|| {
            format!("has the unknown type {code}: the file is damaged or newer than this program")
        })
    }

    /// Bytes of one value; `None` where they differ from value to value.
    fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::U8 | Self::I8 | Self::U16 | Self::I16 | Self::U32 | Self::I32 | Self::U64 | Self::I64 => {
                "a whole number"
            }
            Self::F32 | Self::F64 => "a number",
            Self::Bool => "true or false",
            Self::Text => "a text",
            Self::Array => "a list",
        }
    }
}

/// A value by its place in the file.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// One number, text or truth value.
    One(Type, Range<usize>),
    /// `n` elements, one after the other.
    Array(Type, usize, Range<usize>),
}

impl Value {
    /// Steps over a value.
    pub(crate) fn parse(cursor: &mut Cursor) -> Parsed<Self> {
        match Type::from_code(cursor.u32()?)? {
            Type::Array => {
                let element = Type::from_code(cursor.u32()?)?;
                if element == Type::Array {
                    return Err("is a list of lists, which is not read".into());
                }
                let start = cursor.position() + size_of::<u64>();
                // A text takes the 8 bytes of its length at least.
                let n = cursor.count(element.size().unwrap_or(size_of::<u64>()))?;
                match element.size() {
                    Some(size) => cursor.skip(n * size).map(drop)?,
                    None => (0..n).try_for_each(|_| cursor.string().map(drop))?,
                }
                Ok(Self::Array(element, n, start..cursor.position()))
            }
            Type::Text => Ok(Self::One(Type::Text, cursor.string()?)),
            number => {
                let size = number.size().unwrap_or(0);
                Ok(Self::One(number, cursor.skip(size)?))
            }
        }
    }

    /// What it is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::One(one, _) => one.name(),
            Self::Array(..) => "a list",
        }
    }
}

/// A number of any type; whole ones exactly up to 2^53.
pub(crate) fn number(kind: Type, bytes: &[u8]) -> Option<f64> {
    Some(match kind {
        Type::F32 => f64::from(f32::from_le_bytes(bytes.try_into().ok()?)),
        Type::F64 => f64::from_le_bytes(bytes.try_into().ok()?),
        _ => whole(kind, bytes)? as f64,
    })
}

/// A whole number of any type.
pub(crate) fn whole(kind: Type, bytes: &[u8]) -> Option<i128> {
    Some(match kind {
        Type::U8 => u8::from_le_bytes(bytes.try_into().ok()?).into(),
        Type::I8 => i8::from_le_bytes(bytes.try_into().ok()?).into(),
        Type::U16 => u16::from_le_bytes(bytes.try_into().ok()?).into(),
        Type::I16 => i16::from_le_bytes(bytes.try_into().ok()?).into(),
        Type::U32 => u32::from_le_bytes(bytes.try_into().ok()?).into(),
        Type::I32 => i32::from_le_bytes(bytes.try_into().ok()?).into(),
        Type::U64 => u64::from_le_bytes(bytes.try_into().ok()?).into(),
        Type::I64 => i64::from_le_bytes(bytes.try_into().ok()?).into(),
        Type::F32 | Type::F64 | Type::Bool | Type::Text | Type::Array => return None,
    })
}

/// Bytes of a number of this type; 0 for what is not one.
pub(crate) fn number_size(kind: Type) -> usize {
    match kind {
        Type::Bool => 0,
        number => number.size().unwrap_or(0),
    }
}
