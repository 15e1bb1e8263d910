//! `rlt report`: the HTML report of a run, or one page that compares several.

use std::path::{Path, PathBuf};

use clap::Args;
use rlt::report::{refuse_foreign_page, write_comparison, write_report};
use rlt::{Error, Result};
use rlt_files::Inputs;
use serde_json::json;

use super::common::{Context, check_output};

/// Where the page of several runs goes.
const DEFAULT_PAGE: &str = "comparison.html";

/// Write the HTML report of a run from its files; of several runs, one page that compares them
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The run directories, finished or not
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Where the page of several runs goes [default: comparison.html]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl ReportArgs {
    /// Writes RUN/report.html, or the comparison, and prints its path.
    pub fn run(&self, context: &Context) -> Result<()> {
        let report = match (&self.runs[..], &self.out) {
            ([run], None) => write_report(run)?,
            ([run], Some(_)) => {
                return Err(Error::Usage(format!(
                    "--out is for the page of several runs; one run's report is {}",
                    run.join("report.html").display()
                )));
            }
            (runs, out) => {
                if out.is_none() {
                    refuse_foreign_page(Path::new(DEFAULT_PAGE))?;
                }
                let out = out.clone().unwrap_or_else(|| DEFAULT_PAGE.into());
                let runs: Vec<&Path> = runs.iter().map(PathBuf::as_path).collect();
                let files = ["config.toml", "demo.json", "metrics.jsonl", "samples"];
                let inputs = runs.iter().flat_map(|run| files.map(|name| run.join(name)));
                check_output(&inputs.fold(Inputs::new(), |all, file| all.with("RUN", &file)), &out)?;
                write_comparison(&runs, &out)?;
                out
            }
        };
        context.answer(&report.display().to_string(), &json!({ "report": report }))
    }
}
