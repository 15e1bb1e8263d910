//! `rlt.score` and `rlt.Reward`: the reward of explanations under two models that are held in memory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use rlt::config::{Config, DataConfig};
use rlt::dataset::{Record, question_of, read_records};
use rlt::prompts::{ChatText, PromptStyle};
use rlt::score::Formats;
use rlt::traces::in_memory::score_records;
use rlt::traces::scoring::{Detail, Gaps, TraceScorer};
use rlt::training::run::frozen_model;
use rlt::{Error, Result};
use rlt_model::Decoder;
use serde_json::{Map, Value, json};

use crate::errors::{not_json, raised};

/// What rows from memory are called in errors.
const ROWS: &str = "rows";

/// A model with its text side.
struct Model {
    folder: PathBuf,
    chat: ChatText,
    decoder: Decoder,
}

impl Model {
    fn load(folder: &Path, config: &Config) -> Result<Arc<Self>> {
        if !folder.is_dir() {
            let what = "no such folder; name a model folder in the Hugging Face layout".into();
            return Err(Error::File { path: folder.to_owned(), what });
        }
        let chat = ChatText::from_dir(folder)?.reading(config.data.special_tokens);
        let decoder = frozen_model(&config.model, folder)?;
        Ok(Arc::new(Self { folder: folder.to_owned(), chat, decoder }))
    }
}

/// Teacher, student and settings.
#[pyclass(frozen)]
pub struct Scorer {
    config: Config,
    style: PromptStyle,
    tokens_per_batch: usize,
    student: Arc<Model>,
    /// Exchanged while it is trained.
    teacher: Mutex<Arc<Model>>,
}

#[pymethods]
impl Scorer {
    /// Loads both models; `settings` are `key=value`, as on the command line.
    #[new]
    fn new(
        py: Python<'_>,
        teacher: PathBuf,
        student: PathBuf,
        config: Option<PathBuf>,
        settings: Vec<String>,
        tokens_per_batch: usize,
    ) -> PyResult<Self> {
        py.detach(|| -> Result<Self> {
            if tokens_per_batch == 0 {
                return Err(Error::Usage("tokens_per_batch is 0; a whole number from 1 is expected".into()));
            }
            let config = Config::load(config.as_deref(), &settings)?;
            let style = PromptStyle::resolve(&config.prompts)?;
            let loaded = Model::load(&student, &config)?;
            let of_teacher =
                if teacher == student { loaded.clone() } else { Model::load(&teacher, &config)? };
            ChatText::check_same_vocabulary(&of_teacher.chat, &loaded.chat)?;
            Ok(Self { config, style, tokens_per_batch, student: loaded, teacher: Mutex::new(of_teacher) })
        })
        .map_err(raised)
    }

    /// Takes another teacher from now on.
    fn set_teacher(&self, py: Python<'_>, folder: PathBuf) -> PyResult<()> {
        py.detach(|| -> Result<()> {
            let model = Model::load(&folder, &self.config)?;
            ChatText::check_same_vocabulary(&model.chat, &self.student.chat)?;
            *self.teacher.lock().unwrap_or_else(PoisonError::into_inner) = model;
            Ok(())
        })
        .map_err(raised)
    }

    /// The folder of the teacher.
    #[getter]
    fn teacher(&self) -> PathBuf {
        self.current_teacher().folder.clone()
    }

    /// Scored rows of rows, both as JSON. Rows that lack what scoring needs are returned with the reason, or refused where
    /// `strict`.
    fn score(&self, py: Python<'_>, rows: &str, ledger: bool, strict: bool) -> PyResult<String> {
        let records = records(rows)?;
        self.scored(py, records, ledger, strict)
    }

    /// As `score`, of the rows of a file.
    fn score_file(&self, py: Python<'_>, path: PathBuf, ledger: bool, strict: bool) -> PyResult<String> {
        let records = py.detach(|| read_records(&path, self.config.data.max_rows)).map_err(raised)?;
        self.scored(py, records, ledger, strict)
    }

    /// What the teacher is prompted with for each of the rows: `[{"prompt": text, "prompt_ids": ids}, ..]`.
    fn prompts(&self, py: Python<'_>, rows: &str) -> PyResult<String> {
        let records = records(rows)?;
        py.detach(|| -> Result<String> {
            let teacher = self.current_teacher();
            let prompt = |record: Record| -> Result<Value> {
                let row = question_of(record, &self.config.data)?;
                let text = self.style.teacher_prompt_text(&teacher.chat, &row)?;
                let ids = self.style.teacher_prompt(&teacher.chat, &row)?;
                Ok(json!({ "prompt": text, "prompt_ids": ids }))
            };
            let prompts: Result<Vec<Value>> = records.into_iter().map(prompt).collect();
            Ok(Value::Array(prompts?).to_string())
        })
        .map_err(raised)
    }

    /// The text that ids spell, without the stop token that ends them: the `completion` that goes with `completion_ids`.
    fn completion_texts(&self, py: Python<'_>, ids: Vec<Vec<u32>>) -> Vec<String> {
        py.detach(|| {
            let teacher = self.current_teacher();
            let stops = &teacher.decoder.config().eos_token_ids;
            let turn_end = teacher.chat.tokenizer.token_to_id(teacher.chat.turn_end());
            let text = |ids: &Vec<u32>| {
                let ends = |id: &u32| stops.contains(id) || turn_end == Some(*id);
                let text = match ids.split_last() {
                    Some((last, text)) if ends(last) => text,
                    _ => ids,
                };
                teacher.chat.tokenizer.decode(text)
            };
            ids.iter().map(text).collect()
        })
    }

    /// What ends an explanation.
    #[getter]
    fn end_tag(&self) -> &str {
        &self.style.end_of_explanation
    }
}

impl Scorer {
    fn current_teacher(&self) -> Arc<Model> {
        self.teacher.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn scored(&self, py: Python<'_>, records: Vec<Record>, ledger: bool, strict: bool) -> PyResult<String> {
        let mut interruption = None;
        let outcome = py.detach(|| -> Result<String> {
            let teacher = self.current_teacher();
            let formats = Formats { style: &self.style, teacher: &teacher.chat, student: &self.student.chat };
            let scorer = TraceScorer {
                formats,
                teacher: &teacher.decoder,
                student: &self.student.decoder,
                config: &self.config,
                detail: if ledger { Detail::Ledger } else { Detail::Parts },
                tokens_per_batch: self.tokens_per_batch,
            };
            let gaps = if strict { Gaps::Refused } else { Gaps::Written };
            let data = DataConfig { path: ROWS.into(), ..self.config.data.clone() };
            let rows = score_records(records, &data, gaps, &scorer, &mut || {
                Python::attach(|py| py.check_signals()).map_err(|error| {
                    interruption = Some(error);
                    Error::Interrupted("interrupted".into())
                })
            })?;
            serde_json::to_string(&rows).map_err(|e| Error::Failed(e.to_string()))
        });
        match interruption {
            Some(interruption) => Err(interruption),
            None => outcome.map_err(raised),
        }
    }
}

/// Rows from JSON, numbered from 1.
fn records(rows: &str) -> PyResult<Vec<Record>> {
    let rows: Vec<Map<String, Value>> = serde_json::from_str(rows).map_err(not_json(ROWS))?;
    let path: Arc<Path> = Arc::from(Path::new(ROWS));
    let record = |(index, columns)| Record { path: path.clone(), row: index + 1, columns };
    Ok(rows.into_iter().enumerate().map(record).collect())
}
