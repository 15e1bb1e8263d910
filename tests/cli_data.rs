//! Data in every shape, through the program: hub cache, shards, parquet out, `rlt inspect`.

mod scripted;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use rlt::config::DataConfig;
use rlt::dataset::{RowWriter, read_questions, read_records};
use serde_json::{Map, Value, json};

/// After the prompt's padding: ` She finds.`, the end of the explanation, the end of the turn.
const SCRIPT: [(&str, &str); 5] = [
    ("\n\n", " She"),
    (" She", " finds"),
    (" finds", "."),
    (".", "<|end_of_explanation|>"),
    ("<|end_of_explanation|>", "<|im_end|>"),
];

fn rlt(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
    command
        .current_dir(dir)
        .args(args)
        .env("HF_HUB_CACHE", "hub")
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("NO_PROXY", "127.0.0.1");
    command
}

fn parquet(path: &Path, rows: Value) {
    let rows: Vec<Map<String, Value>> = serde_json::from_value(rows).unwrap();
    let mut writer = RowWriter::<()>::begin(path, "").unwrap();
    writer.append(&rows, ()).unwrap();
    writer.finish().unwrap();
}

/// A scripted teacher, and a data set of two parquet shards and a held-out one in a cache as the hub's
/// libraries lay it out.
fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_scripted_model(&dir.path().join("model"), &SCRIPT, 512);
    let repository = dir.path().join("hub/datasets--some--rows");
    let data = repository.join("snapshots/abc123/data");
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "abc123").unwrap();
    let turns = |q: &str| json!([{"from": "user", "value": q}, {"from": "assistant", "value": "<|begin_of_thought|>\n\nwhy\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n9\n\n<|end_of_solution|>"}]);
    parquet(
        &data.join("train-00000-of-00002.parquet"),
        json!([{"system": "S", "conversations": turns("How many?")}]),
    );
    parquet(
        &data.join("train-00001-of-00002.parquet"),
        json!([{"system": "S", "conversations": turns("Who?")}]),
    );
    parquet(
        &data.join("test-00000-of-00001.parquet"),
        json!([{"system": "S", "conversations": turns("Held out?")}]),
    );
    dir
}

#[test]
fn a_cached_hub_data_set_becomes_distillation_rows_in_parquet() {
    let dir = workspace();
    let explain = |format: &str, out: &str| {
        let args =
            ["explain", "-q", "--model", "model", "--data", "some/rows", "--format", format, "--out", out];
        rlt(dir.path(), &args).env("HF_HUB_OFFLINE", "1").assert().success();
        read_records(&dir.path().join(out), 0).unwrap()
    };
    for format in ["conversations", "messages"] {
        let (parquet, jsonl) = (explain(format, "out.parquet"), explain(format, "out.jsonl"));
        assert_eq!(parquet.len(), 2);
        for (parquet, jsonl) in parquet.iter().zip(&jsonl) {
            assert_eq!(parquet.columns, jsonl.columns);
        }
        let data = DataConfig { path: dir.path().join("out.parquet"), ..DataConfig::default() };
        let rows = read_questions(&data).unwrap();
        assert_eq!((rows[1].question.as_str(), rows[1].solution.as_str()), ("Who?", "\n\n9\n\n"));
        assert_eq!(rows[1].reasoning_trace.as_deref().map(str::trim), Some("She finds."));
    }
}

#[test]
fn what_is_cached_is_offered_when_the_hub_cannot_be_asked() {
    let dir = workspace();
    let inspect = |data| rlt(dir.path(), &["inspect", "--model", "model", "--data", data]);
    let stderr = |command: &mut Command| {
        String::from_utf8(command.assert().code(1).get_output().stderr.clone()).unwrap()
    };
    let unreachable = stderr(inspect("some/rows").env_remove("HF_HUB_OFFLINE"));
    assert!(unreachable.contains("set HF_HUB_OFFLINE=1 to use the copy in the cache"), "{unreachable}");
    let other = stderr(inspect("some/rows@v2").env("HF_DATASETS_OFFLINE", "1"));
    assert!(other.contains("not in the cache hub at v2 while HF_DATASETS_OFFLINE is set"), "{other}");
    inspect("hf://datasets/some/rows@abc123/data/test-00000-of-00001.parquet")
        .env("HF_HUB_OFFLINE", "true")
        .assert()
        .success();
}

#[test]
fn inspect_shows_spans_ids_and_boundaries() {
    let dir = workspace();
    let run = |args: &[&str]| {
        let base = ["inspect", "-q", "--model", "model", "--data", "some/rows", "--row", "2"];
        let assert = rlt(dir.path(), &[&base, args].concat()).env("HF_HUB_OFFLINE", "1").assert().success();
        String::from_utf8(assert.get_output().stdout.clone()).unwrap()
    };
    let answer: Value = serde_json::from_str(&run(&["--json", "data.system=system"])).unwrap();
    let spans = answer["student"]["spans"].as_array().unwrap();
    let names: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["prompt", "think", "tags", "solution", "end"]);
    assert!(spans[0]["text"].as_str().unwrap().starts_with("<|im_start|>system\nS<|im_end|>"));
    assert_eq!(spans[1]["text"].as_str().unwrap().trim(), "why");
    assert_eq!(spans[3]["text"].as_str().unwrap().trim(), "9");
    let n: u64 = spans.iter().map(|span| span["ids"].as_array().unwrap().len() as u64).sum();
    assert_eq!(answer["student"]["tokens"], n);

    let plain = run(&[]);
    assert!(plain.contains("teacher sequence: ") && plain.contains("\nthink | tags at "), "{plain}");
    assert!(!plain.contains('\x1b'));
    assert!(run(&["--color", "always"]).contains("\x1b[36mwhy"));
}
