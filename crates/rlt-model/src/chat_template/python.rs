//! Values as Python's `str` and `repr` spell them. minijinja does most of it; floats with an exponent
//! and special floats differ.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::bounds::{bytes_left, charge, check_nesting};

/// How much dearer a byte is that is spelled than one that is copied.
pub(super) const SPELLED_BYTE: usize = 8;

/// `str(value)`; nothing for what is undefined, as jinja2 writes it.
pub(super) fn str(state: &State, value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Map => {
            check_nesting(state, value, None)?;
            let mut out = String::new();
            repr(value, &mut out, bytes_left(state) / SPELLED_BYTE)?;
            charge(state, out.len(), SPELLED_BYTE)?;
            Ok(out)
        }
        ValueKind::Number if !value.is_integer() => Ok(number(value)),
        _ => Ok(value.to_string()),
    }
}

/// `value` is known to be shallow; `most` bytes may be written.
fn repr(value: &Value, out: &mut String, most: usize) -> Result<(), Error> {
    if out.len() > most {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    match value.kind() {
        ValueKind::Number if !value.is_integer() => out.push_str(&number(value)),
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&key, out, most)?;
                out.push_str(": ");
                repr(&value.get_item(&key).unwrap_or_default(), out, most)?;
            }
            out.push('}');
        }
        ValueKind::Seq if value.downcast_object_ref::<Tuple>().is_none() => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&item, out, most)?;
            }
            out.push(']');
        }
        // A list spells its items as repr does.
        ValueKind::String => {
            let list = Value::from(vec![value.clone()]).to_string();
            out.push_str(&list[1..list.len() - 1]);
        }
        ValueKind::Undefined => out.push_str("Undefined"),
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn number(value: &Value) -> String {
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
}

/// `repr(float)`: shortest digits, an exponent from 1e16 and below 1e-4. Not finite ones are spelled
/// as `json.dumps` does.
pub(super) fn float(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "NaN"
        } else if x > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    let scientific = format!("{x:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = x.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}
