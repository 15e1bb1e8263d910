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
use rlt_model::Gradients;
use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::generate::{Completion, GenerationRequest, generate};
use serde_json::{Map, Value};

use super::evaluate::HeldOut;
use super::judge::{Judge, Question};
use super::metrics::{describe, sample_rows};
use super::objective::group_advantages;
use super::reference::{begin_reference, sync_reference};
use super::update::Batch;
use crate::config::Config;
use crate::dataset::read_questions;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle};
use crate::sampling::{sampling_params, stop_tokens};
use crate::training::checkpoint::data_checksum;
use crate::training::{EpochOrder, Run, Standing, State, Trained, WorldRows, supply_world};

/// Trains `config.model.path` by GRPO on the questions of `config.data`, writing to `run_dir`. Goes on
/// where an earlier call in the same directory ended. Once `stop` is true, saves and ends.
///
/// # Errors
/// [`Error::Usage`] for a configuration that lacks something, what files and rows report,
/// [`Error::NonFinite`] naming step, row and sample, [`Error::Interrupted`] after `stop`.
pub fn train(config: &Config, run_dir: &Path, progress: &dyn Progress, stop: &AtomicBool) -> Result<Trained> {
    config.validate_for_grpo()?;
    let config = &supply_world(config, run_dir, WorldRows::Questions)?;
    let grpo = &config.grpo;
    let style = PromptStyle::resolve(&config.prompts)?;
    let chat = ChatText::from_dir(&config.model.path)?;
    let judge = Judge::load(config, &chat)?;
    let model = ModelConfig::from_dir(&config.model.path)?;
    let all_questions = questions(config, &model, &style, &chat, &judge, progress)?;
    let held_out = HeldOut::load(config, &model, &style, &chat, &judge, progress)?;
    let per_step = grpo.questions_per_step as u64;

    let state = State {
        work: "grpo".into(),
        step: 0,
        seed: config.seed,
        rows_drawn: 0,
        n_rows: all_questions.len(),
        data_checksum: data_checksum(all_questions.iter().map(|question| question.prompt.as_slice())),
        evaluation: Standing::default(),
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
        run.stop_if_asked(&weights, stop)?;
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
        config.memory.end_stage();
        let generate_s = started.elapsed().as_secs_f64();
        run.stop_if_asked(&weights, stop)?;

        // Rewards, and advantages within each group.
        let judged = judge.rewards(step, &questions, &groups, &style, &chat, &weights.decoder, config)?;
        let rewards: Vec<f32> = judged.iter().map(|judged| judged.reward).collect();
        let advantages: Vec<f32> = rewards.chunks(grpo.group_size).flat_map(group_advantages).collect();
        config.memory.end_stage();
        let score_s = started.elapsed().as_secs_f64() - generate_s;
        run.stop_if_asked(&weights, stop)?;

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
        config.memory.end_stage();
        let update = weights.optimizer.update(&mut weights.decoder, &gradients)?;
        sync_reference(&mut weights, step, grpo.reference_sync_every, grpo.reference_mixup);
        let update_s = started.elapsed().as_secs_f64() - generate_s - score_s;

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
            ("tokens_per_s", n_tokens as f64 / (generate_s + score_s + update_s)),
            ("generate_s", generate_s),
            ("score_s", score_s),
            ("update_s", update_s),
            ("generate_tokens_per_s", n_tokens as f64 / generate_s),
            ("score_tokens_per_s", n_tokens as f64 / score_s),
            ("update_tokens_per_s", n_tokens as f64 / update_s),
        ];
        metrics.extend(numbers.map(|(name, value)| (name.to_owned(), value.into())));
        let every = grpo.samples_every as u64;
        if grpo.samples_logged > 0 && (step == 1 || step.is_multiple_of(every) || step == grpo.steps as u64) {
            let n = grpo.samples_logged;
            let rows = sample_rows(n, step, &questions, &groups, &judged, &advantages, &style, &chat);
            run.log_mut().samples(step, &rows)?;
        }
        let evaluated = match &held_out {
            Some(held_out) if run.is_evaluation_due(step) => {
                Some(held_out.evaluate(&weights.decoder, &sampling, &judge, &style, &chat, config)?)
            }
            _ => None,
        };
        progress.advance(1, &format!("{last_reward}, {}", speeds(&metrics)));
        if run.end_step(&weights, positions.end, metrics, evaluated)?.is_break() {
            break;
        }
    }
    progress.finish(&last_reward);
    run.finish(&weights.decoder)
}

/// Completion tokens a second in each part of a step, for whoever watches.
fn speeds(metrics: &Map<String, Value>) -> String {
    let speed = |part: &str| metrics[&format!("{part}_tokens_per_s")].as_f64().unwrap_or(f64::NAN);
    let [generate, score, update] = ["generate", "score", "update"].map(speed);
    format!("tokens/s: {generate:.0} written, {score:.0} scored, {update:.0} learnt")
}

/// The questions with their prompts, without those that leave no room; how many were dropped is noted.
pub(super) fn questions(
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
