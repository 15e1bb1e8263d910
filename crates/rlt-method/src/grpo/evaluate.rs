//! The reward on held-out questions while training.

use std::time::Instant;

use rlt_model::generate::GenerationRequest;
use serde_json::Map;

use super::metrics::describe;
use super::reward::{Answered, Reward, StepContext};
use super::rewards::verdicts;
use super::sample::{Question, groups};
use crate::error::{Error, Result};
use crate::metrics::{EVAL_S, EVALUATED, REWARD};
use crate::ranks::{Ranks, agree, dealt, gather};
use crate::sampler::Sampler;
use crate::training::inputs::Checksum;
use crate::training::{HeldOutScore, RowsSum};

/// What keys the draws of every evaluation in the place of a step. Steps count from 1, so no draw is shared with
/// training; all evaluations share theirs, so that they differ by the model alone.
const STREAM: u64 = 0;

/// The held-out questions with their prompts.
pub(super) struct HeldOut {
    questions: Vec<Question>,
    n_samples: usize,
}

impl HeldOut {
    /// `questions` with `n_samples` completions each.
    pub fn of(questions: Vec<Question>, n_samples: usize) -> Self {
        Self { questions, n_samples }
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

    /// Samples completions of each question, as training does, and rewards them, each rank those of its questions. The score is
    /// the mean reward.
    ///
    /// # Errors
    /// As a step of training, which also looks at the context's stop.
    pub fn evaluate(
        &self,
        context: &StepContext,
        sampler: &dyn Sampler,
        reward: &dyn Reward,
        ranks: &Ranks,
    ) -> Result<HeldOutScore> {
        let started = Instant::now();
        let request = |(index, question): (u64, &Question)| GenerationRequest {
            prompt: question.prompt.clone(),
            n: self.n_samples,
            stream: [STREAM, index],
        };
        let requests: Vec<GenerationRequest> = (0..).zip(&self.questions).map(request).collect();
        let own = dealt(ranks, requests.len());
        let completions = agree(ranks, sampler.sample(&requests[own.clone()], context.stop))?;
        let completions = gather(ranks, completions)?;
        context.config.end_stage();
        let questions: Vec<&Question> = self.questions.iter().collect();
        let answered: Vec<Answered> = questions
            .iter()
            .zip(&completions)
            .map(|(question, completions)| Answered { question, completions })
            .collect();
        let verdicts = verdicts(reward, context, &answered[own]).map_err(|error| match error {
            Error::NonFinite(what) => Error::NonFinite(format!("on the held-out rows: {what}")),
            other => other,
        });
        let verdicts = gather(ranks, agree(ranks, verdicts)?)?;
        context.config.end_stage();
        let all = describe(&groups(&questions, completions, verdicts));
        let score = REWARD.mean.of(&all).unwrap_or(f64::NAN);
        let mut metrics = Map::new();
        for (of_training, of_evaluation) in EVALUATED {
            if let Some(value) = of_training.of(&all) {
                of_evaluation.put(&mut metrics, value);
            }
        }
        EVAL_S.put(&mut metrics, started.elapsed().as_secs_f64());
        Ok(HeldOutScore { metrics, score })
    }
}
