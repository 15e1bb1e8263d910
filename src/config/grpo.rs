//! `[grpo]`: the loop, the objective with its defaults, and which settings compose.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// `grpo.objective`: what is maximised. Each sets defaults for the keys after it ([`GrpoConfig::objective_settings`]);
/// docs/OBJECTIVES.md has the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// `[grpo]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Leave completions out of the loss that were cut at the length limit; unset, the objective's.
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
    /// move ([`super::Config::reference_sync_every`]).
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

/// `grpo.reference_sync_every` where it is not set (TR-DPO, arXiv 2404.09656; the paper's).
const SYNC_EVERY: usize = 32;

impl super::Config {
    /// Every this many steps the reference moves towards the policy; 0 never. Beside an adapter the reference is the base
    /// model, which cannot move.
    pub fn reference_sync_every(&self) -> usize {
        let unset = if self.lora.rank > 0 { 0 } else { SYNC_EVERY };
        self.grpo.reference_sync_every.unwrap_or(unset)
    }

    /// The folder of a reference model of its own that never moves: it is read anew whenever the run goes on.
    pub(crate) fn fixed_reference(&self) -> Option<&std::path::PathBuf> {
        let path = &self.model.reference;
        let is_read_anew = self.grpo.beta > 0.0 && self.reference_sync_every() == 0;
        (is_read_anew && !path.as_os_str().is_empty()).then_some(path)
    }
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

impl GrpoConfig {
    /// The objective with its defaults filled in.
    ///
    /// Clips: 0.2 on both sides as in PPO (arXiv 1707.06347), DAPO's 0.28 above, GSPO's 3e-4 and 4e-4 (section 5.1).
    /// MiniMax-M1 gives no bound for CISPO's weights; 5 is that of arXiv 2510.13786.
    pub fn objective_settings(&self) -> ObjectiveSettings {
        use {Baseline as B, LossMean as M, Objective as O, Scale as S};
        let (baseline, scale, loss_mean, clip_low, clip_high, mask_truncated, resample_rounds) =
            match self.objective {
                O::Grpo => (B::Group, S::Group, M::Sequence, 0.2, 0.2, false, 0),
                O::DrGrpo => (B::Group, S::None, M::Constant, 0.2, 0.2, false, 0),
                O::Dapo => (B::Group, S::Group, M::Token, 0.2, 0.28, true, 3),
                O::Gspo => (B::Group, S::Group, M::Sequence, 3e-4, 4e-4, false, 0),
                O::Cispo => (B::Group, S::Group, M::Token, f32::INFINITY, 4.0, false, 0),
                O::Rloo => (B::LeaveOneOut, S::None, M::Sum, 0.2, 0.2, false, 0),
            };
        ObjectiveSettings {
            objective: self.objective,
            baseline: self.baseline.unwrap_or(baseline),
            scale: self.scale.unwrap_or(scale),
            loss_mean: self.loss_mean.unwrap_or(loss_mean),
            clip_low: self.clip_low.unwrap_or(clip_low),
            clip_high: self.clip_high.unwrap_or(clip_high),
            mask_truncated: self.mask_truncated.unwrap_or(mask_truncated),
            resample_rounds: self.resample_rounds.unwrap_or(resample_rounds),
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
