//! What the subcommands share: the configuration, the threads, the run directory, the answer.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rlt::checkpoint::{RunLock, write_atomic};
use rlt::config::Config;
use rlt::{Error, Result};
use serde_json::Value;

use super::terminal::Terminal;

/// Flags of every subcommand.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// Show no progress, only the answer and errors
    #[arg(long, short, global = true, help_heading = "Options of every command")]
    pub quiet: bool,
    /// Worker threads; without it the configuration's `threads`, else one per core
    #[arg(long, global = true, help_heading = "Options of every command", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Print the answer as one JSON object
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub json: bool,
}

/// `--config F [key=value ..]`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// TOML file; see configs/ for examples
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Values that replace those of the file, for example grpo.steps=200
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// What a subcommand runs with.
pub struct Context {
    /// Draws progress on standard error.
    pub progress: Terminal,
    threads: Option<u16>,
    json: bool,
}

impl Context {
    /// Takes the global flags; a given `--threads` counts from here on.
    pub fn new(global: &GlobalArgs) -> Result<Self> {
        if let Some(threads) = global.threads {
            start_threads(threads.into())?;
        }
        Ok(Self { progress: Terminal::new(global.quiet), threads: global.threads, json: global.json })
    }

    /// Loads the configuration, with `--threads` in its place, and starts that many threads. Call it
    /// once, before any parallel work.
    pub fn load_config(&self, args: &ConfigArgs) -> Result<Config> {
        let mut config = Config::load(args.config.as_deref(), &args.overrides)?;
        match self.threads {
            Some(threads) => config.threads = threads.into(),
            None if config.threads > 0 => start_threads(config.threads)?,
            None => {}
        }
        Ok(config)
    }

    /// Prints the command's answer on standard output: `text` for a person, or `json` with `--json`.
    pub fn answer(&self, text: &str, json: &Value) -> Result<()> {
        let answer = if self.json { json.to_string() } else { text.trim_end().to_owned() };
        match writeln!(std::io::stdout(), "{answer}") {
            // The reader has seen enough (`| head`).
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(source) => Err(Error::Io { path: "standard output".into(), source }),
            Ok(()) => Ok(()),
        }
    }
}

/// `path` when it is a folder.
///
/// # Errors
/// [`Error::File`] when it is not: a clearer line than that the first file in it is missing.
pub fn model_folder(path: &Path) -> Result<&Path> {
    if path.is_dir() {
        return Ok(path);
    }
    let what = "no such folder; name a model folder in the Hugging Face layout".into();
    Err(Error::File { path: path.to_owned(), what })
}

/// For clap: a whole number from 1.
pub fn parse_positive(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "a whole number from 1 is expected".into())
}

fn start_threads(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|e| Error::Failed(format!("cannot start {threads} worker threads: {e}")))
}

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
        if config_path.exists() {
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
        let run = RunDir::open(&config_in(dir.path(), &["grpo.steps=10"])).unwrap();
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
