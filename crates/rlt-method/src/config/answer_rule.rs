//! `reward.grader`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `reward.grader`: what makes an answer right. It is the same rule for every row, whatever its question reads like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerRule {
    /// The solution section says what the row's solution says (as `rlt eval` grades a file of rows).
    Solution,
    /// The last whole number in the solution section is the row's (the world `market`).
    Integer,
    /// The expression in the solution section makes the target of the row's solution, `EXPRESSION = TARGET`, from its numbers
    /// (the world `numbers`).
    Expression,
}
