//! Traces for students: a teacher's explanations, the textbook's own, and a model's answers to the same questions.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::stages::{RLT, Start, Told};
use super::work::{SeedWork, StageKind};
use crate::miniature::{ExplanationFigures, figures, figures_of, write_student_rows};
use crate::worlds::dataset::{Mixture, RowFile, sample_row};
use crate::worlds::story::Side;
use crate::worlds::{ExplanationKind, World};
use rlt_method::config::Config;
use rlt_method::dataset::{JsonlWriter, QuestionRow, read_questions};
use rlt_method::error::Result;
use rlt_method::evaluate::QuestionRecord;
use rlt_method::evaluate::task::Task;
use rlt_method::prompts::{ChatText, PromptStyle};

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
        self.figures.share(ExplanationKind::Full) + self.figures.share(ExplanationKind::Rambling)
    }
}

/// The rows of a stage, relative to its folder.
const ROWS: &str = "rows.jsonl";
/// Questions that say their solutions, likewise.
const TOLD_ROWS: &str = "told.jsonl";

impl SeedWork<'_> {
    /// A teacher's explanations of the first `n` of a world's `questions`, one each, as rows for students; `overrides` change the
    /// configuration.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn explain(
        &self,
        name: &str,
        world: World,
        teacher: &Path,
        questions: &Path,
        n: usize,
        overrides: &[String],
    ) -> Result<(PathBuf, Traces)> {
        let mut config = self.miniature.config(name, RLT, overrides, teacher, questions)?;
        config.data.max_rows = n;
        let traces = self.stage(StageKind::Traces, name, &config.to_toml()?, |folder| {
            let explained = self.miniature.explain(&config, 1)?;
            let traces = &explained.traces;
            let left_out = write_student_rows(&folder.join(ROWS), traces, &explained.style, &explained.chat)?;
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
    ///
    /// # Errors
    /// What the stage reports.
    pub fn market_traces(&self, name: &str, teacher: &Path) -> Result<(PathBuf, Traces)> {
        let questions = self.market()?.questions_train;
        self.explain(name, World::Market, teacher, &questions, self.scale.explained, &[])
    }

    /// What the perfect explanations that stand beside the training questions are like.
    pub fn perfect_traces(&self) -> Traces {
        let kinds = vec![(ExplanationKind::Full.name().to_owned(), 1.0)];
        let figures = ExplanationFigures { kinds, ..ExplanationFigures::default() };
        Traces { n: self.scale.explained, figures, ..Traces::default() }
    }

    /// How the pool of figure 4b is explained and scored.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn pool_config(&self, name: &str, teacher: &Path, questions: &Path) -> Result<Config> {
        let mut config = self.miniature.config(name, RLT, &[], teacher, questions)?;
        config.data.max_rows = self.scale.pool_questions;
        Ok(config)
    }

    /// The training questions with explanations of the textbook's mixture: honest, a fifth of them with gaps, a
    /// fifth with remarks.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn textbook_traces(&self) -> Result<(PathBuf, Traces)> {
        let (name, n, base) = ("traces-textbook", self.scale.explained, self.base(Start::Usual)?);
        let traces = self.stage(StageKind::Rows, name, &format!("{n} rows"), |folder| {
            let rows: Vec<QuestionRow> = textbook_rows(self.miniature.seed, n);
            Self::write_thoughts(&folder.join(ROWS), &base, &rows)
        })?;
        Ok((self.at(name).join(ROWS), traces))
    }

    /// The thoughts of a model's answers to the training questions: all that can be cut into thought and solution
    /// (each with the model's own solution), and of these only the right ones.
    ///
    /// # Errors
    /// What the stage reports.
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
                let mut traces = Self::write_thoughts(&folder.join(file), model, &rows)?;
                traces.left_out = records.len() - rows.len();
                Ok(traces)
            };
            Ok(vec![write("raw.jsonl", rows(false))?, write("right.jsonl", rows(true))?])
        })?;
        let folder = self.at(name);
        let traces = |i: usize| traces.get(i).cloned().unwrap_or_default();
        Ok([(folder.join("raw.jsonl"), traces(0)), (folder.join("right.jsonl"), traces(1))])
    }

    /// The thoughts of a model's right answers to the training questions with the solutions told, as rows of the questions alone.
    ///
    /// # Errors
    /// What the stages report.
    pub fn told_answers_as_traces(&self, name: &str, model: &Path) -> Result<(PathBuf, Traces)> {
        let mut config = self.answering(name, model, &self.at(name).join(TOLD_ROWS))?;
        let questions = self.answering(name, model, &self.market()?.questions_train)?;
        config.data.max_rows = self.scale.explained;
        let traces = self.stage(StageKind::Traces, name, &config.to_toml()?, |folder| {
            let mut rows = read_questions(&questions.data)?;
            rows.truncate(self.scale.explained);
            let mut out = JsonlWriter::create(&folder.join(TOLD_ROWS))?;
            for row in &rows {
                out.write(
                    &json!({"question": Told::Solution.question(self, row)?, "solution": row.solution}),
                )?;
            }
            out.finish()?;
            let style = PromptStyle::resolve(&config.prompts)?;
            let task = Task::world_rows(World::Market, &config.data)?;
            let (_, records) = self.miniature.evaluate(&config, name, &task, 1)?;
            let right = rows.iter().zip(&records);
            let right: Vec<QuestionRow> =
                right.filter_map(|(row, record)| answered(row, record, &style, true)).collect();
            let mut traces = Self::write_thoughts(&folder.join(ROWS), model, &right)?;
            traces.left_out = records.len() - right.len();
            Ok(traces)
        })?;
        Ok((self.at(name).join(ROWS), traces))
    }

    /// Writes rows of question, thought and solution, and says what they are like.
    fn write_thoughts(path: &Path, model: &Path, rows: &[QuestionRow]) -> Result<Traces> {
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
}

/// The first training questions of the market with explanations of the textbook's mixture.
fn textbook_rows(seed: u64, n: usize) -> Vec<QuestionRow> {
    let mixture = Mixture { kinds: Mixture::textbook().kinds, ..Mixture::questions() };
    let row = |index: usize| {
        let (story, _, explanation) =
            sample_row(&mixture, Side::Train, seed, RowFile::QuestionsTrain.name(), index as u64);
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
    use crate::worlds::{ModelShape, Sizes, WorldContent};
    use rlt_method::config::DataConfig;
    use rlt_method::evaluate::GradedAnswer;

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
