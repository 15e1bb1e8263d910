//! The loop of GRPO.
//!
//! Where it differs from the paper's code (built on TRL and vLLM):
//! - weights and moments are f32, not bf16; rollouts come from the very weights that are trained, and
//!   the teacher's log-probabilities in r_KL are those recorded while sampling where the temperatures
//!   are equal (they are, in the paper's recipe);
//! - a completion without any think token gets `reward.unscorable_reward`; there the code turns a NaN into a
//!   constant;
//! - epochs follow each other without a partial batch between them;
//! - prompts that do not fit are dropped and counted, not cut;
//! - the reference model is part of a checkpoint; there it is lost on resume.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rayon::prelude::*;
use rlt_model::batch::{Continuation, PackedBatch, ScoringGroup, micro_batches};
use rlt_model::config::ModelConfig;
use rlt_model::decoder::Keep;
use rlt_model::generate::{Completion, GenerationRequest, generate};
use rlt_model::{Decoder, Gradients};

use super::judge::{Judge, Question};
use super::metrics::{describe, sample_rows};
use super::objective::{group_advantages, k3, token_loss, token_loss_derivative, token_weight};
use crate::config::Config;
use crate::dataset::read_questions;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle};
use crate::sampling::{sampling_params, stop_tokens};
use crate::training::checkpoint::data_checksum;
use crate::training::run::Weights;
use crate::training::{EpochOrder, Run, State, Trained};

/// Trains `config.model.path` by GRPO on the questions of `config.data`, writing to `run_dir`. Goes on
/// where an earlier call in the same directory ended. When `stop` becomes true, saves after the current
/// step.
///
/// # Errors
/// [`Error::Usage`] for a configuration that lacks something, what files and rows report,
/// [`Error::NonFinite`] naming step, row and sample, [`Error::Interrupted`] after `stop`.
pub fn train(config: &Config, run_dir: &Path, progress: &dyn Progress, stop: &AtomicBool) -> Result<Trained> {
    config.validate_for_grpo()?;
    let grpo = &config.grpo;
    let style = PromptStyle::resolve(&config.prompts)?;
    let chat = ChatText::from_dir(&config.model.path)?;
    let judge = Judge::load(config, &chat)?;
    let model = ModelConfig::from_dir(&config.model.path)?;
    let all_questions = questions(config, &model, &style, &chat, &judge, progress)?;
    let per_step = grpo.questions_per_step as u64;

    let state = State {
        work: "grpo".into(),
        step: 0,
        seed: config.seed,
        rows_drawn: 0,
        n_rows: all_questions.len(),
        data_checksum: data_checksum(all_questions.iter().map(|question| question.prompt.as_slice())),
    };
    let (mut run, mut weights) =
        Run::begin(config, run_dir, &chat.tokenizer, state, grpo.steps as u64, progress)?;
    let sampling = sampling_params(&config.sampling, stop_tokens(&weights.decoder, &chat)?);
    begin_reference(&mut weights, grpo.beta, run.steps_done())?;
    if let (Some(reference), None, 0) =
        (&mut weights.reference, weights.decoder.adapter(), grpo.reference_sync_every)
    {
        reference.parameters_mut().freeze();
    }
    let mut order = EpochOrder::new(config.seed, all_questions.len());
    let mut gradients = Gradients::zeros(&weights.decoder);
    let mut last_reward = String::new();
    progress.start("train", grpo.steps as u64 - run.steps_done(), "steps");

    for step in run.steps_left() {
        // Questions, by a global index.
        let positions = (step - 1) * per_step..step * per_step;
        let questions: Vec<&Question> =
            order.rows(positions.clone()).into_iter().map(|row| &all_questions[row]).collect();

        // Completions: a group of G for each question.
        let started = Instant::now();
        let requests: Vec<GenerationRequest> = positions
            .clone()
            .zip(&questions)
            .map(|(position, question)| GenerationRequest {
                prompt: question.prompt.clone(),
                n: grpo.group_size,
                stream: [step, position],
            })
            .collect();
        let groups = generate(&weights.decoder, &requests, &sampling, config.seed, &mut |_| ())?;
        let generate_s = started.elapsed().as_secs_f64();

        // Rewards, and advantages within each group.
        let judged = judge.rewards(step, &questions, &groups, &style, &chat, &weights.decoder, config)?;
        let rewards: Vec<f32> = judged.iter().map(|judged| judged.reward).collect();
        let advantages: Vec<f32> = rewards.chunks(grpo.group_size).flat_map(group_advantages).collect();
        let score_s = started.elapsed().as_secs_f64() - generate_s;

        // The update: reference log-probabilities, gradient, AdamW.
        let batch = Batch {
            step,
            names: questions.iter().map(|question| format!("row {}", question.row.row)).collect(),
            groups: scoring_groups(&requests, &groups),
            advantages: &advantages,
            beta: grpo.beta,
            temperature: config.sampling.temperature,
            tokens_per_microbatch: grpo.tokens_per_microbatch,
            keep: config.memory.recompute.into(),
        };
        gradients.fill_zero();
        let loss = batch.gradient(&weights.decoder, weights.reference.as_ref(), &mut gradients)?;
        let update = weights.optimizer.update(&mut weights.decoder, &gradients)?;
        sync_reference(&mut weights, step, grpo.reference_sync_every, grpo.reference_mixup);
        let step_s = started.elapsed().as_secs_f64();

        // Records.
        let mut metrics = describe(&groups, &judged);
        last_reward = format!("reward {:.4}", metrics["reward_mean"].as_f64().unwrap_or(f64::NAN));
        if let Some(kl) = loss.kl_to_reference {
            metrics.insert("kl_to_reference".into(), kl.into());
        }
        let n_tokens: usize = groups.iter().flatten().map(|completion| completion.ids.len()).sum();
        let numbers = [
            ("loss", loss.loss),
            ("learning_rate", update.learning_rate),
            ("grad_norm", update.grad_norm),
            ("tokens_per_s", n_tokens as f64 / step_s),
            ("generate_s", generate_s),
            ("score_s", score_s),
            ("update_s", step_s - generate_s - score_s),
        ];
        metrics.extend(numbers.map(|(name, value)| (name.to_owned(), value.into())));
        let every = grpo.samples_every as u64;
        if grpo.samples_logged > 0 && (step == 1 || step.is_multiple_of(every) || step == grpo.steps as u64) {
            let n = grpo.samples_logged;
            let rows = sample_rows(n, step, &questions, &groups, &judged, &advantages, &style, &chat);
            run.log_mut().samples(step, &rows)?;
        }
        progress.advance(1, &last_reward);
        run.end_step(&weights, positions.end, metrics, stop)?;
    }
    progress.finish(&last_reward);
    run.finish(&weights.decoder)
}

/// The questions with their prompts, without those that leave no room; how many were dropped is noted.
fn questions(
    config: &Config,
    model: &ModelConfig,
    style: &PromptStyle,
    chat: &ChatText,
    judge: &Judge,
    progress: &dyn Progress,
) -> Result<Vec<Question>> {
    let rows = read_questions(&config.data)?;
    let n_read = rows.len();
    let mut questions = rows
        .into_par_iter()
        .map(|row| Ok(Question { prompt: judge.prompt(style, chat, &row)?, row }))
        .collect::<Result<Vec<_>>>()?;
    let room = model.max_position_embeddings - 1;
    let limit =
        if config.data.max_prompt_tokens == 0 { room } else { config.data.max_prompt_tokens.min(room) };
    questions.retain(|question| question.prompt.len() <= limit);
    let dropped = n_read - questions.len();
    if questions.is_empty() {
        return Err(Error::Failed(format!(
            "{}: all {n_read} prompts are longer than {limit} tokens; raise data.max_prompt_tokens or use a \
             model with a longer context",
            config.data.path.display()
        )));
    }
    if dropped > 0 {
        progress.note(&format!("dropped {dropped} of {n_read} questions: prompts above {limit} tokens"));
    }
    Ok(questions)
}

/// A run with a KL term starts with its own copy of the model as the reference; beside an adapter, that is the
/// base model itself.
fn begin_reference(weights: &mut Weights, beta: f32, steps_done: u64) -> Result<()> {
    if beta == 0.0 {
        weights.reference = None;
    } else if weights.decoder.adapter().is_some() {
        weights.reference = Some(weights.decoder.base());
    } else if weights.reference.is_none() {
        if steps_done > 0 {
            return Err(Error::Failed(format!(
                "the checkpoint of step {steps_done} has no reference model, but grpo.beta is {beta}; start \
                 the run again"
            )));
        }
        let decoder = &weights.decoder;
        weights.reference = Some(Decoder::new(decoder.config().clone(), decoder.parameters().clone()));
    }
    Ok(())
}

/// ref <- mixup * policy + (1 - mixup) * ref, every `every` steps (TR-DPO, arXiv 2404.09656).
fn sync_reference(weights: &mut Weights, step: u64, every: usize, mixup: f32) {
    let Weights { decoder, reference: Some(reference), .. } = weights else { return };
    if every > 0 && step.is_multiple_of(every as u64) {
        let policy = decoder.parameters().tensors();
        for (reference, policy) in reference.parameters_mut().tensors_mut().into_iter().zip(policy) {
            reference.mix_in(policy, mixup);
        }
    }
}

/// Prompt and completions of each question, every completion token scored.
fn scoring_groups(requests: &[GenerationRequest], groups: &[Vec<Completion>]) -> Vec<ScoringGroup> {
    let continuation = |completion: &Completion| Continuation::whole(completion.ids.clone());
    requests
        .iter()
        .zip(groups)
        .map(|(request, group)| ScoringGroup {
            prefix: request.prompt.clone(),
            continuations: group.iter().map(continuation).collect(),
        })
        .collect()
}

/// What the update of a step works on.
struct Batch<'a> {
    step: u64,
    /// Names of the questions in errors.
    names: Vec<String>,
    /// One group a question.
    groups: Vec<ScoringGroup>,
    /// One a completion, group by group.
    advantages: &'a [f32],
    beta: f32,
    temperature: f32,
    tokens_per_microbatch: usize,
    keep: Keep,
}

/// What a step's loss came to.
struct StepLoss {
    loss: f64,
    /// Mean k3 over the tokens of each completion, then over completions, nats; none without a reference.
    kl_to_reference: Option<f64>,
}

/// One completion token of the step.
struct Token {
    completion: usize,
    weight: f64,
    reference: Option<f32>,
}

impl Batch<'_> {
    /// Adds the gradient of the step's loss to `gradients`, micro-batch by micro-batch. A group's prompt
    /// is computed once in every micro-batch that has a part of it.
    fn gradient(
        &self,
        policy: &Decoder,
        reference: Option<&Decoder>,
        gradients: &mut Gradients,
    ) -> Result<StepLoss> {
        let tokens = self.tokens(reference)?;
        let (mut done, mut loss, mut kl) = (0, 0.0, 0.0);
        for part in micro_batches(&self.groups, self.tokens_per_microbatch) {
            let batch = PackedBatch::new(&part);
            let logprobs = policy.train_micro_batch(
                &batch,
                self.temperature,
                self.keep,
                gradients,
                |first, logprobs| {
                    let tokens = tokens[done + first..].iter().zip(logprobs);
                    tokens.map(|(token, &logprob)| self.derivative(token, logprob)).collect::<Result<_>>()
                },
            )?;
            for (token, &logprob) in tokens[done..].iter().zip(&logprobs) {
                let advantage = self.advantages[token.completion];
                loss += token.weight * token_loss(advantage, self.beta, logprob, token.reference);
                kl += token.weight * token.reference.map_or(0.0, |reference| k3(logprob, reference));
            }
            done += logprobs.len();
        }
        Ok(StepLoss { loss, kl_to_reference: reference.map(|_| kl) })
    }

    /// All completion tokens of the step in the order in which they are computed.
    fn tokens(&self, reference: Option<&Decoder>) -> Result<Vec<Token>> {
        let mut reference_logprobs = match reference {
            Some(reference) => {
                reference.token_logprobs(&self.groups, self.temperature, self.tokens_per_microbatch)?
            }
            None => Vec::new(),
        }
        .into_iter()
        .flatten()
        .flatten();
        let continuations = self.groups.iter().flat_map(|group| &group.continuations);
        let mut tokens = Vec::new();
        for (completion, continuation) in continuations.enumerate() {
            let n_tokens = continuation.n_scored();
            let weight = token_weight(n_tokens, self.advantages.len());
            tokens.extend((0..n_tokens).map(|_| Token {
                completion,
                weight,
                reference: reference_logprobs.next(),
            }));
        }
        Ok(tokens)
    }

    /// Derivative of the step's loss by one token's log-probability.
    fn derivative(&self, token: &Token, logprob: f32) -> Result<f32> {
        let advantage = self.advantages[token.completion];
        let derivative = token.weight * token_loss_derivative(advantage, self.beta, logprob, token.reference);
        if logprob.is_finite() && derivative.is_finite() {
            return Ok(derivative as f32);
        }
        let group_size = self.advantages.len() / self.names.len();
        let (name, sample) = (&self.names[token.completion / group_size], token.completion % group_size + 1);
        Err(Error::NonFinite(format!(
            "step {}, {name}, sample {sample}: the loss of a token is not finite (log-probability {logprob}, \
             the reference's {:?}); a lower optimizer.learning_rate may help",
            self.step, token.reference
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::run::tests::tiny_model;

    fn batch(advantages: &[f32], tokens_per_microbatch: usize) -> Batch<'_> {
        let ids = |n: u32, factor: u32| -> Vec<u32> { (0..n).map(|i| (i * factor + 3) % 40).collect() };
        let group = |prefix: Vec<u32>, lengths: [u32; 2]| ScoringGroup {
            prefix,
            continuations: lengths.map(|n| Continuation::whole(ids(n, n + 2))).to_vec(),
        };
        Batch {
            step: 4,
            names: vec!["row 8".into(), "row 9".into()],
            groups: vec![group(ids(6, 5), [4, 9]), group(ids(3, 7), [1, 12])],
            advantages,
            beta: 0.3,
            temperature: 0.7,
            tokens_per_microbatch,
            keep: Keep::Activations,
        }
    }

    const ADVANTAGES: [f32; 4] = [0.7, -0.7, -1.2, 1.2];

    #[test]
    fn micro_batches_give_the_gradient_of_the_step() {
        let (policy, reference) = (tiny_model(1), tiny_model(2));
        let gradient = |tokens_per_microbatch| {
            let mut gradients = Gradients::zeros(&policy);
            let batch = batch(&ADVANTAGES, tokens_per_microbatch);
            let loss = batch.gradient(&policy, Some(&reference), &mut gradients).unwrap();
            (loss, gradients)
        };
        let (loss, whole) = gradient(1000);
        assert!(loss.kl_to_reference.unwrap() > 0.0);
        for tokens_per_microbatch in [1, 15, 20] {
            let (cut, parts) = gradient(tokens_per_microbatch);
            assert!((cut.loss - loss.loss).abs() < 1e-6);
            for (a, b) in whole.tensors().iter().zip(parts.tensors()) {
                for (a, b) in a.to_host().iter().zip(b.to_host().iter()) {
                    assert!((a - b).abs() < 1e-5, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn a_step_along_the_gradient_raises_what_has_an_advantage() {
        let policy = tiny_model(1);
        let batch = Batch { beta: 0.0, ..batch(&ADVANTAGES, 1000) };
        let mut gradients = Gradients::zeros(&policy);
        let loss = batch.gradient(&policy, None, &mut gradients).unwrap();
        assert!(loss.kl_to_reference.is_none());
        // Without a KL term the loss is minus the mean advantage, whatever the weights are ..
        assert!(loss.loss.abs() < 1e-6);
        // .. and its gradient is that of the weighted log-probabilities.
        let objective = |decoder: &Decoder| -> f64 {
            let logprobs = decoder.token_logprobs(&batch.groups, 0.7, 1000).unwrap();
            let completions = logprobs.into_iter().flatten();
            completions
                .zip(ADVANTAGES)
                .map(|(logprobs, advantage)| {
                    let sum: f64 = logprobs.iter().map(|&logprob| f64::from(logprob)).sum();
                    -f64::from(advantage) * sum / logprobs.len() as f64 / 4.0
                })
                .sum()
        };
        let h = 1e-2;
        let moved = |sign: f32| {
            let mut parameters = policy.parameters().clone();
            for (weight, gradient) in parameters.tensors_mut().into_iter().zip(gradients.tensors()) {
                let data = weight
                    .to_host()
                    .iter()
                    .zip(gradient.to_host().iter())
                    .map(|(w, g)| w + sign * h * g)
                    .collect();
                *weight = rlt_engine::Tensor::from_vec(weight.rows(), weight.cols(), data);
            }
            objective(&Decoder::new(policy.config().clone(), parameters))
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(h));
        let squares: f64 = gradients.tensors().into_iter().map(rlt_engine::adamw::sum_of_squares).sum();
        assert!((slope / squares - 1.0).abs() < 1e-2, "slope {slope}, squared norm {squares}");
    }

    #[test]
    fn a_loss_that_is_not_finite_names_step_row_and_sample() {
        let advantages = [0.7, -0.7, -1.2, f32::INFINITY];
        let mut gradients = Gradients::zeros(&tiny_model(1));
        let error = batch(&advantages, 1000).gradient(&tiny_model(1), None, &mut gradients).err().unwrap();
        assert!(error.to_string().starts_with("step 4, row 9, sample 2: "), "{error}");
    }

    #[test]
    fn the_reference_moves_towards_the_policy_when_it_is_due() {
        let value = |decoder: &Decoder| decoder.parameters().embedding.to_host()[0];
        let optimizer =
            crate::training::Optimizer::new(&tiny_model(1), &crate::config::OptimizerConfig::default(), 9);
        let mut weights = Weights { decoder: tiny_model(1), optimizer, reference: Some(tiny_model(2)) };
        let (policy, before) = (value(&weights.decoder), value(weights.reference.as_ref().unwrap()));
        sync_reference(&mut weights, 31, 32, 0.9);
        assert_eq!(value(weights.reference.as_ref().unwrap()), before);
        sync_reference(&mut weights, 32, 32, 0.9);
        let after = value(weights.reference.as_ref().unwrap());
        assert!((after - (0.9 * policy + 0.1 * before)).abs() < 1e-7);
        assert_eq!(value(&weights.decoder), policy);
    }
}
