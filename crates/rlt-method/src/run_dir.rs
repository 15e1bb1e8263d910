//! A run directory: marked as rlt's, one writer at a time, one configuration for its whole life.

use std::fs;
use std::path::{Path, PathBuf};

use rlt_files::{Inputs, OwnedFolder, UNFINISHED, write_atomic};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::training::checkpoint::recorded_config;

/// Where weights go that servers load.
pub(crate) const SERVED: &str = "served";

/// Folders of a run directory in which rlt writes, replaces and deletes.
const FOLDERS: [&str; 9] =
    ["adapter", "best", "checkpoints", "failed", "model", "samples", SERVED, "tb", "world"];

/// Its files.
const FILES: [&str; 4] = ["config.toml", "demo.json", "metrics.jsonl", "report.html"];

/// A run directory that no other process writes to while this value lives.
#[derive(Debug)]
pub struct RunDir {
    /// The directory.
    pub path: PathBuf,
    _folder: OwnedFolder,
}

impl RunDir {
    /// Opens (or makes) the run directory of `config`, takes its lock and writes `config.toml`. A
    /// directory that already holds a run is accepted when its configuration is the same, so that
    /// the same command continues an interrupted run. Before that, nothing is written or deleted.
    ///
    /// # Errors
    /// [`Error::Usage`] when the directory holds a run with another configuration, or an input of this one where it
    /// will write; [`Error::File`] when it belongs to somebody else or another process uses it; [`Error::Io`] when it
    /// cannot be written.
    pub fn open(config: &Config) -> Result<Self> {
        let path = config.run_dir();
        inputs(config).refuse_inside(&path, &FOLDERS).map_err(|e| Error::Usage(e.to_string()))?;
        let folder = OwnedFolder::open(&path, "run", is_earlier_run)?;
        refuse_links(&path)?;
        let config_path = path.join("config.toml");
        // A directory in which nothing has been trained yet takes any configuration.
        let begun = path.join("metrics.jsonl").exists() || path.join("checkpoints").exists();
        if begun && config_path.exists() {
            same_run(&path, &Config::load(Some(&config_path), &[])?, config)?;
        } else if let Some(recorded) = recorded_config(&path) {
            same_run(&path, &recorded, config)?;
        }
        write_atomic(&config_path, config.to_toml()?.as_bytes())?;
        Ok(Self { path, _folder: folder })
    }
}

/// What a configuration says is read, so that no output takes the place of it.
pub fn inputs(config: &Config) -> Inputs {
    let model = &config.model;
    Inputs::new()
        .with("model.path", &model.path)
        .with("model.student", &model.student)
        .with("model.reference", &model.reference)
        .with("data.path", &config.data.path)
        .with("eval.data", &config.eval.data)
        .with("prompts.style", Path::new(&config.prompts.style))
}

/// Opens the folder that `rlt demo` or `rlt reproduce` writes runs and pages to, as [`RunDir::open`] does a run's.
///
/// # Errors
/// As [`OwnedFolder::open`].
pub fn open_folder_of_runs(path: &Path, kind: &str) -> Result<OwnedFolder> {
    Ok(OwnedFolder::open(path, kind, |_| false)?)
}

/// Whether rlt made this folder for a run, with its mark or before there were marks.
pub fn is_run_dir(path: &Path) -> bool {
    OwnedFolder::is_marked(path) || is_earlier_run(path)
}

/// Whether an earlier rlt, which left no mark, made this run directory: nothing is in it that it did not write, and its
/// lock, its configuration and a row of metrics or a checkpoint are there.
fn is_earlier_run(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    let known = |name: &str| {
        let folder = name.strip_prefix(UNFINISHED).unwrap_or(name);
        let evaluation = name.strip_prefix("eval").is_some_and(|rest| rest.strip_suffix(".json").is_some());
        [".lock", "stage.json"].contains(&name)
            || FILES.contains(&name)
            || FOLDERS.contains(&folder)
            || evaluation
    };
    let all_known = entries
        .flatten()
        .all(|entry| entry.file_name().to_str().is_some_and(|name| known(name) || name == rlt_files::MARK));
    let lock = rlt_files::read_text(&path.join(".lock"), rlt_files::MOST_SETTINGS);
    let by_process = lock.is_ok_and(|text| text.trim().parse::<u32>().is_ok());
    let trained = crate::run_log::read_rows(&path.join("metrics.jsonl"))
        .is_ok_and(|rows| rows.first().is_some_and(|row| row.contains_key("step")))
        || path.join("checkpoints").is_dir();
    all_known && by_process && trained && Config::load(Some(&path.join("config.toml")), &[]).is_ok()
}

/// Refuses links under names that are replaced as a whole or grow: what they lead to is not in this folder.
fn refuse_links(path: &Path) -> Result<()> {
    for name in FOLDERS.iter().chain(&FILES) {
        let entry = path.join(name);
        if fs::symlink_metadata(&entry).is_ok_and(|metadata| metadata.is_symlink()) {
            let what = "is a link, and a run writes in its own folder only; remove the link (run_dir itself may be one)";
            return Err(Error::File { path: entry, what: what.into() });
        }
    }
    Ok(())
}

/// Refuses a configuration that would continue a run as another one. Keys that change no number of
/// the run may differ.
fn same_run(run_dir: &Path, old: &Config, new: &Config) -> Result<()> {
    let Some(change) = old.deciding().first_change(&new.deciding())? else { return Ok(()) };
    Err(Error::Usage(format!(
        "{}: holds a run with another configuration ({change}); give this run another name or run_dir, or remove the \
         old one",
        run_dir.display(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_in(dir: &Path, overrides: &[&str]) -> Config {
        let mut all = vec![format!("run_dir={}", dir.display())];
        all.extend(overrides.iter().map(|&o| o.to_owned()));
        Config::load(None, &all).unwrap()
    }

    fn refusal(config: &Config) -> String {
        match RunDir::open(config) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("the directory was opened"),
        }
    }

    #[test]
    fn a_run_directory_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let config = config_in(&dir.path().join("a/b"), &[]);
        let first = RunDir::open(&config).unwrap();
        assert!(refusal(&config).contains("another rlt"));
        drop(first);
        RunDir::open(&config).unwrap();
    }

    #[test]
    fn an_input_where_the_run_writes_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("run/model");
        fs::create_dir_all(&model).unwrap();
        let config = config_in(&dir.path().join("run"), &[&format!("model.path={}", model.display())]);
        let message = refusal(&config);
        assert!(message.contains("the input of model.path lies in"), "{message}");
        assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 1);
    }

    #[test]
    fn only_what_is_wholly_a_run_of_an_earlier_version_is_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let config = config_in(dir.path(), &["grpo.steps=10"]);
        fs::write(at("config.toml"), config.to_toml().unwrap()).unwrap();
        fs::write(at("metrics.jsonl"), "{\"step\":1}\n").unwrap();
        fs::create_dir(at("model")).unwrap();
        let message = refusal(&config);
        assert!(message.contains("not a folder that rlt made"), "without its lock: {message}");
        fs::write(at(".lock"), "4711\n").unwrap();
        fs::write(at("README.md"), "mine").unwrap();
        let message = refusal(&config);
        assert!(message.contains("not a folder that rlt made"), "with a file of the user's: {message}");
        fs::remove_file(at("README.md")).unwrap();
        drop(RunDir::open(&config).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (run, other) = (dir.path().join("run"), dir.path().join("other"));
        let config = config_in(&run, &[]);
        drop(RunDir::open(&config).unwrap());
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, run.join("model")).unwrap();
        let message = refusal(&config);
        assert!(message.contains("run/model: is a link"), "{message}");
    }

    #[test]
    fn the_same_configuration_continues_and_another_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(RunDir::open(&config_in(dir.path(), &["grpo.steps=9"])).unwrap());
        let run = RunDir::open(&config_in(dir.path(), &["grpo.steps=10"])).unwrap();
        std::fs::write(run.path.join("metrics.jsonl"), "").unwrap();
        let written = Config::load(Some(&run.path.join("config.toml")), &[]).unwrap();
        assert_eq!(written, config_in(dir.path(), &["grpo.steps=10"]));
        drop(run);
        RunDir::open(&config_in(dir.path(), &["grpo.steps=10", "threads=3", "checkpoint.every=7"])).unwrap();
        let message = refusal(&config_in(dir.path(), &["grpo.steps=11"]));
        assert!(message.contains("(grpo.steps was 10, now 11)"), "{message}");
        let message = refusal(&config_in(dir.path(), &["grpo.steps=10", "prompts.padding=x"]));
        assert!(message.contains("(prompts.padding was unset, now \"x\")"), "{message}");
    }
}
