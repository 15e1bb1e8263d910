//! The conventional reward: format, and the final answer.

use rlt_reward::correctness::correctness_reward;

use crate::config::{AnswerRule, Config};
use crate::dataset::QuestionRow;
use crate::error::Result;
use crate::grpo::reward::{Answered, Reward, StepContext, Student};
use crate::grpo::sample::{Verdict, text_ids};
use crate::prompts::{ChatText, PromptStyle};
use crate::score::added::{answer_rule, is_right};

/// Of answers in the student's format, right by a rule.
pub(super) struct Correctness(AnswerRule);

impl Correctness {
    pub fn of(config: &Config) -> Self {
        Self(answer_rule(config))
    }
}

impl Reward for Correctness {
    fn name(&self) -> &'static str {
        "correctness"
    }

    fn prompt(&self, style: &PromptStyle, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>> {
        style.student_question_prompt(chat, row)
    }

    fn student(&self) -> Option<&Student> {
        None
    }

    fn verdicts(&self, context: &StepContext, groups: &[Answered]) -> Result<Vec<Verdict>> {
        Ok(graded(self.0, context, groups))
    }
}

/// What every completion earns as an answer, group by group in one list.
pub(super) fn graded(rule: AnswerRule, context: &StepContext, groups: &[Answered]) -> Vec<Verdict> {
    let StepContext { style, chat, .. } = context;
    let opened = chat.opened_by_template(&style.begin_of_thought);
    // The whole turn, with what the template has written of it.
    let text = |completion| format!("{opened}{}", chat.tokenizer.decode(&text_ids(completion)));
    let completions = groups.iter().flat_map(|group| group.iter());
    completions.map(|(question, _, c)| verdict(style, rule, &question.row, &text(c))).collect()
}

fn verdict(style: &PromptStyle, rule: AnswerRule, row: &QuestionRow, completion: &str) -> Verdict {
    let section = style.split_answer(completion).map(|(_, solution)| solution);
    let mut is_correct = false;
    let reward = correctness_reward(section, |_| {
        is_correct = is_right(style, rule, row, completion);
        is_correct
    });
    Verdict { reward, is_formatted: section.is_some(), is_correct: Some(is_correct), ..Verdict::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpo::sample::tests::row;

    fn reward(rule: AnswerRule, solution: &str, thought_and_answer: Option<(&str, &str)>) -> (f32, bool) {
        let style = PromptStyle::stratos();
        let completion = thought_and_answer
            .map_or("no sections".into(), |(thought, answer)| style.student_answer(thought, answer));
        let verdict = verdict(style, rule, &row("What is 2 + 2?", solution), &completion);
        (verdict.reward, verdict.is_formatted)
    }

    #[test]
    fn an_answer_is_compared_without_its_white_space() {
        let reward = |solution, answer| reward(AnswerRule::Solution, solution, answer);
        assert_eq!(reward("\n4 apples\n", Some(("t", "4  apples"))), (1.0, true));
        assert_eq!(reward("4 apples", Some(("t", "5 apples"))), (-0.5, true));
        assert_eq!(reward("4 apples", None), (-1.0, false));
    }

    #[test]
    fn a_rule_about_numbers_reads_the_last_one() {
        let reward = |solution, answer| reward(AnswerRule::Integer, solution, answer);
        assert_eq!(reward("Tom has 25 eggs.", Some(("t", "It is 25."))), (1.0, true));
        assert_eq!(reward("Tom has 25 eggs.", Some(("t", "Tom has 52 eggs."))), (-0.5, true));
    }
}
