//! Text from files, servers and the command line on its way to a terminal: it may not drive the terminal, and it may
//! not drown the line that it stands in.

use std::fmt::Write;

/// The most characters of a line on standard error.
const MAX_LINE: usize = 2000;

/// Of a line that is cut, how many are kept at its end, where the next step stands.
const KEPT_AT_END: usize = 600;

/// `text` with everything escaped that a terminal acts on or that changes the order of what is read; line ends and
/// tabs stay.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if drives(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// JSON text in which such characters stand as JSON escapes them.
pub fn visible_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        // What is below 32 is escaped already: these all have four digits.
        if drives(c) {
            write!(shown, "\\u{:04x}", u32::from(c)).expect("text grows");
        } else {
            shown.push(c);
        }
    }
    shown
}

/// One line of bounded length: line ends become spaces, the middle of a long text is left out, what drives a terminal
/// is escaped.
pub fn line(text: &str) -> String {
    let n = text.chars().count();
    if n <= MAX_LINE {
        return one_line(text);
    }
    let kept_at_start = MAX_LINE - KEPT_AT_END;
    let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    let (start, end) = (&text[..at(kept_at_start)], &text[at(n - KEPT_AT_END)..]);
    format!("{} [.. {} characters left out ..] {}", one_line(start), n - MAX_LINE, one_line(end))
}

fn one_line(text: &str) -> String {
    let parts: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    visible(&parts.join(" ")).replace('\t', " ")
}

/// Control characters (C0, DEL, C1), and those that turn the direction of text or hide it.
fn drives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb\n\tc\u{9b}d\u{7f}"), "a\\u{1b}[2Jb\n\tc\\u{9b}d\\u{7f}");
        assert_eq!(visible("x\u{202e}y\r"), "x\\u{202e}y\\r");
        assert_eq!(visible("größer ≤ 数"), "größer ≤ 数");
        let json = serde_json::json!({"k": "a\u{1b}\u{9b}\u{202e}\n"});
        let shown = visible_json(&json.to_string());
        assert_eq!(shown, r#"{"k":"a\u001b\u009b\u202e\n"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), json);
    }

    #[test]
    fn a_line_is_one_and_bounded() {
        assert_eq!(line("first\n\n  second\n"), "first second");
        let long = line(&format!("model.safetensors: {}; choose another", "ü".repeat(3_000_000)));
        assert!(long.chars().count() < MAX_LINE + 60, "{}", long.len());
        assert!(long.starts_with("model.safetensors: ü") && long.ends_with("; choose another"), "{long}");
        assert!(long.contains("[.. 2998035 characters left out ..]"), "{long}");
    }
}
