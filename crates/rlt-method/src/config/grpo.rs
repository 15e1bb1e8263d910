//! `[grpo]`: the loop, the objective with its defaults, and which settings compose.

pub use rlt_reward::choice::{Baseline, KlToReference, LossMean, Objective, ObjectiveSettings, Scale};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// `[grpo]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoConfig {
    /// Batches of completions; each is learnt from in `epochs` times `minibatches` optimizer steps.
    pub steps: usize,
    /// Questions drawn per step.
    pub questions_per_step: usize,
    /// Completions sampled per question (G).
    pub group_size: usize,
    /// What is maximised.
    pub objective: Objective,
    /// What is subtracted from a reward; unset, the objective's.
    pub baseline: Option<Baseline>,
    /// What the advantage is divided by; unset, the objective's.
    pub scale: Option<Scale>,
    /// How the losses of tokens become one; unset, the objective's.
    pub loss_mean: Option<LossMean>,
    /// The ratio of new to old policy counts as no less than 1 minus this; unset, the objective's.
    pub clip_low: Option<f32>,
    /// The ratio of new to old policy counts as no more than 1 plus this; unset, the objective's.
    pub clip_high: Option<f32>,
    /// Leave completions that were cut at the length limit out of the loss; unset, the objective's.
    pub mask_truncated: Option<bool>,
    /// How often further questions are drawn in place of groups whose rewards are all equal; unset, the objective's.
    pub resample_rounds: Option<usize>,
    /// Passes over each batch.
    pub epochs: usize,
    /// Optimizer steps in each pass; they share the questions of the batch evenly.
    pub minibatches: usize,
    /// Weight of the KL term to the reference model; 0 keeps no reference.
    pub beta: f32,
    /// Estimator of the KL term.
    pub kl: KlToReference,
    /// Every this many steps the reference moves towards the policy; 0 never. Unset, 32, and 0 where the reference cannot
    /// move (with `lora.rank`).
    pub reference_sync_every: Option<usize>,
    /// Share of the policy in the synchronised reference.
    pub reference_mixup: f32,
    /// Tokens in memory at once; larger batches are split and their gradients summed.
    pub tokens_per_microbatch: usize,
    /// Completions written to `samples/` per logged step.
    pub samples_logged: usize,
    /// Write samples every this many steps.
    pub samples_every: usize,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self {
            steps: 125,
            questions_per_step: 16,
            group_size: 64,
            objective: Objective::Grpo,
            baseline: None,
            scale: None,
            loss_mean: None,
            clip_low: None,
            clip_high: None,
            mask_truncated: None,
            resample_rounds: None,
            epochs: 1,
            minibatches: 1,
            beta: 0.04,
            kl: KlToReference::K3,
            reference_sync_every: None,
            reference_mixup: 0.9,
            tokens_per_microbatch: 8192,
            samples_logged: 8,
            samples_every: 5,
        }
    }
}

impl GrpoConfig {
    /// The objective with its defaults filled in.
    pub fn objective_settings(&self) -> ObjectiveSettings {
        let default = ObjectiveSettings::of(self.objective);
        ObjectiveSettings {
            objective: self.objective,
            baseline: self.baseline.unwrap_or(default.baseline),
            scale: self.scale.unwrap_or(default.scale),
            loss_mean: self.loss_mean.unwrap_or(default.loss_mean),
            clip_low: self.clip_low.unwrap_or(default.clip_low),
            clip_high: self.clip_high.unwrap_or(default.clip_high),
            mask_truncated: self.mask_truncated.unwrap_or(default.mask_truncated),
            resample_rounds: self.resample_rounds.unwrap_or(default.resample_rounds),
            beta: self.beta,
            kl: self.kl,
        }
    }

    /// Optimizer steps that each batch is learnt from in.
    pub fn updates_per_step(&self) -> usize {
        self.epochs * self.minibatches
    }

    /// Refuses settings that do not compose.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the keys and says why.
    pub(super) fn check_composition(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::Usage(what.into()));
        let settings = self.objective_settings();
        match self.objective {
            Objective::Gspo | Objective::Rloo if self.loss_mean.is_some() => {
                return refuse(
                    "grpo.loss_mean does not go with grpo.objective gspo or rloo: they have one ratio a completion, not \
                     one a token; leave it out",
                );
            }
            Objective::Rloo if settings.baseline != Baseline::LeaveOneOut => {
                return refuse(
                    "grpo.objective rloo is its baseline, leave_one_out; leave grpo.baseline out or choose another \
                     objective",
                );
            }
            Objective::Cispo if self.clip_low.is_some() => {
                return refuse(
                    "grpo.clip_low does not go with grpo.objective cispo: only large weights are bounded; set \
                     grpo.clip_high",
                );
            }
            _ => {}
        }
        let of_group = matches!(settings.baseline, Baseline::Group | Baseline::LeaveOneOut);
        if settings.scale == Scale::Group && !of_group {
            return refuse(
                "grpo.scale group needs grpo.baseline group or leave_one_out: a group of equal rewards has no spread to \
                 divide by; set grpo.scale to batch or none",
            );
        }
        if settings.scale != Scale::None && settings.baseline == Baseline::None {
            return refuse(
                "grpo.scale needs a baseline: without one, equal rewards would be divided by nothing; set grpo.scale \
                 to none",
            );
        }
        if settings.resample_rounds > 0 && !of_group {
            return refuse(
                "grpo.resample_rounds needs grpo.baseline group or leave_one_out: with others, groups of equal rewards \
                 teach too; set it to 0",
            );
        }
        if !self.questions_per_step.is_multiple_of(self.minibatches) {
            return Err(Error::Usage(format!(
                "grpo.minibatches is {}; it must divide grpo.questions_per_step, {}",
                self.minibatches, self.questions_per_step
            )));
        }
        Ok(())
    }
}
