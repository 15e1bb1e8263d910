//! Which endpoint does what. An endpoint takes a whole request and gives a whole answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rlt_model::tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::completions::{Asked, check_model};
use crate::engine;
use crate::fields::Neutral;
use crate::http::{LOOK_UP, Request};
use crate::queue::{Queue, Ticket};
use crate::refusal::Refusal;
use crate::weights::{Loaded, Weights};

/// All that endpoints need.
pub(crate) struct Service {
    pub queue: Queue,
    pub weights: Weights,
    /// What clients call the model.
    pub name: String,
    /// What the folder is called in the list of models.
    pub root: String,
    pub tokenizer: Option<Tokenizer>,
    /// What `Authorization: Bearer` has to say, where it has to say something.
    pub key: Option<String>,
    /// Sequences that decode at the same time.
    pub max_running: usize,
    /// Seconds since 1970 at which the server began.
    pub started: u64,
    pub n_requests: AtomicU64,
    /// Bytes of bodies that are in memory.
    pub body_bytes: AtomicUsize,
}

const ENDPOINTS: &str = "GET /health, /version, /v1/models, /weight_info and /is_paused; POST /v1/completions, /tokenize, \
    /detokenize, /pause, /resume, /collective_rpc, /reset_prefix_cache and /update_weight_version";

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Service {
    /// Refuses whoever may not ask.
    pub fn check_caller(&self, request: &Request) -> Result<(), Refusal> {
        if request.has_origin {
            let what = "a browser sent this for a page (Origin); pages may not use this server";
            return Err(Refusal::new(403, what));
        }
        match &self.key {
            Some(key) if request.path != "/health" => {
                let given = request.authorization.as_deref().and_then(|text| text.strip_prefix("Bearer "));
                let right = given.is_some_and(|given| is_same(given.trim().as_bytes(), key.as_bytes()));
                if right {
                    Ok(())
                } else {
                    Err(Refusal::new(401, "Unauthorized: send the server's key as a bearer token"))
                }
            }
            _ => Ok(()),
        }
    }

    /// Answers with a JSON text, or with nothing. `is_gone` says whether the client still waits.
    pub fn answer(&self, request: &Request, is_gone: &dyn Fn() -> bool) -> Result<Vec<u8>, Refusal> {
        let body = || -> Result<Value, Refusal> { small_body(&request.body) };
        let json = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/health") => return Ok(Vec::new()),
            ("GET", "/version") => json!({ "version": env!("CARGO_PKG_VERSION") }),
            ("GET", "/v1/models") => self.models(),
            ("GET", "/weight_info") => json!({ "weight_version": self.weights.label() }),
            ("GET", "/is_paused") => json!({ "is_paused": self.queue.is_paused() }),
            ("POST", "/v1/completions") => return self.completions(&request.body, is_gone),
            ("POST", "/tokenize") => self.tokenize(&request.body)?,
            ("POST", "/detokenize") => self.detokenize(&request.body)?,
            ("POST", "/pause") => {
                body()?;
                self.pause(request.parameter("mode").unwrap_or("abort"), is_gone)?
            }
            ("POST", "/resume") => {
                self.queue.resume();
                json!({ "status": "resumed" })
            }
            ("POST", "/collective_rpc") => self.collective_rpc(&request.body)?,
            // There is no cache of prefixes that could be stale: every request computes its own.
            ("POST", "/reset_prefix_cache") => json!({ "success": true }),
            ("POST", "/update_weight_version") => {
                let label: Label = parse(&request.body)?;
                self.weights.set_label(label.new_version.clone())?;
                json!({ "success": true, "new_version": label.new_version })
            }
            _ => return Err(not_there(request)),
        };
        Ok(json.to_string().into_bytes())
    }

    fn models(&self) -> Value {
        json!({ "object": "list", "data": [{
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "rlt",
            "root": self.root,
            "parent": null,
            "max_model_len": self.weights.current().decoder.config().context(),
        }] })
    }

    fn completions(&self, body: &[u8], is_gone: &dyn Fn() -> bool) -> Result<Vec<u8>, Refusal> {
        let asked = Asked::read(body, &self.name, &self.weights.current(), self.max_running)?;
        let tickets: Vec<Ticket> =
            asked.work().into_iter().map(|work| self.queue.push(work)).collect::<Result<_, _>>()?;
        let mut found = Vec::new();
        let mut model: Option<Arc<Loaded>> = None;
        for ticket in &tickets {
            let done = loop {
                if let Some(answer) = ticket.wait(LOOK_UP) {
                    break answer?;
                }
                if is_gone() {
                    return Err(Refusal::new(499, "the client has gone"));
                }
            };
            found.push(done.found);
            model = Some(done.model);
        }
        let model = model.unwrap_or_else(|| self.weights.current());
        let id = self.n_requests.load(Ordering::Relaxed);
        asked.answer(found, &self.name, &model, self.tokenizer.as_ref(), id, now())
    }

    fn tokenizer(&self) -> Result<&Tokenizer, Refusal> {
        let nothing = || Refusal::wrong("the model's folder holds no tokenizer: send and take ids");
        self.tokenizer.as_ref().ok_or_else(nothing)
    }

    fn tokenize(&self, body: &[u8]) -> Result<Value, Refusal> {
        let text: Text = parse(body)?;
        check_model(text.model.as_deref(), &self.name)?;
        if !text.add_special_tokens.0 {
            return Err(Refusal::field("add_special_tokens", "nothing is added to a text: send false"));
        }
        let ids =
            self.tokenizer()?.encode(&text.prompt).map_err(|error| Refusal::wrong(error.to_string()))?;
        let context = self.weights.current().decoder.config().context();
        Ok(json!({ "count": ids.len(), "max_model_len": context, "tokens": ids, "token_strs": null }))
    }

    fn detokenize(&self, body: &[u8]) -> Result<Value, Refusal> {
        let ids: Ids = parse(body)?;
        check_model(ids.model.as_deref(), &self.name)?;
        Ok(json!({ "prompt": self.tokenizer()?.decode(&ids.tokens) }))
    }

    fn pause(&self, mode: &str, is_gone: &dyn Fn() -> bool) -> Result<Value, Refusal> {
        match mode {
            "wait" => self.queue.pause_after_all(is_gone),
            "abort" => {
                let model = self.weights.current();
                self.queue.pause_at_once(|work| engine::aborted(work, &model), is_gone);
            }
            _ => return Err(Refusal::wrong("mode: `wait` (for all that was asked) or `abort` is expected")),
        }
        Ok(json!({ "status": "paused" }))
    }

    fn collective_rpc(&self, body: &[u8]) -> Result<Value, Refusal> {
        let call: Call = parse(body)?;
        if call.method != "reload_weights" {
            return Err(Refusal::field("method", "only `reload_weights` is there"));
        }
        if !call.args.0 {
            return Err(Refusal::field("args", "is not supported: name `weights_path` in `kwargs`"));
        }
        let path = call.kwargs.and_then(|kwargs| kwargs.weights_path);
        self.weights.reload(path.as_deref())?;
        Ok(json!({ "results": [null] }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    model: Option<String>,
    prompt: String,
    #[serde(default = "neutral")]
    add_special_tokens: Neutral,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ids {
    #[serde(default)]
    model: Option<String>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    new_version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    method: String,
    #[serde(default = "neutral")]
    args: Neutral,
    #[serde(default)]
    kwargs: Option<Kwargs>,
    /// Seconds, which reading takes as long as it takes.
    #[serde(default, rename = "timeout")]
    _timeout: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kwargs {
    #[serde(default)]
    weights_path: Option<String>,
}

fn neutral() -> Neutral {
    Neutral(true)
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::wrong(format!("the body: {error}")))
}

/// A body of which nothing is used: empty, or a JSON text.
fn small_body(body: &[u8]) -> Result<Value, Refusal> {
    if body.is_empty() || body.len() > 4096 { Ok(Value::Null) } else { parse(body) }
}

fn not_there(request: &Request) -> Refusal {
    let known = ENDPOINTS.split([' ', ',', ';']).any(|word| word == request.path && word.starts_with('/'));
    if known {
        return Refusal::new(405, format!("{} takes the other method; there are {ENDPOINTS}", request.path));
    }
    let shown: String = request.path.chars().take(100).collect();
    Refusal::new(404, format!("no endpoint {shown:?}; there are {ENDPOINTS}"))
}

/// Compares in a time that does not depend on where two texts differ.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// Longest that a connection waits for the last answers of a server that ends.
pub(crate) const LAST_ANSWERS: Duration = Duration::from_millis(400);
