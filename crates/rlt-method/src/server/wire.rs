//! One request to one address: what is sent, how much is taken back, and what a status means.

use std::net::IpAddr;
use std::time::Duration;

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
    agent: Agent,
    address: String,
    key: Option<String>,
}

impl Wire {
    /// Asks `address` with `key`, and waits `timeout` for an answer to begin, and as long again for all of it. One limit for
    /// all would have a thread made for every request, which looks up the address.
    pub fn new(address: &str, key: Option<String>, timeout: Duration, connections: usize) -> Self {
        let mut config = Agent::config_builder()
            .user_agent(concat!("rlt/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // A key goes where it was meant to go.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .timeout_connect(Some(timeout.min(MOST_CONNECT)))
            .timeout_send_request(Some(timeout))
            .timeout_send_body(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .timeout_recv_body(Some(timeout));
        if is_this_machine(address) {
            config = config.proxy(None);
        }
        Self { agent: config.build().into(), address: address.to_owned(), key }
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
        let url = format!("{}{}", self.address, ask.path);
        let key = self.key.as_deref().map(|key| format!("Bearer {key}"));
        let sent = match &ask.body {
            None => {
                let mut request = self.agent.get(&url);
                if let Some(key) = &key {
                    request = request.header("authorization", key);
                }
                request.call()
            }
            Some(body) => {
                let mut request = self.agent.post(&url).header("content-type", "application/json");
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
    use super::*;

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
