//! What a reward is: completions in, verdicts out.
//!
//! Each reward is a file of `rewards/` and a value of `reward.kind`.

use rlt_model::Stop;
use rlt_model::generate::Completion;

use super::sample::{Question, Verdict};
use crate::config::Config;
use crate::dataset::QuestionRow;
use crate::error::Result;
use crate::located::LocatedModel;
use crate::prompts::{ChatText, PromptStyle};
use crate::scorer::Scorer;

/// What every part of a step is told.
#[derive(Clone, Copy)]
pub(super) struct StepContext<'a> {
    /// From 1.
    pub step: u64,
    pub config: &'a Config,
    /// Wording and tags.
    pub style: &'a PromptStyle,
    /// The policy's tokenizer and chat template.
    pub chat: &'a ChatText,
    /// The policy, to ask for log-probabilities.
    pub policy: &'a dyn Scorer,
    pub stop: Stop<'a>,
}

/// A question and what was sampled after its prompt.
#[derive(Clone, Copy)]
pub(super) struct Answered<'a> {
    pub question: &'a Question,
    pub completions: &'a [Completion],
}

impl<'a> Answered<'a> {
    /// Each completion with its question and its place among the question's, from 0.
    pub fn iter(self) -> impl Iterator<Item = (&'a Question, usize, &'a Completion)> {
        let question = self.question;
        self.completions.iter().enumerate().map(move |(place, completion)| (question, place, completion))
    }
}

/// The frozen model of a reward that asks one, with its text side; it shares the policy's vocabulary.
pub(super) struct Student {
    pub model: LocatedModel,
    pub chat: ChatText,
}

/// Gives completions their rewards.
pub(super) trait Reward: Sync {
    /// What its value is called among the parts of a sum.
    fn name(&self) -> &'static str;

    /// What a completion of `row` is sampled after, by a policy whose text side is `chat`.
    ///
    /// # Errors
    /// What chat template and tokenizer report.
    fn prompt(&self, style: &PromptStyle, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>>;

    /// The model that it asks; none for a reward that reads answers.
    fn student(&self) -> Option<&Student>;

    /// A verdict for every completion, group by group in one list, before anything is added to its reward.
    ///
    /// # Errors
    /// What the models report; that it was asked to stop; [`crate::Error::NonFinite`] naming step, row and sample.
    fn verdicts(&self, context: &StepContext, groups: &[Answered]) -> Result<Vec<Verdict>>;
}
