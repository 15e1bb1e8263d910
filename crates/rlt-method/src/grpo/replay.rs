//! A failed step's completions: kept, and rewarded and learnt from again.

use std::path::Path;

use rlt_model::Stop;
use rlt_model::chat_template::TemplateTime;
use rlt_model::generate::{Completion, Finish};

use super::reward::{Answered, StepContext};
use super::rewards;
use super::sample::{Group, Question, Sample, Verdict};
use super::told::WORK;
use super::update::Learner;
use crate::dataset::{QuestionRow, read_usable_questions};
use crate::error::{Error, Result};
use crate::prompts::{ChatText, PromptStyle};
use crate::ranks::Holding;
use crate::scorer::Scorer;
use crate::training::failure::{FailedBatch, FailedGroup};
use crate::training::run::Weights;
use crate::training::{GradientSum, Lanes};

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
    let reward = rewards::load(config, &chat, time, &Holding::Whole)?;
    let policy: &dyn Scorer = &weights.decoder;
    let (step, stop) = (batch.step, Stop::never());
    let context = StepContext { step, config, style: &style, chat: &chat, policy, stop };
    let rows = read_usable_questions(&config.data)?.rows;
    let mut found = Vec::new();
    for group in &batch.groups {
        let row = rows.iter().find(|row| row.row == group.row).ok_or_else(|| Error::File {
            path: config.data.path.clone(),
            what: format!("no longer has {}, which the failed batch is of", group.name),
        })?;
        let question = Question {
            row: row.clone(),
            prompt: group.prefix.clone().into(),
            told: group.told.clone().into(),
        };
        for completion in completions(group) {
            let answered = Answered { question: &question, completions: &[completion] };
            let verdicts = rewards::verdicts(&*reward, &context, &[answered]);
            found.push(match verdicts {
                Ok(verdicts) => Ok(verdicts[0].reward),
                // Without the name of the only sample.
                Err(Error::NonFinite(what)) => {
                    Err(what.split_once(": ").map_or(what.clone(), |(_, what)| what.into()))
                }
                Err(other) => return Err(other),
            });
        }
    }
    Ok(found)
}

/// Learns from a kept batch as the step would have, and returns the norm of the first gradient.
///
/// # Errors
/// As the step that it was kept from; [`Error::Failed`] when it did not get as far as this.
pub(crate) fn learn_again(weights: &mut Weights, batch: &FailedBatch, lanes: Lanes) -> Result<f64> {
    // Learning asks for a question's name and prompts only.
    let question = |group: &FailedGroup| Question {
        row: QuestionRow { row: group.row, ..QuestionRow::default() },
        prompt: group.prefix.clone().into(),
        told: group.told.clone().into(),
    };
    let questions: Vec<Question> = batch.groups.iter().map(question).collect();
    let groups = batch.groups.iter().zip(&questions);
    let groups = groups
        .map(|(group, question)| Ok(Group { question, samples: samples(group)? }))
        .collect::<Result<Vec<Group>>>()?;
    let groups: Vec<&Group> = groups.iter().collect();
    let mut gradients = GradientSum::new(&weights.decoder, lanes.count());
    let learner = Learner::new(&batch.config, lanes);
    let learner = if batch.work == WORK { learner.distilling(&batch.config) } else { learner };
    let update = learner.learn(batch.step, &groups, weights, &mut gradients, Stop::never())?;
    Ok(update.grad_norms.first().copied().unwrap_or(0.0))
}

/// The completions of a kept group with their rewards.
fn samples(group: &FailedGroup) -> Result<Vec<Sample>> {
    let rewards = group.continuations.iter().map(|kept| kept.reward);
    let sample = |(completion, reward): (Completion, Option<f32>)| {
        let reward =
            reward.ok_or_else(|| Error::Failed("the step did not get as far: a reward is missing".into()))?;
        Ok(Sample { completion, behaviour: Vec::new(), verdict: Verdict { reward, ..Verdict::default() } })
    };
    completions(group).into_iter().zip(rewards).map(sample).collect()
}
