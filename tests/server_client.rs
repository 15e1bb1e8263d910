//! Commands with a model behind `rlt serve`, beside the same commands with the model here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rlt::worlds::{ModelShape, Sizes, World, WorldContent};
use rlt_model::Decoder;
use rlt_model::config::ModelConfig;
use serde_json::Value;

/// A server, ended when it is dropped.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rlt() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
}

/// `rlt serve` of the model, on a port of the system's choice, which its first line names.
fn serve(dir: &Path, more: &[&str]) -> Server {
    let mut child = rlt()
        .current_dir(dir)
        .args(["serve", "--model", "model", "--port", "0"])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines.map_while(Result::ok).find_map(|line| {
        let at = line.find("http://")?;
        Some(line[at..].split([' ', ',', ';']).next()?.trim_end_matches('/').to_owned())
    });
    let url = found.expect("it says where it listens");
    Server { child, url }
}

fn run(dir: &Path, args: &[&str]) -> Output {
    rlt().current_dir(dir).args(args).arg("-q").output().unwrap()
}

fn succeeds(dir: &Path, args: &[&str]) {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder with a world's questions, a model of random weights (`model`), and its text side alone (`text`).
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Sizes { textbook: 4, teacher_sft: 4, questions_train: 12, questions_heldout: 4 };
    let shape = ModelShape { hidden_size: 32, intermediate_size: 64, n_layers: 2, n_heads: 2, context: 768 };
    let files = World::Market.write_dataset(&dir.path().join("world"), 5, &sizes, &shape).unwrap();
    let model = ModelConfig::from_dir(&files.model).unwrap();
    // Far from uniform, so that scores differ from token to token.
    Decoder::random(&model, 3).save(&files.model).unwrap();
    std::fs::rename(&files.model, dir.path().join("model")).unwrap();
    std::fs::rename(&files.questions_train, dir.path().join("rows.jsonl")).unwrap();
    std::fs::create_dir(dir.path().join("text")).unwrap();
    for entry in std::fs::read_dir(dir.path().join("model")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            std::fs::copy(&path, dir.path().join("text").join(path.file_name().unwrap())).unwrap();
        }
    }
    dir
}

/// Whether two values are the same but for numbers, which may be `apart`.
fn near(a: &Value, b: &Value, apart: f64) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= apart,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b, apart))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.keys().eq(b.keys()) && a.iter().all(|(key, value)| near(value, &b[key], apart))
        }
        (a, b) => a == b,
    }
}

#[test]
fn explain_score_logprobs_and_eval_write_the_rows_that_they_write_here() {
    let dir = folder();
    let server = serve(dir.path(), &[]);
    let url = format!("server.url={}", server.url);
    let short = "sampling.max_new_tokens=24";

    let explain = ["explain", "--data", "rows.jsonl", "-n", "2", short];
    succeeds(dir.path(), &[&explain[..], &["--model", "model", "--out", "here.jsonl"]].concat());
    succeeds(dir.path(), &[&explain[..], &["--model", "text", "--out", "there.jsonl", &url]].concat());
    let here = rows(&dir.path().join("here.jsonl"));
    assert_eq!(here.len(), 24);
    assert_eq!(here, rows(&dir.path().join("there.jsonl")));

    let at_one = ["reward.teacher_temperature=1", "reward.student_temperature=1"];
    let score = [&["score", "--data", "here.jsonl", "--ledger"][..], &at_one].concat();
    let both = |folder: &'static str| ["--teacher", folder, "--student", folder];
    succeeds(dir.path(), &[&score[..], &both("model"), &["--out", "scored.jsonl"]].concat());
    succeeds(dir.path(), &[&score[..], &both("text"), &["--out", "served.jsonl", &url]].concat());
    let (scored, served) = (rows(&dir.path().join("scored.jsonl")), rows(&dir.path().join("served.jsonl")));
    assert!(scored.iter().any(|row| row["parts"]["status"] == "ok"));
    assert_eq!(scored.len(), served.len());
    for (here, there) in scored.iter().zip(&served) {
        assert!(near(here, there, 1e-4), "{here}\n{there}");
        let logprobs = |row: &Value| row["solution_logprobs"].clone();
        assert!(near(&logprobs(here), &logprobs(there), 2e-5));
    }

    std::fs::write(dir.path().join("ids.jsonl"), "{\"ids\":[5,6,7,8,9]}\n{\"ids\":[3]}\n{\"ids\":[9,9,2]}\n")
        .unwrap();
    let logprobs = ["logprobs", "--data", "ids.jsonl"];
    succeeds(dir.path(), &[&logprobs[..], &["--model", "model", "--out", "l1.jsonl"]].concat());
    succeeds(dir.path(), &[&logprobs[..], &["--model", "text", "--out", "l2.jsonl", &url]].concat());
    let (here, there) = (rows(&dir.path().join("l1.jsonl")), rows(&dir.path().join("l2.jsonl")));
    assert!(here.iter().zip(&there).all(|(a, b)| near(a, b, 2e-5)) && here.len() == 3, "{here:?}\n{there:?}");

    let eval = ["eval", "--task", "rows.jsonl", "--max-questions", "6", "-n", "2", short];
    succeeds(dir.path(), &[&eval[..], &["--model", "model", "--out", "e1.json"]].concat());
    succeeds(dir.path(), &[&eval[..], &["--model", "text", "--out", "e2.json", &url]].concat());
    assert_eq!(rows(&dir.path().join("e1_questions.jsonl")), rows(&dir.path().join("e2_questions.jsonl")));

    // What a server cannot do is refused before anything is asked of it.
    let refused = run(
        dir.path(),
        &[&["score", "--data", "here.jsonl", "--out", "no.jsonl"], &both("text")[..], &[&url]].concat(),
    );
    let line = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{line}");
    assert!(
        line.contains("reward.teacher_temperature is 0.7") && !dir.path().join("no.jsonl").exists(),
        "{line}"
    );
}

#[test]
fn a_served_policy_is_trained_as_one_that_is_here() {
    let dir = folder();
    std::fs::create_dir_all(dir.path().join("runs")).unwrap();
    let server = serve(dir.path(), &["--reload-dir", "runs"]);
    let url = format!("server.url={}", server.url);
    let common = [
        "train",
        "model.path=model",
        "model.student=model",
        "data.path=rows.jsonl",
        "grpo.steps=3",
        "grpo.questions_per_step=2",
        "grpo.group_size=4",
        "sampling.max_new_tokens=16",
        "optimizer.learning_rate=1e-3",
        "checkpoint.every=1",
    ];
    succeeds(dir.path(), &[&common[..], &["run_dir=runs/here"]].concat());
    succeeds(dir.path(), &[&common[..], &["run_dir=runs/there", &url]].concat());
    let (here, there) = (
        rows(&dir.path().join("runs/here/metrics.jsonl")),
        rows(&dir.path().join("runs/there/metrics.jsonl")),
    );
    assert_eq!((here.len(), there.len()), (3, 3));
    for (here, there) in here.iter().zip(&there) {
        let mismatch = there["mismatch_max"].as_f64().unwrap();
        assert!(mismatch < 1e-4, "{there}");
        let reward = |row: &Value| row["reward_mean"].as_f64().unwrap();
        assert!((reward(here) - reward(there)).abs() < 1e-3 + mismatch, "{here}\n{there}");
        assert_eq!((&there["version_lag_max"], &there["server_retries"]), (&0.into(), &0.into()));
    }
    // The last weights alone are kept, and what was learnt is there.
    let served: Vec<String> = std::fs::read_dir(dir.path().join("runs/there/served"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(served, ["step-000003"]);

    // Killed wherever it is, the same command continues as if nothing had happened.
    let killed = [&common[..], &["run_dir=runs/killed", &url]].concat();
    for wait_ms in [400, 900] {
        let mut child =
            rlt().current_dir(dir.path()).args(&killed).arg("-q").stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        let _ = child.kill();
        let _ = child.wait();
    }
    succeeds(dir.path(), &killed);
    let again = rows(&dir.path().join("runs/killed/metrics.jsonl"));
    let untimed = |row: &Value| {
        let columns = row.as_object().unwrap().iter();
        columns
            .filter(|(name, _)| !rlt::metrics::is_time(name) && *name != "server_retries")
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Vec<_>>()
    };
    assert!(again.iter().map(untimed).eq(there.iter().map(untimed)), "{again:?}\n{there:?}");

    // A step ahead lags by one step, and no more.
    succeeds(dir.path(), &[&common[..], &["run_dir=runs/ahead", "rollout.steps_ahead=1", &url]].concat());
    let lags: Vec<u64> = rows(&dir.path().join("runs/ahead/metrics.jsonl"))
        .iter()
        .map(|row| row["version_lag_max"].as_u64().unwrap())
        .collect();
    assert_eq!(lags, [0, 1, 1]);
}

/// A request without a body.
fn post(url: &str, path: &str) {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_does_not_wait_for_a_server_and_the_same_command_goes_on() {
    let dir = folder();
    let server = serve(dir.path(), &[]);
    let url = format!("server.url={}", server.url);
    let explain = ["explain", "--data", "rows.jsonl", "-n", "24", "sampling.max_new_tokens=48"];
    succeeds(dir.path(), &[&explain[..], &["--model", "model", "--out", "here.jsonl"]].concat());
    let there =
        [&explain[..], &["--model", "text", "--out", "there.jsonl", "server.in_flight=1", &url]].concat();
    let mut child = rlt().current_dir(dir.path()).args(&there).stderr(Stdio::null()).spawn().unwrap();
    // The rows' file is there before the first completion is asked for.
    let begun = dir.path().join(".there.jsonl.rlt-partial");
    for _ in 0..2000 {
        if begun.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // It takes requests, calls itself healthy and answers none.
    post(&server.url, "/pause?mode=wait");
    std::thread::sleep(Duration::from_millis(300));
    let (asked, pid) = (Instant::now(), child.id().to_string());
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(status.code(), Some(130), "{status}");
    post(&server.url, "/resume");
    succeeds(dir.path(), &there);
    assert_eq!(rows(&dir.path().join("here.jsonl")), rows(&dir.path().join("there.jsonl")));
    // Nothing is left beside it.
    let hidden = std::fs::read_dir(dir.path()).unwrap().flatten();
    let hidden: Vec<_> =
        hidden.map(|e| e.file_name()).filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert_eq!(hidden, [""; 0]);
}

#[test]
fn a_served_model_needs_no_memory_here() {
    let dir = folder();
    let planned = |more: &[&str]| -> Value {
        let plan = [
            "plan",
            "--for",
            "train",
            "model.path=model",
            "model.student=model",
            "data.path=rows.jsonl",
            "--json",
        ];
        let output =
            run(dir.path(), &[&plan[..], &["reward.student_temperature=1", "grpo.beta=0"], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // Nobody is asked: nothing listens there.
    let served = planned(&["server.url=http://127.0.0.1:9", "student_server.url=http://127.0.0.1:9"]);
    let here = planned(&[]);
    assert!(here["stays_bytes"]["student"].as_u64().unwrap() > 0, "{here}");
    assert_eq!(served["stays_bytes"]["student"].as_u64().unwrap_or(0), 0, "{served}");
    assert!(
        here["step_s"].get("generation").is_some() && served["step_s"].get("generation").is_none(),
        "{served}"
    );
}

#[test]
fn doctor_tells_what_a_server_can_do() {
    let dir = folder();
    let server = serve(dir.path(), &[]);
    let output = run(dir.path(), &["doctor", "--server", &server.url, "--model", "model", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["agreement"]["max"].as_f64().unwrap() < 2e-5, "{found}");
    assert!(found["sampled_per_s"].as_f64().unwrap() > 0.0);
    let abilities = found["abilities"].as_array().unwrap();
    assert!(abilities[..3].iter().all(|ability| ability["obstacle"].is_null()), "{found}");
    let weights = abilities[3]["obstacle"].as_str().unwrap_or_default();
    assert!(weights.contains("--reload-dir"), "{found}");
}
