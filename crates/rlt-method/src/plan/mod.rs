//! What a configuration will need, before anything is loaded: memory by stage, time by step.
//!
//! The run is rehearsed (`rehearsal`) on a device that holds sizes and no numbers: it loads, generates, scores, learns,
//! evaluates and saves by its own code, and what it asks of memory is written down. Time is work over speed, the work being counted on
//! the same way, the speed measured for a moment.

mod command;
mod grpo;
mod machine;
mod record;
mod rehearsal;
mod savings;
mod sft;
mod share;
mod speed;
mod steps;

use rlt_engine::Device;
use rlt_model::config::ModelConfig;

pub use self::command::Command;
use self::grpo::GrpoRows;
pub use self::record::Named;
use self::record::Stage;
use self::rehearsal::{Extent, Rehearsal, Rows, rehearse};
use self::sft::SftRows;
use self::share::Share;
use crate::config::{Config, DeviceName};
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
    /// Seconds of each part of an average step, without what ranks send.
    pub step_s: Vec<Named<f64>>,
    /// Steps of the run.
    pub steps: u64,
    /// What this machine has, bytes; none where the system does not tell.
    pub memory: Option<u64>,
    /// Settings that would lower the peak, and the peak with each, bytes, the lowest last.
    pub savings: Vec<(String, u64)>,
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
        let needs = format!("this needs {} of memory and the machine has {}", gib(peak), gib(memory));
        let fitting = self.savings.iter().find(|(_, bytes)| *bytes <= memory);
        let what = match fitting.or(self.savings.last()) {
            Some((keys, bytes)) if *bytes <= memory => format!("{keys} would need {}", gib(*bytes)),
            Some((keys, bytes)) => format!("even {keys} would need {}: take a smaller model", gib(*bytes)),
            None => "take a smaller model".into(),
        };
        Err(Error::Failed(format!("{needs}; {what}")))
    }
}

/// Plans `command` with `config` for one of `ranks` ranks. The weights' headers, the tokenizers and the rows are read; weights
/// are not.
///
/// # Errors
/// What configuration, files and rows report.
pub fn plan(config: &Config, command: Command, ranks: usize, progress: &dyn Progress) -> Result<Plan> {
    match command {
        Command::Sft => config.validate_for_sft()?,
        Command::Train => config.validate_for_grpo()?,
    }
    if config.model.path.as_os_str().is_empty() || config.data.path.as_os_str().is_empty() {
        let what = "a run that makes its own world is small and needs no plan; set model.path and data.path";
        return Err(Error::Usage(what.into()));
    }
    if config.model.device != DeviceName::Cpu {
        let what = format!(
            "model.device is {}: the plan counts what the processor takes; leave it out",
            config.model.device
        );
        return Err(Error::Usage(what));
    }
    let share = Share::of(config, ranks)?;
    let model = ModelConfig::from_dir(&config.model.path)?;
    let rows = match command {
        Command::Sft => Rows::Sft(SftRows::read(config, &model, progress)?),
        Command::Train => Rows::Grpo(Box::new(GrpoRows::read(config, &model, progress)?)),
    };
    let base = machine::resident_bytes();
    let rehearsal = rehearse(&Device::sizes(), config, &rows, base, Extent::ChosenSteps, share)?;
    let stages = rehearsal.record.peaks();
    let peak = stages.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    let mut savings = savings::savings(config, command, &rows, base, share)?;
    savings.retain(|(_, bytes)| *bytes < peak);
    savings.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Ok(Plan {
        parameters: rehearsal.parameters,
        stays: rehearsal.record.stays.clone(),
        stages,
        step_s: step_seconds(config, command, &model, &rehearsal, share),
        ranks,
        sent: rehearsal.sent.clone(),
        steps: rows.total_steps(config),
        memory: machine::memory_bytes(),
        savings,
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
    let seconds = |stage: Stage| {
        let work = rehearsal.record.work(stage);
        let seconds = work.many_rows / speed.batch + work.few_rows / speed.decode;
        // Every step that was looked at was evaluated, which the run does now and then.
        let every = if stage == Stage::Evaluation { config.eval.every.max(1) } else { 1 };
        (stage.name(), seconds / (rehearsal.n_steps.max(1) * every) as f64)
    };
    let stages = [Stage::Generation, Stage::Scoring, Stage::Update, Stage::Evaluation];
    stages.map(seconds).into_iter().filter(|(_, seconds)| *seconds > 0.0).collect()
}
