//! What the reward prefers on real text: six kinds of explanation of real questions, scored once by a pretrained model
//! as teacher and student, and the reward computed from the parts for every lambda and alpha.

pub mod effects;
pub mod kinds;
pub mod rows;
pub mod tables;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rlt_files::{MOST_DESCRIPTION, write_atomic};
use serde_json::json;

use effects::Effects;
use rlt_method::config::{Config, DataConfig};
use rlt_method::error::{Error, Result, io_error};
use rlt_method::progress::Progress;
use rlt_method::prompts::{ChatText, PromptStyle, TypedCheck};
use rlt_method::run_dir::open_folder_of_runs;
use rlt_method::score::Formats;
use rlt_method::traces::scoring::{Detail, Gaps, TraceScorer, check_traces, score_file};
use rlt_method::training::run::frozen_model;

/// Tokens computed at a time.
const TOKENS_PER_BATCH: usize = 16_384;

/// The file that says what is being scored.
const WORK: &str = "work.json";

/// What is studied.
#[derive(Debug, Clone)]
pub struct RealOptions {
    /// Model folder of teacher and student.
    pub base: PathBuf,
    /// Files of worked questions, one a source.
    pub data: Vec<PathBuf>,
    /// Questions of each source.
    pub questions: usize,
    /// Where everything goes.
    pub run_dir: PathBuf,
}

/// Makes the rows, scores them (or goes on scoring, or takes what an earlier call has scored), and writes `table.md`,
/// `table.csv` and `figure.svg`.
///
/// # Errors
/// [`Error::Usage`] when the folder holds a study of something else, [`Error::File`] when it is not this program's; what data, model and files report;
/// [`Error::Interrupted`] after `stop`, with everything saved.
pub fn run(options: &RealOptions, progress: &dyn Progress, stop: &AtomicBool) -> Result<Effects> {
    let lines = rows::to_lines(&rows::read(&options.data, options.questions)?);
    let config = Config::default();
    let style = PromptStyle::resolve(&config.prompts)?;
    let chat = ChatText::from_dir(&options.base)?;
    let folder = &options.run_dir;
    let config_path = options.base.join("config.json");
    let work = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "base": options.base,
        "config": rlt_files::read_text(&config_path, MOST_DESCRIPTION).map_err(io_error(&config_path))?,
        "vocabulary": chat.tokenizer.vocabulary_hash(),
        "rows": crc32c::crc32c(lines.as_bytes()),
        "reward": &config.reward,
    })
    .to_string();
    let _locked = open_folder_of_runs(folder, "study")?;
    let scored = folder.join("scored.jsonl");
    if !begun(folder, &work)? || !scored.exists() {
        let rows = folder.join("rows.jsonl");
        write_atomic(&rows, lines.as_bytes())?;
        write_atomic(&folder.join(WORK), work.as_bytes())?;
        let data = DataConfig { path: rows, ..config.data.clone() };
        let checked = check_traces(&data, &style, Gaps::Refused, &mut TypedCheck::new(&chat))?;
        let formats = Formats { style: &style, teacher: &chat, student: &chat };
        let model = frozen_model(&config.model, &options.base)?;
        let scorer = TraceScorer {
            formats,
            teacher: &model,
            student: &model,
            config: &config,
            detail: Detail::Parts,
            tokens_per_batch: TOKENS_PER_BATCH,
        };
        score_file(&data, &checked, &scored, &work, &scorer, progress, stop)?;
    }
    let effects = effects::read(&scored)?;
    for (name, text) in [
        ("table.md", tables::markdown(&effects)),
        ("table.csv", tables::csv(&effects)),
        ("figure.svg", tables::figure(&effects)),
    ] {
        write_atomic(&folder.join(name), text.as_bytes())?;
    }
    Ok(effects)
}

/// Whether an earlier call has begun exactly this. What is being scored lies under another name until it is complete.
fn begun(folder: &Path, work: &str) -> Result<bool> {
    let path = folder.join(WORK);
    match rlt_files::read_text(&path, MOST_DESCRIPTION) {
        Ok(earlier) if earlier == work => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !folder.join("scored.jsonl").exists() => {
            Ok(false)
        }
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error(&path)(e)),
        _ => Err(Error::Usage(format!(
            "{}: holds a study of another model or other questions; name another --run-dir",
            folder.display()
        ))),
    }
}
