//! The hub: one that refuses, one that says nothing, one that stops in the middle, and one that is only slow.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use assert_cmd::Command;

use super::{Case, check, files_below};

#[test]
fn wrong_hub_data_sets() {
    check(&[
        Case {
            name: "unreachable hub",
            setup: |_| {},
            args: &["select", "--data", "some/rows", "--out", "out/kept.jsonl", "--by", "best"],
            code: 1,
            says: &["hf://datasets/some/rows: no local file or folder, and the hub cannot be asked"],
        },
        Case {
            name: "a path that no hub has",
            setup: |_| {},
            args: &["select", "--data", "some/rows/more", "--out", "out/kept.jsonl", "--by", "best"],
            code: 1,
            says: &["some/rows/more: No such file"],
        },
    ]);
}

/// What the hub's server does with a file that is asked for.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    /// Accepts, and never answers anything.
    Silent,
    /// Tells of one file and stops in its middle.
    Stops,
    /// Tells of one file and sends it in pieces, 400 ms apart.
    Dribbles,
}

const ROWS: &str = "{\"question\":\"one\",\"reward\":1}\n{\"question\":\"two\",\"reward\":2}\n";

/// Answers requests until the test's process ends. Returns its address.
fn serve(server: Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            if server == Server::Silent {
                open.push(stream);
            } else {
                thread::spawn(move || answer(stream, server));
            }
        }
    });
    address
}

fn answer(mut stream: TcpStream, server: Server) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
    let commit = "c0ffee";
    let head = |length: usize, more: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n")
    };
    if request.starts_with("get /api/") {
        let info = format!("{{\"sha\":\"{commit}\",\"siblings\":[{{\"rfilename\":\"rows.jsonl\"}}]}}");
        stream.write_all((head(info.len(), "") + &info).as_bytes()).unwrap();
    } else if request.contains("bytes=0-0") {
        let about =
            format!("ETag: \"e1\"\r\nX-Repo-Commit: {commit}\r\nContent-Range: bytes 0-0/{}\r\n", ROWS.len());
        stream.write_all((head(1, &about) + "{").as_bytes()).unwrap();
    } else {
        stream.write_all(head(ROWS.len(), "").as_bytes()).unwrap();
        let pieces = ROWS.as_bytes().chunks(ROWS.len().div_ceil(5));
        for piece in pieces.take(if server == Server::Stops { 2 } else { 5 }) {
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(400));
        }
        if server == Server::Stops {
            thread::sleep(Duration::from_secs(600));
        }
    }
}

/// `rlt select` of a hub's rows, with its time.
fn select(dir: &Path, hub: &str, timeout: &str) -> (Output, Duration) {
    let started = Instant::now();
    let output = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir)
        .args(["select", "--data", "some/rows", "--out", "out/kept.jsonl", "--by", "best"])
        .env("HF_ENDPOINT", hub)
        .env("NO_PROXY", "127.0.0.1")
        .env("HF_HUB_CACHE", "cache")
        .env("HF_HUB_DOWNLOAD_TIMEOUT", timeout)
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("HF_DATASETS_OFFLINE")
        .timeout(Duration::from_secs(60))
        .output()
        .unwrap();
    (output, started.elapsed())
}

#[test]
fn a_hub_that_says_nothing_is_given_up() {
    for server in [Server::Silent, Server::Stops] {
        let dir = tempfile::tempdir().unwrap();
        let (output, took) = select(dir.path(), &serve(server), "1.5");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{stderr}");
        for part in [
            "hf://datasets/some/rows: no local file or folder, and the hub has not answered for 1.5 s",
            "HF_HUB_DOWNLOAD_TIMEOUT (seconds)",
        ] {
            assert!(stderr.contains(part), "{stderr}");
        }
        assert!(took > Duration::from_millis(1500), "{took:?}");
        let left: Vec<String> =
            files_below(dir.path()).into_iter().filter(|file| !file.contains("/cache/")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_hub_that_is_slow_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    // Longer than the limit in all, never longer than that without a word.
    let (output, took) = select(dir.path(), &serve(Server::Dribbles), "1.5");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(took > Duration::from_millis(1600), "{took:?}");
    assert_eq!(std::fs::read_to_string(dir.path().join("out/kept.jsonl")).unwrap(), ROWS);
    // Now it is in the cache.
    let offline = Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir.path())
        .args(["select", "--data", "some/rows", "--out", "again.jsonl", "--by", "best"])
        .env("HF_HUB_CACHE", "cache")
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert!(offline.status.success(), "{}", String::from_utf8_lossy(&offline.stderr));
}

#[test]
fn a_time_limit_that_is_no_number_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for timeout in ["soon", "0", "-1", "nan", "1e300"] {
        let (output, _) = select(dir.path(), "http://127.0.0.1:9", timeout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let says = format!("HF_HUB_DOWNLOAD_TIMEOUT is {timeout:?}; a number of seconds above 0 is expected");
        assert!(output.status.code() == Some(1) && stderr.contains(&says), "{stderr}");
    }
}
