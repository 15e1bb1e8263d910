//! Everything a user can get wrong ends in one clear line: what, where, what to do. Each case is a
//! call that must fail with its exit code, say its words on exactly one `error:` line, and leave no
//! output behind.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use rlt::worlds::lexicon::{ModelShape, write_model_folder};

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
        .timeout(std::time::Duration::from_secs(60))
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
            says: &["'worst' for '--by <RULE>'", "best, threshold=R, top=SHARE or groups=K"],
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
