//! A run directory: one writer at a time, one configuration for its whole life.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::{RunLock, write_atomic};
use crate::config::Config;
use crate::error::{Error, Result};

/// A run directory that no other process writes to while this value lives.
pub struct RunDir {
    /// The directory.
    pub path: PathBuf,
    _lock: RunLock,
}

impl RunDir {
    /// Opens (or makes) the run directory of `config`, takes its lock and writes `config.toml`. A
    /// directory that already holds a run is accepted when its configuration is the same, so that
    /// the same command continues an interrupted run.
    ///
    /// # Errors
    /// [`Error::Usage`] when the directory holds a run with another configuration; [`Error::File`]
    /// when another process uses it; [`Error::Io`] when it cannot be written.
    pub fn open(config: &Config) -> Result<Self> {
        let path = config.run_dir();
        let lock = RunLock::acquire(&path)?;
        let config_path = path.join("config.toml");
        // A directory in which nothing has been trained yet takes any configuration.
        let begun = path.join("metrics.jsonl").exists() || path.join("checkpoints").exists();
        if begun && config_path.exists() {
            same_run(&path, &Config::load(Some(&config_path), &[])?, config)?;
        }
        write_atomic(&config_path, config.to_toml()?.as_bytes())?;
        Ok(Self { path, _lock: lock })
    }
}

/// Refuses a configuration that would continue a run as another one. Keys that change no number of
/// the run may differ.
fn same_run(run_dir: &Path, old: &Config, new: &Config) -> Result<()> {
    let mut old = old.clone();
    old.threads = new.threads;
    old.run_dir.clone_from(&new.run_dir);
    old.checkpoint.clone_from(&new.checkpoint);
    old.memory.recompute = new.memory.recompute;
    old.memory.idle = new.memory.idle;
    old.grpo.samples_every = new.grpo.samples_every;
    old.grpo.samples_logged = new.grpo.samples_logged;
    let (was, is) = (old.settings()?, new.settings()?);
    let Some(key) = was.keys().chain(is.keys()).find(|&key| was.get(key) != is.get(key)) else {
        return Ok(());
    };
    let value = |settings: &BTreeMap<String, String>| settings.get(key).map_or("unset", |v| v).to_owned();
    Err(Error::Usage(format!(
        "{}: holds a run with another configuration ({key} was {}, now {}); give this run another name or \
         run_dir, or remove the old one",
        run_dir.display(),
        value(&was),
        value(&is),
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
