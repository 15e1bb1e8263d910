//! Folders with files of the user's in them, under names that rlt uses too: whatever is started there, and whenever it
//! is killed, no byte of a file that rlt did not make changes.
//!
//! `RLT_TEST_FOLDERS=200 cargo test --test folders` tries so many folders (without the variable a few);
//! `RLT_TEST_BINARY` names another rlt to try.
#![cfg(unix)]

mod scripted;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Folders without the variable.
const FEW: u64 = 6;

/// Longest that a command may take before it counts as one that hangs.
const LONGEST: Duration = Duration::from_secs(600);

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests");

/// Names that rlt writes in run directories and beside outputs, and some that only look like it.
const NAMES: [&str; 40] = [
    "README.md",
    "config.toml",
    "metrics.jsonl",
    "report.html",
    "demo.json",
    "times.csv",
    "index.html",
    ".lock",
    ".rlt-run",
    "out_questions.jsonl",
    "out.html",
    ".out.jsonl.tmp",
    ".out.jsonl.partial",
    ".out.jsonl.state",
    ".out.json.partial.jsonl",
    "out.jsonl.rows",
    ".config.toml.tmp",
    "model/config.json",
    "model/README.md",
    "model/model.safetensors",
    "adapter/adapter_config.json",
    "best/step-000001/model.safetensors",
    "samples/step-000001.jsonl",
    "samples/mine.jsonl",
    "tb/events.out.tfevents.1",
    "failed/step-000001/batch.json",
    "checkpoints/step-000001/state.json",
    "checkpoints/step-000002/checksums.json",
    "checkpoints/.unfinished-step-000003/half",
    "checkpoints/notes",
    "world/questions_train.jsonl",
    "world/model/config.json",
    ".unfinished-model/model.safetensors",
    ".unfinished-world/x",
    ".unfinished-notes/x",
    "base/config.toml",
    "base/metrics.jsonl",
    "rlt/model/config.json",
    "evaluations/eval-base.json",
    "traces_rlt.jsonl",
];

/// A small generator (Knuth's MMIX constants).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// What stood under a path: a file's bytes, or a link's target.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    File(Vec<u8>),
    Link(PathBuf),
}

fn entry(path: &Path) -> Option<Entry> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if metadata.is_symlink() {
        return Some(Entry::Link(fs::read_link(path).unwrap()));
    }
    // A folder in its place: the file is gone.
    fs::read(path).ok().map(Entry::File)
}

/// The files of the user's, by path.
#[derive(Default)]
struct Users(BTreeMap<PathBuf, Entry>);

impl Users {
    /// Puts a file there, unless something is there or in the way.
    fn put(&mut self, path: &Path, text: &str) {
        let free = fs::symlink_metadata(path).is_err();
        if free && fs::create_dir_all(path.parent().unwrap()).is_ok() && fs::write(path, text).is_ok() {
            self.0.insert(path.to_path_buf(), entry(path).unwrap());
        }
    }

    fn link(&mut self, path: &Path, target: &Path) {
        if symlink(target, path).is_ok() {
            self.0.insert(path.to_path_buf(), entry(path).unwrap());
        }
    }

    /// What has changed.
    fn lost(&self) -> Vec<String> {
        let changed = self.0.iter().filter(|(path, was)| entry(path).as_ref() != Some(was));
        changed.map(|(path, _)| path.display().to_string()).collect()
    }
}

fn rlt(args: &[String]) -> Command {
    let binary = std::env::var_os("RLT_TEST_BINARY");
    let mut command =
        Command::new(binary.unwrap_or_else(|| assert_cmd::cargo::cargo_bin!("rlt").as_os_str().to_owned()));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Waits, and ends it after `limit` with the signal of this name.
fn wait(mut child: Child, limit: Duration, signal: &str) -> (bool, String) {
    let started = Instant::now();
    let mut killed = false;
    while child.try_wait().unwrap().is_none() {
        if !killed && started.elapsed() >= limit {
            let id = child.id().to_string();
            assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
            killed = true;
        }
        if started.elapsed() > LONGEST {
            child.kill().unwrap();
            panic!("a command that does not end: process {}", child.id());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A command and what it writes to.
fn call(dice: &mut Dice, shared: &Path, folder: &Path) -> Vec<String> {
    let at = |path: PathBuf| path.display().to_string();
    let config = |name: &str| format!("--config={CONFIGS}/{name}");
    let run_dir = |path: &Path| format!("run_dir={}", path.display());
    let sub = folder.join("run");
    let small =
        ["world.rows=12", "world.hidden_size=32", "world.n_layers=1", "world.n_heads=2", "eval.every=2"];
    let mut args: Vec<String> = match dice.roll(9) {
        kind @ 0..=4 => {
            // In the folder itself, in one below it, in one that is not there yet.
            let dir = if kind % 2 == 0 { sub } else { folder.to_path_buf() };
            let work = if dice.roll(2) == 0 {
                vec![
                    "train".into(),
                    config("short-rl.toml"),
                    "grpo.steps=4".into(),
                    "grpo.group_size=2".into(),
                    "grpo.questions_per_step=2".into(),
                    "sampling.max_new_tokens=8".into(),
                    "checkpoint.every=1".into(),
                ]
            } else {
                vec![
                    "sft".into(),
                    config("short-sft.toml"),
                    "sft.epochs=1".into(),
                    "checkpoint.every=1".into(),
                ]
            };
            let mut args = work;
            args.extend(small.map(String::from));
            args.push(run_dir(&dir));
            if folder.join("model/config.json").exists() && dice.roll(3) == 0 {
                args.push(format!("model.path={}", folder.join("model").display()));
            }
            args
        }
        5 => vec!["demo".into(), "--run-dir".into(), at(if dice.roll(2) == 0 { sub } else { folder.into() })],
        6 => [
            "score",
            "--teacher",
            "MODEL",
            "--student",
            "MODEL",
            "--data",
            "ROWS",
            "--tokens-per-batch",
            "1000",
        ]
        .map(String::from)
        .into_iter()
        .chain(["--out".into(), at(folder.join("out.jsonl"))])
        .collect(),
        7 => [
            "eval",
            "--model",
            "MODEL",
            "--task",
            "market",
            "--max-questions",
            "8",
            "sampling.max_new_tokens=16",
            "sampling.max_running=1",
        ]
        .map(String::from)
        .into_iter()
        .chain(["--out".into(), at(folder.join("out.json"))])
        .collect(),
        _ => {
            let out = ["out.jsonl", "out.parquet"][dice.roll(2) as usize];
            [
                "explain",
                "--model",
                "MODEL",
                "--data",
                "ROWS",
                "sampling.max_new_tokens=16",
                "sampling.max_running=2",
            ]
            .map(String::from)
            .into_iter()
            .chain(["--out".into(), at(folder.join(out))])
            .collect()
        }
    };
    for arg in &mut args {
        match arg.as_str() {
            "MODEL" => *arg = at(shared.join("model")),
            "ROWS" => *arg = at(shared.join("rows.jsonl")),
            _ => {}
        }
    }
    args
}

#[test]
#[expect(clippy::print_stdout, reason = "says what was tried")]
fn no_file_of_the_users_changes_whatever_is_started_or_killed_beside_it() {
    let n = std::env::var("RLT_TEST_FOLDERS").ok().map_or(FEW, |n| n.parse().unwrap());
    let shared = tempfile::tempdir().unwrap();
    scripted::write_random_model(&shared.path().join("model"), 512);
    let rows: Vec<String> = (0..60)
        .map(|i| format!(r#"{{"question":"Tom has {i} eggs. How many?","solution":"Tom has {i} eggs.","completion":"Look.<|end_of_explanation|>"}}"#))
        .collect();
    fs::write(shared.path().join("rows.jsonl"), rows.join("\n")).unwrap();
    let (mut n_files, mut n_killed, mut n_done, mut n_refused) = (0, 0, 0, 0);
    let mut faults = Vec::new();
    for seed in 0..n {
        let dice = &mut Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x4d);
        dice.roll(2);
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let mut users = Users::default();
        for name in ["weights", "file", "folder/notes"] {
            users.put(&dir.path().join("elsewhere").join(name), &format!("{name} of {seed}\n"));
        }
        // One in six is empty, so that runs begin there, too.
        let n_names = if dice.roll(6) == 0 { 0 } else { 1 + dice.roll(6) };
        for _ in 0..n_names {
            let name = NAMES[dice.roll(NAMES.len() as u64) as usize];
            match dice.roll(5) {
                0 => users
                    .link(&folder.join(name.split('/').next().unwrap()), &dir.path().join("elsewhere/file")),
                1 if name.contains('/') => {
                    users.link(
                        &folder.join(name.split('/').next().unwrap()),
                        &dir.path().join("elsewhere/folder"),
                    );
                }
                _ => users.put(&folder.join(name), &format!("{{\"step\":1}}\n{seed} {name}\n")),
            }
        }
        let args = call(dice, shared.path(), &folder);
        // Killed, gone on with beside new files of the user's, and a last time to its end (a demo would take long).
        let kills = u64::from(seed % 2 == 0) * (1 + dice.roll(2));
        let mut told = String::new();
        for attempt in 0..=kills {
            let to_its_end = attempt == kills && args[0] != "demo";
            let limit = if to_its_end { LONGEST } else { Duration::from_millis(dice.roll(900)) };
            let signal = ["KILL", "TERM"][dice.roll(2) as usize];
            let (done, stderr) = wait(rlt(&args).spawn().unwrap(), limit, signal);
            assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
            n_killed += u64::from(!to_its_end);
            if to_its_end {
                n_done += u64::from(done);
                n_refused += u64::from(!done);
                told = stderr;
            }
            let run = ["run", "."]
                .map(|sub| folder.join(sub))
                .into_iter()
                .find(|run| run.join(".rlt-run").exists());
            for name in [
                "notes.txt",
                "model/README.md",
                "samples/mine",
                "checkpoints/mine",
                "world/mine",
                "best/mine",
            ] {
                let Some(run) = run.as_ref().filter(|_| dice.roll(3) == 0) else { continue };
                let path = run.join(name);
                if path.parent().unwrap().is_dir() {
                    users.put(&path, &format!("{seed} {attempt} {name}\n"));
                }
            }
        }
        let lost = users.lost();
        n_files += users.0.len();
        if !lost.is_empty() {
            faults.push(format!("folder {seed}: rlt {}: {lost:?}; it said: {told}", args.join(" ")));
        }
    }
    println!(
        "{n} folders, {n_files} files: {n_killed} kills, {n_done} done, {n_refused} ended with an error"
    );
    assert!(faults.is_empty(), "{} of {n} folders:\n{}", faults.len(), faults.join("\n"));
    assert!(
        n < 50 || (n_done > n / 10 && n_refused > n / 10),
        "too much of one: {n_done} done, {n_refused} refused"
    );
}
