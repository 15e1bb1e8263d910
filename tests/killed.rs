//! `kill -9` while a run saves: what is left is always a whole checkpoint and a log that goes on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rlt::checkpoint::{CheckpointStore, Keep};
use rlt::run_log::{RunLog, read_rows};
use rlt_files::OwnedFolder;
use serde_json::json;

/// Where the child of [`a_killed_run_leaves_whole_files`] works. Absent in an ordinary test run.
const RUN_DIR: &str = "RLT_TEST_KILLED_RUN_DIR";

/// A run in small: it resumes, then logs and saves until somebody kills it. State is the step itself.
fn run(run_dir: &Path) {
    let _lock = OwnedFolder::open(run_dir, "run", |_| false).unwrap();
    let store = CheckpointStore::new(run_dir.join("checkpoints"), Keep::last(2));
    let latest = store.latest_good().unwrap();
    assert!(latest.warnings.is_empty(), "{:?}", latest.warnings);
    let resume_step = latest.checkpoint.map(|checkpoint| checkpoint.step);
    let mut log = RunLog::create_or_resume(run_dir, resume_step).unwrap();
    for step in resume_step.unwrap_or(0) + 1.. {
        let metrics = json!({"loss": 1.0 / step as f64});
        log.log(step, metrics.as_object().unwrap()).unwrap();
        log.samples(step, &[json!({"step": step})]).unwrap();
        log.sync().unwrap();
        store
            .save(step, |folder| {
                for name in ["a", "b"] {
                    std::fs::write(folder.join(name), vec![step as u8; 200_000]).unwrap();
                }
                Ok(())
            })
            .unwrap();
    }
}

/// Not a test of its own: the body of the process that is killed.
#[test]
fn child() {
    if let Some(run_dir) = std::env::var_os(RUN_DIR) {
        run(Path::new(&run_dir));
    }
}

#[test]
fn a_killed_run_leaves_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(dir.path().join("checkpoints"), Keep::last(2));
    let mut last_step = 0;
    for round in 0..8u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env(RUN_DIR, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Long enough to save something, then at ever another moment of a save.
        while store.latest_good().unwrap().checkpoint.is_none_or(|checkpoint| checkpoint.step <= last_step) {
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(1700 * round));
        child.kill().unwrap();
        child.wait().unwrap();

        let latest = store.latest_good().unwrap();
        assert!(latest.warnings.is_empty(), "{:?}", latest.warnings);
        last_step = latest.checkpoint.unwrap().step;
        let rows = read_rows(&dir.path().join("metrics.jsonl")).unwrap();
        let steps: Vec<u64> = rows.iter().map(|row| row["step"].as_u64().unwrap()).collect();
        assert!(steps.iter().copied().eq(1..=steps.len() as u64), "{steps:?}");
        assert!(steps.len() as u64 >= last_step, "no checkpoint without its rows");
    }
}
