//! The reward on held-out questions while training.

use std::time::Instant;

use rlt_model::config::ModelConfig;
use rlt_model::generate::GenerationRequest;
use rlt_model::{Decoder, Stop};
use serde_json::Map;

use super::judge::{Judge, Question};
use super::metrics::describe;
use super::questions::questions;
use super::rollout::Rollout;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::{EVAL_S, EVALUATED, REWARD};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle};
use crate::sampler::Sampler;
use crate::training::inputs::Checksum;
use crate::training::{Evaluated, RowsSum};

/// What keys the draws of every evaluation in the place of a step. Steps count from 1, so no draw is shared with
/// training; all evaluations share theirs, so that they differ by the model alone.
const STREAM: u64 = 0;

/// The held-out questions with their prompts.
pub(super) struct HeldOut {
    questions: Vec<Question>,
    n_samples: usize,
}

impl HeldOut {
    /// The questions of `eval.data`; none when nothing is evaluated.
    pub fn load(
        config: &Config,
        model: &ModelConfig,
        style: &PromptStyle,
        chat: &ChatText,
        judge: &Judge,
        progress: &dyn Progress,
    ) -> Result<Option<Self>> {
        let Some(config) = config.on_held_out_rows() else { return Ok(None) };
        let questions = questions(&config, model, style, chat, judge, progress)?;
        Ok(Some(Self { questions, n_samples: config.eval.samples }))
    }

    /// What tells these questions from others.
    pub fn fingerprint(&self) -> RowsSum {
        let mut sum = Checksum::default();
        for question in &self.questions {
            sum.add_ids(&question.prompt);
            question.add_texts(&mut sum);
        }
        RowsSum { n: self.questions.len(), checksum: sum.finish() }
    }

    /// Samples `eval.samples` completions of each question, as training does, and rewards them. The score is the mean
    /// reward.
    ///
    /// # Errors
    /// As a step of training, which also looks at `stop`.
    pub fn evaluate(
        &self,
        step: u64,
        sampler: &dyn Sampler,
        decoder: &Decoder,
        judge: &Judge,
        style: &PromptStyle,
        chat: &ChatText,
        config: &Config,
        stop: Stop,
    ) -> Result<Evaluated> {
        let started = Instant::now();
        let request = |(index, question): (u64, &Question)| GenerationRequest {
            prompt: question.prompt.clone(),
            n: self.n_samples,
            stream: [STREAM, index],
        };
        let requests: Vec<GenerationRequest> = (0..).zip(&self.questions).map(request).collect();
        let groups = sampler.sample(&requests, stop)?;
        config.memory.end_stage();
        let questions: Vec<&Question> = self.questions.iter().collect();
        let judged = judge.rewards(step, &questions, &groups, style, chat, decoder, config, stop).map_err(
            |error| match error {
                Error::NonFinite(what) => Error::NonFinite(format!("on the held-out rows: {what}")),
                other => other,
            },
        )?;
        config.memory.end_stage();
        let mut rollout = Rollout::default();
        rollout.add(questions, groups, judged);
        let all = describe(&rollout.groups);
        let score = REWARD.mean.of(&all).unwrap_or(f64::NAN);
        let mut metrics = Map::new();
        for (of_training, of_evaluation) in EVALUATED {
            if let Some(value) = of_training.of(&all) {
                of_evaluation.put(&mut metrics, value);
            }
        }
        EVAL_S.put(&mut metrics, started.elapsed().as_secs_f64());
        Ok(Evaluated { metrics, score })
    }
}
