//! The client against a server in this process: our own engine behind the few requests, with whatever bad luck is wanted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::generate::{Completion, Finish, GenerationRequest, SamplingParams, generate};
use rlt_model::ids::TokenIds;
use rlt_model::{Decoder, Stop};
use serde_json::{Value, json};

use super::*;
use crate::config::{ServerConfig, ServerKind};
use crate::error::{Error, Result};
use crate::progress::{Progress, Silent};
use crate::sampler::{DecoderSampler, Sampler, SamplingEngine};
use crate::scorer::Scorer;
use crate::training::run::tests::{tiny_config, tiny_model};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Good,
    /// This status, before anything is done.
    Status(u16),
    /// Half of the answer, then the connection is closed.
    Cut,
    /// The answer, with its end made unreadable.
    Garbage,
    /// Nothing is ever answered.
    Hang,
    /// It is done, and the connection is closed without an answer.
    Lost,
    /// A completion that was broken off.
    Abort,
    /// Another model answers.
    OtherModel,
    /// So long, then the answer.
    Slow(u64),
}

/// The server. What it computes is computed by the tiny model of seed 1.
struct Scripted {
    address: String,
    /// Requests of `/v1/completions`.
    n: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    /// Every seed that was asked for, with how often.
    seeds: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl Scripted {
    /// `luck` is told which request of `/v1/completions` it is, from 0.
    fn start(owner: &'static str, luck: impl Fn(usize) -> Luck + Send + Sync + 'static) -> Self {
        Self::start_by_request(owner, move |i, _| luck(i))
    }

    /// Two requests that are asked at the same time may arrive in either order: `luck` is told what
    /// is asked as well.
    fn start_by_request(
        owner: &'static str,
        luck: impl Fn(usize, &Value) -> Luck + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (n, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seeds, at_once) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(AtomicUsize::new(0)));
        let (model, luck) = (Arc::new(tiny_model(1)), Arc::new(luck));
        let server = Self { address, n: n.clone(), most_at_once: most.clone(), seeds: seeds.clone() };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(std::result::Result::ok) {
                let (model, luck, n, most) = (model.clone(), luck.clone(), n.clone(), most.clone());
                let (at_once, seeds) = (at_once.clone(), seeds.clone());
                thread::spawn(move || {
                    while let Some((path, body)) = request(&stream) {
                        if path == "/v1/models" {
                            let data =
                                json!({"id": "policy", "owned_by": owner, "max_model_len": 64, "root": "."});
                            respond(&stream, 200, &json!({ "data": [data] }).to_string());
                            continue;
                        }
                        if path != "/v1/completions" {
                            respond(&stream, 404, r#"{"detail":"Not Found"}"#);
                            continue;
                        }
                        most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let luck = luck(n.fetch_add(1, Ordering::SeqCst), &body);
                        if let Some(seed) = body["seed"].as_u64() {
                            *seeds.lock().unwrap().entry(seed).or_default() += 1;
                        }
                        let goes_on = answer(&model, &stream, &body, luck);
                        at_once.fetch_sub(1, Ordering::SeqCst);
                        if !goes_on {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    fn config(&self) -> ServerConfig {
        ServerConfig { url: self.address.clone(), in_flight: 4, timeout_s: 5.0, ..ServerConfig::default() }
    }

    #[expect(clippy::unused_self, reason = "a server is alive while it is asked")]
    fn connect(&self, config: &ServerConfig) -> Result<Arc<Served>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), tiny_config().to_string()).unwrap();
        Served::connect("server", config, dir.path(), &Silent).map(Arc::new)
    }
}

fn request(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let path = line.split_whitespace().nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|&n| n > 0)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(n) = header.strip_prefix("content-length:") {
            length = n.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, serde_json::from_slice(&body).unwrap_or_default()))
}

fn respond(mut stream: &TcpStream, status: u16, body: &str) {
    // In one write: a second would wait for the first to be acknowledged.
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes());
}

/// Answers, well or not; whether the connection goes on.
fn answer(model: &Decoder, mut stream: &TcpStream, body: &Value, luck: Luck) -> bool {
    match luck {
        Luck::Hang => {
            // Until whoever asks gives up.
            let _ = stream.read(&mut [0]);
            return false;
        }
        Luck::Status(status) => {
            respond(stream, status, r#"{"error":{"message":"made up"}}"#);
            return true;
        }
        Luck::Slow(ms) => thread::sleep(Duration::from_millis(ms)),
        _ => {}
    }
    let mut answer = completions(model, body);
    match luck {
        Luck::Abort => answer["choices"][0]["finish_reason"] = "abort".into(),
        Luck::OtherModel => answer["model"] = "another".into(),
        _ => {}
    }
    let mut text = answer.to_string();
    match luck {
        Luck::Lost => return false,
        Luck::Garbage => {
            text.truncate(text.len() / 2);
            text.push_str("<html>");
        }
        Luck::Cut => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&text.as_bytes()[..text.len() / 2]));
            return false;
        }
        _ => {}
    }
    respond(stream, 200, &text);
    true
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// `/v1/completions`, as vLLM answers it.
fn completions(model: &Decoder, body: &Value) -> Value {
    let prompt = ids(&body["prompt"]);
    if body["prompt_logprobs"] == 0 {
        let after_first = 1..prompt.len();
        let group = ScoringGroup::single(prompt.clone(), vec![after_first]);
        let scores = model.token_logprobs(&[group], 1.0, 4096).unwrap().remove(0).remove(0);
        let entry = |(id, score): (&u32, f32)| json!({ id.to_string(): { "logprob": score } });
        let scored = prompt[1..].iter().zip(scores).map(entry);
        let positions: Vec<Value> = std::iter::once(Value::Null).chain(scored).collect();
        let choice =
            json!({"index": 0, "finish_reason": "length", "prompt_logprobs": positions, "token_ids": [1]});
        return json!({ "model": body["model"], "choices": [choice] });
    }
    let number = |key: &str| body[key].as_f64().unwrap();
    let params = SamplingParams {
        temperature: number("temperature") as f32,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        max_new_tokens: number("max_tokens") as usize,
        stop_token_ids: ids(&body["stop_token_ids"]),
        max_running: 8,
    };
    let draw = &body["rlt_draw"];
    let (seed, stream) = match draw["seed"].as_u64() {
        Some(seed) => (seed, [draw["stream"][0].as_u64().unwrap(), draw["stream"][1].as_u64().unwrap()]),
        None => (body["seed"].as_u64().unwrap(), [0, 0]),
    };
    let request = GenerationRequest { prompt: prompt.into(), n: number("n") as usize, stream };
    let drawn = generate(model, &[request], &params, seed, Stop::never(), &mut |_| ()).unwrap().remove(0);
    let choice = |(index, completion): (usize, &Completion)| {
        json!({"index": index, "token_ids": &completion.ids[..], "logprobs": {"token_logprobs": &completion.logprobs},
            "finish_reason": if completion.finish == Finish::Stop { "stop" } else { "length" }})
    };
    let choices: Vec<Value> = drawn.iter().enumerate().map(choice).collect();
    json!({ "model": body["model"], "choices": choices })
}

fn params() -> SamplingParams {
    SamplingParams {
        temperature: 0.7,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        max_new_tokens: 12,
        stop_token_ids: vec![0],
        max_running: 8,
    }
}

fn requests(n: usize) -> Vec<GenerationRequest> {
    let request = |i: u64| GenerationRequest {
        prompt: vec![1 + i as u32 % 30, 5, 2 + i as u32 % 7].into(),
        n: 1 + i as usize % 3,
        stream: [9, i],
    };
    (0..n as u64).map(request).collect()
}

fn sampler(served: &Arc<Served>) -> ServerSampler {
    ServerSampler { served: served.clone(), params: params(), seed: 3, version: 0, label: None }
}

fn groups() -> Vec<ScoringGroup> {
    let continuation = |i: u32| Continuation {
        ids: vec![i % 40, 3, 4].into(),
        then: vec![6, i * 7 % 40, 9].into(),
        scored: vec![0..3, 4..5],
    };
    let group = |i: u32| ScoringGroup {
        prefix: vec![1, i].into(),
        continuations: (i..i + 3).map(continuation).collect(),
    };
    (0..12).map(group).collect()
}

/// Keeps what progress says beside counts.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn start(&self, _: &str, _: u64, _: &str) {}
    fn advance(&self, _: u64, message: &str) {
        self.0.lock().unwrap().push(message.into());
    }
    fn finish(&self, _: &str) {}
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}

fn close(ours: &[Vec<Vec<f32>>], theirs: &[Vec<Vec<f32>>]) -> bool {
    let flat = |scores: &[Vec<Vec<f32>>]| scores.iter().flatten().flatten().copied().collect::<Vec<f32>>();
    let (ours, theirs) = (flat(ours), flat(theirs));
    ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 2e-5)
}

#[test]
fn whatever_goes_wrong_in_passing_changes_nothing() {
    // One request in three fails, in each of the ways in turn.
    let ways = [
        Luck::Status(500),
        Luck::Status(503),
        Luck::Status(429),
        Luck::Cut,
        Luck::Garbage,
        Luck::Lost,
        Luck::Abort,
    ];
    let luck = move |i: usize| if i % 3 == 1 { ways[i / 3 % ways.len()] } else { Luck::Good };
    let (good, bad) = (Scripted::start("vllm", |_| Luck::Good), Scripted::start("vllm", luck));
    let draw = |server: &Scripted| {
        let served = server.connect(&server.config()).unwrap();
        let drawn = sampler(&served).sample(&requests(30), Stop::never()).unwrap();
        (drawn, served.n_retries())
    };
    let ((undisturbed, none), (disturbed, some)) = (draw(&good), draw(&bad));
    assert_eq!(undisturbed, disturbed);
    assert!(none == 0 && some >= 10, "{none} and {some} retries");
    // A request that is asked again has the seed that it had.
    let (of_good, of_bad) = (good.seeds.lock().unwrap().clone(), bad.seeds.lock().unwrap().clone());
    assert!(of_good.keys().eq(of_bad.keys()) && of_bad.values().any(|&n| n > 1));
    assert!(bad.most_at_once.load(Ordering::SeqCst) <= 5, "no more than in_flight, and one just answered");

    let served = bad.connect(&bad.config()).unwrap();
    let told = Told::default();
    let scorer = ServerScorer { served: served.clone(), stop: Stop::never(), progress: &told };
    let scores = scorer.token_logprobs(&groups(), 1.0, 10).unwrap();
    assert!(close(&scores, &tiny_model(1).token_logprobs(&groups(), 1.0, 4096).unwrap()));
    let told = told.0.lock().unwrap();
    let n = told.len();
    assert!(n > 1 && told[0].starts_with(&format!("1 of {n} answers, ")), "{told:?}");
    assert!(told.iter().any(|line| !line.ends_with(", 0 requests under way")), "{told:?}");
}

#[test]
fn our_own_server_draws_what_this_process_draws() {
    let server = Scripted::start("rlt", |_| Luck::Good);
    let served = server.connect(&server.config()).unwrap();
    let theirs = sampler(&served).sample(&requests(10), Stop::never()).unwrap();
    let decoder = tiny_model(1);
    let own = DecoderSampler { decoder: &decoder, params: params(), seed: 3, version: 0 };
    assert_eq!(theirs, own.sample(&requests(10), Stop::never()).unwrap());
}

/// All that `sampler` draws of `requests(n)`, in order, and how much came at once.
fn in_order(sampler: &dyn Sampler, n: usize) -> (Vec<Vec<Completion>>, usize) {
    let (mut drawn, mut most, mut last) = (Vec::new(), 0, 0);
    let mut on_progress = |now: rlt_model::generate::GenerationProgress| {
        assert!(now.finished >= last, "it never goes back");
        last = now.finished;
    };
    let mut asked = requests(n).into_iter().map(Ok);
    let mut take = |completions: Vec<Vec<Completion>>| {
        most = most.max(completions.len());
        drawn.extend(completions);
        Ok(())
    };
    sampler.sample_in_order(&mut asked, Stop::never(), &mut on_progress, &mut take).unwrap();
    (drawn, most)
}

#[test]
fn rows_in_order_are_those_of_a_call_whoever_draws_them() {
    let decoder = tiny_model(1);
    let own = DecoderSampler { decoder: &decoder, params: params(), seed: 3, version: 0 };
    let here = in_order(&own, 80).0;
    assert_eq!(here, own.sample(&requests(80), Stop::never()).unwrap());
    let luck = |i: usize| if i % 5 == 1 { Luck::Status(503) } else { Luck::Good };
    let server = Scripted::start("rlt", luck);
    let served = server.connect(&server.config()).unwrap();
    let (there, most) = in_order(&sampler(&served), 80);
    assert_eq!(there, here);
    assert!(most < 40, "{most} at once: they are handed over as they come");
}

#[test]
fn servers_are_kept_busy_while_what_was_answered_is_taken() {
    let server = Scripted::start("vllm", |_| Luck::Good);
    let served = server.connect(&server.config()).unwrap();
    let (mut n_taken, n) = (0, 60);
    let mut asked = requests(n).into_iter().map(Ok);
    let mut take = |completions: Vec<Vec<Completion>>| {
        n_taken += completions.len();
        // Whoever takes them does not return before the pool has all that it may ask of the rest.
        let until = Instant::now() + Duration::from_secs(20);
        while server.n.load(Ordering::SeqCst) < n.min(n_taken + 4) {
            assert!(Instant::now() < until, "nothing more is asked after {n_taken}");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    sampler(&served).sample_in_order(&mut asked, Stop::never(), &mut |_| (), &mut take).unwrap();
    assert_eq!(n_taken, n);
    assert!(server.most_at_once.load(Ordering::SeqCst) <= 5);
}

#[test]
fn calls_at_the_same_time_share_what_is_allowed() {
    let server = Scripted::start("vllm", |_| Luck::Slow(5));
    let served = server.connect(&server.config()).unwrap();
    let scorer = ServerScorer { served: served.clone(), stop: Stop::never(), progress: &Silent };
    let here = tiny_model(1).token_logprobs(&groups(), 1.0, 4096).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(close(&scorer.token_logprobs(&groups(), 1.0, 10).unwrap(), &here)));
        }
    });
    let most = server.most_at_once.load(Ordering::SeqCst);
    assert!((4..=5).contains(&most), "{most}");
}

#[test]
fn what_lasts_ends_the_work_at_once_in_the_servers_own_words() {
    for (luck, what) in [
        (Luck::Status(404), "404 Not Found: made up"),
        (Luck::Status(400), "400 Bad Request: made up"),
        (Luck::OtherModel, "answers as the model `another` where `policy` was asked"),
        (Luck::Status(401), "key_env"),
    ] {
        let server = Scripted::start("vllm", move |i| if i == 3 { luck } else { Luck::Good });
        let served = server.connect(&ServerConfig { in_flight: 1, ..server.config() }).unwrap();
        let error = sampler(&served).sample(&requests(30), Stop::never()).unwrap_err().to_string();
        assert!(error.starts_with(&server.address) && error.contains(what), "{luck:?}: {error}");
        assert!(server.n.load(Ordering::SeqCst) <= 6, "{luck:?}");
    }
}

#[test]
fn it_gives_up_after_its_retries_and_keeps_what_was_answered() {
    let server = Scripted::start("vllm", |i| if i < 5 { Luck::Good } else { Luck::Status(503) });
    let config = ServerConfig { in_flight: 1, retries: 1, ..server.config() };
    let served = server.connect(&config).unwrap();
    let requests = requests(20);
    let mut silent = |_| ();
    let mut all = rlt_model::generate::AllCompletions::of(&requests, &mut silent);
    let error = sampler(&served).sample_each(&requests, Stop::never(), &mut all).unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("made up; given up after 2 attempts"), "{error}");
    assert_eq!(all.into_complete().len(), 5);
}

#[test]
fn a_server_that_never_answers_is_asked_again_and_a_stop_does_not_wait_for_it() {
    let server = Scripted::start("vllm", |i| if i == 0 { Luck::Hang } else { Luck::Good });
    let served = server.connect(&ServerConfig { timeout_s: 2.0, ..server.config() }).unwrap();
    sampler(&served).sample(&requests(3), Stop::never()).unwrap();
    assert_eq!(served.n_retries(), 1);

    let server = Scripted::start("vllm", |i| if i < 6 { Luck::Good } else { Luck::Hang });
    let served = server.connect(&ServerConfig { timeout_s: 600.0, ..server.config() }).unwrap();
    let flag = Arc::new(AtomicBool::new(false));
    let setter = flag.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(500));
        setter.store(true, Ordering::SeqCst);
    });
    let started = Instant::now();
    let error = sampler(&served).sample(&requests(30), Stop::when(&flag)).unwrap_err();
    assert!(matches!(error, Error::Model(rlt_model::Error::Stopped)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(60), "it waited");
}

#[test]
fn what_was_answered_behind_one_that_was_not_is_not_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let first = json!(requests(1)[0].prompt.to_vec());
    let hang = move |_, body: &Value| if body["prompt"] == first { Luck::Hang } else { Luck::Good };
    let stuck = Scripted::start_by_request("vllm", hang);
    let good = Scripted::start("vllm", |_| Luck::Good);
    let served = stuck.connect(&ServerConfig { timeout_s: 600.0, ..stuck.config() }).unwrap();
    served.keep_answers(&out).unwrap();
    let flag = Arc::new(AtomicBool::new(false));
    let (setter, n) = (flag.clone(), stuck.n.clone());
    thread::spawn(move || {
        while n.load(Ordering::SeqCst) < 32 {
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(300));
        setter.store(true, Ordering::SeqCst);
    });
    let drawn_until = |stop: Stop, served: &Arc<Served>| {
        let (mut drawn, mut asked) = (Vec::new(), requests(100).into_iter().map(Ok));
        let mut take = |completions: Vec<Vec<Completion>>| {
            drawn.extend(completions);
            Ok(())
        };
        let outcome = sampler(served).sample_in_order(&mut asked, stop, &mut |_| (), &mut take);
        (drawn, outcome)
    };
    assert_eq!(drawn_until(Stop::when(&flag), &served).0.len(), 0);
    drop(served);
    // No more than so many are held while the first is waited for.
    assert_eq!(stuck.n.load(Ordering::SeqCst), 32);
    let served = good.connect(&good.config()).unwrap();
    served.keep_answers(&out).unwrap();
    let (drawn, outcome) = drawn_until(Stop::never(), &served);
    outcome.unwrap();
    assert_eq!(good.n.load(Ordering::SeqCst), 100 - 31);
    served.forget_answers().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let undisturbed = good.connect(&good.config()).unwrap();
    assert_eq!(drawn, sampler(&undisturbed).sample(&requests(100), Stop::never()).unwrap());
}

#[test]
fn of_several_servers_one_may_be_gone() {
    let (one, other) =
        (Scripted::start("vllm", |_| Luck::Slow(20)), Scripted::start("vllm", |_| Luck::Slow(20)));
    let config = ServerConfig {
        url: String::new(),
        urls: vec![one.address.clone(), other.address.clone()],
        ..one.config()
    };
    let served = one.connect(&config).unwrap();
    assert_eq!(served.in_flight(), 8);
    sampler(&served).sample(&requests(40), Stop::never()).unwrap();
    let [a, b] = [&one, &other].map(|server| server.n.load(Ordering::SeqCst));
    assert!(a.abs_diff(b) <= 12, "spread by load: {a} and {b}");

    let gone = Scripted::start("vllm", |_| Luck::Lost);
    let config = ServerConfig { urls: vec![gone.address.clone()], ..one.config() };
    let served = one.connect(&config).unwrap();
    let drawn = sampler(&served).sample(&requests(20), Stop::never()).unwrap();
    assert_eq!(drawn.len(), 20);
}

#[test]
fn who_is_there_is_found_out_before_work_begins() {
    let server = Scripted::start("vllm", |_| Luck::Good);
    let served = server.connect(&server.config()).unwrap();
    assert_eq!(served.describe(), format!("vllm at {}, model policy", server.address));
    let refusal = |config: ServerConfig| server.connect(&config).unwrap_err();
    let error = refusal(ServerConfig { model: "other".into(), ..server.config() });
    assert!(matches!(&error, Error::Usage(what) if what.contains("serves policy")), "{error}");
    let error = refusal(ServerConfig { kind: ServerKind::Sglang, ..server.config() });
    assert!(matches!(&error, Error::Usage(what) if what.contains("says that it is vllm")), "{error}");
    let error = refusal(ServerConfig { key_env: "RLT_TEST_NO_SUCH_KEY".into(), ..server.config() });
    assert!(matches!(&error, Error::Usage(what) if what.contains("RLT_TEST_NO_SUCH_KEY")), "{error}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = refusal(ServerConfig { url: format!("http://{closed}"), ..server.config() });
    assert!(error.to_string().contains("nothing answers there"), "{error}");
}

#[test]
fn as_many_are_under_way_as_are_allowed_and_no_more() {
    // The first 64 are answered once they all are there.
    let there = Arc::new(AtomicUsize::new(0));
    let server = Scripted::start("openai", move |_| {
        there.fetch_add(1, Ordering::SeqCst);
        let began = Instant::now();
        while there.load(Ordering::SeqCst) < 64 && began.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(5));
        }
        Luck::Good
    });
    let served = server.connect(&ServerConfig { in_flight: 64, timeout_s: 60.0, ..server.config() }).unwrap();
    let one = |i: u64| GenerationRequest { prompt: TokenIds::from(vec![1, 2]), n: 1, stream: [0, i] };
    let requests: Vec<GenerationRequest> = (0..200).map(one).collect();
    let sampler =
        ServerSampler { params: SamplingParams { max_new_tokens: 1, ..params() }, ..sampler(&served) };
    sampler.sample(&requests, Stop::never()).unwrap();
    // The server counts a request until just after it was answered.
    let most = server.most_at_once.load(Ordering::SeqCst);
    assert!((64..=66).contains(&most), "{most}");
    assert_eq!(served.n_retries(), 0);
}

/// What a server does with weights that it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trap {
    None,
    /// The output matrix stays the old one, and it says 200.
    OldHead,
    /// It answers as before, and says 200: a cache that was not reset.
    Stale,
    /// It cannot see the folder.
    Missing,
    /// Somebody else labels the weights.
    OtherLabel,
    /// It is paused, healthy and silent.
    Paused,
}

/// A server of the model of seed 1 that takes weights, or seems to. The requests that it was asked, in order.
fn start_taker(trap: Trap) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let state = Arc::new(Mutex::new((wide_model(1), String::from("default"))));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(std::result::Result::ok) {
            let (state, log) = (state.clone(), log.clone());
            thread::spawn(move || {
                while let Some((path, body)) = request(&stream) {
                    log.lock().unwrap().push(path.clone());
                    let mut state = state.lock().unwrap();
                    let ok = json!({});
                    let answer = match path.as_str() {
                        "/v1/models" => {
                            json!({"data": [{"id": "policy", "owned_by": "vllm", "max_model_len": 400}]})
                        }
                        "/v1/completions" => completions(&state.0, &body),
                        "/is_paused" => json!({ "is_paused": trap == Trap::Paused }),
                        "/weight_info" if trap == Trap::OtherLabel => json!({"weight_version": "step-999"}),
                        "/weight_info" => json!({ "weight_version": state.1 }),
                        "/update_weight_version" => {
                            state.1 = body["new_version"].as_str().unwrap().into();
                            ok
                        }
                        "/collective_rpc" if trap == Trap::Missing => {
                            let what = r#"{"error":{"message":"Worker failed: no such folder"}}"#;
                            respond(&stream, 500, what);
                            continue;
                        }
                        "/collective_rpc" => {
                            let folder = body["kwargs"]["weights_path"].as_str().unwrap();
                            let mut loaded = Decoder::load(folder.as_ref()).unwrap();
                            let first = state.1 == "default";
                            if trap == Trap::OldHead && !first {
                                loaded.parameters_mut().head.clone_from(&state.0.parameters().head);
                            }
                            if trap != Trap::Stale || first {
                                state.0 = loaded;
                            }
                            ok
                        }
                        "/pause?mode=wait" | "/resume" | "/reset_prefix_cache" => ok,
                        _ => {
                            respond(&stream, 404, r#"{"detail":"Not Found"}"#);
                            continue;
                        }
                    };
                    drop(state);
                    respond(&stream, 200, &answer.to_string());
                }
            });
        }
    });
    (address, asked)
}

/// A tiny model with a token for every one of the tests' tokenizer.
fn wide_model(seed: u64) -> Decoder {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), wide_config().to_string()).unwrap();
    let model = rlt_model::config::ModelConfig::from_dir(dir.path()).unwrap();
    let mut decoder = Decoder::random(&model, seed);
    // Not as even as random weights are.
    for (tensor, other) in decoder
        .parameters_mut()
        .tensors_mut()
        .into_iter()
        .zip(Decoder::random(&model, 9).parameters().tensors())
    {
        tensor.mix_in(other, -4.0);
    }
    decoder
}

fn wide_config() -> Value {
    let mut config = tiny_config();
    (config["vocab_size"], config["max_position_embeddings"]) = (310.into(), 400.into());
    config
}

/// A policy at two steps, given to a server with this trap.
fn push_twice(trap: Trap) -> (Result<()>, Vec<String>, Vec<String>) {
    let (address, asked) = start_taker(trap);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), wide_config().to_string()).unwrap();
    let config = ServerConfig { url: address, timeout_s: 5.0, retries: 1, ..ServerConfig::default() };
    let served = Arc::new(Served::connect("server", &config, dir.path(), &Silent).unwrap());
    let exports = dir.path().join("served");
    let push = || -> Result<()> {
        let tokenizer = crate::prompts::test_chat::test_chat().tokenizer;
        let dtype = rlt_model::weights::Dtype::F32;
        let mut engine = ServedPolicy::new(served, params(), 3, &exports, dtype, tokenizer)?;
        let mut policy = wide_model(1);
        engine.refresh(&policy, 0)?;
        engine.begin(&Silent)?;
        // One step of training, which moves log-probabilities by far less than the tolerance.
        for (tensor, other) in
            policy.parameters_mut().tensors_mut().into_iter().zip(wide_model(2).parameters().tensors())
        {
            tensor.mix_in(other, 1e-3);
        }
        engine.refresh(&policy, 1)
    };
    let outcome = push();
    let left = std::fs::read_dir(&exports).map(|entries| {
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    });
    let mut left = left.unwrap_or_default();
    left.sort();
    let asked = asked.lock().unwrap().clone();
    (outcome, left, asked)
}

#[test]
fn weights_arrive_and_only_the_last_are_kept() {
    let (outcome, left, asked) = push_twice(Trap::None);
    outcome.unwrap();
    assert_eq!(left, ["step-000001"]);
    let order =
        ["/pause?mode=wait", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/resume"];
    let pushes: Vec<&String> = asked.iter().filter(|path| order.contains(&path.as_str())).collect();
    assert_eq!(pushes, [order, order].concat().iter().collect::<Vec<_>>());
}

#[test]
fn weights_that_have_not_arrived_end_the_run() {
    for (trap, what) in [
        (Trap::OldHead, "neither the new nor the old ones; a head that is tied"),
        (Trap::Stale, "those of the step before; its cache was not reset"),
        (
            Trap::Missing,
            "500 Internal Server Error: Worker failed: no such folder; new weights have not arrived",
        ),
        (Trap::OtherLabel, "labelled \"step-999\", not \"step-000000\""),
        (Trap::Paused, "is paused and would answer nothing; make it go on: curl -X POST"),
    ] {
        let (outcome, left, asked) = push_twice(trap);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(what), "{trap:?}: {error}");
        // What a server may still need is kept.
        assert!(trap == Trap::Paused || !left.is_empty(), "{trap:?}");
        // One that broke on a request is not asked it again.
        let reloads = asked.iter().filter(|path| *path == "/collective_rpc").count();
        assert!(trap != Trap::Missing || reloads == 1, "{reloads}");
    }
}
