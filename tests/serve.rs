//! `rlt serve` as a program: its numbers, its weights, what it refuses, and whoever is unkind to it.

mod scripted;
mod served;

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::generate::{GenerationRequest, SamplingParams, generate};
use rlt_model::{Decoder, Stop};
use serde_json::{Value, json};

use served::{Served, ask, read_answer};

/// A folder with a model of random weights in `model`.
fn folder(context: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), context);
    dir
}

/// A model of the shape of `like` with other weights.
fn write_other(like: &Path, folder: &Path, seed: u64) {
    std::fs::create_dir_all(folder).unwrap();
    for entry in std::fs::read_dir(like).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    Decoder::random(&ModelConfig::from_dir(folder).unwrap(), seed).save(folder).unwrap();
}

/// Some sequences of ids, of many lengths.
fn sequences(n: usize, longest: usize) -> Vec<Vec<u32>> {
    let length = |i: usize| 1 + (i * 37) % longest;
    (0..n).map(|i| (0..length(i)).map(|j| ((i * 7919 + j * 104_729 + 5) % 300) as u32).collect()).collect()
}

fn f32s(values: &Value) -> Vec<Option<f32>> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().map(|v| v as f32)).collect()
}

fn ids(values: &Value) -> Vec<u32> {
    serde_json::from_value(values.clone()).unwrap()
}

/// The log-probabilities of a prompt: of `prompt_logprobs`, token by token.
fn of_prompt(choice: &Value) -> Vec<Option<f32>> {
    let of_token = |token: &Value| {
        let only = token.as_object()?.values().next().unwrap();
        Some(only["logprob"].as_f64().unwrap() as f32)
    };
    choice["prompt_logprobs"].as_array().unwrap().iter().map(of_token).collect()
}

#[test]
fn scores_are_those_of_rlt_logprobs_bit_for_bit_however_they_are_asked_for() {
    let dir = folder(256);
    let rows = sequences(40, 200);
    let lines: Vec<String> = rows.iter().map(|ids| json!({ "ids": ids }).to_string()).collect();
    std::fs::write(dir.path().join("rows.jsonl"), lines.join("\n")).unwrap();
    Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["logprobs", "--model", "model", "--data", "rows.jsonl", "--out", "out.jsonl", "-q"])
        .assert()
        .success();
    let written = std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap();
    let written = written.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let expected: Vec<Vec<Option<f32>>> = written.map(|row| f32s(&row["logprobs"])).collect();

    let server = Served::start(&dir.path().join("model"), &["--tokens-per-batch", "700"]);
    // One by one and at the same time, as what vLLM calls an echo; then all in one request.
    thread::scope(|scope| {
        for (row, expected) in rows.iter().zip(&expected) {
            let server = &server;
            scope.spawn(move || {
                let asked = json!({ "prompt": row, "max_tokens": 0, "echo": true, "logprobs": 0,
                    "return_tokens_as_token_ids": true });
                let choice = &server.complete(&asked).ok()["choices"][0];
                assert_eq!(&f32s(&choice["logprobs"]["token_logprobs"]), expected);
                assert_eq!(choice["logprobs"]["tokens"][0], format!("token_id:{}", row[0]));
            });
        }
    });
    let all = json!({ "prompt": rows, "max_tokens": 1, "prompt_logprobs": 0, "temperature": 1.0,
        "return_token_ids": true });
    let answer = server.complete(&all).ok();
    assert_eq!(answer["choices"].as_array().unwrap().len(), rows.len());
    for (i, expected) in expected.iter().enumerate() {
        let choice = &answer["choices"][i];
        assert_eq!(choice["index"], i);
        assert_eq!(ids(&choice["prompt_token_ids"]), rows[i]);
        assert_eq!(ids(&choice["token_ids"]).len(), 1);
        assert_eq!(&of_prompt(choice), expected);
        assert!(rows[i].len() < 2 || choice["prompt_logprobs"][1].get(rows[i][1].to_string()).is_some());
    }
    let n_tokens: usize = rows.iter().map(Vec::len).sum();
    assert_eq!(answer["usage"]["prompt_tokens"], n_tokens);
}

#[test]
fn the_same_seed_gives_the_same_completion_whatever_else_runs() {
    let dir = folder(128);
    let model = dir.path().join("model");
    let server = Served::start(&model, &["--max-running", "8"]);
    let prompts = sequences(16, 60);
    let asked = |i: usize| {
        json!({ "prompt": prompts[i], "n": 2, "max_tokens": 12, "temperature": 0.7, "seed": 11 * i, "logprobs": 0,
            "return_token_ids": true, "ignore_eos": true })
    };
    let drawn = |answer: &Value| {
        let choice =
            |choice: &Value| (ids(&choice["token_ids"]), f32s(&choice["logprobs"]["token_logprobs"]));
        answer["choices"].as_array().unwrap().iter().map(choice).collect::<Vec<_>>()
    };
    let alone: Vec<_> = (0..prompts.len()).map(|i| drawn(&server.complete(&asked(i)).ok())).collect();
    thread::scope(|scope| {
        for (i, alone) in alone.iter().enumerate() {
            let (server, asked) = (&server, &asked);
            scope.spawn(move || assert_eq!(&drawn(&server.complete(&asked(i)).ok()), alone));
        }
    });
    assert_ne!(alone[0][0].0, alone[0][1].0, "samples of a prompt differ");
    let mut other = asked(3);
    other["seed"] = 1.into();
    assert_ne!(drawn(&server.complete(&other).ok()), alone[3], "seeds make a difference");
    // Without a seed there is another each time.
    other["seed"] = Value::Null;
    assert_ne!(drawn(&server.complete(&other).ok()), drawn(&server.complete(&other).ok()));

    // What is sampled has the log-probability that the model gives it at that temperature.
    let decoder = Decoder::load(&model).unwrap();
    for (prompt, drawn) in prompts.iter().zip(&alone) {
        let continuations = drawn.iter().map(|(ids, _)| Continuation::whole(ids.clone())).collect();
        let group = ScoringGroup { prefix: prompt.clone().into(), continuations };
        let scored = decoder.token_logprobs(&[group], 0.7, 1000).unwrap();
        for ((_, ours), scored) in drawn.iter().zip(&scored[0]) {
            let close = |(ours, scored): (&Option<f32>, &f32)| (ours.unwrap() - scored).abs() < 2e-5;
            assert!(ours.iter().zip(scored).all(close), "{ours:?} {scored:?}");
        }
    }
}

#[test]
fn draws_can_be_keyed_as_the_engine_keys_them() {
    let dir = folder(128);
    let model = dir.path().join("model");
    let decoder = Decoder::load(&model).unwrap();
    let params = SamplingParams {
        temperature: 0.7,
        top_k: 50,
        top_p: 0.9,
        min_p: 0.0,
        repetition_penalty: 1.0,
        max_new_tokens: 20,
        stop_token_ids: (0..40).collect(),
        max_running: 4,
    };
    let request = GenerationRequest { prompt: vec![5, 6, 7].into(), n: 3, stream: [4, 9] };
    let local = generate(&decoder, &[request], &params, 7, Stop::never(), &mut |_| ()).unwrap();
    let server = Served::start(&model, &[]);
    let stops: Vec<u32> = (0..40).collect();
    let asked = json!({ "prompt": [5, 6, 7], "n": 3, "max_tokens": 20, "temperature": 0.7, "top_k": 50, "top_p": 0.9,
        "rlt_draw": { "seed": 7, "stream": [4, 9] }, "seed": 3, "logprobs": 0, "return_token_ids": true, "ignore_eos": true,
        "stop_token_ids": stops });
    let answer = server.complete(&asked).ok();
    for (choice, local) in answer["choices"].as_array().unwrap().iter().zip(&local[0]) {
        assert_eq!(ids(&choice["token_ids"]), local.ids.as_slice());
        let logprobs: Vec<Option<f32>> = local.logprobs.iter().copied().map(Some).collect();
        assert_eq!(f32s(&choice["logprobs"]["token_logprobs"]), logprobs);
        let last = *local.ids.last().unwrap();
        let (reason, by) = if last < 40 { ("stop", json!(last)) } else { ("length", Value::Null) };
        assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!(reason), &by));
    }
}

#[test]
fn what_is_not_done_is_refused_by_its_name() {
    let dir = folder(64);
    let server = Served::start(&dir.path().join("model"), &[]);
    let prompt = json!([5, 6, 7]);
    for (field, value, says) in [
        ("stream", json!(true), "stream"),
        ("stop", json!(["\n"]), "stop_token_ids"),
        ("logprobs", json!(5), "logprobs"),
        ("prompt_logprobs", json!(1), "prompt_logprobs"),
        ("presence_penalty", json!(0.5), "presence_penalty"),
        ("logit_bias", json!({ "5": 1 }), "logit_bias"),
        ("guided_json", json!({}), "guided_json"),
        ("temperature", json!(-1), "temperature"),
        ("temperature", json!("hot"), "temperature"),
        ("top_p", json!(0), "top_p"),
        ("n", json!(0), "n: 0 is not from 1"),
        ("n", json!(1_000_000_000), "n: 1000000000"),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_tokens", json!(1_000_000_000), "maximum context length is 64"),
        ("prompt", json!([5, 999_999]), "Token id 999999 is out of vocabulary"),
        ("prompt", json!([-5]), "Token id -5 is out of vocabulary"),
        ("prompt", json!([]), "at least one token"),
        ("prompt", json!("a text"), "/tokenize"),
        ("prompt", json!([vec![5; 60], vec![5; 3]]), "maximum context length is 64"),
        ("seed", json!(1.5), "seed"),
        ("rlt_draw", json!({ "seed": 1 }), "stream"),
    ] {
        let mut asked = json!({ "prompt": prompt });
        asked[field] = value.clone();
        let (status, message) = server.complete(&asked).refusal();
        assert_eq!(status, 400, "{field}: {value}: {message}");
        assert!(message.contains(says) && !message.contains('\n'), "{field}: {value}: {message}");
    }
    // What asks for nothing is no reason to refuse.
    let neutral = json!({ "prompt": prompt, "stream": false, "stop": null, "presence_penalty": 0.0, "top_k": -1,
        "logit_bias": null, "user": "me", "skip_special_tokens": false });
    server.complete(&neutral).ok();
    // Scores at another temperature would be silently wrong.
    for scoring in [
        json!({ "prompt": prompt, "prompt_logprobs": 0, "max_tokens": 1, "temperature": 0.7 }),
        json!({ "prompt": prompt, "echo": true, "logprobs": 0, "max_tokens": 0, "temperature": 0.7 }),
    ] {
        let (status, message) = server.complete(&scoring).refusal();
        assert!(status == 400 && message.contains("temperature 1"), "{message}");
    }
    let wrong = server.complete(&json!({ "model": "nope", "prompt": prompt }));
    assert_eq!(wrong.refusal(), (404, "The model `nope` does not exist. Valid aliases: policy.".into()));
    assert_eq!(server.get("/v1/completions").refusal().0, 405);
    let (status, message) = server.get("/metrics").refusal();
    assert!(status == 404 && message.contains("/v1/completions"), "{message}");
    assert_eq!(server.post("/v1/completions", &json!({ "model": "policy" })).refusal().0, 400);
}

#[test]
fn it_says_what_it_is_and_turns_text_into_ids() {
    let dir = folder(64);
    let server = Served::start(&dir.path().join("model"), &[]);
    let health = server.get("/health");
    assert_eq!((health.status, health.body), (200, Value::Null));
    assert_eq!(server.get("/version").ok(), json!({ "version": env!("CARGO_PKG_VERSION") }));
    let models = server.get("/v1/models").ok();
    assert_eq!(
        (&models["data"][0]["id"], &models["data"][0]["max_model_len"]),
        (&json!("policy"), &json!(64))
    );
    let tokens = server.post("/tokenize", &json!({ "model": "policy", "prompt": "Tom has 9 eggs." })).ok();
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let text = server.post("/detokenize", &json!({ "model": "policy", "tokens": tokens["tokens"] })).ok();
    assert_eq!(text["prompt"], "Tom has 9 eggs.");
    let id = tokens["tokens"][0].as_u64().unwrap();
    let echoed = server.complete(&json!({ "prompt": [id], "echo": true, "max_tokens": 1 })).ok();
    assert!(echoed["choices"][0]["text"].as_str().unwrap().starts_with("Tom"), "{echoed}");
}

/// Scores of a fixed sequence.
fn probe(server: &Served) -> Vec<Option<f32>> {
    let asked = json!({ "prompt": [5, 6, 7, 8, 9], "max_tokens": 0, "echo": true, "logprobs": 0 });
    f32s(&server.complete(&asked).ok()["choices"][0]["logprobs"]["token_logprobs"])
}

/// The same scores by the weights of a folder.
fn local_probe(model: &Path) -> Vec<Option<f32>> {
    let group = ScoringGroup::single(vec![5, 6, 7, 8, 9], std::iter::once(1..5).collect());
    let scored = Decoder::load(model).unwrap().token_logprobs(&[group], 1.0, 100).unwrap();
    std::iter::once(None).chain(scored[0][0].iter().copied().map(Some)).collect()
}

fn reload(server: &Served, path: &str) -> served::Answer {
    let call = json!({ "method": "reload_weights", "kwargs": { "weights_path": path }, "timeout": 60 });
    server.post("/collective_rpc", &call)
}

#[test]
fn weights_are_exchanged_as_with_vllm() {
    let dir = folder(64);
    let model = dir.path().join("model");
    let pushed = dir.path().join("pushed");
    write_other(&model, &pushed.join("step-1"), 2);
    let server = Served::start(&model, &["--reload-dir", pushed.to_str().unwrap()]);
    assert_eq!(probe(&server), local_probe(&model));
    assert_eq!(server.get("/weight_info").ok(), json!({ "weight_version": "default" }));

    assert_eq!(server.post("/pause?mode=wait", &json!({})).ok(), json!({ "status": "paused" }));
    assert_eq!(server.get("/is_paused").ok(), json!({ "is_paused": true }));
    // While it is paused requests wait, and it is well.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| probe(&server));
        thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished());
        assert_eq!(server.get("/health").status, 200);
        let folder = pushed.join("step-1");
        assert_eq!(reload(&server, folder.to_str().unwrap()).ok(), json!({ "results": [null] }));
        assert_eq!(server.post("/reset_prefix_cache", &json!({})).ok(), json!({ "success": true }));
        let label = server.post("/update_weight_version", &json!({ "new_version": "step-1" })).ok();
        assert_eq!(label, json!({ "success": true, "new_version": "step-1" }));
        assert_eq!(server.post("/resume", &json!({})).ok(), json!({ "status": "resumed" }));
        assert_eq!(waiting.join().unwrap(), local_probe(&folder), "what waited is done with the new weights");
    });
    assert_eq!(server.get("/weight_info").ok(), json!({ "weight_version": "step-1" }));
    assert_eq!(server.get("/is_paused").ok(), json!({ "is_paused": false }));
    assert_ne!(local_probe(&model), local_probe(&pushed.join("step-1")));
}

#[test]
fn no_other_folder_is_read_and_a_bad_one_changes_nothing() {
    let dir = folder(64);
    let model = dir.path().join("model");
    let pushed = dir.path().join("pushed");
    write_other(&model, &pushed.join("step-1"), 2);
    write_other(&model, &dir.path().join("pushed-not"), 3);
    let elsewhere = dir.path().join("pushed-not");
    #[cfg(unix)]
    std::os::unix::fs::symlink(&elsewhere, pushed.join("link")).unwrap();
    std::fs::create_dir(pushed.join("empty")).unwrap();
    write_other(&model, &pushed.join("half"), 4);
    let weights = std::fs::read(pushed.join("half/model.safetensors")).unwrap();
    std::fs::write(pushed.join("half/model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    scripted::write_random_model(&pushed.join("other-context"), 128);
    let server = Served::start(&model, &["--reload-dir", pushed.to_str().unwrap()]);
    let before = probe(&server);

    let inside = |name: &str| pushed.join(name).to_str().unwrap().to_owned();
    let outside: [PathBuf; 8] = [
        elsewhere.clone(),
        pushed.join("../pushed-not"),
        pushed.join("step-1/../../model"),
        pushed.join("link"),
        pushed.join("missing"),
        PathBuf::from("/etc/passwd"),
        PathBuf::from("https://example.com/model"),
        PathBuf::from("step-1\0/../x"),
    ];
    for path in &outside {
        let (status, message) = reload(&server, path.to_str().unwrap()).refusal();
        assert!(status == 403 && message.contains("no folder below"), "{}: {message}", path.display());
    }
    for bad in ["empty", "half", "other-context"] {
        let (status, message) = reload(&server, &inside(bad)).refusal();
        assert!(status == 400 && message.contains("the ones from before"), "{bad}: {message}");
    }
    let other = server.post("/collective_rpc", &json!({ "method": "save_weights", "kwargs": {} }));
    assert_eq!(other.refusal().0, 400);
    assert_eq!(probe(&server), before);
    reload(&server, &inside("step-1")).ok();
    assert_ne!(probe(&server), before);

    let closed = Served::start(&model, &[]);
    let (status, message) = reload(&closed, &inside("step-1")).refusal();
    assert!(status == 403 && message.contains("--reload-dir"), "{message}");
}

#[test]
fn a_pause_that_aborts_says_so_of_every_completion_that_it_cut() {
    let dir = folder(8192);
    let server = Served::start(&dir.path().join("model"), &[]);
    let long = json!({ "prompt": [5, 6, 7], "n": 8, "max_tokens": 8000, "ignore_eos": true, "return_token_ids": true });
    thread::scope(|scope| {
        let running = scope.spawn(|| server.complete(&long).ok());
        thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        server.post("/pause?mode=abort", &json!({})).ok();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let answer = running.join().unwrap();
        for choice in answer["choices"].as_array().unwrap() {
            assert_eq!((&choice["finish_reason"], &choice["token_ids"]), (&json!("abort"), &json!([])));
        }
        let kept = server.post("/pause?mode=keep", &json!({}));
        assert_eq!(kept.refusal().0, 400);
        server.post("/resume", &json!({})).ok();
    });
    server.complete(&json!({ "prompt": [5, 6, 7] })).ok();
}

#[test]
fn the_queue_is_bounded_and_whoever_has_gone_takes_no_place() {
    let dir = folder(64);
    let server = Served::start(&dir.path().join("model"), &["--max-waiting", "2"]);
    server.post("/pause?mode=wait", &json!({})).ok();
    let body = json!({ "model": "policy", "prompt": [5, 6, 7] }).to_string();
    let send = || {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        let length = body.len();
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(50));
        stream
    };
    let (mut first, second) = (send(), send());
    let third = read_answer(&mut send());
    assert_eq!(third.refusal().0, 503);
    assert!(third.head.contains("Retry-After: 1"), "{}", third.head);
    drop(second);
    thread::sleep(Duration::from_millis(300));
    let mut fourth = send();
    server.post("/resume", &json!({})).ok();
    assert_eq!(read_answer(&mut first).status, 200);
    assert_eq!(read_answer(&mut fourth).status, 200);
}

#[test]
fn keys_are_asked_for_and_pages_are_refused() {
    let dir = folder(64);
    let model = dir.path().join("model");
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
    command.args(["serve", "--model"]).arg(&model).args(["--key-env", "RLT_NO_SUCH_KEY"]);
    let output = command.assert().code(2).get_output().clone();
    assert!(String::from_utf8(output.stderr).unwrap().contains("RLT_NO_SUCH_KEY"));

    // `PATH` is a variable that is there.
    let server = Served::start(&model, &["--key-env", "PATH"]);
    let key = std::env::var("PATH").unwrap();
    let body = json!({ "model": "policy", "prompt": [5] }).to_string();
    let with = |headers: &str| ask(server.port, "POST", "/v1/completions", headers, body.as_bytes());
    assert_eq!(with("").refusal().0, 401);
    assert_eq!(with("Authorization: Bearer wrong\r\n").refusal().0, 401);
    assert_eq!(with(&format!("Authorization: Bearer {key}\r\n")).status, 200);
    let of_page = with(&format!("Authorization: Bearer {key}\r\nOrigin: http://example.com\r\n"));
    assert_eq!(of_page.refusal().0, 403);
}

/// Memory that a process holds, bytes.
#[cfg(target_os = "linux")]
fn resident(id: u32) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{id}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn whoever_is_unkind_to_it_hurts_nobody_else() {
    let dir = folder(64);
    let server = Served::start(&dir.path().join("model"), &[]);
    let good =
        |server: &Served| server.complete(&json!({ "prompt": [5, 6, 7], "seed": 1 })).ok()["choices"].clone();
    let before = good(&server);
    let connect = || TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let send = |bytes: &[u8]| {
        let mut stream = connect();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        drop(stream.write_all(bytes));
        stream
    };

    // Connections that say nothing, half a request, one byte at a time, or a body that never comes.
    let silent: Vec<TcpStream> = (0..50).map(|_| connect()).collect();
    let half = send(b"POST /v1/completions HTTP/1.1\r\nContent-Le");
    let no_body = send(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 33000000\r\n\r\n{");
    drop(send(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"));

    // What is no HTTP, or asks for too much of it.
    for (bytes, status) in [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n".to_vec(), 400),
        (b"GET /\r\n\r\n".to_vec(), 400),
        (b"POST /tokenize HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_vec(), 413),
        (b"POST /tokenize HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_vec(), 400),
        (
            b"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
            411,
        ),
        ([b"GET /health HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 100_000]].concat(), 431),
        ([b"GET /health HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(200)].concat(), 431),
        (b"GET /../../etc/passwd HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), 404),
        (b"GET /%2e%2e/etc/passwd HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), 404),
        (b"BREW /pot HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), 404),
    ] {
        let answer = read_answer(&mut send(&bytes));
        assert_eq!(
            answer.refusal().0,
            status,
            "{:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
        );
    }

    // JSON that unfolds, nests, repeats itself, or is none.
    let million = 1_000_000;
    for body in [
        format!("{}{}", "[".repeat(million), "]".repeat(million)),
        format!("{{\"prompt\":{}{}}}", "[".repeat(million), "]".repeat(million)),
        format!("{{\"prompt\":[{}1]}}", "[],".repeat(million)),
        format!("{{\"prompt\":[{}1]}}", "1,".repeat(2 * million)),
        format!("{{\"prompt\":[1],\"logit_bias\":{{{}\"a\":1}}}}", "\"a\":1,".repeat(million)),
        format!("{{{}\"prompt\":[1]}}", "\"n\":1,".repeat(million)),
        "{\"prompt\":[1],\"n\":1e999}".to_owned(),
        "{\"prompt\":[1],\"temperature\":NaN}".to_owned(),
        "{\"prompt\":[1]".to_owned(),
        "null".to_owned(),
        "\u{0}\u{1}".to_owned(),
    ] {
        let answer = ask(server.port, "POST", "/v1/completions", "", body.as_bytes());
        let (status, message) = answer.refusal();
        assert!(status == 400 && message.len() < 400, "{}: {message}", &body[..body.len().min(40)]);
    }
    let answer = ask(server.port, "POST", "/v1/completions", "", &[0xff; 100]);
    assert_eq!(answer.refusal().0, 400);

    // More connections than it takes: the rest is turned away, and the next request is answered once they have gone.
    let mut many = Vec::new();
    for _ in 0..1200 {
        many.extend(TcpStream::connect(("127.0.0.1", server.port)));
    }
    thread::sleep(Duration::from_millis(200));
    drop((many, silent, half, no_body));
    let until = Instant::now() + Duration::from_secs(10);
    while ask_health(&server) != Some(200) {
        assert!(Instant::now() < until, "it does not recover");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(good(&server), before);
    #[cfg(target_os = "linux")]
    assert!(resident(server.id()) < 400 << 20, "{} bytes", resident(server.id()));
}

/// The status of `/health`, if the connection is not turned away.
fn ask_health(server: &Served) -> Option<u16> {
    use std::io::Read;
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).ok()?;
    stream.write_all(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    drop(stream.read_to_string(&mut text));
    text.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_signal_ends_it_within_a_second_and_everybody_is_told() {
    let dir = folder(8192);
    let server = Served::start(&dir.path().join("model"), &[]);
    let idle = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut running = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let body = json!({ "prompt": [5, 6, 7], "n": 64, "max_tokens": 8000, "ignore_eos": true }).to_string();
    let length = body.len();
    write!(running, "POST /v1/completions HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    thread::sleep(Duration::from_millis(300));
    let (status, took) = server.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    let (status, message) = read_answer(&mut running).refusal();
    assert!(status == 503 && message.contains("shutting down"), "{message}");
    drop(idle);
}
