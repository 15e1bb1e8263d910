//! Values as Python's `str` and `repr` spell them. minijinja does most of it; floats with an exponent
//! and special floats differ.

use minijinja::Value;
use minijinja::value::{Tuple, ValueKind};

/// `str(value)`; nothing for what is undefined, as jinja2 writes it.
pub(super) fn str(value: &Value) -> String {
    match value.kind() {
        ValueKind::Number | ValueKind::Seq | ValueKind::Map => repr(value),
        _ => value.to_string(),
    }
}

fn repr(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value.kind() {
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(x) => float(x),
            Err(_) => value.to_string(),
        },
        ValueKind::Map => {
            let Ok(keys) = value.try_iter() else { return value.to_string() };
            let entry =
                |key: Value| format!("{}: {}", repr(&key), repr(&value.get_item(&key).unwrap_or_default()));
            format!("{{{}}}", joined(keys.map(entry).collect()))
        }
        ValueKind::Seq if value.downcast_object_ref::<Tuple>().is_none() => {
            let Ok(items) = value.try_iter() else { return value.to_string() };
            format!("[{}]", joined(items.map(|item| repr(&item)).collect()))
        }
        // A list spells its items as repr does.
        ValueKind::String => {
            let list = Value::from(vec![value.clone()]).to_string();
            list[1..list.len() - 1].to_owned()
        }
        ValueKind::Undefined => "Undefined".to_owned(),
        _ => value.to_string(),
    }
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
