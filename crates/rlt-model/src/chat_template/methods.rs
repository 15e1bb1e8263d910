//! Python's methods of strings, lists and dicts. minijinja-contrib has most; those here are missing
//! there or differ from Python, above all in what counts as white space.

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, State, Value};

use super::bounds::{bytes_left, charge, check_nesting, check_width, invalid};

/// Bytes of one part of a split text: a value in a list, and the slice it is made of.
const PART_BYTES: usize = 64;

/// `str.isspace` of one character: Unicode's white space and the four separators U+001C to U+001F.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The method `name` of `value`.
pub(super) fn call(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let (ValueKind::String, Some(text)) = (value.kind(), value.as_str())
        && let Some(result) = string_method(state, text, name, args)
    {
        return result;
    }
    if name == "format" {
        // It spells its arguments without asking what they are, in columns as wide as the text says.
        args.iter().try_for_each(|arg| check_nesting(state, arg, None))?;
        check_columns(value.as_str().unwrap_or_default(), args)?;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// Which ends of a text a method works on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Left,
    Right,
    Both,
}

/// Refuses widths and precisions in the fields of `str.format`: every number in braces, and where braces nest,
/// every number that is given.
fn check_columns(format: &str, args: &[Value]) -> Result<(), Error> {
    let mut open = 0;
    for part in format.split_inclusive(['{', '}']) {
        if open > 0 {
            for number in part.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()) {
                check_width("format", number.parse().unwrap_or(usize::MAX))?;
            }
        }
        if part.ends_with('{') {
            open += 1;
        } else if part.ends_with('}') {
            open -= 1;
        }
        if open > 1 {
            let numbers = args.iter().filter_map(|arg| i64::try_from(arg.clone()).ok());
            numbers.map(|n| n.unsigned_abs() as usize).try_for_each(|n| check_width("format", n))?;
        }
    }
    Ok(())
}

/// `str.strip`, `lstrip` and `rstrip`: white space, or any of the given characters.
fn strip<'a>(text: &'a str, chars: Option<&str>, ends: Ends) -> &'a str {
    let drop = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if ends == Ends::Right { text } else { text.trim_start_matches(drop) };
    if ends == Ends::Left { text } else { text.trim_end_matches(drop) }
}

/// `str.strip` for the `trim` filter.
pub(super) fn trim<'a>(text: &'a str, chars: Option<&str>) -> &'a str {
    strip(text, chars, Ends::Both)
}

fn string_method(state: &State, text: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let stripped = |ends| -> Result<Value, Error> {
        let (chars,): (Option<&str>,) = from_args(args)?;
        Ok(strip(text, chars, ends).into())
    };
    let one = || -> Result<&str, Error> { from_args(args).map(|(one,): (&str,)| one) };
    let all = |test: fn(char) -> bool| -> Result<Value, Error> {
        let () = from_args(args)?;
        Ok((!text.is_empty() && text.chars().all(test)).into())
    };
    let parts = |found: Option<usize>, separator: &str, whole_first: bool| -> Value {
        let (head, middle, tail) = match found {
            Some(at) => (&text[..at], separator, &text[at + separator.len()..]),
            None if whole_first => (text, "", ""),
            None => ("", "", text),
        };
        [head, middle, tail].into_iter().map(Value::from).collect()
    };
    Some(match name {
        "strip" => stripped(Ends::Both),
        "lstrip" => stripped(Ends::Left),
        "rstrip" => stripped(Ends::Right),
        "split" => split(state, text, args, Ends::Left),
        "rsplit" => split(state, text, args, Ends::Right),
        "splitlines" => split_lines(state, text, args),
        "isspace" => all(is_space),
        "removeprefix" => one().map(|prefix| text.strip_prefix(prefix).unwrap_or(text).into()),
        "removesuffix" => one().map(|suffix| text.strip_suffix(suffix).unwrap_or(text).into()),
        "partition" => one().map(|separator| parts(text.find(separator), separator, true)),
        "rpartition" => one().map(|separator| parts(text.rfind(separator), separator, false)),
        "index" | "rindex" => one().and_then(|part| {
            let found = if name == "index" { text.find(part) } else { text.rfind(part) };
            found
                .map(|at| text[..at].chars().count().into())
                .ok_or_else(|| invalid("substring not found".into()))
        }),
        "ljust" | "rjust" | "center" => justify(text, name, args),
        "zfill" => from_args(args).and_then(|(width,): (usize,)| {
            check_width(name, width)?;
            Ok(zero_fill(text, width).into())
        }),
        "swapcase" => from_args(args).map(|()| swap_case(text).into()),
        "casefold" => from_args(args).map(|()| text.to_lowercase().replace('ß', "ss").into()),
        _ => return None,
    })
}

/// `str.split` (limit counted from the left) and `str.rsplit` (from the right).
fn split(state: &State, text: &str, args: &[Value], from: Ends) -> Result<Value, Error> {
    let (separator, limit, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get::<Option<Value>>("sep")?,
    };
    let limit = match limit {
        Some(limit) => limit,
        None => kwargs.get::<Option<i64>>("maxsplit")?.unwrap_or(-1),
    };
    kwargs.assert_all_used()?;
    // What the fuel cannot pay for is not made; one part more tells.
    let most = bytes_left(state) / PART_BYTES + 1;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(most);
    let mut parts: Vec<&str> = match separator.as_ref().filter(|s| !s.is_none()) {
        None => split_at_spaces(text, limit, from),
        Some(separator) => {
            let separator = separator
                .as_str()
                .filter(|s| !s.is_empty())
                .ok_or_else(|| invalid("the separator of split is a text that is not empty".into()))?;
            let n = limit.saturating_add(1);
            if from == Ends::Left {
                text.splitn(n, separator).collect()
            } else {
                text.rsplitn(n, separator).collect()
            }
        }
    };
    charge(state, parts.len(), PART_BYTES)?;
    if from == Ends::Right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Words between runs of white space, at most `limit` of them cut off; from the right the parts
/// come last first.
fn split_at_spaces(text: &str, limit: usize, from: Ends) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = strip(text, None, from);
    while !rest.is_empty() {
        let cut = if parts.len() == limit {
            None
        } else if from == Ends::Left {
            rest.split_once(is_space)
        } else {
            rest.rsplit_once(is_space).map(|(before, word)| (word, before))
        };
        let Some((word, after)) = cut else {
            let other_end = if from == Ends::Left { Ends::Right } else { Ends::Left };
            // Python keeps the far end of an uncut remainder as it is.
            parts.push(if parts.len() == limit { rest } else { strip(rest, None, other_end) });
            break;
        };
        parts.push(word);
        rest = strip(after, None, from);
    }
    parts
}

/// `str.splitlines`: at every line boundary Python knows.
fn split_lines(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
    let keep = match keep {
        Some(keep) => keep,
        None => kwargs.get::<Option<bool>>("keepends")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\u{b}' | '\u{c}' | '\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_end).unwrap_or(rest.len());
        let after = match rest[end..].chars().next() {
            None => end,
            Some('\r') if rest[end..].starts_with("\r\n") => end + 2,
            Some(c) => end + c.len_utf8(),
        };
        charge(state, 1, PART_BYTES)?;
        lines.push(Value::from(&rest[..if keep { after } else { end }]));
        rest = &rest[after..];
    }
    Ok(lines.into())
}

fn justify(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (usize, Option<char>) = from_args(args)?;
    check_width(name, width)?;
    let missing = width.saturating_sub(text.chars().count());
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // CPython's rounding.
        _ => missing / 2 + (missing & width & 1),
    };
    let pad = |n: usize| fill.unwrap_or(' ').to_string().repeat(n);
    Ok(format!("{}{text}{}", pad(left), pad(missing - left)).into())
}

fn zero_fill(text: &str, width: usize) -> String {
    let (sign, digits) = if text.starts_with(['+', '-']) { text.split_at(1) } else { ("", text) };
    format!("{sign}{}{digits}", "0".repeat(width.saturating_sub(text.chars().count())))
}

fn swap_case(text: &str) -> String {
    let swap = |c: char| -> String {
        if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
    };
    text.chars().map(swap).collect()
}
