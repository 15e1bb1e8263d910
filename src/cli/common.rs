//! What the subcommands share: the configuration, the threads, the run directory, the answer.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rlt::config::{Config, DeviceName, Products};
use rlt::located::LocatedModel;
use rlt::progress::Progress as _;
use rlt::training::Trained;
use rlt::{Error, Result};
use rlt_engine::instructions::InstructionSet;
use rlt_files::Inputs;
use rlt_model::chat_template::TemplateTime;
use rlt_model::sizes::MAX_ROWS;
use rlt_ranks::Ranks;
use serde_json::{Value, json};

use super::terminal::Terminal;
use super::threads;
use super::visible::{visible, visible_json};

/// Flags of every subcommand.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// Show no progress, only the answer, warnings and errors
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

/// `--device D`.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Where models are computed: cpu, or an NVIDIA GPU, cuda (the first, or each rank its own) or cuda:N; without it the configuration's model.device
    #[arg(long, value_name = "D")]
    pub device: Option<DeviceName>,
}

/// What a subcommand runs with.
pub struct Context {
    /// Draws progress on standard error.
    pub progress: Terminal,
    /// Who shares the work. Rank 0 writes files, shows progress and prints the answer.
    pub ranks: Ranks,
    threads: Option<u16>,
    json: bool,
}

impl Context {
    /// Takes the global flags.
    pub fn new(global: &GlobalArgs, ranks: Ranks) -> Self {
        let progress = if ranks.is_first() { Terminal::new(global.quiet) } else { Terminal::silent() };
        Self { progress, ranks, threads: global.threads, json: global.json }
    }

    /// Starts the threads of a command that reads no configuration. Call this or [`Self::load_config`] once, before any
    /// parallel work.
    pub fn start_threads(&self) -> Result<()> {
        threads::start(self.threads.map_or(0, usize::from), &self.ranks, &self.progress)
    }

    /// Loads the configuration, with `--threads` in its place, and starts that many threads. Call it
    /// once, before any parallel work.
    pub fn load_config(&self, args: &ConfigArgs) -> Result<Config> {
        let mut config = Config::load(args.config.as_deref(), &args.overrides)?;
        if let Some(threads) = self.threads {
            config.threads = threads.into();
        }
        threads::start(config.threads, &self.ranks, &self.progress)?;
        Ok(config)
    }

    /// As [`Self::load_config`], for a command that computes with models, on `device` where it is given: what cannot be used is
    /// found before any work, and what does not pay is said.
    pub fn load_config_on(&self, args: &ConfigArgs, device: &DeviceArgs) -> Result<Config> {
        self.load_config_with(args, device, |_| {})
    }

    /// As [`Self::load_config_on`], with what the command's own flags `change` of the configuration.
    pub fn load_config_with(
        &self,
        args: &ConfigArgs,
        device: &DeviceArgs,
        change: impl FnOnce(&mut Config),
    ) -> Result<Config> {
        let mut config = self.load_config(args)?;
        if let Some(device) = device.device {
            config.model.device = device;
        }
        change(&mut config);
        config.validate()?;
        config.model.device = config.model.device.of_rank(&self.ranks)?;
        config.model.device.open()?;
        self.tell_what_does_not_pay(&config);
        Ok(config)
    }

    /// Says that this processor is slower at what `config` asks for.
    pub fn tell_what_does_not_pay(&self, config: &Config) {
        let (instructions, on_cpu) = (InstructionSet::in_use(), config.model.device == DeviceName::Cpu);
        if on_cpu && config.model.arithmetic == Products::Bf16 && instructions <= InstructionSet::Avx2 {
            self.progress.note(&format!(
                "model.arithmetic is bf16, for which this processor ({instructions}) has no instructions: f32 is faster here"
            ));
        }
    }

    /// Prints what a finished run left.
    pub fn answer_trained(&self, trained: &Trained) -> Result<()> {
        let Trained { steps, model, best, report } = trained;
        let of_best =
            best.as_ref().map_or_else(String::new, |best| format!("; the best one in {}", best.display()));
        self.answer(
            &format!(
                "trained {steps} steps; model in {}{of_best}; report: {}",
                model.display(),
                report.display()
            ),
            &json!({ "steps": steps, "model": model, "best": best, "report": report }),
        )
    }

    /// Prints the command's answer on standard output: `text` for a person, or `json` with `--json`.
    pub fn answer(&self, text: &str, json: &Value) -> Result<()> {
        self.answer_painted(&visible(text), json)
    }

    /// As [`Self::answer`], for a text in which only the program's own colours drive the terminal.
    pub fn answer_painted(&self, text: &str, json: &Value) -> Result<()> {
        if !self.ranks.is_first() {
            return Ok(());
        }
        let answer = if self.json { visible_json(&json.to_string()) } else { text.trim_end().to_owned() };
        print_bytes(format!("{answer}\n").as_bytes())
    }
}

/// Writes to standard output what is no answer of a work but a text to keep (a script, a page).
pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // The reader has seen enough (`| head`).
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(Error::Io { path: "standard output".into(), source }),
        Ok(()) => Ok(()),
    }
}

/// The date that templates are told by work which may go on with an earlier attempt: that of the attempt, if it was the
/// `same` work at that time, else this process's.
pub fn template_time(earlier: Option<String>, same: impl Fn(TemplateTime, &str) -> bool) -> TemplateTime {
    let time = |work: &String| {
        let mut work: Value = serde_json::from_str(work).ok()?;
        let time: TemplateTime = serde_json::from_value(work["template_time"].take()).ok()?;
        Some(time)
    };
    let time = earlier.and_then(|work| time(&work).filter(|&time| same(time, &work)));
    time.unwrap_or_else(TemplateTime::of_this_process)
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

/// What a call with a configuration reads: its file, and everything that it names.
pub fn inputs(args: &ConfigArgs, config: &Config) -> Inputs {
    let inputs = rlt::run_dir::inputs(config);
    match &args.config {
        Some(file) => inputs.with("--config", file),
        None => inputs,
    }
}

/// Refuses an output that would take the place of an input, or that is nothing to write to.
pub fn check_output(inputs: &Inputs, out: &Path) -> Result<()> {
    inputs.refuse(out).map_err(|error| match error {
        rlt_files::Error::Refused { .. } => Error::Usage(error.to_string()),
        error @ rlt_files::Error::Io { .. } => error.into(),
    })
}

/// Tokens that are scored at a time here.
const TOKENS_PER_BATCH: usize = 16384;

/// Tokens that are scored at a time for every request that servers may have under way: so many that they seldom wait.
const TOKENS_OF_REQUEST: usize = 8192;

/// What `--tokens-per-batch` says of itself.
pub const TOKENS_HELP: &str = "Tokens computed at a time; more is faster up to a point and takes more memory [default: \
                               16384, or 8192 for every request that a server may have under way]";

/// Tokens to score at a time: as `given`, else as many as keep `models` busy.
pub fn tokens_per_batch<'a>(
    given: Option<usize>,
    models: impl IntoIterator<Item = &'a LocatedModel>,
) -> usize {
    let served = models.into_iter().filter_map(|model| Some(model.served()?.in_flight() * TOKENS_OF_REQUEST));
    given.unwrap_or_else(|| served.fold(TOKENS_PER_BATCH, usize::max))
}

/// For clap: a whole number from 1, of rows, tokens or completions.
pub fn parse_positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number from 1 is expected".into()),
        Ok(number) if number > MAX_ROWS => Err(format!("at most {MAX_ROWS} is supported")),
        Ok(number) => Ok(number),
    }
}
