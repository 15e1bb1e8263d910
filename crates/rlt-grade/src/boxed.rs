//! The boxes of a completion: `\boxed{}` and `\fbox{}`.

use std::borrow::Cow;

/// Most boxes that are looked at, from the last one back.
const MAX_BOXES: usize = 16;
/// Longest text between two boxes that may join them, bytes.
const MAX_JOINT: usize = 80;

/// What the last box of a text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Boxed<'a> {
    /// There is no box.
    Absent,
    /// The last box never closes: the text was cut, and what stands in it is the beginning of an answer only.
    Cut,
    /// Its content; where it is joined to boxes before it by `or`, `and` or a comma, theirs too, with commas
    /// between.
    Answer(Cow<'a, str>),
}

/// The answer in the last box, together with the boxes it is joined to. `None` without a box, and where the last one
/// never closes.
pub fn last_boxed(text: &str) -> Option<Cow<'_, str>> {
    match boxed(text) {
        Boxed::Answer(answer) => Some(answer),
        Boxed::Absent | Boxed::Cut => None,
    }
}

/// A box: where its command begins, what it holds, and where it ends.
#[derive(Clone, Copy)]
struct Place<'a> {
    start: usize,
    content: &'a str,
    end: usize,
}

pub(super) fn boxed(text: &str) -> Boxed<'_> {
    let mut before = text;
    for _ in 0..MAX_BOXES {
        let Some(start) = last_command(before) else { return Boxed::Absent };
        match place(text, start) {
            Some(place) if !place.content.is_empty() => return Boxed::Answer(with_joined(text, place)),
            // The text goes on after its formula, so only the brace is missing.
            None => match formula_of(&text[start..]) {
                Some(content) => return Boxed::Answer(Cow::Borrowed(content)),
                None if opens(&text[start..]) => return Boxed::Cut,
                None => {}
            },
            // An empty box is one that the text talks about.
            Some(_) => {}
        }
        before = &text[..start];
    }
    Boxed::Absent
}

fn last_command(text: &str) -> Option<usize> {
    text.rfind("\\boxed").max(text.rfind("\\fbox"))
}

/// What stands behind the command.
fn behind_command(text: &str) -> &str {
    let rest = text.strip_prefix("\\boxed").or_else(|| text.strip_prefix("\\fbox")).unwrap_or(text);
    rest.trim_start()
}

fn opens(text: &str) -> bool {
    behind_command(text).starts_with('{')
}

/// The box that begins at `start`; `None` when it does not close.
fn place(text: &str, start: usize) -> Option<Place<'_>> {
    let content = behind_command(&text[start..]);
    let at = text.len() - content.len();
    if let Some(inside) = content.strip_prefix('{') {
        let end = closing_brace(inside)?;
        return Some(Place { start, content: inside[..end].trim(), end: at + 1 + end + 1 });
    }
    // `\boxed 5`
    let end = content.find(|c: char| c.is_whitespace() || c == '$').unwrap_or(content.len());
    let content = content[..end].trim_end_matches(['.', ',']);
    (end < 40).then_some(Place { start, content, end: at + end })
}

/// Where the brace closes that was opened before `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => {
                escaped = false;
                continue;
            }
            b'\\' => {
                escaped = true;
                continue;
            }
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The content of a box whose formula ends before the box does, as in `$\boxed{\frac{1}{2}$`, where all other braces
/// close.
fn formula_of(text: &str) -> Option<&str> {
    const MAX_BYTES: usize = 200;
    let inside = behind_command(text).strip_prefix('{')?;
    let end = ["$", "\\)", "\\]"].iter().filter_map(|mark| inside.find(mark)).min()?;
    let content = inside[..end].trim();
    let balanced = closing_brace(&format!("{content}}}")) == Some(content.len());
    (!content.is_empty() && content.len() <= MAX_BYTES && balanced).then_some(content)
}

/// The content of a box and of those before it that are joined to it.
fn with_joined<'a>(text: &'a str, last: Place<'a>) -> Cow<'a, str> {
    let mut contents = vec![last.content];
    let mut start = last.start;
    while contents.len() < MAX_BOXES
        && let Some(earlier) = last_command(&text[..start])
        && let Some(place) = place(text, earlier)
        && !place.content.is_empty()
        && place.end <= start
        && joins(&text[place.end..start])
    {
        contents.push(place.content);
        start = earlier;
    }
    if contents.len() == 1 {
        return Cow::Borrowed(last.content);
    }
    contents.reverse();
    Cow::Owned(contents.join(", "))
}

/// Whether nothing but `or`, `and` or a comma stands between two boxes, and perhaps what the second one is: `$ or $x =`.
fn joins(between: &str) -> bool {
    if between.len() > MAX_JOINT {
        return false;
    }
    let mut plain = between.to_owned();
    for layout in ["\\text", "\\mbox", "\\quad", "\\qquad", "\\(", "\\)", "\\[", "\\]", "\\,", "\\;", "\\ "] {
        plain = plain.replace(layout, " ");
    }
    let plain = plain.replace(['$', '{', '}', '*'], " ").replace(',', " , ");
    let mut words = plain.split_whitespace().peekable();
    let comma = words.next_if(|word| *word == ",").is_some();
    let word = words.next_if(|word| matches!(*word, "or" | "and")).is_some();
    let label: String = words.collect();
    let named = label.strip_suffix('=').is_some_and(|name| {
        (1..=12).contains(&name.len())
            && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '\\')
            && name.chars().any(char::is_alphabetic)
    });
    (comma || word) && (label.is_empty() || named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_boxes_are_one_list() {
        for (text, answer) in [
            ("$x=\\boxed{1331}$ or $x=\\boxed{1728}$", "1331, 1728"),
            ("\\boxed{3} and \\boxed{4}", "3, 4"),
            ("\\boxed{3} \\text{ or } \\boxed{4}", "3, 4"),
            ("\\(\\boxed{3}\\), \\(\\boxed{4}\\), and \\(\\boxed{5}\\)", "3, 4, 5"),
            ("$a_1=\\boxed{3}$ and $a_2=\\boxed{4}$.", "3, 4"),
            ("\\boxed{3}, so \\boxed{4}", "4"),
            ("\\boxed{3}. And \\boxed{4}", "4"),
            ("\\boxed{3} and then we see that \\boxed{4}", "4"),
            ("\\boxed{3} \\boxed{4}", "4"),
            ("\\boxed{3} = \\boxed{4}", "4"),
            ("\\boxed{\\boxed{3}}", "3"),
            ("$\\boxed{5}$ (put it in \\boxed{})", "5"),
        ] {
            assert_eq!(boxed(text), Boxed::Answer(answer.into()), "{text}");
        }
    }

    #[test]
    fn a_box_that_is_cut_is_no_answer_and_hides_those_before() {
        for text in
            ["so \\boxed{42", "\\boxed{7} and \\boxed{8", "\\boxed{7}, no, \\boxed{\\frac{1}{", "\\boxed{"]
        {
            assert_eq!(boxed(text), Boxed::Cut, "{text}");
        }
        for (text, answer) in
            [("so $\\boxed{\\frac{1}{2}$, as was asked.", "\\frac{1}{2}"), ("\\[\\boxed{42\\]\nDone.", "42")]
        {
            assert_eq!(boxed(text), Boxed::Answer(answer.into()), "{text}");
        }
        assert_eq!(boxed("$\\boxed{\\frac{1}{$"), Boxed::Cut);
        assert_eq!(boxed("no box"), Boxed::Absent);
    }
}
