//! `[distill]`: on-policy distillation from a teacher that is told the solution.

use rlt_engine::head::Kl;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Stands for the row's question in `distill.told`.
pub(crate) const QUESTION: &str = "{question}";
/// Stands for the row's solution.
pub(crate) const SOLUTION: &str = "{solution}";
/// Stands for the row's reasoning trace.
pub(crate) const TRACE: &str = "{trace}";

/// `distill.divergence`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DistillDivergence {
    /// KL(student || teacher): the student gives up what the teacher would not say.
    #[default]
    Reverse,
    /// KL(teacher || student): the student takes up all that the teacher would say.
    Forward,
}

impl From<DistillDivergence> for Kl {
    fn from(divergence: DistillDivergence) -> Self {
        match divergence {
            DistillDivergence::Reverse => Self::Reverse,
            DistillDivergence::Forward => Self::Forward,
        }
    }
}

/// `[distill]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DistillConfig {
    /// Which divergence between student and teacher is the loss of a token, over the whole vocabulary.
    pub divergence: DistillDivergence,
    /// What the teacher is told in the place of the question: `{question}`, `{solution}` and `{trace}` stand for the row's
    /// question, solution and reasoning trace. System prompt and completion are the student's. It is also what the policy
    /// is told that writes under `reward.kind = "pedagogical"`.
    pub told: String,
}

impl Default for DistillConfig {
    fn default() -> Self {
        Self {
            divergence: DistillDivergence::Reverse,
            told: format!(
                "{QUESTION}\n\nYou have seen a correct solution to this:\n\n{SOLUTION}\n\nSolve it yourself, step by step, as \
                 somebody would who has not seen it."
            ),
        }
    }
}
