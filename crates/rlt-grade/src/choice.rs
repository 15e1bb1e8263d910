//! Multiple choice: the letter an answer picks (GPQA: A to D).

use super::boxed::{Boxed, boxed};
use super::extract::{phrase_rest, tagged};

/// Most letters of a text that are looked at, from the last one back.
const MAX_LETTERS: usize = 200;
/// How much of the text around a letter is read, characters.
const CONTEXT: usize = 60;

/// What a piece of text says about the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pick {
    /// One letter.
    Letter(char),
    /// Several letters, or one that is no choice: an answer, but not one that can be right.
    Other,
    /// Nothing that looks like a letter.
    Nothing,
}

impl Pick {
    /// This one, or another where it says nothing.
    fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::Nothing { other() } else { self }
    }
}

/// The letter from A to `last` that a text picks: the boxed one, else that of `<answer>` tags, else the one behind
/// "the answer is", else the one a conclusion names ("Therefore, B.", "Option B is correct"), else the last that
/// stands alone in brackets, with a closing one or on a line of its own. Never a guess: `None` when there is none, and
/// where the text picks several.
pub fn chosen_letter(text: &str, last: char) -> Option<char> {
    let boxed = match boxed(text) {
        Boxed::Answer(content) => leading_letter(&content, last),
        Boxed::Cut => Pick::Other,
        Boxed::Absent => Pick::Nothing,
    };
    let line = |text: &str| leading_letter(text.lines().next().unwrap_or_default(), last);
    let pick = boxed
        .or(|| tagged(text).map_or(Pick::Nothing, line))
        .or(|| phrase_rest(text).map_or(Pick::Nothing, line))
        .or(|| mentioned_letter(text, last, Mention::concludes))
        .or(|| mentioned_letter(text, last, Mention::is_marked));
    match pick {
        Pick::Letter(letter) => Some(letter),
        Pick::Other | Pick::Nothing => None,
    }
}

fn is_choice(letter: char, last: char) -> bool {
    ('A'..=last).contains(&letter)
}

/// What may stand around a letter.
const OPENING: [char; 8] = [' ', '{', '(', '[', '*', '$', '"', '\''];
const CLOSING: [char; 9] = [')', ']', '}', '*', '$', '"', '\'', '.', ':'];

/// The letter of "C", "(C)", "\text{(C)}", "C) 12 eV", "**C**", "option C". `Other` for "B, C" and "BC".
fn leading_letter(text: &str, last: char) -> Pick {
    let mut rest = text.trim_start_matches(OPENING);
    for word in ["\\textbf", "\\text", "\\mathrm", "\\mathbf", "the ", "option", "choice", "letter", "answer"]
    {
        if rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)) {
            rest = rest[word.len()..].trim_start_matches(OPENING);
        }
    }
    let Some(written) = rest.chars().next().filter(char::is_ascii_alphabetic) else { return Pick::Nothing };
    let letter = written.to_ascii_uppercase();
    let letters: Vec<char> = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
    if letters.len() > 1 {
        let several = letters.len() <= 4
            && letters.iter().all(|&c| is_choice(c, last))
            && rest.trim().len() == letters.len();
        return if several { Pick::Other } else { Pick::Nothing };
    }
    let behind = &rest[1..];
    let after = behind.trim_start_matches(CLOSING).trim_start();
    let closed = after.is_empty() || behind.starts_with(CLOSING);
    // "a proton" is no choice, and neither is `A = \pi r^2`.
    let word: String = after.chars().take_while(|c| c.is_alphabetic()).collect();
    let reason = matches!(
        word.as_str(),
        "because" | "since" | "as" | "which" | "is" | "with" | "and" | "or" | "for" | "by"
    );
    let named = written.is_ascii_uppercase()
        && (after.starts_with([',', ';', '(', '/', '&', '<', '|'])
            || after.starts_with("- ")
            || after.starts_with('\u{2014}')
            || reason);
    let text_behind = letter != 'A'
        && written.is_ascii_uppercase()
        && behind.starts_with(' ')
        && after.starts_with(|c: char| c.is_alphanumeric());
    if !(closed || named || text_behind) {
        return Pick::Nothing;
    }
    if !is_choice(letter, last) || goes_on_with_a_letter(after, last) {
        return Pick::Other;
    }
    Pick::Letter(letter)
}

/// Whether another letter is joined to one: ", C", "and (C)", "or C", "/C".
fn goes_on_with_a_letter(after: &str, last: char) -> bool {
    let after = after.trim_start_matches(CLOSING).trim_start();
    let joined = after.trim_start_matches([',', '/', '&', ';', '{', ' ']);
    let word = ["\\text{and", "\\text{ and", "\\text{or", "\\text{ or", "and", "or"]
        .iter()
        .find_map(|word| joined.strip_prefix(word));
    if word.is_none() && joined.len() == after.len() {
        return false;
    }
    let rest = word.unwrap_or(joined).trim_start_matches(OPENING).trim_start_matches(['}', ' ', '(', '*']);
    let mut chars = rest.chars();
    chars.next().is_some_and(|c| is_choice(c, last))
        && chars.next().is_none_or(|c| !c.is_alphanumeric() && c != ' ' && c != '\'')
        || rest.trim_end().len() == 1 && rest.starts_with(|c| is_choice(c, last))
}

/// A letter that stands alone in a text, with what stands around it.
struct Mention {
    /// What stands before it, in lower case, without what opens its brackets; a sentence at most.
    before: String,
    /// What stands behind it and its closing brackets.
    after: String,
    /// Whether a bracket closes behind it, or it stands on a line of its own.
    marked: bool,
}

impl Mention {
    fn of(chars: &[char], at: usize) -> Self {
        let start = at.saturating_sub(CONTEXT);
        let before: String = chars[start..at].iter().collect();
        let before = before.trim_end_matches(OPENING).to_lowercase();
        let sentence = before.rsplit(['.', '\n', ';', '!', '?']).next().unwrap_or_default();
        let after: String = chars[at + 1..].iter().take(CONTEXT).collect();
        let line = at == 0 || chars[at - 1] == '\n';
        let ends = chars.get(at + 1).is_none_or(|c| matches!(c, '\n' | '.'));
        Self {
            before: sentence.trim_end().to_owned(),
            marked: after.starts_with(')') || (line && ends),
            after: after.trim_start_matches([')', ']', '}', '*', '$', '"']).to_owned(),
        }
    }

    /// "(A) fails", "it is not B": a letter that is not picked.
    fn is_denied(&self) -> bool {
        let after = self.after.trim_start().to_lowercase();
        let fails = [
            "fails",
            "is not",
            "is wrong",
            "is incorrect",
            "is false",
            "isn't",
            "cannot",
            "can't",
            "is out",
            "is impossible",
            "does not",
            "doesn't",
        ];
        let denies = [
            " not",
            "n't",
            "cannot be",
            "rule out",
            "rules out",
            "ruling out",
            "eliminate",
            "exclude",
            "reject",
            "unlike",
            "than",
        ];
        let before = format!(" {}", self.before);
        fails.iter().any(|word| after.starts_with(word)) || denies.iter().any(|word| before.ends_with(word))
    }

    /// "Therefore, B.", "I choose B", "the correct choice is B", "Option B is correct".
    fn concludes(&self) -> bool {
        let ends = |words: &[&str]| {
            words.iter().any(|word| {
                let before = self.before.trim_end_matches([',', ':', ' ']);
                before.strip_suffix(word).is_some_and(|rest| !rest.ends_with(char::is_alphabetic))
            })
        };
        let after = self.after.trim_start().to_lowercase();
        let sentence_ends = self.after.is_empty() || self.after.starts_with(['.', '!', '\n']);
        let right = [
            "is correct",
            "is right",
            "is the correct",
            "is the right",
            "is the answer",
            "is the best",
            "must be",
        ];
        let is_right = right.iter().any(|word| after.starts_with(word));
        let negated = [" not ", "n't "].iter().any(|word| self.before.contains(word));
        let concluded = sentence_ends && ends(&["therefore", "thus", "hence", "so"]);
        let chosen = ends(&[
            "choice is",
            "option is",
            "choose",
            "pick",
            "select",
            "go with",
            "choice must be",
            "answer must be",
            "correct one is",
        ]);
        let named = is_right
            && (self.marked
                || self.before.is_empty()
                || ends(&["option", "choice", "answer", "thus", "therefore", "so", "hence", "letter"]));
        !negated && (concluded || chosen || named)
    }

    fn is_marked(&self) -> bool {
        self.marked
    }
}

/// The last letter standing alone for which `holds`, if it is not denied.
fn mentioned_letter(text: &str, last: char, holds: impl Fn(&Mention) -> bool) -> Pick {
    let chars: Vec<char> = text.chars().collect();
    let alone = |at: usize| {
        let beside = |at: Option<usize>| {
            at.and_then(|at| chars.get(at)).is_some_and(|c| c.is_alphanumeric() || *c == '\\')
        };
        is_choice(chars[at], last) && !beside(at.checked_sub(1)) && !beside(Some(at + 1))
    };
    let mut mentions = (0..chars.len()).rev().filter(|&at| alone(at)).take(MAX_LETTERS);
    mentions
        .find_map(|at| {
            let mention = Mention::of(&chars, at);
            if !holds(&mention) || mention.is_denied() {
                return None;
            }
            let several = goes_on_with_a_letter(&mention.after, last);
            Some(if several { Pick::Other } else { Pick::Letter(chars[at]) })
        })
        .unwrap_or(Pick::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_never_guessed() {
        for (text, letter) in [
            ("... \\boxed{C}", Some('C')),
            ("\\boxed{\\text{(B)}}", Some('B')),
            ("\\boxed{\\textbf{B}}", Some('B')),
            ("\\boxed{D) 12 eV}", Some('D')),
            ("\\boxed{b}", Some('B')),
            ("The answer is (A).", Some('A')),
            ("The answer is **B**", Some('B')),
            ("The answer is B because of the field.", Some('B')),
            ("The answer is option C", Some('C')),
            ("Answer: D", Some('D')),
            ("So it must be (C) since (A) fails; I take C)", Some('C')),
            ("So it must be (C) since (A) fails", Some('C')),
            ("so \\boxed{\\langle H\\rangle \\ll \\Delta E}.\n\n**Answer: D**", Some('D')),
            ("so \\boxed{12}. Answer: B", Some('B')),
            ("the correct choice is **B**", Some('B')),
            ("The correct option is (D).", Some('D')),
            ("Therefore, B.", Some('B')),
            ("Thus (C).", Some('C')),
            ("Option B is correct.", Some('B')),
            ("(B) is the correct choice.", Some('B')),
            ("I would go with C.", Some('C')),
            ("<answer>B</answer>", Some('B')),
            ("<answer> (B) 12 eV </answer>", Some('B')),
        ] {
            assert_eq!(chosen_letter(text, 'D'), letter, "{text}");
        }
        for text in [
            "\\boxed{B, C}",
            "\\boxed{B and C}",
            "\\boxed{B \\text{ or } C}",
            "\\boxed{BC}",
            "\\boxed{B} or \\boxed{C}",
            "\\boxed{B",
            "\\boxed{E}",
            "\\boxed{A = \\pi r^2}",
            "The answer is B or C.",
            "The answer is (B) and (C)",
            "The answer is A proton.",
            "<answer>B, C</answer>",
            "Option B is not correct.",
            "Option B is incorrect.",
            "The correct choice is not B.",
            "Therefore, B is larger.",
            "It cannot be (B).",
            "the correct choice is B or C",
            "A long story about Beth.",
            "A proton moves. So A is a vector.",
            "",
        ] {
            assert_eq!(chosen_letter(text, 'D'), None, "{text}");
        }
    }
}
