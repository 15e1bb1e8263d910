//! The Jinja environment in which transformers renders chat templates.

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

use super::bounds::{self, bytes_left, charge, check_nesting, check_width, invalid};
use super::source::KEPT;
use super::{json, methods, python};

/// Longest format of a date, bytes.
const MAX_DATE_FORMAT: usize = 1_000;

/// `ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)` with transformers' own
/// filters and functions. `now` is what `strftime_now` tells.
pub(super) fn hugging_face(now: DateTime) -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    // Only delimiters can be wrong here, and they are the defaults.
    env.set_syntax(syntax.unwrap_or_default());
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_unknown_method_callback(methods::call);
    minijinja_contrib::add_to_environment(&mut env);
    // Not there in jinja2, or not bounded.
    for name in ["debug", "cycler", "lipsum", "randrange", "now"] {
        env.remove_global(name);
    }
    env.set_formatter(|out, state, value| match value.as_str() {
        Some(text) => Ok(out.write_str(text)?),
        None => Ok(out.write_str(&python::str(state, value)?)?),
    });
    env.add_filter(KEPT, bounds::kept_value);
    env.add_filter("string", python::str);
    env.add_filter("escape", escaped);
    env.add_filter("e", escaped);
    env.add_filter("int", |value: &Value, default: Option<i64>| {
        number(value).map_or(default.unwrap_or(0), |x| x as i64)
    });
    env.add_filter("float", |value: &Value, default: Option<f64>| number(value).or(default).unwrap_or(0.0));
    env.add_filter("tojson", tojson);
    env.add_filter("trim", |state: &State, text: &Value, chars: Option<&str>| -> Result<String, Error> {
        Ok(methods::trim(&python::str(state, text)?, chars).to_owned())
    });
    env.add_test("sequence", |v: &Value| {
        matches!(
            v.kind(),
            ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Bytes | ValueKind::Undefined
        )
    });
    env.add_test("iterable", |v: &Value| v.is_undefined() || v.as_str().is_some() || v.try_iter().is_ok());
    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(invalid(message.to_string()))
    });
    set_time(&mut env, now);
    env.set_fuel(Some(bounds::FUEL));
    env
}

/// What Python's `float` makes of a value.
fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None if value.kind() == ValueKind::Bool => Some(if value.is_true() { 1.0 } else { 0.0 }),
        None => f64::try_from(value.clone()).ok(),
    }
}

/// The filter `escape`.
fn escaped(state: &State, value: &Value) -> Result<String, Error> {
    let text = python::str(state, value)?;
    // A quotation mark becomes five bytes, and there are five passes.
    charge(state, text.len(), 10)?;
    Ok(escape(&text))
}

/// As `markupsafe.escape`.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&#34;")
}

/// Defines `strftime_now`.
pub(super) fn set_time(env: &mut Environment<'static>, now: DateTime) {
    env.add_function("strftime_now", move |format: &str| -> Result<String, Error> {
        if format.len() > MAX_DATE_FORMAT {
            return Err(invalid(format!("strftime_now: a format of {} bytes", format.len())));
        }
        // Python's datetime.now() knows no time zone and writes nothing for it.
        let format = format.replace("%Z", "").replace("%z", "");
        jiff::fmt::strtime::format(&format, now).map_err(|e| invalid(format!("strftime_now: {e}")))
    });
}

/// transformers' `tojson`: `json.dumps` without HTML escapes and with non-ASCII text as it is.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
fn tojson(state: &State, value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    type Args = (Option<bool>, Option<Value>, Option<Value>, Option<bool>);
    let (ensure_ascii, indent, separators, sort_keys): Args = from_args(&args)?;
    let invalid = |what: String| invalid(format!("tojson: {what}"));
    let or_named = |given: Option<Value>, name: &str| -> Result<Option<Value>, Error> {
        let value = match given {
            Some(value) => Some(value),
            None => kwargs.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|v| !v.is_none() && !v.is_undefined()))
    };
    if value.is_undefined() {
        return Err(invalid("the value is undefined".into()));
    }
    let indent = match or_named(indent, "indent")? {
        None => None,
        Some(indent) => Some(match (indent.as_str(), indent.as_usize()) {
            (Some(text), _) => {
                check_width("tojson", text.len())?;
                text.to_owned()
            }
            (None, Some(n)) => {
                check_width("tojson", n)?;
                " ".repeat(n)
            }
            (None, None) => return Err(invalid(format!("indent {indent} is neither a number nor a text"))),
        }),
    };
    let mut style = json::Style::new(indent);
    if let Some(separators) = or_named(separators, "separators")? {
        let pair: Vec<Value> = separators.try_iter()?.collect();
        let [item, key] = pair.as_slice() else {
            return Err(invalid(format!("separators {separators} are not two texts")));
        };
        style.item_separator = item.to_string();
        style.key_separator = key.to_string();
    }
    let truth = |given: Option<bool>, name: &str| -> Result<bool, Error> {
        Ok(or_named(given.map(Value::from), name)?.is_some_and(|v| v.is_true()))
    };
    style.ensure_ascii = truth(ensure_ascii, "ensure_ascii")?;
    style.sort_keys = truth(sort_keys, "sort_keys")?;
    kwargs.assert_all_used()?;
    check_nesting(state, value, None)?;
    let value = serde_json::to_value(value).map_err(|e| invalid(e.to_string()))?;
    let most = bytes_left(state) / python::SPELLED_BYTE;
    let text = style.dumps(&value, most).ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
    charge(state, text.len(), python::SPELLED_BYTE)?;
    Ok(text.into())
}
