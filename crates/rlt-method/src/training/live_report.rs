//! The page of a run that is still going, so that it can be watched.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::progress::Progress;

/// Least time between two pages.
const LEAST_PAUSE: Duration = Duration::from_secs(20);
/// A page may take one part in this many of a run's time.
const SHARE: u32 = 50;

/// When the page was written last, and when it is again.
#[derive(Debug)]
pub struct LiveReport {
    next: Instant,
    has_warned: bool,
}

impl LiveReport {
    /// Of a run that begins, or goes on, now.
    pub fn new(now: Instant) -> Self {
        Self { next: now + LEAST_PAUSE, has_warned: false }
    }

    /// Writes the page of `run_dir`, if that is due after a step. A page that cannot be written is no reason to end a
    /// run: it is told once.
    pub fn after_step(
        &mut self,
        run_dir: &Path,
        write_report: fn(&Path) -> Result<PathBuf>,
        progress: &dyn Progress,
        now: Instant,
    ) {
        if now < self.next {
            return;
        }
        let started = Instant::now();
        if let Err(error) = write_report(run_dir)
            && !self.has_warned
        {
            self.has_warned = true;
            progress.warn(&format!("the report of the steps so far cannot be written: {error}"));
        }
        self.next = now + LEAST_PAUSE.max(SHARE * started.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

    use super::*;
    use crate::error::Error;

    /// Keeps warnings.
    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);

    impl Progress for Warnings {
        fn start(&self, _: &str, _: u64, _: &str) {}
        fn advance(&self, _: u64, _: &str) {}
        fn finish(&self, _: &str) {}
        fn note(&self, _: &str) {}
        fn warn(&self, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
    }

    #[test]
    fn a_page_is_written_now_and_then_and_its_failure_told_once() {
        let (dir, watcher, start) = (tempfile::tempdir().unwrap(), Warnings::default(), Instant::now());
        let mut report = LiveReport::new(start);
        let write: fn(&Path) -> Result<PathBuf> = |dir| {
            let path = dir.join("report.html");
            let n = fs::read_to_string(&path).unwrap_or_default().len();
            fs::write(&path, "x".repeat(n + 1)).unwrap();
            Ok(path)
        };
        for seconds in 0..=60 {
            report.after_step(dir.path(), write, &watcher, start + Duration::from_secs(seconds));
        }
        assert_eq!(fs::read_to_string(dir.path().join("report.html")).unwrap(), "xxx");
        let fail: fn(&Path) -> Result<PathBuf> = |_| Err(Error::Failed("no room".into()));
        for minutes in 2..5 {
            report.after_step(dir.path(), fail, &watcher, start + Duration::from_secs(60 * minutes));
        }
        assert_eq!(*watcher.0.lock().unwrap(), ["the report of the steps so far cannot be written: no room"]);
    }
}
