//! Where an answer ends and prose begins, and numbers in prose.

use super::typography::{is_minus, superscript};

/// Longest answer behind a phrase, bytes.
const MAX_ANSWER: usize = 1000;
/// How far back from its last digit a number may begin, bytes.
const MAX_NUMBER: usize = 300;

/// Words that begin a reason or an explanation.
const REASONS: [&str; 18] = [
    "which",
    "since",
    "because",
    "as",
    "so",
    "where",
    "hence",
    "therefore",
    "thus",
    "given",
    "due",
    "namely",
    "meaning",
    "using",
    "according",
    "respectively",
    "i",
    "e",
];
/// Words that place a quantity ("17 of the apples"), but not where digits follow ("3 of 5").
const PLACES: [&str; 12] =
    ["of", "on", "at", "from", "between", "among", "in", "into", "left", "altogether", "remaining", "total"];
/// Words behind a comma or a bracket that belong to the answer: it is a list, holds under a condition, or is not sure.
const CONTINUES: [&str; 34] = [
    "if",
    "when",
    "for",
    "unless",
    "except",
    "or",
    "and",
    "but",
    "while",
    "whereas",
    "plus",
    "minus",
    "times",
    "more",
    "less",
    "otherwise",
    "to",
    "with",
    "by",
    "else",
    "another",
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "maybe",
    "possibly",
];

/// Where the answer ends that `line` begins with: at the end of its sentence, at a tag, or where prose begins.
pub(super) fn answer_end(line: &str) -> usize {
    let line = &line[..char_boundary(line, MAX_ANSWER)];
    let marks = [". ", "! ", "? ", "; ", "</", "<|"];
    let sentence = marks.iter().filter_map(|mark| line.find(mark)).min().unwrap_or(line.len());
    let sentence = &line[..sentence];
    let end = prose_start(sentence).unwrap_or(sentence.len());
    let answer = sentence[..end].trim_end();
    let marks = ['.', '!', '*', ',', ':', '(', '"', ' ', '-', '\u{2013}', '\u{2014}'];
    let length = answer.trim_end_matches(marks).len();
    // `17!.` has a full stop of its own, so its other mark is a factorial.
    if line[length..].starts_with("!.") { length + 1 } else { length }
}

/// The last place not behind `at` where a character begins.
fn char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// A word of a line.
struct Word<'a> {
    at: usize,
    text: &'a str,
}

/// The words of a line that stand outside LaTeX commands and their braces.
fn words(line: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in line.char_indices().chain([(line.len(), ' ')]) {
        match (c.is_alphabetic(), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                let before = line[..from].chars().next_back();
                if before.is_none_or(|c| c.is_whitespace() || "(,\"*\u{2014}".contains(c)) {
                    words.push(Word { at: from, text: &line[from..at] });
                }
                start = None;
            }
            _ => {}
        }
    }
    words
}

fn prose_start(line: &str) -> Option<usize> {
    let words = words(line);
    for (i, word) in words.iter().enumerate() {
        let head = line[..word.at].trim_end();
        if head.is_empty() {
            continue;
        }
        let lower = word.text.to_lowercase();
        let next = words.get(i + 1);
        // The word that stands right behind this one.
        let pair = next.filter(|next| line[word.at + word.text.len()..next.at].trim().is_empty());
        let computed = head.chars().any(|c| c.is_ascii_digit() || c == '\\');
        let set_off = head.ends_with([',', '(', '\u{2014}']);
        let reason = match lower.as_str() {
            // "i.e." and "e.g."
            "i" | "e" => {
                set_off && [".e", ".g"].iter().any(|rest| line[word.at + word.text.len()..].starts_with(rest))
            }
            other => REASONS.contains(&other),
        };
        // "17 of the apples": with a word that is no amount behind it.
        let place = computed
            && PLACES.contains(&lower.as_str())
            && pair.map_or(matches!(lower.as_str(), "left" | "altogether" | "remaining"), |next| {
                !CONTINUES.contains(&next.text.to_lowercase().as_str())
                    && !matches!(next.text, "most" | "least")
                    && next.text.len() > 1
            });
        // ", the largest prime", "(a prime number)": two or more plain words behind a mark.
        let plain = |word: &Word| word.text.chars().all(char::is_lowercase);
        let aside = set_off
            && computed
            && plain(word)
            && !CONTINUES.contains(&lower.as_str())
            && pair.is_some_and(|next| plain(next) && next.text.len() > 1);
        if reason || place || aside {
            return Some(word.at);
        }
        // Under a condition, or one of several: not an answer that may be cut down.
        if set_off && CONTINUES.contains(&lower.as_str()) {
            return None;
        }
    }
    None
}

/// The last number in prose: digits with what belongs to them. `None` where the last digits are part of something else:
/// a range, a variable's power.
pub(super) fn last_number(text: &str) -> Option<&str> {
    let last = text.bytes().rposition(|b| b.is_ascii_digit())?;
    let from = char_boundary(text, last.saturating_sub(MAX_NUMBER));
    // Not from the middle of a number.
    let from = if from == 0 { 0 } else { from + text[from..=last].find(char::is_whitespace)? };
    let mut found = None;
    let mut at = from;
    while at <= last {
        let rest = &text[at..];
        if rest.starts_with(|c: char| c.is_ascii_digit())
            || (rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            let end = at + number_length(rest);
            found = whole_number(text, at, end);
            at = end;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    found
}

/// The number at `start..end` with its sign and its per cent; `None` when it is a part of something else.
fn whole_number(text: &str, start: usize, end: usize) -> Option<&str> {
    let mut before = text[..start].chars().rev();
    let mut from = start;
    match before.next() {
        Some('^' | '_') => return None,
        Some('{') if matches!(before.next(), Some('^' | '_')) => return None,
        Some(sign) if is_minus(sign) => match text[..start - sign.len_utf8()].chars().next_back() {
            // `3-5` is a range or a difference, `x-5` a formula.
            Some(c) if c.is_ascii_digit() => return None,
            Some(c) if c.is_alphanumeric() => {}
            _ => from -= sign.len_utf8(),
        },
        _ => {}
    }
    let rest = &text[end..];
    let mut after = rest.chars();
    let sign = after.next();
    if sign.is_some_and(is_minus) && after.next().is_some_and(|c| c.is_ascii_digit()) {
        return None;
    }
    let percent = ["\\%", "%"].iter().find(|mark| rest.starts_with(**mark)).map_or(0, |mark| mark.len());
    Some(&text[from..end + percent])
}

/// Bytes of the number that `text` begins with: digits with points, commas, slashes and colons between them, then a
/// power of ten or an exponent.
fn number_length(text: &str) -> usize {
    let mut end = digits_length(text);
    end += exponent_length(&text[end..]);
    end + power_of_ten_length(&text[end..])
}

fn digits_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut end = 0;
    while digit(end) || (matches!(bytes.get(end), Some(b'.' | b',' | b'/' | b':')) && digit(end + 1)) {
        end += 1;
    }
    end
}

/// `e14`, `E-5`, `²`, `^{-3}`.
fn exponent_length(text: &str) -> usize {
    let raised: usize = text.chars().take_while(|&c| superscript(c).is_some()).map(char::len_utf8).sum();
    if raised > 0 {
        return raised;
    }
    let Some(mark @ ('e' | 'E' | '^')) = text.chars().next() else { return 0 };
    let mut end = 1;
    let braced = mark == '^' && text[end..].starts_with('{');
    end += usize::from(braced);
    end += text[end..].chars().next().filter(|&c| c == '+' || is_minus(c)).map_or(0, char::len_utf8);
    let digits = text[end..].bytes().take_while(u8::is_ascii_digit).count();
    end += digits;
    match (digits, braced) {
        (0, _) => 0,
        (_, true) if text[end..].starts_with('}') => end + 1,
        (_, true) => 0,
        _ => end,
    }
}

/// ` × 10^7` behind a number.
fn power_of_ten_length(text: &str) -> usize {
    let rest = text.trim_start();
    let sign = ["×", "\\times", "\\cdot", "·", "⋅", "*", "x"].iter().find(|sign| rest.starts_with(**sign));
    let Some(sign) = sign else { return 0 };
    let rest = rest[sign.len()..].trim_start();
    let Some(power) = rest.strip_prefix("10") else { return 0 };
    match exponent_length(power) {
        0 => 0,
        length => text.len() - power.len() + length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str) -> &str {
        &line[..answer_end(line)]
    }

    #[test]
    fn answers_end_where_prose_begins() {
        for (line, end) in [
            ("17, which is prime.", "17"),
            ("17 (since 3*5+2 = 17).", "17"),
            ("17 because 10+7=17.", "17"),
            ("17!", "17"),
            ("17 — because it is", "17"),
            ("17, the largest prime below 19.", "17"),
            ("17 (a prime number)", "17"),
            ("17 apples in the basket.", "17 apples"),
            ("17 of them", "17"),
            ("\\frac{1}{2}, as required.", "\\frac{1}{2}"),
            ("Evelyn, because she was first.", "Evelyn"),
            ("17</answer> and so on", "17"),
            ("17<|im_end|>", "17"),
            ("17.**", "17"),
            ("17!.", "17!"),
            ("(1, 2), i.e. the point", "(1, 2)"),
            ("x = 5 or x = 7.", "x = 5 or x = 7"),
            ("12.5 square units.", "12.5 square units"),
            ("Alice, Bob, and Carol.", "Alice, Bob, and Carol"),
            ("3.", "3"),
        ] {
            assert_eq!(answer(line), end, "{line}");
        }
    }

    #[test]
    fn conditions_and_alternatives_stay() {
        for line in [
            "5 if n is even, and 6 otherwise",
            "1 for odd n, 2 for even n",
            "5, or six in the other case",
            "3 of 5",
            "1 in 5",
            "5 with remainder 2",
            "5 apples, three red pears",
            "5, unless x is negative",
        ] {
            assert_eq!(answer(line), line, "{line}");
        }
    }

    #[test]
    fn numbers_are_taken_whole() {
        for (text, number) in [
            ("The value is −5.", Some("−5")),
            ("It is - 5", Some("5")),
            ("The mass is 1.5e7.", Some("1.5e7")),
            ("The mass is 1.5E-7 kg", Some("1.5E-7")),
            ("The mass is 1.5 × 10^7 kg.", Some("1.5 × 10^7")),
            ("about 1.5 \\times 10^{-7}", Some("1.5 \\times 10^{-7}")),
            ("about 2 x 10⁷", Some("2 x 10⁷")),
            ("The meeting is at 10:30.", Some("10:30")),
            ("It grows by 12\\% a year", Some("12\\%")),
            ("It is 2^10.", Some("2^10")),
            ("It is 5²", Some("5²")),
            ("about 1,200 of 3/4.", Some("3/4")),
            ("between 3-5", None),
            ("on 2024-05-01", None),
            ("it is x^2", None),
            ("it is a_{12}", None),
            ("so n=12", Some("12")),
            ("a 5-year-old", Some("5")),
            ("none", None),
        ] {
            assert_eq!(last_number(text), number, "{text}");
        }
    }
}
