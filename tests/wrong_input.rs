//! Everything a user can get wrong ends in one clear line: what, where, what to do. Each case is a
//! call that must fail with its exit code, say its words on exactly one `error:` line, and leave no
//! output behind.

#[path = "wrong_input/bombs.rs"]
mod bombs;
#[path = "wrong_input/data.rs"]
mod data;
mod emulated;
#[path = "wrong_input/generation.rs"]
mod generation;
#[path = "wrong_input/hub.rs"]
mod hub;
mod scripted;
#[path = "wrong_input/terminal.rs"]
mod terminal;
#[path = "wrong_input/weights.rs"]
mod weights;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use emulated::patience;
use rlt::worlds::lexicon::{ModelShape, write_model_folder};
use rlt_model::weights::{Dtype, TensorView, write_safetensors};

/// A wrong call in a folder of its own.
struct Case {
    name: &'static str,
    /// Puts the input files into the folder.
    setup: fn(&Path),
    args: &'static [&'static str],
    code: i32,
    /// What the line must say: the place, the fault, the next step.
    says: &'static [&'static str],
}

/// Runs a case and returns every way in which it falls short.
fn faults(case: &Case) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    (case.setup)(dir.path());
    let before = files_below(dir.path());
    let output = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(case.args)
        // A hub that nobody answers for, and no cache.
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("NO_PROXY", "127.0.0.1")
        .env("HF_HUB_CACHE", "no-cache")
        .env_remove("HF_HUB_DOWNLOAD_TIMEOUT")
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("HF_DATASETS_OFFLINE")
        .timeout(std::time::Duration::from_secs_f64(patience(60.0)))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut faults = Vec::new();
    if output.status.code() != Some(case.code) {
        faults.push(format!("exit {:?} instead of {}", output.status.code(), case.code));
    }
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    if lines.len() != 1 {
        faults.push(format!("{} lines with `error:`", lines.len()));
    }
    for words in case.says {
        if !lines.iter().any(|line| line.contains(words)) {
            faults.push(format!("does not say {words:?}"));
        }
    }
    if stderr.contains("panicked") {
        faults.push("panicked".into());
    }
    if !output.stdout.is_empty() {
        faults.push("wrote to standard output".into());
    }
    let after = files_below(dir.path());
    if after != before {
        faults.push(format!("files before {before:?}, after {after:?}"));
    }
    faults.into_iter().map(|fault| format!("{}: {fault}; stderr: {stderr}", case.name)).collect()
}

/// Every file below `dir`; folders may be left behind, files may not.
fn files_below(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path.display().to_string());
        }
    }
    files.sort();
    files
}

fn check(cases: &[Case]) {
    let faults: Vec<String> = cases.iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A model folder without weights, as the built-in world makes it, with `name` replaced by `content`
/// (removed when that is empty).
fn model_with(dir: &Path, name: &str, content: &str) {
    let model = dir.join("model");
    fs::create_dir_all(&model).unwrap();
    write_model_folder(&model, &ModelShape::default()).unwrap();
    if content.is_empty() {
        fs::remove_file(model.join(name)).unwrap();
    } else {
        write(&model, name, content);
    }
    write(dir, "chat.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"How many?\"}]}\n");
}

const RENDER: &[&str] = &["render", "--model", "model", "--data", "chat.jsonl", "--out", "out/text.jsonl"];

const SCORE: &[&str] = &[
    "score",
    "-q",
    "--config",
    "score.toml",
    "--teacher",
    "model",
    "--student",
    "student",
    "--data",
    "rows.jsonl",
    "--out",
    "out/scored.jsonl",
];

/// [`SCORE`], ended by a row without a question or a solution.
const STRICT_SCORE: &[&str] = &[
    "score",
    "--strict",
    "--config",
    "score.toml",
    "--teacher",
    "model",
    "--student",
    "student",
    "--data",
    "rows.jsonl",
    "--out",
    "out/scored.jsonl",
];

/// Everything that [`SCORE`] needs, except that the two models have no weights.
fn score_inputs(dir: &Path) {
    model_with(dir, "unused.json", "{}");
    fs::create_dir(dir.join("student")).unwrap();
    write_model_folder(&dir.join("student"), &ModelShape::default()).unwrap();
    write(dir, "score.toml", "");
    write(
        dir,
        "rows.jsonl",
        "{\"question\":\"How many?\",\"solution\":\"9\",\"completion\":\"look<|end_of_explanation|>\"}\n",
    );
}

/// [`score_inputs`] with one file written last.
fn score_with(dir: &Path, name: &str, content: &str) {
    score_inputs(dir);
    write(dir, name, content);
}

/// Weights with one tensor, which is not the one that the model needs.
fn write_weights(dir: &Path, name: &str, shape: &[usize]) {
    let data = vec![0.5; shape.iter().product()];
    let path = dir.join("model/model.safetensors");
    write_safetensors(&path, &[TensorView { name, shape, data: &data }], Dtype::F32).unwrap();
}

const SELECT: &[&str] = &["select", "--data", "rows.jsonl", "--out", "out/kept.jsonl", "--by", "best"];

#[test]
fn wrong_arguments() {
    check(&[
        Case {
            name: "unknown command",
            setup: |_| {},
            args: &["selekt"],
            code: 2,
            says: &["unrecognized subcommand 'selekt'"],
        },
        Case {
            name: "unknown flag",
            setup: |_| {},
            args: &["select", "--treshold", "1"],
            code: 2,
            says: &["unexpected argument '--treshold'"],
        },
        Case {
            name: "flag without its needed companion",
            setup: |_| {},
            args: &["select", "--data", "rows.jsonl", "--by", "best"],
            code: 2,
            says: &["required arguments were not provided"],
        },
        Case {
            name: "unknown selection rule",
            setup: |_| {},
            args: &["select", "--data", "rows.jsonl", "--out", "out", "--by", "worst"],
            code: 2,
            says: &[
                "'worst' for '--by <RULE>'",
                "best, threshold=R, top=SHARE, groups=K or relative-groups=K",
            ],
        },
        Case {
            name: "no threads",
            setup: |_| {},
            args: &["select", "--data", "rows.jsonl", "--out", "out", "--by", "best", "--threads", "0"],
            code: 2,
            says: &["'0' for '--threads <N>'"],
        },
        Case {
            name: "more groups than rows",
            setup: |dir| write(dir, "rows.jsonl", "{\"question\":\"q\",\"reward\":1}\n"),
            args: &["select", "--data", "rows.jsonl", "--out", "out/kept.jsonl", "--by", "groups=2"],
            code: 2,
            says: &["--by groups=2", "rows.jsonl has only 1 rows with a reward"],
        },
    ]);
}

#[test]
fn wrong_data_files() {
    check(&[
        Case {
            name: "missing file",
            setup: |_| {},
            args: SELECT,
            code: 1,
            says: &["rows.jsonl: No such file"],
        },
        Case {
            name: "malformed JSON",
            setup: |dir| write(dir, "rows.jsonl", "{\"question\":\"q\",\"reward\":1}\n{\"question\": q}\n"),
            args: SELECT,
            code: 1,
            says: &["rows.jsonl, row 2: malformed JSON"],
        },
        Case {
            name: "a row that is no object",
            setup: |dir| write(dir, "rows.jsonl", "[1]\n"),
            args: SELECT,
            code: 1,
            says: &["rows.jsonl, row 1: not a JSON object"],
        },
        Case {
            name: "empty file",
            setup: |dir| write(dir, "rows.jsonl", "\n"),
            args: SELECT,
            code: 1,
            says: &["rows.jsonl: the file has no rows"],
        },
        Case {
            name: "invalid UTF-8",
            setup: |dir| {
                write(dir, "rows.jsonl", b"{\"question\":\"q\",\"reward\":1}\n{\"question\":\"\xff\"}\n");
            },
            args: SELECT,
            code: 1,
            says: &["rows.jsonl, row 2: not valid UTF-8"],
        },
        Case {
            name: "another kind of file",
            setup: |dir| write(dir, "rows.txt", "question"),
            args: &["select", "--data", "rows.txt", "--out", "out/kept.jsonl", "--by", "best"],
            code: 1,
            says: &["rows.txt: not a data file", ".jsonl"],
        },
        Case {
            name: "folder without data",
            setup: |dir| write(dir, "folder/notes.txt", ""),
            args: &["select", "--data", "folder", "--out", "out/kept.jsonl", "--by", "best"],
            code: 1,
            says: &["folder: the folder holds no .jsonl"],
        },
        Case {
            name: "missing column",
            setup: |dir| write(dir, "rows.jsonl", "{\"question\":\"q\",\"completion\":\"c\"}\n"),
            args: SELECT,
            code: 1,
            says: &["rows.jsonl, row 1: no column `reward`", "run `rlt score` first", "`completion`"],
        },
        Case {
            name: "column of another type",
            setup: |dir| write(dir, "rows.jsonl", "{\"question\":\"q\",\"reward\":\"high\"}\n"),
            args: SELECT,
            code: 1,
            says: &["rows.jsonl, row 1: column `reward` is \"high\", not a number"],
        },
        Case {
            name: "nothing to keep",
            setup: |dir| write(dir, "rows.jsonl", "{\"question\":\"q\",\"reward\":null}\n"),
            args: SELECT,
            code: 1,
            says: &["rows.jsonl: no row was kept; none of them has a reward"],
        },
        Case {
            name: "output below a file",
            setup: |dir| write(dir, "rows.jsonl", "{\"question\":\"q\",\"reward\":1}\n"),
            args: &["select", "--data", "rows.jsonl", "--out", "rows.jsonl/kept.jsonl", "--by", "best"],
            code: 1,
            says: &["rows.jsonl/kept.jsonl: "],
        },
    ]);
}

#[test]
fn wrong_runs() {
    check(&[
        Case {
            name: "missing run",
            setup: |_| {},
            args: &["report", "runs/none"],
            code: 1,
            says: &["runs/none: no such run directory", "the folder that holds metrics.jsonl"],
        },
        Case {
            name: "nothing to report",
            setup: |dir| write(dir, "run/notes.txt", ""),
            args: &["report", "run"],
            code: 1,
            says: &["run: nothing to report yet", "no metrics.jsonl"],
        },
        Case {
            name: "damaged metrics",
            setup: |dir| {
                write(
                    dir,
                    "run/metrics.jsonl",
                    "{\"step\":1,\"loss\":2}\n{\"step\":2,,}\n{\"step\":3,\"loss\":1}\n",
                );
            },
            args: &["report", "run"],
            code: 1,
            says: &["run/metrics.jsonl, row 2: not a JSON object", "remove the line"],
        },
    ]);
}

#[test]
fn wrong_tokenizers_and_chat_templates() {
    check(&[
        Case {
            name: "missing model folder",
            setup: |dir| write(dir, "chat.jsonl", "{}"),
            args: RENDER,
            code: 1,
            says: &["model: no such folder", "Hugging Face layout"],
        },
        Case {
            name: "model folder without a tokenizer",
            setup: |dir| model_with(dir, "tokenizer.json", ""),
            args: RENDER,
            code: 1,
            says: &["model/: holds neither tokenizer.json"],
        },
        Case {
            name: "damaged tokenizer",
            setup: |dir| model_with(dir, "tokenizer.json", "{\"version\": \"1.0\", \"model\": {"),
            args: RENDER,
            code: 1,
            says: &["model/tokenizer.json: is not a tokenizer.json that can be read"],
        },
        Case {
            name: "no chat template",
            setup: |dir| model_with(dir, "tokenizer_config.json", "{}"),
            args: RENDER,
            code: 1,
            says: &["model/tokenizer_config.json: has no chat_template", "add one"],
        },
        Case {
            name: "chat template that cannot be parsed",
            setup: |dir| model_with(dir, "chat_template.jinja", "{% for message in %}"),
            args: RENDER,
            code: 1,
            says: &["model/chat_template.jinja: chat template: line 1"],
        },
        Case {
            name: "chat template that refuses the conversation",
            setup: |dir| model_with(dir, "chat_template.jinja", "{{ raise_exception('system first') }}"),
            args: RENDER,
            code: 1,
            says: &["chat.jsonl, row 1: chat template: ", "system first"],
        },
        Case {
            name: "message without content",
            setup: |dir| {
                model_with(dir, "chat_template.jinja", "{{ messages }}");
                write(dir, "chat.jsonl", "{\"messages\":[{\"role\":\"user\",\"contents\":\"typo\"}]}\n");
            },
            args: RENDER,
            code: 1,
            says: &["chat.jsonl, row 1: message 1 has no text under `content`"],
        },
        Case {
            name: "rows without messages",
            setup: |dir| {
                model_with(dir, "chat_template.jinja", "{{ messages }}");
                write(dir, "chat.jsonl", "{\"question\":\"q\"}\n");
            },
            args: RENDER,
            code: 1,
            says: &["chat.jsonl, row 1: no column `messages`; the row has `question`"],
        },
    ]);
}

#[test]
fn wrong_configurations() {
    check(&[
        #[cfg(unix)]
        Case {
            name: "a configuration without end",
            setup: |_| {},
            args: &["train", "--config", "/dev/zero"],
            code: 2,
            says: &["/dev/zero: cannot read the configuration: a device or a socket, not a file"],
        },
        Case {
            name: "a configuration of another size",
            setup: |dir| fs::File::create(dir.join("c.toml")).unwrap().set_len((16 << 20) + 1).unwrap(),
            args: &["train", "--config", "c.toml"],
            code: 2,
            says: &["c.toml: cannot read the configuration: has more than 16 MB"],
        },
        #[cfg(unix)]
        Case {
            name: "a style without end",
            setup: |dir| {
                score_with(dir, "score.toml", "[prompts]\nstyle = 'endless.toml'\n");
                std::os::unix::fs::symlink("/dev/zero", dir.join("endless.toml")).unwrap();
            },
            args: SCORE,
            code: 1,
            says: &["endless.toml: a device or a socket, not a file"],
        },
        #[cfg(unix)]
        Case {
            name: "a task without end",
            setup: |dir| {
                score_inputs(dir);
                std::os::unix::fs::symlink("/dev/zero", dir.join("endless.toml")).unwrap();
            },
            args: &["eval", "--model", "model", "--task", "endless.toml", "--out", "out.json"],
            code: 2,
            says: &["endless.toml: cannot read the task: a device or a socket, not a file"],
        },
        Case {
            name: "unknown key",
            setup: |dir| score_with(dir, "score.toml", "[reward]\nlamda = 3\n"),
            args: SCORE,
            code: 2,
            says: &[
                "score.toml: unknown key `lamda` in table [reward]",
                "nearest known key is `reward.lambda`",
            ],
        },
        Case {
            name: "unknown table",
            setup: |dir| score_with(dir, "score.toml", "[rewards]\nlambda = 3\n"),
            args: SCORE,
            code: 2,
            says: &["score.toml: unknown key `rewards` at the top level", "nearest known key is `reward`"],
        },
        Case {
            name: "wrong type",
            setup: |dir| score_with(dir, "score.toml", "[reward]\nalpha = 'small'\n"),
            args: SCORE,
            code: 2,
            says: &["score.toml: `alpha` in table [reward] must be a number, found the text \"small\""],
        },
        Case {
            name: "unknown choice",
            setup: |dir| score_with(dir, "score.toml", "[reward]\nkl = 'exact'\n"),
            args: SCORE,
            code: 2,
            says: &[
                "score.toml: `kl` in table [reward]: unknown variant `exact`, expected one of `sampled`, `k3`, `full`",
            ],
        },
        Case {
            name: "value out of range",
            setup: |dir| score_with(dir, "score.toml", "[reward]\nstudent_temperature = 0\n"),
            args: SCORE,
            code: 2,
            says: &["reward.student_temperature is 0.0; it must be between 0.0001 and 10000.0"],
        },
        Case {
            name: "malformed TOML",
            setup: |dir| score_with(dir, "score.toml", "[reward]\nalpha = = 3\n"),
            args: SCORE,
            code: 2,
            says: &["score.toml: line 2 is not valid TOML"],
        },
        Case {
            name: "missing configuration",
            setup: |dir| {
                score_inputs(dir);
                fs::remove_file(dir.join("score.toml")).unwrap();
            },
            args: SCORE,
            code: 2,
            says: &["score.toml: cannot read the configuration: No such file"],
        },
        Case {
            name: "unknown key on the command line",
            setup: score_inputs,
            args: &["score", "--data", "rows.jsonl", "--out", "out/scored.jsonl", "reward.lamda=3"],
            code: 2,
            says: &["`reward.lamda=3`: unknown key `lamda`", "`reward.lambda`"],
        },
        Case {
            name: "no value on the command line",
            setup: score_inputs,
            args: &["score", "--data", "rows.jsonl", "--out", "out/scored.jsonl", "reward.lambda"],
            code: 2,
            says: &["`reward.lambda`: an override is written key=value"],
        },
        Case {
            name: "unknown prompt style",
            setup: |dir| score_with(dir, "score.toml", "[prompts]\nstyle = 'r2'\n"),
            args: SCORE,
            code: 2,
            says: &["prompts.style `r2` is neither"],
        },
        Case {
            name: "no teacher",
            setup: score_inputs,
            args: &["score", "--data", "rows.jsonl", "--out", "out/scored.jsonl"],
            code: 2,
            says: &["--teacher DIR, or model.path in the configuration"],
        },
    ]);
}

#[test]
fn wrong_traces() {
    check(&[
        Case {
            name: "no solution column",
            setup: |dir| score_with(dir, "rows.jsonl", "{\"question\":\"q\",\"completion\":\"c\"}\n"),
            args: SCORE,
            code: 1,
            says: &["rows.jsonl, row 1: no column `solution` (data.solution names it)", "`completion`"],
        },
        Case {
            name: "empty solution",
            setup: |dir| {
                score_with(
                    dir,
                    "rows.jsonl",
                    "{\"question\":\"q\",\"solution\":\"1\",\"completion\":\"c\"}\n{\"question\":\"q\",\"solution\":\"\",\"completion\":\"c\"}\n",
                );
            },
            args: STRICT_SCORE,
            code: 1,
            says: &["rows.jsonl, row 2: the solution is empty"],
        },
        Case {
            name: "empty question",
            setup: |dir| {
                score_with(
                    dir,
                    "rows.jsonl",
                    "{\"question\":\" \",\"solution\":\"1\",\"completion\":\"c\"}\n",
                );
            },
            args: STRICT_SCORE,
            code: 1,
            says: &["rows.jsonl, row 1: the question is empty"],
        },
        Case {
            name: "no trace column",
            setup: |dir| score_with(dir, "rows.jsonl", "{\"question\":\"q\",\"solution\":\"1\"}\n"),
            args: SCORE,
            code: 1,
            says: &["rows.jsonl, row 1: no column `completion`, `explanation` or `reasoning_trace`"],
        },
        Case {
            name: "ids that are no ids",
            setup: |dir| {
                score_with(
                    dir,
                    "rows.jsonl",
                    "{\"question\":\"q\",\"solution\":\"1\",\"completion\":\"c\",\"completion_ids\":[-1]}\n",
                );
            },
            args: SCORE,
            code: 1,
            says: &["rows.jsonl, row 1: column `completion_ids` is not a list of token ids"],
        },
    ]);
}

#[test]
fn wrong_models() {
    check(&[
        #[cfg(unix)]
        Case {
            name: "a description without end",
            setup: |dir| {
                score_inputs(dir);
                fs::remove_file(dir.join("model/config.json")).unwrap();
                std::os::unix::fs::symlink("/dev/zero", dir.join("model/config.json")).unwrap();
            },
            args: SCORE,
            code: 1,
            says: &["model/config.json: a device or a socket, not a file"],
        },
        #[cfg(unix)]
        Case {
            name: "weights that nobody writes",
            setup: |dir| {
                score_inputs(dir);
                let pipe = dir.join("model/model.safetensors");
                assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
            },
            args: SCORE,
            code: 1,
            says: &["model/model.safetensors: a pipe, not a file"],
        },
        Case {
            name: "missing student",
            setup: |dir| {
                score_inputs(dir);
                fs::remove_dir_all(dir.join("student")).unwrap();
            },
            args: SCORE,
            code: 1,
            says: &["student: no such folder", "Hugging Face layout"],
        },
        Case {
            name: "teacher and student with other tokenizers",
            setup: |dir| {
                score_inputs(dir);
                let path = dir.join("student/tokenizer.json");
                let other =
                    fs::read_to_string(&path).unwrap().replace("<|begin_of_explanation|>", "<|explain|>");
                fs::write(path, other).unwrap();
            },
            args: SCORE,
            code: 2,
            says: &["teacher and student must share one tokenizer", "choose models of one family"],
        },
        Case {
            name: "no weights",
            setup: score_inputs,
            args: SCORE,
            code: 1,
            says: &["model: holds neither model.safetensors nor model.safetensors.index.json"],
        },
        Case {
            name: "truncated weights",
            setup: |dir| {
                score_inputs(dir);
                write_weights(dir, "model.embed_tokens.weight", &[64, 64]);
                let path = dir.join("model/model.safetensors");
                let whole = fs::read(&path).unwrap();
                fs::write(path, &whole[..whole.len() / 2]).unwrap();
            },
            args: SCORE,
            code: 1,
            says: &["model/model.safetensors: is not a complete safetensors file", "download it again"],
        },
        Case {
            name: "tensor of another shape",
            setup: |dir| {
                score_inputs(dir);
                write_weights(dir, "model.embed_tokens.weight", &[2, 3]);
            },
            args: SCORE,
            code: 1,
            says: &["model/model.safetensors: tensor model.embed_tokens.weight has shape [2, 3], expected ["],
        },
        Case {
            name: "missing tensor",
            setup: |dir| {
                score_inputs(dir);
                write_weights(dir, "embed.weight", &[2, 3]);
            },
            args: SCORE,
            code: 1,
            says: &[
                "model/model.safetensors: has no tensor model.embed_tokens.weight, which config.json asks for",
            ],
        },
        Case {
            name: "weights that are a Git LFS pointer",
            setup: |dir| {
                score_with(dir, "model/model.safetensors", "version https://git-lfs.github.com/spec/v1\n");
            },
            args: SCORE,
            code: 1,
            says: &["model/model.safetensors: is a Git LFS pointer", "git lfs pull"],
        },
        Case {
            name: "missing config.json",
            setup: |dir| {
                score_inputs(dir);
                fs::remove_file(dir.join("model/config.json")).unwrap();
            },
            args: SCORE,
            code: 1,
            says: &["model/config.json"],
        },
        Case {
            name: "unknown architecture",
            setup: |dir| {
                score_with(
                    dir,
                    "model/config.json",
                    "{\"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"]}",
                );
            },
            args: SCORE,
            code: 1,
            says: &["model/config.json: ", "gpt2", "supported: qwen2, qwen3, llama"],
        },
    ]);
}
