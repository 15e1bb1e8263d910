//! `rlt eval` as a program, with a student that says what a script says.

mod scripted;

use std::path::Path;

use assert_cmd::Command;
use rlt::config::DataConfig;
use rlt::dataset::read_questions;
use rlt::evaluate::{EvalReport, QuestionRecord};
use rlt::worlds::lexicon::{ModelShape, write_model_folder};
use rlt::worlds::{World, WorldContent};
use serde_json::{Value, json};

/// After the assistant's line: an empty thought, then `Tom has9.`
const SCRIPT: [(&str, &str); 9] = [
    ("\n", "<|begin_of_thought|>"),
    ("<|begin_of_thought|>", "\n\n"),
    ("\n\n", "<|end_of_thought|>"),
    ("<|end_of_thought|>", "<|begin_of_solution|>"),
    ("<|begin_of_solution|>", "Tom"),
    ("Tom", " has"),
    (" has", "9"),
    ("9", "."),
    (".", "<|end_of_solution|>"),
];

/// A folder with a scripted student whose solution is `Tom has9.`
fn scripted_student() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut script = SCRIPT.to_vec();
    script.push(("<|end_of_solution|>", "<|im_end|>"));
    scripted::write_scripted_model(&dir.path().join("model"), &script, 512);
    let rows = [
        r#"{"question":"a","solution":" Tom\n  has9. "}"#,
        r#"{"question":"b","solution":"Tom has 9."}"#,
        r#"{"question":"c","solution":"9"}"#,
        r#"{"question":"d","solution":"Tom has9."}"#,
    ];
    std::fs::write(dir.path().join("quiz.jsonl"), rows.join("\n")).unwrap();
    dir
}

/// Runs `rlt eval` in `dir` and gives its standard output.
fn eval(dir: &Path, args: &[&str]) -> String {
    let assert = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir)
        .args(["eval", "--model", "model", "--out", "eval.json", "-q"])
        .args(args)
        .assert()
        .success()
        .stderr("");
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

fn report(path: &Path) -> (EvalReport, Vec<QuestionRecord>) {
    let report: EvalReport = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let lines = std::fs::read_to_string(path.with_file_name(&report.per_question_file)).unwrap();
    (report, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn rows_of_a_file_are_matched_but_for_white_space() {
    let dir = scripted_student();
    let table = eval(dir.path(), &["--task", "quiz.jsonl", "-n", "2"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..6], ["quiz", "(all)", "4", "2", "50.0", "%"], "{table}");
    assert_eq!(lines[2], ["eval.json"]);

    let (report, records) = report(&dir.path().join("eval.json"));
    assert_eq!((report.task.as_str(), report.model.as_str()), ("quiz", "model"));
    let summary = &report.summary;
    assert_eq!((summary.n_questions, summary.n_samples, summary.accuracy), (4, 2, 0.5));
    assert!(summary.low < 0.5 && summary.high > 0.5);
    assert_eq!((summary.format_rate, summary.truncated_rate, summary.mean_tokens), (1.0, 0.0, 10.0));
    let correct: Vec<bool> = records.iter().map(|record| record.answers[1].correct).collect();
    assert_eq!(correct, [true, false, false, true]);
    assert_eq!(
        records[0].answers[0].completion,
        "<|begin_of_thought|>\n\n<|end_of_thought|><|begin_of_solution|>Tom has9.<|end_of_solution|>"
    );
}

#[test]
fn an_empty_thought_is_given_not_sampled() {
    let dir = scripted_student();
    eval(dir.path(), &["--task", "quiz.jsonl", "--thought", "none"]);
    let (report, records) = report(&dir.path().join("eval.json"));
    assert_eq!((report.summary.accuracy, report.summary.mean_tokens), (0.5, 7.0));
    assert!(
        records[0].answers[0].completion.starts_with("<|begin_of_thought|>\n\n<|end_of_thought|><|begin")
    );
}

/// The template opens the thought: the answer is the same turn, and the prompt opens nothing twice.
#[test]
fn a_thought_that_the_template_opens_is_part_of_the_answer() {
    let dir = scripted_student();
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}\
                    {% if add_generation_prompt %}<|im_start|>assistant\n<|begin_of_thought|>\n\n{% endif %}";
    std::fs::write(dir.path().join("model/chat_template.jinja"), template).unwrap();
    for (more, tokens) in [(&[][..], 8.0), (&["--thought", "none"], 7.0)] {
        eval(dir.path(), &[&["--task", "quiz.jsonl"], more].concat());
        let (report, records) = report(&dir.path().join("eval.json"));
        assert_eq!((report.summary.accuracy, report.summary.mean_tokens), (0.5, tokens));
        assert_eq!(
            records[0].answers[0].completion,
            "<|begin_of_thought|>\n\n<|end_of_thought|><|begin_of_solution|>Tom has9.<|end_of_solution|>"
        );
    }
}

#[test]
fn answers_cut_short_are_wrong_and_counted() {
    let dir = scripted_student();
    eval(dir.path(), &["--task", "quiz.jsonl", "sampling.max_new_tokens=8"]);
    let summary = report(&dir.path().join("eval.json")).0.summary;
    assert_eq!((summary.accuracy, summary.format_rate, summary.truncated_rate), (0.0, 0.0, 1.0));
}

#[test]
fn a_world_s_questions_are_made_or_read() {
    let dir = scripted_student();
    let answer = eval(
        dir.path(),
        &["--task", "market", "--task", "quiz.jsonl", "--max-questions", "3", "--json", "seed=5"],
    );
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["evaluations"][0]["out"], "eval-market.json");
    assert_eq!(answer["evaluations"][1]["report"]["task"], "quiz");
    let (_, made) = report(&dir.path().join("eval-market.json"));
    let questions: Vec<String> =
        World::Market.heldout_questions(5, 3).into_iter().map(|row| row.question).collect();
    assert_eq!(made.iter().map(|record| record.question.clone()).collect::<Vec<_>>(), questions);
    assert_eq!(made[0].answers[0].extracted, None, "`has9.` holds no whole number");

    eval(dir.path(), &["--task", "market", "--data", "quiz.jsonl"]);
    let (given, records) = report(&dir.path().join("eval.json"));
    assert_eq!((given.task.as_str(), given.split.as_str()), ("market", "quiz"));
    let data = DataConfig { path: dir.path().join("quiz.jsonl"), ..DataConfig::default() };
    assert_eq!(records.len(), read_questions(&data).unwrap().len());
}

/// The files of `rlt eval` with a model of random weights: figures and records.
fn random_eval(dir: &Path, out: &str, args: &[&str]) -> (String, String) {
    Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir)
        .args([
            "eval",
            "--model",
            "model",
            "--task",
            "market",
            "-q",
            "--max-questions",
            "300",
            "-n",
            "16",
            "--out",
            out,
        ])
        .args(["sampling.max_new_tokens=24"])
        .args(args)
        .assert()
        .success();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let report = read(&dir.join(out)).replace(&out.replace(".json", "_questions.jsonl"), "QUESTIONS");
    (report, read(&dir.join(out.replace(".json", "_questions.jsonl"))))
}

#[test]
fn batches_and_threads_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), 256);
    let plain = random_eval(dir.path(), "a.json", &[]);
    assert_eq!(random_eval(dir.path(), "b.json", &["sampling.max_running=1"]), plain);
    assert_eq!(random_eval(dir.path(), "c.json", &["sampling.max_running=5", "--threads", "1"]), plain);
    assert_ne!(random_eval(dir.path(), "d.json", &["seed=9"]).1, plain.1, "the seed counts");
    let page = std::fs::read_to_string(dir.path().join("a.html")).unwrap();
    assert!(page.contains("Wrong answers: market") && page.contains("class=\"reason\""));
}

#[test]
fn a_killed_evaluation_goes_on_to_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), 256);
    let batch = ["sampling.max_running=1"];
    let whole = random_eval(dir.path(), "a.json", &batch);
    let (partial, state) = (dir.path().join(".b.json.rlt-partial"), dir.path().join(".b.json.rlt-state"));
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["eval", "--model", "model", "--task", "market", "-q", "--max-questions", "300", "-n", "16"])
        .args(["--out", "b.json", "sampling.max_new_tokens=24", batch[0]])
        .spawn()
        .unwrap();
    while committed(&state)["state"].as_u64().unwrap_or(0) < 2 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!dir.path().join("b.json").exists(), "nothing half-written");
    let (kept, stood) = (std::fs::read_to_string(&partial).unwrap(), committed(&state));
    let n_bytes = stood["bytes"].as_u64().unwrap() as usize;
    // What is left is gone on with, not made again: a record that is changed, its checksum too, stays so.
    let changed = kept[..n_bytes].replacen("\"truncated\":true", "\"truncated\":false", 1);
    let mut stands = stood.clone();
    stands["bytes"] = changed.len().into();
    stands["crc32c"] = crc32c::crc32c(changed.as_bytes()).into();
    std::fs::write(&partial, &changed).unwrap();
    std::fs::write(&state, stands.to_string()).unwrap();
    let marked = random_eval(dir.path(), "b.json", &batch);
    assert_ne!(marked.1, whole.1);
    assert!(!partial.exists() && !state.exists());

    // Left as it was, and damaged without its checksum.
    for rows in [kept, changed] {
        std::fs::write(&partial, rows).unwrap();
        std::fs::write(&state, stood.to_string()).unwrap();
        assert_eq!(random_eval(dir.path(), "b.json", &batch), whole);
    }
}

/// What an evaluation has committed so far; null before that.
fn committed(state: &Path) -> Value {
    std::fs::read(state).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

#[test]
fn a_killed_evaluation_goes_on_with_its_date() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    scripted::write_random_model(&dir.join("model"), 256);
    let path = dir.join("model/tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let template = config["chat_template"].as_str().unwrap();
    config["chat_template"] = format!("{{{{ strftime_now('%d %b %Y') }}}}{template}").into();
    std::fs::write(path, config.to_string()).unwrap();
    // Time zones that never have the same date.
    let (first, other) = ("AAA-14", "BBB+11");
    let on_day = |zone: &str, out: &str| {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
        command.current_dir(dir).env("TZ", zone);
        command.args([
            "eval",
            "--model",
            "model",
            "--task",
            "market",
            "-q",
            "--max-questions",
            "300",
            "-n",
            "16",
        ]);
        command.args(["--out", out, "sampling.max_new_tokens=24", "sampling.max_running=1"]);
        command
    };
    let answers = |zone: &str, out: &str| {
        assert!(on_day(zone, out).status().unwrap().success());
        std::fs::read(dir.join(out.replace(".json", "_questions.jsonl"))).unwrap()
    };
    let whole = answers(first, "a.json");
    assert!(whole != answers(other, "b.json"), "the date counts");
    let mut child = on_day(first, "c.json").spawn().unwrap();
    while committed(&dir.join(".c.json.rlt-state"))["state"].as_u64().unwrap_or(0) < 2 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(whole == answers(other, "c.json"), "another day changed the answers");
}

/// A small student that was trained on eight questions until it answers some of them, and a file of these.
fn trained_student(dir: &Path) {
    let row = |i: usize| {
        let (name, a, b) = (["Tom", "Mira", "Ana"][i % 3], 11 + i * 29 % 37, 1 + i * 5 % 9);
        json!({
            "question": format!("{name} has {a} apples. She finds {b}. How many?"),
            "solution": format!("{name} has {} apples.", a + b),
            "reasoning_trace": "Let us see.",
        })
        .to_string()
    };
    let rows: Vec<String> = (0..8).map(row).collect();
    std::fs::write(dir.join("quiz.jsonl"), rows.join("\n")).unwrap();
    let shape = ModelShape { hidden_size: 64, intermediate_size: 128, n_layers: 2, n_heads: 2, context: 512 };
    write_model_folder(&dir.join("base"), &shape).unwrap();
    let overrides =
        ["model.path=base", "data.path=quiz.jsonl", "run_dir=run", "sft.epochs=100", "checkpoint.every=0"];
    Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir)
        .args(["sft", "-q", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests/sft.toml")])
        .args(overrides)
        .assert()
        .success();
    std::fs::rename(dir.join("run/model"), dir.join("model")).unwrap();
}

const QUIZ: [&str; 10] = [
    "eval",
    "--model",
    "model",
    "--task",
    "quiz.jsonl",
    "-q",
    "-n",
    "20",
    "sampling.max_new_tokens=60",
    "prompts.student_system=",
];

/// Every file of an evaluation on the quiz, without its own name.
fn quiz(dir: &Path, out: &str, args: &[&str]) -> (String, String) {
    Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir)
        .args(QUIZ)
        .args(["--out", &format!("{out}.json")])
        .args(args)
        .assert()
        .success();
    let read = |name: String| std::fs::read_to_string(dir.join(name)).unwrap();
    (read(format!("{out}.json")).replace(out, "OUT"), read(format!("{out}_questions.jsonl")))
}

#[test]
fn a_trained_model_is_measured_alike_in_any_batch_on_any_threads_and_after_kills() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    trained_student(dir);
    let whole = quiz(dir, "whole", &[]);
    let (figures, records) = report(&dir.join("whole.json"));
    let accuracy = figures.summary.accuracy;
    assert!(accuracy > 0.05 && accuracy < 0.95, "neither hopeless nor sure: {accuracy}");
    let right = records.iter().flat_map(|record| &record.answers).filter(|answer| answer.correct).count();
    assert_eq!(right as f64 / 160.0, accuracy);
    assert!(figures.summary.low < accuracy && accuracy < figures.summary.high);

    for (i, args) in [
        &["sampling.max_running=1"][..],
        &["sampling.max_running=7"],
        &["sampling.max_running=64", "--threads", "1"],
        &["sampling.max_running=5", "--threads", "3"],
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(quiz(dir, &format!("again{i}"), args), whole, "{args:?}");
    }

    // Killed again and again, each time a little further on, and called again in another way each time.
    let partial = dir.join(".killed.json.rlt-partial");
    let lines = || std::fs::read_to_string(&partial).unwrap_or_default().lines().count();
    let mut kills = 0;
    for running in ["1", "2", "1", "3", "1"] {
        let before = lines().max(1);
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
            .current_dir(dir)
            .args(QUIZ)
            .args(["--out", "killed.json", "--threads", running, &format!("sampling.max_running={running}")])
            .spawn()
            .unwrap();
        while lines() <= before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        if child.try_wait().unwrap().is_some() {
            // On a busy machine it may be over before it is seen to have begun: the next attempt begins anew.
            if kills > 0 {
                break;
            }
            std::fs::remove_file(dir.join("killed.json")).unwrap();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(!dir.join("killed.json").exists(), "nothing half-written");
    }
    assert!(kills > 0, "it was never killed in the middle");
    assert_eq!(quiz(dir, "killed", &["sampling.max_running=4"]), whole);
}

#[test]
fn evaluations_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), 256);
    random_eval(dir.path(), "a.json", &[]);
    random_eval(dir.path(), "b.json", &["seed=0"]);
    let assert = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["compare", "a.json", "b.json", "--out", "page.html", "--json"])
        .assert()
        .success();
    let answer: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    let comparison = &answer["comparisons"][0];
    assert_eq!(
        (comparison["n_questions"].as_u64(), comparison["difference"].as_f64()),
        (Some(300), Some(0.0))
    );
    assert_eq!(comparison["p_value"].as_f64(), Some(1.0));
    assert!(std::fs::read_to_string(dir.path().join("page.html")).unwrap().contains("question by question"));
}

#[test]
fn a_benchmark_is_asked_with_its_prompt_and_graded_by_its_grader() {
    let dir = scripted_student();
    let row = r#"{"problem":"What is 9?","answer":"\\frac{18}{2}"}"#;
    std::fs::write(dir.path().join("copy.jsonl"), format!("{row}\n{}", row.replace("18", "16"))).unwrap();
    eval(dir.path(), &["--task", "math500", "--data", "copy.jsonl"]);
    let (report, records) = report(&dir.path().join("eval.json"));
    assert_eq!(
        (report.task.as_str(), report.split.as_str(), report.summary.accuracy),
        ("math500", "copy", 0.5)
    );
    assert!(records[0].question.starts_with("Return your final response within \\boxed{}. What is 9?"));
    assert_eq!(records[1].answers[0].extracted.as_deref(), Some("9"));
    assert_eq!(records[1].answers[0].reason, "different: 9 is not 8");
    assert_eq!(report.summary.format_rate, 0.0, "nothing is boxed");
}
