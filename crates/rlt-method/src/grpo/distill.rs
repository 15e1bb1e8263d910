//! On-policy distillation: the gradient of one optimizer step.
//!
//! The student wrote the completions; a teacher that is told the solution reads each of them behind a prompt of its own. The
//! loss of a token is the divergence between what the two would say there, over the whole vocabulary (`distill.divergence`),
//! a completion's the mean over its tokens, a batch's the mean over completions:
//!
//! `L = 1/N sum_i 1/|y_i| sum_t KL( p(. | x, y_i,<t) || q(. | x, s, y_i,<t) )`
//!
//! with the student p, the teacher q (a constant to the gradient) and the solution s. It is on-policy self-distillation (OPSD:
//! arXiv 2601.18734, section 3, with the divergence over the whole vocabulary) where the teacher is the student as it began,
//! and self-distillation fine-tuning (SDFT: arXiv 2601.19897) where it is a moving average of the student. No gradient goes
//! through which completions were drawn.

use rlt_engine::head::Kl;
use rlt_model::batch::{GroupPart, PackedBatch, ScoringGroup, micro_batches};
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Gradients, Stop};

use super::sample::Group;
use crate::config::LossMean;
use crate::error::{Error, Result};
use crate::training::fault::{self, Stage};
use crate::training::{GradientSum, LaneWork, SharedLanes};
use rlt_ranks::Ranks;
use rlt_reward::objective::{Counted, token_weight};

/// What one optimizer step of a distillation learns from.
pub(super) struct Distillation<'a> {
    pub step: u64,
    /// Questions, with what the teacher is told, and what the student wrote.
    pub groups: &'a [&'a Group<'a>],
    pub divergence: Kl,
    pub teacher: &'a Decoder,
    /// That of sampling: both are asked at it.
    pub temperature: f32,
    pub tokens_per_microbatch: usize,
    /// What to keep between the passes.
    pub keep: Keep,
    /// Who shares it.
    pub ranks: &'a Ranks,
}

/// A micro-batch: the student's sequences, and the teacher's of the same completions.
struct Part<'a> {
    student: Vec<GroupPart<'a>>,
    teacher: Vec<ScoringGroup>,
}

/// The completions of a lane.
struct Lane<'a> {
    parts: Vec<Part<'a>>,
    tokens: Vec<Token>,
}

/// One completion token, in the order in which they are computed.
#[derive(Clone, Copy)]
struct Token {
    /// Among the groups of the batch.
    group: usize,
    sample: usize,
    /// Its place in the completion.
    index: usize,
    weight: f64,
}

impl Distillation<'_> {
    /// The gradient of this rank's lanes into `sum`, lane by lane, micro-batch by micro-batch, and the loss of all ranks'.
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
    ) -> Result<f64> {
        let groups: Vec<ScoringGroup> =
            self.groups.iter().filter_map(|group| group.to_score(|_| true)).collect();
        let lanes_of_batch =
            (0..lanes.count()).map(|lane| self.lane(&groups, lanes.part(lane, groups.len())));
        let work = InLanes { batch: self, lanes: lanes_of_batch.collect(), policy, stop };
        let of_lanes = sum.of_lanes(lanes, &work)?.into_iter().map(|of_lane| of_lane.loss);
        lanes.fold(of_lanes.collect(), |sum: &mut f64, other| *sum += other)
    }

    /// The part of `groups`, the student's sequences of all groups, that is a lane's.
    fn lane<'g>(&self, groups: &'g [ScoringGroup], of_lane: std::ops::Range<usize>) -> Lane<'g> {
        let completions = self.groups.iter().map(|group| group.samples.len()).sum();
        let counted = Counted { completions, tokens: 0, longest: 0 };
        let first = of_lane.start;
        // A group may be divided between micro-batches: its next sequence is that after those before.
        let (mut group, mut sample) = (first, 0);
        let mut tokens = Vec::new();
        let mut part = |student: Vec<GroupPart<'g>>| {
            let mut teacher = Vec::with_capacity(student.len());
            for of_group in &student {
                let told = &self.groups[group].question.told;
                teacher.push(ScoringGroup {
                    prefix: told.clone(),
                    continuations: of_group.continuations.to_vec(),
                });
                for continuation in of_group.continuations {
                    let n_tokens = continuation.n_scored();
                    let weight = token_weight(LossMean::Sequence, n_tokens, counted);
                    tokens.extend((0..n_tokens).map(|index| Token { group, sample, index, weight }));
                    sample += 1;
                }
                if sample == self.groups[group].samples.len() {
                    (group, sample) = (group + 1, 0);
                }
            }
            Part { student, teacher }
        };
        let parts = micro_batches(&groups[of_lane], self.tokens_per_microbatch);
        let parts = parts.into_iter().map(&mut part).collect();
        Lane { parts, tokens }
    }

    /// Adds the divergences of the first of `tokens` to `loss` and returns the derivative of the loss by each.
    fn weights(&self, tokens: &[Token], divergences: &[f32], loss: &mut f64) -> Result<Vec<f32>> {
        fault::point(self.ranks, Stage::Backward, self.step)?;
        let of = |(token, &divergence): (&Token, &f32)| {
            if !divergence.is_finite() {
                return Err(Error::NonFinite(format!(
                    "step {}, {}, sample {}: the divergence from the teacher at token {} is not finite ({divergence}); a lower \
                     optimizer.learning_rate may help",
                    self.step,
                    self.groups[token.group].question.name(),
                    token.sample + 1,
                    token.index + 1,
                )));
            }
            *loss += token.weight * f64::from(divergence);
            Ok(token.weight as f32)
        };
        tokens.iter().zip(divergences).map(of).collect()
    }
}

/// The completions of a batch, lane by lane.
struct InLanes<'a> {
    batch: &'a Distillation<'a>,
    lanes: Vec<Lane<'a>>,
    policy: &'a Decoder,
    stop: Stop<'a>,
}

/// How far a lane is.
#[derive(Debug, Default)]
struct LaneLoss {
    /// Tokens that are done.
    tokens: usize,
    loss: f64,
}

impl LaneWork for InLanes<'_> {
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
        let (Lane { parts, tokens }, batch) = (&self.lanes[lane], self.batch);
        let Part { student, teacher } = &parts[part];
        let states = batch.teacher.scored_states(self.stop, teacher, batch.tokens_per_microbatch)?;
        let (packed, own, loss) = (PackedBatch::new(student), &tokens[sum.tokens..], &mut sum.loss);
        let divergences = self.policy.train_divergence_micro_batch(
            &packed,
            &states,
            batch.divergence,
            batch.temperature,
            batch.keep,
            gradients,
            |first, divergences| batch.weights(&own[first..], divergences, loss),
        )?;
        sum.tokens += divergences.len();
        Ok(())
    }
}
