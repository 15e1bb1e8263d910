//! The stages that recipes are made of, and those they share: base models, teachers, students, answers.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::work::{SeedWork, StageKind};
use crate::worlds::lexicon::write_model_folder;
use crate::worlds::{DatasetFiles, ModelShape, World, WorldContent};
use rlt_method::config::Config;
use rlt_method::dataset::{JsonlWriter, QuestionRow, read_questions};
use rlt_method::error::Result;
use rlt_method::evaluate::metrics::mean;
use rlt_method::evaluate::task::Task;
use rlt_method::evaluate::{QuestionRecord, write_report};

const BASE: &str = include_str!("../../../../configs/demo/base.toml");
const TEACHER_SFT: &str = include_str!("../../../../configs/demo/teacher_sft.toml");
pub(super) const RLT: &str = include_str!("../../../../configs/demo/rlt.toml");
const DISTILL: &str = include_str!("../../../../configs/demo/distill.toml");
const STUDENT: &str = include_str!("../../../../configs/demo/student.toml");
const CORRECTNESS: &str = include_str!("../../../../configs/reproduce/correctness.toml");
const PEDAGOGICAL: &str = include_str!("../../../../configs/reproduce/pedagogical.toml");

/// Temperature of every answer that is graded.
const ANSWER_TEMPERATURE: f32 = 0.8;
/// Longest answer, tokens.
const ANSWER_TOKENS: usize = 200;

/// A model's answers to held-out questions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answers {
    /// Share of right answers to each question.
    pub question_means: Vec<f64>,
    /// Share of answers with both sections.
    pub format_rate: f64,
    /// Mean length, tokens.
    pub mean_tokens: f64,
}

impl Answers {
    /// Share of right answers.
    pub fn accuracy(&self) -> f64 {
        mean(self.question_means.iter().copied())
    }
}

/// Questions that nothing is trained on, and the world that judges answers to them.
#[derive(Debug, Clone, Copy)]
pub struct Questions<'a> {
    /// The world.
    pub world: World,
    /// Their file.
    pub path: &'a Path,
    /// Longest answer, tokens; the miniature's models know no other end of one that goes astray.
    pub longest_answer: usize,
}

impl<'a> Questions<'a> {
    /// Those of a file, answered at the usual length.
    pub fn new(world: World, path: &'a Path) -> Self {
        Self { world, path, longest_answer: ANSWER_TOKENS }
    }
}

/// What everything begins from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A base model that answers about half of the questions rightly.
    Usual,
    /// One that read a part of the same textbook and hardly answers any: where RL on right answers finds few to
    /// reward, which is where the paper says that a teacher is needed.
    Scarce,
    /// One that read so many of its 36 parts.
    Parts(usize),
}

impl Start {
    /// The name of a stage from this start.
    pub fn named(self, stage: &str) -> String {
        match self {
            Self::Usual => stage.to_owned(),
            Self::Scarce => format!("weak-{stage}"),
            Self::Parts(n) => format!("parts{n}-{stage}"),
        }
    }
}

/// Textbook rows from which a base model learns to read what it is told, a third of them without anything. (After 6,000 it copies
/// a told story's numbers wrongly, and what is distilled from it falls to 15 %.)
const TOLD_ROWS: usize = 24_000;

/// What a model is told in the place of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The question, and its solution.
    Solution,
    /// The question, its solution and an explanation.
    Trace,
}

impl Told {
    /// In the names of stages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Solution => "solution",
            Self::Trace => "trace",
        }
    }

    /// The configuration that has its words.
    fn toml(self) -> &'static str {
        match self {
            Self::Solution => PEDAGOGICAL,
            Self::Trace => DISTILL,
        }
    }

    /// How everybody is told.
    fn template(self, work: &SeedWork) -> Result<String> {
        let nowhere = Path::new("");
        Ok(work.miniature.config("told", self.toml(), &[], nowhere, nowhere)?.distill.told)
    }

    /// A row's question as it is told.
    pub(super) fn question(self, work: &SeedWork, row: &QuestionRow) -> Result<String> {
        let trace = row.reasoning_trace.as_deref().unwrap_or_default();
        let told = self.template(work)?;
        Ok(told
            .replace("{question}", &row.question)
            .replace("{solution}", &row.solution)
            .replace("{trace}", trace))
    }
}

/// Parts of the textbook that base models of other strength are counted in.
pub(super) const TEXTBOOK_PARTS: usize = 36;
/// Those that the scarce start reads. With a third of the book, twelve, it has not learnt the sums by the end of its training,
/// and then hardly anything that is built on it is the same under another rounding.
pub(super) const SCARCE_PARTS: usize = 18;

impl SeedWork<'_> {
    /// The market world's files and its model folder.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn market(&self) -> Result<DatasetFiles> {
        let settings = format!("{:?} {:?}", self.scale.market, self.scale.shape);
        self.stage(StageKind::Rows, "market", &settings, |folder| {
            let (seed, scale) = (self.miniature.seed, self.scale);
            World::Market.write_dataset(folder, seed, &scale.market, &scale.shape).map(drop)
        })?;
        Ok(DatasetFiles::new(&self.at("market")))
    }

    /// A base model of `shape` on a textbook, from random weights.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn base_model(
        &self,
        name: &str,
        shape: &ModelShape,
        textbook: &Path,
        overrides: &[String],
    ) -> Result<PathBuf> {
        let folder = format!("{name}-shape");
        self.stage(StageKind::Rows, &folder, &format!("{shape:?}"), |folder| {
            write_model_folder(&folder.join("model"), shape)
        })?;
        self.trained(
            StageKind::Base,
            &self.miniature.config(name, BASE, overrides, &self.at(&folder).join("model"), textbook)?,
        )
    }

    /// The base model that a start has, the student of its rewards.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn base(&self, start: Start) -> Result<PathBuf> {
        if let Some(pretrained) = self.miniature.pretrained {
            return Ok(pretrained.base.clone());
        }
        let textbook = self.market()?.textbook;
        let (shape, name) = (&self.scale.shape, start.named("base"));
        let rows = match start {
            Start::Usual => return self.base_model(&name, shape, &textbook, &[]),
            Start::Scarce => SCARCE_PARTS,
            Start::Parts(n) => n,
        } * self.scale.market.textbook
            / TEXTBOOK_PARTS;
        self.base_model(&name, shape, &textbook, &[format!("data.max_rows={}", rows.max(1))])
    }

    /// The larger base model.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn larger_base(&self) -> Result<PathBuf> {
        self.base_model("larger", &self.scale.larger, &self.market()?.textbook, &[])
    }

    /// The teacher before RL.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn teacher(&self, start: Start) -> Result<PathBuf> {
        self.warm_up(&start.named("teacher"), &self.base(start)?, &self.market()?.teacher_sft)
    }

    /// A base model after its warm-up on explanations of every quality.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn warm_up(&self, name: &str, base: &Path, rows: &Path) -> Result<PathBuf> {
        self.trained(StageKind::Sft, &self.miniature.config(name, TEACHER_SFT, &[], base, rows)?)
    }

    /// The RLT teacher.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn rlt_teacher(&self, start: Start) -> Result<PathBuf> {
        self.rlt(&start.named("rlt"), &self.teacher(start)?, &self.base(start)?, &[])
    }

    /// A teacher after GRPO with the RLT reward that `student` gives, on the market's training questions.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn rlt(&self, name: &str, teacher: &Path, student: &Path, overrides: &[String]) -> Result<PathBuf> {
        let mut all = self.rl_size(self.scale.rl_steps);
        all.extend_from_slice(overrides);
        let mut config = self.miniature.config(name, RLT, &all, teacher, &self.market()?.questions_train)?;
        student.clone_into(&mut config.model.student);
        self.trained(StageKind::Rl, &config)
    }

    fn rl_size(&self, steps: usize) -> Vec<String> {
        let scale = self.scale;
        vec![
            format!("grpo.steps={steps}"),
            format!("grpo.questions_per_step={}", scale.questions_per_step),
            format!("grpo.group_size={}", scale.group_size),
        ]
    }

    /// `model` after GRPO on right answers to the questions of `world`; a few of the `held_out` ones are asked on the way.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn correctness_rl(
        &self,
        name: &str,
        model: &Path,
        world: World,
        files: &DatasetFiles,
        steps: usize,
        overrides: &[String],
    ) -> Result<PathBuf> {
        let questions = &files.questions_train;
        let all = [&self.rl_size(steps), overrides].concat();
        let mut config = self.miniature.config(name, CORRECTNESS, &all, model, questions)?;
        config.reward.grader = Some(world.answer_rule());
        config.eval.every = self.scale.watched_every;
        config.eval.max_rows = self.scale.watched_questions;
        files.questions_heldout.clone_into(&mut config.eval.data);
        self.trained(StageKind::Rl, &config)
    }

    /// A base model that can read what it is told: it has learnt a part of its textbook again, a third of the rows as they are, a
    /// third with the solution in the question, a third with the explanation, too. A language model of any size can do so without.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn told_base(&self) -> Result<PathBuf> {
        let (base, textbook) = (self.base(Start::Usual)?, self.market()?.textbook);
        let templates = [Told::Solution.template(self)?, Told::Trace.template(self)?];
        let n = TOLD_ROWS.min(self.scale.market.textbook);
        self.stage(StageKind::Rows, "told-rows", &format!("{n} rows, {templates:?}"), |folder| {
            let mut data = self.miniature.config("told", STUDENT, &[], &base, &textbook)?.data;
            data.max_rows = n;
            let mut out = JsonlWriter::create(&folder.join("told.jsonl"))?;
            for (i, row) in read_questions(&data)?.into_iter().enumerate() {
                let question = match i % 3 {
                    0 => row.question.clone(),
                    1 => Told::Solution.question(self, &row)?,
                    _ => Told::Trace.question(self, &row)?,
                };
                out.write(&json!({
                    "question": question, "solution": row.solution, "reasoning_trace": row.reasoning_trace,
                }))?;
            }
            out.finish()
        })?;
        self.student("told-base", &base, &self.at("told-rows").join("told.jsonl"), &["sft.epochs=1".into()])
    }

    /// That model after on-policy distillation from itself, told so much: as many steps of as many completions as a teacher's RL has.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn distilled_on_policy(&self, told: Told) -> Result<PathBuf> {
        let (size, model) = (self.rl_size(self.scale.rl_steps), self.told_base()?);
        let questions = self.market()?.questions_train;
        let name = format!("on-policy-{}", told.name());
        let mut config = self.miniature.config(&name, DISTILL, &size, &model, &questions)?;
        config.distill.told = told.template(self)?;
        self.stage(StageKind::Rl, &name, &config.to_toml()?, |_| self.miniature.distil(&config).map(drop))?;
        Ok(config.run_dir.join("model"))
    }

    /// Its answers to the held-out questions with so much told.
    ///
    /// # Errors
    /// What the stages report.
    pub fn told_answers(&self, told: Told) -> Result<Answers> {
        let (model, questions) = (self.told_base()?, self.market()?.questions_heldout);
        let name = format!("told-{}", told.name());
        let file = "told.jsonl";
        self.stage(StageKind::Rows, &name, &told.template(self)?, |folder| {
            let data = self.miniature.config(&name, STUDENT, &[], &model, &questions)?.data;
            let mut out = JsonlWriter::create(&folder.join(file))?;
            for row in read_questions(&data)? {
                out.write(&json!({"question": told.question(self, &row)?, "solution": row.solution}))?;
            }
            out.finish()
        })?;
        let path = self.at(&name).join(file);
        self.answers(&name, &model, &Questions::new(World::Market, &path))
    }

    /// That model's other self after as many steps of Pedagogical RL: it is told the solutions, and what it writes is to be right
    /// and what the model that was not told could have written.
    ///
    /// # Errors
    /// What the stages report.
    pub fn pedagogical_teacher(&self) -> Result<PathBuf> {
        let (size, model) = (self.rl_size(self.scale.rl_steps), self.told_base()?);
        let questions = self.market()?.questions_train;
        let mut config = self.miniature.config("pedagogical", PEDAGOGICAL, &size, &model, &questions)?;
        model.clone_into(&mut config.model.student);
        self.trained(StageKind::Rl, &config)
    }

    /// The conventional teacher: the base model after as many steps on right answers as the RLT teacher has on its
    /// reward.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn conventional_teacher(&self, start: Start) -> Result<PathBuf> {
        let files = self.market()?;
        self.correctness_rl(
            &start.named("conventional"),
            &self.base(start)?,
            World::Market,
            &files,
            self.scale.rl_steps,
            &[],
        )
    }

    fn trained(&self, kind: StageKind, config: &Config) -> Result<PathBuf> {
        let name = config.run_dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.stage(kind, &name, &config.to_toml()?, |_| match kind {
            StageKind::Rl => self.miniature.reinforce(config).map(drop),
            _ => self.miniature.fine_tune(config).map(drop),
        })?;
        Ok(config.run_dir.join("model"))
    }

    /// A student of `base` after it has learnt from `rows`.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn student(&self, name: &str, base: &Path, rows: &Path, overrides: &[String]) -> Result<PathBuf> {
        self.trained(StageKind::Sft, &self.miniature.config(name, STUDENT, overrides, base, rows)?)
    }

    /// The student `name` of `own` (its base model, with the name of its answers) from `rows`, so many of them, and
    /// its answers. With nothing to learn from it stays what it was.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn distilled(
        &self,
        name: &str,
        own: (&str, &Path),
        (rows, n_rows): (&Path, usize),
        overrides: &[String],
        held_out: &Questions,
    ) -> Result<(PathBuf, Answers)> {
        if n_rows == 0 && !self.is_planning() {
            return Ok((own.1.to_owned(), self.answers(own.0, own.1, held_out)?));
        }
        let model = self.student(&format!("student-{name}"), own.1, rows, overrides)?;
        let answers = self.answers(name, &model, held_out)?;
        Ok((model, answers))
    }

    pub(super) fn answering(&self, name: &str, model: &Path, questions: &Path) -> Result<Config> {
        let mut config = self.miniature.config(name, STUDENT, &[], model, questions)?;
        config.sampling.temperature = ANSWER_TEMPERATURE;
        if self.miniature.pretrained.is_none() {
            config.sampling.max_running = 256;
            config.sampling.max_new_tokens = ANSWER_TOKENS;
        }
        Ok(config)
    }

    /// A model's answers to the first of some held-out questions.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn answers(&self, model_name: &str, model: &Path, held_out: &Questions) -> Result<Answers> {
        let name = format!("answers-{model_name}");
        let mut config = self.answering(&name, model, held_out.path)?;
        config.data.max_rows = self.scale.eval_questions;
        if self.miniature.pretrained.is_none() {
            config.sampling.max_new_tokens = held_out.longest_answer;
        }
        let n_samples = self.scale.eval_samples;
        let settings = format!("{}\n{n_samples} samples", config.to_toml()?);
        self.stage(StageKind::Evaluation, &name, &settings, |folder| {
            let task = Task::world_rows(held_out.world, &config.data)?;
            let (mut report, records) = self.miniature.evaluate(&config, model_name, &task, n_samples)?;
            report.per_question_file = "eval_questions.jsonl".into();
            write_report(&folder.join("eval.json"), &report, &records)?;
            let share = |record: &QuestionRecord| {
                mean(record.answers.iter().map(|answer| f64::from(u8::from(answer.correct))))
            };
            Ok(Answers {
                question_means: records.iter().map(share).collect(),
                format_rate: report.summary.format_rate,
                mean_tokens: report.summary.mean_tokens,
            })
        })
    }

    /// A model's answers to the market's held-out questions.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn market_answers(&self, model_name: &str, model: &Path) -> Result<Answers> {
        let path = self.market()?.questions_heldout;
        self.answers(model_name, model, &Questions::new(World::Market, &path))
    }
}
