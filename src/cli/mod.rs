//! Arguments, exit codes and what reaches the terminal. Only this module prints or exits: answers
//! go to standard output, progress and errors to standard error.
//!
//! A subcommand is one file with a clap struct and `fn run(&self, context: &Context) -> Result<()>`;
//! it is listed in [`Command`].

mod common;
mod compare;
mod completions;
mod config;
mod demo;
mod distill;
mod doctor;
mod eval;
mod explain;
mod grade;
mod import;
mod inspect;
mod interrupt;
mod last_line;
mod logprobs;
mod man;
mod new;
mod plan;
mod pretrained;
mod rank_log;
mod ranks;
mod render;
mod replay;
mod report;
mod reproduce;
mod score;
mod select;
mod serve;
mod sft;
mod terminal;
mod threads;
mod train;
mod visible;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use rlt::{Error, Result};
use rlt_engine::instructions::InstructionSet;
use rlt_ranks::Ranks;

use common::{Context, GlobalArgs};

/// Reinforcement Learning Teachers: train a teacher to explain, distil students, measure both.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 the work failed, 2 the call was wrong, 130 interrupted\n\
        Environment: RLT_SIMD (sse2, avx2, avx512, avx512bf16, amx, neon) the highest instruction set\n\
        that is used (docs/NUMERICS.md)"
)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// One line and one file a subcommand.
#[derive(Debug, Subcommand)]
enum Command {
    Compare(compare::CompareArgs),
    Completions(completions::CompletionsArgs),
    Config(config::ConfigCommandArgs),
    Demo(demo::DemoArgs),
    Distill(distill::DistillArgs),
    Doctor(doctor::DoctorArgs),
    Eval(eval::EvalArgs),
    Explain(explain::ExplainArgs),
    Grade(grade::GradeArgs),
    Import(import::ImportArgs),
    Inspect(inspect::InspectArgs),
    Logprobs(logprobs::LogprobsArgs),
    Man(man::ManArgs),
    New(new::NewArgs),
    Plan(plan::PlanArgs),
    Render(render::RenderArgs),
    Replay(replay::ReplayArgs),
    Report(report::ReportArgs),
    Reproduce(reproduce::ReproduceArgs),
    Score(score::ScoreArgs),
    Select(select::SelectArgs),
    Serve(serve::ServeArgs),
    Sft(sft::SftArgs),
    Train(train::TrainArgs),
}

impl Command {
    /// Whether the number of threads is a setting of what it runs with.
    fn reads_configuration(&self) -> bool {
        matches!(
            self,
            Self::Distill(_)
                | Self::Doctor(_)
                | Self::Eval(_)
                | Self::Explain(_)
                | Self::Inspect(_)
                | Self::Logprobs(_)
                | Self::Plan(_)
                | Self::Score(_)
                | Self::Sft(_)
                | Self::Train(_)
        )
    }

    /// Whether several ranks can share its work; others are the same on every rank.
    fn works_on_ranks(&self) -> bool {
        matches!(
            self,
            Self::Distill(_)
                | Self::Eval(_)
                | Self::Explain(_)
                | Self::Score(_)
                | Self::Sft(_)
                | Self::Train(_)
        )
    }

    fn run(&self, context: &Context) -> Result<()> {
        match self {
            Self::Compare(args) => args.run(context),
            Self::Completions(args) => args.run(context, Cli::command()),
            Self::Config(args) => args.run(context),
            Self::Demo(args) => args.run(context),
            Self::Distill(args) => args.run(context),
            Self::Doctor(args) => args.run(context),
            Self::Eval(args) => args.run(context),
            Self::Explain(args) => args.run(context),
            Self::Grade(args) => args.run(context),
            Self::Import(args) => args.run(context),
            Self::Inspect(args) => args.run(context),
            Self::Logprobs(args) => args.run(context),
            Self::Man(args) => args.run(context, Cli::command()),
            Self::New(args) => args.run(context),
            Self::Plan(args) => args.run(context),
            Self::Render(args) => args.run(context),
            Self::Replay(args) => args.run(context),
            Self::Report(args) => args.run(context),
            Self::Reproduce(args) => args.run(context),
            Self::Score(args) => args.run(context),
            Self::Select(args) => args.run(context),
            Self::Serve(args) => args.run(context),
            Self::Sft(args) => args.run(context),
            Self::Train(args) => args.run(context),
        }
    }
}

#[global_allocator]
static ALLOCATOR: last_line::Allocator = last_line::Allocator;

/// The stack that a command runs on, bytes: whole from the start, since the main thread's would still have to grow when
/// memory has run out, and end the process without a word.
const STACK_BYTES: usize = 8 << 20;

/// Parses the arguments, runs the subcommand and turns its result into an exit code. Wrong arguments
/// end here with clap's message and exit code 2.
pub fn run() -> ExitCode {
    last_line::install();
    let thread = std::thread::Builder::new().name("rlt".into()).stack_size(STACK_BYTES).spawn(parse_and_run);
    match thread {
        // A panic has ended the process before it could be joined.
        Ok(thread) => thread.join().unwrap_or(ExitCode::FAILURE),
        Err(_) => parse_and_run(),
    }
}

fn parse_and_run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let joined = if cli.command.works_on_ranks() { ranks::join() } else { Ok(Ranks::alone()) };
    let (ranks, joined) = joined.map_or_else(|error| (Ranks::alone(), Err(error)), |ranks| (ranks, Ok(())));
    let context = Context::new(&cli.global, ranks.clone());
    let known = || InstructionSet::chosen().map_err(|error| Error::Usage(error.to_string()));
    let threads = || if cli.command.reads_configuration() { Ok(()) } else { context.start_threads() };
    let started =
        joined.and_then(|()| known()).and_then(|_| interrupt::watch(&ranks)).and_then(|()| threads());
    match started.and_then(|()| cli.command.run(&context)) {
        Ok(()) => {
            ranks::leave(&ranks);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = exit_code(&error);
            if code == interrupt::EXIT_INTERRUPTED && ranks.size() > 1 {
                // All ranks were stopped in good order; the first says what is kept.
                if ranks.is_first() {
                    ranks::tell(&error.to_string());
                }
                ranks::leave(&ranks);
            } else {
                ranks::fail(&ranks, &error);
            }
            ExitCode::from(code)
        }
    }
}

fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Usage(_) => 2,
        Error::Interrupted(_) => interrupt::EXIT_INTERRUPTED,
        Error::Stopped { source, .. } => exit_code(source),
        _ => 1,
    }
}

/// What clap says about wrong arguments (or to `--help`), with its colours, unless the arguments themselves would drive
/// the terminal or fill it.
fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() || (text == visible::visible(&text) && text.len() < 4000) {
        error.exit();
    }
    drop(writeln!(std::io::stderr(), "{}", visible::line(&text)));
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    /// The page of the documentation about every command: what `--help` says.
    fn commands_page() -> String {
        use std::fmt::Write;
        let mut program = Cli::command().term_width(100);
        program.build();
        let mut page = String::from(
            "# Commands\n\nWhat `rlt COMMAND --help` says, for every command. This page is generated.\n",
        );
        let mut section = |title: &str, help: String| {
            let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
            writeln!(page, "\n## {title}\n\n```text\n{}\n```", help.join("\n")).unwrap();
        };
        section("rlt", program.clone().render_long_help().to_string());
        for command in program.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            section(&format!("rlt {}", command.get_name()), command.render_long_help().to_string());
        }
        page
    }

    /// The pages that are generated are what the code says; `RLT_WRITE_REFERENCE=1` writes them.
    #[test]
    fn the_reference_of_commands_and_keys_is_that_of_the_code() {
        let pages =
            [("COMMANDS.md", commands_page()), ("KEYS.md", rlt::config::Config::reference_page().unwrap())];
        for (name, page) in pages {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
            if std::env::var_os("RLT_WRITE_REFERENCE").is_some() {
                std::fs::write(&path, &page).unwrap();
            }
            let written = std::fs::read_to_string(&path).unwrap_or_default();
            let differs = written.lines().zip(page.lines()).find(|(was, is)| was != is);
            assert!(
                written == page,
                "docs/{name} is behind the code ({differs:?}): RLT_WRITE_REFERENCE=1 cargo test --workspace --bin rlt"
            );
        }
    }

    #[test]
    fn exit_codes_follow_the_kind_of_error() {
        assert_eq!(exit_code(&Error::Usage(String::new())), 2);
        assert_eq!(exit_code(&Error::Failed(String::new())), 1);
        assert_eq!(exit_code(&Error::NonFinite(String::new())), 1);
        assert_eq!(exit_code(&Error::Interrupted(String::new())), 130);
    }
}
