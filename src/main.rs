//! The `rlt` command line: `cli` parses, runs and reports; the library does the work.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
