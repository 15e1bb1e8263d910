//! `rlt serve` as a program, the plainest client that there can be, and a proxy that misbehaves.

#[allow(dead_code, reason = "not every test file needs bad luck")]
pub mod proxy;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A running `rlt serve`; dropped, it is killed.
pub struct Served {
    child: Child,
    pub port: u16,
}

#[allow(dead_code, reason = "not every test file does everything with a server")]
impl Served {
    /// Serves a model folder under the name `policy`.
    pub fn start(model: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
        command.arg("serve").args(args);
        Self::start_by(command, model)
    }

    /// As [`Self::start`], by a command that says the rest.
    pub fn start_by(mut command: Command, model: &Path) -> Self {
        command.args(["--quiet", "--json", "--name", "policy", "--model"]).arg(model);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        Self { child, port: answer["port"].as_u64().unwrap() as u16 }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn get(&self, path: &str) -> Answer {
        ask(self.port, "GET", path, "", b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        ask(self.port, "POST", path, "", body.to_string().as_bytes())
    }

    /// `POST /v1/completions` with `more` beside the model's name.
    pub fn complete(&self, more: &Value) -> Answer {
        let mut body = json!({ "model": "policy" });
        more.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        self.post("/v1/completions", &body)
    }

    /// Asks it to end, and gives how it did and how long it took.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        let kill = Command::new("kill").arg(self.id().to_string()).status().unwrap();
        assert!(kill.success());
        (self.child.wait().unwrap(), began.elapsed())
    }

    /// Waits for it to end by itself, and gives how it did.
    pub fn ended(mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Line and headers.
    pub head: String,
    pub body: Value,
}

#[allow(dead_code, reason = "not every test file reads everything of an answer")]
impl Answer {
    /// The body of an answer that is one.
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// Status and message of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        let error = &self.body["error"];
        assert_eq!(error["code"], self.status, "{self:?}");
        assert!(error["type"].is_string(), "{self:?}");
        (self.status, error["message"].as_str().unwrap().to_owned())
    }
}

/// One request on a connection of its own.
pub fn ask(port: u16, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    read_answer(&mut stream)
}

/// Reads an answer up to the end of the connection.
pub fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    drop(stream.read_to_end(&mut bytes));
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() };
    Answer { status, head: head.to_owned(), body }
}
