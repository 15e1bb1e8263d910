//! The stages that recipes are made of, and those they share: base model, teachers, traces, students, answers.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::work::{StageKind, Work};
use crate::config::Config;
use crate::dataset::{JsonlWriter, QuestionRow};
use crate::error::Result;
use crate::evaluate::metrics::mean;
use crate::evaluate::task::Task;
use crate::evaluate::{QuestionRecord, write_report};
use crate::miniature::{ExplanationFigures, figures, figures_of, write_student_rows};
use crate::prompts::{ChatText, PromptStyle};
use crate::worlds::dataset::{Mixture, Set, sample_row};
use crate::worlds::lexicon::write_model_folder;
use crate::worlds::story::Side;
use crate::worlds::{DatasetFiles, Kind, ModelShape, World};

const BASE: &str = include_str!("../../configs/demo/base.toml");
const TEACHER_SFT: &str = include_str!("../../configs/demo/teacher_sft.toml");
const RLT: &str = include_str!("../../configs/demo/rlt.toml");
const STUDENT: &str = include_str!("../../configs/demo/student.toml");
const CORRECTNESS: &str = include_str!("../../configs/reproduce/correctness.toml");

/// Temperature of every answer that is graded.
const ANSWER_TEMPERATURE: f32 = 0.8;
/// Longest answer, tokens.
const ANSWER_TOKENS: usize = 200;

/// Rows that a student learns from, and what they are like.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Traces {
    /// Rows written.
    pub n: usize,
    /// Explanations that no student can learn from: not finished, or empty.
    pub left_out: usize,
    /// Over everything that was written.
    pub figures: ExplanationFigures,
    /// Tokens sampled.
    pub tokens: f64,
}

impl Traces {
    /// Share of the explanations that show every step, all right.
    pub fn complete(&self) -> f64 {
        self.figures.share(Kind::Full) + self.figures.share(Kind::Rambling)
    }
}

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
}

/// What everything begins from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A base model that answers about half of the questions rightly.
    Usual,
    /// One that read a part of the same textbook and hardly answers any: where RL on right answers finds few to
    /// reward, which is where the paper says that a teacher is needed.
    Scarce,
}

impl Start {
    /// The name of a stage from this start.
    pub fn named(self, stage: &str) -> String {
        match self {
            Self::Usual => stage.to_owned(),
            Self::Scarce => format!("scarce-{stage}"),
        }
    }
}

/// The scarce start reads one row in this many.
const SCARCE_PART: usize = 3;

/// The rows of a stage, relative to its folder.
const ROWS: &str = "rows.jsonl";

impl Work<'_> {
    fn config(
        &self,
        name: &str,
        toml: &str,
        overrides: &[String],
        model: &Path,
        data: &Path,
    ) -> Result<Config> {
        self.miniature.config(name, toml, overrides, model, data)
    }

    /// The market world's files and its model folder.
    pub fn market(&self) -> Result<DatasetFiles> {
        let settings = format!("{:?} {:?}", self.scale.market, self.scale.shape);
        self.stage(StageKind::Rows, "market", &settings, |folder| {
            let (seed, scale) = (self.miniature.seed, self.scale);
            World::Market.write_dataset(folder, seed, &scale.market, &scale.shape).map(drop)
        })?;
        Ok(DatasetFiles::new(&self.at("market")))
    }

    /// A base model of `shape` on a textbook, from random weights.
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
            &self.config(name, BASE, overrides, &self.at(&folder).join("model"), textbook)?,
        )
    }

    /// The base model that a start has, the student of its rewards.
    pub fn base(&self, start: Start) -> Result<PathBuf> {
        let textbook = self.market()?.textbook;
        let (shape, name) = (&self.scale.shape, start.named("base"));
        match start {
            Start::Usual => self.base_model(&name, shape, &textbook, &[]),
            Start::Scarce => {
                let rows = (self.scale.market.textbook / SCARCE_PART).max(1);
                self.base_model(&name, shape, &textbook, &[format!("data.max_rows={rows}")])
            }
        }
    }

    /// The larger base model.
    pub fn larger_base(&self) -> Result<PathBuf> {
        self.base_model("larger", &self.scale.larger, &self.market()?.textbook, &[])
    }

    /// The teacher before RL.
    pub fn teacher(&self, start: Start) -> Result<PathBuf> {
        self.warm_up(&start.named("teacher"), &self.base(start)?, &self.market()?.teacher_sft)
    }

    /// A base model after its warm-up on explanations of every quality.
    pub fn warm_up(&self, name: &str, base: &Path, rows: &Path) -> Result<PathBuf> {
        self.trained(StageKind::Sft, &self.config(name, TEACHER_SFT, &[], base, rows)?)
    }

    /// The RLT teacher.
    pub fn rlt_teacher(&self, start: Start) -> Result<PathBuf> {
        self.rlt(&start.named("rlt"), &self.teacher(start)?, &self.base(start)?, &[])
    }

    /// A teacher after GRPO with the RLT reward that `student` gives, on the market's training questions.
    pub fn rlt(&self, name: &str, teacher: &Path, student: &Path, overrides: &[String]) -> Result<PathBuf> {
        let mut all = self.rl_size(self.scale.rl_steps);
        all.extend_from_slice(overrides);
        let mut config = self.config(name, RLT, &all, teacher, &self.market()?.questions_train)?;
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

    /// `model` after GRPO on right answers; a few of the `held_out` questions are asked on the way.
    pub fn correctness_rl(
        &self,
        name: &str,
        model: &Path,
        questions: &Path,
        held_out: &Path,
        steps: usize,
    ) -> Result<PathBuf> {
        let mut config = self.config(name, CORRECTNESS, &self.rl_size(steps), model, questions)?;
        config.eval.every = self.scale.watched_every;
        config.eval.max_rows = self.scale.watched_questions;
        held_out.clone_into(&mut config.eval.data);
        self.trained(StageKind::Rl, &config)
    }

    /// The conventional teacher: the base model after as many steps on right answers as the RLT teacher has on its
    /// reward.
    pub fn conventional_teacher(&self, start: Start) -> Result<PathBuf> {
        let files = self.market()?;
        self.correctness_rl(
            &start.named("conventional"),
            &self.base(start)?,
            &files.questions_train,
            &files.questions_heldout,
            self.scale.rl_steps,
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

    /// A teacher's explanations of the first `n` of a world's `questions`, one each, as rows for students.
    pub fn explain(
        &self,
        name: &str,
        world: World,
        teacher: &Path,
        questions: &Path,
        n: usize,
    ) -> Result<(PathBuf, Traces)> {
        let mut config = self.config(name, RLT, &[], teacher, questions)?;
        config.data.max_rows = n;
        let traces = self.stage(StageKind::Traces, name, &config.to_toml()?, |folder| {
            let explained = self.miniature.explain(&config, 1)?;
            let traces = &explained.traces;
            let left_out = write_student_rows(&folder.join(ROWS), traces, &explained.style)?;
            let ids = traces.iter().filter_map(|trace| trace.completion_ids.as_ref());
            Ok(Traces {
                n: traces.len() - left_out,
                left_out,
                figures: figures(world, traces, &explained.chat)?,
                tokens: ids.map(|ids| ids.len() as f64).sum(),
            })
        })?;
        Ok((self.at(name).join(ROWS), traces))
    }

    /// A teacher's explanations of the market's training questions, as rows for students.
    pub fn market_traces(&self, name: &str, teacher: &Path) -> Result<(PathBuf, Traces)> {
        let questions = self.market()?.questions_train;
        self.explain(name, World::Market, teacher, &questions, self.scale.explained)
    }

    /// What the perfect explanations that stand beside the training questions are like.
    pub fn perfect_traces(&self) -> Traces {
        let kinds = vec![(Kind::Full.name().to_owned(), 1.0)];
        let figures = ExplanationFigures { kinds, ..ExplanationFigures::default() };
        Traces { n: self.scale.explained, figures, ..Traces::default() }
    }

    /// How the pool of figure 4b is explained and scored.
    pub fn pool_config(&self, name: &str, teacher: &Path, questions: &Path) -> Result<Config> {
        let mut config = self.config(name, RLT, &[], teacher, questions)?;
        config.data.max_rows = self.scale.pool_questions;
        Ok(config)
    }

    /// The training questions with explanations of the textbook's mixture: honest, a fifth of them with gaps, a
    /// fifth with remarks.
    pub fn textbook_traces(&self) -> Result<(PathBuf, Traces)> {
        let (name, n, base) = ("traces-textbook", self.scale.explained, self.base(Start::Usual)?);
        let traces = self.stage(StageKind::Rows, name, &format!("{n} rows"), |folder| {
            let rows: Vec<QuestionRow> = textbook_rows(self.miniature.seed, n);
            self.write_thoughts(&folder.join(ROWS), &base, &rows)
        })?;
        Ok((self.at(name).join(ROWS), traces))
    }

    /// The thoughts of a model's answers to the training questions: all that can be cut into thought and solution
    /// (each with the model's own solution), and of these only the right ones.
    pub fn answers_as_traces(
        &self,
        name: &str,
        model: &Path,
        questions: &Path,
    ) -> Result<[(PathBuf, Traces); 2]> {
        let mut config = self.answering(name, model, questions)?;
        config.data.max_rows = self.scale.explained;
        let traces: Vec<Traces> = self.stage(StageKind::Traces, name, &config.to_toml()?, |folder| {
            let style = PromptStyle::resolve(&config.prompts)?;
            let task = Task::world_rows(World::Market, &config.data)?;
            let (_, records) = self.miniature.evaluate(&config, name, &task, 1)?;
            let rows = |only_right: bool| -> Vec<QuestionRow> {
                task.rows
                    .iter()
                    .zip(&records)
                    .filter_map(|(row, record)| answered(row, record, &style, only_right))
                    .collect()
            };
            let write = |file: &str, rows: Vec<QuestionRow>| -> Result<Traces> {
                let mut traces = self.write_thoughts(&folder.join(file), model, &rows)?;
                traces.left_out = records.len() - rows.len();
                Ok(traces)
            };
            Ok(vec![write("raw.jsonl", rows(false))?, write("right.jsonl", rows(true))?])
        })?;
        let folder = self.at(name);
        let traces = |i: usize| traces.get(i).cloned().unwrap_or_default();
        Ok([(folder.join("raw.jsonl"), traces(0)), (folder.join("right.jsonl"), traces(1))])
    }

    /// Writes rows of question, thought and solution, and says what they are like.
    fn write_thoughts(&self, path: &Path, model: &Path, rows: &[QuestionRow]) -> Result<Traces> {
        let mut out = JsonlWriter::create(path)?;
        for row in rows {
            let thought = row.reasoning_trace.as_deref().unwrap_or_default();
            out.write(&json!({
                "question": row.question, "solution": row.solution, "reasoning_trace": thought
            }))?;
        }
        out.finish()?;
        let chat = ChatText::from_dir(model)?;
        let thoughts = rows.iter().map(|row| (row, row.reasoning_trace.as_deref().unwrap_or_default()));
        let figures = figures_of(World::Market, thoughts, &chat)?;
        Ok(Traces { n: rows.len(), left_out: 0, tokens: figures.tokens * rows.len() as f64, figures })
    }

    /// A student of `base` after it has learnt from `rows`.
    pub fn student(&self, name: &str, base: &Path, rows: &Path, overrides: &[String]) -> Result<PathBuf> {
        self.trained(StageKind::Sft, &self.config(name, STUDENT, overrides, base, rows)?)
    }

    /// The student `name` of `own` (its base model, with the name of its answers) from `rows`, so many of them, and
    /// its answers. With nothing to learn from it stays what it was.
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

    fn answering(&self, name: &str, model: &Path, questions: &Path) -> Result<Config> {
        let mut config = self.config(name, STUDENT, &[], model, questions)?;
        config.sampling.temperature = ANSWER_TEMPERATURE;
        config.sampling.max_running = 256;
        config.sampling.max_new_tokens = ANSWER_TOKENS;
        Ok(config)
    }

    /// A model's answers to the first of some held-out questions.
    pub fn answers(&self, model_name: &str, model: &Path, held_out: &Questions) -> Result<Answers> {
        let name = format!("answers-{model_name}");
        let mut config = self.answering(&name, model, held_out.path)?;
        config.data.max_rows = self.scale.eval_questions;
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
    pub fn market_answers(&self, model_name: &str, model: &Path) -> Result<Answers> {
        let path = self.market()?.questions_heldout;
        self.answers(model_name, model, &Questions { world: World::Market, path: &path })
    }
}

/// The first training questions of the market with explanations of the textbook's mixture.
fn textbook_rows(seed: u64, n: usize) -> Vec<QuestionRow> {
    let mixture = Mixture { kinds: Mixture::textbook().kinds, ..Mixture::questions() };
    let row = |index: usize| {
        let (story, _, explanation) =
            sample_row(&mixture, Side::Train, seed, Set::QuestionsTrain.name(), index as u64);
        QuestionRow {
            question: story.question(),
            solution: story.solution(),
            reasoning_trace: Some(explanation),
            system: None,
            columns: serde_json::Map::new(),
            row: index + 1,
        }
    };
    (0..n).map(row).collect()
}

/// The thought and the solution of a model's first answer; none when it has not these two sections, or is wrong and
/// only right ones are wanted.
fn answered(
    row: &QuestionRow,
    record: &QuestionRecord,
    style: &PromptStyle,
    only_right: bool,
) -> Option<QuestionRow> {
    let answer = record.answers.first()?;
    let (thought, solution) = style.split_answer(&answer.completion)?;
    let (thought, solution) = (thought.trim(), solution.trim());
    let usable = !thought.is_empty() && !solution.is_empty() && (answer.correct || !only_right);
    usable.then(|| QuestionRow {
        reasoning_trace: Some(thought.to_owned()),
        solution: solution.to_owned(),
        ..row.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DataConfig;
    use crate::dataset::read_questions;
    use crate::evaluate::GradedAnswer;
    use crate::worlds::Sizes;

    #[test]
    fn every_source_explains_the_same_questions() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes { textbook: 2, teacher_sft: 2, questions_train: 40, questions_heldout: 2 };
        let files = World::Market.write_dataset(dir.path(), 5, &sizes, &ModelShape::default()).unwrap();
        let data = DataConfig { path: files.questions_train, ..DataConfig::default() };
        let (train, textbook) = (read_questions(&data).unwrap(), textbook_rows(5, 40));
        let told = |rows: &[QuestionRow]| -> Vec<(String, String)> {
            rows.iter().map(|row| (row.question.clone(), row.solution.clone())).collect()
        };
        assert_eq!(told(&train), told(&textbook));
        assert!(train.iter().zip(&textbook).any(|(a, b)| a.reasoning_trace != b.reasoning_trace));
    }

    #[test]
    fn an_answer_becomes_a_trace_with_its_own_solution() {
        let style = PromptStyle::stratos();
        let row = textbook_rows(5, 1).remove(0);
        let record = |completion: String, correct: bool| QuestionRecord {
            row: 1,
            question: row.question.clone(),
            gold: row.solution.clone(),
            answers: vec![GradedAnswer {
                completion,
                extracted: None,
                correct,
                reason: String::new(),
                formatted: true,
                truncated: false,
                n_tokens: 1,
            }],
        };
        let wrong = record(style.student_answer("steps", "Tom has 3 eggs."), false);
        let trace = answered(&row, &wrong, style, false).unwrap();
        assert_eq!(
            (trace.solution.as_str(), trace.reasoning_trace.as_deref()),
            ("Tom has 3 eggs.", Some("steps"))
        );
        assert!(answered(&row, &wrong, style, true).is_none());
        assert!(answered(&row, &record("no sections".into(), true), style, false).is_none());
        assert!(answered(&row, &record(style.student_answer("steps", "s"), true), style, true).is_some());
    }
}
