//! `rlt explain` as a program, with a teacher that says what a script says.

mod scripted;

use std::path::Path;

use assert_cmd::Command;
use rlt::config::DataConfig;
use rlt::dataset::{Finish, read_questions, read_records, read_traces};
use rlt::prompts::PromptStyle;
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Value, json};

/// After the prompt's padding: ` She finds.`, the end of the explanation, the end of the turn.
const SCRIPT: [(&str, &str); 5] = [
    ("\n\n", " She"),
    (" She", " finds"),
    (" finds", "."),
    (".", "<|end_of_explanation|>"),
    ("<|end_of_explanation|>", "<|im_end|>"),
];

const ROWS: &str = "{\"id\":7,\"question\":\"How many?\",\"solution\":\"9\"}\n{\"question\":\"Who?\",\"solution\":\"Tom\"}\n";

/// Runs `rlt explain` in `dir` and gives the rows it wrote and its answer.
fn explain(dir: &Path, args: &[&str]) -> (Vec<Value>, Value) {
    let assert = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir)
        .args(["explain", "--model", "model", "--data", "rows.jsonl", "--out", "out.jsonl", "-q", "--json"])
        .args(args)
        .assert()
        .success()
        .stderr("");
    let answer = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    let written = std::fs::read_to_string(dir.join("out.jsonl")).unwrap();
    (written.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), answer)
}

/// A folder with a scripted teacher and two questions.
fn scripted_teacher() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_scripted_model(&dir.path().join("model"), &SCRIPT, 512);
    std::fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    dir
}

#[test]
fn traces_hold_what_was_sampled() {
    let dir = scripted_teacher();
    let (rows, answer) = explain(dir.path(), &["-n", "2"]);
    let tokenizer = Tokenizer::from_dir(&dir.path().join("model")).unwrap();
    assert_eq!(rows.len(), 4);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row["question"], ["How many?", "Who?"][i / 2]);
        assert_eq!(row["sample"], i % 2);
        assert_eq!(row["completion"], " She finds.<|end_of_explanation|>");
        assert_eq!((&row["explanation"], &row["finish"]), (&json!(" She finds."), &json!("stop")));
        let ids: Vec<u32> = serde_json::from_value(row["completion_ids"].clone()).unwrap();
        assert_eq!(tokenizer.decode(&ids), " She finds.<|end_of_explanation|><|im_end|>");
    }
    assert_eq!((&rows[0]["id"], rows[2].get("id")), (&json!(7), None));
    let counts = json!({"questions": 2, "traces": 4, "closed": 4, "empty": 0, "forged": 0, "truncated": 0, "tokens": 20, "rows": 4, "left_out": [], "without_question_or_solution": [], "out": "out.jsonl"});
    assert_eq!(answer, counts);

    let data = DataConfig { path: dir.path().join("out.jsonl"), ..DataConfig::default() };
    let traces = read_traces(&data, PromptStyle::stratos()).unwrap();
    assert_eq!((traces[3].finish, traces[3].question.solution.as_str()), (Finish::Stop, "Tom"));
}

#[test]
fn rows_without_a_question_or_a_solution_keep_their_place() {
    let dir = scripted_teacher();
    let (first, second) = ROWS.trim().split_once('\n').unwrap();
    let null = r#"{"id":1,"question":"Why?","solution":null}"#;
    let space = r#"{"id":2,"question":" \n","solution":"9"}"#;
    let rows = [null, first, space, space, second, null].join("\n");
    std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let (rows, answer) = explain(dir.path(), &["-n", "2"]);
    let questions: Vec<&str> = rows.iter().map(|row| row["question"].as_str().unwrap()).collect();
    assert_eq!(questions, ["Why?", "How many?", "How many?", " \n", " \n", "Who?", "Who?", "Why?"]);
    assert_eq!((&rows[0]["completion"], &rows[0]["id"]), (&Value::Null, &json!(1)));
    assert_eq!(rows[0]["reason"], "the solution is empty (null)");
    assert_eq!((&answer["traces"], &answer["rows"]), (&json!(4), &json!(8)));
    let named = answer["without_question_or_solution"].as_array().unwrap();
    assert_eq!(named.iter().map(|gap| gap["row"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3, 4, 6]);
    assert_eq!(named[1]["reason"], "the question is empty");
    // Draws do not change: the same questions alone are explained likewise.
    let explained: Vec<Value> = rows.into_iter().filter(|row| row.get("reason").is_none()).collect();
    std::fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    assert_eq!(explain(dir.path(), &["-n", "2"]).0, explained);
    // Training rows leave them out, and who wants the stop gets it.
    std::fs::write(dir.path().join("rows.jsonl"), format!("{null}\n{ROWS}")).unwrap();
    let (rows, answer) = explain(dir.path(), &["--format", "messages"]);
    assert_eq!((rows.len(), answer["without_question_or_solution"].as_array().unwrap().len()), (2, 1));
    let strict = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["explain", "--model", "model", "--data", "rows.jsonl", "--out", "strict.jsonl", "--strict"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&strict.stderr);
    assert_eq!(strict.status.code(), Some(1));
    assert!(stderr.contains("error: rows.jsonl, row 1: the solution is empty (null)"), "{stderr}");
}

#[test]
fn training_rows_read_back_as_questions_with_a_thought() {
    let dir = scripted_teacher();
    for format in ["conversations", "messages"] {
        let (rows, _) = explain(dir.path(), &["--format", format]);
        assert_eq!(rows.len(), 2);
        assert!(rows[0][format].is_array());
        // What other tools write has the turns alone.
        let turns: String =
            rows.iter().map(|row| json!({ format: row[format] }).to_string() + "\n").collect();
        let path = dir.path().join("turns.jsonl");
        std::fs::write(&path, turns).unwrap();
        let questions = read_questions(&DataConfig { path, ..DataConfig::default() }).unwrap();
        assert_eq!((questions[1].question.as_str(), questions[1].solution.as_str()), ("Who?", "Tom"));
        assert_eq!(questions[1].reasoning_trace.as_deref().map(str::trim), Some("She finds."));
    }
}

/// Leaves the files where `tests/parity/read_distilled.py` can check that other programs read them.
#[test]
fn training_rows_say_the_same_in_both_kinds_of_file() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("distilled");
    std::fs::create_dir_all(&dir).unwrap();
    scripted::write_scripted_model(&dir.join("model"), &SCRIPT, 512);
    let names = [
        "quote \" and \\",
        "line\nbreak\r\n",
        "tab\t",
        "你好 \u{1f469}\u{200d}\u{1f680}",
        "nul\u{0}",
        "</s><s>",
        " ",
    ];
    let rows: Vec<String> = (0..40)
        .map(|i| {
            let name = names[i % names.len()];
            let tags = &names[..i % 4];
            let more = if i % 3 == 0 { Value::Null } else { json!({"source": name, "n": [i, i + 1]}) };
            json!({"question": format!("{i}: {name}?"), "solution": format!("{name}{i}"), "id": i, "share": i as f64 / 7.0,
                   "hard": i % 2 == 0, "tags": tags, "meta": more})
            .to_string()
        })
        .collect();
    std::fs::write(dir.join("rows.jsonl"), rows.join("\n")).unwrap();
    for format in ["conversations", "messages"] {
        let files = ["jsonl", "parquet"].map(|kind| {
            let out = format!("{format}.{kind}");
            Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
                .current_dir(&dir)
                .args([
                    "explain",
                    "--model",
                    "model",
                    "--data",
                    "rows.jsonl",
                    "-q",
                    "--format",
                    format,
                    "--out",
                    &out,
                ])
                .assert()
                .success();
            read_records(&dir.join(out), 0).unwrap()
        });
        let [jsonl, parquet] =
            files.map(|records| records.into_iter().map(|r| r.columns).collect::<Vec<_>>());
        assert_eq!(jsonl.len(), 40);
        assert_eq!(jsonl, parquet);
    }
}

#[test]
fn explanations_cut_short_are_traces_but_no_training_rows() {
    let dir = scripted_teacher();
    let (rows, answer) = explain(dir.path(), &["sampling.max_new_tokens=2"]);
    assert_eq!((&rows[0]["completion"], &rows[0]["finish"]), (&json!(" She finds"), &json!("length")));
    assert_eq!((&answer["closed"], &answer["truncated"]), (&json!(0), &json!(2)));
    let failed = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["explain", "--model", "model", "--data", "rows.jsonl", "--out", "none.jsonl", "-q"])
        .args(["--format", "messages", "sampling.max_new_tokens=2"])
        .assert()
        .code(1);
    let stderr = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
    let says = "none of the 2 explanations can be learnt from: 2 cut at the length limit (row 1 sample 0, row 2 sample 0)";
    assert!(stderr.contains(says), "{stderr}");
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "model, rows.jsonl and out.jsonl of the run before: {left:?}");
}

/// A teacher that is as likely to say something as to close at once, and as likely to end its turn at any moment.
#[test]
fn every_explanation_that_is_left_out_is_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let script = [
        ("\n\n", " She"),
        ("\n\n", "<|end_of_explanation|>"),
        (" She", "<|end_of_explanation|>"),
        (" She", " She"),
        (" She", "<|im_end|>"),
        ("<|end_of_explanation|>", "<|im_end|>"),
    ];
    scripted::write_scripted_model(&dir.path().join("model"), &script, 512);
    std::fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    let args = ["-n", "40", "sampling.max_new_tokens=3"];
    let (traces, of_traces) = explain(dir.path(), &args);
    assert_eq!((traces.len(), &of_traces["left_out"]), (80, &json!([])));
    // What was sampled tells, by itself, what must be left out and why.
    let mut expected = Vec::new();
    for (i, trace) in traces.iter().enumerate() {
        let completion = trace["completion"].as_str().unwrap();
        let reason = match completion.split_once("<|end_of_explanation|>") {
            Some(("", _)) => "empty",
            Some(_) => continue,
            None if trace["finish"] == "length" => "truncated",
            None => "unclosed",
        };
        expected.push(json!({"row": i / 40 + 1, "sample": i % 40, "reason": reason}));
    }
    let count = |reason: &str| expected.iter().filter(|left| left["reason"] == reason).count();
    let [empty, truncated, unclosed] = ["empty", "truncated", "unclosed"].map(count);
    assert!(empty > 20 && truncated > 2 && unclosed > 2, "{empty} {truncated} {unclosed}");

    for format in ["messages", "conversations"] {
        let (rows, answer) = explain(dir.path(), &[&args[..], &["--format", format]].concat());
        assert_eq!(answer["left_out"], json!(expected));
        assert_eq!((&answer["rows"], rows.len()), (&json!(80 - expected.len()), 80 - expected.len()));
        assert_eq!((&answer["empty"], &answer["traces"]), (&json!(empty), &json!(80)));
        assert_eq!(answer["closed"], json!(80 - truncated - unclosed));
    }
    let said = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["explain", "--model", "model", "--data", "rows.jsonl", "--out", "out.jsonl", "-q"])
        .args(["--format", "messages"])
        .args(args)
        .assert()
        .success();
    let said = String::from_utf8_lossy(&said.get_output().stdout).into_owned();
    let first = expected.iter().find(|left| left["reason"] == "empty").unwrap();
    for part in [
        format!("left out {} of 80 explanations: ", expected.len()),
        format!("{truncated} cut at the length limit (row "),
        format!("{unclosed} ended without the end tag (row "),
        format!("{empty} closed but empty (row {} sample {}, ", first["row"], first["sample"]),
        format!(" and {} more, which --json names)", empty - 20),
    ] {
        assert!(said.contains(&part), "no {part:?} in {said}");
    }
}

#[test]
fn draws_depend_on_seed_row_and_sample_alone() {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), 512);
    std::fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    let run = |args: &[&str]| {
        let args = [&["-n", "3", "sampling.max_new_tokens=8"], args].concat();
        explain(dir.path(), &args).0
    };
    let rows = run(&[]);
    assert_eq!(rows, run(&["--threads", "1"]));
    assert_eq!(rows, run(&["sampling.max_running=1"]));
    assert_ne!(rows, run(&["seed=1"]));
    assert_ne!(rows[0]["completion_ids"], rows[1]["completion_ids"]);
    assert_eq!(rows[..3], run(&["data.max_rows=1"]));
}
