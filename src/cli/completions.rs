//! `rlt completions`: what a shell needs to complete commands and flags.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;
use rlt::Result;

use super::common::{Context, print_bytes};

/// Print completions for a shell
///
/// bash: rlt completions bash > ~/.local/share/bash-completion/completions/rlt
/// zsh: rlt completions zsh > ~/.zfunc/_rlt (with ~/.zfunc among the folders of $fpath)
/// fish: rlt completions fish > ~/.config/fish/completions/rlt.fish
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints those of `program`.
    pub fn run(&self, _context: &Context, mut program: clap::Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "rlt", &mut script as &mut dyn Write);
        print_bytes(&script)
    }
}
