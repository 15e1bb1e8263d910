//! Right answers that a student could have found: Pedagogical RL's reward.
//!
//! The policy is told the solution (`distill.told`) and answers in the student's format; a frozen student reads the answer behind
//! the question alone. The reward is 1 or 0 for the final answer, times how learnable the student finds every step
//! ([`rlt_reward::pedagogy`]). All tokens of the completion count, that which ends the turn included.

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::chat_template::TemplateTime;
use rlt_reward::pedagogy::{learnability, pedagogical_reward, surprise_gap};
use rlt_reward::rlt::{Unscorable, check_finite};

use super::correctness::graded;
use super::rlt::student;
use crate::config::{AnswerRule, Config};
use crate::dataset::QuestionRow;
use crate::error::Result;
use crate::grpo::reward::{Answered, Reward, StepContext, Student};
use crate::grpo::sample::{Reading, Verdict};
use crate::grpo::told::Told;
use crate::progress::Silent;
use crate::prompts::{ChatText, PromptStyle};
use crate::ranks::Holding;
use crate::score::added::answer_rule;

/// Of answers by whoever was told the solution.
pub(super) struct Pedagogical {
    student: Student,
    rule: AnswerRule,
    told: Told,
}

impl Pedagogical {
    pub fn load(
        config: &Config,
        policy_chat: &ChatText,
        time: TemplateTime,
        holding: &Holding,
    ) -> Result<Self> {
        let student = student(config, policy_chat, time, holding)?;
        Ok(Self { student, rule: answer_rule(config), told: Told::of(&config.distill) })
    }

    /// What the student says of every completion, group by group in one list.
    fn readings(&self, context: &StepContext, groups: &[Answered]) -> Result<Vec<Reading>> {
        let StepContext { step, config, style, stop, .. } = *context;
        let Student { model, chat } = &self.student;
        let most = model.config().context();
        let (mut readings, mut asked, mut to_score) = (Vec::new(), Vec::new(), Vec::new());
        for group in groups {
            let prefix = style.student_question_prompt(chat, &group.question.row)?;
            let mut continuations = Vec::new();
            for (_, place, completion) in group.iter() {
                let tokens = prefix.len() + completion.ids.len();
                if tokens > most {
                    let why = Unscorable::TooLong { model: "student", tokens, context: most };
                    readings.push(unread(Some(why)));
                    continue;
                }
                asked.push((
                    readings.len(),
                    format!("step {step}, {}, sample {}", group.question.name(), place + 1),
                ));
                readings.push(unread(None));
                continuations.push(Continuation::whole(completion.ids.clone()));
            }
            if !continuations.is_empty() {
                to_score.push(ScoringGroup { prefix: prefix.into(), continuations });
            }
        }
        let (temperature, tokens) = (config.reward.student_temperature, config.grpo.tokens_per_microbatch);
        let scorer = model.scorer(stop, &Silent);
        let scored = scorer.token_logprobs_beside_best(&to_score, temperature, tokens)?;
        for ((at, name), of_tokens) in asked.into_iter().zip(scored.into_iter().flatten()) {
            let reading = &mut readings[at];
            reading.logprobs = of_tokens.iter().map(|token| token.given).collect();
            check_finite(&name, "student's log-probability", &reading.logprobs)?;
            reading.gaps = of_tokens.iter().map(|token| surprise_gap(token.best, token.given)).collect();
            let reward = &config.reward;
            reading.learnability = learnability(&reading.gaps, reward.spike_lambda, reward.spike_beta);
        }
        Ok(readings)
    }
}

/// Nothing said yet, or nothing to say for a reason.
fn unread(unscorable: Option<Unscorable>) -> Reading {
    Reading { logprobs: Vec::new(), gaps: Vec::new(), learnability: 0.0, unscorable }
}

impl Reward for Pedagogical {
    fn name(&self) -> &'static str {
        "pedagogical"
    }

    fn prompt(&self, style: &PromptStyle, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>> {
        Ok(self.told.prompt(style, chat, row)?.to_vec())
    }

    fn student(&self) -> Option<&Student> {
        Some(&self.student)
    }

    fn verdicts(&self, context: &StepContext, groups: &[Answered]) -> Result<Vec<Verdict>> {
        let unscorable_reward = context.config.reward.settings().unscorable_reward;
        let readings = self.readings(context, groups)?;
        let both = graded(self.rule, context, groups).into_iter().zip(readings);
        Ok(both.map(|(graded, reading)| verdict(graded, reading, unscorable_reward)).collect())
    }
}

/// What a completion earns that was graded and read.
fn verdict(graded: Verdict, reading: Reading, unscorable_reward: f32) -> Verdict {
    let reward = match reading.unscorable {
        None => pedagogical_reward(graded.is_correct == Some(true), reading.learnability),
        Some(_) => unscorable_reward,
    };
    Verdict { reward, reading: Some(Box::new(reading)), ..graded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_right_answer_that_was_read_earns_its_learnability() {
        let earned = |is_correct, unscorable| {
            let graded = Verdict { reward: 1.0, is_correct: Some(is_correct), ..Verdict::default() };
            let reading = Reading { learnability: 0.25, ..unread(unscorable) };
            verdict(graded, reading, -3.0).reward
        };
        assert_eq!((earned(true, None), earned(false, None)), (0.25, 0.0));
        let too_long = Unscorable::TooLong { model: "student", tokens: 9, context: 8 };
        assert_eq!(earned(true, Some(too_long)), -3.0);
    }
}
