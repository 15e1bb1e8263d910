//! Training as the program starts it: with the worlds that a run may ask for, and the page of what it wrote.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::worlds::supply::supply_world;
use rlt_method::config::Config;
use rlt_method::error::Result;
use rlt_method::progress::Progress;
use rlt_method::ranks::Ranks;
use rlt_method::training::{Host, Trained};
use rlt_method::{grpo, sft};
use rlt_report::write_report;

/// Everything that a training run is lent, on one rank; `Host { ranks, ..host(progress, stop) }` is that of several.
pub fn host<'a>(progress: &'a dyn Progress, stop: &'a AtomicBool) -> Host<'a> {
    Host { progress, log: None, stop, ranks: Ranks::alone(), supply_world, write_report }
}

/// As [`sft::train`].
///
/// # Errors
/// As [`sft::train`].
pub fn sft(given: &Config, run_dir: &Path, progress: &dyn Progress, stop: &AtomicBool) -> Result<Trained> {
    sft::train(given, run_dir, &host(progress, stop))
}

/// As [`grpo::distill`].
///
/// # Errors
/// As [`grpo::distill`].
pub fn distill(
    given: &Config,
    run_dir: &Path,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Trained> {
    grpo::distill(given, run_dir, &host(progress, stop))
}

/// As [`grpo::train`].
///
/// # Errors
/// As [`grpo::train`].
pub fn grpo(given: &Config, run_dir: &Path, progress: &dyn Progress, stop: &AtomicBool) -> Result<Trained> {
    grpo::train(given, run_dir, &host(progress, stop))
}
