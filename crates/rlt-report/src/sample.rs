//! One sampled completion with its ledger, and what its reward hung on.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One sampled completion with its per-token ledger: a row of `samples/step-000012.jsonl` and of
/// `demo.json`. Unknown keys are ignored. Log-probabilities and D_j are in nats.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Optimizer step that it was sampled for, from 1; 0 when it is not of a training step.
    pub step: u64,
    /// The question.
    pub question: String,
    /// The reference solution that the reward scores.
    pub solution: String,
    /// What the model wrote, tags included.
    pub completion: String,
    /// The part of it that is the explanation.
    pub explanation: String,
    /// `stop`, or `length` when it was cut off.
    pub finish: String,
    /// Its reward; none when it cannot be scored.
    pub reward: Option<f64>,
    /// Its advantage within its group.
    pub advantage: Option<f64>,
    /// The parts of the reward, by the names of the row schema of `rlt score`.
    pub parts: Map<String, Value>,
    /// Text of each think token; together they are the explanation.
    pub think_tokens: Vec<String>,
    /// D_j of each think token.
    pub d_j: Vec<f64>,
    /// log pi_T of each think token.
    pub teacher_logprobs: Vec<f64>,
    /// log pi_S of each think token.
    pub student_logprobs: Vec<f64>,
    /// Text of each scored solution token.
    pub solution_tokens: Vec<String>,
    /// log pi_S of each solution token after the explanation.
    pub solution_logprobs: Vec<f64>,
}

/// What one sample's reward hung on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Extremes {
    pub step: u64,
    /// The least likely solution token and its log-probability, nats.
    pub solution: Option<(String, f64)>,
    /// The think token with the largest D, and it, nats.
    pub think: Option<(String, f64)>,
}

impl Extremes {
    pub fn of(sample: &Sample) -> Self {
        let token = |texts: &[String], values: &[f64], sign: f64| {
            let better = |a: (usize, f64), b: (usize, f64)| if sign * b.1 > sign * a.1 { b } else { a };
            let (at, value) = values.iter().copied().enumerate().reduce(better)?;
            Some((texts.get(at)?.clone(), value))
        };
        Self {
            step: sample.step,
            solution: token(&sample.solution_tokens, &sample.solution_logprobs, -1.0),
            think: token(&sample.think_tokens, &sample.d_j, 1.0),
        }
    }
}
