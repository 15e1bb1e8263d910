//! The stages of the method as `rlt demo` and `rlt reproduce` string them together. Each is what one public command
//! does, on the models and rows of a folder of their own.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::pretrained::Pretrained;
use crate::start;
use crate::worlds::{ExplanationKind, World, WorldContent};
use rlt_method::config::Config;
use rlt_method::dataset::{JsonlWriter, QuestionRow, TraceRow, read_questions};
use rlt_method::error::Result;
use rlt_method::evaluate::Thought;
use rlt_method::evaluate::task::{Task, run_task};
use rlt_method::evaluate::{EvalOptions, EvalReport, QuestionRecord};
use rlt_method::explain::explain;
use rlt_method::progress::Progress;
use rlt_method::prompts::{ChatText, PromptStyle};
use rlt_method::run_dir::RunDir;
use rlt_method::sampling::{Author, decoder_sampler};
use rlt_method::traces::{conversation_columns, flaw};
use rlt_method::training::run::frozen_model;
use rlt_reward::diagnostics::solution_overlap;

/// Where the stages write, what seeds them and who watches.
#[derive(Clone, Copy)]
pub struct Miniature<'a> {
    /// Each stage has a folder in it.
    pub dir: &'a Path,
    /// Seed of everything.
    pub seed: u64,
    /// Who watches.
    pub progress: &'a dyn Progress,
    /// Ends the work, with everything saved, once it is true.
    pub stop: &'a AtomicBool,
    /// The base model, where it is a pretrained one.
    pub pretrained: Option<&'a Pretrained>,
}

/// A teacher's explanations, with what is needed to read them.
pub struct TeacherTraces {
    /// The traces, in the order of the rows and then of the samples.
    pub traces: Vec<TraceRow>,
    /// Wording and tags.
    pub style: PromptStyle,
    /// The teacher's text side.
    pub chat: ChatText,
}

/// Figures of a set of explanations.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ExplanationFigures {
    /// Share of each kind, by name.
    pub kinds: Vec<(String, f64)>,
    /// Mean share of the solution that the explanation repeats in one run of tokens.
    pub solution_overlap: f64,
    /// Mean length, tokens.
    pub tokens: f64,
}

impl ExplanationFigures {
    /// The share of explanations of this kind.
    pub fn share(&self, kind: ExplanationKind) -> f64 {
        self.kinds.iter().find(|(name, _)| name == kind.name()).map_or(0.0, |(_, share)| *share)
    }
}

impl Miniature<'_> {
    /// The configuration of stage `name`: the text of a file in `configs/`, made to fit a pretrained base where there is one, then
    /// `overrides`, then this run's folder and seed.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn config(
        &self,
        name: &str,
        toml: &str,
        overrides: &[String],
        model: &Path,
        data: &Path,
    ) -> Result<Config> {
        let origin = format!("the configuration of {name}");
        let mut config = match self.pretrained {
            None => Config::parse(&origin, toml, overrides)?,
            Some(pretrained) => {
                let mut fitted = Config::parse(&origin, toml, &[])?;
                pretrained.fit(&mut fitted);
                Config::parse(&origin, &fitted.to_toml()?, overrides)?
            }
        };
        config.run_dir = self.dir.join(name);
        config.seed = self.seed;
        model.clone_into(&mut config.model.path);
        data.clone_into(&mut config.data.path);
        Ok(config)
    }

    /// `rlt sft`; the folder of the final model.
    ///
    /// # Errors
    /// As [`start::sft`].
    pub fn fine_tune(&self, config: &Config) -> Result<PathBuf> {
        let dir = RunDir::open(config)?;
        Ok(start::sft(config, &dir.path, self.progress, self.stop)?.model)
    }

    /// `rlt train`; the folder of the final model.
    ///
    /// # Errors
    /// As [`start::grpo`].
    pub fn reinforce(&self, config: &Config) -> Result<PathBuf> {
        let dir = RunDir::open(config)?;
        Ok(start::grpo(config, &dir.path, self.progress, self.stop)?.model)
    }

    /// `rlt distill`; the folder of the final model.
    ///
    /// # Errors
    /// As [`start::distill`].
    pub fn distil(&self, config: &Config) -> Result<PathBuf> {
        let dir = RunDir::open(config)?;
        Ok(start::distill(config, &dir.path, self.progress, self.stop)?.model)
    }

    /// `rlt explain`: `n` explanations of each row of `config.data` by the model in `config.model.path`.
    ///
    /// # Errors
    /// As [`explain`].
    pub fn explain(&self, config: &Config, n: usize) -> Result<TeacherTraces> {
        let style = PromptStyle::resolve(&config.prompts)?;
        let teacher = &config.model.path;
        let chat = ChatText::from_dir(teacher)?;
        let decoder = frozen_model(&config.model, teacher)?;
        let rows = read_questions(&config.data)?;
        let sampler = decoder_sampler(&decoder, &chat, &config.sampling, config.seed)?;
        let teacher = Author::new(&sampler, &chat, &style)?;
        let traces = explain(&teacher, &rows, n, self.progress)?;
        Ok(TeacherTraces { traces, style, chat })
    }

    /// `rlt eval`: `n_samples` answers to each question of `task` by the model in `config.model.path`; `label`
    /// names it in the report.
    ///
    /// # Errors
    /// As [`run_task`].
    pub fn evaluate(
        &self,
        config: &Config,
        label: &str,
        task: &Task,
        n_samples: usize,
    ) -> Result<(EvalReport, Vec<QuestionRecord>)> {
        let style = PromptStyle::resolve(&config.prompts)?;
        let model = &config.model.path;
        let chat = ChatText::from_dir(model)?;
        let decoder = frozen_model(&config.model, model)?;
        let sampler = decoder_sampler(&decoder, &chat, &config.sampling, config.seed)?;
        let student = Author::new(&sampler, &chat, &style)?;
        let options = EvalOptions { n_samples, pass_ks: vec![1], seed: config.seed };
        let (summary, records) = run_task(&student, task, Thought::Free, &options, self.progress)?;
        let report = EvalReport {
            model: label.into(),
            task: task.name.clone(),
            split: task.split.clone(),
            seed: config.seed,
            temperature: config.sampling.temperature,
            max_new_tokens: config.sampling.max_new_tokens,
            thought: Thought::Free,
            summary,
            per_question_file: PathBuf::new(),
        };
        Ok((report, records))
    }
}

/// Writes `traces` as rows that a student learns from, and returns how many were left out: not finished, or empty.
///
/// # Errors
/// When the file cannot be written.
pub fn write_student_rows(
    path: &Path,
    traces: &[TraceRow],
    style: &PromptStyle,
    chat: &ChatText,
) -> Result<usize> {
    let mut out = JsonlWriter::create(path)?;
    let mut n_flawed = 0;
    for trace in traces {
        if flaw(trace, style, chat).is_some() {
            n_flawed += 1;
            continue;
        }
        out.write(&conversation_columns(trace, style))?;
    }
    out.finish()?;
    Ok(n_flawed)
}

/// What `traces` of a world's questions are like.
///
/// # Errors
/// What the tokenizer reports.
pub fn figures(world: World, traces: &[TraceRow], chat: &ChatText) -> Result<ExplanationFigures> {
    let rows = traces.iter().map(|trace| (&trace.question, trace.explanation.as_str()));
    figures_of(world, rows, chat)
}

/// As [`figures`], of explanations beside their questions.
///
/// # Errors
/// What the tokenizer reports.
pub fn figures_of<'a>(
    world: World,
    rows: impl ExactSizeIterator<Item = (&'a QuestionRow, &'a str)>,
    chat: &ChatText,
) -> Result<ExplanationFigures> {
    let n = rows.len() as f64;
    let mut kinds: Vec<(String, f64)> =
        ExplanationKind::ALL.iter().map(|kind| (kind.name().to_owned(), 0.0)).collect();
    let (mut overlap, mut tokens) = (0.0, 0.0);
    for (question, explanation) in rows {
        if let Some(kind) = world.classify(&question.question, explanation) {
            let entry = kinds.iter_mut().find(|(name, _)| name == kind.name());
            entry.expect("every kind is listed").1 += 1.0 / n;
        }
        let think = chat.tokenizer.encode(explanation)?;
        let solution = chat.tokenizer.encode(&question.solution)?;
        overlap += f64::from(solution_overlap(&think, &solution)) / n;
        tokens += think.len() as f64 / n;
    }
    Ok(ExplanationFigures { kinds, solution_overlap: overlap, tokens })
}
