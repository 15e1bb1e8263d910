//! What the RLT reward of an explanation can be told, with the paper's values as defaults. Names in brackets are the keys of
//! a run's configuration.

use serde::{Deserialize, Serialize};

/// What D_j is (`reward.kl`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// The sampled token's log-ratio (the official code's).
    #[default]
    Sampled,
    /// Schulman's non-negative estimator.
    K3,
    /// The divergence over the whole vocabulary, KL(pi_T || pi_S): what the paper writes.
    Full,
}

/// How the values of the tokens become one (`reward.solution_reduction`, `reward.kl_reduction`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their mean (the paper's).
    #[default]
    Mean,
    /// Their sum: longer texts weigh more.
    Sum,
    /// Their median: a few odd tokens weigh nothing.
    Median,
}

/// Every setting of [`crate::rlt::rlt_reward`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RltSettings {
    /// Weight of the minimum in r_SS against its mean (`reward.alpha_min`).
    pub alpha_min: f32,
    /// Weight of the maximum in r_KL against its mean (`reward.alpha_max`).
    pub alpha_max: f32,
    /// Weight of r_SS (`reward.solution_weight`).
    pub solution_weight: f32,
    /// Weight of r_KL (`reward.lambda`).
    pub lambda: f32,
    /// Estimator of D_j (`reward.kl`).
    pub kl: KlEstimator,
    /// What r_SS takes of the solution's log-probabilities, beside their minimum (`reward.solution_reduction`).
    pub solution_reduction: Reduction,
    /// What r_KL takes of the D_j, beside their maximum (`reward.kl_reduction`).
    pub kl_reduction: Reduction,
    /// A solution token's log-probability counts as no less than minus this many nats; 0 never clips
    /// (`reward.logprob_clip`).
    pub logprob_clip: f32,
    /// |D_j| counts as no more than this many nats; 0 never clips (`reward.kl_clip`).
    pub kl_clip: f32,
    /// |reward| is no more than this; 0 never clips (`reward.reward_clip`).
    pub reward_clip: f32,
    /// Added when the end tag is missing (`reward.format_penalty`).
    pub format_penalty: f32,
    /// The reward of what cannot be scored (`reward.unscorable_reward`).
    pub unscorable_reward: f32,
}

impl Default for RltSettings {
    /// The paper's: alpha 0.01, lambda 3, a penalty of -1 (arXiv 2506.08388 and its code).
    fn default() -> Self {
        Self {
            alpha_min: 0.01,
            alpha_max: 0.01,
            solution_weight: 1.0,
            lambda: 3.0,
            kl: KlEstimator::Sampled,
            solution_reduction: Reduction::Mean,
            kl_reduction: Reduction::Mean,
            logprob_clip: 0.0,
            kl_clip: 0.0,
            reward_clip: 0.0,
            format_penalty: -1.0,
            unscorable_reward: -1.0,
        }
    }
}
