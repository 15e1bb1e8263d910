//! A template's text, brought to what minijinja reads the way jinja2 reads the original, within bounds.

use super::bounds::{MAX_ELIFS, MAX_TAG_TOKENS, MAX_TEMPLATE_BYTES};

/// The filter that every value passes before `{% set %}` keeps it; no template can name it by accident.
pub(super) const KEPT: &str = "rlt_kept_value";

/// Line ends become `\n`, also inside string literals, as in jinja2's lexer (one at the end is dropped later, by
/// minijinja); `{% generation %} .. {% endgeneration %}`, transformers' mark for the assistant's text, becomes a
/// block that only opens a scope; what `{% set %}` keeps passes the filter [`KEPT`].
///
/// # Errors
/// Says which bound the template breaks.
pub(super) fn prepare(source: &str) -> Result<String, String> {
    if source.len() > MAX_TEMPLATE_BYTES {
        return Err(format!("has {} bytes; {MAX_TEMPLATE_BYTES} is the most for a template", source.len()));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut prepared = String::with_capacity(source.len());
    let (mut rest, mut elifs) = (source.as_str(), 0);
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        prepared.push_str(before);
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') => tag_length(tag, "}}").map_err(|what| at_line(&prepared, &what))?,
            Some(b'%') => match raw_length(tag) {
                Some(length) => length,
                None => tag_length(tag, "%}").map_err(|what| at_line(&prepared, &what))?,
            },
            _ => 1,
        };
        let (tag, after) = tag.split_at(length);
        match Block::parse(tag) {
            Some(block) => {
                elifs += usize::from(block.keyword() == "elif");
                prepared.push_str(&block.rewritten().unwrap_or_else(|| tag.to_owned()));
            }
            None => prepared.push_str(tag),
        }
        rest = after;
    }
    if elifs > MAX_ELIFS {
        return Err(format!("has {elifs} `elif`; {MAX_ELIFS} is the most"));
    }
    Ok(prepared + rest)
}

fn at_line(before: &str, what: &str) -> String {
    format!("line {}: {what}", before.matches('\n').count() + 1)
}

/// Bytes of a tag up to and including its `end`, which counts outside of strings and brackets; all of the text when
/// there is none.
fn tag_length(tag: &str, end: &str) -> Result<usize, String> {
    let bytes = tag.as_bytes();
    let (mut at, mut open, mut tokens) = (2, 0_usize, 0);
    while at < bytes.len() {
        if open == 0 && bytes[at..].starts_with(end.as_bytes()) {
            return Ok(at + end.len());
        }
        tokens += 1;
        if tokens > MAX_TAG_TOKENS {
            return Err(format!("a tag has more than {MAX_TAG_TOKENS} names, numbers, texts and signs"));
        }
        at = match bytes[at] {
            quote @ (b'"' | b'\'') => string_end(bytes, at, quote),
            c if is_word(c) => at + bytes[at..].iter().take_while(|c| is_word(**c)).count(),
            c if c.is_ascii_whitespace() => {
                tokens -= 1;
                at + 1
            }
            c => {
                open = match c {
                    b'(' | b'[' | b'{' => open + 1,
                    b')' | b']' | b'}' => open.saturating_sub(1),
                    _ => open,
                };
                at + 1
            }
        };
    }
    Ok(tag.len())
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c >= 0x80
}

/// The byte after a string literal that begins at `at`.
fn string_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != quote {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(bytes.len())
}

/// Bytes of `{% raw %} .. {% endraw %}` at the start of `text`.
fn raw_length(text: &str) -> Option<usize> {
    let first = text.find("%}")? + 2;
    if Block::parse(&text[..first])?.inner != "raw" {
        return None;
    }
    let mut at = first;
    while let Some(found) = text[at..].find("{%") {
        at += found;
        let end = at + text[at..].find("%}")? + 2;
        if Block::parse(&text[at..end]).is_some_and(|block| block.inner == "endraw") {
            return Some(end);
        }
        at += 2;
    }
    Some(text.len())
}

/// `{%- inner -%}`, taken apart.
struct Block<'a> {
    opening: &'a str,
    inner: &'a str,
    closing: &'a str,
}

impl<'a> Block<'a> {
    fn parse(tag: &'a str) -> Option<Self> {
        let text = tag.strip_prefix("{%")?.strip_suffix("%}")?;
        let opening = &text[..usize::from(text.starts_with(['-', '+']))];
        let text = &text[opening.len()..];
        let closing = &text[text.len() - usize::from(text.ends_with(['-', '+']))..];
        let inner = text[..text.len() - closing.len()].trim_matches(|c: char| c.is_ascii_whitespace());
        Some(Self { opening, inner, closing })
    }

    fn keyword(&self) -> &'a str {
        let end = self.inner.bytes().position(|c| !is_word(c)).unwrap_or(self.inner.len());
        &self.inner[..end]
    }

    /// What stands in its place, if not itself. Line breaks are kept, so that errors name the right line.
    fn rewritten(&self) -> Option<String> {
        let Self { opening, inner, closing } = self;
        let inner = match (*inner, self.keyword()) {
            ("generation", _) => "with".to_owned(),
            ("endgeneration", _) => "endwith".to_owned(),
            (_, "set") => checked_set(inner)?,
            _ => return None,
        };
        Some(format!("{{%{opening} {inner} {closing}%}}"))
    }
}

/// `set TARGET = VALUE` and `set TARGET | FILTER` with the value passed through [`KEPT`], which is told the
/// namespaces that are assigned to; `None` for a block that is only text.
fn checked_set(inner: &str) -> Option<String> {
    let target = &inner[3..];
    let end = target.find(['=', '|'])?;
    let (target, rest) = target.split_at(end);
    let names = target.split(|c: char| !(c == '.' || c == '_' || c.is_alphanumeric()));
    let holders: Vec<&str> =
        names.filter_map(|name| name.rsplit_once('.')).map(|(holder, _)| holder).collect();
    let filter = format!("| {KEPT}({})", holders.join(", "));
    Some(match rest.strip_prefix('=') {
        Some(value) => format!("set{target}= ({value}) {filter}"),
        None => format!("set{target}{rest} {filter}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_keep_their_whitespace_control() {
        assert_eq!(
            prepare("a {%- generation -%} b {%endgeneration+%} c {% generations %}").unwrap(),
            "a {%- with -%} b {% endwith +%} c {% generations %}"
        );
    }

    #[test]
    fn line_ends_are_unified() {
        assert_eq!(prepare("a\r\nb\rc\n\n").unwrap(), "a\nb\nc\n\n");
    }

    #[test]
    fn what_is_set_is_checked_and_nothing_else_is_touched() {
        for (source, prepared) in [
            ("{%- set x = 1 -%}", "{%- set x = ( 1) | rlt_kept_value() -%}"),
            ("{% set ns.a, b.c.d=e == f%}", "{% set ns.a, b.c.d= (e == f) | rlt_kept_value(ns, b.c) %}"),
            ("{% set x='%}' %}y", "{% set x= ('%}') | rlt_kept_value() %}y"),
            ("{% set ns.x | trim %}", "{% set ns.x | trim | rlt_kept_value(ns) %}"),
        ] {
            assert_eq!(prepare(source).unwrap(), prepared, "{source}");
        }
        for same in [
            "{% set block %}",
            "{# {% set x = 1 %} #}",
            "{% raw %}{% set x = 1 %}{% endraw %}",
            "{{ '{% set x = 1 %}' }}",
            "{{ {'a': {}} }} { {",
            "{% settings %}{{ '\\'}}' }}",
            "{% unfinished",
        ] {
            assert_eq!(prepare(same).unwrap(), same);
        }
    }

    #[test]
    fn long_tags_and_texts_are_refused_by_line() {
        let tag = format!("a\n{{{{ {}1 }}}}", "1+".repeat(MAX_TAG_TOKENS));
        assert!(prepare(&tag).unwrap_err().starts_with("line 2: a tag has more than 4000"));
        assert!(prepare(&"x".repeat(MAX_TEMPLATE_BYTES + 1)).unwrap_err().contains("262145 bytes"));
        let chain = format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(MAX_ELIFS + 1));
        assert!(prepare(&chain).unwrap_err().contains("4001 `elif`"));
        assert!(prepare(&format!("{{{{ '{}' }}}}", "+".repeat(100_000))).is_ok(), "a text is one token");
    }
}
