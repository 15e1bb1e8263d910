//! Multiple choice: the letter an answer picks (GPQA: A to D).

use super::extract::{Found, extract, last_boxed};

/// The letter from A to `last` that a text picks: the boxed one, else the one behind "the answer is", else the
/// last that stands alone in brackets or with a closing one. Never a guess: `None` when there is none.
pub fn chosen_letter(text: &str, last: char) -> Option<char> {
    if let Some(boxed) = last_boxed(text) {
        return leading_letter(boxed, last);
    }
    if let Some((phrase, Found::Phrase)) = extract(text)
        && let Some(letter) = leading_letter(phrase, last)
    {
        return Some(letter);
    }
    let chars: Vec<char> = text.chars().collect();
    (0..chars.len()).rev().find_map(|at| {
        let alone = at.checked_sub(1).is_none_or(|before| !chars[before].is_alphanumeric());
        let closed = chars.get(at + 1) == Some(&')');
        let line = at == 0 || chars[at - 1] == '\n';
        let ends = chars.get(at + 1).is_none_or(|c| matches!(c, '\n' | '.'));
        let picked = alone && (closed || (line && ends));
        (picked && is_choice(chars[at], last)).then_some(chars[at])
    })
}

fn is_choice(letter: char, last: char) -> bool {
    ('A'..=last).contains(&letter)
}

/// The letter of "C", "(C)", "\text{(C)}", "C) 12 eV", "**C**".
fn leading_letter(text: &str, last: char) -> Option<char> {
    let mut rest = text;
    for command in ["\\text", "\\textbf", "\\mathrm", "\\mathbf", "option", "Option", "choice", "Choice"] {
        rest = rest.trim_start_matches([' ', '{', '(', '*', '$', '"']);
        rest = rest.strip_prefix(command).unwrap_or(rest);
    }
    rest = rest.trim_start_matches(['b', 'f']).trim_start_matches([' ', '{', '(', '*', '$', '"']);
    let mut chars = rest.chars();
    let letter = chars.next()?.to_ascii_uppercase();
    let ends = chars.next().is_none_or(|c| !c.is_alphanumeric());
    (ends && is_choice(letter, last)).then_some(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_never_guessed() {
        for (text, letter) in [
            ("... \\boxed{C}", Some('C')),
            ("\\boxed{\\text{(B)}}", Some('B')),
            ("\\boxed{D) 12 eV}", Some('D')),
            ("The answer is (A).", Some('A')),
            ("The answer is **B**", Some('B')),
            ("Answer: D", Some('D')),
            ("So it must be (C) since (A) fails; I take C)", Some('C')),
            ("A long story about Beth.", None),
            ("\\boxed{E}", None),
            ("\\boxed{12}", None),
            ("", None),
        ] {
            assert_eq!(chosen_letter(text, 'D'), letter, "{text}");
        }
    }
}
