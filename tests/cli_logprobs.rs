//! `rlt logprobs` as a program.

mod scripted;

use assert_cmd::Command;
use rlt_engine::instructions::InstructionSet;
use rlt_model::Decoder;
use rlt_model::batch::ScoringGroup;
use serde_json::{Value, json};

/// Runs `rlt logprobs` over `rows` with random weights and gives the model's folder, the rows written
/// and the answer.
fn logprobs(rows: &str, args: &[&str]) -> (tempfile::TempDir, Vec<Value>, Value) {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), 64);
    std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let assert = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["logprobs", "--model", "model", "--data", "rows.jsonl", "--out", "out.jsonl", "-q", "--json"])
        .args(args)
        .assert()
        .success()
        .stderr("");
    let answer = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    let written = std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap();
    (dir, written.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), answer)
}

const ROWS: &str = "{\"text\":\"Tom has 9 eggs.\",\"id\":1}\n{\"ids\":[5,6,7]}\n{\"ids\":[5]}\n{\"text\":\"\"}\n{\"text\":\"<|im_start|>user\\nWho?\"}\n";

#[test]
fn every_token_but_the_first_has_the_model_s_log_probability() {
    let (dir, rows, answer) = logprobs(ROWS, &["--temperature", "0.7"]);
    let decoder = Decoder::load(&dir.path().join("model")).unwrap();
    assert_eq!(rows.len(), 5);
    for row in &rows {
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["ids", "logprobs"]);
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        let logprobs: Vec<Option<f32>> = serde_json::from_value(row["logprobs"].clone()).unwrap();
        assert_eq!(logprobs.len(), ids.len());
        if ids.len() < 2 {
            assert!(logprobs.iter().all(Option::is_none));
            continue;
        }
        let after_first = 1..ids.len();
        let group = ScoringGroup::single(ids, vec![after_first]);
        let expected = decoder.token_logprobs(&[group], 0.7, 1000).unwrap()[0][0].clone();
        assert_eq!(logprobs[0], None);
        for (ours, expected) in logprobs[1..].iter().zip(expected) {
            assert!((ours.unwrap() - expected).abs() < 1e-5, "{ours:?}, not {expected}");
        }
    }
    assert_eq!(rows[1]["ids"], json!([5, 6, 7]));
    assert_eq!(rows[3], json!({"ids": [], "logprobs": []}));
    // Nearly uniform over some 380 tokens.
    let mean = answer["logprob_mean"].as_f64().unwrap();
    assert!((-7.0..-5.0).contains(&mean), "{mean}");
}

#[test]
fn neither_batches_nor_threads_change_a_row() {
    let (_, together, _) = logprobs(ROWS, &[]);
    let (_, apart, _) = logprobs(ROWS, &["--tokens-per-batch", "1", "--threads", "1"]);
    assert_eq!(together.len(), apart.len());
    for (a, b) in together.iter().zip(&apart) {
        assert_eq!(a["ids"], b["ids"]);
        for (x, y) in a["logprobs"].as_array().unwrap().iter().zip(b["logprobs"].as_array().unwrap()) {
            assert_eq!(x.is_null(), y.is_null());
            assert!((x.as_f64().unwrap_or(0.0) - y.as_f64().unwrap_or(0.0)).abs() < 1e-5, "{x} {y}");
        }
    }
}

#[test]
fn bf16_is_close_and_not_equal() {
    let (_, exact, _) = logprobs(ROWS, &[]);
    let (_, rounded, answer) = logprobs(ROWS, &["--arithmetic", "bf16"]);
    assert_eq!(answer["arithmetic"], "bf16");
    let all = |rows: &[Value]| -> Vec<f64> {
        rows.iter().flat_map(|row| row["logprobs"].as_array().unwrap()).filter_map(Value::as_f64).collect()
    };
    let (exact, rounded) = (all(&exact), all(&rounded));
    assert!(exact != rounded, "nothing was rounded");
    assert!(exact.iter().zip(&rounded).all(|(a, b)| (a - b).abs() < 0.02), "{exact:?} {rounded:?}");
}

#[test]
fn bf16_without_instructions_for_it_is_said_to_be_slower() {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), 64);
    std::fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    for set in InstructionSet::available() {
        for (arithmetic, expected) in [("f32", false), ("bf16", set <= InstructionSet::Avx2)] {
            let output = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
                .current_dir(dir.path())
                .args(["logprobs", "--model", "model", "--data", "rows.jsonl", "--out", "out.jsonl"])
                .args(["--arithmetic", arithmetic, "model.arithmetic=bf16"])
                .env(rlt_engine::instructions::VARIABLE, set.to_string())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            assert_eq!(said.contains("f32 is faster here"), expected, "{set}, {arithmetic}: {said}");
        }
    }
}

/// The switch reaches the program: the same bits with every set that fuses multiply and add, and one clear line for a
/// set that this processor does not have.
#[test]
fn instructions_are_limited_by_a_variable() {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), 64);
    std::fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    let run = |set: &str| {
        Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
            .current_dir(dir.path())
            .args(["logprobs", "--model", "model", "--data", "rows.jsonl", "--out", set, "-q"])
            .env(rlt_engine::instructions::VARIABLE, set)
            .output()
            .unwrap()
    };
    let sets = InstructionSet::available();
    for set in sets.iter().map(ToString::to_string) {
        let output = run(&set);
        assert!(output.status.success(), "{set}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let written: Vec<_> = sets
        .iter()
        .filter(|&&set| set != InstructionSet::Baseline)
        .map(|set| std::fs::read(dir.path().join(set.to_string())).unwrap())
        .collect();
    assert!(written.windows(2).all(|two| two[0] == two[1]));
    let output = run("mmx");
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(
        line.starts_with("error: RLT_SIMD=mmx: this processor has ") && line.lines().count() == 1,
        "{line}"
    );
    assert!(!dir.path().join("mmx").exists());
}
