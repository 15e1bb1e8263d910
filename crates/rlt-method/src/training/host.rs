//! What a training run is lent by whoever starts it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::config::Config;
use crate::error::Result;
use crate::progress::Progress;

/// Which of a world's rows a run trains on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorldRows {
    /// Questions with honest explanations: `rlt sft`.
    Textbook,
    /// Questions alone: `rlt train`.
    Questions,
}

/// Who runs a training. The method knows worlds by name and its files by their content; what makes the one and draws the
/// other is the host's.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Is told how far it is.
    pub progress: &'a dyn Progress,
    /// Once true, the run saves and ends.
    pub stop: &'a AtomicBool,
    /// A configuration with the paths of the world that it asks for (`[world]`) in the place of those that are not set,
    /// after the world has been made in the run directory; one that asks for none as it is.
    pub supply_world: fn(&Config, &Path, WorldRows) -> Result<Config>,
    /// Makes a page of the files in a run directory, and returns its path.
    pub write_report: fn(&Path) -> Result<PathBuf>,
}
