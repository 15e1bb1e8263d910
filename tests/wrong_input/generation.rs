//! Wrong input of the commands that run one model: explain, eval, logprobs.

use std::fs;
use std::path::Path;

use rlt_model::Decoder;
use rlt_model::config::ModelConfig;

use super::scripted::write_random_model;
use super::{Case, check, write};

const EXPLAIN: &[&str] =
    &["explain", "-q", "--model", "model", "--data", "rows.jsonl", "--out", "out/traces.jsonl"];
const EVAL: &[&str] = &["eval", "-q", "--model", "model", "--task", "rows.jsonl", "--out", "out/eval.json"];
const LOGPROBS: &[&str] =
    &["logprobs", "-q", "--model", "model", "--data", "rows.jsonl", "--out", "out/logprobs.jsonl"];

/// A random model of 512 tokens of context and a question.
fn inputs(dir: &Path) {
    write_random_model(&dir.join("model"), 512);
    write(dir, "rows.jsonl", "{\"question\":\"How many?\",\"solution\":\"9\"}\n");
}

/// [`inputs`] with other rows.
fn inputs_with(dir: &Path, rows: &str) {
    inputs(dir);
    write(dir, "rows.jsonl", rows);
}

/// [`inputs`] with `from` replaced by `to` in a file of the model.
fn inputs_but(dir: &Path, name: &str, changes: &[(&str, &str)]) {
    inputs(dir);
    let path = dir.join("model").join(name);
    let mut text = fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{name} holds {from}");
        text = text.replace(from, to);
    }
    fs::write(path, text).unwrap();
}

/// A question that is longer than the model's context.
fn long_question(dir: &Path) {
    let question = "How many? ".repeat(300);
    let rows = "{\"question\":\"q\",\"solution\":\"9\"}\n".to_owned();
    inputs_with(dir, &format!("{rows}{{\"question\":\"{question}\",\"solution\":\"9\"}}\n"));
}

/// A model with fewer tokens than its tokenizer.
fn other_tokenizer(dir: &Path) {
    inputs(dir);
    let model = dir.join("model");
    let mut config = ModelConfig::from_dir(&model).unwrap();
    config.vocab_size = 300;
    Decoder::random(&config, 1).save(&model).unwrap();
}

/// A tokenizer that has no token for the end of the explanation, nor for `_` to spell it.
fn tag_that_cannot_be_written(dir: &Path) {
    let changes = [("<|end_of_explanation|>", "<|end|>"), ("\"_\":", "\"__\":")];
    inputs_but(dir, "tokenizer.json", &changes);
}

#[test]
fn wrong_explanations() {
    check(&[
        Case {
            name: "explain: no model",
            setup: inputs,
            args: &["explain", "--data", "rows.jsonl", "--out", "out/traces.jsonl"],
            code: 2,
            says: &["give --model DIR, or model.path in the configuration"],
        },
        Case {
            name: "explain: no data",
            setup: inputs,
            args: &["explain", "--model", "model", "--out", "out/traces.jsonl"],
            code: 2,
            says: &["give --data FILE, or data.path in the configuration"],
        },
        Case {
            name: "explain: missing model folder",
            setup: |dir| write(dir, "rows.jsonl", "{\"question\":\"q\",\"solution\":\"9\"}\n"),
            args: EXPLAIN,
            code: 1,
            says: &["model: no such folder", "Hugging Face layout"],
        },
        Case {
            name: "explain: no samples",
            setup: inputs,
            args: &["explain", "--model", "model", "--data", "rows.jsonl", "--out", "out/t.jsonl", "-n", "0"],
            code: 2,
            says: &["'0' for '--n <N>': a whole number from 1 is expected"],
        },
        Case {
            name: "explain: unknown format",
            setup: inputs,
            args: &["explain", "--data", "rows.jsonl", "--out", "out/t.jsonl", "--format", "parquet"],
            code: 2,
            says: &["invalid value 'parquet' for '--format <FORMAT>'"],
        },
        Case {
            name: "explain: prompt longer than the context",
            setup: long_question,
            args: EXPLAIN,
            code: 1,
            says: &["the prompt of row 2: a sequence of ", "context of 512", "shorten or drop it"],
        },
        Case {
            name: "explain: tokenizer of another model",
            setup: other_tokenizer,
            args: EXPLAIN,
            code: 1,
            says: &["the prompt of row 1: token ", "beyond the model's 300 tokens", "the model's tokenizer?"],
        },
        Case {
            name: "explain: tokenizer without a needed token",
            setup: tag_that_cannot_be_written,
            args: EXPLAIN,
            code: 1,
            says: &["cannot write the tag `<|end_of_explanation|>`", "add it to the vocabulary"],
        },
        Case {
            name: "explain: nothing ends a completion",
            setup: |dir| {
                inputs_but(dir, "tokenizer_config.json", &[("<|im_end|>' }", ".' }")]);
                let path = dir.join("model/config.json");
                let mut config: serde_json::Value =
                    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                config.as_object_mut().unwrap().shift_remove("eos_token_id");
                fs::write(path, config.to_string()).unwrap();
                fs::remove_file(dir.join("model/generation_config.json")).unwrap();
            },
            args: EXPLAIN,
            code: 1,
            says: &["nothing would end a completion", "add eos_token_id"],
        },
        Case {
            name: "explain: no explanation was finished",
            setup: inputs,
            args: &[
                "explain",
                "-q",
                "--model",
                "model",
                "--data",
                "rows.jsonl",
                "--out",
                "out/rows.jsonl",
                "--format",
                "messages",
                "sampling.max_new_tokens=1",
            ],
            code: 1,
            says: &[
                "none of the 1 explanations can be learnt from: 1 cut at the length limit",
                "raise sampling.max_new_tokens",
            ],
        },
        Case {
            name: "explain: output below a file",
            setup: inputs,
            args: &[
                "explain",
                "-q",
                "--model",
                "model",
                "--data",
                "rows.jsonl",
                "--out",
                "rows.jsonl/t.jsonl",
            ],
            code: 1,
            says: &["rows.jsonl/t.jsonl: "],
        },
    ]);
}

#[test]
fn wrong_evaluations() {
    check(&[
        Case {
            name: "eval: unknown task",
            setup: inputs,
            args: &["eval", "--model", "model", "--task", "markt", "--out", "out/eval.json"],
            code: 2,
            says: &["the task \"markt\" is neither a file nor a world (market, numbers)"],
        },
        Case {
            name: "eval: no task",
            setup: inputs,
            args: &["eval", "--model", "model", "--out", "out/eval.json"],
            code: 2,
            says: &["required arguments were not provided"],
        },
        Case {
            name: "eval: questions for a task that has its own",
            setup: inputs,
            args: &[
                "eval",
                "--model",
                "model",
                "--task",
                "rows.jsonl",
                "--data",
                "rows.jsonl",
                "--out",
                "out/eval.json",
            ],
            code: 2,
            says: &["--data gives a world its questions", "rows.jsonl is a file and has its own"],
        },
        Case {
            name: "eval: two tasks of one name",
            setup: inputs,
            args: &[
                "eval",
                "--model",
                "model",
                "--task",
                "rows.jsonl",
                "--task",
                "./rows.jsonl",
                "--out",
                "out/eval.json",
            ],
            code: 2,
            says: &["two tasks are called `rows`"],
        },
        Case {
            name: "eval: negative temperature",
            setup: inputs,
            args: &[
                "eval",
                "--model",
                "model",
                "--task",
                "market",
                "--temperature=-1",
                "--out",
                "out/eval.json",
            ],
            code: 2,
            says: &["sampling.temperature is -1.0; it must be 0, or between 0.0001 and 10000.0"],
        },
        Case {
            name: "eval: rows without solutions",
            setup: |dir| inputs_with(dir, "{\"question\":\"q\",\"answer\":\"9\"}\n"),
            args: EVAL,
            code: 1,
            says: &["rows.jsonl, row 1: no column `solution` (data.solution names it)", "`answer`"],
        },
        Case {
            name: "eval: prompt longer than the context",
            setup: long_question,
            args: EVAL,
            code: 1,
            says: &["the prompt of row 2: a sequence of ", "context of 512"],
        },
        Case {
            name: "eval: tokenizer without a needed token",
            setup: tag_that_cannot_be_written,
            args: EVAL,
            code: 1,
            says: &["cannot write the tag `<|end_of_explanation|>`"],
        },
        Case {
            name: "eval: output below a file",
            setup: inputs,
            args: &[
                "eval",
                "-q",
                "--model",
                "model",
                "--task",
                "rows.jsonl",
                "--out",
                "rows.jsonl/eval.json",
            ],
            code: 1,
            says: &["rows.jsonl/eval.json: "],
        },
    ]);
}

#[test]
fn wrong_sequences() {
    check(&[
        Case {
            name: "logprobs: neither text nor ids",
            setup: inputs,
            args: LOGPROBS,
            code: 1,
            says: &["rows.jsonl, row 1: no column `text` or `ids`; the row has `question`, `solution`"],
        },
        Case {
            name: "logprobs: both text and ids",
            setup: |dir| inputs_with(dir, "{\"text\":\"a\",\"ids\":[1]}\n"),
            args: LOGPROBS,
            code: 1,
            says: &["rows.jsonl, row 1: has both `text` and `ids`"],
        },
        Case {
            name: "logprobs: ids that are no ids",
            setup: |dir| inputs_with(dir, "{\"ids\":[1]}\n{\"ids\":[1.5]}\n"),
            args: LOGPROBS,
            code: 1,
            says: &["rows.jsonl, row 2: column `ids` is not a list of token ids"],
        },
        Case {
            name: "logprobs: unknown token",
            setup: |dir| inputs_with(dir, "{\"ids\":[1,100000]}\n"),
            args: LOGPROBS,
            code: 1,
            says: &["rows.jsonl, row 1: token 100000 is beyond the model's"],
        },
        Case {
            name: "logprobs: longer than the context",
            setup: |dir| inputs_with(dir, &format!("{{\"text\":\"{}\"}}\n", "x".repeat(600))),
            args: LOGPROBS,
            code: 1,
            says: &["rows.jsonl, row 1: a sequence of 600 tokens is longer than the model's context of 512"],
        },
        Case {
            name: "logprobs: temperature zero",
            setup: inputs,
            args: &[
                "logprobs",
                "--model",
                "model",
                "--data",
                "rows.jsonl",
                "--out",
                "out/l.jsonl",
                "--temperature",
                "0",
            ],
            code: 2,
            says: &["'0' for '--temperature <T>': a number above 0 is expected"],
        },
        Case {
            name: "logprobs: text without a tokenizer",
            setup: |dir| {
                inputs_with(dir, "{\"text\":\"a\"}\n");
                fs::remove_file(dir.join("model/tokenizer.json")).unwrap();
            },
            args: LOGPROBS,
            code: 1,
            says: &["model/: holds neither tokenizer.json"],
        },
        Case {
            name: "logprobs: weights that are not numbers",
            setup: |dir| {
                inputs_with(dir, "{\"ids\":[1,2,3]}\n");
                let model = dir.join("model");
                let mut decoder = Decoder::load(&model).unwrap();
                decoder.parameters_mut().final_norm =
                    rlt_engine::Tensor::full(1, decoder.config().hidden_size, f32::NAN);
                decoder.save(&model).unwrap();
            },
            args: LOGPROBS,
            code: 1,
            says: &["row 1, token 2 (id 2): the log-probability is NaN", "weights are damaged"],
        },
    ]);
}
