//! `rlt.score` and `rlt.Reward`: the reward of explanations under two models that are held in memory, or that servers serve.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use rlt::config::{Config, DataConfig, ServerConfig};
use rlt::dataset::{Record, question_of, read_records};
use rlt::located::LocatedModel;
use rlt::prompts::{ChatText, PromptStyle};
use rlt::ranks::Holding;
use rlt::score::Formats;
use rlt::server::Wanted;
use rlt::traces::in_memory::score_records;
use rlt::traces::scoring::{Detail, Gaps, TraceScorer};
use rlt::{Error, Result};
use rlt_model::Stop;
use serde_json::{Map, Value, json};

use crate::errors::{not_json, raised};
use crate::telling::{Interruptible, Warnings};

/// What rows from memory are called in errors.
const ROWS: &str = "rows";

/// A model with its text side.
struct Model {
    folder: PathBuf,
    chat: ChatText,
    located: LocatedModel,
}

impl Model {
    /// That in `folder`, or the one of `server`, of which the folder has the tokenizer.
    fn find(
        folder: &Path,
        server: Option<(&'static str, &ServerConfig)>,
        config: &Config,
        warnings: &Warnings,
    ) -> Result<Arc<Self>> {
        if folder.to_string_lossy().contains("://") {
            return Err(Error::Usage(format!(
                "{} is an address: give it as teacher_server or student_server, and the model's folder (config.json and the \
                 tokenizer are enough) as teacher or student",
                folder.display()
            )));
        }
        if !folder.is_dir() {
            let what = "no such folder; name a model folder in the Hugging Face layout".into();
            return Err(Error::File { path: folder.to_owned(), what });
        }
        let chat = ChatText::from_dir(folder)?.reading(config.data.special_tokens);
        let located = LocatedModel::find(server, &config.model, folder, &Holding::Whole, warnings)?;
        located.check(&chat.tokenizer, &Wanted { scoring: true, ..Wanted::default() }, warnings)?;
        Ok(Arc::new(Self { folder: folder.to_owned(), chat, located }))
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
    /// Loads both models, or asks the servers that the configuration names who they are; `settings` are `key=value`, as on the
    /// command line.
    #[new]
    fn new(
        py: Python<'_>,
        teacher: PathBuf,
        student: PathBuf,
        config: Option<PathBuf>,
        settings: Vec<String>,
        tokens_per_batch: usize,
    ) -> PyResult<Self> {
        let warnings = Warnings::default();
        let scorer = py.detach(|| -> Result<Self> {
            if tokens_per_batch == 0 {
                return Err(Error::Usage("tokens_per_batch is 0; a whole number from 1 is expected".into()));
            }
            let config = Config::load(config.as_deref(), &settings)?;
            let style = PromptStyle::resolve(&config.prompts)?;
            let (of_teacher, of_student) = (config.server_of_teacher(), config.server_of_student());
            // As on the command line: one folder without a server of the student's own is one model.
            let is_one = teacher == student && of_student.is_none();
            config.check_scored_by_servers(
                of_teacher.is_some(),
                of_student.is_some() || (is_one && of_teacher.is_some()),
            )?;
            let found = Model::find(&teacher, of_teacher, &config, &warnings)?;
            let student =
                if is_one { found.clone() } else { Model::find(&student, of_student, &config, &warnings)? };
            ChatText::check_same_vocabulary(&found.chat, &student.chat)?;
            Ok(Self { style, tokens_per_batch, student, teacher: Mutex::new(found), config })
        });
        warnings.tell(py)?;
        scorer.map_err(raised)
    }

    /// Takes another teacher from now on.
    fn set_teacher(&self, py: Python<'_>, folder: PathBuf) -> PyResult<()> {
        let warnings = Warnings::default();
        let taken = py.detach(|| -> Result<()> {
            let model = Model::find(&folder, self.config.server_of_teacher(), &self.config, &warnings)?;
            ChatText::check_same_vocabulary(&model.chat, &self.student.chat)?;
            *self.teacher.lock().unwrap_or_else(PoisonError::into_inner) = model;
            Ok(())
        });
        warnings.tell(py)?;
        taken.map_err(raised)
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
            let stops = &teacher.located.config().eos_token_ids;
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
        let interruptible = Interruptible::default();
        let outcome = py.detach(|| -> Result<String> {
            let teacher = self.current_teacher();
            let formats = Formats { style: &self.style, teacher: &teacher.chat, student: &self.student.chat };
            let stop = Stop::when(interruptible.flag());
            let scorer = TraceScorer {
                formats,
                teacher: &*teacher.located.scorer(stop, &interruptible),
                student: &*self.student.located.scorer(stop, &interruptible),
                config: &self.config,
                detail: if ledger { Detail::Ledger } else { Detail::Parts },
                tokens_per_batch: self.tokens_per_batch,
            };
            let gaps = if strict { Gaps::Refused } else { Gaps::Written };
            let data = DataConfig { path: ROWS.into(), ..self.config.data.clone() };
            let rows = score_records(records, &data, gaps, &scorer, &mut || interruptible.look())?;
            serde_json::to_string(&rows).map_err(|e| Error::Failed(e.to_string()))
        });
        match interruptible.interruption() {
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
