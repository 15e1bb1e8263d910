//! What a configuration will need, before anything is loaded: memory by stage, time by step.
//!
//! Memory is found by walking through a run with sizes alone (`shape`, `pool`): the same blocks are asked of the
//! same recycling as in the run itself. Time is work over speed, the speed being measured for a moment.

mod machine;
mod pool;
mod shape;
mod speed;
mod work;

use rlt_model::config::ModelConfig;
use rlt_model::decoder::Keep;
use rlt_model::weights::{Dtype, Weights};

use self::pool::Pool;
use self::shape::Shape;
use self::work::{Step, Work, micro_batches};
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
    let lora = config.lora.settings();
    let file = if config.model.from_scratch { Dtype::F32 } else { dtype(&config.model.path)? };
    let policy = Shape::new(model.clone(), lora.is_some() && file == Dtype::Bf16, lora);
    let student = if command == Command::Train && config.reward.kind == RewardKind::Rlt {
        let path = &config.model.student;
        let file = dtype(path)?;
        Some((Shape::new(ModelConfig::from_dir(path)?, file == Dtype::Bf16, None), file.size()))
    } else {
        None
    };
    Ok(Models { policy, policy_file: file.size(), student })
}

fn dtype(folder: &std::path::Path) -> Result<Dtype> {
    Ok(Weights::open(folder)?.dtype("model.embed_tokens.weight")?)
}

/// Walks through the run: what stays, and the peak of every stage.
fn walk(
    config: &Config,
    command: Command,
    models: &Models,
    work: &Work,
    base: u64,
) -> (Vec<Named<u64>>, Vec<Named<u64>>) {
    let mut pool = Pool::beside(base);
    let mut stays = vec![("program, tokenizer, rows", base)];
    let mut blocks = Vec::new();
    let mut kept = |pool: &Pool, name: &'static str| {
        let before: u64 = stays.iter().map(|(_, bytes)| *bytes).sum();
        if pool.held() > before {
            stays.push((name, pool.held() - before));
        }
    };
    if let Some((student, file)) = &models.student {
        blocks.extend(student.load(&mut pool, *file));
        kept(&pool, "student");
    }
    blocks.extend(models.policy.load(&mut pool, models.policy_file));
    kept(&pool, "weights");
    let trained = models.policy.trained();
    for slot in trained.iter().chain(&trained) {
        match config.optimizer.moments {
            MomentDtype::F32 => blocks.push(pool.take(slot.rows * slot.cols)),
            MomentDtype::Bf16 => pool.hold(2 * (slot.rows * slot.cols) as u64),
        }
    }
    kept(&pool, "optimizer moments");
    let has_reference = command == Command::Train && config.grpo.beta > 0.0;
    if has_reference && config.lora.rank == 0 {
        let copy: Vec<_> = trained.iter().map(|slot| pool.take(slot.rows * slot.cols)).collect();
        // One that never moves is narrowed to bf16 where that loses nothing; its f32 blocks are used again.
        let narrowed = config.reference_sync_every() == 0 && models.policy_file == 2;
        for (slot, block) in trained.iter().zip(copy) {
            if narrowed && slot.decay {
                blocks.push(pool.take(slot.rows * slot.cols / 2));
                pool.give(block);
            } else {
                blocks.push(block);
            }
        }
        kept(&pool, "reference");
    }
    blocks.extend(trained.iter().map(|slot| pool.take(slot.rows * slot.cols)));
    kept(&pool, "gradients");
    let mut peaks =
        [("loading", pool.take_peak()), ("generation", 0), ("scoring", 0), ("update", 0), ("saving", 0)];

    let keep = Keep::from(config.memory.recompute);
    let tokens = match command {
        Command::Sft => config.sft.tokens_per_microbatch,
        Command::Train => config.grpo.tokens_per_microbatch,
    };
    let end_stage = |pool: &mut Pool, peak: &mut u64| {
        *peak = (*peak).max(pool.take_peak());
        if config.memory.idle == Idle::Release {
            pool.release();
            pool.take_peak();
        }
    };
    for step in &work.steps {
        if !step.prompts.is_empty() {
            let (n, running) = (config.grpo.group_size, config.sampling.max_running);
            models.policy.generate(&mut pool, &step.prompts, n, work.new_tokens, running);
            end_stage(&mut pool, &mut peaks[1].1);
        }
        let learn = micro_batches(&step.learn, tokens);
        if !step.score.is_empty() {
            score(config, models, step, &mut pool, tokens);
            end_stage(&mut pool, &mut peaks[2].1);
        }
        if has_reference {
            for &batch in &learn {
                models.policy.base().score(&mut pool, batch);
            }
        }
        for &batch in &learn {
            models.policy.learn(&mut pool, batch, keep);
        }
        end_stage(&mut pool, &mut peaks[3].1);
    }
    pool.release();
    pool.take_peak();
    models.policy.save(&mut pool);
    peaks[4].1 = pool.take_peak();
    pool.give_all(blocks);
    (stays, peaks.into_iter().filter(|(_, bytes)| *bytes > 0).collect())
}

/// The student's scoring of a step, and the teacher's where its log-probabilities were not recorded.
fn score(config: &Config, models: &Models, step: &Step, pool: &mut Pool, tokens: usize) {
    let Some((student, _)) = &models.student else { return };
    for batch in micro_batches(&step.score, tokens) {
        student.score(pool, batch);
        if teacher_scores(config) {
            models.policy.score(pool, batch);
        }
    }
}

fn teacher_scores(config: &Config) -> bool {
    config.reward.kl == KlEstimator::Full || config.reward.teacher_temperature != config.sampling.temperature
}

/// Seconds of the parts of an average step.
fn step_seconds(config: &Config, command: Command, models: &Models, work: &Work) -> Vec<Named<f64>> {
    let prompts = work.steps.first().map_or(0, |step| step.prompts.len());
    let running = (prompts * config.grpo.group_size).clamp(1, config.sampling.max_running);
    let speed = speed::measure(&models.policy, running);
    let keep = Keep::from(config.memory.recompute);
    let tokens = match command {
        Command::Sft => config.sft.tokens_per_microbatch,
        Command::Train => config.grpo.tokens_per_microbatch,
    };
    let (mut generation, mut scoring, mut update) = (0.0, 0.0, 0.0);
    for step in &work.steps {
        for prompt in &step.prompts {
            generation += models.policy.score_work(shape::MicroBatch { rows: *prompt, targets: 0, keys: 0 })
                / speed.batch;
            let keys = (prompt + work.new_tokens / 2) as u64;
            let drawn = (config.grpo.group_size * work.new_tokens) as f64;
            generation += drawn * models.policy.step_work(keys) / speed.decode;
        }
        for batch in micro_batches(&step.score, tokens) {
            let student = models.student.as_ref().map_or(0.0, |(student, _)| student.score_work(batch));
            let teacher = if teacher_scores(config) { models.policy.score_work(batch) } else { 0.0 };
            scoring += (student + teacher) / speed.batch;
        }
        for batch in micro_batches(&step.learn, tokens) {
            if command == Command::Train && config.grpo.beta > 0.0 {
                update += models.policy.base().score_work(batch) / speed.batch;
            }
            let epochs = if command == Command::Train { config.grpo.epochs as f64 } else { 1.0 };
            update += epochs * models.policy.learn_work(batch, keep) / speed.batch;
        }
    }
    let n = work.steps.len().max(1) as f64;
    let parts = [("generation", generation / n), ("scoring", scoring / n), ("update", update / n)];
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
