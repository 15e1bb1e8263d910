//! The log of a rank, on request: rank 0 shows progress, and what the others do is seen where `RLT_RANK_LOG` names a folder.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rlt::progress::Progress;
use rlt::{Error, Result};
use rlt_ranks::Ranks;

/// Lines of one rank, each after the seconds since it began.
pub struct RankLog {
    file: Mutex<File>,
    started: Instant,
}

impl RankLog {
    /// The log of this rank in the folder that the environment names, `rank-3.log`, which grows from run to run; none where it
    /// names none.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn of(ranks: &Ranks) -> Result<Option<Self>> {
        let Some(folder) = std::env::var_os("RLT_RANK_LOG").filter(|folder| !folder.is_empty()) else {
            return Ok(None);
        };
        let (folder, name) = (PathBuf::from(folder), format!("rank-{}.log", ranks.rank()));
        let path = folder.join(name);
        let file = std::fs::create_dir_all(&folder)
            .and_then(|()| OpenOptions::new().create(true).append(true).open(&path));
        let file = file.map_err(|source| Error::Io { path, source })?;
        let log = Self { file: Mutex::new(file), started: Instant::now() };
        log.line(&format!("{}, process {}", ranks.place(), std::process::id()));
        Ok(Some(log))
    }

    /// Writes a line. A log that cannot be written is no reason to stop the work.
    pub fn line(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        let text = super::visible::line(text);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        drop(file.write_all(format!("{seconds:10.3} {text}\n").as_bytes()));
    }
}

impl Progress for RankLog {
    fn start(&self, stage: &str, total: u64, unit: &str) {
        self.line(&format!("{stage}: {total} {unit}"));
    }

    fn advance(&self, n: u64, message: &str) {
        self.line(&format!("{n} done: {message}"));
    }

    fn finish(&self, message: &str) {
        self.line(&format!("finished: {message}"));
    }

    fn note(&self, line: &str) {
        self.line(line);
    }

    fn warn(&self, line: &str) {
        self.line(&format!("warning: {line}"));
    }
}
