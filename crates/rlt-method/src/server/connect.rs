//! Who answers at an address, which model it serves and what it can do: found out before any work begins.

use std::path::Path;
use std::thread;
use std::time::Duration;

use rlt_model::config::ModelConfig;
use serde::Deserialize;

use super::answer::parse;
use super::fault::Fault;
use super::journal::Journal;
use super::pool::Pool;
use super::retry::wait;
use super::wire::{Ask, Wire};
use crate::config::{ServerConfig, ServerKind};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// How often a server is asked who it is, before it is taken for absent.
const ATTEMPTS: usize = 3;

/// A model that servers serve.
#[derive(Debug)]
pub struct Served {
    /// The configuration's table, for messages.
    pub(super) table: &'static str,
    pub(super) kind: ServerKind,
    pub(super) version: String,
    /// Its name there.
    pub(super) model: String,
    /// Its folder, as the server names it.
    pub(super) root: String,
    /// Longest sequence that it takes, tokens.
    pub(super) context: usize,
    /// Ids are below this.
    pub(super) vocab_size: usize,
    config: ModelConfig,
    /// Nats.
    pub(super) tolerance: f32,
    pub(super) pool: Pool,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    owned_by: String,
    max_model_len: Option<usize>,
    #[serde(default)]
    root: Option<String>,
    /// What an adapter stands beside.
    #[serde(default)]
    parent: Option<String>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

impl Served {
    /// Asks every address of `config` who it is. `folder` is the local folder of the model, of which `config.json` and the
    /// tokenizer are enough; `table` is the configuration's.
    ///
    /// # Errors
    /// [`Error::Usage`] for a key that is not there, a server of another kind, a model that it does not serve or several
    /// without a choice; [`Error::Failed`] with the address and the server's words for one that does not answer.
    pub fn connect(
        table: &'static str,
        config: &ServerConfig,
        folder: &Path,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let key = key(table, config)?;
        let local = ModelConfig::from_dir(folder)?;
        let timeout = Duration::from_secs_f64(config.timeout_s);
        let wire = |address: &String| Wire::new(address, key.clone(), timeout);
        let wires: Vec<Wire> = config.addresses().iter().map(wire).collect();
        let mut found: Option<(ServerKind, Model, String)> = None;
        let mut context = local.context();
        for wire in &wires {
            let (kind, model) = identify(table, config, wire)?;
            context = context.min(model.max_model_len.unwrap_or(usize::MAX));
            match &found {
                None => found = Some((kind, model, version(kind, wire))),
                Some((first, other, _)) if *first != kind || other.id != model.id => {
                    return Err(Error::Usage(format!(
                        "{table}.urls: {} serves `{}` ({first:?}), {} serves `{}` ({kind:?}); all must serve one model",
                        wires[0].address(),
                        other.id,
                        wire.address(),
                        model.id
                    )));
                }
                Some(_) => {}
            }
        }
        let Some((kind, model, version)) = found else {
            return Err(Error::Usage(format!("{table}.url is not set")));
        };
        if context < local.context() {
            progress.note(&format!(
                "{table}: the server takes {context} tokens, the model {}; what is longer does not fit",
                local.context()
            ));
        }
        let served = Self {
            table,
            kind,
            version,
            root: model.root.unwrap_or_default(),
            model: model.id,
            context,
            vocab_size: local.vocab_size,
            tolerance: config.tolerance,
            config: local,
            pool: Pool::new(wires, config.in_flight, config.retries),
        };
        progress.note(&format!("{table}: {}", served.describe()));
        Ok(served)
    }

    /// "vllm 0.32.0 at http://127.0.0.1:8000, model policy".
    pub fn describe(&self) -> String {
        let addresses: Vec<&str> = self.pool.wires().iter().map(Wire::address).collect();
        let kind = name(self.kind);
        let separator = if self.version.is_empty() { "" } else { " " };
        format!("{kind}{separator}{} at {}, model {}", self.version, addresses.join(" and "), self.model)
    }

    /// The shape of the model, by the folder.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What of it decides a number: work that goes on may do so at another address.
    pub fn deciding(&self) -> serde_json::Value {
        serde_json::json!({ "kind": self.kind, "model": self.model })
    }

    /// Most requests under way at the same time.
    pub fn in_flight(&self) -> usize {
        self.pool.capacity()
    }

    /// Keeps answers beside the output `out` until they stand in rows, and finds those that an earlier attempt has left.
    ///
    /// # Errors
    /// The file cannot be read or made.
    pub fn keep_answers(&self, out: &Path) -> Result<()> {
        *self.pool.journal() = Journal::beside(out, self.table)?;
        Ok(())
    }

    /// The work is done: nothing is kept.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget_answers(&self) -> Result<()> {
        self.pool.journal().take().map_or(Ok(()), |mut journal| journal.discard())
    }

    /// Requests that were asked again.
    pub fn n_retries(&self) -> usize {
        self.pool.n_retries()
    }
}

/// What people call a kind.
pub(super) fn name(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::Auto => "a server",
        ServerKind::Vllm => "vllm",
        ServerKind::Sglang => "sglang",
        ServerKind::Openai => "an OpenAI-like server",
        ServerKind::Rlt => "rlt serve",
    }
}

/// The key that the environment holds.
fn key(table: &str, config: &ServerConfig) -> Result<Option<String>> {
    let name = &config.key_env;
    if name.is_empty() {
        return Ok(None);
    }
    let key = std::env::var(name).unwrap_or_default();
    let key = key.trim();
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Error::Usage(format!(
            "{table}.key_env names {name}, which the environment has not, or not as a key"
        )));
    }
    Ok(Some(key.to_owned()))
}

/// Asks one address, a few times where it fails in passing.
pub(super) fn ask_now(wire: &Wire, ask: &Ask) -> std::result::Result<Vec<u8>, Fault> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match wire.ask(ask) {
            Err(Fault::Passing { after, .. }) if attempt < ATTEMPTS => thread::sleep(wait(attempt, 0, after)),
            outcome => return outcome,
        }
    }
}

/// What answers at an address, and the model that is meant.
fn identify(table: &str, config: &ServerConfig, wire: &Wire) -> Result<(ServerKind, Model)> {
    let failed = |fault: &Fault| {
        Error::Failed(format!(
            "{table}: {}/v1/models: {}; is that the address of a running server?",
            wire.address(),
            fault.what()
        ))
    };
    let bytes = ask_now(wire, &Ask::get("/v1/models")).map_err(|fault| failed(&fault))?;
    let Models { data } = parse(&bytes).map_err(|fault| failed(&fault))?;
    let names: Vec<&str> = data.iter().map(|model| model.id.as_str()).collect();
    let own: Vec<&Model> = data.iter().filter(|model| model.parent.is_none()).collect();
    let model = match (config.model.as_str(), own.as_slice()) {
        ("", [only]) => *only,
        ("", _) => {
            let names = names.join(", ");
            return Err(Error::Usage(format!(
                "{table}: {} serves several models ({names}); name one in {table}.model",
                wire.address()
            )));
        }
        (name, _) => data.iter().find(|model| model.id == name).ok_or_else(|| {
            let names = names.join(", ");
            Error::Usage(format!("{table}.model is {name:?}; {} serves {names}", wire.address()))
        })?,
    };
    let says = match model.owned_by.as_str() {
        "vllm" => ServerKind::Vllm,
        "sglang" => ServerKind::Sglang,
        "rlt" => ServerKind::Rlt,
        _ => ServerKind::Openai,
    };
    let kind = if config.kind == ServerKind::Auto { says } else { config.kind };
    if says != kind && says != ServerKind::Openai && kind != ServerKind::Openai {
        return Err(Error::Usage(format!(
            "{table}.kind is {kind:?}, and {} says that it is {}; leave the key out",
            wire.address(),
            name(says)
        )));
    }
    Ok((kind, model.clone()))
}

/// Its version, where it tells one.
fn version(kind: ServerKind, wire: &Wire) -> String {
    let path = if kind == ServerKind::Sglang { "/get_server_info" } else { "/version" };
    let bytes = wire.ask(&Ask::get(path)).unwrap_or_default();
    let version: std::result::Result<Version, _> = parse(&bytes);
    version
        .map(|version| version.version.chars().filter(char::is_ascii_graphic).take(40).collect())
        .unwrap_or_default()
}
