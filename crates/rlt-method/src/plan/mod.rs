//! What a configuration will need, before anything is loaded: memory by stage, time by step.
//!
//! The run is rehearsed (`rehearsal`) on a device that holds sizes and no numbers: it loads, generates, scores, learns,
//! evaluates and saves by its own code, and what it asks of memory is written down. Time is work over speed, the work being counted on
//! the same way, the speed measured for a moment.

mod cards;
mod command;
mod grpo;
mod machine;
mod place;
mod record;
mod rehearsal;
mod savings;
mod sft;
mod share;
mod speed;
mod steps;

use rlt_engine::arithmetic::Arithmetic;
use rlt_model::config::ModelConfig;

pub use self::cards::{CARDS, Card};
pub use self::command::Command;
use self::grpo::GrpoRows;
use self::place::Place;
pub use self::record::Named;
use self::record::{Stage, StageWork};
use self::rehearsal::{Extent, Rehearsal, Rows, rehearse};
use self::savings::Planned;
use self::sft::SftRows;
use self::share::Share;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// What a run will need.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Parameters of the model, and how many of them (or of the adapter beside it) are trained.
    pub parameters: (usize, usize),
    /// What stays in memory, bytes.
    pub stays: Vec<Named<u64>>,
    /// The peak of each stage, bytes in all.
    pub stages: Vec<Named<u64>>,
    /// The ranks that share it: all other numbers are of one of them, the one with the most.
    pub ranks: usize,
    /// Bytes that a rank sends the others in a step, and receives; nothing of one.
    pub sent: Vec<Named<u64>>,
    /// Seconds of each part of an average step, without what ranks send, as fast as this processor; nothing of a GPU.
    pub step_s: Vec<Named<f64>>,
    /// Steps of the run.
    pub steps: u64,
    /// What this machine has, or its GPU, bytes; none where nobody tells.
    pub memory: Option<u64>,
    /// Settings that would lower the peak, and the peak with each, bytes, the lowest last.
    pub savings: Vec<(String, u64)>,
    /// What a plan for a GPU says besides.
    pub gpu: Option<OnGpu>,
}

/// A plan for a GPU, beyond what one for the processor says.
#[derive(Debug, Clone)]
pub struct OnGpu {
    /// Seconds that each part of an average step takes at least, by card.
    pub bounds: Vec<(Card, Vec<Named<f64>>)>,
    /// Bytes of the host's memory, by what of the GPU's waits in them.
    pub offloaded: Vec<Named<u64>>,
    /// What would lower the peak but is not built for GPUs, and the peak with it, bytes, the lowest last.
    pub not_built: Vec<(String, u64)>,
}

impl Plan {
    /// The most memory that will be held, bytes.
    pub fn peak(&self) -> u64 {
        self.stages.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    /// Seconds of a step that sending takes, at so many bytes a second of one rank in each direction: nothing else is done
    /// meanwhile.
    pub fn network_s(&self, bandwidth: f64) -> f64 {
        self.sent.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() / bandwidth
    }

    /// Refuses what does not fit.
    ///
    /// # Errors
    /// [`Error::Failed`] with what would make it fit.
    pub fn check(&self) -> Result<()> {
        let (peak, Some(memory)) = (self.peak(), self.memory) else { return Ok(()) };
        if peak <= memory {
            return Ok(());
        }
        let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let whose = if self.gpu.is_some() { "the GPU" } else { "the machine" };
        let needs = format!("this needs {} of memory and {whose} has {}", gib(peak), gib(memory));
        let fitting = |all: &[(String, u64)]| all.iter().find(|(_, bytes)| *bytes <= memory).cloned();
        let not_built = self.gpu.as_ref().and_then(|gpu| fitting(&gpu.not_built));
        let what = match (fitting(&self.savings), self.savings.last(), not_built) {
            (Some((keys, bytes)), ..) => format!("{keys} would need {}", gib(bytes)),
            (None, _, Some((what, bytes))) => {
                format!("{what} would need {}, and is not built for GPUs: take a smaller model", gib(bytes))
            }
            (None, Some((keys, bytes)), None) => {
                format!("even {keys} would need {}: take a smaller model", gib(*bytes))
            }
            (None, None, None) => "take a smaller model".into(),
        };
        Err(Error::Failed(format!("{needs}; {what}")))
    }
}

/// Plans `command` with `config` for one of `ranks` ranks, on so many bytes of `memory` in the place of what this machine, or its
/// GPU, has. The weights' headers, the tokenizers and the rows are read; weights are not.
///
/// # Errors
/// What configuration, files and rows report.
pub fn plan(
    config: &Config,
    command: Command,
    ranks: usize,
    memory: Option<u64>,
    progress: &dyn Progress,
) -> Result<Plan> {
    match command {
        Command::Sft => config.validate_for_sft()?,
        Command::Train => config.validate_for_grpo()?,
    }
    if config.model.path.as_os_str().is_empty() || config.data.path.as_os_str().is_empty() {
        let what = "a run that makes its own world is small and needs no plan; set model.path and data.path";
        return Err(Error::Usage(what.into()));
    }
    let share = Share::of(config, ranks)?;
    let model = ModelConfig::from_dir(&config.model.path)?;
    let rows = match command {
        Command::Sft => Rows::Sft(SftRows::read(config, &model, progress)?),
        Command::Train => Rows::Grpo(Box::new(GrpoRows::read(config, &model, progress)?)),
    };
    let place = Place::of(config, memory);
    let rehearsal = rehearse(&place.sizes(), config, &rows, place.beside, Extent::ChosenSteps, share)?;
    let peak = rehearsal.record.peak();
    let mut savings = Planned { command, rows: &rows, place, share }.savings(config)?;
    for savings in [&mut savings.built, &mut savings.not_built] {
        savings.retain(|(_, bytes)| *bytes < peak);
        savings.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    }
    let (step_s, gpu) = if place.is_gpu() {
        let bounds = CARDS.map(|card| (card, bound_seconds(config, &rehearsal, &card))).to_vec();
        (
            Vec::new(),
            Some(OnGpu { bounds, offloaded: rehearsal.offloaded.clone(), not_built: savings.not_built }),
        )
    } else {
        (step_seconds(config, command, &model, &rehearsal, share), None)
    };
    Ok(Plan {
        parameters: rehearsal.parameters,
        stays: rehearsal.record.stays.clone(),
        stages: rehearsal.record.peaks(),
        step_s,
        ranks,
        sent: rehearsal.sent.clone(),
        steps: rows.total_steps(config),
        memory: place.memory,
        savings: savings.built,
        gpu,
    })
}

/// Seconds of the parts of an average step.
fn step_seconds(
    config: &Config,
    command: Command,
    model: &ModelConfig,
    rehearsal: &Rehearsal,
    share: Share,
) -> Vec<Named<f64>> {
    let drawn = match command {
        Command::Sft => 1,
        Command::Train => config.grpo.questions_per_step * config.grpo.group_size,
    };
    let running = drawn.div_ceil(share.ranks).clamp(1, config.sampling.max_running);
    let speed = speed::measure(config, model, rehearsal.parameters.0, running);
    of_average_step(config, rehearsal, |work| work.many_rows() / speed.batch + work.few_rows() / speed.decode)
}

/// Seconds that the parts of an average step take at least on a card.
fn bound_seconds(config: &Config, rehearsal: &Rehearsal, card: &Card) -> Vec<Named<f64>> {
    let arithmetic = Arithmetic::from(config.model.arithmetic);
    of_average_step(config, rehearsal, |work| work.bound_s(card, arithmetic))
}

/// What `seconds` says of the work of each part of an average step.
fn of_average_step(
    config: &Config,
    rehearsal: &Rehearsal,
    seconds: impl Fn(&StageWork) -> f64,
) -> Vec<Named<f64>> {
    let of_stage = |stage: Stage| {
        // Every step that was looked at was evaluated, which the run does now and then.
        let every = if stage == Stage::Evaluation { config.eval.every.max(1) } else { 1 };
        let steps = (rehearsal.n_steps.max(1) * every) as f64;
        (stage.name(), seconds(rehearsal.record.work(stage)) / steps)
    };
    let stages = [Stage::Generation, Stage::Scoring, Stage::Update, Stage::Evaluation];
    stages.map(of_stage).into_iter().filter(|(_, seconds)| *seconds > 0.0).collect()
}
