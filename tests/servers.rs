//! Models behind servers that have bad luck: no row changes, weights that have not arrived are found out, and what gives up says
//! so in one line.

mod emulated;
mod outcome;
mod scripted;
mod served;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use emulated::patience;
use outcome::{assert_same, outcome};
use served::Served;
use served::proxy::{Fault, Proxy, Seen};

/// A teacher, a student, and `n` rows.
fn folder(n: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), 512);
    scripted::write_random_model(&dir.path().join("student"), 512);
    let row = |i: usize| {
        let question = format!("Tom has {} eggs and buys {} eggs. How many eggs?", i % 50, i % 7);
        format!("{}\n", json!({ "id": i, "question": question, "solution": format!("{}", i % 50 + i % 7) }))
    };
    std::fs::write(dir.path().join("rows.jsonl"), (0..n).map(row).collect::<String>()).unwrap();
    dir
}

/// How long a server may take to answer.
fn timeout(seconds: f64) -> String {
    format!("server.timeout_s={}", patience(seconds))
}

/// A call of rlt in `dir`.
fn call(dir: &Path, args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
    command.current_dir(dir).args(args).args(["--quiet", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A call that succeeds, and its answer.
fn rlt(dir: &Path, args: &[String]) -> Value {
    let output = call(dir, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const EXPLAIN: [&str; 6] =
    ["explain", "--model", "model", "--data", "rows.jsonl", "sampling.max_new_tokens=8"];

fn explain(out: &str, more: &[&str]) -> Vec<String> {
    let timeout = timeout(2.0);
    let words = [&EXPLAIN[..], &[&timeout, "--out", out], more].concat();
    words.into_iter().map(str::to_owned).collect()
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[track_caller]
fn assert_same_rows(dir: &Path, name: &str) {
    let (here, there) = (read(dir, "here.jsonl"), read(dir, name));
    for (row, (here, there)) in here.lines().zip(there.lines()).enumerate() {
        assert_eq!(there, here, "{name}, row {row}");
    }
    assert_eq!(there.lines().count(), here.lines().count(), "{name}");
}

/// `/v1/completions`, counted from 0.
fn completions(
    plan: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static,
) -> impl Fn(&Seen) -> Option<Fault> {
    let n = AtomicUsize::new(0);
    move |seen: &Seen| {
        if seen.path == "/v1/completions" { plan(n.fetch_add(1, Ordering::SeqCst)) } else { None }
    }
}

#[test]
fn what_passes_changes_no_row_whatever_it_is() {
    let dir = folder(15);
    let dir = dir.path();
    let server = Served::start(&dir.join("model"), &[]);
    rlt(dir, &explain("here.jsonl", &[]));
    let faults = [
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Slow(Duration::from_millis(300)),
        Fault::Slow(Duration::from_secs_f64(patience(4.0))),
        Fault::Cut,
        Fault::Garbage,
        Fault::Hang,
        Fault::Lost,
    ];
    thread::scope(|scope| {
        for (i, fault) in faults.into_iter().enumerate() {
            let port = server.port;
            scope.spawn(move || {
                let proxy = Proxy::start(port, completions(move |n| (n % 5 == 2).then_some(fault)));
                let (out, url) = (format!("there-{i}.jsonl"), format!("server.url={}", proxy.url()));
                rlt(dir, &explain(&out, &[&url]));
                assert_same_rows(dir, &out);
                assert!(proxy.faults() >= 3, "{fault:?}: {}", proxy.faults());
            });
        }
    });
}

/// A call that fails with exit code 1 and one line, which it gives.
fn one_line(dir: &Path, args: &[String]) -> String {
    let output = call(dir, args).output().unwrap();
    let line = said(&output);
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    line
}

#[test]
fn what_lasts_ends_it_at_once_in_one_line_and_what_was_answered_stays() {
    let dir = folder(40);
    let dir = dir.path();
    let server = Served::start(&dir.join("model"), &[]);
    rlt(dir, &explain("here.jsonl", &[]));

    // Another model behind the same address, after some rows: the server's own words.
    let proxy = Proxy::start(server.port, completions(|n| (n >= 20).then_some(Fault::OtherModel)));
    let url = format!("server.url={}", proxy.url());
    let line = one_line(dir, &explain("there.jsonl", &[&url, "server.in_flight=2"]));
    assert!(line.contains("The model `another` does not exist"), "{line}");
    assert!(proxy.faults() <= 4, "it is not asked again and again: {}", proxy.faults());
    assert!(!dir.join("there.jsonl").exists());

    // Nothing but errors: it gives up after so many attempts, and says how to go on.
    let proxy = Proxy::start(server.port, completions(|n| (n >= 20).then_some(Fault::Status(500))));
    let url = format!("server.url={}", proxy.url());
    let line = one_line(dir, &explain("there.jsonl", &[&url, "server.in_flight=2", "server.retries=2"]));
    assert!(line.contains("500") && line.contains("made up"), "{line}");

    // The same command continues at the true address; what was answered is not asked again.
    let proxy = Proxy::start(server.port, |_| None);
    let url = format!("server.url={}", proxy.url());
    rlt(dir, &explain("there.jsonl", &[&url]));
    assert_same_rows(dir, "there.jsonl");

    // Nobody there at all.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("server.url=http://127.0.0.1:{free}");
    let line = one_line(dir, &explain("nobody.jsonl", &[&url, "server.retries=1"]));
    assert!(line.contains(&format!("127.0.0.1:{free}")), "{line}");
}

#[test]
fn completions_that_are_broken_off_are_none_and_a_pause_is_waited_for() {
    let dir = folder(30);
    let dir = dir.path();
    let server = Served::start(&dir.join("model"), &["--max-running", "4"]);
    // Long enough that some are under way whenever it is paused.
    let timeout = timeout(20.0);
    let long = ["sampling.max_new_tokens=300", timeout.as_str()];
    rlt(dir, &explain("here.jsonl", &long));
    // What asks whether the server samples as rlt does is over when a completion of a row is asked for.
    let is_asked = Arc::new(AtomicBool::new(false));
    let asked = is_asked.clone();
    let proxy = Proxy::start(server.port, move |seen: &Seen| {
        let body: Value = serde_json::from_str(seen.body).unwrap_or_default();
        asked.fetch_or(body["max_tokens"].as_u64() > Some(100), Ordering::SeqCst);
        None
    });
    let url = format!("server.url={}", proxy.url());
    let mut child =
        call(dir, &explain("there.jsonl", &[&[url.as_str()], &long[..]].concat())).spawn().unwrap();
    while !is_asked.load(Ordering::SeqCst) && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(2));
    }
    let mut pauses = 0;
    while child.try_wait().unwrap().is_none() && pauses < 5 {
        thread::sleep(Duration::from_millis(50));
        server.post("/pause?mode=abort", &json!({})).ok();
        thread::sleep(Duration::from_millis(100));
        server.post("/resume", &json!({})).ok();
        pauses += 1;
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_same_rows(dir, "there.jsonl");
    assert!(pauses > 0);

    // One that is paused before work begins is not even asked.
    server.post("/pause?mode=wait", &json!({})).ok();
    let output = call(dir, &explain("paused.jsonl", &[&url])).output().unwrap();
    let line = said(&output);
    assert!(output.status.code() == Some(2) && line.contains("/resume"), "{line}");
}

#[test]
fn a_server_that_is_paused_under_work_and_stays_so_is_given_up_in_time() {
    let dir = folder(60);
    let dir = dir.path();
    let server = Served::start(&dir.join("model"), &[]);
    rlt(dir, &explain("here.jsonl", &[]));
    let proxy = Proxy::start(
        server.port,
        completions(|n| (n >= 20).then_some(Fault::Slow(Duration::from_millis(50)))),
    );
    let url = format!("server.url={}", proxy.url());
    let timeout = timeout(0.5);
    let little = [url.as_str(), "server.in_flight=2", &timeout, "server.retries=1"];
    let child = call(dir, &explain("there.jsonl", &little)).spawn().unwrap();
    while proxy.requests() < 25 {
        thread::sleep(Duration::from_millis(2));
    }
    server.post("/pause?mode=wait", &json!({})).ok();
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    let line = said(&output);
    assert_eq!((output.status.code(), line.trim_end().lines().count()), (Some(1), 1), "{line}");
    assert!(began.elapsed().as_secs_f64() < patience(15.0) && line.contains(&proxy.url()), "{line}");
    server.post("/resume", &json!({})).ok();
    rlt(dir, &explain("there.jsonl", &[&url]));
    assert_same_rows(dir, "there.jsonl");
}

/// Three steps of training in `dir` by a served policy.
fn train(dir: &Path, run: &str, more: &[&str]) -> Command {
    let (run, timeout) = (format!("run_dir=runs/{run}"), timeout(10.0));
    let common = [
        "train",
        "model.path=model",
        "model.student=student",
        "data.path=rows.jsonl",
        "grpo.steps=3",
        "grpo.questions_per_step=2",
        "grpo.group_size=4",
        "sampling.max_new_tokens=12",
        "optimizer.learning_rate=1e-3",
        "checkpoint.every=1",
        &timeout,
        &run,
    ];
    call(dir, &[&common[..], more].concat())
}

/// A folder for training, with a server that takes weights.
fn served_policy() -> (tempfile::TempDir, Served) {
    let dir = folder(8);
    std::fs::create_dir(dir.path().join("runs")).unwrap();
    let runs = dir.path().join("runs");
    let server = Served::start(&dir.path().join("model"), &["--reload-dir", runs.to_str().unwrap()]);
    (dir, server)
}

#[test]
fn weights_that_have_not_arrived_end_a_run_in_one_line_and_the_same_command_goes_on() {
    let (dir, server) = served_policy();
    let dir = dir.path();
    let whole = Proxy::start(server.port, |_| None);
    let url = format!("server.url={}", whole.url());
    let output = train(dir, "whole", &[&url]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let expected = outcome(&dir.join("runs/whole"));

    let claims = |answer: &'static str| Fault::Claim(answer);
    let traps: [(&str, Fault, &str); 4] = [
        // It says that it has loaded them, as a real one does of a tied head, or with a cache that is stale.
        ("/collective_rpc", claims(r#"{"results":[null]}"#), "probe"),
        ("/collective_rpc", Fault::OtherFolder, "weights_path"),
        ("/collective_rpc", Fault::Status(500), "made up"),
        ("/update_weight_version", claims(r#"{"success":true,"new_version":"step-000002"}"#), "labelled"),
    ];
    for (i, (path, fault, says)) in traps.into_iter().enumerate() {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let proxy = Proxy::start(server.port, move |seen: &Seen| {
            let is_second = seen.path == path && seen.body.contains("step-000002");
            (is_second && !over.load(Ordering::SeqCst)).then_some(fault)
        });
        let (run, url) = (format!("trap-{i}"), format!("server.url={}", proxy.url()));
        let output = train(dir, &run, &[&url]).output().unwrap();
        let line = said(&output);
        assert_eq!(
            (output.status.code(), line.trim_end().lines().count()),
            (Some(1), 1),
            "{fault:?}: {line}"
        );
        assert!(line.contains(says), "{fault:?}: {line}");
        is_over.store(true, Ordering::SeqCst);
        let output = train(dir, &run, &[&url]).output().unwrap();
        assert!(output.status.success(), "{fault:?}: {}", said(&output));
        assert_same(&expected, &dir.join("runs").join(&run), &format!("{fault:?}"));
    }
}

#[test]
fn a_trainer_that_is_killed_between_export_and_proof_goes_on_as_if_nothing_had_happened() {
    let (dir, server) = served_policy();
    let dir = dir.path();
    let url = format!("server.url={}", server.url());
    let output = train(dir, "whole", &[&url]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let expected = outcome(&dir.join("runs/whole"));

    // Before the weights are loaded, after it, and with a server that is left paused.
    for (i, path) in ["/pause", "/collective_rpc", "/reset_prefix_cache", "/resume", "/weight_info"]
        .into_iter()
        .enumerate()
    {
        let (n, hangs) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        let hung = hangs.clone();
        let proxy = Proxy::start(server.port, move |seen: &Seen| {
            // The push of the second step, and of no other attempt.
            let is_label = path != "/weight_info" || seen.body.is_empty();
            let counts = seen.path.starts_with(path) && is_label && !seen.body.contains("/nowhere/");
            let is_third =
                counts && n.fetch_add(1, Ordering::SeqCst) == if path == "/weight_info" { 6 } else { 2 };
            (is_third && !hung.swap(true, Ordering::SeqCst)).then_some(Fault::Hang)
        });
        let (run, url) = (format!("killed-{i}"), format!("server.url={}", proxy.url()));
        let mut child = train(dir, &run, &[&url]).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs_f64(patience(60.0));
        while !hangs.load(Ordering::SeqCst) {
            assert!(
                child.try_wait().unwrap().is_none() && Instant::now() < until,
                "{path}: it never came to that"
            );
            thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let output = train(dir, &run, &[&url]).output().unwrap();
        assert!(output.status.success(), "{path}: {}", said(&output));
        assert_same(&expected, &dir.join("runs").join(&run), path);
    }
}

#[test]
fn no_key_is_in_any_file_or_line() {
    const KEY: &str = "sk-0123456789abcdef";
    let dir = folder(3);
    let dir = dir.path();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
    command.env("SERVED_KEY", KEY).args(["serve", "--key-env", "SERVED_KEY"]);
    let server = Served::start_by(command, &dir.join("model"));
    let url = format!("server.url={}", server.url());
    rlt(dir, &explain("here.jsonl", &[]));

    let with_key = |args: &[String]| call(dir, args).env("MY_KEY", KEY).output().unwrap();
    let output = with_key(&explain("there.jsonl", &[&url, "server.key_env=MY_KEY"]));
    assert!(output.status.success(), "{}", said(&output));
    assert_same_rows(dir, "there.jsonl");
    let wrong = call(dir, &explain("wrong.jsonl", &[&url, "server.key_env=MY_KEY"]))
        .env("MY_KEY", "sk-wrong")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code().map(|code| code == 1 || code == 2), Some(true));
    let mut texts = vec![said(&output), said(&wrong), String::from_utf8(output.stdout).unwrap()];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            texts.push(String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned());
        }
    }
    assert!(texts.iter().all(|text| !text.contains(KEY) && !text.contains("sk-wrong")), "{texts:?}");
}

/// Peak memory of a process so far, bytes.
#[cfg(target_os = "linux")]
fn peak(id: u32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<usize>().ok().map(|kib| kib << 10)
}

/// Seven kinds of bad luck for one request in five, and a server that is killed twice.
#[test]
#[cfg(target_os = "linux")]
fn a_thousand_rows_are_those_of_an_undisturbed_run_and_memory_is_flat() {
    const LUCK: [Fault; 7] = [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Cut,
        Fault::Garbage,
        Fault::Hang,
        Fault::Lost,
    ];
    let dir = folder(1000);
    let dir = dir.path();
    rlt(dir, &explain("here.jsonl", &[]));
    let mut server = Served::start(&dir.join("model"), &[]);
    let port = server.port.to_string();
    let proxy = Proxy::start(server.port, completions(|n| (n % 5 == 4).then(|| LUCK[(n / 5) % 7])));
    let url = format!("server.url={}", proxy.url());

    let mut child = call(dir, &explain("there.jsonl", &[&url, "server.in_flight=32"])).spawn().unwrap();
    let (mut kills, mut peaks) = (0, Vec::new());
    while child.try_wait().unwrap().is_none() {
        peaks.extend(peak(child.id()).map(|bytes| (proxy.requests(), bytes)));
        if kills < 2 && proxy.requests() > 300 * (kills + 1) {
            server.kill();
            thread::sleep(Duration::from_millis(300));
            server = Served::start(&dir.join("model"), &["--port", &port]);
            kills += 1;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_same_rows(dir, "there.jsonl");
    assert_eq!(kills, 2);
    assert!(proxy.faults() >= 200, "{} of {}", proxy.faults(), proxy.requests());
    let early = peaks.iter().rev().find(|(n, _)| *n < 300).map(|(_, bytes)| *bytes).unwrap();
    let last = peaks.last().unwrap().1;
    assert!(last < early + (16 << 20), "{early} bytes after 300 requests, {last} at the end");
}
