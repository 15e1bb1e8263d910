//! Stages of one seed: each has a folder, is done once, and says how long it took.
//!
//! A stage that is complete has a `stage.json` with its settings, its result and its time. Asked for again it only
//! reads that; asked for with other settings it refuses. A training stage that was interrupted goes on from its
//! checkpoint, any other begins again; either way the result is that of an uninterrupted run. Two recipes that ask for the
//! same stage at the same time get the one result: the second waits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rlt_files::{MOST_DESCRIPTION, write_atomic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::scale::Scale;
use crate::miniature::Miniature;
use rlt_method::config::Config;
use rlt_method::error::{Error, Result};
use rlt_method::progress::Progress;

/// What a stage does: its kind decides how long others of it are expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Writes rows.
    Rows,
    /// Trains a base model from random weights.
    Base,
    /// Warms up a teacher or distils a student.
    Sft,
    /// GRPO.
    Rl,
    /// Writes explanations, or scores them.
    Traces,
    /// Answers held-out questions.
    Evaluation,
}

impl StageKind {
    /// Seconds that a stage of this kind takes on two cores, until one has been timed.
    fn guess_s(self) -> f64 {
        match self {
            Self::Rows => 1.0,
            Self::Base => 70.0,
            Self::Sft => 10.0,
            Self::Rl => 40.0,
            Self::Traces => 8.0,
            Self::Evaluation => 6.0,
        }
    }
}

/// The content of `stage.json`.
#[derive(Serialize, Deserialize)]
struct Done<T> {
    kind: StageKind,
    /// Everything that decides the result.
    settings: String,
    /// Of the last attempt.
    wall_s: f64,
    /// Processor time of all threads in the last attempt, where the system tells.
    cpu_s: Option<f64>,
    result: T,
}

/// How long a stage took.
#[derive(Debug, Clone, PartialEq)]
pub struct StageTime {
    /// `seed-1/base`.
    pub name: String,
    /// What it does.
    pub kind: StageKind,
    /// Wall time, seconds.
    pub wall_s: f64,
    /// Processor time, seconds.
    pub cpu_s: Option<f64>,
}

/// Which stages there are, which are done, and how long they took.
pub struct Ledger {
    /// How many stages are done at the same time.
    at_once: usize,
    /// While true, stages are only listed.
    planning: AtomicBool,
    /// Whether no more stages begin.
    closed: AtomicBool,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    planned: BTreeMap<String, StageKind>,
    done: BTreeSet<String>,
    times: Vec<StageTime>,
    /// Whoever works on a stage holds its lock.
    locks: BTreeMap<String, Arc<Mutex<()>>>,
}

impl Ledger {
    /// An empty one, of stages of which so many are done at the same time.
    pub fn new(at_once: usize) -> Self {
        let (planning, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { at_once, planning, closed, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no more stages begin: something has failed.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Calls `recipes` for the list of their stages; nothing is run, and what they return is made from nothing.
    ///
    /// # Errors
    /// What `recipes` reports.
    pub fn plan(&self, recipes: impl FnOnce() -> Result<()>) -> Result<()> {
        self.planning.store(true, Ordering::SeqCst);
        let result = recipes();
        self.planning.store(false, Ordering::SeqCst);
        result
    }

    /// The time of every stage that is done, in the order in which they ended.
    pub fn times(&self) -> Vec<StageTime> {
        self.entries().times.clone()
    }

    /// How many stages are done, and how many are planned.
    pub fn counts(&self) -> (usize, usize) {
        let entries = self.entries();
        (entries.done.len(), entries.planned.len())
    }

    /// Seconds that the stages left will take: each as long as the same stage did under other seeds, else as the middle one of its
    /// kind. (A mean would be that of the few long ones that come first.)
    fn seconds_left(&self) -> f64 {
        let Entries { planned, done, times, .. } = &*self.entries();
        let of_name = medians(times.iter().map(|timed| (without_seed(&timed.name), timed.wall_s)));
        let of_kind = medians(times.iter().map(|timed| (timed.kind, timed.wall_s)));
        let expected = |name: &str, kind: StageKind| {
            let known = of_name.get(without_seed(name)).or_else(|| of_kind.get(&kind));
            known.copied().unwrap_or_else(|| kind.guess_s())
        };
        let left = planned.iter().filter(|(name, _)| !done.contains(*name));
        left.map(|(name, &kind)| expected(name, kind)).sum::<f64>() / self.at_once as f64
    }

    fn record(&self, timed: StageTime) {
        let entries = &mut *self.entries();
        if entries.done.insert(timed.name.clone()) {
            entries.times.push(timed);
        }
    }

    /// What whoever works on stage `key` holds.
    fn lock_of(&self, key: &str) -> Arc<Mutex<()>> {
        self.entries().locks.entry(key.to_owned()).or_default().clone()
    }
}

/// `base` of `seed-1/base`.
fn without_seed(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, stage)| stage)
}

/// The middle one of every key's values, the upper of two.
fn medians<K: Ord>(values: impl Iterator<Item = (K, f64)>) -> BTreeMap<K, f64> {
    let mut all: BTreeMap<K, Vec<f64>> = BTreeMap::new();
    for (key, value) in values {
        all.entry(key).or_default().push(value);
    }
    let middle = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    all.into_iter().map(|(key, of)| (key, middle(of))).collect()
}

/// The stages of one seed.
pub struct SeedWork<'a> {
    /// The stages' folder, seed and watchers.
    pub miniature: Miniature<'a>,
    /// How much of everything.
    pub scale: &'a Scale,
    /// What is done.
    pub ledger: &'a Ledger,
    /// Who is told that a stage begins.
    pub progress: &'a dyn Progress,
}

impl SeedWork<'_> {
    /// The folder of stage `name`.
    pub fn at(&self, name: &str) -> PathBuf {
        self.miniature.dir.join(name)
    }

    /// Whether stages are only listed.
    pub fn is_planning(&self) -> bool {
        self.ledger.planning.load(Ordering::SeqCst)
    }

    /// The result of stage `name`: from its folder when it is complete, else by `run`, which gets the folder.
    /// `settings` holds everything that decides the result.
    ///
    /// # Errors
    /// [`Error::Usage`] when the stage is complete with other settings, [`Error::Interrupted`] when the watcher
    /// asks for an end, and what `run` and the file system report.
    pub fn stage<T: Default + Serialize + DeserializeOwned>(
        &self,
        kind: StageKind,
        name: &str,
        settings: &str,
        run: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let key = format!("seed-{}/{name}", self.miniature.seed);
        if self.ledger.planning.load(Ordering::SeqCst) {
            self.ledger.entries().planned.insert(key, kind);
            return Ok(T::default());
        }
        let lock = self.ledger.lock_of(&key);
        let _ours = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.at(name);
        let file = folder.join("stage.json");
        // A stage means the same wherever the runs are kept.
        let settings = settings.replace(&*self.miniature.dir.to_string_lossy(), "WORK");
        if let Some(done) = read_done::<T>(&file)? {
            if !means_the_same(&done.settings, &settings) {
                return Err(Error::Usage(format!(
                    "{}: made with other settings ({}); name another --run-dir, or remove it",
                    folder.display(),
                    first_difference(&done.settings, &settings)
                )));
            }
            self.ledger.record(StageTime { name: key, kind, wall_s: done.wall_s, cpu_s: done.cpu_s });
            return Ok(done.result);
        }
        if self.miniature.stop.load(Ordering::SeqCst) || self.ledger.closed.load(Ordering::SeqCst) {
            return Err(Error::Interrupted("the same command continues".into()));
        }
        let (n_done, n_planned) = self.ledger.counts();
        let minutes = self.ledger.seconds_left() / 60.0;
        self.progress.note(&format!("[{} of {n_planned}] {key}; about {minutes:.0} min left", n_done + 1));
        fs::create_dir_all(&folder).map_err(|source| Error::Io { path: folder.clone(), source })?;
        let (started, cpu) = (Instant::now(), processor_seconds());
        let result = run(&folder)?;
        let wall_s = started.elapsed().as_secs_f64();
        let cpu_s = processor_seconds().zip(cpu).map(|(now, then)| now - then);
        let done = Done { kind, settings, wall_s, cpu_s, result };
        let text = serde_json::to_string_pretty(&done).map_err(|e| Error::Failed(e.to_string()))?;
        write_atomic(&file, text.as_bytes())?;
        self.ledger.record(StageTime { name: key, kind, wall_s, cpu_s });
        Ok(done.result)
    }
}

fn read_done<T: DeserializeOwned>(file: &Path) -> Result<Option<Done<T>>> {
    let text = match rlt_files::read_text(file, MOST_DESCRIPTION) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path: file.to_owned(), source }),
    };
    let what = |e| Error::File { path: file.to_owned(), what: format!("not a stage ({e}); remove it") };
    serde_json::from_str(&text).map(Some).map_err(what)
}

/// Whether what a stage was made with is what is asked for. A later build knows more keys: those that only it has, and that have
/// their defaults, change nothing.
fn means_the_same(was: &str, is: &str) -> bool {
    if was == is {
        return true;
    }
    let defaults = Config::default().to_toml().unwrap_or_default();
    let [was, is, defaults] = [was, is, &defaults].map(lines_of_tables);
    was.is_subset(&is) && is.difference(&was).all(|line| defaults.contains(line))
}

/// The lines of some TOML, each with the heading of its table.
fn lines_of_tables(text: &str) -> BTreeSet<(String, String)> {
    let mut table = "";
    let mut lines = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if line.starts_with('[') {
            table = line;
        } else {
            lines.insert((table.to_owned(), line.to_owned()));
        }
    }
    lines
}

/// The first line in which two texts differ.
fn first_difference(was: &str, is: &str) -> String {
    let pairs = was.lines().zip(is.lines());
    let differing = pairs.into_iter().find(|(was, is)| was != is);
    differing.map_or_else(|| "more or fewer of them".into(), |(was, is)| format!("`{was}`, now `{is}`"))
}

/// Processor time so far, seconds, of this process or, on one of a pool's threads, of the pool; Linux only.
fn processor_seconds() -> Option<f64> {
    if rayon::current_thread_index().is_none() {
        return seconds_of("self");
    }
    rayon::broadcast(|_| seconds_of("thread-self")).into_iter().sum()
}

fn seconds_of(process: &str) -> Option<f64> {
    /// Of /proc on every common Linux.
    const TICKS_PER_S: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in brackets may hold spaces; utime and stime are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use rlt_method::progress::Silent;

    #[test]
    fn a_stage_runs_once_and_refuses_other_settings() {
        let dir = tempfile::tempdir().unwrap();
        let (stop, ledger, scale) = (AtomicBool::new(false), Ledger::new(1), Scale::tiny());
        let miniature =
            Miniature { dir: dir.path(), seed: 3, progress: &Silent, stop: &stop, pretrained: None };
        let work = SeedWork { miniature, scale: &scale, ledger: &ledger, progress: &Silent };
        let runs = AtomicUsize::new(0);
        let n_runs = || runs.load(Ordering::SeqCst);
        let stage = |settings: &str| {
            work.stage(StageKind::Rows, "a", settings, |_| {
                runs.fetch_add(1, Ordering::SeqCst);
                Ok(7)
            })
        };
        ledger.plan(|| stage("x = 1").map(drop)).unwrap();
        assert_eq!((n_runs(), ledger.counts()), (0, (0, 1)));
        // Asked for by two at the same time, and once more.
        std::thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| stage("x = 1").unwrap()));
            assert_eq!(both.map(|one| one.join().unwrap()), [7, 7]);
        });
        assert_eq!(stage("x = 1").unwrap(), 7);
        assert_eq!(n_runs(), 1);
        assert_eq!(ledger.times().len(), 1);
        let error = stage("x = 2").unwrap_err().to_string();
        assert!(error.contains("(`x = 1`, now `x = 2`)"), "{error}");
        let begins = || work.stage(StageKind::Rows, "b", "", |_| Ok(())).is_ok();
        ledger.close();
        assert!(!begins());
        ledger.closed.store(false, Ordering::SeqCst);
        stop.store(true, Ordering::SeqCst);
        let new = work.stage(StageKind::Rows, "b", "", |_| Ok(()));
        assert!(matches!(new, Err(Error::Interrupted(_))));
        stop.store(false, Ordering::SeqCst);
        assert!(begins());
    }

    #[test]
    fn what_is_left_takes_as_long_as_under_other_seeds_or_as_the_middle_of_its_kind() {
        let ledger = Ledger::new(2);
        for (name, kind) in [
            ("seed-1/teacher", StageKind::Sft),
            ("seed-1/student-a", StageKind::Sft),
            ("seed-1/student-b", StageKind::Sft),
            ("seed-1/rlt", StageKind::Rl),
            ("seed-2/teacher", StageKind::Sft),
            ("seed-2/student-c", StageKind::Sft),
        ] {
            ledger.entries().planned.insert(name.into(), kind);
        }
        for (name, wall_s) in [("teacher", 60.0), ("student-a", 10.0), ("student-b", 12.0)] {
            ledger.record(StageTime {
                name: format!("seed-1/{name}"),
                kind: StageKind::Sft,
                wall_s,
                cpu_s: None,
            });
        }
        // RL that nobody has timed, the teacher again, and a student like the middle of three.
        assert_eq!(ledger.seconds_left(), (StageKind::Rl.guess_s() + 60.0 + 12.0) / 2.0);
    }

    #[test]
    fn keys_of_a_later_build_at_their_defaults_change_nothing() {
        let is = Config::default().to_toml().unwrap() + "2 samples";
        let without = |word: &str| {
            is.lines()
                .filter(|line| !line.starts_with(word))
                .flat_map(|line| [line, "\n"])
                .collect::<String>()
        };
        let (before, table) = is.split_once("[distill]").unwrap();
        let without_table = format!("{before}{}", &table[table.find("\n[").unwrap() + 1..]);
        assert!(means_the_same(&is, &is));
        assert!(means_the_same(&without_table, &is), "a table");
        assert!(means_the_same(&without("alpha"), &is), "a key");
        assert!(
            !means_the_same(&without("alpha"), &is.replace("alpha = 0.01", "alpha = 0.1")),
            "not its default"
        );
        assert!(!means_the_same(&is, &is.replace("alpha = 0.01", "alpha = 0.1")), "another value");
        assert!(!means_the_same(&is, &without("alpha")), "a key that is no more");
        assert!(!means_the_same(&is, &is.replace("2 samples", "3 samples")), "what is no key");
    }

    #[test]
    fn processor_time_grows() {
        if let Some(before) = processor_seconds() {
            assert!(processor_seconds().is_some_and(|after| after >= before));
        }
    }
}
