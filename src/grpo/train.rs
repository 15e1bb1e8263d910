//! The loop of GRPO.
//!
//! A step samples a group of completions for each question, rewards them, and learns from them in one optimizer step
//! or several (`update.rs`; `objective.rs` and `advantage.rs` have the equations).
//!
//! Where it differs from the paper's code (built on TRL and vLLM):
//! - weights and moments are f32, not bf16; rollouts come from the very weights that are trained, and
//!   the teacher's log-probabilities in r_KL are those recorded while sampling where the temperatures
//!   are equal (they are, in the paper's recipe);
//! - the ratio of new to old policy is taken against the log-probabilities recorded while sampling, also where each batch
//!   is learnt from once; there it is 1 by construction, here to rounding;
//! - a completion without any think token gets `reward.unscorable_reward`; there the code turns a NaN into a
//!   constant;
//! - epochs follow each other without a partial batch between them;
//! - prompts that do not fit are dropped and counted, not cut;
//! - the reference model is part of a checkpoint; there it is lost on resume.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rlt_model::config::ModelConfig;
use rlt_model::generate::GenerationRequest;
use rlt_model::{Decoder, Gradients, Stop};
use serde_json::{Map, Value};

use super::evaluate::HeldOut;
use super::judge::{Judge, Question};
use super::metrics::{describe, sample_rows};
use super::questions::questions;
use super::reference::{begin_reference, settle_reference, sync_reference};
use super::replay::failed_groups;
use super::rollout::Rollout;
use super::update::{Learner, SampleGroup};
use crate::config::{Config, RewardKind};
use crate::error::Result;
use crate::metrics::{self, Metric};
use crate::model_files::{Deciding, ModelFiles};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle};
use crate::sampler::{OwnEngine, Sampler, SamplingEngine};
use crate::sampling::{sampling_params, stop_tokens, turn_end_token};
use crate::training::inputs::Checksum;
use crate::training::{Earlier, Ending, EpochOrder, Host, Inputs, RowsSum, Run, Trained, WorldRows};

/// Trains `given.model.path` by GRPO on the questions of `given.data`, writing to `run_dir`. Goes on
/// where an earlier call in the same directory ended. Once `host.stop` is true, saves and ends.
///
/// # Errors
/// [`crate::Error::Usage`] for a configuration that lacks something, what files and rows report,
/// [`crate::Error::NonFinite`] naming step, row and sample, [`crate::Error::Interrupted`] after it.
pub fn train(given: &Config, run_dir: &Path, host: &Host) -> Result<Trained> {
    let &Host { progress, stop, .. } = host;
    given.validate_for_grpo()?;
    let config = &(host.supply_world)(given, run_dir, WorldRows::Questions)?;
    let earlier = Earlier::find(run_dir, progress)?;
    let time = earlier.template_time();
    let grpo = &config.grpo;
    let style = PromptStyle::resolve(&config.prompts)?;
    let chat = ChatText::from_dir_at(&config.model.path, time)?.reading(config.data.special_tokens);
    let judge = Judge::load(config, &chat, time)?;
    if let Some(warning) = style.thought_in_thought(judge.student_chat(&chat)) {
        progress.warn(&warning);
    }
    let model = ModelConfig::from_dir(&config.model.path)?;
    let all_questions = questions(config, &model, &style, &chat, &judge, progress)?;
    let learner = Learner::new(config);
    let updates = grpo.updates_per_step() as u64;
    let held_out = HeldOut::load(config, &model, &style, &chat, &judge, progress)?;

    let (mut run, mut weights) = Run::begin(
        config,
        run_dir,
        &chat.tokenizer,
        Ending::of(&config.model.path, turn_end_token(&chat)?)?,
        earlier,
        inputs(given, config, &all_questions, held_out.as_ref(), progress)?,
        (chat.template.tells_time() || judge.tells_time()).then_some(time),
        grpo.steps as u64,
        updates,
        host,
    )?;
    let sampling = sampling_params(&config.sampling, stop_tokens(&weights.decoder, &chat)?);
    let mut engine = OwnEngine::new(sampling, config.seed);
    engine.refresh(&weights.decoder, run.steps_done())?;
    begin_reference(&mut weights, config, &chat, run.steps_done())?;
    settle_reference(&mut weights, config.reference_sync_every(), judge.student());
    let mut order = EpochOrder::new(config.seed, all_questions.len());
    let mut gradients = Gradients::zeros(&weights.decoder);
    let mut last_reward = String::new();
    progress.start("train", grpo.steps as u64 - run.steps_done(), "steps");
    let evaluate = |step: u64, sampler: &dyn Sampler, decoder: &Decoder| {
        let asked = Stop::when(stop);
        let evaluate =
            |rows: &HeldOut| rows.evaluate(step, sampler, decoder, &judge, &style, &chat, config, asked);
        held_out.as_ref().map(evaluate).transpose()
    };
    let _ = run.end_unevaluated_step(&weights, |step| {
        evaluate(step, &*engine.sampler(&weights.decoder), &weights.decoder)
    })?;

    for step in run.steps_left() {
        run.stop_if_asked(&weights, stop)?;
        let started = Instant::now();
        let (mut generate_s, mut score_s) = (0.0, 0.0);
        let mut rollout = Rollout::default();
        let mut next = run.rows_drawn();
        loop {
            // Questions, by a global index; further ones in place of those whose rewards are all equal.
            let missing = rollout.missing(grpo.questions_per_step, learner.settings.resample_rounds);
            if missing == 0 {
                break;
            }
            let positions = next..next + missing as u64;
            next = positions.end;
            let questions: Vec<&Question> =
                order.rows(positions.clone()).into_iter().map(|row| &all_questions[row]).collect();

            // Completions: a group of G for each question.
            let round = Instant::now();
            let request = |(position, question): (u64, &&Question)| GenerationRequest {
                prompt: question.prompt.clone(),
                n: grpo.group_size,
                stream: [step, position],
            };
            let requests: Vec<_> = positions.zip(&questions).map(request).collect();
            let asked = Stop::when(stop);
            let completions = engine
                .sampler(&weights.decoder)
                .sample(&requests, asked)
                .map_err(|error| run.stopped(&weights, error, stop))?;
            config.memory.end_stage();
            generate_s += round.elapsed().as_secs_f64();

            // Rewards.
            let round = Instant::now();
            let judged = judge
                .rewards(step, &questions, &completions, &style, &chat, &weights.decoder, config, asked)
                .map_err(|error| {
                    let kept = run.keep_failed(&weights, error, || failed_groups(&questions, &completions));
                    run.stopped(&weights, kept, stop)
                })?;
            config.memory.end_stage();
            score_s += round.elapsed().as_secs_f64();
            rollout.add(questions, completions, judged);
        }

        // The update: reference log-probabilities, advantages, gradients, AdamW.
        let chosen = rollout.chosen(grpo.questions_per_step);
        let to_learn: Vec<SampleGroup> = chosen.iter().map(|group| group.to_learn()).collect();
        let asked = Stop::when(stop);
        let update =
            learner.learn(step, &to_learn, &mut weights, &mut gradients, asked).map_err(|error| {
                let groups = || chosen.iter().map(|group| group.to_keep()).collect();
                let kept = run.keep_failed(&weights, error, groups);
                run.stopped(&weights, kept, stop)
            })?;
        config.memory.end_stage();
        engine.refresh(&weights.decoder, step)?;
        sync_reference(&mut weights, step, config.reference_sync_every(), grpo.reference_mixup);
        let update_s = started.elapsed().as_secs_f64() - generate_s - score_s;

        // Records.
        let mut row = describe(&rollout.groups);
        last_reward = format!("reward {:.4}", metrics::REWARD.mean.of(&row).unwrap_or(f64::NAN));
        row.extend(update.describe());
        if learner.settings.resample_rounds > 0 {
            metrics::GROUPS_SAMPLED.put(&mut row, rollout.groups.len());
        }
        let completions = rollout.groups.iter().flat_map(|group| &group.completions);
        let n_tokens: usize = completions.map(|completion| completion.ids.len()).sum();
        let numbers = [
            (metrics::TOKENS_PER_S, n_tokens as f64 / (generate_s + score_s + update_s)),
            (metrics::GENERATE_S, generate_s),
            (metrics::SCORE_S, score_s),
            (metrics::UPDATE_S, update_s),
            (metrics::GENERATE_TOKENS_PER_S, n_tokens as f64 / generate_s),
            (metrics::SCORE_TOKENS_PER_S, n_tokens as f64 / score_s),
            (metrics::UPDATE_TOKENS_PER_S, n_tokens as f64 / update_s),
        ];
        numbers.iter().for_each(|(metric, value)| metric.put(&mut row, *value));
        let every = grpo.samples_every as u64;
        if grpo.samples_logged > 0 && (step == 1 || step.is_multiple_of(every) || step == grpo.steps as u64) {
            let rows = sample_rows(grpo.samples_logged, step, &chosen, &update.advantages, &style, &chat);
            run.log_mut().samples(step, &rows)?;
        }
        let message = format!("{last_reward}, {}", speeds(&row));
        let ended = run.end_step(&weights, next, row, |step| {
            evaluate(step, &*engine.sampler(&weights.decoder), &weights.decoder)
        })?;
        progress.advance(1, &message);
        if ended.is_break() {
            break;
        }
    }
    progress.finish(&last_reward);
    run.finish(&weights.decoder)
}

/// What the run must find unchanged to go on.
fn inputs(
    given: &Config,
    config: &Config,
    questions: &[Question],
    held_out: Option<&HeldOut>,
    progress: &dyn Progress,
) -> Result<Inputs> {
    let of_path = Inputs::of("grpo", given, config, progress)?;
    let files = |folder: &PathBuf| match &of_path.model {
        Some(known) if *folder == config.model.path && !config.model.from_scratch => Ok(known.clone()),
        _ if folder.as_os_str().is_empty() => Ok(ModelFiles::default()),
        _ => ModelFiles::of(folder, Deciding::WithWeights, progress),
    };
    let student = match config.reward.kind {
        RewardKind::Rlt => files(&config.model.student)?,
        RewardKind::Correctness => ModelFiles::default(),
    };
    let mut answers = Checksum::default();
    for question in questions {
        question.add_texts(&mut answers);
    }
    Ok(Inputs {
        rows: Some(RowsSum::of_ids(questions.iter().map(|question| &*question.prompt))),
        answers: Some(answers.finish()),
        held_out: Some(held_out.map(HeldOut::fingerprint).unwrap_or_default()),
        student: Some(student),
        reference: Some(files(&config.model.reference)?),
        ..of_path
    })
}

/// Completion tokens a second in each part of a step, for whoever watches.
fn speeds(row: &Map<String, Value>) -> String {
    let speed = |metric: Metric| metric.of(row).unwrap_or(f64::NAN);
    let [generate, score, update] =
        [metrics::GENERATE_TOKENS_PER_S, metrics::SCORE_TOKENS_PER_S, metrics::UPDATE_TOKENS_PER_S]
            .map(speed);
    format!("tokens/s: {generate:.0} written, {score:.0} scored, {update:.0} learnt")
}
