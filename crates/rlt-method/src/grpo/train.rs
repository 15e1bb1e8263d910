//! The loop of GRPO.
//!
//! A step (`step.rs`) samples a group of completions for each question, rewards them, and learns from them in one optimizer
//! step or several (`update.rs`; `objective.rs` and `advantage.rs` of `rlt-reward` have the equations).
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

use std::path::Path;

use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;

use super::reference::{begin_reference, settle_reference};
use super::setup::Setup;
use super::step::Trainer;
use super::told::Told;
use super::update::Learner;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::ranks::{Holding, Ranks, agree};
use crate::run_dir::SERVED;
use crate::sampler::{OwnEngine, SamplingEngine};
use crate::sampling::{sampling_params, stop_tokens, turn_end_token};
use crate::server::{Served, ServedPolicy};
use crate::training::{Earlier, Ending, EpochOrder, GradientSum, Host, Run, Trained, WorldRows};
use crate::whole_vocabulary::check_rows;

/// Trains `given.model.path` by GRPO on the questions of `given.data`, writing to `run_dir`. Goes on
/// where an earlier call in the same directory ended. Once `host.stop` is true, saves and ends. All of `host.ranks` call it
/// alike, each with its own progress and flag, and see the same files under the same names.
///
/// # Errors
/// [`crate::Error::Usage`] for a configuration that lacks something, what files and rows report,
/// [`crate::Error::NonFinite`] naming step, row and sample, [`crate::Error::Interrupted`] after it.
pub fn train(given: &Config, run_dir: &Path, host: &Host) -> Result<Trained> {
    given.validate_for_grpo()?;
    run(given, None, run_dir, host)
}

/// Distils on-policy what `given.model.path` knows where it is told the solution into what it says where it is not
/// (`[distill]`; the file `distill.rs` has the loss). Everything else is as in [`train`].
///
/// # Errors
/// As [`train`]; [`Error::Usage`] for settings that would have no effect, and for weights in shares.
pub fn distill(given: &Config, run_dir: &Path, host: &Host) -> Result<Trained> {
    let given = given.for_distillation()?;
    if matches!(given.memory.holding(&host.ranks), Holding::Shared(_)) {
        return Err(Error::Usage(
            "memory.weights=sharded does not go with distillation: two models take part in every pass; hold weights whole"
                .into(),
        ));
    }
    run(&given, Some(&Told::of(&given.distill)), run_dir, host)
}

fn run(given: &Config, told: Option<&Told>, run_dir: &Path, host: &Host) -> Result<Trained> {
    let host = &host.of_rank();
    let &Host { progress, stop, ref ranks, .. } = host;
    let config = &host.supply(given, run_dir, WorldRows::Questions)?;
    let served = agree(ranks, find_servers(config, ranks, progress))?;
    let earlier = Earlier::find(run_dir, host)?;
    let setup = agree(ranks, Setup::load(config, told, earlier.template_time(), ranks, progress))?;

    let (run, mut weights) = Run::begin(
        config,
        run_dir,
        &setup.chat.tokenizer,
        Ending::of(&config.model.path, turn_end_token(&setup.chat)?)?,
        earlier,
        agree(ranks, setup.inputs(given, progress))?,
        setup.time_told(),
        config.grpo.steps as u64,
        config.grpo.updates_per_step() as u64,
        host,
    )?;
    let mut engine = engine(config, run_dir, served, &setup)?;
    engine.refresh(&weights.decoder, run.steps_done())?;
    engine.begin(progress)?;
    let holding = config.memory.holding_of_frozen(ranks);
    agree(ranks, begin_reference(&mut weights, config, &setup.chat, run.steps_done(), &holding))?;
    if let (true, Some(teacher)) = (told.is_some(), &weights.reference) {
        let rows = [&weights.decoder, teacher].map(|model| model.config().vocab_size);
        agree(ranks, check_rows(rows, "distillation", "choose another model.reference"))?;
    }
    let student = setup.reward.student().and_then(|student| student.model.here());
    settle_reference(&mut weights, config.reference_sync_every(), student);

    progress.start("train", config.grpo.steps as u64 - run.steps_done(), "steps");
    let lanes = run.lanes().clone();
    let learner = Learner::new(config, lanes.clone());
    let learner = if told.is_some() { learner.distilling(config) } else { learner };
    let mut trainer = Trainer {
        setup: &setup,
        run,
        engine,
        order: EpochOrder::new(config.seed, setup.questions.len()),
        gradients: GradientSum::new(&weights.decoder, lanes.n_own()),
        learner,
        weights,
        n_retries: 0,
        stop,
        ranks: ranks.clone(),
    };
    trainer.make_up_for_evaluation()?;
    let mut last_reward = String::new();
    for step in trainer.run.steps_left() {
        let news = trainer.step(step)?;
        progress.advance(1, &format!("{}, {}", news.reward, news.speeds));
        last_reward = news.reward;
        if news.flow.is_break() {
            break;
        }
    }
    progress.finish(&last_reward);
    let Trainer { run, weights, .. } = trainer;
    run.finish(&weights.decoder)
}

/// The servers that are to draw completions, where the configuration names any.
fn find_servers(config: &Config, ranks: &Ranks, progress: &dyn Progress) -> Result<Option<Served>> {
    let Some((table, server)) = config.server_of_teacher() else { return Ok(None) };
    if ranks.size() > 1 {
        return Err(Error::Usage(format!(
            "{table}.url does not go with {} ranks: the servers draw for all, and one rank gives them weights; start one",
            ranks.size()
        )));
    }
    Served::connect(table, server, &config.model.path, progress).map(Some)
}

/// Who draws completions: the own engine, or the servers that were found, which follow the policy.
fn engine(
    config: &Config,
    run_dir: &Path,
    served: Option<Served>,
    setup: &Setup,
) -> Result<Box<dyn SamplingEngine>> {
    let model = ModelConfig::from_dir(&config.model.path)?;
    let params = sampling_params(&config.sampling, stop_tokens(&model, &setup.chat)?);
    let Some(served) = served else { return Ok(Box::new(OwnEngine::new(params, config.seed))) };
    let (exports, dtype) = (run_dir.join(SERVED), config.model.save_dtype.into());
    let tokenizer = Tokenizer::from_dir(&config.model.path)?;
    Ok(Box::new(ServedPolicy::new(served.into(), params, config.seed, &exports, dtype, tokenizer)?))
}
