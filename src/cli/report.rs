//! `rlt report`: the HTML report of a run.

use std::path::PathBuf;

use clap::Args;
use rlt::Result;
use rlt::report::write_report;
use serde_json::json;

use super::common::Context;

/// Write the HTML report of a run, from its files
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The run directory, finished or not
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

impl ReportArgs {
    /// Writes RUN/report.html and prints its path.
    pub fn run(&self, context: &Context) -> Result<()> {
        let report = write_report(&self.run)?;
        context.answer(&report.display().to_string(), &json!({ "report": report }))
    }
}
