//! The whole method in miniature: every stage is the code that `rlt sft`, `rlt train`, `rlt explain`
//! and `rlt eval` run, from the configurations in `configs/demo/`.
//!
//! 1. A base model learns short chains of single steps from a textbook.
//! 2. The teacher is the base model after a warm-up on explanations of every quality.
//! 3. GRPO trains the teacher on the RLT reward; the base model is the reward's student.
//! 4. The teacher before RL and the teacher after RL explain the same questions.
//! 5. A student is distilled from each set of explanations.
//! 6. Base model and students answer held-out questions.

mod forecast;
mod scale;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rlt_files::write_atomic;
use serde_json::{Map, Value, json};

pub use crate::miniature::ExplanationFigures;
use crate::miniature::{Miniature, TeacherTraces, figures, write_student_rows};
use crate::pretrained::Pretrained;
use crate::worlds::lexicon::write_model_folder;
use crate::worlds::{DatasetFiles, World, WorldContent};
use forecast::{Forecast, probe, roughly};
use rlt_method::config::Config;
use rlt_method::dataset::TraceRow;
use rlt_method::error::{Error, Result};
use rlt_method::evaluate::task::Task;
use rlt_method::evaluate::write_report;
use rlt_method::progress::Progress;
use rlt_method::prompts::ChatText;
use rlt_method::run_dir::open_folder_of_runs;
use rlt_method::score::{Formats, RltSample, ScoredSample, ledger_columns, score_columns, score_traces};
use rlt_method::training::run::frozen_model;
use rlt_report::{self as report, DemoSummary, Explanations, Sample, Stage, Student};
use scale::Amounts;
pub use scale::DemoScale;

const BASE: &str = include_str!("../../../configs/demo/base.toml");
const TEACHER_SFT: &str = include_str!("../../../configs/demo/teacher_sft.toml");
const RLT: &str = include_str!("../../../configs/demo/rlt.toml");
const STUDENT: &str = include_str!("../../../configs/demo/student.toml");

/// Temperature of the answers.
const EVAL_TEMPERATURE: f32 = 0.8;

/// What a demo is made with.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Where it writes.
    pub run_dir: PathBuf,
    /// How much of everything.
    pub scale: DemoScale,
    /// Seed of everything.
    pub seed: u64,
    /// `key=value` changes of the RL stage's configuration (`reward.lambda=0`); those of `[model]` and `[memory]` are every stage's.
    pub overrides: Vec<String>,
    /// The base model, where it is a pretrained one; it says how much of everything in the place of `scale`.
    pub pretrained: Option<Pretrained>,
}

/// What a demo came to.
#[derive(Debug, Clone)]
pub struct DemoResult {
    /// What `demo.json` holds.
    pub summary: DemoSummary,
    /// How the explanations before and after RL differ, over all that were written.
    pub before: ExplanationFigures,
    /// After RL.
    pub after: ExplanationFigures,
    /// Mean reward of the first and of the last RL step.
    pub rewards: (f64, f64),
    /// The page.
    pub report: PathBuf,
}

/// Runs all stages in `options.run_dir`. Each trained stage goes on where an interrupted one stopped.
///
/// # Errors
/// What the stages report; [`Error::File`] where the folder belongs to somebody else; [`Error::Interrupted`] after
/// `stop`.
pub fn run(options: &DemoOptions, progress: &dyn Progress, stop: &AtomicBool) -> Result<DemoResult> {
    if let Some(pretrained) = &options.pretrained {
        pretrained.check()?;
    }
    let _folder = open_folder_of_runs(&options.run_dir, "demo")?;
    let amounts = match &options.pretrained {
        Some(pretrained) => Amounts::of_pretrained(pretrained),
        None => options.scale.amounts(),
    };
    let demo = Demo { options, amounts: &amounts, progress, stop, world: World::Market };
    let at = |name: &str| options.run_dir.join(name);
    // Nobody has timed the stages with a pretrained model.
    let forecast = if options.pretrained.is_none() {
        let weightless = at("world/model");
        write_model_folder(&weightless, &amounts.shape)?;
        Some(Forecast::new(&amounts.stage_seconds, probe(&weightless)?))
    } else {
        None
    };
    let mut stages = Stages { progress, done: Vec::new(), forecast };

    let files = stages.time("World: stories, textbook, tokenizer", || {
        demo.world.write_dataset(&at("world"), options.seed, &amounts.sizes, &amounts.shape)
    })?;
    let base = match &options.pretrained {
        Some(pretrained) => pretrained.base.clone(),
        None => stages.time("Base model: the textbook, from random weights", || {
            demo.fine_tune("base", BASE, &files.model, &files.textbook)
        })?,
    };
    let teacher = stages.time("Teacher: warm-up on explanations of every quality", || {
        demo.fine_tune("teacher", TEACHER_SFT, &base, &files.teacher_sft)
    })?;
    let rl_teacher = stages.time("Teacher: GRPO with the RLT reward", || {
        demo.reinforce("rlt", &teacher, &base, &files.questions_train)
    })?;
    let ((before, n_before), (after, n_after)) = stages.time("Explanations of both teachers", || {
        Ok((
            demo.explain("traces_pre_rl.jsonl", &teacher, &files)?,
            demo.explain("traces_rlt.jsonl", &rl_teacher, &files)?,
        ))
    })?;
    let student_pre_rl = stages.time("Student of the teacher before RL", || {
        demo.student("student_pre_rl", &base, &at("traces_pre_rl.jsonl"), n_before)
    })?;
    let student_rlt = stages.time("Student of the RLT teacher", || {
        demo.student("student_rlt", &base, &at("traces_rlt.jsonl"), n_after)
    })?;
    let students = stages.time("Held-out questions", || {
        let all = [
            ("base", "Base model", &base),
            ("pre_rl", "Student of the teacher before RL", &student_pre_rl),
            ("rlt", "Student of the RLT teacher", &student_rlt),
        ];
        all.into_iter().map(|(name, label, model)| demo.evaluate(name, label, model, &files)).collect()
    })?;

    let shown = stages.time("Scored explanations for the report", || {
        Ok([demo.shown(&teacher, &base, &files)?, demo.shown(&rl_teacher, &base, &files)?])
    })?;
    let [before_samples, after_samples] = shown;
    let summary = DemoSummary {
        world: "Short stories about a pile of things that grows, shrinks, doubles and halves. One step is \
                easy for a tiny model; the answer cannot be guessed without the steps."
            .into(),
        seeds: vec![options.seed],
        training_dir: "rlt".into(),
        stages: stages.done,
        students,
        before: Explanations { label: "Teacher before RL".into(), samples: before_samples },
        after: Explanations { label: "Teacher after RL".into(), samples: after_samples },
    };
    let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Failed(e.to_string()))?;
    write_atomic(&at("demo.json"), text.as_bytes())?;
    let rewards = demo.first_and_last_reward()?;
    let report = report::write_report(&options.run_dir)?;
    Ok(DemoResult { summary, before, after, rewards, report })
}

/// Times the stages and names them to whoever watches.
struct Stages<'a> {
    progress: &'a dyn Progress,
    done: Vec<Stage>,
    forecast: Option<Forecast<'a>>,
}

impl Stages<'_> {
    fn time<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let left =
            self.forecast.as_ref().map(|forecast| format!(" ({} left in all)", roughly(forecast.left())));
        self.progress.note(&format!("{}. {name}{}", self.done.len() + 1, left.unwrap_or_default()));
        let started = Instant::now();
        let result = work()?;
        let seconds = started.elapsed().as_secs_f64();
        if let Some(forecast) = &mut self.forecast {
            forecast.end_stage(seconds);
        }
        self.done.push(Stage { name: name.into(), seconds });
        Ok(result)
    }
}

struct Demo<'a> {
    options: &'a DemoOptions,
    amounts: &'a Amounts,
    progress: &'a dyn Progress,
    stop: &'a AtomicBool,
    world: World,
}

impl Demo<'_> {
    fn miniature(&self) -> Miniature<'_> {
        let &DemoOptions { ref run_dir, seed, .. } = self.options;
        let pretrained = self.options.pretrained.as_ref();
        Miniature { dir: run_dir, seed, progress: self.progress, stop: self.stop, pretrained }
    }

    /// A stage's configuration, in its folder of the run directory.
    fn config(&self, name: &str, toml: &str, model: &Path, data: &Path) -> Result<Config> {
        // How models are kept and computed is the same for all stages.
        let is_meant = |change: &&String| {
            name == "rlt" || ["model.", "memory."].iter().any(|table| change.starts_with(table))
        };
        let overrides: Vec<String> = self.options.overrides.iter().filter(is_meant).cloned().collect();
        self.miniature().config(name, toml, &overrides, model, data)
    }

    fn fine_tune(&self, name: &str, toml: &str, model: &Path, data: &Path) -> Result<PathBuf> {
        self.miniature().fine_tune(&self.config(name, toml, model, data)?)
    }

    /// A student of `base` from so many traces; with nothing to learn from it stays what it is.
    fn student(&self, name: &str, base: &Path, traces: &Path, n_traces: usize) -> Result<PathBuf> {
        if n_traces == 0 {
            return Ok(base.to_owned());
        }
        self.fine_tune(name, STUDENT, base, traces)
    }

    fn reinforce(&self, name: &str, teacher: &Path, student: &Path, questions: &Path) -> Result<PathBuf> {
        let mut config = self.config(name, RLT, teacher, questions)?;
        student.clone_into(&mut config.model.student);
        config.grpo.steps = self.amounts.rl_steps.unwrap_or(config.grpo.steps);
        self.miniature().reinforce(&config)
    }

    /// The reward of the first and of the last step, from the run's own records.
    fn first_and_last_reward(&self) -> Result<(f64, f64)> {
        let rows = rlt_method::run_log::read_rows(&self.options.run_dir.join("rlt/metrics.jsonl"))?;
        let reward = |row: Option<&Map<String, Value>>| {
            row.and_then(|row| rlt_method::metrics::REWARD.mean.of(row)).unwrap_or(f64::NAN)
        };
        Ok((reward(rows.first()), reward(rows.last())))
    }

    /// A teacher's traces of some rows.
    fn traces(&self, teacher: &Path, rows: &Path, n: usize) -> Result<TeacherTraces> {
        let mut config = self.config("rlt", RLT, teacher, rows)?;
        config.data.max_rows = n;
        self.miniature().explain(&config, 1)
    }

    /// Writes the rows that a student learns from, and says what all explanations are like and how many rows there are.
    fn explain(
        &self,
        file: &str,
        teacher: &Path,
        files: &DatasetFiles,
    ) -> Result<(ExplanationFigures, usize)> {
        let explained = self.traces(teacher, &files.questions_train, self.amounts.explained_questions)?;
        let traces = &explained.traces;
        let n =
            write_student_rows(&self.options.run_dir.join(file), traces, &explained.style, &explained.chat)?;
        if n > 0 {
            let all = traces.len();
            self.progress
                .note(&format!("{file} leaves out {n} of {all} explanations: not finished, or empty"));
        }
        Ok((figures(self.world, traces, &explained.chat)?, traces.len() - n))
    }

    /// A few explanations with everything the report shows of them.
    fn shown(&self, teacher: &Path, student: &Path, files: &DatasetFiles) -> Result<Vec<Sample>> {
        let TeacherTraces { traces, style, chat } =
            self.traces(teacher, &files.questions_heldout, self.amounts.shown_questions)?;
        let config = self.config("rlt", RLT, teacher, &files.questions_heldout)?;
        let student_chat = ChatText::from_dir(student)?;
        let formats = Formats { style: &style, teacher: &chat, student: &student_chat };
        let load = |model| frozen_model(&config.model, model);
        let (teacher, student) = (load(teacher)?, load(student)?);
        let scored =
            score_traces(&traces, &formats, &teacher, &student, &config.reward, 8192, self.progress)?;
        let row = |(trace, (sample, scored)): (&TraceRow, &(Option<RltSample>, ScoredSample))| {
            let mut columns = trace.to_columns();
            columns.extend(score_columns(sample.as_ref(), scored, &chat));
            if let Some(sample) = sample {
                columns.extend(ledger_columns(sample, scored, &chat));
            }
            serde_json::from_value(Value::Object(columns)).map_err(|e| Error::Failed(e.to_string()))
        };
        traces.iter().zip(&scored).map(row).collect()
    }

    fn evaluate(&self, name: &str, label: &str, model: &Path, files: &DatasetFiles) -> Result<Student> {
        let mut config = self.config("student", STUDENT, model, &files.questions_heldout)?;
        config.sampling.temperature = EVAL_TEMPERATURE;
        if self.options.pretrained.is_none() {
            config.sampling.max_running = 256;
            config.sampling.max_new_tokens = 200;
        }
        config.data.max_rows = self.amounts.eval_questions;
        let task = Task::world_rows(self.world, &config.data)?;
        let (mut report, records) =
            self.miniature().evaluate(&config, label, &task, self.amounts.eval_samples)?;
        let summary = &report.summary;
        let student = Student {
            name: name.into(),
            label: label.into(),
            accuracy: summary.accuracy,
            low: summary.low,
            high: summary.high,
            n: (summary.n_questions * summary.n_samples) as u64,
            emphasis: name == "rlt",
        };
        report.per_question_file = format!("eval-{name}_questions.jsonl").into();
        write_report(
            &self.options.run_dir.join("evaluations").join(format!("eval-{name}.json")),
            &report,
            &records,
        )?;
        Ok(student)
    }
}

impl DemoResult {
    /// The shown explanations of the trained teacher with the highest and the lowest reward; none where none has one.
    pub fn best_and_worst(&self) -> Option<(&Sample, &Sample)> {
        let reward = |sample: &&Sample| sample.reward.filter(|reward| reward.is_finite());
        let scored = || self.summary.after.samples.iter().filter(|sample| reward(sample).is_some());
        let by_reward =
            |a: &&Sample, b: &&Sample| a.reward.unwrap_or(0.0).total_cmp(&b.reward.unwrap_or(0.0));
        Some((scored().max_by(by_reward)?, scored().min_by(by_reward)?))
    }
}

/// The result as one JSON object.
pub fn to_json(result: &DemoResult) -> Value {
    json!({
        "students": result.summary.students,
        "reward_first": result.rewards.0,
        "reward_last": result.rewards.1,
        "before": result.before,
        "after": result.after,
        "stages": result.summary.stages,
        "report": result.report,
    })
}
