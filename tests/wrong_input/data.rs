//! Wrong input of data and text: files of every format, styles, `rlt inspect`.

use std::fs;
use std::path::Path;

use rlt::dataset::RowWriter;
use serde_json::{Map, Value, json};

use super::{Case, check, model_with, write};

const SELECT: &[&str] = &["select", "--data", "rows.parquet", "--out", "out/kept.jsonl", "--by", "best"];
const CSV: &[&str] = &["select", "--data", "rows.csv", "--out", "out/kept.jsonl", "--by", "best"];
const JSONL: &[&str] = &["select", "--data", "rows.jsonl", "--out", "out/kept.jsonl", "--by", "best"];
const INSPECT: &[&str] = &["inspect", "--model", "model", "--data", "rows.jsonl"];

fn parquet(dir: &Path, rows: &Value) {
    let rows: Vec<Map<String, Value>> = serde_json::from_value(rows.clone()).unwrap();
    let mut writer = RowWriter::<()>::begin(&dir.join("rows.parquet"), "").unwrap();
    writer.append(&rows, ()).unwrap();
    writer.finish().unwrap();
}

/// A parquet file without its last `n` bytes.
fn truncated(dir: &Path, n: usize) {
    parquet(dir, &json!([{"question": "q".repeat(1000), "reward": 1.0}]));
    let path = dir.join("rows.parquet");
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..bytes.len() - n]).unwrap();
}

/// A model folder and one row.
fn row(dir: &Path, row: &str) {
    model_with(dir, "unused.json", "{}");
    write(dir, "rows.jsonl", format!("{row}\n"));
}

const QUESTION: &str = "{\"question\":\"How many?\",\"solution\":\"9\"}";

#[test]
fn wrong_parquet_files() {
    check(&[
        Case {
            name: "JSON Lines called parquet",
            setup: |dir| write(dir, "rows.parquet", "{\"question\":\"q\",\"reward\":1}\n"),
            args: SELECT,
            code: 1,
            says: &["rows.parquet: not a parquet file that can be read"],
        },
        Case {
            name: "empty parquet file",
            setup: |dir| write(dir, "rows.parquet", ""),
            args: SELECT,
            code: 1,
            says: &["rows.parquet: not a parquet file that can be read"],
        },
        Case {
            name: "truncated parquet file",
            setup: |dir| truncated(dir, 20),
            args: SELECT,
            code: 1,
            says: &["rows.parquet: not a parquet file that can be read"],
        },
        Case {
            name: "parquet with damaged pages",
            setup: |dir| {
                truncated(dir, 0);
                let path = dir.join("rows.parquet");
                let mut bytes = fs::read(&path).unwrap();
                bytes[4..40].fill(0xff);
                fs::write(path, bytes).unwrap();
            },
            args: SELECT,
            code: 1,
            says: &["rows.parquet"],
        },
        Case {
            name: "parquet with another schema",
            setup: |dir| parquet(dir, &json!([{"text": "t", "n": [1]}])),
            args: SELECT,
            code: 1,
            says: &["rows.parquet, row 1: no column `reward`", "`text`, `n`"],
        },
        Case {
            name: "parquet column of another type",
            setup: |dir| parquet(dir, &json!([{"question": "q", "reward": [1.5]}])),
            args: SELECT,
            code: 1,
            says: &["rows.parquet, row 1: column `reward`", "not a number"],
        },
        Case {
            name: "parquet without rows",
            setup: |dir| parquet(dir, &json!([])),
            args: SELECT,
            code: 1,
            says: &["rows.parquet"],
        },
        Case {
            name: "a shard among good ones",
            setup: |dir| {
                write(dir, "shards/train-0.jsonl", "{\"question\":\"q\",\"reward\":1}\n");
                write(dir, "shards/train-1.parquet", "PAR1");
            },
            args: &["select", "--data", "shards", "--out", "out/kept.jsonl", "--by", "best"],
            code: 1,
            says: &["shards/train-1.parquet: not a parquet file"],
        },
    ]);
}

#[test]
fn wrong_text_files() {
    check(&[
        Case {
            name: "duplicate columns in CSV",
            setup: |dir| write(dir, "rows.csv", "question,reward,question\nq,1,r\n"),
            args: CSV,
            code: 1,
            says: &["rows.csv: two columns are called `question`; rename one"],
        },
        Case {
            name: "duplicate columns in JSON",
            setup: |dir| write(dir, "rows.jsonl", "{\"question\":\"q\",\"reward\":1,\"reward\":2}\n"),
            args: JSONL,
            code: 1,
            says: &["rows.jsonl, row 1: two columns are called `reward`"],
        },
        Case {
            name: "CSV with a short row",
            setup: |dir| write(dir, "rows.csv", "question,reward\nr\n"),
            args: CSV,
            code: 1,
            says: &["rows.csv, row 1: 1 fields where the header has 2"],
        },
        Case {
            name: "a 100 MB line",
            setup: |dir| {
                let text = "x".repeat(100 << 20);
                write(dir, "rows.jsonl", format!("{{\"question\":\"{text}\",\"reward\":1}}\n"));
            },
            args: JSONL,
            code: 1,
            says: &["rows.jsonl, row 1: over 64 MB long, which is more than a row may have"],
        },
        Case {
            name: "UTF-16",
            setup: |dir| write(dir, "rows.jsonl", b"\xff\xfe{\0}\0\n\0"),
            args: JSONL,
            code: 1,
            says: &["rows.jsonl, row 1: not valid UTF-8 at byte 1"],
        },
        Case {
            name: "a gzip file called jsonl",
            setup: |dir| write(dir, "rows.jsonl", b"\x1f\x8b\x08\0\0\0\0\0"),
            args: JSONL,
            code: 1,
            says: &["rows.jsonl, row 1: not valid UTF-8"],
        },
        Case {
            name: "unpaired surrogate",
            setup: |dir| write(dir, "rows.jsonl", r#"{"question":"\ud800","reward":1}"#),
            args: JSONL,
            code: 1,
            says: &["rows.jsonl, row 1: malformed JSON"],
        },
        Case {
            name: "nesting without end",
            setup: |dir| write(dir, "rows.jsonl", format!("{{\"a\":{}", "[".repeat(100_000))),
            args: JSONL,
            code: 1,
            says: &["rows.jsonl, row 1: malformed JSON: recursion limit exceeded"],
        },
    ]);
}

#[test]
fn wrong_inspections() {
    check(&[
        Case {
            name: "row past the end",
            setup: |dir| row(dir, QUESTION),
            args: &["inspect", "--model", "model", "--data", "rows.jsonl", "--row", "2"],
            code: 2,
            says: &["--row 2 is past the last of the 1 rows of rows.jsonl"],
        },
        Case {
            name: "row 0",
            setup: |dir| row(dir, QUESTION),
            args: &["inspect", "--model", "model", "--data", "rows.jsonl", "--row", "0"],
            code: 2,
            says: &["--row", "a whole number from 1"],
        },
        Case {
            name: "no model",
            setup: |dir| row(dir, QUESTION),
            args: &["inspect", "--data", "rows.jsonl"],
            code: 2,
            says: &["give --model DIR, or model.path"],
        },
        Case {
            name: "empty solution",
            setup: |dir| row(dir, "{\"question\":\"How many?\",\"solution\":\"\"}"),
            args: INSPECT,
            code: 1,
            says: &["rows.jsonl, row 1: the solution is empty"],
        },
        Case {
            name: "solution that is a list",
            setup: |dir| row(dir, "{\"question\":\"How many?\",\"solution\":[\"9\",\"8\"]}"),
            args: INSPECT,
            code: 1,
            says: &["rows.jsonl, row 1: column `solution` is a list, not text"],
        },
        Case {
            name: "mapped column that is absent",
            setup: |dir| row(dir, QUESTION),
            args: &["inspect", "--model", "model", "--data", "rows.jsonl", "data.question=problem"],
            code: 1,
            says: &[
                "rows.jsonl, row 1: no column `problem` (data.question names it)",
                "`question`, `solution`",
            ],
        },
        Case {
            name: "conversation without an answer",
            setup: |dir| row(dir, "{\"conversations\":[{\"from\":\"user\",\"value\":\"q\"}]}"),
            args: INSPECT,
            code: 1,
            says: &["rows.jsonl, row 1: `conversations` needs a user and an assistant turn"],
        },
        Case {
            name: "unknown style",
            setup: |dir| row(dir, QUESTION),
            args: &["inspect", "--model", "model", "--data", "rows.jsonl", "prompts.style=r2"],
            code: 2,
            says: &["prompts.style `r2` is neither `stratos`, `r1`, `think` nor a file"],
        },
        Case {
            name: "template that raises",
            setup: |dir| {
                model_with(dir, "chat_template.jinja", "{{ raise_exception('no such role') }}");
                write(dir, "rows.jsonl", format!("{QUESTION}\n"));
            },
            args: INSPECT,
            code: 1,
            says: &["no such role"],
        },
        Case {
            name: "ids of another tokenizer",
            setup: |dir| {
                row(
                    dir,
                    "{\"question\":\"q\",\"solution\":\"9\",\"completion\":\"look\",\"completion_ids\":[1,2],\"finish\":\"length\"}",
                );
            },
            args: INSPECT,
            code: 1,
            says: &["row 1: `completion_ids` do not spell `completion`"],
        },
    ]);
}
