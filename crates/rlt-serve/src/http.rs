//! HTTP/1.1 as far as a JSON interface needs it, on blocking sockets: a request is read whole within fixed sizes and a fixed
//! time, whoever sends it and however slowly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::refusal::Refusal;

/// Most bytes of a request's line and headers.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Most bytes of a request's body.
pub(crate) const MAX_BODY_BYTES: usize = 32 << 20;
/// How long a connection may say nothing between two requests.
const IDLE: Duration = Duration::from_secs(60);
/// How long line and headers of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a body may take, and an answer to be read.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How often whoever waits looks up.
pub(crate) const LOOK_UP: Duration = Duration::from_millis(100);

/// A request that was read whole.
#[derive(Debug)]
pub(crate) struct Request {
    /// `GET`, `POST`, ..
    pub method: String,
    /// The target up to the question mark.
    pub path: String,
    /// The target after it.
    pub query: String,
    /// What `Authorization` said.
    pub authorization: Option<String>,
    /// Whether a browser sent it for a page.
    pub has_origin: bool,
    /// Whether the client wants to use the connection again.
    pub keeps_alive: bool,
    /// Its body.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Why no request was read.
#[derive(Debug)]
pub(crate) enum NoRequest {
    /// The client has gone, or said nothing for too long.
    Gone,
    /// It sent what is no request, or too much; the connection ends after this answer.
    Refused(Refusal),
}

impl From<std::io::Error> for NoRequest {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// A client's connection and what it has sent beyond the request before.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        // Answers go out whole, in one write.
        drop(stream.set_nodelay(true));
        Self { stream, received: Vec::new() }
    }

    /// Reads the next request. `is_closing` ends a wait for one that has not begun. `admit` is told of the length of a body
    /// before it is read.
    ///
    /// # Errors
    /// [`NoRequest`].
    pub fn read<R>(
        &mut self,
        is_closing: impl Fn() -> bool,
        admit: impl FnOnce(usize) -> Result<R, Refusal>,
    ) -> Result<(Request, R), NoRequest> {
        let idle_until = Instant::now() + if self.received.is_empty() { IDLE } else { HEAD_TIME };
        while self.received.is_empty() {
            if is_closing() || Instant::now() >= idle_until {
                return Err(NoRequest::Gone);
            }
            self.receive(LOOK_UP)?;
        }
        let head_until = Instant::now() + HEAD_TIME;
        let head = loop {
            match parse_head(&self.received).map_err(NoRequest::Refused)? {
                Some(head) => break head,
                None if self.received.len() >= MAX_HEAD_BYTES => {
                    let what = format!("line and headers of a request take at most {MAX_HEAD_BYTES} bytes");
                    return Err(NoRequest::Refused(Refusal::new(431, what)));
                }
                None => self.receive_until(head_until)?,
            }
        };
        let admitted = admit(head.body_bytes).map_err(NoRequest::Refused)?;
        self.received.drain(..head.bytes);
        if head.expects_continue && self.received.is_empty() && head.body_bytes > 0 {
            self.write_until(b"HTTP/1.1 100 Continue\r\n\r\n", Instant::now() + HEAD_TIME)?;
        }
        let body_until = Instant::now() + BODY_TIME;
        while self.received.len() < head.body_bytes {
            self.receive_until(body_until)?;
        }
        let rest = self.received.split_off(head.body_bytes);
        let body = std::mem::replace(&mut self.received, rest);
        Ok((Request { body, ..head.request }, admitted))
    }

    /// Waits for more until a moment.
    fn receive_until(&mut self, until: Instant) -> Result<(), NoRequest> {
        let before = self.received.len();
        while self.received.len() == before {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoRequest::Refused(Refusal::new(408, "the request took too long to arrive")));
            }
            self.receive(left)?;
        }
        Ok(())
    }

    /// Takes what arrives within a time, if anything.
    fn receive(&mut self, within: Duration) -> Result<(), NoRequest> {
        self.stream.set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        let mut part = [0; 16 << 10];
        match self.stream.read(&mut part) {
            Ok(0) => Err(NoRequest::Gone),
            Ok(n) => {
                self.received.extend_from_slice(&part[..n]);
                Ok(())
            }
            Err(error) if is_time_out(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the client has closed the connection; what it has sent stays to be read.
    pub fn is_gone(&self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let gone = match self.stream.peek(&mut [0]) {
            Ok(n) => n == 0,
            Err(error) => !is_time_out(&error),
        };
        gone || self.stream.set_nonblocking(false).is_err()
    }

    /// Answers with JSON, or with nothing where `body` is empty.
    ///
    /// # Errors
    /// The client has gone, or does not read.
    pub fn write(&mut self, status: u16, body: &[u8], keeps_alive: bool) -> std::io::Result<()> {
        let reason = reason(status);
        let connection = if keeps_alive { "keep-alive" } else { "close" };
        let retry = if status == 503 { "Retry-After: 1\r\n" } else { "" };
        let mut answer = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nServer: rlt/{}\r\n\
             {retry}Connection: {connection}\r\n\r\n",
            body.len(),
            env!("CARGO_PKG_VERSION")
        )
        .into_bytes();
        answer.extend_from_slice(body);
        self.write_until(&answer, Instant::now() + BODY_TIME)
    }

    fn write_until(&mut self, mut bytes: &[u8], until: Instant) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_write_timeout(Some(left))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(error) if is_time_out(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the connection such that the last answer arrives: with unread bytes left, the system would send a reset, which
    /// may overtake it.
    pub fn finish(mut self) {
        drop(self.stream.shutdown(Shutdown::Write));
        let until = Instant::now() + Duration::from_secs(1);
        drop(self.stream.set_read_timeout(Some(LOOK_UP)));
        let mut part = [0; 16 << 10];
        while Instant::now() < until {
            match self.stream.read(&mut part) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if is_time_out(&error) => {}
                Err(_) => break,
            }
        }
    }
}

fn is_time_out(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Line and headers of a request.
struct Head {
    request: Request,
    /// How many bytes they take.
    bytes: usize,
    body_bytes: usize,
    expects_continue: bool,
}

/// Reads line and headers; none where they are not complete.
fn parse_head(received: &[u8]) -> Result<Option<Head>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let seen = &received[..received.len().min(MAX_HEAD_BYTES)];
    let bytes = match parsed.parse(seen) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(431, format!("a request has at most {MAX_HEADERS} headers")));
        }
        Err(error) => return Err(Refusal::wrong(format!("not an HTTP request: {error}"))),
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        authorization: None,
        has_origin: false,
        keeps_alive: parsed.version == Some(1),
        body: Vec::new(),
    };
    let (mut body_bytes, mut expects_continue) = (None, false);
    for header in parsed.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        let value = value.trim();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                let length = if digits { value.parse::<usize>().ok() } else { None };
                let wrong = || Refusal::wrong("Content-Length is no number of bytes");
                let length = length.ok_or_else(wrong)?;
                if body_bytes.is_some_and(|other| other != length) {
                    return Err(Refusal::wrong("two different Content-Length headers"));
                }
                body_bytes = Some(length);
            }
            "transfer-encoding" => {
                return Err(Refusal::new(411, "Transfer-Encoding is not supported: send Content-Length"));
            }
            "connection" if value.eq_ignore_ascii_case("close") => request.keeps_alive = false,
            "expect" => expects_continue = value.eq_ignore_ascii_case("100-continue"),
            "authorization" => request.authorization = Some(value.to_owned()),
            "origin" => request.has_origin = true,
            _ => {}
        }
    }
    let body_bytes = body_bytes.unwrap_or(0);
    if body_bytes > MAX_BODY_BYTES {
        return Err(Refusal::new(413, format!("a body takes at most {MAX_BODY_BYTES} bytes")));
    }
    Ok(Some(Head { request, bytes, body_bytes, expects_continue }))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_or_refused() {
        let head =
            parse_head(b"POST /pause?mode=wait&x HTTP/1.1\r\nContent-Length: 3\r\nOrigin: a\r\n\r\nabc")
                .unwrap();
        let head = head.unwrap();
        assert_eq!((head.request.method.as_str(), head.request.path.as_str()), ("POST", "/pause"));
        assert_eq!(head.request.parameter("mode"), Some("wait"));
        assert_eq!((head.body_bytes, head.request.has_origin, head.request.keeps_alive), (3, true, true));
        assert!(parse_head(b"POST / HTTP/1.1\r\nContent-Le").unwrap().is_none());
        let refused = |head: &str| parse_head(head.as_bytes()).err().map(|refusal| refusal.status);
        assert_eq!(refused("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), Some(400));
        assert_eq!(refused("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), Some(400));
        assert_eq!(refused("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"), Some(400));
        assert_eq!(refused("GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"), Some(413));
        assert_eq!(refused("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), Some(411));
        assert_eq!(refused("\u{1}\u{2} rubbish\r\n\r\n"), Some(400));
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65))), Some(431));
    }
}
