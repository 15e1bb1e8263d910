//! Grading of answers: pure functions of two texts, without input or output.
//!
//! [`grade_math`] reads a completion as it is, [`grade_solution`] its solution section, [`grade_choice`] a
//! letter, [`grade_countdown`] an expression, [`grade_integer`] a synthetic world's number. All end in a
//! [`Verdict`] with a reason. [`equivalent`] compares two answers; docs/GRADING.md says what is equal to what.
//!
//! A comparison takes a bounded amount of work whatever the input: texts beyond a length, trees beyond a
//! depth, numbers beyond a size and sums beyond a budget are compared as text, or count as different.

mod budget;
mod choice;
mod countdown;
mod equivalence;
mod exact;
mod expression;
mod extract;
mod formula;
mod numeric;
mod parse;
mod rational;
mod real_set;
mod sections;
mod token;
mod units;

pub use choice::chosen_letter;
pub use countdown::judge_countdown;
pub use equivalence::{Judgement, equivalent};
pub use extract::{Found, ThoughtRule, answer_part, extract, last_boxed};
pub use sections::{SolutionTags, grade_integer, last_integer, solution_section};

/// What a grader says about one completion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The answer that was found, as it was compared.
    pub extracted: Option<String>,
    /// Whether it is the right one.
    pub correct: bool,
    /// Whether the answer has the form that was asked for: thought and solution closed and in order, each once;
    /// or, where no sections are asked for, a closed box.
    pub formatted: bool,
    /// Why, in one line.
    pub reason: String,
}

impl Verdict {
    /// A completion without the sections.
    pub fn unformatted() -> Self {
        Self { reason: "no thought and solution, closed and in order".into(), ..Self::default() }
    }

    fn judged(extracted: &str, formatted: bool, judgement: Judgement) -> Self {
        let Judgement { equal, reason } = judgement;
        Self { extracted: Some(extracted.to_owned()), correct: equal, formatted, reason }
    }
}

/// The answer that a gold text gives: what stands behind `####` or in its last box, else all of it.
pub fn gold_answer(gold: &str) -> &str {
    if let Some((_, answer)) = gold.rsplit_once("####") {
        return answer.trim();
    }
    last_boxed(gold).unwrap_or_else(|| gold.trim())
}

/// Grades a completion by the answer found anywhere in it (but for the thought, if that is removed) against
/// a gold answer.
pub fn grade_math(completion: &str, gold: &str, thought: ThoughtRule) -> Verdict {
    let Some((answer, found)) = extract(answer_part(completion, thought)) else {
        return Verdict { reason: "no answer was found".into(), ..Verdict::default() };
    };
    Verdict::judged(answer, found == Found::Boxed, equivalent(gold_answer(gold), answer))
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
    let answer = last_boxed(section).unwrap_or_else(|| section.trim());
    let whole = equivalent(gold.trim(), answer);
    let judgement = if whole.equal { whole } else { equivalent(gold_answer(gold), gold_answer(answer)) };
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
    let tagged = text.rsplit_once("<answer>").and_then(|(_, rest)| rest.split_once("</answer>"));
    let answer = match (last_boxed(text), tagged) {
        (Some(boxed), _) => Some((boxed, true)),
        (None, Some((tagged, _))) => Some((tagged.trim(), true)),
        (None, None) => match extract(text) {
            Some((answer, Found::Phrase | Found::Formula | Found::Whole)) => Some((answer, false)),
            _ => None,
        },
    };
    match answer {
        Some((answer, formatted)) => {
            Verdict::judged(answer, formatted, judge_countdown(answer, numbers, target))
        }
        None => Verdict { reason: "no expression was found".into(), ..Verdict::default() },
    }
}

#[cfg(test)]
mod tests;
