//! Where a completion says its answer.

/// Most `\boxed` that are looked at, from the last one back.
const MAX_BOXES: usize = 16;

/// What happens to a thought section before the answer is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ThoughtRule {
    /// The answer may stand anywhere in the generation.
    #[default]
    Keep,
    /// Only what follows the thought counts; a thought that never ends leaves nothing.
    Remove,
}

/// How an answer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// In the last closed `\boxed{}`.
    Boxed,
    /// Behind "the answer is" or `####`.
    Phrase,
    /// The text is nothing but an answer.
    Whole,
    /// The last formula between dollar signs.
    Formula,
    /// The last number.
    Number,
}

/// Tags that open and close a thought in the styles we know.
const THOUGHTS: [(&str, &str); 2] = [("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>")];

/// The part of a completion in which the answer is looked for.
pub fn answer_part(completion: &str, rule: ThoughtRule) -> &str {
    if rule == ThoughtRule::Keep {
        return completion;
    }
    let end =
        THOUGHTS.iter().filter_map(|(_, close)| completion.rfind(close).map(|at| at + close.len())).max();
    match end {
        Some(end) => &completion[end..],
        None if THOUGHTS.iter().any(|(open, _)| completion.contains(open)) => "",
        None => completion,
    }
}

/// The answer in a text, by the first rule that finds one: the last closed `\boxed{}`; what follows the last
/// "the answer is"; the whole text, if it is a formula; the last formula; the last number; the whole text, if it is
/// a few words.
pub fn extract(text: &str) -> Option<(&str, Found)> {
    if let Some(answer) = last_boxed(text) {
        return Some((answer, Found::Boxed));
    }
    if let Some(answer) = after_phrase(text) {
        return Some((answer, Found::Phrase));
    }
    if is_bare_formula(text) {
        return Some((text.trim(), Found::Whole));
    }
    if let Some(answer) = last_formula(text) {
        return Some((answer, Found::Formula));
    }
    if let Some(answer) = last_number(text) {
        return Some((answer, Found::Number));
    }
    let words = text.trim();
    (!words.is_empty() && words.len() <= 60 && !words.contains('\n')).then_some((words, Found::Whole))
}

/// Whether a text is an answer without words around it: `\frac{1}{2}`, `(1, 2]`, `x = 5 or x = 7`, `$3 + 4i$`.
fn is_bare_formula(text: &str) -> bool {
    const NAMES: [&str; 16] = [
        "or", "and", "in", "pi", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "inf",
        "infinity",
    ];
    let text = text.trim();
    let inside = text.trim_matches('$');
    if inside.is_empty() || text.len() > 400 || text.contains('\n') || inside.contains('$') {
        return false;
    }
    // Words that are no command, and not in the braces behind one.
    let mut braced_command = false;
    let mut rest = inside;
    while let Some(at) = rest.find(|c: char| c.is_alphabetic()) {
        let (before, word) = rest.split_at(at);
        let end = word.find(|c: char| !c.is_alphabetic()).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        let command = before.ends_with('\\');
        let argument = braced_command && before.trim() == "{";
        if argument || (command && after.starts_with('{')) {
            braced_command = command;
        } else {
            braced_command = false;
            if !command && word.chars().count() > 1 && !NAMES.contains(&word) {
                return false;
            }
        }
        rest = after;
    }
    inside.chars().any(|c| c.is_ascii_digit()) || inside.contains('\\') || inside.chars().count() == 1
}

/// The content of the last `\boxed{}` (or `\fbox{}`) whose braces close.
pub fn last_boxed(text: &str) -> Option<&str> {
    let mut before = text;
    for _ in 0..MAX_BOXES {
        let at = before.rfind("\\boxed").max(before.rfind("\\fbox"))?;
        let content = text[at..].trim_start_matches("\\boxed").trim_start_matches("\\fbox").trim_start();
        if let Some(inside) = content.strip_prefix('{') {
            if let Some(end) = closing_brace(inside) {
                return Some(inside[..end].trim());
            }
        } else {
            // `\boxed 5`
            let end = content.find(|c: char| c.is_whitespace() || c == '$').unwrap_or(content.len());
            if end > 0 && end < 40 {
                return Some(content[..end].trim_end_matches(['.', ',']));
            }
        }
        before = &text[..at];
    }
    None
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

const PHRASES: [&str; 6] = ["answer is", "answer:", "answer :", "answer**:", "answer:**", "####"];

fn after_phrase(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let at = PHRASES.iter().filter_map(|phrase| lower.rfind(phrase).map(|at| at + phrase.len())).max()?;
    let rest = text[at..].trim_start_matches([' ', ':', '*', '\t', '\n']);
    let line = rest.lines().next().unwrap_or_default();
    let answer = match formula_at_start(line) {
        Some(formula) => formula,
        None => &line[..sentence_end(line)],
    };
    let answer = answer.trim().trim_end_matches('*');
    (!answer.is_empty()).then_some(answer)
}

/// The formula that a text begins with, between dollar signs or `\( \)`.
fn formula_at_start(text: &str) -> Option<&str> {
    // "$26 per day" is money: a formula closes again.
    if let Some(inside) = text.strip_prefix("$$") {
        return inside.split_once("$$").map(|(formula, _)| formula);
    }
    if let Some(inside) = text.strip_prefix('$') {
        return inside.split_once('$').map(|(formula, _)| formula);
    }
    let (open, close) = if text.starts_with("\\(") { ("\\(", "\\)") } else { ("\\[", "\\]") };
    text.strip_prefix(open)?.split_once(close).map(|(formula, _)| formula)
}

fn sentence_end(line: &str) -> usize {
    let ends = [". ", "! ", "; "].iter().filter_map(|mark| line.find(mark)).min();
    ends.unwrap_or_else(|| line.trim_end().trim_end_matches('.').len())
}

fn last_formula(text: &str) -> Option<&str> {
    let mut best: Option<(usize, &str)> = None;
    for (open, close) in [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")] {
        let Some(end) = text.rfind(close) else { continue };
        let Some(start) = text[..end].rfind(open) else { continue };
        let inside = text[start + open.len()..end].trim();
        // Text between two formulas is none.
        let prose = inside.contains("\n\n") || inside.split_whitespace().count() > 40;
        let better =
            best.is_none_or(|(known, formula)| end > known || (end == known && inside.len() > formula.len()));
        if !inside.is_empty() && !prose && better {
            best = Some((end, inside));
        }
    }
    best.map(|(_, formula)| formula)
}

fn last_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let last = bytes.iter().rposition(u8::is_ascii_digit)?;
    let mut start = last;
    while start > 0 {
        let joins =
            matches!(bytes[start - 1], b'.' | b',' | b'/') && start > 1 && bytes[start - 2].is_ascii_digit();
        if !bytes[start - 1].is_ascii_digit() && !joins {
            break;
        }
        start -= 1;
    }
    if start > 0 && bytes[start - 1] == b'.' {
        start -= 1;
    }
    if start > 0 && bytes[start - 1] == b'-' && (start < 2 || !bytes[start - 2].is_ascii_alphanumeric()) {
        start -= 1;
    }
    let end = last + 1 + usize::from(bytes.get(last + 1) == Some(&b'%'));
    Some(&text[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_comes_first_and_the_last_closed_one_counts() {
        let cases = [
            ("so \\boxed{\\frac{1}{2}}, not $3$.", "\\frac{1}{2}"),
            ("\\boxed{1} then \\boxed{\\{2\\}}", "\\{2\\}"),
            ("\\boxed{7} and \\boxed{8", "7"),
            ("\\boxed 9$", "9"),
            ("\\fbox{4}", "4"),
        ];
        for (text, answer) in cases {
            assert_eq!(extract(text), Some((answer, Found::Boxed)), "{text}");
        }
    }

    #[test]
    fn then_the_phrase_the_formula_the_number() {
        let cases = [
            ("The answer is $26. I hope it is correct.", "$26", Found::Phrase),
            ("The answer is $[2,5)$. I hope it is correct.", "[2,5)", Found::Phrase),
            ("Answer: 12.5", "12.5", Found::Phrase),
            ("... = 9\n#### 18", "18", Found::Phrase),
            ("so $x=1$ and then $1/2$.", "1/2", Found::Formula),
            ("the result is $$(a + b)^2$$", "(a + b)^2", Found::Formula),
            ("It has 3 cats and -2.5 dogs", "-2.5", Found::Number),
            ("about 1,200 of 3/4.", "3/4", Found::Number),
            ("\\frac{1}{2}", "\\frac{1}{2}", Found::Whole),
            (" x = 5 or x = 7", "x = 5 or x = 7", Found::Whole),
            (
                "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
                "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
                Found::Whole,
            ),
            ("\\text{Evelyn}", "\\text{Evelyn}", Found::Whole),
            ("Evelyn", "Evelyn", Found::Whole),
            ("5 apples", "5", Found::Number),
        ];
        for (text, answer, found) in cases {
            assert_eq!(extract(text), Some((answer, found)), "{text}");
        }
        assert_eq!(extract(""), None);
        assert_eq!(extract("I do not know what the answer to this question could possibly be."), None);
    }

    #[test]
    fn thoughts_are_kept_or_removed() {
        let text = "<think>\\boxed{1}</think>\\boxed{2}";
        assert_eq!(answer_part(text, ThoughtRule::Remove), "\\boxed{2}");
        assert_eq!(answer_part(text, ThoughtRule::Keep), text);
        assert_eq!(answer_part("<think>\\boxed{1}", ThoughtRule::Remove), "");
        assert_eq!(answer_part("\\boxed{1}", ThoughtRule::Remove), "\\boxed{1}");
    }
}
