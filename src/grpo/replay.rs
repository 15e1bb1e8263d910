//! A failed step's completions: kept, and rewarded and learnt from again.

use std::path::Path;

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::chat_template::TemplateTime;
use rlt_model::generate::{Completion, Finish};
use rlt_model::{Gradients, Stop};

use super::judge::{Judge, Judged, Question};
use super::update::{Learner, Sample, SampleGroup};
use crate::dataset::read_usable_questions;
use crate::error::{Error, Result};
use crate::prompts::{ChatText, PromptStyle};
use crate::training::failure::{FailedBatch, FailedGroup};
use crate::training::run::Weights;

/// A question with its completions as a failed step keeps them; `judged` is empty where no reward was reached.
pub(super) fn failed_group(
    question: &Question,
    completions: &[Completion],
    judged: &[Judged],
) -> FailedGroup {
    let continuations = completions.iter().map(|completion| Continuation::whole(completion.ids.clone()));
    let group = ScoringGroup { prefix: question.prompt.clone(), continuations: continuations.collect() };
    let row = question.row.row;
    let mut failed = FailedGroup::of(&format!("row {row}"), row, &group);
    for (index, (kept, completion)) in failed.continuations.iter_mut().zip(completions).enumerate() {
        let finite = |&logprob: &f32| logprob.is_finite().then_some(logprob);
        kept.sampled_logprobs = completion.logprobs.iter().map(finite).collect();
        kept.finish = Some(if completion.finish == Finish::Stop { "stop" } else { "length" }.into());
        kept.reward = judged.get(index).map(|judged| judged.reward);
    }
    failed
}

/// Questions with their completions, before any reward.
pub(super) fn failed_groups(questions: &[&Question], completions: &[Vec<Completion>]) -> Vec<FailedGroup> {
    questions.iter().zip(completions).map(|(question, group)| failed_group(question, group, &[])).collect()
}

fn completions(group: &FailedGroup) -> Vec<Completion> {
    let completion = |kept: &crate::training::failure::FailedContinuation| Completion {
        ids: kept.ids.clone().into(),
        logprobs: kept.sampled_logprobs.iter().map(|logprob| logprob.unwrap_or(f32::NAN)).collect(),
        finish: if kept.finish.as_deref() == Some("stop") { Finish::Stop } else { Finish::Length },
        version: 0,
    };
    group.continuations.iter().map(completion).collect()
}

/// The reward of every completion of a kept batch, each computed on its own, or what is wrong with it. `folder` holds
/// the tokenizer; templates tell `time`.
///
/// # Errors
/// The rows or the models of the run cannot be read.
pub(crate) fn rewards_again(
    weights: &Weights,
    batch: &FailedBatch,
    folder: &Path,
    time: TemplateTime,
) -> Result<Vec<std::result::Result<f32, String>>> {
    let config = &batch.config;
    let style = PromptStyle::resolve(&config.prompts)?;
    let chat = ChatText::from_dir_at(folder, time)?.reading(config.data.special_tokens);
    let judge = Judge::load(config, &chat, time)?;
    let rows = read_usable_questions(&config.data)?.rows;
    let mut rewards = Vec::new();
    for group in &batch.groups {
        let row = rows.iter().find(|row| row.row == group.row).ok_or_else(|| Error::File {
            path: config.data.path.clone(),
            what: format!("no longer has {}, which the failed batch is of", group.name),
        })?;
        let question = Question { row: row.clone(), prompt: group.prefix.clone().into() };
        for completion in completions(group) {
            let groups = [vec![completion]];
            let judged = judge.rewards(
                batch.step,
                &[&question],
                &groups,
                &style,
                &chat,
                &weights.decoder,
                config,
                Stop::never(),
            );
            rewards.push(match judged {
                Ok(judged) => Ok(judged[0].reward),
                // Without the name of the only sample.
                Err(Error::NonFinite(what)) => {
                    Err(what.split_once(": ").map_or(what.clone(), |(_, what)| what.into()))
                }
                Err(other) => return Err(other),
            });
        }
    }
    Ok(rewards)
}

/// Learns from a kept batch as the step would have, and returns the norm of the first gradient.
///
/// # Errors
/// As the step that it was kept from; [`Error::Failed`] when it did not get as far as this.
pub(crate) fn learn_again(weights: &mut Weights, batch: &FailedBatch) -> Result<f64> {
    let sample = |(completion, reward): (Completion, Option<f32>)| {
        let reward =
            reward.ok_or_else(|| Error::Failed("the step did not get as far: a reward is missing".into()))?;
        let truncated = completion.finish == Finish::Length;
        Ok(Sample { ids: completion.ids, logprobs: completion.logprobs, reward, truncated })
    };
    let group = |group: &FailedGroup| {
        let rewards = group.continuations.iter().map(|kept| kept.reward);
        Ok(SampleGroup {
            name: group.name.clone(),
            prompt: group.prefix.clone().into(),
            samples: completions(group).into_iter().zip(rewards).map(sample).collect::<Result<_>>()?,
        })
    };
    let groups = batch.groups.iter().map(group).collect::<Result<Vec<_>>>()?;
    let mut gradients = Gradients::zeros(&weights.decoder);
    let update =
        Learner::new(&batch.config).learn(batch.step, &groups, weights, &mut gradients, Stop::never())?;
    Ok(update.grad_norms.first().copied().unwrap_or(0.0))
}
