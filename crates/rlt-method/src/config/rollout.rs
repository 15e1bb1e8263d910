//! `[rollout]`: completions that a server draws while a policy learns, and how the loss makes up for that.

use rlt_reward::choice::Correction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `rollout.correction`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CorrectionKind {
    /// Every token counts as if the policy itself had drawn it.
    None,
    /// A token counts its ratio of the policy's probability to the sampler's, no more than `rollout.cap`.
    #[default]
    Truncate,
    /// A token counts that ratio within `rollout.mask_low` to `rollout.mask_high`, and nothing outside.
    Mask,
}

/// `[rollout]`. It is about policies that a server draws from; the own engine draws as the policy computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutConfig {
    /// How the loss makes up for the difference.
    pub correction: CorrectionKind,
    /// For `truncate`.
    pub cap: f32,
    /// For `mask`.
    pub mask_low: f32,
    /// For `mask`.
    pub mask_high: f32,
    /// `mismatch_outside_share` counts tokens whose ratio is further from 1 than this.
    pub band: f32,
    /// Steps whose completions are drawn while the one before is learnt from, by its weights: 0 or 1.
    pub steps_ahead: usize,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        let correction = CorrectionKind::default();
        Self { correction, cap: 2.0, mask_low: 0.5, mask_high: 5.0, band: 0.1, steps_ahead: 0 }
    }
}

impl RolloutConfig {
    /// What the equations are told.
    pub fn correction(&self) -> Correction {
        match self.correction {
            CorrectionKind::None => Correction::None,
            CorrectionKind::Truncate => Correction::Truncate { cap: self.cap },
            CorrectionKind::Mask => Correction::Mask { low: self.mask_low, high: self.mask_high },
        }
    }
}
