//! Memory that runs out: whatever the limit, a command ends in one clear line and exit code 1, or does its work. It never
//! waits for ever, prints a panic or dies by a signal.
//!
//! `RLT_TEST_MEMORY=100 cargo test --test memory_limits` tries 100 random limits; without it, it is 8.
#![cfg(target_os = "linux")]

mod emulated;
mod scripted;

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use emulated::under_emulation;

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests");

/// Far beyond what the slowest of the commands takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two models, rows to score, and answers to grade.
fn inputs(dir: &Path) {
    scripted::write_random_model(&dir.join("model"), 512);
    scripted::write_random_model(&dir.join("student"), 512);
    let rows: Vec<String> = (0..200)
        .map(|i| {
            let explanation = "First look at the eggs, then add. ".repeat(1 + i * 7 % 5);
            format!(
                r#"{{"id":{i},"question":"Tom has {i} eggs. How many?","solution":"Tom has {i} eggs.","answer":"{i}","gold":"{i}","prediction":"So \\boxed{{{i}}}","completion":"{explanation}<|end_of_explanation|>"}}"#
            )
        })
        .collect();
    fs::write(dir.join("rows.jsonl"), rows.join("\n")).unwrap();
}

/// The commands, each for a second or so.
fn commands() -> [Vec<String>; 4] {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut train = words("train --config");
    train.push(format!("{CONFIGS}/short-rl.toml"));
    train.extend(words("run_dir=run grpo.steps=3 eval.every=2"));
    [
        train,
        words("score --teacher model --student student --data rows.jsonl --out out.jsonl"),
        words(
            "eval --task market --model model --out out.json -n 2 --max-questions 50 sampling.max_new_tokens=32",
        ),
        words("grade --data rows.jsonl --out out.jsonl"),
    ]
}

/// What a command gives under a limit of `kib` on its address space; none where it did not end.
fn limited(dir: &Path, kib: u64, arguments: &[String]) -> Option<Output> {
    let (out, err) = (dir.join("stdout"), dir.join("stderr"));
    let file = |path: &Path| Stdio::from(fs::File::create(path).unwrap());
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -v {kib}; exec \"$@\""), "sh"])
        .arg(assert_cmd::cargo::cargo_bin!("rlt"))
        .arg("-q")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Some(Output { status, stdout: fs::read(out).unwrap(), stderr: fs::read(err).unwrap() })
}

/// What is wrong with how a command ended, if anything.
fn fault(output: Option<Output>) -> Option<String> {
    let Some(output) = output else { return Some("did not end".into()) };
    let stderr = String::from_utf8_lossy(&output.stderr);
    let is_clear = stderr.starts_with("error: ") && stderr.lines().count() == 1;
    let is_fault = stderr.contains("a fault in rlt") || stderr.contains("panicked");
    match output.status.code() {
        Some(0) => None,
        Some(1) if is_clear && !is_fault => None,
        _ => Some(format!("{:?}, signal {:?}: {stderr}", output.status.code(), output.status.signal())),
    }
}

/// Limits from 30 MB to 1 GB, each order of magnitude as often as another.
fn limits(n: u64) -> impl Iterator<Item = u64> {
    let seed = std::env::var("RLT_TEST_SEED").ok().map_or(7, |seed| seed.parse().expect("a seed"));
    let stream = rlt_engine::random::RandomStream::new(seed, "memory limits");
    (0..n).map(move |i| (30_000.0 * (1e6_f64 / 30e3).powf(stream.uniform([i, 0, 0], 0))) as u64)
}

#[test]
fn memory_that_runs_out_ends_in_one_line() {
    if under_emulation("its own memory counts against the limit") {
        return;
    }
    let n = std::env::var("RLT_TEST_MEMORY").ok().map_or(8, |n| n.parse().expect("a number of limits"));
    let commands = commands();
    let (mut faults, mut done) = (Vec::new(), 0);
    for (limit, command) in limits(n).zip(commands.iter().cycle()) {
        let dir = tempfile::tempdir().unwrap();
        inputs(dir.path());
        let output = limited(dir.path(), limit, command);
        done += u64::from(output.as_ref().is_some_and(|output| output.status.success()));
        faults.extend(fault(output).map(|fault| format!("{} under {limit} KiB: {fault}", command[0])));
    }
    assert!(faults.is_empty(), "{} of {n}:\n{}", faults.len(), faults.join("\n"));
    writeln!(std::io::stdout(), "{done} of {n} did their work, the others ended in one line").unwrap();
}

#[test]
fn every_command_works_where_there_is_memory() {
    if under_emulation("its own memory counts against the limit") {
        return;
    }
    for command in commands() {
        let dir = tempfile::tempdir().unwrap();
        inputs(dir.path());
        let output = limited(dir.path(), 4_000_000, &command).expect("it ends");
        assert!(output.status.success(), "{}: {}", command[0], String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn threads_beyond_reason_are_fewer_and_do_the_same() {
    if under_emulation("its own memory counts against the limit") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let grade = |more: &[&str]| {
        let mut command: Vec<String> = more.iter().map(|&word| word.to_owned()).collect();
        command.extend(commands()[3].clone());
        let output = limited(dir.path(), 4_000_000, &command).expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(dir.path().join("out.jsonl")).unwrap()
    };
    assert_eq!(grade(&["--threads", "65535"]), grade(&[]));
    let output = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["--threads", "65535", "grade", "--data", "rows.jsonl", "--out", "out.jsonl"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("65535 threads are too many"), "{stderr}");
}
