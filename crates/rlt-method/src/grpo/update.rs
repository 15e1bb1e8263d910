//! What a batch of completions does to the weights: reference log-probabilities, advantages, then the optimizer
//! steps, `grpo.epochs` passes of `grpo.minibatches` each.

use rlt_engine::head::Kl;
use rlt_model::Stop;
use rlt_model::training_pass::Keep;

use super::distill::Distillation;
use super::gradient::{Batch, LaneOfBatch, LossInput, StepLoss};
use super::sample::{Group, Sample};
use crate::config::{Config, KlToReference, ObjectiveSettings};
use crate::error::{Error, Result};
use crate::ranks::{agree, dealt, gather};
use crate::training::run::Weights;
use crate::training::{GradientSum, SharedLanes};
use rlt_reward::advantage::advantages;
use rlt_reward::choice::Correction;
use rlt_reward::objective::{importance_weights, reward_less_kl};

/// How batches are learnt from.
#[derive(Debug, Clone)]
pub(crate) struct Learner {
    pub settings: ObjectiveSettings,
    epochs: usize,
    minibatches: usize,
    temperature: f32,
    correction: Correction,
    longest: usize,
    tokens_per_microbatch: usize,
    /// In which partial sums gradients are added up.
    lanes: SharedLanes,
    /// What to keep between the passes of a micro-batch.
    pub keep: Keep,
    /// The loss of a distillation, which takes the place of the objective.
    distilled: Option<Kl>,
}

/// What learning from a batch came to.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    /// One a completion, group by group; none in distillation.
    pub advantages: Vec<f32>,
    /// One an optimizer step.
    pub losses: Vec<StepLoss>,
    /// Global norm of each optimizer step's gradient before clipping.
    pub grad_norms: Vec<f64>,
    /// Of the last optimizer step; none where every completion was left out.
    pub learning_rate: Option<f64>,
    /// Completions that were left out of the loss.
    pub masked: usize,
    /// Mean of what [`KlToReference::K1`] took from the rewards.
    pub kl_penalty: Option<f64>,
    /// The loss of a distillation, which has neither advantages nor an objective.
    pub divergence: Option<f64>,
}

impl Learner {
    pub fn new(config: &Config, lanes: impl Into<SharedLanes>) -> Self {
        Self {
            settings: config.grpo.objective_settings(),
            epochs: config.grpo.epochs,
            minibatches: config.grpo.minibatches,
            temperature: config.sampling.temperature,
            correction: config.rollout.correction(),
            longest: config.sampling.max_new_tokens,
            tokens_per_microbatch: config.grpo.tokens_per_microbatch,
            lanes: lanes.into(),
            keep: config.memory.recompute.into(),
            distilled: None,
        }
    }

    /// One that learns from the divergence between the policy and the reference model, which is told the solution.
    #[must_use]
    pub fn distilling(self, config: &Config) -> Self {
        Self { distilled: Some(config.distill.divergence.into()), ..self }
    }

    /// Learns from the groups of a step, all of the same size, which all ranks have. `gradients` is where they are summed. `stop` is looked
    /// at before every micro-batch of the first optimizer step; from then on the weights are no longer those of the step
    /// before, and it is done to its end.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] naming step, row and sample, or step and weight; that it was asked to stop, with the
    /// weights as they were.
    pub fn learn(
        &self,
        step: u64,
        groups: &[&Group],
        weights: &mut Weights,
        gradients: &mut GradientSum,
        stop: Stop,
    ) -> Result<Update> {
        if let Some(divergence) = self.distilled {
            return self.distil(step, groups, weights, gradients, divergence, stop);
        }
        let reference = self.reference_logprobs(groups, weights, stop)?;
        let reference_of = |completion: usize| reference.get(completion).map(Vec::as_slice);
        let samples = || groups.iter().flat_map(|group| &group.samples);
        let mut rewards: Vec<f32> = samples().map(|sample| sample.verdict.reward).collect();
        let mut kl_penalty = None;
        if self.settings.kl == KlToReference::K1 && !reference.is_empty() {
            let less_kl = samples().zip(&reference).map(|(sample, reference)| {
                reward_less_kl(
                    sample.verdict.reward,
                    self.settings.beta,
                    &sample.completion.logprobs,
                    reference,
                )
            });
            let less_kl: Vec<f32> = less_kl.collect();
            let taken = rewards.iter().zip(&less_kl).map(|(&all, &less)| f64::from(all) - f64::from(less));
            kl_penalty = Some(taken.sum::<f64>() / rewards.len() as f64);
            rewards = less_kl;
        }
        let importance: Vec<Vec<f32>> = samples().map(|sample| self.importance_weights(sample)).collect();
        let weights_of =
            |place: usize| Some(importance[place].as_slice()).filter(|weights| !weights.is_empty());
        let group_size = groups.first().map_or(1, |group| group.samples.len());
        let advantages = advantages(&rewards, group_size, &self.settings);

        let counts = |sample: &Sample| !(self.settings.mask_truncated && sample.is_truncated());
        let masked = samples().filter(|sample| !counts(sample)).count();
        let mut update = Update {
            advantages,
            losses: vec![],
            grad_norms: vec![],
            learning_rate: None,
            masked,
            kl_penalty,
            divergence: None,
        };
        let per_step = groups.len().div_ceil(self.minibatches);
        for (minibatch, part) in (0..self.epochs).flat_map(|_| groups.chunks(per_step).enumerate()) {
            let first = minibatch * per_step * group_size;
            let of_part =
                part.iter().flat_map(|group| group.samples.iter().enumerate().map(move |s| (group, s)));
            let completions = of_part.enumerate().filter(|(_, (_, (_, sample)))| counts(sample)).map(
                |(place, (group, (index, sample)))| LossInput {
                    name: format!("{}, sample {}", group.question.name(), index + 1),
                    advantage: update.advantages[first + place],
                    old: &sample.completion.logprobs,
                    reference: reference_of(first + place),
                    weights: weights_of(first + place),
                },
            );
            let batch = Batch {
                step,
                groups: part.iter().filter_map(|group| group.to_score(counts)).collect(),
                completions: completions.collect(),
                lanes: self.lanes_of(part, counts),
                settings: &self.settings,
                temperature: self.temperature,
                longest: self.longest,
                tokens_per_microbatch: self.tokens_per_microbatch,
                keep: self.keep,
                ranks: self.lanes.ranks(),
            };
            if batch.completions.is_empty() {
                continue;
            }
            let stop = if update.losses.is_empty() { stop } else { Stop::never() };
            let loss = batch.gradient(&weights.decoder, &self.lanes, gradients, stop)?;
            let done = weights.optimizer.update(&mut weights.decoder, gradients.total())?;
            update.losses.push(loss);
            update.grad_norms.push(done.grad_norm);
            update.learning_rate = Some(done.learning_rate);
        }
        Ok(update)
    }

    fn distil(
        &self,
        step: u64,
        groups: &[&Group],
        weights: &mut Weights,
        gradients: &mut GradientSum,
        divergence: Kl,
        stop: Stop,
    ) -> Result<Update> {
        let teacher =
            weights.reference.as_ref().ok_or_else(|| Error::Failed("there is no teacher".into()))?;
        let batch = Distillation {
            step,
            groups,
            divergence,
            teacher,
            temperature: self.temperature,
            tokens_per_microbatch: self.tokens_per_microbatch,
            keep: self.keep,
            ranks: self.lanes.ranks(),
        };
        let loss = batch.gradient(&weights.decoder, &self.lanes, gradients, stop)?;
        let done = weights.optimizer.update(&mut weights.decoder, gradients.total())?;
        Ok(Update {
            advantages: vec![],
            losses: vec![],
            grad_norms: vec![done.grad_norm],
            learning_rate: Some(done.learning_rate),
            masked: 0,
            kl_penalty: None,
            divergence: Some(loss),
        })
    }

    /// The lanes of a minibatch: each has neighbouring groups by their place, of which only those with a sample that `counts`
    /// are in the batch.
    fn lanes_of(&self, part: &[&Group], counts: impl Fn(&Sample) -> bool) -> Vec<LaneOfBatch> {
        let (mut groups, mut completions) = (0, 0);
        let of_lane = |lane: usize| {
            let (first_group, first_completion) = (groups, completions);
            for group in &part[self.lanes.part(lane, part.len())] {
                let counted = group.samples.iter().filter(|sample| counts(sample)).count();
                groups += usize::from(counted > 0);
                completions += counted;
            }
            LaneOfBatch { groups: first_group..groups, completions: first_completion..completions }
        };
        (0..self.lanes.count()).map(of_lane).collect()
    }

    /// What the tokens of a completion count whose sampler was not the policy itself; empty where it was.
    pub fn importance_weights(&self, sample: &Sample) -> Vec<f32> {
        if sample.behaviour.is_empty() {
            return Vec::new();
        }
        importance_weights(
            self.settings.objective,
            self.correction,
            &sample.completion.logprobs,
            &sample.behaviour,
        )
    }

    /// The reference's log-probabilities of all completions, group by group; empty without a reference.
    fn reference_logprobs(&self, groups: &[&Group], weights: &Weights, stop: Stop) -> Result<Vec<Vec<f32>>> {
        let Some(reference) = &weights.reference else { return Ok(Vec::new()) };
        let groups: Vec<_> = groups.iter().filter_map(|group| group.to_score(|_| true)).collect();
        let ranks = self.lanes.ranks();
        let own = &groups[dealt(ranks, groups.len())];
        let logprobs =
            reference.token_logprobs_unless(stop, own, self.temperature, self.tokens_per_microbatch);
        let logprobs = agree(ranks, logprobs.map_err(Error::from))?;
        gather(ranks, logprobs.into_iter().flatten().collect())
    }
}
