//! Which objective is maximised: what it is made of, each part a choice of its own. Names in brackets are the keys of a run's
//! configuration; docs/OBJECTIVES.md has the table.

use serde::{Deserialize, Serialize};

/// `grpo.objective`: what is maximised. Each sets defaults for the keys after it ([`ObjectiveSettings::of`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Group relative policy optimisation (arXiv 2402.03300): the paper's.
    #[default]
    Grpo,
    /// GRPO without the two divisions that favour short and easy answers (arXiv 2503.20783).
    DrGrpo,
    /// Mean over all tokens, higher clip above, groups with equal rewards drawn again (arXiv 2503.14476).
    Dapo,
    /// One ratio a completion, the geometric mean of its tokens' (arXiv 2507.18071).
    Gspo,
    /// Every token keeps its gradient; its importance weight is bounded (arXiv 2506.13585).
    Cispo,
    /// REINFORCE with the mean of the other completions as the baseline (arXiv 2402.14740).
    Rloo,
}

/// `grpo.baseline`: what is subtracted from a completion's reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The mean of its group.
    Group,
    /// The mean of the others of its group.
    LeaveOneOut,
    /// The mean of the whole batch (arXiv 2501.03262).
    Batch,
    /// Nothing.
    None,
}

/// `grpo.scale`: what the difference to the baseline is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// The standard deviation of its group's rewards.
    Group,
    /// The standard deviation of the batch's rewards (arXiv 2508.08221).
    Batch,
    /// Nothing.
    None,
}

/// `grpo.loss_mean`: how the losses of the tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LossMean {
    /// The mean over the tokens of each completion, then over completions.
    Sequence,
    /// The mean over all tokens: a long completion counts more.
    Token,
    /// The sum over the tokens of each completion divided by `sampling.max_new_tokens`, then the mean over
    /// completions: every token counts the same in every batch.
    Constant,
    /// The sum over the tokens of each completion, then the mean over completions.
    Sum,
}

/// `grpo.kl`: the estimator of the divergence from the reference model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KlToReference {
    /// The log-ratio, summed over a completion and subtracted from its reward. (As a term of the loss its gradient
    /// would be zero in the mean.)
    K1,
    /// Half the squared log-ratio, in the loss: its gradient is that of the divergence.
    K2,
    /// Schulman's estimator, in the loss: the paper's.
    #[default]
    K3,
}

/// An objective with every part of it settled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObjectiveSettings {
    /// What is maximised.
    pub objective: Objective,
    /// What is subtracted from a reward.
    pub baseline: Baseline,
    /// What the advantage is divided by.
    pub scale: Scale,
    /// How the losses of tokens become one.
    pub loss_mean: LossMean,
    /// The ratio counts as no less than 1 minus this (CISPO: no lower bound, infinite).
    pub clip_low: f32,
    /// The ratio counts as no more than 1 plus this.
    pub clip_high: f32,
    /// Whether completions that were cut are left out of the loss.
    pub mask_truncated: bool,
    /// How often groups with equal rewards are replaced.
    pub resample_rounds: usize,
    /// Weight of the KL term.
    pub beta: f32,
    /// Estimator of the KL term.
    pub kl: KlToReference,
}

impl ObjectiveSettings {
    /// An objective as its source has it, with the paper's KL term (beta 0.04, k3).
    ///
    /// Clips: 0.2 on both sides as in PPO (arXiv 1707.06347), DAPO's 0.28 above, GSPO's 3e-4 and 4e-4 (section 5.1).
    /// MiniMax-M1 gives no bound for CISPO's weights; 5 is that of arXiv 2510.13786.
    pub fn of(objective: Objective) -> Self {
        use {Baseline as B, LossMean as M, Objective as O, Scale as S};
        let (baseline, scale, loss_mean, clip_low, clip_high, mask_truncated, resample_rounds) =
            match objective {
                O::Grpo => (B::Group, S::Group, M::Sequence, 0.2, 0.2, false, 0),
                O::DrGrpo => (B::Group, S::None, M::Constant, 0.2, 0.2, false, 0),
                O::Dapo => (B::Group, S::Group, M::Token, 0.2, 0.28, true, 3),
                O::Gspo => (B::Group, S::Group, M::Sequence, 3e-4, 4e-4, false, 0),
                O::Cispo => (B::Group, S::Group, M::Token, f32::INFINITY, 4.0, false, 0),
                O::Rloo => (B::LeaveOneOut, S::None, M::Sum, 0.2, 0.2, false, 0),
            };
        Self {
            objective,
            baseline,
            scale,
            loss_mean,
            clip_low,
            clip_high,
            mask_truncated,
            resample_rounds,
            beta: 0.04,
            kl: KlToReference::K3,
        }
    }
}

/// How the loss makes up for a sampler that is not the policy which learns: another program's arithmetic, or earlier weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Correction {
    /// Not at all.
    None,
    /// Each token counts its importance ratio, no more than `cap`.
    Truncate {
        /// 1 or more.
        cap: f32,
    },
    /// Each token counts its importance ratio where that is within a band, and nothing outside.
    Mask {
        /// Lower end, at most 1.
        low: f32,
        /// Upper end, at least 1.
        high: f32,
    },
}
