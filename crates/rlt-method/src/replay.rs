//! `rlt replay`: the batch of a step that failed, computed again with the weights as they were, part by part, so that one
//! sees which row and which token the trouble came from. Only where a step makes several updates, and a later one failed,
//! is it not the very same computation: learning begins at the first.

use std::path::Path;

use rlt_model::Decoder;
use rlt_model::chat_template::TemplateTime;
use serde::Serialize;

use crate::error::Result;
use crate::prompts::ChatText;
use crate::ranks::{Holding, Ranks};
use crate::training::failure::{FailedBatch, FailedGroup};
use crate::training::run::Weights;
use crate::training::{Lanes, Optimizer, RestoredRun};
use crate::{grpo, sft};

/// What a failed batch came to when it was computed again.
#[derive(Debug, Serialize)]
pub struct Replay {
    /// `sft`, `grpo` or `distill`.
    pub work: String,
    /// The step that failed.
    pub step: u64,
    /// What it said.
    pub error: String,
    /// Every row or completion.
    pub sequences: Vec<Sequence>,
    /// Global norm of the first gradient, or the error of learning from the batch.
    pub gradient_norm: std::result::Result<f64, String>,
}

/// A row, or a completion of a question. Means that are not finite are absent.
#[derive(Debug, Default, Serialize)]
pub struct Sequence {
    /// The row's name in errors.
    pub name: String,
    /// Which completion of it, from 1.
    pub sample: usize,
    /// Tokens that count.
    pub n_tokens: usize,
    /// Mean log-probability under the model in training, nats.
    pub logprob_mean: Option<f64>,
    /// And under the reference model, where there is one.
    pub reference_logprob_mean: Option<f64>,
    /// The reward, computed again.
    pub reward: Option<f32>,
    /// The advantage that it had.
    pub advantage: Option<f32>,
    /// What is not finite in it, in words.
    pub faults: Vec<String>,
}

impl Replay {
    /// Computes the batch in `file` again.
    ///
    /// # Errors
    /// The file, the models beside it or the data of the run cannot be read.
    pub fn of(file: &Path) -> Result<Self> {
        let batch = FailedBatch::read(file)?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let (mut weights, time, lanes) = weights(&batch, folder)?;
        let mut sequences = log_probabilities(&batch, &weights)?;
        if batch.work != "sft" {
            let rewards = grpo::rewards_again(&weights, &batch, folder, time)?;
            for (sequence, reward) in sequences.iter_mut().zip(rewards) {
                match reward {
                    Ok(reward) => sequence.reward = Some(reward),
                    Err(fault) => sequence.faults.push(fault),
                }
            }
        }
        let learn_again = if batch.work == "sft" { sft::learn_again } else { grpo::learn_again };
        let gradient_norm = learn_again(&mut weights, &batch, lanes).map_err(|error| error.to_string());
        let FailedBatch { work, step, error, .. } = batch;
        Ok(Self { work, step, error, sequences, gradient_norm })
    }

    /// For people: what went wrong then, what is wrong now, and where.
    pub fn to_text(&self) -> String {
        let mut lines = vec![format!("step {} said: {}", self.step, self.error)];
        let faulty = self.sequences.iter().filter(|sequence| !sequence.faults.is_empty());
        for sequence in faulty.clone() {
            let Sequence { name, sample, n_tokens, .. } = sequence;
            lines
                .push(format!("{name}, sample {sample} ({n_tokens} tokens): {}", sequence.faults.join("; ")));
        }
        let (n, n_faulty) = (self.sequences.len(), faulty.count());
        lines.push(format!("{n_faulty} of {n} sequences hold a number that is not finite"));
        lines.push(match &self.gradient_norm {
            Ok(norm) => format!("learning from them works: the gradient's norm is {norm:.4}"),
            Err(error) => format!("learning from them fails: {error}"),
        });
        lines.join("\n")
    }
}

/// Models and moments as they were, what templates told as the date, and how gradients were summed.
fn weights(batch: &FailedBatch, folder: &Path) -> Result<(Weights, TemplateTime, Lanes)> {
    let config = &batch.config;
    let restored = RestoredRun::read(folder, &config.model, &Holding::Whole, &Holding::Whole)?;
    // How long the run was meant to be changes the size of the update, not the gradient.
    let mut optimizer = Optimizer::shared(&restored.decoder, config, batch.step, &Ranks::alone());
    restored.restore_optimizer(folder, &mut optimizer)?;
    let RestoredRun { state, decoder, reference } = restored;
    let time = state.template_time.unwrap_or_else(TemplateTime::of_this_process);
    let mut weights = Weights { decoder, optimizer, reference };
    if batch.work != "sft" {
        grpo::begin_reference(
            &mut weights,
            config,
            &ChatText::from_dir_at(folder, time)?,
            0,
            &Holding::Whole,
        )?;
    }
    Ok((weights, time, state.lanes))
}

/// Every sequence with its log-probabilities, each group on its own.
fn log_probabilities(batch: &FailedBatch, weights: &Weights) -> Result<Vec<Sequence>> {
    let temperature = if batch.work == "sft" { 1.0 } else { batch.config.sampling.temperature };
    let mut sequences = Vec::new();
    for group in &batch.groups {
        let scoring = [group.to_scoring()];
        let tokens = scoring[0].n_rows().max(1);
        let of = |decoder: &Decoder| -> Result<Vec<Vec<f32>>> {
            Ok(decoder.token_logprobs(&scoring, temperature, tokens)?.into_iter().flatten().collect())
        };
        let logprobs = of(&weights.decoder)?;
        let of_reference = weights.reference.as_ref().map(of).transpose()?;
        for (index, logprobs) in logprobs.iter().enumerate() {
            let mut sequence = Sequence::of(group, index, logprobs);
            if let Some(of_reference) = &of_reference {
                sequence.reference_logprob_mean = finite_mean(&of_reference[index]);
                sequence.faults.extend(fault("the reference's log-probability", &of_reference[index]));
            }
            sequences.push(sequence);
        }
    }
    Ok(sequences)
}

impl Sequence {
    fn of(group: &FailedGroup, index: usize, logprobs: &[f32]) -> Self {
        Self {
            name: group.name.clone(),
            sample: index + 1,
            n_tokens: logprobs.len(),
            logprob_mean: finite_mean(logprobs),
            advantage: group.continuations[index].advantage,
            faults: fault("the log-probability", logprobs).into_iter().collect(),
            ..Self::default()
        }
    }
}

fn finite_mean(values: &[f32]) -> Option<f64> {
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64;
    mean.is_finite().then_some(mean)
}

fn fault(what: &str, values: &[f32]) -> Option<String> {
    let n = values.iter().filter(|value| !value.is_finite()).count();
    let first = values.iter().position(|value| !value.is_finite())?;
    Some(format!("{what} of {n} tokens is not finite, first that of token {first} ({})", values[first]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_how_many_tokens_and_the_first() {
        assert_eq!(fault("it", &[0.5, -1.0]), None);
        let text = fault("it", &[0.5, f32::NAN, -1.0, f32::INFINITY]).unwrap();
        assert_eq!(text, "it of 2 tokens is not finite, first that of token 1 (NaN)");
        assert_eq!(finite_mean(&[1.0, 2.0]), Some(1.5));
        assert_eq!(finite_mean(&[1.0, f32::NAN]), None);
    }
}
