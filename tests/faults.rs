//! What can go wrong while a run is left alone: a full disk, a directory that cannot be written, a damaged checkpoint,
//! poisoned numbers, signals at every stage, a second run. Each ends in one clear line, nothing is lost, and once it is
//! mended the same command ends with the files of a run that nothing happened to.
#![cfg(unix)]

mod outcome;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use outcome::{Outcome, assert_same, outcome};
use rlt_engine::Tensor;
use rlt_model::Decoder;

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests");

/// The commands of these tests: a second or so of work each.
const SFT: &[&str] = &["sft", "short-sft.toml", "sft.epochs=1", "eval.every=0"];
const TRAIN: &[&str] = &[
    "train",
    "short-rl.toml",
    "grpo.steps=12",
    "grpo.questions_per_step=3",
    "grpo.group_size=4",
    "eval.every=0",
];

/// A command line in `run_dir`, with `more` at its end, after `before` (a shell's words).
fn command(before: &str, work: &[&str], run_dir: &Path, more: &[String]) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{before} exec \"$@\""))
        .arg("sh")
        .arg(assert_cmd::cargo::cargo_bin!("rlt"))
        .args(["-q", work[0], "--config"])
        .arg(format!("{CONFIGS}/{}", work[1]))
        .args(&work[2..])
        .arg(format!("run_dir={}", run_dir.display()))
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn finish(work: &[&str], run_dir: &Path) {
    let output = command("", work, run_dir, &[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The one line of an error, with exit code 1.
fn error_line(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    lines[0].to_owned()
}

/// Starts the work and waits until `reached`.
fn start_until(work: &[&str], run_dir: &Path, reached: impl Fn() -> bool) -> Child {
    let mut child = command("", work, run_dir, &[]).spawn().unwrap();
    while !reached() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(Duration::from_micros(300));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// A run that a signal stopped after its second checkpoint.
fn stopped(work: &[&str], run_dir: &Path) {
    let mut child = start_until(work, run_dir, || run_dir.join("checkpoints/step-000006").exists());
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

struct Undisturbed {
    folder: tempfile::TempDir,
    outcome: Outcome,
}

/// A folder with the work done once, and what that left.
fn undisturbed(work: &[&str]) -> Undisturbed {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    finish(work, &whole);
    Undisturbed { outcome: outcome(&whole), folder }
}

impl Undisturbed {
    fn run_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn a_second_run_is_refused_and_a_dead_one_does_not_block() {
    let whole = undisturbed(SFT);
    let run_dir = whole.run_dir("run");
    let mut first = start_until(SFT, &run_dir, || run_dir.join("metrics.jsonl").exists());
    signal(&first, "STOP");
    let line = error_line(&command("", SFT, &run_dir, &[]).output().unwrap());
    let words = format!("another rlt (process {}) is working in this run directory", first.id());
    assert!(line.contains(&words), "{line}");
    first.kill().unwrap();
    first.wait().unwrap();
    finish(SFT, &run_dir);
    assert_same(&whole.outcome, &run_dir, "after a dead run");
}

/// No file may grow beyond so many blocks of 512 bytes: writes fail in the middle of a file, as on a full disk.
fn with_full_disk(blocks: usize) -> String {
    format!("trap '' XFSZ; ulimit -f {blocks};")
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint_and_the_rows() {
    for work in [SFT, TRAIN] {
        let whole = undisturbed(work);
        let run_dir = whole.run_dir("run");
        stopped(work, &run_dir);
        let size = |file: &str| fs::metadata(run_dir.join(file)).unwrap().len() as usize / 512;
        // No room for a longer file of weights; for the moments, which are twice that.
        let weights = size("checkpoints/step-000006/model.safetensors");
        let mut faults = vec![(weights / 2, "model.safetensors"), (weights + 8, "optimizer.safetensors")];
        // No room for the rows that are there, where they are more than the configuration.
        let config = size("config.toml") + 1;
        if size("metrics.jsonl") > config {
            faults.push((config, "metrics.jsonl"));
        }
        for (blocks, file) in faults {
            let line = error_line(&command(&with_full_disk(blocks), work, &run_dir, &[]).output().unwrap());
            assert!(line.contains(file) && line.contains("File too large"), "{line}");
            let next = "is whole: once this is fixed, the same command continues from it";
            assert!(line.contains("the last checkpoint, ") && line.ends_with(next), "{line}");
        }
        finish(work, &run_dir);
        assert_same(&whole.outcome, &run_dir, "after a full disk");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let line = error_line(&command("", SFT, &file.join("run"), &[]).output().unwrap());
    assert!(line.contains("file/run: Not a directory"), "{line}");

    // The place of a checkpoint is taken.
    let whole = undisturbed(SFT);
    let run_dir = whole.run_dir("run");
    stopped(SFT, &run_dir);
    let blocked = run_dir.join("checkpoints/.unfinished-step-000008");
    fs::write(&blocked, "").unwrap();
    let line = error_line(&command("", SFT, &run_dir, &[]).output().unwrap());
    assert!(line.contains(".unfinished-step-000008: Not a directory"), "{line}");
    assert!(line.contains("the last checkpoint, "), "{line}");
    fs::remove_file(&blocked).unwrap();
    finish(SFT, &run_dir);
    assert_same(&whole.outcome, &run_dir, "after a blocked directory");
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let whole = undisturbed(TRAIN);
    let run_dir = whole.run_dir("run");
    stopped(TRAIN, &run_dir);
    let checkpoints = || {
        let entries = fs::read_dir(run_dir.join("checkpoints")).unwrap();
        let mut names: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    let mut damaged = Vec::new();
    // First the newest, then every one there is.
    while let Some(newest) = checkpoints().into_iter().rev().find(|path| !damaged.contains(path)) {
        let path = newest.join("optimizer.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(path, bytes).unwrap();
        damaged.push(newest);
    }
    // Warnings of this weight are said with -q, too.
    let output = command("", TRAIN, &run_dir, &[]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for path in &damaged {
        let warning = format!("warning: {}: damaged checkpoint passed over", path.display());
        assert!(stderr.contains(&warning), "{stderr}");
    }
    assert_same(&whole.outcome, &run_dir, "after damage");
}

#[test]
fn a_signal_at_any_stage_saves_and_the_same_command_goes_on() {
    for work in [SFT, TRAIN] {
        let whole = undisturbed(work);
        type Reached = fn(&Path) -> bool;
        let stages: [(&str, Reached); 5] = [
            ("making the world", |run_dir| run_dir.join(".rlt-run").exists()),
            ("loading", |run_dir| run_dir.join("world").exists()),
            ("in a step", |run_dir| run_dir.join("checkpoints/step-000003").exists()),
            ("saving", |run_dir| {
                let checkpoints = run_dir.join("checkpoints");
                // A save may be too quick to be seen.
                [".unfinished-step-000006", "step-000006"].iter().any(|name| checkpoints.join(name).exists())
            }),
            ("writing the model", |run_dir| run_dir.join("model").exists()),
        ];
        for (index, (stage, reached)) in stages.into_iter().enumerate() {
            let run_dir = whole.run_dir(&index.to_string());
            let child = start_until(work, &run_dir, || reached(&run_dir));
            signal(&child, if index % 2 == 0 { "TERM" } else { "INT" });
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.signal(), None, "{stage}: {stderr}");
            // With nothing left to do but the last files, it is done.
            if output.status.code() == Some(130) {
                assert!(stderr.contains("the same command"), "{stage}: {stderr}");
            } else {
                assert!(output.status.success() && index == 4, "{stage}: {stderr}");
            }
            finish(work, &run_dir);
            assert_same(&whole.outcome, &run_dir, stage);
        }
    }
}

/// A copy of the model folder `from` whose final norm is not a number.
fn poisoned_model(from: &Path, to: &Path) {
    let mut decoder = Decoder::load(from).unwrap();
    let norm = &mut decoder.parameters_mut().final_norm;
    *norm = Tensor::full(norm.rows(), norm.cols(), f32::NAN);
    decoder.save(to).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_poisoned_number_stops_the_run_before_the_update_and_can_be_replayed() {
    for (work, key, says) in [
        (TRAIN, "model.student", "step 1, row "),
        (TRAIN, "model.path", "step 1, row "),
        (SFT, "model.path", "step 1, row "),
    ] {
        let whole = undisturbed(work);
        let poisoned = whole.run_dir("poisoned");
        poisoned_model(&whole.run_dir("whole/world/model"), &poisoned);
        let run_dir = whole.run_dir("run");
        let more = [format!("{key}={}", poisoned.display())];
        let line = error_line(&command("", work, &run_dir, &more).output().unwrap());
        assert!(line.contains(says), "{line}");
        let file = run_dir.join("failed/step-000001/batch.json");
        assert!(line.ends_with(&format!("the batch is kept: rlt replay {}", file.display())), "{line}");
        assert!(!run_dir.join("checkpoints").exists() && !run_dir.join("model").exists());

        let replay =
            Command::new(assert_cmd::cargo::cargo_bin!("rlt")).arg("replay").arg(&file).output().unwrap();
        assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
        let answer = String::from_utf8(replay.stdout).unwrap();
        assert!(answer.contains("not finite"), "{answer}");
    }
}
