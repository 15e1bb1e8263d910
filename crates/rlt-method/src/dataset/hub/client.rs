//! The few requests that a data set takes, and nothing that the hub says taken on trust (see [`super::answers`]).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ureq::http::{HeaderMap, Uri};
use ureq::{Agent, Body, http::Response};

use super::answers::{Listing, MAX_FILE_BYTES, MAX_LISTING_BYTES, etag, percent_encoded, total_of_range};
use super::id::DatasetId;

/// Where requests go without `HF_ENDPOINT`.
const HUB: &str = "https://huggingface.co";

/// How often a file is asked for that stops in its middle.
const ATTEMPTS: u32 = 4;

/// How often an answer may send elsewhere.
const MAX_REDIRECTS: usize = 5;

/// Why the hub has not given what was asked for.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 401 or 403.
    Denied,
    /// 404.
    Absent,
    /// It said nothing for as long as it may.
    Silent,
    /// It cannot be reached, or stops.
    Unreachable(String),
    /// It said something that is not to be acted on.
    Distrusted(String),
    /// The cache cannot be written.
    Cache(PathBuf, std::io::Error),
    /// Nothing that the hub could help.
    Other(Box<crate::Error>),
}

/// One hub, asked with one patience.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(endpoint: Option<String>, token: Option<String>, patience: Duration) -> Self {
        let patience = Some(patience);
        let agent = Agent::config_builder()
            .user_agent(concat!("rlt/", env!("CARGO_PKG_VERSION")))
            // Lengths and hashes are those of the file itself.
            .accept_encoding("identity")
            // Followed by hand: where to is checked, and the headers on the way are read.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(patience)
            .timeout_connect(patience)
            .timeout_recv_response(patience)
            .timeout_per_read(patience)
            .build()
            .into();
        let endpoint = endpoint.unwrap_or_else(|| HUB.into());
        Self { agent, endpoint: endpoint.trim_end_matches('/').to_owned(), token }
    }

    /// The commit and the files of `id`'s revision.
    pub(super) fn listing(&self, id: &DatasetId) -> Result<Listing, Refusal> {
        let revision = percent_encoded(&id.revision, "");
        let address = format!("{}/api/datasets/{}/revision/{revision}", self.endpoint, id.repository);
        let mut answer = self.get(&address, 0)?.response;
        let mut json = Vec::new();
        let mut body = answer.body_mut().as_reader().take(MAX_LISTING_BYTES + 1);
        body.read_to_end(&mut json).map_err(|e| of_reading(&e))?;
        if json.len() as u64 > MAX_LISTING_BYTES {
            let what = format!("its list of files is over {} MB", MAX_LISTING_BYTES >> 20);
            return Err(Refusal::Distrusted(what));
        }
        Listing::parse(&json).map_err(Refusal::Distrusted)
    }

    /// Puts the content of file `name` at `commit` into `blobs`, under its hash, where it is not yet. Returns its path.
    pub(super) fn blob(
        &self,
        id: &DatasetId,
        commit: &str,
        name: &str,
        blobs: &Path,
    ) -> Result<PathBuf, Refusal> {
        let address = format!(
            "{}/datasets/{}/resolve/{commit}/{}",
            self.endpoint,
            id.repository,
            percent_encoded(name, "/")
        );
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.attempt(&address, name, blobs) {
                Err(Refusal::Unreachable(_)) if attempt < ATTEMPTS => {
                    thread::sleep(Duration::from_millis(300) * attempt);
                }
                outcome => return outcome,
            }
        }
    }

    /// Asks once, going on behind what an earlier attempt has left.
    fn attempt(&self, address: &str, name: &str, blobs: &Path) -> Result<PathBuf, Refusal> {
        let distrusted = |what: String| Refusal::Distrusted(format!("of {name:?}, {what}"));
        let first = self.get(address, 0)?;
        let hash = first.hash.as_deref().ok_or_else(|| distrusted("it gives no hash (ETag)".into()))?;
        let hash =
            etag(hash).ok_or_else(|| distrusted(format!("it gives the hash {hash:?}, which is not one")))?;
        let length = first
            .length()
            .ok_or_else(|| distrusted("it does not say how long it is, or says two things".into()))?;
        if length > MAX_FILE_BYTES {
            return Err(distrusted(format!(
                "it says that it is {} GB long; a file has at most {}",
                length >> 30,
                MAX_FILE_BYTES >> 30
            )));
        }
        let blob = blobs.join(hash);
        if blob.exists() {
            return Ok(blob);
        }
        let partial = blobs.join(format!("{hash}.incomplete"));
        let cache = |source| Refusal::Cache(partial.clone(), source);
        let mut file = locked(&partial).map_err(cache)?;
        if blob.exists() {
            // Another process has finished it while this one waited.
            return Ok(blob);
        }
        let mut have = file.seek(SeekFrom::End(0)).map_err(cache)?;
        let mut response = first.response;
        if have > 0 && have < length {
            let rest = self.get(address, have)?;
            // A hub that sends everything again is heard from the start.
            if rest.response.status().as_u16() == 206 {
                let range = header(rest.response.headers(), "content-range").unwrap_or_default();
                if total_of_range(range, have) != Some(length) {
                    return Err(distrusted(format!(
                        "it sends the bytes {range:?} instead of those from {have}"
                    )));
                }
            } else {
                have = 0;
            }
            response = rest.response;
        } else if have > 0 {
            have = 0;
        }
        file.set_len(have).and_then(|()| file.seek(SeekFrom::Start(have))).map_err(cache)?;
        copy(response.body_mut(), &mut file, length - have, &partial)?;
        file.sync_all().map_err(cache)?;
        fs::rename(&partial, &blob).map_err(|source| Refusal::Cache(blob.clone(), source))?;
        Ok(blob)
    }

    /// The answer to a request for everything from byte `from`, redirects followed.
    fn get(&self, address: &str, from: u64) -> Result<Answer, Refusal> {
        let mut address = address.to_owned();
        let (mut hash, mut linked_length) = (None, None);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&address);
            if let Some(token) = self.token.as_deref().filter(|_| same_origin(&address, &self.endpoint)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|e| of_request(&e))?;
            let headers = response.headers();
            // The hub's own hash and length of a file that lies elsewhere come with the redirect.
            hash = hash.or_else(|| header(headers, "x-linked-etag").map(str::to_owned));
            linked_length = linked_length.or_else(|| header(headers, "x-linked-size").map(str::to_owned));
            if response.status().is_redirection() {
                address = target(&address, header(headers, "location").unwrap_or_default())?;
                continue;
            }
            let hash = hash.or_else(|| header(headers, "etag").map(str::to_owned));
            return Ok(Answer { response, hash, linked_length });
        }
        Err(Refusal::Distrusted(format!("it sends elsewhere more than {MAX_REDIRECTS} times")))
    }
}

/// The end of a chain of redirects.
struct Answer {
    response: Response<Body>,
    hash: Option<String>,
    linked_length: Option<String>,
}

impl Answer {
    /// What all that tell the length agree on.
    fn length(&self) -> Option<u64> {
        let told = [self.linked_length.as_deref(), header(self.response.headers(), "content-length")];
        let mut told = told.into_iter().flatten().map(|text| text.trim().parse().ok());
        let length: u64 = told.next()??;
        told.all(|other| other == Some(length)).then_some(length)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The address that `location` means at `address`.
fn target(address: &str, location: &str) -> Result<String, Refusal> {
    let elsewhere =
        || Refusal::Distrusted(format!("it sends on to {location:?}, which is no address for a file"));
    let to: Uri = location.parse().map_err(|_| elsewhere())?;
    let at: Uri = address.parse().map_err(|_| elsewhere())?;
    let (scheme, host) = (at.scheme_str().unwrap_or_default(), at.authority().map_or("", |a| a.as_str()));
    match (to.scheme_str(), to.authority()) {
        (None, None) if location.starts_with('/') && !location.starts_with("//") => {
            Ok(format!("{scheme}://{host}{location}"))
        }
        // From a channel that cannot be listened to, none that can.
        (Some("https"), Some(_)) => Ok(location.to_owned()),
        (Some("http"), Some(_)) if scheme == "http" => Ok(location.to_owned()),
        _ => Err(elsewhere()),
    }
}

/// Whether both addresses are of one server: only there the token is shown.
fn same_origin(a: &str, b: &str) -> bool {
    let origin = |address: &str| {
        let uri: Uri = address.parse().ok()?;
        Some((uri.scheme_str()?.to_owned(), uri.authority()?.as_str().to_ascii_lowercase()))
    };
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

/// The partial file, once no other process is writing it.
fn locked(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Copies exactly `length` bytes.
fn copy(body: &mut Body, file: &mut File, length: u64, path: &Path) -> Result<(), Refusal> {
    let mut reader = body.as_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut left = length;
    while left > 0 {
        let most = left.min(buffer.len() as u64) as usize;
        let n = reader.read(&mut buffer[..most]).map_err(|e| of_reading(&e))?;
        if n == 0 {
            return Err(Refusal::Unreachable(format!("it ended {left} bytes before the end of a file")));
        }
        file.write_all(&buffer[..n]).map_err(|source| Refusal::Cache(path.to_owned(), source))?;
        left -= n as u64;
    }
    Ok(())
}

fn of_request(error: &ureq::Error) -> Refusal {
    match error {
        ureq::Error::StatusCode(401 | 403) => Refusal::Denied,
        ureq::Error::StatusCode(404) => Refusal::Absent,
        ureq::Error::Timeout(_) => Refusal::Silent,
        ureq::Error::StatusCode(status) => Refusal::Unreachable(format!("it answers with status {status}")),
        error => Refusal::Unreachable(error.to_string()),
    }
}

fn of_reading(error: &std::io::Error) -> Refusal {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    if error.kind() == ErrorKind::TimedOut || matches!(inner, Some(ureq::Error::Timeout(_))) {
        return Refusal::Silent;
    }
    Refusal::Unreachable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_as_safe_as_they_began() {
        let at = "https://hub.example/datasets/a/b/resolve/c0/f";
        assert_eq!(target(at, "/x?y=1").unwrap(), "https://hub.example/x?y=1");
        assert_eq!(target(at, "https://cdn.example/x").unwrap(), "https://cdn.example/x");
        assert_eq!(target("http://127.0.0.1:9/a", "http://127.0.0.1:8/x").unwrap(), "http://127.0.0.1:8/x");
        for bad in [
            "http://cdn.example/x",
            "file:///etc/passwd",
            "ftp://x/y",
            "",
            "x",
            "//cdn.example/x",
            "gopher:x",
        ] {
            assert!(target(at, bad).is_err(), "{bad}");
        }
        assert!(same_origin("https://Hub.example/x", "https://hub.example"));
        for other in ["http://hub.example", "https://hub.example:8443/x", "https://hub.example.evil.org/"] {
            assert!(!same_origin(other, "https://hub.example"), "{other}");
        }
    }
}
