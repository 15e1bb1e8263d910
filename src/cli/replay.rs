//! `rlt replay`: a failed step's batch, computed again.

use std::path::PathBuf;

use clap::Args;
use rlt::replay::Replay;
use rlt::{Error, Result};

use super::common::Context;

/// Compute the batch of a failed step again, and name the rows, tokens and weights that are not finite
///
/// A run that meets a number that is not finite keeps the batch in RUN/failed and names the file.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The batch.json of the failed step, with the weights beside it
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl ReplayArgs {
    /// Computes and prints; every sequence with --json, the faulty ones without.
    pub fn run(&self, context: &Context) -> Result<()> {
        let replay = Replay::of(&self.file)?;
        let json = serde_json::to_value(&replay).map_err(|e| Error::Failed(e.to_string()))?;
        context.answer(&replay.to_text(), &json)
    }
}
