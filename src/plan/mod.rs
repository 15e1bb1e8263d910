//! What a configuration will need, before anything is loaded: memory by stage, time by step.
//!
//! Memory is found by walking through a run with sizes alone (`shape`, `pool`): the same blocks are asked of the
//! same recycling as in the run itself. Time is work over speed, the speed being measured for a moment.

mod machine;
mod pool;
mod shape;
mod speed;
mod walk;
mod work;

use rlt_model::config::ModelConfig;
use rlt_model::folder::check_weights;
use rlt_model::training_pass::Keep;
use rlt_model::weights::{Dtype, Weights};

use self::shape::{MicroBatch, Shape};
use self::walk::walk;
use self::work::{Step, Work, micro_batches, score_batches};
use crate::config::{Config, Idle, KlEstimator, MomentDtype, Recompute, RewardKind};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Which command the plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `rlt sft`.
    Sft,
    /// `rlt train`.
    Train,
}

/// A named number of bytes or of seconds.
pub type Named<T> = (&'static str, T);

/// What a run will need.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Parameters of the model, and how many of them (or of the adapter beside it) are trained.
    pub parameters: (usize, usize),
    /// What stays in memory, bytes.
    pub stays: Vec<Named<u64>>,
    /// The peak of each stage, bytes in all.
    pub stages: Vec<Named<u64>>,
    /// Seconds of each part of an average step.
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

/// The models of a run, by shape.
struct Models {
    policy: Shape,
    policy_file: usize,
    /// Shape and bytes of a number in its files.
    student: Option<(Shape, usize)>,
    /// The reference model, where there is a KL term.
    reference: Option<Shape>,
    /// It, and bytes of a number in its files, where it is loaded from a folder of its own.
    given_reference: Option<(Shape, usize)>,
    /// Whether it is the student, too: never moves, and begins as the same files.
    reference_is_student: bool,
}

/// Plans `command` with `config`. The weights' headers, the tokenizers and the rows are read; weights are not.
///
/// # Errors
/// What configuration, files and rows report.
pub fn plan(config: &Config, command: Command, progress: &dyn Progress) -> Result<Plan> {
    match command {
        Command::Sft => config.validate_for_sft()?,
        Command::Train => config.validate_for_grpo()?,
    }
    if config.model.path.as_os_str().is_empty() || config.data.path.as_os_str().is_empty() {
        let what = "a run that makes its own world is small and needs no plan; set model.path and data.path";
        return Err(Error::Usage(what.into()));
    }
    let model = ModelConfig::from_dir(&config.model.path)?;
    let work = match command {
        Command::Sft => work::of_sft(config, &model, progress)?,
        Command::Train => work::of_grpo(config, &model, progress)?,
    };
    let base = machine::resident_bytes();
    let models = models(config, command, &model)?;
    let (stays, stages) = walk(config, command, &models, &work, base);
    let peak = stages.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    let mut savings = savings(config, command, &model, &work, base)?;
    savings.retain(|(_, bytes)| *bytes < peak);
    savings.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let count = |shape: &Shape| shape.trained().iter().map(|slot| slot.rows * slot.cols).sum();
    Ok(Plan {
        parameters: (count(&models.policy.base()), count(&models.policy)),
        stays,
        stages,
        step_s: step_seconds(config, command, &models, &work),
        steps: work.total_steps,
        memory: machine::memory_bytes(),
        savings,
    })
}

fn models(config: &Config, command: Command, model: &ModelConfig) -> Result<Models> {
    let (lora, arithmetic) = (config.lora.settings(), config.model.arithmetic.into());
    let file = if config.model.from_scratch { Dtype::F32 } else { dtype(&config.model.path)? };
    let policy = Shape::new(model.clone(), lora.is_some() && file == Dtype::Bf16, lora, arithmetic);
    let student = if command == Command::Train && config.reward.kind == RewardKind::Rlt {
        let path = &config.model.student;
        let file = dtype(path)?;
        Some((Shape::new(ModelConfig::from_dir(path)?, file == Dtype::Bf16, None, arithmetic), file.size()))
    } else {
        None
    };
    let has_reference = command == Command::Train && config.grpo.beta > 0.0;
    let given_reference = match &config.model.reference {
        path if has_reference && !path.as_os_str().is_empty() => {
            let file = dtype(path)?;
            let stays = config.reference_sync_every() == 0;
            let shape =
                Shape::new(ModelConfig::from_dir(path)?, stays && file == Dtype::Bf16, None, arithmetic);
            Some((shape, file.size()))
        }
        _ => None,
    };
    let reference = has_reference
        .then(|| given_reference.as_ref().map_or_else(|| policy.base(), |(shape, _)| shape.clone()));
    let folders = [&config.model.path, &config.model.student].map(|path| path.canonicalize().ok());
    let reference_is_student = has_reference
        && config.reference_sync_every() == 0
        && student.is_some()
        && given_reference.is_none()
        && folders[0] == folders[1];
    Ok(Models { policy, policy_file: file.size(), student, reference, given_reference, reference_is_student })
}

/// The number format of a folder's weights, which are those of its configuration.
fn dtype(folder: &std::path::Path) -> Result<Dtype> {
    let weights = Weights::open(folder)?;
    check_weights(&ModelConfig::from_dir(folder)?, &weights)?;
    Ok(weights.dtype("model.embed_tokens.weight")?)
}

fn teacher_scores(config: &Config) -> bool {
    config.reward.kl == KlEstimator::Full || config.reward.teacher_temperature != config.sampling.temperature
}

/// Tokens in memory at once.
fn tokens_per_microbatch(config: &Config, command: Command) -> usize {
    match command {
        Command::Sft => config.sft.tokens_per_microbatch,
        Command::Train => config.grpo.tokens_per_microbatch,
    }
}

/// Seconds of the parts of an average step.
fn step_seconds(config: &Config, command: Command, models: &Models, work: &Work) -> Vec<Named<f64>> {
    let first = work.steps.first().and_then(|step| step.rounds.first());
    let drawn = first.map_or(0, |round| round.prompts.len() * round.n);
    let speed = speed::measure(&models.policy, drawn.clamp(1, config.sampling.max_running));
    let keep = Keep::from(config.memory.recompute);
    let tokens = tokens_per_microbatch(config, command);
    // Generation and scoring of completions.
    let sampled = |step: &Step| {
        let (mut generation, mut scoring) = (0.0, 0.0);
        // What resampling draws is not known, and is not counted.
        for round in step.rounds.iter().take(1) {
            for prompt in &round.prompts {
                let batch = MicroBatch::prompts(&[*prompt]);
                generation += models.policy.score_work(batch) / speed.batch;
                let keys = (prompt + work.new_tokens / 2) as u64;
                let drawn = (round.n * work.new_tokens) as f64;
                generation += drawn * models.policy.step_work(keys) / speed.decode;
            }
            for batch in score_batches(&round.score, tokens) {
                let student = models.student.as_ref().map_or(0.0, |(student, _)| student.score_work(batch));
                let teacher = if teacher_scores(config) { models.policy.score_work(batch) } else { 0.0 };
                scoring += (student + teacher) / speed.batch;
            }
        }
        (generation, scoring)
    };
    let (mut generation, mut scoring, mut update) = (0.0, 0.0, 0.0);
    for step in &work.steps {
        let (of_generation, of_scoring) = sampled(step);
        generation += of_generation;
        scoring += of_scoring;
        for batch in micro_batches(&step.learn, tokens) {
            let reference = models.reference.as_ref().map_or(0.0, |reference| reference.score_work(batch));
            let epochs = if command == Command::Train { config.grpo.epochs as f64 } else { 1.0 };
            update += (reference + epochs * models.policy.learn_work(batch, keep)) / speed.batch;
        }
    }
    let n = work.steps.len().max(1) as f64;
    let mut parts = vec![("generation", generation / n), ("scoring", scoring / n), ("update", update / n)];
    if let Some(evaluation) = &work.evaluation {
        let (generation, scoring) = sampled(evaluation);
        let held_out = micro_batches(&evaluation.held_out, tokens).into_iter();
        let read: f64 = held_out.map(|batch| models.policy.score_work(batch) / speed.batch).sum();
        // Its share of one step.
        parts.push(("evaluation", (generation + scoring + read) / config.eval.every as f64));
    }
    parts.into_iter().filter(|(_, seconds)| *seconds > 0.0).collect()
}

type Change = fn(&mut Config);

/// Settings that may lower the peak, and the peak with each.
fn savings(
    config: &Config,
    command: Command,
    model: &ModelConfig,
    work: &Work,
    base: u64,
) -> Result<Vec<(String, u64)>> {
    let changes: [(&str, Change); 5] = [
        ("optimizer.moments=bf16", |config| config.optimizer.moments = MomentDtype::Bf16),
        ("memory.recompute=blocks", |config| config.memory.recompute = Recompute::Blocks),
        ("memory.idle=release", |config| config.memory.idle = Idle::Release),
        ("TABLE.tokens_per_microbatch=1024", |config| {
            config.sft.tokens_per_microbatch = config.sft.tokens_per_microbatch.min(1024);
            config.grpo.tokens_per_microbatch = config.grpo.tokens_per_microbatch.min(1024);
        }),
        ("lora.rank=16", |config| {
            if config.lora.rank == 0 && !config.model.from_scratch {
                config.lora.rank = 16;
                config.grpo.reference_sync_every = config.grpo.reference_sync_every.map(|_| 0);
            }
        }),
    ];
    let table = if command == Command::Sft { "sft" } else { "grpo" };
    let mut found = Vec::new();
    let mut all = config.clone();
    let mut names = Vec::new();
    for (name, change) in changes {
        let mut changed = config.clone();
        change(&mut changed);
        if changed == *config {
            continue;
        }
        let mut name = name.replace("TABLE", table);
        if changed.grpo.reference_sync_every != config.grpo.reference_sync_every && command == Command::Train
        {
            name.push_str(" grpo.reference_sync_every=0");
        }
        change(&mut all);
        names.push(name.clone());
        for (name, config) in [(name, &changed), (names.join(" "), &all)] {
            let models = models(config, command, model)?;
            let (_, stages) = walk(config, command, &models, work, base);
            found.push((name, stages.into_iter().map(|(_, bytes)| bytes).max().unwrap_or(0)));
        }
    }
    found.dedup();
    Ok(found)
}
