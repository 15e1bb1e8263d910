//! How busy `rlt explain`, `rlt eval` and `rlt score` keep a server, and what that takes of the processor here: a server that
//! answers everything in 50 ms, 64 requests under way, and two lengths of the same work, whose difference is that of the
//! requests alone.
//!
//! ```text
//! cargo build --release --workspace --bins --examples
//! target/release/examples/served_bench target/release/rlt
//! ```
#![expect(clippy::print_stdout, reason = "it says what it measured")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rlt::worlds::lexicon::{ModelShape, write_model_folder};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What the server takes for a request, whatever it is.
const TAKES: Duration = Duration::from_millis(50);
const IN_FLIGHT: usize = 64;
/// Tokens of every completion.
const TOKENS: usize = 64;
/// Rows of the two works; a row is one request of explain and eval, and three of score.
const ROWS: [usize; 2] = [640, 3840];
/// Clock ticks a second in /proc, on every Linux.
const TICKS: f64 = 100.0;

/// Requests of the work: when it came, when the last was answered, and how many were.
#[derive(Default)]
struct Seen {
    first: Option<Instant>,
    last: Option<Instant>,
    n: usize,
    /// Requests to come that only look at the server, before there is any work.
    looks: usize,
    under_way: usize,
    /// How long nothing was under way after the first.
    idle: Duration,
}

fn main() -> Outcome<()> {
    let rlt = std::env::args().nth(1).map(PathBuf::from).ok_or("usage: served_bench RLT")?;
    let rlt = rlt.canonicalize()?;
    let dir = std::env::temp_dir().join(format!("rlt-served-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let shape = ModelShape { hidden_size: 32, intermediate_size: 32, n_layers: 1, n_heads: 2, context: 512 };
    write_model_folder(&dir.join("model"), &shape)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let of_server = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = of_server.clone();
            thread::spawn(move || drop(serve(&stream, &seen)));
        }
    });

    let url = format!("server.url=http://{address}");
    for command in ["explain", "eval", "score"] {
        let (mut seconds, mut requests) = (Vec::new(), Vec::new());
        for n in ROWS {
            let looks = if command == "score" { 1 } else { 2 };
            *lock(&seen) = Seen { looks, ..Seen::default() };
            seconds.push(call(&rlt, &dir, command, &url, n)?);
            let seen = lock(&seen);
            let took = seen.first.zip(seen.last).map_or(0.0, |(first, last)| (last - first).as_secs_f64());
            let least = seen.n.div_ceil(IN_FLIGHT) as f64 * TAKES.as_secs_f64();
            println!(
                "rlt {command}, {n} rows: {} requests in {took:.3} s, {:.1} % of what the pool allows; nothing was under way \
                 for {:.3} s",
                seen.n,
                100.0 * least / took,
                seen.idle.as_secs_f64()
            );
            requests.push(seen.n);
        }
        let each = (seconds[1] - seconds[0]) / (requests[1] - requests[0]) as f64;
        println!("rlt {command}: {:.3} ms of processor time a request", 1e3 * each);
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Does `command` with `n` rows and gives the processor time that it took, seconds. What is scored was explained before.
fn call(rlt: &Path, dir: &Path, command: &str, url: &str, n: usize) -> Outcome<f64> {
    let row = |i: usize| {
        format!("{}\n", json!({ "question": format!("What is {i} + 1?"), "solution": (i + 1).to_string() }))
    };
    std::fs::write(dir.join("rows.jsonl"), (0..n).map(row).collect::<String>())?;
    let traces = format!("explain-{n}.jsonl");
    let inputs: &[&str] = match command {
        "explain" => &["--model", "model", "--data", "rows.jsonl"],
        "eval" => &["--model", "model", "--task", "rows.jsonl"],
        _ => &[
            "--teacher",
            "model",
            "--student",
            "model",
            "--data",
            &traces,
            "reward.teacher_temperature=1",
            "reward.student_temperature=1",
        ],
    };
    let mut child = Command::new(rlt)
        .current_dir(dir)
        .arg(command)
        .args(inputs)
        .args(["--out", &format!("{command}-{n}.jsonl"), "--quiet", url])
        .args([format!("sampling.max_new_tokens={TOKENS}"), format!("server.in_flight={IN_FLIGHT}")])
        .stdout(Stdio::null())
        .spawn()?;
    // A process that has ended keeps its times until it is waited for.
    let stat = format!("/proc/{}/stat", child.id());
    loop {
        let text = std::fs::read_to_string(&stat)?;
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if fields[0] == "Z" {
            let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
            return if child.wait()?.success() { Ok(ticks / TICKS) } else { Err("rlt failed".into()) };
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Answers the requests of a connection.
fn serve(stream: &TcpStream, seen: &Mutex<Seen>) -> Outcome<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let came = Instant::now();
        let mut counts = path == "/v1/completions";
        if counts {
            let mut seen = lock(seen);
            counts = seen.looks == 0;
            seen.looks = seen.looks.saturating_sub(1);
        }
        if counts {
            let mut seen = lock(seen);
            seen.first.get_or_insert(came);
            if let (0, Some(last)) = (seen.under_way, seen.last) {
                seen.idle += came.saturating_duration_since(last);
            }
            seen.under_way += 1;
        }
        let (status, answer) = answer(&path, std::str::from_utf8(&body)?)?;
        if counts {
            thread::sleep(TAKES.saturating_sub(came.elapsed()));
        }
        let head = format!(
            "HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        let mut stream = stream;
        stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat())?;
        if counts {
            let mut seen = lock(seen);
            seen.n += 1;
            seen.under_way -= 1;
            seen.last = Some(Instant::now());
        }
    }
}

/// As vLLM writes it, by pieces of the request: what a server takes of the processor here is taken from whoever asks it.
fn answer(path: &str, body: &str) -> Outcome<(u16, String)> {
    Ok(match path {
        "/v1/models" => {
            let model = json!({ "id": "policy", "owned_by": "vllm", "max_model_len": 512 });
            (200, json!({ "data": [model] }).to_string())
        }
        "/version" => (200, json!({ "version": "scripted" }).to_string()),
        "/is_paused" => (200, json!({ "is_paused": false }).to_string()),
        "/v1/completions" => {
            let rest = body.split_once("\"prompt\":[").ok_or("no prompt")?.1;
            let prompt = rest.split_once(']').ok_or("no prompt")?.0;
            let said = if body.contains("\"prompt_logprobs\"") {
                let scored =
                    prompt.split(',').skip(1).map(|id| format!(r#",{{"{id}":{{"logprob":-1.25}}}}"#));
                let scored: String = scored.collect();
                format!(r#""token_ids":[40],"prompt_logprobs":[null{scored}]"#)
            } else {
                let rest = body.split_once("\"max_tokens\":").ok_or("no length")?.1;
                let n = rest.split([',', '}']).next().unwrap_or_default().parse()?;
                let ids: Vec<String> = (0..n).map(|i| (40 + i % 50).to_string()).collect();
                let names: Vec<String> = ids.iter().map(|id| format!(r#""token_id:{id}""#)).collect();
                let (ids, names, values) = (ids.join(","), names.join(","), vec!["-1.25"; n].join(","));
                format!(
                    r#""token_ids":[{ids}],"logprobs":{{"token_logprobs":[{values}],"tokens":[{names}]}}"#
                )
            };
            let choice = format!(
                r#"{{"index":0,"text":"","finish_reason":"length","prompt_token_ids":[{prompt}],{said}}}"#
            );
            (200, format!(r#"{{"model":"policy","choices":[{choice}]}}"#))
        }
        _ => (404, json!({ "detail": "Not Found" }).to_string()),
    })
}
