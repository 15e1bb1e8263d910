//! The gradient of one optimizer step: the loss of its completions, micro-batch by micro-batch.

use std::ops::Range;

use rlt_model::batch::{GroupPart, PackedBatch, ScoringGroup, micro_batches};
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Gradients, Stop};

use crate::config::ObjectiveSettings;
use crate::error::{Error, Result};
use crate::ranks::wire_fields;
use crate::training::fault::{self, Stage};
use crate::training::{GradientSum, LaneWork, SharedLanes};
use rlt_ranks::Ranks;
use rlt_reward::objective::{Counted, Term, has_sequence_ratio, k3, kl_term, policy_terms, token_weight};

/// What one optimizer step learns from.
pub(super) struct Batch<'a> {
    pub step: u64,
    /// Prompts with their completions, every completion token scored.
    pub groups: Vec<ScoringGroup>,
    /// What is known of each completion, group by group.
    pub completions: Vec<LossInput<'a>>,
    /// Which of them belong to each lane, in their order.
    pub lanes: Vec<LaneOfBatch>,
    pub settings: &'a ObjectiveSettings,
    /// That of sampling.
    pub temperature: f32,
    /// `sampling.max_new_tokens`.
    pub longest: usize,
    pub tokens_per_microbatch: usize,
    /// What to keep between the passes.
    pub keep: Keep,
    /// Who shares it.
    pub ranks: &'a Ranks,
}

/// A lane's share of a batch.
#[derive(Debug, Clone, Default)]
pub(super) struct LaneOfBatch {
    /// Its groups.
    pub groups: Range<usize>,
    /// Their completions.
    pub completions: Range<usize>,
}

/// What the loss takes of one completion. Log-probabilities are one a token, nats.
#[derive(Debug, Clone)]
pub(super) struct LossInput<'a> {
    /// Names it in errors ("row 9, sample 2").
    pub name: String,
    pub advantage: f32,
    /// Recorded while sampling.
    pub old: &'a [f32],
    /// The reference model's, where there is a KL term.
    pub reference: Option<&'a [f32]>,
    /// What each token's policy term counts, where another drew it.
    pub weights: Option<&'a [f32]>,
}

/// What a loss came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct StepLoss {
    pub loss: f64,
    /// Mean k3 over the tokens of each completion, then over completions, nats; none without a reference.
    pub kl_to_reference: Option<f64>,
    /// Share of the tokens whose ratio a bound holds.
    pub clipped_share: f64,
    /// Largest |log pi - log pi_old| of a token, nats: rounding alone as long as the policy is the one that sampled.
    pub log_ratio_max: f64,
}

wire_fields!(StepLoss { loss, kl_to_reference, clipped_share, log_ratio_max });

impl StepLoss {
    /// This and what another lane of the batch came to.
    fn and(&self, other: &Self) -> Self {
        let kl = match (self.kl_to_reference, other.kl_to_reference) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self {
            loss: self.loss + other.loss,
            kl_to_reference: kl,
            clipped_share: self.clipped_share + other.clipped_share,
            log_ratio_max: self.log_ratio_max.max(other.log_ratio_max),
        }
    }
}

/// One completion token, in the order in which they are computed.
#[derive(Clone, Copy)]
struct Token {
    completion: usize,
    /// Its place in the completion.
    index: usize,
    weight: f64,
}

impl Batch<'_> {
    /// The gradient of this rank's lanes into `sum`, lane by lane, micro-batch by micro-batch, and the loss of all ranks'. A
    /// group's prompt is computed once in every micro-batch that has a part of it.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming step, row and sample, or that it was asked to stop, which it looks at before every
    /// micro-batch, on all ranks where it is so on one; `sum` is incomplete then.
    pub fn gradient(
        &self,
        policy: &Decoder,
        lanes: &SharedLanes,
        sum: &mut GradientSum,
        stop: Stop,
    ) -> Result<StepLoss> {
        let tokens = self.tokens();
        let lanes_of_batch = self.lanes.iter().map(|lane| CompletionsOfLane {
            first: tokens.partition_point(|token| token.completion < lane.completions.start),
            parts: micro_batches(&self.groups[lane.groups.clone()], self.tokens_per_microbatch),
        });
        let work =
            BatchInLanes { batch: self, tokens: &tokens, lanes: lanes_of_batch.collect(), policy, stop };
        let of_lanes = sum.of_lanes(lanes, &work)?.into_iter().map(|of_lane| of_lane.loss);
        let loss = lanes.fold(of_lanes.collect(), |sum, other| *sum = sum.and(other))?;
        let share = 1.0 / (tokens.len().max(1) as f64);
        Ok(StepLoss { clipped_share: loss.clipped_share * share, ..loss })
    }

    fn tokens(&self) -> Vec<Token> {
        let lengths: Vec<usize> = self.completions.iter().map(|completion| completion.old.len()).collect();
        let counted =
            Counted { completions: lengths.len(), tokens: lengths.iter().sum(), longest: self.longest };
        let of = |(completion, &n_tokens): (usize, &usize)| {
            let weight = token_weight(self.settings.loss_mean, n_tokens, counted);
            (0..n_tokens).map(move |index| Token { completion, index, weight })
        };
        lengths.iter().enumerate().flat_map(of).collect()
    }

    /// Policy term, and value and derivative of the KL term, of the first `logprobs.len()` of `tokens`.
    fn terms(&self, tokens: &[Token], logprobs: &[f32]) -> Vec<(Term, (f64, f64))> {
        let mut terms = Vec::with_capacity(logprobs.len());
        for run in tokens[..logprobs.len()].chunk_by(|a, b| a.completion == b.completion) {
            let (completion, places) = (&self.completions[run[0].completion], run[0].index..);
            let logprobs = &logprobs[terms.len()..][..run.len()];
            let old = &completion.old[places.clone()][..run.len()];
            let policy = policy_terms(self.settings, completion.advantage, logprobs, old);
            let kl = |i: usize| {
                let reference = completion.reference.map(|reference| reference[places.start + i]);
                reference.map_or((0.0, 0.0), |reference| kl_term(self.settings.kl, logprobs[i], reference))
            };
            let counted = |(i, term): (usize, Term)| match completion.weights {
                Some(weights) => term.counted(weights[places.start + i].into()),
                None => term,
            };
            terms.extend(policy.into_iter().enumerate().map(|(i, term)| (counted((i, term)), kl(i))));
        }
        terms
    }

    /// Adds the losses of the first `logprobs.len()` of `tokens` to `sums` and returns the derivative by each
    /// log-probability.
    fn losses_and_derivatives(
        &self,
        tokens: &[Token],
        logprobs: &[f32],
        sums: &mut StepLoss,
    ) -> Result<Vec<f32>> {
        fault::point(self.ranks, Stage::Backward, self.step)?;
        let beta = f64::from(self.settings.beta);
        let mut derivatives = Vec::with_capacity(logprobs.len());
        for ((term, (kl, kl_derivative)), (token, &logprob)) in
            self.terms(tokens, logprobs).into_iter().zip(tokens.iter().zip(logprobs))
        {
            let derivative = token.weight * (term.derivative + beta * kl_derivative);
            let completion = &self.completions[token.completion];
            let old = completion.old[token.index];
            let reference = completion.reference.map(|reference| reference[token.index]);
            let numbers = [logprob.into(), old.into(), term.loss, derivative];
            if !numbers.iter().all(|number: &f64| number.is_finite()) {
                return Err(Error::NonFinite(format!(
                    "step {}, {}: the loss of token {} is not finite (log-probability {logprob}, {old} when it was \
                     sampled, the reference's {reference:?}); a lower optimizer.learning_rate may help",
                    self.step,
                    completion.name,
                    token.index + 1,
                )));
            }
            derivatives.push(derivative as f32);
            sums.loss += token.weight * (term.loss + beta * kl);
            sums.clipped_share += f64::from(u8::from(term.clipped));
            let log_ratio = f64::from(logprob) - f64::from(old);
            sums.log_ratio_max = sums.log_ratio_max.max(log_ratio.abs());
            if let Some(reference) = reference {
                let share = 1.0 / (completion.old.len() as f64 * self.completions.len() as f64);
                *sums.kl_to_reference.get_or_insert(0.0) += share * k3(logprob, reference);
            }
        }
        Ok(derivatives)
    }
}

/// The completions of a batch, lane by lane.
struct BatchInLanes<'a> {
    batch: &'a Batch<'a>,
    /// Of the whole batch.
    tokens: &'a [Token],
    lanes: Vec<CompletionsOfLane<'a>>,
    policy: &'a Decoder,
    stop: Stop<'a>,
}

struct CompletionsOfLane<'a> {
    /// The first of its tokens.
    first: usize,
    /// Micro-batches of its groups.
    parts: Vec<Vec<GroupPart<'a>>>,
}

/// How far a lane is.
#[derive(Debug, Default)]
struct LaneLoss {
    /// Tokens that are done.
    tokens: usize,
    /// Theirs; the share of clipped tokens is their number.
    loss: StepLoss,
}

impl LaneWork for BatchInLanes<'_> {
    type Sum = LaneLoss;

    fn n_parts(&self, lane: usize) -> usize {
        self.lanes[lane].parts.len()
    }

    fn add_part(
        &self,
        lane: usize,
        part: usize,
        gradients: &mut Gradients,
        sum: &mut LaneLoss,
    ) -> Result<()> {
        let (CompletionsOfLane { first, parts }, batch) = (&self.lanes[lane], self.batch);
        self.stop.check()?;
        let (packed, temperature, keep) = (PackedBatch::new(&parts[part]), batch.temperature, batch.keep);
        let (own, losses) = (&self.tokens[first + sum.tokens..], &mut sum.loss);
        let logprobs = if has_sequence_ratio(batch.settings.objective) {
            self.policy.train_whole_micro_batch(&packed, temperature, keep, gradients, |logprobs| {
                batch.losses_and_derivatives(own, logprobs, losses)
            })?
        } else {
            self.policy.train_micro_batch(&packed, temperature, keep, gradients, |first, logprobs| {
                batch.losses_and_derivatives(&own[first..], logprobs, losses)
            })?
        };
        sum.tokens += logprobs.len();
        Ok(())
    }
}
