//! The sections of a student's completion, and the graders of whole numbers and of expressions in them.

use super::countdown::judge_countdown;
use super::verdict::Verdict;

/// The tags a student writes. A prompt that already ends in `begin_of_thought` leaves it out of the
/// completion, so only the other three are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SolutionTags<'a> {
    /// Closes the thought.
    pub end_of_thought: &'a str,
    /// Opens the solution; empty, with its end, where the solution is what follows the thought.
    pub begin_of_solution: &'a str,
    /// Closes the solution.
    pub end_of_solution: &'a str,
}

impl Default for SolutionTags<'static> {
    /// The tags of the `stratos` style.
    fn default() -> Self {
        Self {
            end_of_thought: "<|end_of_thought|>",
            begin_of_solution: "<|begin_of_solution|>",
            end_of_solution: "<|end_of_solution|>",
        }
    }
}

/// The text of the solution section. `None` when the completion does not consist of a thought and a
/// solution, in order, each closed, with nothing but white space between and a turn end after.
pub fn solution_section<'a>(completion: &'a str, tags: &SolutionTags) -> Option<&'a str> {
    let (thought, rest) = completion.split_once(tags.end_of_thought)?;
    if tags.begin_of_solution.is_empty() && tags.end_of_solution.is_empty() {
        return (!rest.contains(tags.end_of_thought)).then_some(rest);
    }
    if thought.contains(tags.begin_of_solution) {
        return None;
    }
    let section = rest.trim_start().strip_prefix(tags.begin_of_solution)?;
    let (solution, after) = section.split_once(tags.end_of_solution)?;
    let tags = [tags.end_of_thought, tags.begin_of_solution, tags.end_of_solution];
    let repeated = tags.iter().any(|tag| solution.contains(tag) || after.contains(tag));
    (!repeated).then_some(solution)
}

/// The last whole number in a text ("Mia has 26 shells." -> 26). Digits that belong to a word, to
/// a decimal or to a longer number with separators do not count.
pub fn last_integer(text: &str) -> Option<i64> {
    text.split_whitespace().rev().find_map(|word| {
        word.trim_start_matches(['(', '"', '$'])
            .trim_end_matches(['.', ',', ';', ':', '!', '?', ')', '"'])
            .parse()
            .ok()
    })
}

/// Grades a completion by its last whole number against `gold`, itself a text that holds the right
/// number. An unformatted completion is never right.
pub fn grade_integer(completion: &str, gold: &str, tags: &SolutionTags) -> Verdict {
    let Some(section) = solution_section(completion, tags) else { return Verdict::unformatted() };
    let (found, right) = (last_integer(section), last_integer(gold));
    let reason = match (found, right) {
        (None, _) => "the solution holds no whole number".into(),
        (Some(found), Some(right)) if found == right => "the same number".into(),
        (Some(found), Some(right)) => format!("{found} is not {right}"),
        (Some(_), None) => "the gold answer holds no whole number".into(),
    };
    Verdict {
        extracted: found.map(|number| number.to_string()),
        correct: found.is_some() && found == right,
        formatted: true,
        reason,
    }
}

/// Grades a completion by the expression in its solution section. `gold` is an equation, `(3 + 7) x 8 = 80.`: the
/// numbers on its left, each used once, must make what stands on its right. Signs are `+ - x * /`; an equals sign with
/// the target behind it, and a full stop, may stand at the end. An unformatted completion is never right.
pub fn grade_expression(completion: &str, gold: &str, tags: &SolutionTags) -> Verdict {
    let Some(section) = solution_section(completion, tags) else { return Verdict::unformatted() };
    let numbers = |text: &str| -> Vec<i64> {
        let numbers = text.split(|c: char| !c.is_ascii_digit());
        numbers.filter_map(|number| number.parse::<u32>().ok()).map(i64::from).collect()
    };
    let problem = gold
        .split_once('=')
        .and_then(|(left, right)| Some((numbers(left), numbers(right).first().copied()?)));
    let Some((numbers, target)) = problem else {
        let reason = "the gold answer has no target".into();
        return Verdict { formatted: true, reason, ..Verdict::default() };
    };
    let expression = section.trim().trim_end_matches('.').replace('x', "*");
    let judgement = judge_countdown(&expression, &numbers, target);
    Verdict::judged(section.trim(), true, judgement)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grade(completion: &str) -> Verdict {
        grade_integer(completion, "Mia has 26 shells.", &SolutionTags::default())
    }

    #[test]
    fn a_right_answer_in_both_sections() {
        let verdict = grade(
            "\n\nShe finds 5: 21 + 5 = 26.\n\n<|end_of_thought|>\n\n\
             <|begin_of_solution|>Mia has 26 shells.<|end_of_solution|><|im_end|>",
        );
        assert_eq!(
            (verdict.extracted.as_deref(), verdict.correct, verdict.formatted),
            (Some("26"), true, true)
        );
    }

    #[test]
    fn a_wrong_answer_is_formatted() {
        let verdict = grade("26<|end_of_thought|><|begin_of_solution|>Mia has 62 shells.<|end_of_solution|>");
        assert_eq!(
            (verdict.extracted.as_deref(), verdict.correct, verdict.formatted),
            (Some("62"), false, true)
        );
        assert_eq!(verdict.reason, "62 is not 26");
        let silent = grade("26<|end_of_thought|><|begin_of_solution|>Mia.<|end_of_solution|>");
        assert_eq!((silent.extracted, silent.correct, silent.formatted), (None, false, true));
    }

    #[test]
    fn sections_must_be_closed_in_order_and_single() {
        for text in [
            "",
            "Mia has 26 shells.",
            "t<|begin_of_solution|>26<|end_of_solution|>",
            "t<|end_of_thought|><|begin_of_solution|>26",
            "t<|begin_of_solution|>26<|end_of_solution|><|end_of_thought|>",
            "t<|end_of_thought|>so <|begin_of_solution|>26<|end_of_solution|>",
            "t<|end_of_thought|><|begin_of_solution|>26<|end_of_solution|><|begin_of_solution|>",
            "t<|begin_of_solution|><|end_of_thought|><|begin_of_solution|>26<|end_of_solution|>",
        ] {
            assert_eq!(grade(text), Verdict::unformatted(), "{text:?}");
        }
    }

    #[test]
    fn whole_numbers_only() {
        assert_eq!(last_integer("Mia has 26 shells."), Some(26));
        assert_eq!(last_integer("first 3, then 26."), Some(26));
        assert_eq!(last_integer("It is -4!"), Some(-4));
        assert_eq!(last_integer("($12)"), Some(12));
        assert_eq!(last_integer("2.5"), None);
        assert_eq!(last_integer("x26"), None);
        assert_eq!(last_integer("1,200"), None);
        assert_eq!(last_integer("none"), None);
    }

    #[test]
    fn an_expression_must_make_the_target_of_the_gold_equation() {
        let grade = |solution: &str| {
            let completion = format!("t<|end_of_thought|><|begin_of_solution|>{solution}<|end_of_solution|>");
            grade_expression(&completion, "(3 + 7) x 8 = 80.", &SolutionTags::default())
        };
        assert!(grade("8 x (7 + 3) = 80.").correct && grade("(3 + 7) * 8").correct);
        assert!(!grade("8 + 7 + 3 = 80.").correct);
        assert!(!grade("8 x 8 + 8 + 8 = 80.").correct, "a number is used more than once");
        let verdict = grade_expression("80", "(3 + 7) x 8 = 80.", &SolutionTags::default());
        assert!(!verdict.correct && !verdict.formatted);
    }
}
