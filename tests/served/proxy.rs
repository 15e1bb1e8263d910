//! A proxy before a server that misbehaves on purpose.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status; 503 and 429 say when to ask again.
    Status(u16),
    /// The answer comes this late.
    Slow(Duration),
    /// Half of the answer, then the connection ends with a reset.
    Cut,
    /// The answer is no JSON.
    Garbage,
    /// No answer.
    Hang,
    /// Another model is asked for.
    OtherModel,
    /// The server does what it is asked, and its answer is lost.
    Lost,
    /// This is answered, and nothing is done.
    Claim(&'static str),
    /// Weights are asked for from a folder that is not there.
    OtherFolder,
}

/// A request as the proxy sees it.
pub struct Seen<'a> {
    /// How many came before it.
    pub number: usize,
    pub path: &'a str,
    pub body: &'a str,
}

type Plan = dyn Fn(&Seen) -> Option<Fault> + Send + Sync;

/// A proxy on a port of its own; it ends with the test.
pub struct Proxy {
    pub port: u16,
    requests: Arc<AtomicUsize>,
    faults: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    /// Stands before the server at `upstream`; `plan` says what goes wrong with a request.
    pub fn start(upstream: u16, plan: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, faults) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let is_over = Arc::<AtomicBool>::default();
        let plan: Arc<Plan> = Arc::new(plan);
        let worker = Worker {
            upstream,
            plan,
            requests: requests.clone(),
            faults: faults.clone(),
            is_over: is_over.clone(),
        };
        thread::spawn(move || {
            for stream in listener.incoming() {
                if worker.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (worker, Ok(stream)) = (worker.clone(), stream) else { continue };
                thread::spawn(move || worker.serve(stream));
            }
        });
        Self { port, requests, faults, is_over }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Those of them that went wrong.
    pub fn faults(&self) -> usize {
        self.faults.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

#[derive(Clone)]
struct Worker {
    upstream: u16,
    plan: Arc<Plan>,
    requests: Arc<AtomicUsize>,
    faults: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Worker {
    /// One request of a connection; the next one needs another.
    fn serve(&self, mut client: TcpStream) {
        let Some((head, mut body)) = read_message(&mut client) else { return };
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let fault = (self.plan)(&Seen { number, path: &path, body: &String::from_utf8_lossy(&body) });
        self.faults.fetch_add(usize::from(fault.is_some()), Ordering::SeqCst);
        match fault {
            Some(Fault::Status(status)) => {
                let text = format!(r#"{{"error":{{"message":"made up","code":{status}}}}}"#);
                let retry = if status == 500 { "" } else { "Retry-After: 1\r\n" };
                return send(&mut client, &format!("HTTP/1.1 {status} Made Up\r\n{retry}"), text.as_bytes());
            }
            Some(Fault::Hang) => {
                while !self.is_over.load(Ordering::SeqCst) && !is_closed(&client) {
                    thread::sleep(Duration::from_millis(20));
                }
                return;
            }
            Some(Fault::Claim(answer)) => {
                return send(&mut client, "HTTP/1.1 200 OK\r\n", answer.as_bytes());
            }
            Some(Fault::OtherFolder) => {
                body = String::from_utf8_lossy(&body).replace("step-0", "gone-0").into_bytes();
            }
            Some(Fault::Slow(by)) => thread::sleep(by),
            Some(Fault::OtherModel) => {
                let text =
                    String::from_utf8_lossy(&body).replace("\"model\":\"policy\"", "\"model\":\"another\"");
                body = text.into_bytes();
            }
            _ => {}
        }
        let Some((head, answer)) = self.ask_upstream(&head, &body) else { return reset(client) };
        let status = head.lines().next().unwrap_or_default();
        match fault {
            Some(Fault::Lost) => reset(client),
            Some(Fault::Garbage) => {
                let garbage = [&answer[..answer.len() / 2], b"<html>"].concat();
                send(&mut client, &format!("{status}\r\n"), &garbage);
            }
            Some(Fault::Cut) => {
                let length = answer.len();
                let head = format!("{status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                drop(client.write_all(head.as_bytes()));
                drop(client.write_all(&answer[..length / 2]));
                thread::sleep(Duration::from_millis(5));
                reset(client);
            }
            _ => send(&mut client, &format!("{status}\r\n"), &answer),
        }
    }

    /// What the server answers; nothing where it is not there.
    fn ask_upstream(&self, head: &str, body: &[u8]) -> Option<(String, Vec<u8>)> {
        let mut server = TcpStream::connect(("127.0.0.1", self.upstream)).ok()?;
        let line = head.lines().next()?;
        let key = head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization:"));
        let key = key.map(|key| format!("{key}\r\n")).unwrap_or_default();
        let length = body.len();
        let head = format!(
            "{line}\r\nHost: localhost\r\n{key}Connection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        server.write_all(&[head.as_bytes(), body].concat()).ok()?;
        read_message(&mut server)
    }
}

/// Line and headers, and a body of the length that they say.
fn read_message(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            break String::from_utf8(std::mem::replace(&mut bytes, rest)).ok()?;
        }
        match stream.read(&mut part) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&part[..n]),
            _ => return None,
        }
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    });
    let length: usize = length.unwrap_or(0);
    while bytes.len() < length {
        match stream.read(&mut part) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&part[..n]),
            _ => return None,
        }
    }
    Some((head, bytes))
}

fn send(client: &mut TcpStream, head: &str, body: &[u8]) {
    let length = body.len();
    let head = format!(
        "{head}Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    drop(client.write_all(&[head.as_bytes(), body].concat()));
    drop(client.shutdown(Shutdown::Write));
}

/// Ends a connection as a machine does that has gone: bytes that were not read yet make the system send a reset.
fn reset(client: TcpStream) {
    drop(client.shutdown(Shutdown::Both));
    drop(client);
}

fn is_closed(client: &TcpStream) -> bool {
    drop(client.set_nonblocking(true));
    match client.peek(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
