//! What makes an answer right: a rule of `reward.grader`, applied to a completion.

use rlt_grade::{SolutionTags, Verdict, grade_expression, grade_integer, grade_solution};

use crate::config::AnswerRule;
use crate::style::PromptStyle;

/// The tags by which a completion in `style` is taken apart.
pub fn solution_tags(style: &PromptStyle) -> SolutionTags<'_> {
    SolutionTags {
        end_of_thought: &style.end_of_thought,
        begin_of_solution: &style.begin_of_solution,
        end_of_solution: &style.end_of_solution,
    }
}

/// Grades a completion by `rule` against `gold`, a text that holds the right answer.
pub fn grade(rule: AnswerRule, completion: &str, gold: &str, tags: &SolutionTags) -> Verdict {
    let grade = match rule {
        AnswerRule::Solution => grade_solution,
        AnswerRule::Integer => grade_integer,
        AnswerRule::Expression => grade_expression,
    };
    grade(completion, gold, tags)
}
