//! `rlt new`: a small project to begin with.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use rlt::{Error, Result};
use rlt_files::{replace_folder, write_atomic};
use serde_json::json;

use super::common::{Context, model_folder};

/// The files of a project. In the configurations `{#}` begins a line that only the demo's models need.
const FILES: [(&str, &str); 4] = [
    ("questions.jsonl", include_str!("../../configs/new/questions.jsonl")),
    ("teacher.toml", include_str!("../../configs/new/teacher.toml")),
    ("student.toml", include_str!("../../configs/new/student.toml")),
    ("README.md", include_str!("../../configs/new/README.md")),
];

/// Write a small project to begin with: two configurations, ten rows, the five commands
///
/// The folder must be new or empty. Its README.md says what to type.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Model folder of the teacher; without it models/teacher, to be put there or changed in the configurations
    #[arg(long, value_name = "DIR")]
    teacher: Option<PathBuf>,
    /// Model folder of the student; without it models/student
    #[arg(long, value_name = "DIR")]
    student: Option<PathBuf>,
    /// Use the models that a demo left in this folder (runs/demo), which need nothing else
    #[arg(long, value_name = "RUN", conflicts_with_all = ["teacher", "student"])]
    demo: Option<PathBuf>,
}

impl NewArgs {
    /// Writes the folder and says what to do with it.
    pub fn run(&self, context: &Context) -> Result<()> {
        let models = match &self.demo {
            Some(run) => [Some(run.join("teacher/model")), Some(run.join("base/model"))],
            None => [self.teacher.clone(), self.student.clone()],
        };
        let [teacher, student] = models;
        let teacher = quoted(teacher.as_deref(), "models/teacher")?;
        let student = quoted(student.as_deref(), "models/student")?;
        let (demos, tokens, rate) =
            if self.demo.is_some() { ("", "160", "3e-4") } else { ("# ", "1024", "1e-6") };
        let fill = |text: &str| {
            let values = [
                ("{#}", demos),
                ("{teacher}", &teacher),
                ("{student}", &student),
                ("{tokens}", tokens),
                ("{rate}", rate),
            ];
            values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
        };
        let write = |folder: &Path| -> Result<()> {
            for (name, text) in FILES {
                // Only the configurations hold places to fill.
                let text = fill(text);
                write_atomic(&folder.join(name), text.as_bytes())?;
            }
            Ok(())
        };
        if is_there(&self.dir)? {
            write(&self.dir)?;
        } else {
            if let Some(parent) = self.dir.parent() {
                fs::create_dir_all(parent).map_err(|source| Error::Io { path: parent.into(), source })?;
            }
            replace_folder(&self.dir, write)?;
        }
        let dir = self.dir.display();
        let models = match (&self.demo, &self.teacher, &self.student) {
            (None, None, _) | (None, _, None) => {
                "put your models where teacher.toml and student.toml name them, then "
            }
            _ => "",
        };
        context.answer(
            &format!(
                "wrote {dir}: README.md says what each file is\nnext: {models}cd {dir}, and\n  \
                 rlt score --config teacher.toml --data questions.jsonl --out given.jsonl"
            ),
            &json!({ "dir": self.dir, "files": FILES.map(|(name, _)| name) }),
        )
    }
}

/// Whether the folder is there, empty.
///
/// # Errors
/// [`Error::Usage`] where it is not empty, or no folder.
fn is_there(dir: &Path) -> Result<bool> {
    let refused = |what: String| Error::Usage(format!("{}: {what}; name a new folder", dir.display()));
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(true),
            Some(_) => Err(refused("is not empty, and nothing in it is replaced".into())),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(refused(e.to_string())),
    }
}

/// A model's place as TOML: with its whole name, since the project's commands are given elsewhere.
fn quoted(given: Option<&Path>, otherwise: &str) -> Result<String> {
    let Some(path) = given else { return Ok(format!("{otherwise:?}")) };
    let path =
        fs::canonicalize(model_folder(path)?).map_err(|source| Error::Io { path: path.into(), source })?;
    let text = path.to_str().ok_or_else(|| {
        Error::Usage(format!(
            "{}: a configuration cannot name a folder that is not UTF-8; rename it",
            path.display()
        ))
    })?;
    Ok(toml_text(text))
}

/// `text` in the quotes of TOML.
fn toml_text(text: &str) -> String {
    // JSON's escapes are TOML's, too.
    json!(text).to_string()
}
