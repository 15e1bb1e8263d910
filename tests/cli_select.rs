//! `rlt select` as a program: what it writes and what it answers.

use assert_cmd::Command;
use serde_json::Value;

const ROWS: &str = r#"{"question":"a","solution":"1","reward":-1.0,"kept":{"as":["is"]}}
{"question":"a","solution":"1","reward":-0.5}
{"question":"b","solution":"2","reward":null}
{"question":"b","solution":"2","reward":-2,"parts":{"status":"ok"}}
{"question":"b","solution":"2","reward":-1,"parts":{"status":"empty thought"}}
"#;

/// Runs the command over [`ROWS`] and gives the lines it wrote and its standard output.
fn select(by: &str, flags: &[&str]) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("scored.jsonl"), ROWS).unwrap();
    let assert = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["select", "--data", "scored.jsonl", "--out", "kept.jsonl", "--by", by])
        .args(flags)
        .assert()
        .success();
    let output = assert.get_output();
    assert!(output.stderr.is_empty());
    let written = std::fs::read_to_string(dir.path().join("kept.jsonl")).unwrap();
    (written, String::from_utf8(output.stdout.clone()).unwrap())
}

#[test]
fn best_of_n_keeps_rows_unchanged() {
    let (written, answer) = select("best", &[]);
    let lines: Vec<&str> = ROWS.lines().collect();
    assert_eq!(written.lines().collect::<Vec<_>>(), [lines[1], lines[3]]);
    assert_eq!(
        answer,
        "kept 2 of 5 rows in kept.jsonl; mean reward -1.1667 -> -1.2500 nats\npassed over 2 rows without a reward, or \
         whose parts.status is not ok: 1 empty thought; 1 the reward is null\n"
    );
}

#[test]
fn nested_columns_and_number_forms_pass_through() {
    let (written, _) = select("threshold=-1", &[]);
    assert_eq!(written.lines().collect::<Vec<_>>(), ROWS.lines().take(2).collect::<Vec<_>>());
}

#[test]
fn groups_add_a_column() {
    // By the rewards as they stand; and among a question's own, where the only one of its question is in the middle.
    for (rule, expected) in [("groups=3", [2, 3, 1]), ("relative-groups=3", [1, 3, 2])] {
        let (written, _) = select(rule, &["--quiet"]);
        let groups: Vec<Value> = written
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["reward_group"].clone())
            .collect();
        assert_eq!(groups, expected, "{rule}");
    }
}

#[test]
fn json_answers_with_one_object() {
    let (_, answer) = select("top=0.33", &["--json"]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["rows"], &answer["kept"], &answer["unscored"]), (&5.into(), &1.into(), &2.into()));
    assert_eq!(answer["reward_mean_kept"], -0.5);
}

#[test]
fn the_longest_traces_are_passed_over_and_a_reserved_one_stands_in() {
    let rows = r#"{"question":"a","solution":"1","reward":-3.0,"parts":{"status":"ok","n_think":9}}
{"question":"a","solution":"1","reward":-0.5,"parts":{"status":"ok","n_think":90}}
{"question":"a","solution":"1","reward":-1.0,"parts":{"status":"ok","n_think":10}}
{"question":"b","solution":"2","reward":-2.0,"parts":{"status":"ok","n_think":50}}
{"question":"b","solution":"2","reward":-1.0,"parts":{"status":"ok","n_think":60}}
"#;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("scored.jsonl"), rows).unwrap();
    let select = |flags: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
        command.current_dir(dir.path()).args(["select", "--data", "scored.jsonl", "--out", "kept.jsonl"]);
        command.args(flags).assert()
    };
    let kept = |flags: &[&str]| -> Vec<usize> {
        select(flags).success();
        let written = std::fs::read_to_string(dir.path().join("kept.jsonl")).unwrap();
        written.lines().map(|line| rows.lines().position(|row| row == line).unwrap()).collect()
    };
    assert_eq!(kept(&["--by", "best"]), [1, 4]);
    assert_eq!(kept(&["--by", "best", "--max-think", "10"]), [2]);
    assert_eq!(kept(&["--by", "best", "--max-think", "10", "--reserve", "1"]), [2, 3]);
    assert_eq!(kept(&["--by", "top=1", "--max-think", "50"]), [0, 2, 3]);
    select(&["--by", "top=1", "--reserve", "1"]).code(2);
    select(&["--by", "groups=4", "--max-think", "50"]).code(2);
}
