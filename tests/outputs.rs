//! Where `--out` may lead, and what is left of it: never an input, never a device's place, nothing half-written, and
//! what was committed of long work stays.
#![cfg(unix)]

mod emulated;
mod scripted;

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use emulated::under_emulation;
use serde_json::json;

/// A folder with a model, rows that every command can read, a task and a configuration.
fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), 512);
    write_rows(&dir.path().join("rows.jsonl"), 3);
    let task = "name = \"mine\"\ntemplate = \"{question}\"\nanswer = \"gold\"\ndata = \"rows.jsonl\"\n";
    fs::write(dir.path().join("task.toml"), task).unwrap();
    fs::write(dir.path().join("config.toml"), "[sampling]\nmax_new_tokens = 8\n").unwrap();
    dir
}

fn write_rows(path: &Path, n: usize) {
    let rows: Vec<String> = (0..n)
        .map(|i| {
            json!({
                "question": format!("Tom has {i} eggs. How many?"), "solution": format!("Tom has {i} eggs."),
                "completion": "Look at the eggs. ".repeat(1 + i % 5) + "<|end_of_explanation|>",
                "gold": i.to_string(), "prediction": i.to_string(), "text": "Tom has eggs. ".repeat(9), "reward": 0.5,
                "messages": [{"role": "user", "content": "How many?"}],
            })
            .to_string()
        })
        .collect();
    fs::write(path, rows.join("\n")).unwrap();
}

/// Every command with an output, as it reads `rows.jsonl`.
const COMMANDS: [&str; 7] = [
    "select --data rows.jsonl --by best",
    "grade --data rows.jsonl",
    "render --model model --data rows.jsonl",
    "logprobs --model model --data rows.jsonl",
    "score --teacher model --student model --data rows.jsonl --config config.toml",
    "explain --model model --data rows.jsonl --config config.toml",
    "eval --model model --task rows.jsonl --config config.toml",
];

/// `rlt COMMAND --out OUT` in `dir`, after `before` (a shell's words).
fn rlt(dir: &Path, before: &str, command: &str, out: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.current_dir(dir).arg("-c").arg(format!("{before} exec \"$@\"")).arg("sh");
    shell.arg(assert_cmd::cargo::cargo_bin!("rlt")).args(command.split(' ')).args(["--out", out]);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// The one line of an error, with this exit code.
fn error_line(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    lines[0].to_owned()
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Names in `dir` that are unfinished work of rlt's.
fn unfinished(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".rlt-") || name.contains(".tmp")).collect()
}

#[test]
fn no_output_takes_the_place_of_an_input_by_any_name() {
    let dir = workspace();
    let dir = dir.path();
    symlink("rows.jsonl", dir.join("link.jsonl")).unwrap();
    fs::hard_link(dir.join("rows.jsonl"), dir.join("hard.jsonl")).unwrap();
    let before = fs::read(dir.join("rows.jsonl")).unwrap();
    for command in COMMANDS {
        for out in ["rows.jsonl", "link.jsonl", "hard.jsonl", "model/../rows.jsonl"] {
            let line = error_line(&rlt(dir, "", command, out).output().unwrap(), 2);
            assert!(line.contains("is the input of --"), "{command}: {line}");
        }
    }
    assert_eq!(fs::read(dir.join("rows.jsonl")).unwrap(), before);
    for (command, out, says) in [
        ("render --model model --data rows.jsonl", "model/tokenizer.json", "an input (--model)"),
        (
            "explain --model model --data rows.jsonl --config config.toml",
            "config.toml",
            "the input of --config",
        ),
        ("eval --model model --task task.toml --config config.toml", "task.toml", "the input of --task"),
        ("eval --model model --task task.toml --config config.toml", "rows.jsonl", "the input of --task"),
        ("eval --model model --task rows.jsonl --config config.toml", "page.html", "the page has that name"),
    ] {
        let was = fs::read(dir.join(out)).ok();
        let line = error_line(&rlt(dir, "", command, out).output().unwrap(), 2);
        assert!(line.contains(says), "{command}: {line}");
        assert_eq!(fs::read(dir.join(out)).ok(), was);
    }
    // The files beside the figures count too: as inputs, and as somebody's.
    fs::rename(dir.join("rows.jsonl"), dir.join("a_questions.jsonl")).unwrap();
    let eval = "eval --model model --task a_questions.jsonl --config config.toml";
    let line = error_line(&rlt(dir, "", eval, "a.json").output().unwrap(), 2);
    assert!(line.contains("a_questions.jsonl: is the input of --task"), "{line}");
    fs::write(dir.join("b.html"), "mine").unwrap();
    let line = error_line(&rlt(dir, "", eval, "b.json").output().unwrap(), 1);
    assert!(line.contains("b.html: is in the way"), "{line}");
    assert_eq!(fs::read(dir.join("b.html")).unwrap(), b"mine");
    assert_eq!(unfinished(dir), [""; 0]);
    // Of an earlier evaluation there they are replaced.
    for _ in 0..2 {
        succeed(&rlt(dir, "", eval, "c.json").output().unwrap());
    }
    let compare = "compare c.json c.json";
    for out in ["c.json", "c_questions.jsonl"] {
        let line = error_line(&rlt(dir, "", compare, out).output().unwrap(), 2);
        assert!(line.contains("is the input of"), "{line}");
    }
}

#[test]
fn links_are_followed_and_devices_and_pipes_written_to() {
    let dir = workspace();
    let dir = dir.path();
    let grade = COMMANDS[1];
    fs::create_dir(dir.join("deep")).unwrap();
    symlink("deep/verdicts.jsonl", dir.join("link")).unwrap();
    for _ in 0..2 {
        succeed(&rlt(dir, "", grade, "link").output().unwrap());
    }
    assert!(fs::symlink_metadata(dir.join("link")).unwrap().is_symlink());
    let verdicts = fs::read(dir.join("deep/verdicts.jsonl")).unwrap();
    assert_eq!(fs::read_dir(dir.join("deep")).unwrap().count(), 1);

    for command in &COMMANDS[..6] {
        succeed(&rlt(dir, "", command, "/dev/null").output().unwrap());
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device(), "{command}");
    }
    let line = error_line(&rlt(dir, "", COMMANDS[6], "/dev/null").output().unwrap(), 2);
    assert!(line.contains("writes files beside this one"), "{line}");
    let output = rlt(dir, "", grade, "/dev/stdout").output().unwrap();
    succeed(&output);
    assert!(output.stdout.starts_with(&verdicts), "the rows, then the answer");

    assert!(Command::new("mkfifo").arg(dir.join("pipe")).status().unwrap().success());
    let line = error_line(&rlt(dir, "", grade, "pipe").output().unwrap(), 1);
    assert!(line.contains("nobody reads from this pipe"), "{line}");
    let reader = Command::new("cat").arg(dir.join("pipe")).stdout(Stdio::piped()).spawn().unwrap();
    while !rlt(dir, "", grade, "pipe").output().unwrap().status.success() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(reader.wait_with_output().unwrap().stdout, verdicts);
    assert!(fs::metadata(dir.join("pipe")).unwrap().file_type().is_fifo());

    let _socket = UnixListener::bind(dir.join("socket")).unwrap();
    let line = error_line(&rlt(dir, "", grade, "socket").output().unwrap(), 2);
    assert!(line.contains("a disk or a socket"), "{line}");
    let line = error_line(&rlt(dir, "", grade, "deep").output().unwrap(), 2);
    assert!(line.contains("is a folder"), "{line}");
}

#[test]
fn names_in_files_lead_nowhere_else() {
    let dir = workspace();
    let dir = dir.path();
    let rlt = |args: &[&str]| {
        Command::new(assert_cmd::cargo::cargo_bin!("rlt")).current_dir(dir).args(args).output().unwrap()
    };
    fs::create_dir(dir.join("out")).unwrap();
    let task = |name: &str, data: &str| {
        format!("name = \"{name}\"\ntemplate = \"{{question}}\"\nanswer = \"gold\"\ndata = \"{data}\"\n")
    };
    fs::write(dir.join("evil.toml"), task("../x", "rows.jsonl")).unwrap();
    let eval =
        ["eval", "--model", "model", "--task", "task.toml", "--task", "evil.toml", "--out", "out/e.json"];
    let line = error_line(&rlt(&eval), 2);
    assert!(line.contains("evil.toml: `name` is \"../x\""), "{line}");
    for data in ["../rows.jsonl", "/etc/passwd"] {
        fs::write(dir.join("evil.toml"), task("x", data)).unwrap();
        let line = error_line(&rlt(&eval), 2);
        assert!(line.contains("leads out of the task's folder"), "{line}");
    }
    assert_eq!(fs::read_dir(dir.join("out")).unwrap().count(), 0);

    succeed(&rlt(&[
        "eval",
        "--model",
        "model",
        "--task",
        "task.toml",
        "--out",
        "a.json",
        "--config",
        "config.toml",
    ]));
    let figures = fs::read_to_string(dir.join("a.json")).unwrap();
    for questions in ["../a_questions.jsonl", "/etc/passwd", "out/x", ""] {
        let changed = figures.replace("\"a_questions.jsonl\"", &format!("\"{questions}\""));
        assert_ne!(changed, figures);
        fs::write(dir.join("b.json"), changed).unwrap();
        let line = error_line(&rlt(&["compare", "a.json", "b.json"]), 1);
        assert!(line.contains("`per_question_file` is"), "{line}");
    }
    for training in ["..", "/etc", "a/../../b"] {
        let demo = json!({"world": "w", "training_dir": training});
        fs::write(dir.join("out/demo.json"), demo.to_string()).unwrap();
        let line = error_line(&rlt(&["report", "out"]), 1);
        assert!(line.contains("`training_dir` is"), "{line}");
    }
}

#[test]
fn a_page_that_rlt_did_not_write_stays() {
    let dir = workspace();
    let dir = dir.path();
    let report = |args: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
        command.current_dir(dir).arg("report").args(args).output().unwrap()
    };
    for run in ["a", "b"] {
        fs::create_dir(dir.join(run)).unwrap();
        fs::write(dir.join(run).join("metrics.jsonl"), "{\"step\":1,\"loss\":1.0}\n").unwrap();
    }
    for _ in 0..2 {
        succeed(&report(&["a"]));
        succeed(&report(&["a", "b"]));
    }
    for page in ["a/report.html", "comparison.html"] {
        fs::write(dir.join(page), "<title>mine</title>").unwrap();
    }
    for args in [&["a"][..], &["a", "b"]] {
        let line = error_line(&report(args), 1);
        assert!(line.contains("is not a page that rlt wrote"), "{line}");
    }
    let line = error_line(&report(&["a", "b", "--out", "a/metrics.jsonl"]), 2);
    assert!(line.contains("is the input of RUN"), "{line}");
}

#[test]
fn a_second_process_is_refused_and_a_signal_leaves_nothing_half_written() {
    let dir = workspace();
    let dir = dir.path();
    write_rows(&dir.join("rows.jsonl"), 3000);
    for (command, file, kept) in [
        (COMMANDS[3], ".out.json.rlt-tmp", false),
        (COMMANDS[4], ".out.json.rlt-partial", true),
        (COMMANDS[5], ".out.json.rlt-partial", true),
        (
            "eval --model model --task rows.jsonl --config config.toml sampling.max_running=1",
            ".out.json.rlt-partial",
            true,
        ),
    ] {
        let mut child = rlt(dir, "", command, "out.json").spawn().unwrap();
        while !dir.join(file).exists() {
            assert!(child.try_wait().unwrap().is_none(), "{command}: it ended too early");
            std::thread::sleep(Duration::from_micros(300));
        }
        let line = error_line(&rlt(dir, "", command, "out.json").output().unwrap(), 1);
        if Path::new("/proc/locks").exists() {
            assert!(line.contains(&format!("process {} is writing it", child.id())), "{command}: {line}");
        }
        assert!(child.try_wait().unwrap().is_none(), "{command}: the first still works");
        assert!(
            Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success()
        );
        let output = child.wait_with_output().unwrap();
        error_line(&output, 130);
        assert!(!dir.join("out.json").exists(), "{command}");
        if !kept {
            assert_eq!(unfinished(dir), [""; 0], "{command}");
        }
        for name in unfinished(dir) {
            fs::remove_file(dir.join(name)).unwrap();
        }
    }
}

/// Rows that an unfinished attempt at `out` has committed, in bytes.
fn committed(dir: &Path, out: &str) -> u64 {
    let state = fs::read(dir.join(format!(".{out}.rlt-state"))).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&state).map_or(0, |state| state["bytes"].as_u64().unwrap())
}

#[test]
fn a_full_disk_and_a_kill_keep_what_was_committed() {
    if under_emulation("its own files count against the limit") {
        return;
    }
    let dir = workspace();
    let dir = dir.path();
    // A second or two of work for each, so that something is committed on the way.
    write_rows(&dir.join("rows.jsonl"), 1600);
    for command in [
        "score --teacher model --student model --data rows.jsonl --tokens-per-batch 500 --threads 1",
        "explain --model model --data rows.jsonl sampling.max_new_tokens=12 sampling.max_running=8",
    ] {
        succeed(&rlt(dir, "", command, "whole.jsonl").output().unwrap());
        let whole = fs::read(dir.join("whole.jsonl")).unwrap();
        let mut child = rlt(dir, "", command, "out.jsonl").spawn().unwrap();
        while committed(dir, "out.jsonl") == 0 {
            assert!(child.try_wait().unwrap().is_none(), "{command}: nothing was committed on the way");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let kept = committed(dir, "out.jsonl");
        // No file may grow beyond what is there and a little: as on a full disk, and without a handler of the shell's.
        let blocks = fs::metadata(dir.join(".out.jsonl.rlt-partial")).unwrap().len() / 512 + 4;
        let output = rlt(dir, &format!("ulimit -f {blocks};"), command, "out.jsonl").output().unwrap();
        let line = error_line(&output, 1);
        assert!(line.contains("out.jsonl: File too large"), "{command}: {line}");
        assert!(line.ends_with("once this is fixed, the same command continues"), "{command}: {line}");
        assert!(committed(dir, "out.jsonl") >= kept && kept > 0, "{command}");
        succeed(&rlt(dir, "", command, "out.jsonl").output().unwrap());
        assert!(
            fs::read(dir.join("out.jsonl")).unwrap() == whole,
            "{command}: other rows than those of one attempt"
        );
        assert_eq!(unfinished(dir), [""; 0]);
    }
}

#[test]
fn a_file_that_may_not_grow_is_one_line() {
    if under_emulation("its own files count against the limit") {
        return;
    }
    let dir = workspace();
    let dir = dir.path();
    write_rows(&dir.join("rows.jsonl"), 200);
    for command in COMMANDS {
        let output = rlt(dir, "ulimit -f 1;", command, "new.json").output().unwrap();
        let line = error_line(&output, 1);
        assert!(line.contains("File too large"), "{command}: {line}");
        assert!(!dir.join("new.json").exists());
        if !command.starts_with("eval") {
            assert_eq!(unfinished(dir), [""; 0], "{command}");
        }
    }
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests/short-rl.toml");
    let train = format!("train --config {config} run_dir=run");
    let mut command = Command::new("sh");
    command.current_dir(dir).arg("-c").arg(format!("ulimit -f 8; exec \"$0\" {train}"));
    let output = command.arg(assert_cmd::cargo::cargo_bin!("rlt")).output().unwrap();
    let line = error_line(&output, 1);
    assert!(line.contains("File too large"), "{line}");
}
