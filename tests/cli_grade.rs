//! `rlt grade` as a program.

use assert_cmd::Command;
use serde_json::Value;

fn grade(rows: &str, args: &[&str]) -> (Vec<Value>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["grade", "--data", "rows.jsonl", "--out", "verdicts.jsonl", "-q"])
        .args(args)
        .assert()
        .success();
    let text = std::fs::read_to_string(dir.path().join("verdicts.jsonl")).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), dir)
}

#[test]
fn a_verdict_for_every_row() {
    let rows = r#"{"gold": "\\frac{1}{2}", "prediction": "So it is \\boxed{0.5}."}
{"gold": 4, "prediction": "<think>\\boxed{4}</think> The answer is 5."}
{"gold": "4", "prediction": ""}"#;
    let (verdicts, _dir) = grade(rows, &[]);
    assert_eq!(verdicts[0]["correct"], true);
    assert_eq!(verdicts[0]["extracted"], "0.5");
    assert_eq!(verdicts[1]["correct"], true);
    assert_eq!((&verdicts[2]["correct"], &verdicts[2]["extracted"]), (&Value::Bool(false), &Value::Null));
    let (verdicts, _dir) = grade(rows, &["--remove-thought"]);
    assert_eq!(
        (&verdicts[1]["correct"], &verdicts[1]["extracted"]),
        (&Value::Bool(false), &Value::from("5"))
    );
}

/// A thought whose opening stands in the prompt and that never ends holds no answer.
#[test]
fn an_unfinished_thought_that_the_prompt_opened_is_removed() {
    let rows = r#"{"gold": "4", "prompt": "assistant\n<think>\n", "prediction": "Say it is \\boxed{4}, but"}
{"gold": "4", "prompt": "assistant\n<think>\n", "prediction": "so</think>\\boxed{4}"}
{"gold": "4", "prompt": "What is <think>? ", "prediction": "\\boxed{4}"}"#;
    let correct = |args: &[&str]| -> Vec<bool> {
        grade(rows, args).0.iter().map(|verdict| verdict["correct"] == true).collect()
    };
    assert_eq!(correct(&["--remove-thought"]), [false, true, true]);
    assert_eq!(correct(&[]), [true, true, true]);
}

#[test]
fn countdown_rows_have_numbers_and_a_target() {
    let rows = r#"{"nums": [44, 19, 35], "target": 98, "prediction": "\\boxed{44 + 19 + 35}"}
{"nums": [44, 19, 35], "target": 98, "prediction": "\\boxed{98}"}"#;
    let (verdicts, _dir) = grade(rows, &["--grader", "countdown"]);
    assert_eq!((&verdicts[0]["correct"], &verdicts[1]["correct"]), (&Value::Bool(true), &Value::Bool(false)));
}

#[test]
fn a_missing_column_is_one_line_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), "{\"gold\": \"1\", \"answer\": \"1\"}\n").unwrap();
    let assert = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["grade", "--data", "rows.jsonl", "--out", "verdicts.jsonl"])
        .assert()
        .code(1);
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_eq!(error, "error: rows.jsonl, row 1: no column `prediction`; the row has `gold`, `answer`\n");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
