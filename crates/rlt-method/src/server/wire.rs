//! One request to one address: what is sent, how much is taken back, and what a status means.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::fault::{Fault, own_words};

/// Most bytes of a refusal that are read.
const MOST_REFUSAL: u64 = 1 << 20;

/// Longest wait for a connection.
const MOST_CONNECT: Duration = Duration::from_secs(10);

/// Longest wait that a server can ask for.
const MOST_AFTER: Duration = Duration::from_secs(120);

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// Below the address.
    pub path: String,
    /// What is posted; nothing is got.
    pub body: Option<Vec<u8>>,
    /// Most bytes that the answer may have.
    pub most: u64,
}

impl Ask {
    /// A question without a body.
    pub fn get(path: &str) -> Self {
        Self { path: path.into(), body: None, most: 16 << 20 }
    }

    /// JSON to post, for an answer of at most `most` bytes.
    pub fn post(path: &str, body: &serde_json::Value, most: u64) -> Self {
        Self { path: path.into(), body: Some(body.to_string().into_bytes()), most }
    }
}

/// An address, and how it is asked.
#[derive(Debug)]
pub(super) struct Wire {
    config: Config,
    /// Connections that nothing is asked over. Each is an agent of its own: those of one wait for each other whenever one is
    /// taken or given back.
    idle: Mutex<Vec<Agent>>,
    address: String,
    key: Option<String>,
}

impl Wire {
    /// Asks `address` with `key`, and waits `timeout` for an answer to begin, and as long again for all of it. One limit for
    /// all would have a thread made for every request, which looks up the address.
    pub fn new(address: &str, key: Option<String>, timeout: Duration) -> Self {
        let mut config = Agent::config_builder()
            .user_agent(concat!("rlt/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // A key goes where it was meant to go.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .timeout_connect(Some(timeout.min(MOST_CONNECT)))
            .timeout_send_request(Some(timeout))
            .timeout_send_body(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .timeout_recv_body(Some(timeout));
        if is_this_machine(address) {
            config = config.proxy(None);
        }
        Self { config: config.build(), idle: Mutex::default(), address: address.to_owned(), key }
    }

    /// Where it asks.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The body of the answer, where that is a good one.
    ///
    /// # Errors
    /// What stands in the way; whoever asks knows from it whether to ask again.
    pub fn ask(&self, ask: &Ask) -> Result<Vec<u8>, Fault> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let agent = taken.unwrap_or_else(|| self.config.clone().into());
        let answer = self.ask_over(&agent, ask);
        idle().push(agent);
        answer
    }

    fn ask_over(&self, agent: &Agent, ask: &Ask) -> Result<Vec<u8>, Fault> {
        let url = format!("{}{}", self.address, ask.path);
        let key = self.key.as_deref().map(|key| format!("Bearer {key}"));
        let sent = match &ask.body {
            None => {
                let mut request = agent.get(&url);
                if let Some(key) = &key {
                    request = request.header("authorization", key);
                }
                request.call()
            }
            Some(body) => {
                let mut request = agent.post(&url).header("content-type", "application/json");
                if let Some(key) = &key {
                    request = request.header("authorization", key);
                }
                request.send(body.as_slice())
            }
        };
        let mut response = sent.map_err(|e| broken(&e))?;
        let status = response.status().as_u16();
        if status == 200 {
            return read(&mut response, ask.most).map_err(|e| match e {
                ureq::Error::BodyExceedsLimit(_) => {
                    Fault::passing(format!("its answer has more than {} bytes, which none has", ask.most))
                }
                e => broken(&e),
            });
        }
        let after = retry_after(response.headers());
        let body = read(&mut response, MOST_REFUSAL).unwrap_or_default();
        let words = own_words(&body, self.key.as_deref());
        let what = format!("{} {}: {words}", status, response.status().canonical_reason().unwrap_or(""))
            .replace(" :", ":");
        Err(match status {
            408 | 429 | 500 | 502 | 503 | 504 => Fault::Passing { what, after },
            300..=399 => Fault::Lasting(format!(
                "{what} (it sends elsewhere, which is not followed; give that address)"
            )),
            401 | 403 => Fault::Lasting(format!(
                "{what} (a key comes from the environment variable that key_env names)"
            )),
            _ => Fault::Lasting(what),
        })
    }
}

fn read(response: &mut Response<Body>, most: u64) -> Result<Vec<u8>, ureq::Error> {
    response.body_mut().with_config().limit(most).read_to_vec()
}

/// A connection that failed: the next one may not.
fn broken(error: &ureq::Error) -> Fault {
    match error {
        ureq::Error::Timeout(_) => Fault::passing("it has not answered in time"),
        ureq::Error::HostNotFound => Fault::passing("there is no such host"),
        ureq::Error::ConnectionFailed => Fault::passing("nothing answers there"),
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            Fault::passing("nothing answers there (connection refused)")
        }
        ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) => Fault::Lasting(error.to_string()),
        other => Fault::passing(format!("the connection broke ({other})")),
    }
}

/// Seconds of a `Retry-After`; its dates are taken for nothing.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?;
    let seconds: f64 = text.trim().parse().ok()?;
    (seconds.is_finite() && seconds >= 0.0)
        .then(|| Duration::from_secs_f64(seconds.min(MOST_AFTER.as_secs_f64())))
}

/// Whether an address is of this machine, where no proxy stands between.
fn is_this_machine(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// A server that says the same bytes to everybody, a part at a time, and then closes the connection; it counts the
    /// connections, and the headers that have a key in them.
    fn saying(at: &str, parts: Vec<Vec<u8>>, pause: Duration) -> Option<(String, Arc<[AtomicUsize; 2]>)> {
        let listener = TcpListener::bind(at).ok()?;
        let address = format!("http://{}", listener.local_addr().ok()?);
        let counts: Arc<[AtomicUsize; 2]> = Arc::default();
        let told = counts.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                told[0].fetch_add(1, Ordering::SeqCst);
                let (parts, told) = (parts.clone(), told.clone());
                thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    while let Some(Ok(line)) = lines.next()
                        && !line.is_empty()
                    {
                        told[1].fetch_add(usize::from(line.contains("s3cret")), Ordering::SeqCst);
                    }
                    for part in parts {
                        if stream.write_all(&part).is_err() {
                            return;
                        }
                        thread::sleep(pause);
                    }
                });
            }
        });
        Some((address, counts))
    }

    /// What comes of asking such a server, with half a second of patience.
    fn answer(parts: &[&[u8]], pause: Duration) -> Result<Vec<u8>, Fault> {
        let parts = parts.iter().map(|part| part.to_vec()).collect();
        let (address, _) = saying("127.0.0.1:0", parts, pause).unwrap();
        wire(&address).ask(&Ask::get("/v1/models"))
    }

    fn wire(address: &str) -> Wire {
        Wire::new(address, Some("s3cret".into()), Duration::from_millis(500))
    }

    const NONE: Duration = Duration::ZERO;

    #[test]
    fn a_length_that_is_wrong_is_a_connection_that_broke_or_an_answer_that_is_cut() {
        let long = answer(&[b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"], NONE).unwrap_err();
        assert!(matches!(&long, Fault::Passing { what, .. } if what.contains("broke")), "{long:?}");
        let short = answer(&[b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}"], NONE).unwrap();
        assert!(matches!(super::super::answer::parse::<u32>(&short), Err(Fault::Passing { .. })));
        let none = answer(&[b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"], NONE).unwrap_err();
        assert!(matches!(&none, Fault::Passing { .. }), "{none:?}");
        let nothing = answer(&[b""], NONE).unwrap_err();
        assert!(matches!(&nothing, Fault::Passing { .. }), "{nothing:?}");
    }

    #[test]
    fn an_answer_that_drips_is_not_waited_for_longer_than_one_that_does_not_come() {
        let head: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        let drops: Vec<&[u8]> = std::iter::once(head).chain(std::iter::repeat_n(&b"1"[..], 1000)).collect();
        let began = Instant::now();
        let dripping = answer(&drops, Duration::from_millis(20)).unwrap_err();
        assert_eq!(dripping, Fault::passing("it has not answered in time"));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    #[test]
    fn characters_may_be_split_between_chunks() {
        let text = "{\"text\":\"ä€𝄞\"}";
        let chunks = text.as_bytes().chunks(1).map(|byte| [b"1\r\n", byte, b"\r\n"].concat());
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let all: Vec<Vec<u8>> = std::iter::once(head).chain(chunks).chain([b"0\r\n\r\n".to_vec()]).collect();
        let parts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        assert_eq!(answer(&parts, Duration::from_millis(1)).unwrap(), text.as_bytes());
    }

    #[test]
    fn a_key_does_not_go_where_a_server_sends_it() {
        let (elsewhere, asked) = saying("127.0.0.1:0", Vec::new(), NONE).unwrap();
        for status in [301, 302, 307, 308] {
            let head =
                format!("HTTP/1.1 {status} x\r\nLocation: {elsewhere}/v1\r\nContent-Length: 0\r\n\r\n");
            let (address, counts) = saying("127.0.0.1:0", vec![head.into_bytes()], NONE).unwrap();
            let ask = Ask::post("/v1/completions", &serde_json::json!({}), 100);
            let fault = wire(&address).ask(&ask).unwrap_err();
            assert!(matches!(&fault, Fault::Lasting(what) if what.contains("not followed")), "{fault:?}");
            assert!(!fault.what().contains("s3cret"), "{fault:?}");
            assert_eq!(counts[1].load(Ordering::SeqCst), 1);
        }
        assert_eq!(asked[0].load(Ordering::SeqCst), 0);
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "a skipped test says so")]
    fn an_address_of_ipv6_is_asked() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec();
        match saying("[::1]:0", vec![whole], NONE) {
            Some((address, _)) => assert_eq!(wire(&address).ask(&Ask::get("/x")).unwrap(), b"{}"),
            None => println!("this machine has no IPv6: not looked at"),
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (address, ours) in [
            ("http://127.0.0.1:8000", true),
            ("http://localhost/x", true),
            ("http://[::1]:80", true),
            ("https://10.0.0.1:8000", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_this_machine(address), ours, "{address}");
        }
    }

    #[test]
    fn a_servers_wish_is_taken_in_seconds_and_bounded() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("2"), Some(Duration::from_secs(2)));
        assert_eq!(of("1e9"), Some(MOST_AFTER));
        for nothing in ["-1", "nan", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }
}
