//! What `[reward.add]` adds to the reward of a completion, in training and in `rlt score`.

use std::borrow::Cow;

use super::{NGRAM_TOKENS, RltSample};
use crate::config::{AddedRewards, AnswerRule, Config, World};
use crate::dataset::QuestionRow;
use crate::grading::{grade, solution_tags};
use crate::prompts::PromptStyle;
use rlt_reward::diagnostics::{repeated_ngram_share, solution_overlap};
use rlt_reward::overlong::overlong_share;
use rlt_reward::sum::weighted_sum;

/// A completion as the added rewards see it.
pub(crate) struct Written<'a> {
    /// The question it is of.
    pub row: &'a QuestionRow,
    /// Its tokens: the think tokens of an explanation, all of an answer.
    pub tokens: &'a [u32],
    /// How many tokens were written in all.
    pub n_tokens: usize,
    /// What is known of an explanation; none of an answer.
    pub explanation: Option<(&'a str, &'a RltSample)>,
}

/// What a value is called that is a part of a reward.
pub(crate) type PartName = Cow<'static, str>;

/// A reward that is a weighted sum, and what it is the sum of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sum {
    /// `main + sum_k weight_k value_k`.
    pub reward: f32,
    /// The main reward first, then each added value before its weight, by name.
    pub parts: Vec<(PartName, f32)>,
}

/// What is added to rewards, and by which measures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adding<'a> {
    add: &'a AddedRewards,
    /// `sampling.max_new_tokens`.
    longest: usize,
    rule: AnswerRule,
    style: &'a PromptStyle,
}

impl<'a> Adding<'a> {
    /// What `config` adds; none when that is nothing.
    pub fn of(config: &'a Config, style: &'a PromptStyle) -> Option<Self> {
        let add = &config.reward.add;
        let (longest, rule) = (config.sampling.max_new_tokens, answer_rule(config));
        (*add != AddedRewards::default()).then_some(Self { add, longest, rule, style })
    }

    /// The sum of `main`, called `name`, and what is added for `written`.
    pub fn sum(&self, name: &'static str, main: f32, written: &Written) -> Sum {
        let mut added = Vec::new();
        for Added { name, weight, value } in ADDED {
            let weight = weight(self.add);
            if weight != 0.0
                && let Some(value) = value(self, written)
            {
                added.push((name, weight, value));
            }
        }
        let weighted: Vec<(f32, f32)> = added.iter().map(|&(_, weight, value)| (weight, value)).collect();
        let values = added.into_iter().map(|(name, _, value)| (name.into(), value));
        Sum {
            reward: weighted_sum(main, &weighted),
            parts: std::iter::once((name.into(), main)).chain(values).collect(),
        }
    }
}

/// A value that can be added.
struct Added {
    /// Its key in `[reward.add]`, and what it is called among the parts of a sum.
    name: &'static str,
    weight: fn(&AddedRewards) -> f32,
    /// None of a completion that has no such value: an answer, where it is about explanations.
    value: fn(&Adding, &Written) -> Option<f32>,
}

const ADDED: [Added; 5] = [
    Added {
        name: "correctness",
        weight: |add| add.correctness,
        value: |Adding { rule, style, .. }, written| {
            let (text, _) = written.explanation?;
            let right = is_right(style, *rule, written.row, &style.student_answer("", text));
            Some(f32::from(u8::from(right)))
        },
    },
    Added {
        name: "overlap",
        weight: |add| add.overlap,
        value: |_, written| {
            let (_, sample) = written.explanation?;
            Some(solution_overlap(sample.think_ids(), sample.solution_ids()))
        },
    },
    Added {
        name: "repetition",
        weight: |add| add.repetition,
        value: |_, written| Some(repeated_ngram_share(written.tokens, NGRAM_TOKENS)),
    },
    Added {
        name: "length",
        weight: |add| add.length,
        value: |adding, written| Some(written.n_tokens as f32 / adding.longest as f32),
    },
    Added {
        name: "overlong",
        weight: |add| add.overlong,
        value: |Adding { add, longest, .. }, written| {
            Some(overlong_share(written.n_tokens, *longest, add.overlong_cache(*longest)))
        },
    },
];

/// What makes an answer right in a run of `config`.
pub(crate) fn answer_rule(config: &Config) -> AnswerRule {
    let of_world = || World::from_name(&config.world.name).map(World::answer_rule);
    config.reward.grader.or_else(|| of_world().ok()).unwrap_or(AnswerRule::Solution)
}

/// Whether a completion's answer is right by `rule`.
pub(crate) fn is_right(style: &PromptStyle, rule: AnswerRule, row: &QuestionRow, completion: &str) -> bool {
    grade(rule, completion, &row.solution, &solution_tags(style)).correct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> QuestionRow {
        QuestionRow {
            question: "What is 2 + 2?".into(),
            solution: "4".into(),
            reasoning_trace: None,
            system: None,
            columns: serde_json::Map::new(),
            row: 1,
        }
    }

    #[test]
    fn the_configuration_says_what_makes_an_answer_right_not_the_question() {
        let style = PromptStyle::stratos();
        // It reads like a question of the world `market`; its answer is more than a number.
        let row = QuestionRow {
            question: "Tom has 20 eggs. He finds 5. How many eggs does he have?".into(),
            solution: "25 eggs".into(),
            ..row()
        };
        let is_right = |overrides: &[&str], answer: &str| {
            let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
            let rule = answer_rule(&Config::load(None, &overrides).unwrap());
            super::is_right(style, rule, &row, &style.student_answer("t", answer))
        };
        assert!(is_right(&[], "25 eggs"));
        assert!(!is_right(&[], "You said 20 eggs. Eggs of 25"));
        assert!(is_right(&["reward.grader=integer"], "You said 20 eggs. Eggs of 25"));
        assert!(is_right(&["world.name=market"], "You said 20 eggs. Eggs of 25"));
        assert!(!is_right(&["world.name=market", "reward.grader=solution"], "You said 20 eggs. Eggs of 25"));
        let countdown = QuestionRow { solution: "(3 + 7) x 8 = 80.".into(), ..row.clone() };
        let answer = style.student_answer("t", "8 x (7 + 3) = 80.");
        assert!(super::is_right(style, AnswerRule::Expression, &countdown, &answer));
        let wrong = style.student_answer("t", "8 + 7 + 3 = 80.");
        assert!(!super::is_right(style, AnswerRule::Expression, &countdown, &wrong));
    }

    #[test]
    fn what_is_added_is_weighted_and_kept_apart() {
        let mut config = Config::default();
        config.sampling.max_new_tokens = 20;
        assert!(Adding::of(&config, PromptStyle::stratos()).is_none());
        (config.reward.add.length, config.reward.add.overlong) = (-2.0, -1.0);
        let adding = Adding::of(&config, PromptStyle::stratos()).unwrap();
        let sum = |n_tokens| {
            let written = Written { row: &row(), tokens: &[1, 2], n_tokens, explanation: None };
            adding.sum("correctness", 1.0, &written)
        };
        // 5 of 20 tokens; then 19, which is 3 into the last fifth.
        let short = Sum {
            reward: 0.5,
            parts: vec![("correctness".into(), 1.0), ("length".into(), 0.25), ("overlong".into(), 0.0)],
        };
        assert_eq!(sum(5), short);
        assert_eq!(sum(19).parts[2], ("overlong".into(), 0.75));
        assert!((sum(19).reward - (1.0 - 2.0 * 0.95 - 0.75)).abs() < 1e-6);
    }
}
