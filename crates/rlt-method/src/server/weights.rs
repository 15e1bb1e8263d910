//! New weights to servers: pause, load, forget what was cached, label, go on. What a server says of it proves nothing; the
//! probe afterwards does.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::parse;
use super::connect::{Served, ask_now, name};
use super::fault::Fault;
use super::wire::{Ask, Wire};
use crate::config::ServerKind;
use crate::error::{Error, Result};

/// Most bytes of an answer to one of these requests.
const MOST: u64 = 1 << 20;

#[derive(Deserialize)]
struct Pausable {
    is_paused: bool,
}

#[derive(Deserialize)]
struct Labelled {
    weight_version: String,
}

/// What SGLang says of an update.
#[derive(Deserialize)]
struct Updated {
    success: bool,
    #[serde(default)]
    message: String,
}

impl Served {
    /// Refuses servers that cannot be given weights, with the flag that would let them.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check_takes_weights(&self) -> Result<()> {
        for wire in self.pool.wires() {
            let refuse = |what: &str| {
                let (table, address) = (self.table, wire.address());
                Err(Error::Usage(format!(
                    "{table}: {} at {address} takes no new weights: {what}",
                    name(self.kind)
                )))
            };
            match self.kind {
                ServerKind::Openai | ServerKind::Auto => {
                    return refuse("a policy that is trained needs vLLM, SGLang or rlt serve");
                }
                ServerKind::Vllm if is_paused(wire).is_none() => {
                    return refuse(
                        "start vLLM with VLLM_SERVER_DEV_MODE=1 (on an address that only you reach)",
                    );
                }
                ServerKind::Rlt if allows_no_folder(wire) => {
                    return refuse("start rlt serve with --reload-dir and the folder of the run");
                }
                ServerKind::Vllm | ServerKind::Rlt | ServerKind::Sglang => {}
            }
        }
        Ok(())
    }

    /// Refuses servers that are paused: they take requests, call themselves healthy and answer nothing.
    ///
    /// # Errors
    /// [`Error::Usage`] with what makes them go on.
    pub(super) fn check_not_paused(&self) -> Result<()> {
        let paused = self.pool.wires().iter().find(|wire| is_paused(wire) == Some(true));
        paused.map_or(Ok(()), |wire| {
            let (table, address) = (self.table, wire.address());
            Err(Error::Usage(format!(
                "{table}: {address} is paused and would answer nothing; make it go on: curl -X POST {address}/resume"
            )))
        })
    }

    /// Has one server load the weights in `folder`, which both see under this name, as version `label`.
    ///
    /// # Errors
    /// [`Error::Failed`] with the request that failed and the server's words; it may be left paused then.
    pub(super) fn load_at(&self, wire: &Wire, folder: &Path, label: &str) -> Result<()> {
        let post = |path: &str, body: &Value| self.control(wire, &Ask::post(path, body, MOST));
        if self.kind == ServerKind::Sglang {
            post("/pause_generation", &json!({}))?;
            let bytes = post(
                "/update_weights_from_disk",
                &json!({ "model_path": folder, "weight_version": label, "flush_cache": true }),
            )?;
            let Updated { success, message } =
                parse(&bytes).map_err(|fault| self.failed(wire, "update", &fault))?;
            if !success {
                return Err(self.failed(wire, "/update_weights_from_disk", &Fault::Lasting(message)));
            }
            post("/continue_generation", &json!({}))?;
            return Ok(());
        }
        post("/pause?mode=wait", &json!({}))?;
        let reload =
            json!({ "method": "reload_weights", "kwargs": { "weights_path": folder }, "timeout": 3600 });
        post("/collective_rpc", &reload)?;
        post("/reset_prefix_cache", &json!({}))?;
        post("/update_weight_version", &json!({ "new_version": label }))?;
        post("/resume", &json!({}))?;
        self.check_label_at(wire, label)
    }

    /// Refuses a server whose weights carry another label than the one they were given: somebody else gave it others.
    ///
    /// # Errors
    /// [`Error::Failed`] with both labels.
    pub(super) fn check_label_at(&self, wire: &Wire, label: &str) -> Result<()> {
        if !matches!(self.kind, ServerKind::Vllm | ServerKind::Rlt) {
            return Ok(());
        }
        let bytes = self.control(wire, &Ask::get("/weight_info"))?;
        let Labelled { weight_version } =
            parse(&bytes).map_err(|fault| self.failed(wire, "/weight_info", &fault))?;
        if weight_version == label {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "{}: the weights at {} are labelled {weight_version:?}, not {label:?}: another run gives them weights, or the \
             server was started again; stop the other, and the same command continues",
            self.table,
            wire.address()
        )))
    }

    /// As [`Self::check_label_at`], of every server.
    ///
    /// # Errors
    /// As there.
    pub(super) fn check_label(&self, label: &str) -> Result<()> {
        self.pool.wires().iter().try_for_each(|wire| self.check_label_at(wire, label))
    }

    /// A request that moves a server from one state to another: asked again where it was lost, for to do it twice does no
    /// harm, but not where the server broke on it.
    fn control(&self, wire: &Wire, ask: &Ask) -> Result<Vec<u8>> {
        let answer = match wire.ask(ask) {
            Err(Fault::Passing { what, .. }) if !what.starts_with("500") => ask_now(wire, ask),
            answer => answer,
        };
        answer.map_err(|fault| self.failed(wire, &ask.path, &fault))
    }

    fn failed(&self, wire: &Wire, path: &str, fault: &Fault) -> Error {
        let (table, address) = (self.table, wire.address());
        Error::Failed(format!(
            "{table}: {address}{path}: {}; new weights have not arrived: see the server's own log, start it again if it needs \
             that, and the same command continues",
            fault.what()
        ))
    }
}

/// Whether `rlt serve` says, of a folder that does not exist, that it may load from none.
fn allows_no_folder(wire: &Wire) -> bool {
    let nowhere =
        json!({ "method": "reload_weights", "kwargs": { "weights_path": "/nowhere/of/rlt/doctor" } });
    let answer = ask_now(wire, &Ask::post("/collective_rpc", &nowhere, MOST));
    answer.is_err_and(|fault| fault.what().contains("no folder was allowed"))
}

/// Whether a server is paused; none of one that cannot be.
fn is_paused(wire: &Wire) -> Option<bool> {
    let bytes = ask_now(wire, &Ask::get("/is_paused")).ok()?;
    parse(&bytes).ok().map(|Pausable { is_paused }| is_paused)
}
