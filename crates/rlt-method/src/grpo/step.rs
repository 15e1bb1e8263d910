//! One step of GRPO: draw, sample, reward, learn, record.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rlt_model::Stop;
use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::generate::{Completion, GenerationRequest};

use super::metrics::{StepSeconds, describe, sample_rows, speeds};
use super::mismatch::describe_mismatch;
use super::reference::sync_reference;
use super::reward::Answered;
use super::rewards::verdicts;
use super::rollout::Rollout;
use super::sample::{Group, Question, Sample, failed_group, groups};
use super::setup::Setup;
use super::update::{Learner, Update};
use crate::error::{Error, Result};
use crate::metrics::{GROUPS_SAMPLED, REWARD, SERVER_RETRIES, SYNC_S};
use crate::ranks::{Ranks, agree, dealt, gather};
use crate::sampler::SamplingEngine;
use crate::scorer::Stoppable;
use crate::training::failure::FailedGroup;
use crate::training::fault::{self, Stage};
use crate::training::run::Weights;
use crate::training::{EpochOrder, GradientSum, Run};

/// A run in progress: what its steps change, and what they work with.
pub(super) struct Trainer<'a> {
    pub setup: &'a Setup<'a>,
    pub run: Run<'a>,
    pub weights: Weights,
    /// Where completions come from.
    pub engine: Box<dyn SamplingEngine>,
    /// The questions' order.
    pub order: EpochOrder,
    pub learner: Learner,
    /// Where gradients are summed.
    pub gradients: GradientSum,
    /// Requests that servers were asked again, by the last step.
    pub n_retries: usize,
    /// Whether somebody asks the run to stop.
    pub stop: &'a AtomicBool,
    /// Who shares the run: all do the same steps, each with its part of their work.
    pub ranks: Ranks,
}

/// What a step tells whoever watches.
pub(super) struct StepNews {
    /// "reward -0.5123".
    pub reward: String,
    /// How fast its parts were.
    pub speeds: String,
    /// Breaks where evaluations end the run.
    pub flow: ControlFlow<()>,
}

impl<'a> Trainer<'a> {
    /// Takes a step.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming step, row and sample, after the batch was kept; [`Error::Interrupted`] once it is asked
    /// to stop, after the state was saved; what models and files report.
    pub fn step(&mut self, step: u64) -> Result<StepNews> {
        self.run.stop_if_asked(&self.weights)?;
        let (mut seconds, started) = (StepSeconds::default(), Instant::now());
        let wanted = self.setup.config.grpo.questions_per_step;
        let mut rollout = Rollout::default();
        let mut next = self.run.rows_drawn();
        loop {
            // Further questions in place of those whose rewards are all equal.
            let missing = rollout.missing(wanted, self.learner.settings.resample_rounds);
            if missing == 0 {
                break;
            }
            let positions = next..next + missing as u64;
            next = positions.end;
            let questions = self.draw(positions.clone());
            let (completions, taken) = timed(|| self.sample(step, positions, &questions))?;
            seconds.generate += taken;
            let (own, taken) = timed(|| self.own_logprobs(&questions, &completions))?;
            seconds.score += taken;
            let (mut groups, taken) = timed(|| self.reward(step, &questions, completions))?;
            seconds.score += taken;
            let samples = groups.iter_mut().flat_map(|group| &mut group.samples);
            samples.zip(own.into_iter().flatten()).for_each(|(sample, own)| sample.take_own(own));
            rollout.add(groups);
        }
        if self.setup.config.rollout.steps_ahead > 0 && step < self.setup.config.grpo.steps as u64 {
            let requests = self.requests(step + 1, next..next + wanted as u64);
            self.engine.draw_ahead(requests);
        }
        let learnt_from = rollout.chosen(wanted);
        let update = self.learn(step, &learnt_from)?;
        seconds.update = started.elapsed().as_secs_f64() - seconds.generate - seconds.score;
        self.record(step, next, &rollout, &learnt_from, &update, seconds)
    }

    /// The questions at these positions of the endless order.
    fn draw(&mut self, positions: Range<u64>) -> Vec<&'a Question> {
        self.order.rows(positions).into_iter().map(|row| &self.setup.questions[row]).collect()
    }

    /// A group of completions for each question, keyed by step and position; each rank draws those of its questions.
    fn sample(
        &mut self,
        step: u64,
        positions: Range<u64>,
        questions: &[&Question],
    ) -> Result<Vec<Vec<Completion>>> {
        let requests = self.requests_for(step, positions, questions);
        let (own, stop) = (&requests[dealt(&self.ranks, requests.len())], Stop::when(self.stop));
        let faultless = fault::point(&self.ranks, Stage::Sampling, step);
        let completions = faultless.and_then(|()| match self.engine.drawn_ahead(own, stop) {
            Some(drawn) => drawn,
            None => self.engine.sampler(&self.weights.decoder).sample(own, stop),
        });
        self.setup.config.end_stage();
        let own = agree(&self.ranks, completions).map_err(|error| self.run.stopped(&self.weights, error))?;
        gather(&self.ranks, own)
    }

    /// What a step asks for whose questions are at `positions`.
    fn requests(&mut self, step: u64, positions: Range<u64>) -> Vec<GenerationRequest> {
        let questions = self.draw(positions.clone());
        self.requests_for(step, positions, &questions)
    }

    fn requests_for(
        &self,
        step: u64,
        positions: Range<u64>,
        questions: &[&Question],
    ) -> Vec<GenerationRequest> {
        let n = self.setup.config.grpo.group_size;
        let request = |(position, question): (u64, &&Question)| GenerationRequest {
            prompt: question.prompt.clone(),
            n,
            stream: [step, position],
        };
        positions.zip(questions).map(request).collect()
    }

    /// Log-probabilities of completions by the policy itself, question by question, where others drew them: those that the
    /// ratios of the update are taken against, whatever the sampler said.
    fn own_logprobs(
        &mut self,
        questions: &[&Question],
        completions: &[Vec<Completion>],
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        if self.engine.followers().is_none() {
            return Ok(Vec::new());
        }
        let group = |(question, completions): (&&Question, &Vec<Completion>)| ScoringGroup {
            prefix: question.prompt.clone(),
            continuations: completions.iter().map(|c| Continuation::whole(c.ids.clone())).collect(),
        };
        let groups: Vec<ScoringGroup> = questions.iter().zip(completions).map(group).collect();
        let (config, stop) = (self.setup.config, Stop::when(self.stop));
        let (temperature, tokens) = (config.sampling.temperature, config.grpo.tokens_per_microbatch);
        let own = self.weights.decoder.token_logprobs_unless(stop, &groups, temperature, tokens);
        config.end_stage();
        own.map_err(|error| self.run.stopped(&self.weights, error.into()))
    }

    /// What the completions earn; each rank rewards those of its questions.
    fn reward(
        &mut self,
        step: u64,
        questions: &[&'a Question],
        completions: Vec<Vec<Completion>>,
    ) -> Result<Vec<Group<'a>>> {
        let stop = Stop::when(self.stop);
        let policy = Stoppable(&self.weights.decoder, stop);
        let context = self.setup.context(step, &policy, stop);
        let answered: Vec<Answered> = questions
            .iter()
            .zip(&completions)
            .map(|(question, completions)| Answered { question, completions })
            .collect();
        let own = &answered[dealt(&self.ranks, answered.len())];
        let earned = fault::point(&self.ranks, Stage::Scoring, step)
            .and_then(|()| verdicts(&*self.setup.reward, &context, own));
        let verdicts = match agree(&self.ranks, earned) {
            Ok(verdicts) => gather(&self.ranks, verdicts)?,
            Err(error) => {
                let keep = |group: &Answered| failed_group(group.question, group.completions.iter());
                return Err(self.failed(error, || answered.iter().map(keep).collect()));
            }
        };
        self.setup.config.end_stage();
        Ok(groups(questions, completions, verdicts))
    }

    /// The update: reference log-probabilities, advantages, gradients, AdamW; then the reference moves, and whatever
    /// samples hears of the new weights.
    fn learn(&mut self, step: u64, groups: &[&Group]) -> Result<Update> {
        let Self { weights, gradients, .. } = self;
        let update = match self.learner.learn(step, groups, weights, gradients, Stop::when(self.stop)) {
            Ok(update) => update,
            Err(error) => {
                return Err(self.failed(error, || groups.iter().map(|group| group.to_keep()).collect()));
            }
        };
        let config = self.setup.config;
        config.end_stage();
        sync_reference(&mut self.weights, step, config.reference_sync_every(), config.grpo.reference_mixup);
        self.engine.refresh(&self.weights.decoder, step)?;
        Ok(update)
    }

    /// The step's row, its samples, the evaluation and the checkpoint that are due.
    fn record(
        &mut self,
        step: u64,
        next: u64,
        rollout: &Rollout,
        learnt_from: &[&Group],
        update: &Update,
        seconds: StepSeconds,
    ) -> Result<StepNews> {
        let Setup { config, style, chat, .. } = self.setup;
        let grpo = &config.grpo;
        let mut row = describe(&rollout.groups);
        row.extend(update.describe());
        if self.learner.settings.resample_rounds > 0 {
            GROUPS_SAMPLED.put(&mut row, rollout.groups.len());
        }
        if let Some(followers) = self.engine.followers() {
            let weights = |sample: &Sample| self.learner.importance_weights(sample);
            row.extend(describe_mismatch(&rollout.groups, step, config.rollout.band, weights));
            SYNC_S.put(&mut row, followers.sync_s);
            SERVER_RETRIES.put(&mut row, followers.n_retries - self.n_retries);
            self.n_retries = followers.n_retries;
        }
        seconds.put(&mut row, rollout.n_tokens());
        let reward = format!("reward {:.4}", REWARD.mean.of(&row).unwrap_or(f64::NAN));
        let speeds = speeds(&row);
        let is_due = step == 1 || step.is_multiple_of(grpo.samples_every as u64) || step == grpo.steps as u64;
        if grpo.samples_logged > 0 && is_due {
            let n = grpo.samples_logged;
            let rows = || sample_rows(n, step, learnt_from, &update.advantages, style, chat);
            self.run.write_samples(step, rows)?;
        }
        let Self { setup, run, weights, engine, stop, ranks, .. } = self;
        let weights = &*weights;
        let flow = run.end_step(weights, next, row, |step| {
            let sampler = engine.sampler(&weights.decoder);
            setup.evaluate(step, &*sampler, &weights.decoder, ranks, Stop::when(stop))
        })?;
        Ok(StepNews { reward, speeds, flow })
    }

    /// Makes up for the evaluation during which an earlier call was asked to stop, where there is one.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn make_up_for_evaluation(&mut self) -> Result<()> {
        let Self { setup, run, weights, engine, stop, ranks, .. } = self;
        let weights = &*weights;
        let _ = run.end_unevaluated_step(weights, |step| {
            let sampler = engine.sampler(&weights.decoder);
            setup.evaluate(step, &*sampler, &weights.decoder, ranks, Stop::when(stop))
        })?;
        Ok(())
    }

    /// The error of the step in hand, with what `rlt replay` needs kept where a number was not finite, and the state saved
    /// where it was asked to stop.
    fn failed(&mut self, error: Error, groups: impl FnOnce() -> Vec<FailedGroup>) -> Error {
        let kept = self.run.keep_failed(&self.weights, error, groups);
        self.run.stopped(&self.weights, kept)
    }
}

/// What a piece of work came to, and how many seconds it took.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let started = Instant::now();
    let done = work()?;
    Ok((done, started.elapsed().as_secs_f64()))
}
