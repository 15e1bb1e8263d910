//! What a report reads: the files of a run directory, and the shape of those that others fill.

use std::fs;
use std::path::{Path, PathBuf};

use rlt_files::{MOST_ROWS, MOST_SETTINGS, is_plain_path};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::sample::{Extremes, Sample};
use rlt_method::config::Config;
use rlt_method::error::{Error, Result, io_error};
use rlt_method::run_log::{read_rows, sample_files};

/// The folder of a run's final model, which is written when it ends.
const FINAL_MODEL: &str = "model";

/// `demo.json`: what the stages of `rlt demo` came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DemoSummary {
    /// One or two sentences about the questions, for somebody who has never seen them.
    pub world: String,
    /// Seeds of the run.
    pub seeds: Vec<u64>,
    /// Folder of the RL run whose curves and configuration are shown, relative to the run
    /// directory; empty when they lie in the run directory itself.
    pub training_dir: String,
    /// The stages in order.
    pub stages: Vec<Stage>,
    /// The students in the order of the closing table.
    pub students: Vec<Student>,
    /// Explanations of the teacher before RL. `before` and `after` pair up by question.
    pub before: Explanations,
    /// Explanations of the teacher after RL.
    pub after: Explanations,
}

/// One stage of the demo.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stage {
    /// What it did, for people ("Teacher: GRPO with the RLT reward").
    pub name: String,
    /// Wall-clock seconds it took.
    pub seconds: f64,
}

/// One student's accuracy on held-out questions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Student {
    /// A short identifier (`base`, `pre_rl`, `rlt`).
    pub name: String,
    /// Its label ("Student of the teacher before RL").
    pub label: String,
    /// Share of right answers, 0 to 1.
    pub accuracy: f64,
    /// Lower end of the 95 % interval, 0 to 1.
    pub low: f64,
    /// Upper end of the 95 % interval, 0 to 1.
    pub high: f64,
    /// Answers graded.
    pub n: u64,
    /// Drawn in the accent colour: the result that the reader came for.
    pub emphasis: bool,
}

/// Explanations of one teacher.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanations {
    /// Heading of their column; empty means "Before RL" or "After RL".
    pub label: String,
    /// The explanations, scored.
    pub samples: Vec<Sample>,
}

/// An evaluation file (`eval.json` or `eval-NAME.json`). Unknown keys are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// The model's folder.
    pub model: String,
    /// The benchmark.
    pub task: String,
    /// Its part.
    pub split: String,
    /// Questions asked.
    pub n_questions: u64,
    /// Answers sampled for each question.
    pub n_samples: u64,
    /// Share of right answers, 0 to 1.
    pub accuracy: f64,
    /// Lower end of the 95 % interval, 0 to 1.
    pub low: f64,
    /// Upper end of the 95 % interval, 0 to 1.
    pub high: f64,
    /// Share of answers in the asked format, 0 to 1.
    pub format_rate: Option<f64>,
    /// Mean tokens of an answer.
    pub mean_tokens: Option<f64>,
    /// Share of answers that were cut off, 0 to 1.
    pub truncated_rate: Option<f64>,
}

/// Everything a report is made from.
#[derive(Debug, Default)]
pub(super) struct RunFiles {
    /// The run directory's own name.
    pub folder: String,
    pub config: Option<Config>,
    /// `config.toml` as it is.
    pub config_text: String,
    /// One object a step, ascending.
    pub metrics: Vec<Map<String, Value>>,
    /// Samples of the first and of the last step that has any (of one step when there is one).
    pub first_samples: Vec<Sample>,
    pub last_samples: Vec<Sample>,
    /// Of every logged sample, by step: what its reward hung on.
    pub extremes: Vec<Extremes>,
    /// By file name.
    pub evaluations: Vec<Evaluation>,
    pub demo: Option<DemoSummary>,
    /// Whether more is to come: a training run without its final model.
    pub is_going_on: bool,
}

impl RunFiles {
    pub fn read(run_dir: &Path) -> Result<Self> {
        if !run_dir.is_dir() {
            let what = "no such run directory; name the folder that holds metrics.jsonl".into();
            return Err(Error::File { path: run_dir.to_path_buf(), what });
        }
        let demo: Option<DemoSummary> = read_json(&run_dir.join("demo.json"))?;
        let training_dir = match &demo {
            Some(demo) if demo.training_dir.is_empty() => run_dir.to_path_buf(),
            Some(demo) if is_plain_path(Path::new(&demo.training_dir)) => run_dir.join(&demo.training_dir),
            Some(demo) => {
                let dir = &demo.training_dir;
                let what = format!("`training_dir` is {dir:?}, not a folder of this run directory");
                return Err(Error::File { path: run_dir.join("demo.json"), what });
            }
            None => run_dir.to_path_buf(),
        };
        let mut files = Self {
            folder: folder_name(run_dir),
            demo,
            evaluations: read_evaluations(run_dir)?,
            ..Self::default()
        };
        files.read_training(&training_dir)?;
        let has_model = training_dir.join(FINAL_MODEL).is_dir();
        let is_training = files.demo.is_none() && files.config.is_some() && !files.metrics.is_empty();
        files.is_going_on = is_training && !has_model;
        if files.metrics.is_empty() && files.evaluations.is_empty() && files.demo.is_none() {
            let what = "nothing to report yet: no metrics.jsonl, eval*.json or demo.json with content".into();
            return Err(Error::File { path: run_dir.to_path_buf(), what });
        }
        Ok(files)
    }

    fn read_training(&mut self, dir: &Path) -> Result<()> {
        let config_path = dir.join("config.toml");
        if config_path.exists() {
            self.config_text =
                rlt_files::read_text(&config_path, MOST_SETTINGS).map_err(io_error(&config_path))?;
            let config = toml::from_str(&self.config_text).map_err(|e| Error::File {
                path: config_path,
                what: format!("not a configuration of this version: {}", e.message()),
            })?;
            self.config = Some(config);
        }
        let metrics_path = dir.join("metrics.jsonl");
        if metrics_path.exists() {
            self.metrics = read_rows(&metrics_path)?;
        }
        let files = sample_files(&dir.join("samples"))?;
        for (index, (_, path)) in files.iter().enumerate() {
            let samples = read_samples(path)?;
            self.extremes.extend(samples.iter().map(Extremes::of));
            if index == 0 {
                self.first_samples = samples;
            } else if index == files.len() - 1 {
                self.last_samples = samples;
            }
        }
        Ok(())
    }
}

fn folder_name(run_dir: &Path) -> String {
    let canonical = fs::canonicalize(run_dir).unwrap_or_else(|_| run_dir.to_path_buf());
    canonical.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read_samples(path: &Path) -> Result<Vec<Sample>> {
    let rows = read_rows(path)?.into_iter().enumerate();
    rows.map(|(index, row)| {
        serde_json::from_value(Value::Object(row)).map_err(|e| Error::Row {
            path: path.to_path_buf(),
            row: index + 1,
            what: format!("not a sample: {e}"),
        })
    })
    .collect()
}

fn read_evaluations(run_dir: &Path) -> Result<Vec<Evaluation>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(run_dir).map_err(io_error(run_dir))? {
        let path = entry.map_err(io_error(run_dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("eval") && name.ends_with(".json") {
            paths.push(path);
        }
    }
    paths.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
    let evaluations: Result<Vec<Option<Evaluation>>> = paths.iter().map(|path| read_json(path)).collect();
    Ok(evaluations?.into_iter().flatten().collect())
}

/// None when there is no such file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = rlt_files::read_bytes(path, MOST_ROWS).map_err(io_error(path))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| Error::File { path: path.to_path_buf(), what: format!("cannot be read: {e}") })
}
