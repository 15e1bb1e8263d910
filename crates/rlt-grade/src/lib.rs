//! Answers to mathematical questions: found in a text, read, compared with the right one.
//!
//! ```
//! use rlt_grade::{ThoughtRule, equivalent, grade_choice, grade_math};
//!
//! let verdict = grade_math("Half of it: $\\boxed{\\dfrac{1}{2}}$.", "0.5", ThoughtRule::Keep);
//! assert!(verdict.correct && verdict.formatted);
//! assert_eq!(verdict.extracted.as_deref(), Some("\\dfrac{1}{2}"));
//! assert_eq!(verdict.reason, "equal, by exact arithmetic");
//!
//! assert!(equivalent("(2, \\infty)", "x > 2").equal);
//! assert_eq!(equivalent("5.4 cents", "5.4 dollars").reason, "the unit is cents, not dollars");
//! assert!(!grade_choice("I would say (C).", "B", ThoughtRule::Keep).correct);
//! ```
//!
//! All of it are pure functions of two texts: nothing is read, written, remembered or evaluated as a program, no
//! model or data set is known, and the same texts give the same verdict on every machine.
//!
//! - [`grade_math`] looks for the answer anywhere in a completion, [`grade_solution`] in its solution section,
//!   [`grade_choice`] for a letter, [`grade_countdown`] for an expression of given numbers, [`grade_integer`]
//!   for a whole number, [`grade_expression`] for an expression in the solution section;
//! - [`extract`] says which words of a text are its answer, and [`Found`] by which rule;
//! - [`equivalent`] compares two answers without anything around them: LaTeX, plain text or one of each.
//!
//! # What a verdict says
//!
//! A [`Verdict`] holds the answer as it was found, whether it is right, whether it has the form that was asked for,
//! and the reason in one line for people. Right means shown to be equal: by the same words, by exact fractions, by
//! the same decimal places, by value at fixed points where formulas have variables, or item by item in lists, sets,
//! tuples, intervals and matrices. What was not shown equal is different, and the reason says how far the
//! comparison came ("the unit is cm, not cm^2", "item 2 of the gold answer's 3 is missing", "not shown equal within
//! the work allowed"). Where a rule could err it errs towards different: a wrong answer that is accepted teaches a
//! model, a right one that is refused only costs it a reward. docs/GRADING.md has the rules and the measurements.
//!
//! # Hostile input
//!
//! A comparison takes a bounded amount of work whatever the input: texts beyond a length, trees beyond a
//! depth, numbers beyond a size and sums beyond a budget are compared as text, or count as different. No input
//! panics.

use std::borrow::Cow;

use extract::tagged;

mod boxed;
mod budget;
mod choice;
mod countdown;
mod derivative;
mod equivalence;
mod exact;
mod expression;
mod extract;
mod formula;
mod numeric;
mod parse;
mod proportion;
mod prose;
mod rational;
mod reading;
mod real_set;
mod sections;
mod token;
mod typography;
mod units;
mod verdict;

pub use boxed::last_boxed;
pub use choice::chosen_letter;
pub use countdown::judge_countdown;
pub use equivalence::{Judgement, equivalent};
pub use extract::{Answer, Found, ThoughtRule, answer_part, extract, opened_thought};
pub use sections::{SolutionTags, grade_expression, grade_integer, last_integer, solution_section};
pub use verdict::Verdict;

/// The answer that a gold text gives: what stands behind `####` or in its last box, else all of it.
pub fn gold_answer(gold: &str) -> Cow<'_, str> {
    if let Some((_, answer)) = gold.rsplit_once("####") {
        return answer.trim().into();
    }
    last_boxed(gold).unwrap_or_else(|| gold.trim().into())
}

/// Grades a completion by the answer found anywhere in it (but for the thought, if that is removed) against
/// a gold answer.
pub fn grade_math(completion: &str, gold: &str, thought: ThoughtRule) -> Verdict {
    let Some(answer) = extract(answer_part(completion, thought)) else {
        return Verdict { reason: "no answer was found".into(), ..Verdict::default() };
    };
    let gold = gold_answer(gold);
    let mut judgement = equivalent(&gold, &answer.text);
    if let Some(factorial) = answer.factorial.filter(|_| !judgement.equal && gold.trim_end().ends_with('!')) {
        judgement = equivalent(&gold, factorial);
    }
    Verdict::judged(&answer.text, answer.found == Found::Boxed, judgement)
}

/// Grades a completion by its solution section, which must say what `gold` says: the answer in its box, if
/// there is one, or else the whole section. A completion without the sections is never right.
pub fn grade_solution(completion: &str, gold: &str, tags: &SolutionTags) -> Verdict {
    match solution_section(completion, tags) {
        Some(section) => grade_section(section, gold),
        None => Verdict::unformatted(),
    }
}

/// As [`grade_solution`], of the section itself.
pub fn grade_section(section: &str, gold: &str) -> Verdict {
    let answer = last_boxed(section).unwrap_or_else(|| section.trim().into());
    let whole = equivalent(gold.trim(), &answer);
    let judgement = if whole.equal { whole } else { equivalent(&gold_answer(gold), &gold_answer(&answer)) };
    let shown = answer.split_whitespace().collect::<Vec<_>>().join(" ");
    Verdict::judged(&shown, true, judgement)
}

/// Grades a completion by the letter it picks.
pub fn grade_choice(completion: &str, gold: &str, thought: ThoughtRule) -> Verdict {
    let text = answer_part(completion, thought);
    let formatted = last_boxed(text).is_some();
    let Some(right) = chosen_letter(&format!("\\boxed{{{gold}}}"), 'Z') else {
        return Verdict {
            formatted,
            reason: format!("the gold answer {gold:?} is no letter"),
            ..Verdict::default()
        };
    };
    match chosen_letter(text, right.max('D')) {
        None => Verdict { formatted, reason: "no letter was found".into(), ..Verdict::default() },
        Some(letter) => Verdict {
            extracted: Some(letter.into()),
            correct: letter == right,
            formatted,
            reason: if letter == right {
                "the same letter".into()
            } else {
                format!("{letter} is not {right}")
            },
        },
    }
}

/// Grades a completion's expression of `numbers` by whether it makes `target`. It stands in `<answer>` tags, in
/// a box, or behind "the answer is".
pub fn grade_countdown(completion: &str, numbers: &[i64], target: i64, thought: ThoughtRule) -> Verdict {
    let text = answer_part(completion, thought);
    let answer = match (last_boxed(text), tagged(text)) {
        (Some(boxed), _) => Some((boxed, true)),
        (None, Some(tagged)) => Some((tagged.into(), true)),
        (None, None) => match extract(text) {
            Some(Answer { text, found: Found::Phrase | Found::Formula | Found::Whole, .. }) => {
                Some((text, false))
            }
            _ => None,
        },
    };
    match answer {
        Some((answer, formatted)) => {
            Verdict::judged(&answer, formatted, judge_countdown(&answer, numbers, target))
        }
        None => Verdict { reason: "no expression was found".into(), ..Verdict::default() },
    }
}

#[cfg(test)]
mod tests;
