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
    /// Tells of one file and hangs up in its middle, once; then goes on where it is asked to.
    HangsUp,
    /// Says these words.
    Says(Words),
}

/// What an answer may lie about.
#[derive(Clone, Copy, PartialEq)]
struct Words {
    commit: &'static str,
    name: &'static str,
    /// Headers of the file's answer, its length among them.
    head: &'static str,
    /// How often the rows are sent; 0 is without end.
    times: usize,
}

const COMMIT: &str = "c0ffee";
const HONEST: Words =
    Words { commit: COMMIT, name: "rows.jsonl", head: "ETag: \"e1\"\r\nContent-Length: 60\r\n", times: 1 };

const ROWS: &str = "{\"question\":\"one\",\"reward\":1}\n{\"question\":\"two\",\"reward\":2}\n";

/// Answers requests until the test's process ends. Returns its address.
fn serve(server: Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut open = Vec::new();
        for (i, stream) in listener.incoming().enumerate() {
            let stream = stream.unwrap();
            if server == Server::Silent {
                open.push(stream);
            } else {
                thread::spawn(move || answer(stream, server, i));
            }
        }
    });
    address
}

/// Answers the request on the `i`-th connection. A client that has heard enough is none of its business.
fn answer(mut stream: TcpStream, server: Server, i: usize) -> Option<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
    let words = if let Server::Says(words) = server { words } else { HONEST };
    let mut head = |status: &str, head: &str| {
        stream.write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\n{head}\r\n").as_bytes()).ok()
    };
    if request.starts_with("get /api/") {
        let info =
            serde_json::json!({"sha": words.commit, "siblings": [{"rfilename": words.name}]}).to_string();
        head("200 OK", &format!("Content-Length: {}\r\n", info.len()))?;
        return stream.write_all(info.as_bytes()).ok();
    }
    assert!(request.starts_with(&format!("get /datasets/some/rows/resolve/{COMMIT}/")), "{request}");
    if let Some(range) = request.lines().find_map(|line| line.strip_prefix("range: bytes=")) {
        assert!(server == Server::HangsUp && range == "24-", "{range}");
        head(
            "206 Partial Content",
            &format!("Content-Length: 36\r\nContent-Range: bytes 24-59/{}\r\n", ROWS.len()),
        )?;
        return stream.write_all(&ROWS.as_bytes()[24..]).ok();
    }
    head(if words.head.contains("Location") { "302 Found" } else { "200 OK" }, words.head)?;
    if server == (Server::Says(words)) {
        let mut sent = 0;
        while words.times == 0 || sent < words.times {
            stream.write_all(ROWS.as_bytes()).ok()?;
            sent += 1;
        }
        return Some(());
    }
    let pieces = ROWS.as_bytes().chunks(ROWS.len().div_ceil(5));
    let whole = server == Server::Dribbles || server == Server::HangsUp && i > 1;
    for piece in pieces.take(if whole { 5 } else { 2 }) {
        stream.write_all(piece).ok()?;
        if server != Server::HangsUp {
            thread::sleep(Duration::from_millis(400));
        }
    }
    if server == Server::Stops {
        thread::sleep(Duration::from_secs(600));
    }
    Some(())
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

#[test]
fn a_file_that_breaks_off_is_fetched_on() {
    let dir = tempfile::tempdir().unwrap();
    let (output, _) = select(dir.path(), &serve(Server::HangsUp), "5");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(dir.path().join("out/kept.jsonl")).unwrap(), ROWS);
    // The layout is that of huggingface_hub.
    let repository = dir.path().join("cache/datasets--some--rows");
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(std::fs::read_to_string(repository.join("blobs/e1")).unwrap(), ROWS);
    let name = repository.join("snapshots/c0ffee/rows.jsonl");
    #[cfg(unix)]
    assert_eq!(std::fs::read_link(&name).unwrap(), Path::new("../../blobs/e1"));
    assert_eq!(std::fs::read_to_string(name).unwrap(), ROWS);
}

/// A hub, or who stands between, can say anything: it ends in one line, and nothing is written outside the cache.
#[test]
fn a_hub_that_lies_writes_nowhere() {
    let named = |name| Words { name, ..HONEST };
    let headed = |head| Words { head, ..HONEST };
    let long: &'static str = Box::leak(format!("{}.jsonl", "x".repeat(100_000)).into_boxed_str());
    let cases: &[(Words, &str)] = &[
        (named("../../../../planted.jsonl"), "it lists a file"),
        (named("data/../../../../../planted.jsonl"), "it lists a file"),
        (named("/tmp/rlt-planted.jsonl"), "it lists a file"),
        (named("..\\planted.jsonl"), "it lists a file"),
        (named("a\0b.jsonl"), "it lists a file"),
        (named("\u{1b}[2Jx.jsonl"), "it lists a file"),
        (named("./rows.jsonl"), "it lists a file"),
        (named(""), "it lists a file"),
        (named(long), "it lists a file"),
        (Words { commit: "../../../planted", ..HONEST }, "it names a commit"),
        (Words { commit: "/tmp/rlt-planted", ..HONEST }, "it names a commit"),
        (Words { commit: "", ..HONEST }, "it names a commit"),
        (headed("ETag: \"../../../planted\"\r\nContent-Length: 60\r\n"), "gives the hash"),
        (headed("ETag: \"/tmp/rlt-planted\"\r\nContent-Length: 60\r\n"), "gives the hash"),
        (headed("ETag: \"\"\r\nContent-Length: 60\r\n"), "gives the hash"),
        (headed("X-Linked-Etag: \"../x\"\r\nETag: \"e1\"\r\nContent-Length: 60\r\n"), "gives the hash"),
        (headed("Content-Length: 60\r\n"), "gives no hash"),
        (headed("ETag: \"e1\"\r\n"), "does not say how long"),
        (headed("ETag: \"e1\"\r\nX-Linked-Size: 59\r\nContent-Length: 60\r\n"), "says two things"),
        (headed("ETag: \"e1\"\r\nContent-Length: 9000000000000000\r\n"), "GB long"),
        (
            headed("ETag: \"e1\"\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n"),
            "no address for a file",
        ),
        (headed("ETag: \"e1\"\r\nLocation: rows.jsonl\r\nContent-Length: 0\r\n"), "no address for a file"),
        (
            headed("Location: /datasets/some/rows/resolve/c0ffee/x\r\nContent-Length: 0\r\n"),
            "sends elsewhere more than 5 times",
        ),
    ];
    for (words, says) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (output, _) = select(dir.path(), &serve(Server::Says(*words)), "5");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!((output.status.code(), lines.len()), (Some(1), 1), "{says}: {stderr}");
        assert!(
            lines[0].contains("the hub is not to be trusted: ") && lines[0].contains(says),
            "{says}: {stderr}"
        );
        assert!(lines[0].len() < 3000 && !lines[0].contains('\u{1b}'), "{says}: {} bytes", lines[0].len());
        assert_eq!(files_below(dir.path()), Vec::<String>::new(), "{says}");
        assert!(!Path::new("/tmp/rlt-planted.jsonl").exists() && !Path::new("/tmp/rlt-planted").exists());
    }
}

#[test]
fn a_body_without_end_is_read_to_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let (output, _) = select(dir.path(), &serve(Server::Says(Words { times: 0, ..HONEST })), "5");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(dir.path().join("out/kept.jsonl")).unwrap(), ROWS);
    // Chunks do not say how many they are.
    let endless = Words { head: "ETag: \"e1\"\r\nTransfer-Encoding: chunked\r\n", times: 0, ..HONEST };
    let dir = tempfile::tempdir().unwrap();
    let (output, _) = select(dir.path(), &serve(Server::Says(endless)), "5");
    assert_eq!(output.status.code(), Some(1));
}
