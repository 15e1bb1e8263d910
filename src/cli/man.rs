//! `rlt man`: manual pages.

use clap::Args;
use clap_mangen::Man;
use rlt::{Error, Result};

use super::common::{Context, print_bytes};

/// Print the manual page of rlt, or of one command
///
/// For example: rlt man > ~/.local/share/man/man1/rlt.1, or to read one at once: rlt man score | man -l -
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command; without it the page of rlt itself
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

impl ManArgs {
    /// Prints the page of `program` or of its command.
    pub fn run(&self, _context: &Context, mut program: clap::Command) -> Result<()> {
        program.build();
        let page = match &self.command {
            None => program,
            Some(name) => {
                let known =
                    || program.get_subcommands().map(clap::Command::get_name).collect::<Vec<_>>().join(", ");
                program.find_subcommand(name).cloned().ok_or_else(|| {
                    Error::Usage(format!("there is no command `{name}`; the commands are: {}", known()))
                })?
            }
        };
        let mut text = Vec::new();
        let failed = |source| Error::Io { path: "the manual page".into(), source };
        Man::new(page).render(&mut text).map_err(failed)?;
        print_bytes(&text)
    }
}
