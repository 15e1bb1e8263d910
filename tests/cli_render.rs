//! `rlt render` as a program.

use assert_cmd::Command;
use rlt::worlds::lexicon::{ModelShape, write_model_folder};
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Value, json};

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

/// Runs `rlt render` over `rows` with `template`: the texts, or the error's line.
fn rendered(template: &str, rows: &[Value]) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    write_model_folder(&model, &ModelShape::default()).unwrap();
    std::fs::write(model.join("chat_template.jinja"), template).unwrap();
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(dir.path().join("rows.jsonl"), lines.join("\n")).unwrap();
    let output = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["render", "--model", "model", "--data", "rows.jsonl", "--out", "out.jsonl", "--quiet"])
        .output()
        .unwrap();
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(1));
        assert!(!dir.path().join("out.jsonl").exists());
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let written = std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap();
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    Ok(written.lines().map(text).collect())
}

#[test]
fn columns_of_a_row_reach_the_template() {
    let template = "{% for m in messages %}{{ m.keys() | list }}{{ m.reasoning_content }}{% endfor %}|{{ tools | tojson }}|\
                    {{ documents | tojson }}|{{ enable_thinking }}\n\n";
    let user = json!({"role": "user", "content": "q", "tool_calls": null, "name": null});
    let rows = [
        json!({"messages": [user], "tools": [{"name": "f"}], "documents": [{"title": "t"}],
               "chat_template_kwargs": {"enable_thinking": false}}),
        json!({"prompt": [{"role": "user", "content": "q", "reasoning": "r"}], "tools": "[{\"name\": \"f\"}]",
               "documents": null, "chat_template_kwargs": "{\"enable_thinking\": 1}"}),
    ];
    assert_eq!(
        rendered(template, &rows).unwrap(),
        [
            "['role', 'content']|[{\"name\": \"f\"}]|[{\"title\": \"t\"}]|False\n",
            "['thinking', 'role', 'content', 'reasoning', 'reasoning_content']r|[{\"name\": \"f\"}]|null|1\n"
        ]
    );
    let error = |columns: Value| {
        let mut row = json!({"messages": [{"role": "user", "content": "q"}]});
        row.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
        rendered("x", &[row]).unwrap_err()
    };
    assert!(error(json!({"tools": {"a": 1}})).contains("row 1: column `tools` is not a list of objects"));
    assert!(error(json!({"tools": "[{"})).contains("column `tools` is a text that is not JSON"));
    assert!(error(json!({"chat_template_kwargs": [1]})).contains("`chat_template_kwargs` is not an object"));
    assert!(error(json!({"chat_template_kwargs": {"messages": []}})).contains("cannot hold `messages`"));
}

#[test]
fn a_template_without_end_ends_in_one_line() {
    let rows = [json!({"messages": [{"role": "user", "content": "q"}]})];
    for template in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ 'x'.ljust(10**12) }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        &format!("{{{{ {}1 }}}}", "1+".repeat(100_000)),
    ] {
        let line = rendered(template, &rows).unwrap_err();
        assert!(line.starts_with("error: ") && line.lines().count() == 1, "{line}");
    }
}
