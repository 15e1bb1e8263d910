//! `rlt render` as a program.

use assert_cmd::Command;
use rlt::worlds::lexicon::{ModelShape, write_model_folder};
use rlt_model::tokenizer::Tokenizer;
use serde_json::Value;

#[test]
fn text_and_ids_of_messages_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    write_model_folder(&model, &ModelShape::default()).unwrap();
    std::fs::write(
        dir.path().join("rows.jsonl"),
        concat!(
            r#"{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"How many? \u00e9"}]}"#,
            "\n\n",
            r#"{"messages":[{"role":"user","content":""}]}"#,
            "\n"
        ),
    )
    .unwrap();
    Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["render", "--model", "model", "--data", "rows.jsonl", "--out", "out.jsonl"])
        .args(["--add-generation-prompt", "--quiet"])
        .assert()
        .success()
        .stderr("");

    let written = std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap();
    let rows: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = [
        "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nHow many? \u{e9}<|im_end|><|im_start|>assistant\n",
        "<|im_start|>user\n<|im_end|><|im_start|>assistant\n",
    ];
    let tokenizer = Tokenizer::from_dir(&model).unwrap();
    assert_eq!(rows.len(), expected.len());
    for (row, text) in rows.iter().zip(expected) {
        assert_eq!(row["text"], text);
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        assert_eq!(tokenizer.decode(&ids), text);
        assert_eq!(ids[0], tokenizer.token_to_id("<|im_start|>").unwrap());
    }
}
