//! Where a completion says its answer.

use std::borrow::Cow;

use super::boxed::{Boxed, boxed};
use super::prose::{answer_end, last_number};

/// Most formulas behind one phrase.
const MAX_FORMULAS: usize = 64;

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
    /// In the last `\boxed{}`, or in several that are joined.
    Boxed,
    /// Behind "the answer is" or `####`, or between `<answer>` tags.
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

/// The tag that opens a thought at the end of a prompt, where there is one: what is written after such a prompt is a
/// thought until it is closed.
pub fn opened_thought(prompt: &str) -> Option<&'static str> {
    THOUGHTS.iter().map(|(open, _)| *open).find(|open| prompt.trim_end().ends_with(open))
}

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

/// An answer as it stands in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its words, without those around it.
    pub text: Cow<'a, str>,
    /// The rule that found it.
    pub found: Found,
    /// The same with an exclamation mark behind it, where there is one: a factorial, or an exclamation.
    pub factorial: Option<&'a str>,
}

impl<'a> Answer<'a> {
    fn new(text: impl Into<Cow<'a, str>>, found: Found) -> Self {
        Self { text: text.into(), found, factorial: None }
    }
}

/// The answer in a text, by the first rule that finds one: the last `\boxed{}`; what follows the last
/// "the answer is"; the whole text, if it is a formula; the last formula; the last number; the whole text, if it is
/// a few words. A last box that never closes leaves no answer: the text was cut before it was given.
pub fn extract(text: &str) -> Option<Answer<'_>> {
    match boxed(text) {
        Boxed::Answer(answer) => return Some(Answer::new(answer, Found::Boxed)),
        Boxed::Cut => return None,
        Boxed::Absent => {}
    }
    if let Some(answer) = tagged(text) {
        return Some(Answer::new(answer, Found::Phrase));
    }
    if let Some(answer) = after_phrase(text) {
        return Some(answer);
    }
    if is_bare_formula(text) {
        return Some(Answer::new(text.trim(), Found::Whole));
    }
    if let Some(answer) = last_formula(text) {
        return Some(Answer::new(answer, Found::Formula));
    }
    if let Some(answer) = last_number(text) {
        return Some(Answer::new(answer, Found::Number));
    }
    let words = text.trim();
    (!words.is_empty() && words.len() <= 60 && !words.contains('\n'))
        .then(|| Answer::new(words, Found::Whole))
}

/// What stands in the last `<answer>` tags.
pub(super) fn tagged(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once("<answer>")?;
    let (answer, _) = rest.split_once("</answer>")?;
    Some(answer.trim()).filter(|answer| !answer.is_empty())
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

const PHRASES: [&str; 6] = ["answer is", "answer:", "answer :", "answer**:", "answer:**", "####"];

/// Words between the phrase and the answer.
const ADVERBS: [&str; 10] = [
    "therefore",
    "thus",
    "simply",
    "then",
    "indeed",
    "clearly",
    "approximately",
    "about",
    "equal to",
    "given by",
];

/// What stands behind the last phrase that announces the answer.
pub(super) fn phrase_rest(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let at = PHRASES.iter().filter_map(|phrase| lower.rfind(phrase).map(|at| at + phrase.len())).max()?;
    let around = [' ', ':', '*', '\t', '\n'];
    let rest = text[at..].trim_start_matches(around);
    let after = ADVERBS
        .iter()
        .find_map(|adverb| rest.strip_prefix(*adverb).filter(|rest| rest.starts_with([' ', ',', ':'])));
    Some(after.map_or(rest, |rest| rest.trim_start_matches(',').trim_start_matches(around)))
}

fn after_phrase(text: &str) -> Option<Answer<'_>> {
    let rest = phrase_rest(text)?;
    if let Some(formulas) = formulas_at_start(rest.lines().next().unwrap_or_default()) {
        return Some(Answer::new(formulas, Found::Phrase));
    }
    let line = rest.lines().next().unwrap_or_default();
    let end = answer_end(line);
    let answer = line[..end].trim().trim_end_matches('*');
    let exclaimed = line[end..].strip_prefix('!').is_some_and(|after| !after.starts_with('.'));
    (!answer.is_empty()).then(|| Answer {
        factorial: exclaimed.then(|| line[..=end].trim()),
        ..Answer::new(answer, Found::Phrase)
    })
}

/// The formula that a line begins with, and those that `or` and `and` join to it.
fn formulas_at_start(line: &str) -> Option<Cow<'_, str>> {
    let (first, mut rest) = formula_at_start(line)?;
    let mut formulas = vec![first];
    while formulas.len() < MAX_FORMULAS
        && let Some((formula, after)) = joined_formula(rest)
    {
        formulas.push(formula);
        rest = after;
    }
    if formulas.len() == 1 { Some(Cow::Borrowed(first)) } else { Some(Cow::Owned(formulas.join(", "))) }
}

/// `or $x=4$` and what stands behind it. "and $4$ is no solution" goes on in prose.
fn joined_formula(text: &str) -> Option<(&str, &str)> {
    let rest = text.trim_start();
    let rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    let rest = ["or ", "and "].iter().find_map(|word| rest.strip_prefix(word))?;
    let (formula, after) = formula_at_start(rest.trim_start())?;
    let next = after.trim_start();
    let ends = next.is_empty()
        || next.starts_with(['.', ',', ';', '*'])
        || next.starts_with("or ")
        || next.starts_with("and ");
    ends.then_some((formula, after))
}

/// The formula that a text begins with, between dollar signs or `\( \)`, and what stands behind it.
fn formula_at_start(text: &str) -> Option<(&str, &str)> {
    // "$26 per day" is money: a formula closes again.
    if let Some(inside) = text.strip_prefix("$$") {
        return inside.split_once("$$");
    }
    if let Some(inside) = text.strip_prefix('$') {
        return inside.split_once('$');
    }
    let (open, close) = if text.starts_with("\\(") { ("\\(", "\\)") } else { ("\\[", "\\]") };
    text.strip_prefix(open)?.split_once(close)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(String, Found)> {
        extract(text).map(|answer| (answer.text.into_owned(), answer.found))
    }

    #[test]
    fn the_box_comes_first_and_the_last_one_counts() {
        let cases = [
            ("so \\boxed{\\frac{1}{2}}, not $3$.", "\\frac{1}{2}"),
            ("\\boxed{1} then \\boxed{\\{2\\}}", "\\{2\\}"),
            ("\\boxed 9$", "9"),
            ("\\fbox{4}", "4"),
        ];
        for (text, answer) in cases {
            assert_eq!(found(text), Some((answer.into(), Found::Boxed)), "{text}");
        }
        // What was said before a box that is cut is not what the text was about to say.
        assert_eq!(found("\\boxed{7}. The answer is \\boxed{8"), None);
    }

    #[test]
    fn then_the_phrase_the_formula_the_number() {
        let cases = [
            ("The answer is $26. I hope it is correct.", "$26", Found::Phrase),
            ("The answer is $[2,5)$. I hope it is correct.", "[2,5)", Found::Phrase),
            ("The answer is $x=3$ or $x=4$.", "x=3, x=4", Found::Phrase),
            ("The answer is \\(3\\), and \\(4\\) is none.", "3", Found::Phrase),
            ("The answer is $3$ and then some.", "3", Found::Phrase),
            ("The answer is therefore 12.", "12", Found::Phrase),
            ("<answer> 17 </answer>", "17", Found::Phrase),
            ("Answer: 12.5", "12.5", Found::Phrase),
            ("... = 9\n#### 18", "18", Found::Phrase),
            ("so $x=1$ and then $1/2$.", "1/2", Found::Formula),
            ("the result is $$(a + b)^2$$", "(a + b)^2", Found::Formula),
            ("It has 3 cats and -2.5 dogs", "-2.5", Found::Number),
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
        for (text, answer, rule) in cases {
            assert_eq!(found(text), Some((answer.into(), rule)), "{text}");
        }
        assert_eq!(found(""), None);
        assert_eq!(found("I do not know what the answer to this question could possibly be."), None);
        let factorial = |text| extract(text).and_then(|answer| answer.factorial.map(str::to_owned));
        assert_eq!(factorial("The answer is 17!"), Some("17!".into()));
        assert_eq!(factorial("The answer is 17! I hope so."), Some("17!".into()));
        assert_eq!(factorial("The answer is 17."), None);
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
