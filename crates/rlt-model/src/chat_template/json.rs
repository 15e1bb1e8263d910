//! `json.dumps` as Python writes it.

use std::fmt::Write as _;

use serde_json::Value;

use super::python;

/// The arguments of `json.dumps` that templates use.
#[derive(Debug, Clone)]
pub(super) struct Style {
    pub ensure_ascii: bool,
    /// One level of indentation; `None` writes a single line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

impl Style {
    /// Python's separators: a space after the comma unless lines are broken there.
    pub(super) fn new(indent: Option<String>) -> Self {
        Self {
            ensure_ascii: false,
            item_separator: if indent.is_some() { "," } else { ", " }.to_owned(),
            indent,
            key_separator: ": ".to_owned(),
            sort_keys: false,
        }
    }

    /// `None` where it has more than about `most` bytes.
    pub(super) fn dumps(&self, value: &Value, most: usize) -> Option<String> {
        let mut out = String::new();
        self.write(&mut out, value, 0, most);
        (out.len() <= most).then_some(out)
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize, most: usize) {
        if out.len() > most {
            return;
        }
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(x) => out.push_str(&python::float(x)),
                None => out.push_str(&number.to_string()),
            },
            Value::String(text) => self.write_string(out, text),
            Value::Array(items) => self.write_list(out, ['[', ']'], items, depth, |style, out, item| {
                style.write(out, item, depth + 1, most);
            }),
            Value::Object(map) => {
                let mut entries: Vec<(&String, &Value)> = map.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|(key, _)| *key);
                }
                self.write_list(out, ['{', '}'], &entries, depth, |style, out, (key, value)| {
                    style.write_string(out, key);
                    out.push_str(&style.key_separator);
                    style.write(out, value, depth + 1, most);
                });
            }
        }
    }

    fn write_list<T>(
        &self,
        out: &mut String,
        brackets: [char; 2],
        items: &[T],
        depth: usize,
        write_item: impl Fn(&Self, &mut String, &T),
    ) {
        out.push(brackets[0]);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.item_separator);
            }
            self.break_line(out, depth + 1);
            write_item(self, out, item);
        }
        if !items.is_empty() {
            self.break_line(out, depth);
        }
        out.push(brackets[1]);
    }

    fn break_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    fn write_string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a String cannot fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
