//! What a training run is lent by whoever starts it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::config::Config;
use crate::error::Result;
use crate::progress::{Progress, Silent};
use crate::ranks::{Ranks, agree};

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
#[derive(Clone)]
pub struct Host<'a> {
    /// Is told how far it is.
    pub progress: &'a dyn Progress,
    /// Is told the same on ranks other than the first, where somebody wants to read what they do.
    pub log: Option<&'a dyn Progress>,
    /// Once true on any rank, the run saves and ends.
    pub stop: &'a AtomicBool,
    /// The processes that share the run, which all do the same; the first alone writes and tells.
    pub ranks: Ranks,
    /// A configuration with the paths of the world that it asks for (`[world]`) in the place of those that are not set,
    /// after the world has been made in the run directory; one that asks for none as it is.
    pub supply_world: fn(&Config, &Path, WorldRows) -> Result<Config>,
    /// Makes a page of the files in a run directory, and returns its path.
    pub write_report: fn(&Path) -> Result<PathBuf>,
}

impl Host<'_> {
    /// As this rank sees it: only the first tells how far it is.
    pub(crate) fn of_rank(&self) -> Self {
        let progress = if self.ranks.is_first() { self.progress } else { self.log.unwrap_or(&Silent) };
        Self { progress, ..self.clone() }
    }

    /// `given` with the world's paths, and with this rank's device; the first rank makes the world.
    ///
    /// # Errors
    /// As `supply_world`, and [`DeviceName::of_rank`](crate::config::DeviceName::of_rank).
    pub(crate) fn supply(&self, given: &Config, run_dir: &Path, rows: WorldRows) -> Result<Config> {
        let supply = || (self.supply_world)(given, run_dir, rows).map(Some);
        let made = agree(&self.ranks, if self.ranks.is_first() { supply() } else { Ok(None) })?;
        // It is there now.
        let made = agree(&self.ranks, if made.is_some() { Ok(made) } else { supply() })?;
        let mut config = made.unwrap_or_default();
        config.model.device = agree(&self.ranks, config.model.device.of_rank(&self.ranks))?;
        Ok(config)
    }
}
