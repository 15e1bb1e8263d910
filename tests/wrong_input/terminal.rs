//! What a file, a name or an argument says reaches the terminal cut to a line, and cannot drive it.

use std::path::Path;

use assert_cmd::Command;

use super::{model_with, write};

/// The standard error of a call that fails, which is a few lines of plain text.
fn stderr(dir: &Path, args: &[&str]) -> String {
    let output =
        Command::new(assert_cmd::cargo::cargo_bin!("rlt")).current_dir(dir).args(args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{stderr}");
    for line in stderr.lines() {
        assert!(line.chars().count() < 2100, "{} characters", line.chars().count());
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
    assert!(output.stdout.is_empty());
    stderr
}

#[test]
fn megabytes_of_a_file_are_not_an_error_line() {
    let dir = tempfile::tempdir().unwrap();
    let name = "x".repeat(3_000_000);
    write(dir.path(), "rows.jsonl", format!("{{\"{name}\": 1}}\n"));
    let select = ["select", "--data", "rows.jsonl", "--out", "out.jsonl", "--by", "best"];
    let line = stderr(dir.path(), &select);
    assert!(line.starts_with("error: rows.jsonl, row 1: no column `reward`"), "{line}");
    assert!(line.contains("characters left out"), "{line}");
    // The same for what a command line, a header of CSV and a model's configuration say.
    let argument = "y".repeat(100_000);
    stderr(dir.path(), &["select", "--data", &argument, "--out", "out.jsonl", "--by", "best"]);
    stderr(dir.path(), &["select", "--data", "rows.jsonl", "--out", "out.jsonl", "--by", &argument]);
    write(dir.path(), "rows.csv", format!("{name},{name}\n1,2\n"));
    stderr(dir.path(), &["select", "--data", "rows.csv", "--out", "out.jsonl", "--by", "best"]);
    model_with(dir.path(), "config.json", &format!("{{\"model_type\": \"{name}\"}}"));
    let line = stderr(dir.path(), &["plan", &format!("--threads={argument}")]);
    assert!(line.contains("--threads"), "{line}");
    stderr(dir.path(), &["eval", "--model", "model", "--task", "rows.jsonl", "--out", "out"]);
}

#[test]
fn escapes_of_a_file_do_not_reach_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let role = "\\u001b]0;owned\\u0007\\u001b[2J\\u009b1A\\u202e";
    model_with(dir.path(), "unused.json", "{}");
    write(
        dir.path(),
        "rows.jsonl",
        format!("{{\"conversations\": [{{\"from\": \"{role}\", \"value\": \"q\"}}]}}\n"),
    );
    let line = stderr(dir.path(), &["inspect", "--model", "model", "--data", "rows.jsonl"]);
    assert!(line.contains("unknown role `\\u{1b}]0;owned"), "{line}");
    let name = "a\u{1b}[31mb\u{9b}2J.jsonl";
    let line = stderr(dir.path(), &["select", "--data", name, "--out", "out.jsonl", "--by", "best"]);
    assert!(line.contains("a\\u{1b}[31mb\\u{9b}2J.jsonl"), "{line}");
    // Wrong arguments, and those that name a key.
    stderr(dir.path(), &["select", "--\u{1b}[2Jx"]);
    stderr(dir.path(), &["plan", "a\u{1b}[2J=1"]);
}

/// What is said while work goes well, and the answer on standard output.
#[test]
fn escapes_in_names_do_not_reach_progress_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "rows.jsonl", "{\"question\":\"q\",\"reward\":1}\n");
    for flags in [&[][..], &["--json"]] {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
            .current_dir(dir.path())
            .args(["select", "--data", "rows.jsonl", "--out", "k\u{1b}[2J\u{9b}1A.jsonl", "--by", "best"])
            .args(flags)
            .output()
            .unwrap();
        assert!(output.status.success());
        for text in [output.stdout, output.stderr] {
            let text = String::from_utf8(text).unwrap();
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
    }
}
