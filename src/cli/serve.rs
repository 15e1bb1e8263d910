//! `rlt serve`: a model behind the HTTP endpoints of vLLM that rlt and others' trainers use.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use rlt::config::{DeviceName, Products};
use rlt::progress::Progress;
use rlt::{Error, Result};
use rlt_model::Decoder;
use rlt_model::tokenizer::Tokenizer;
use rlt_serve::{Server, Settings};
use serde_json::json;

use super::common::{Context, model_folder, parse_positive};
use super::interrupt;
use super::last_line;
use super::logprobs::products;

/// Serve a model's completions and log-probabilities over HTTP, with vLLM's endpoints
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Model folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Port; without it one that is free is chosen, and printed
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Address to listen at; any other than this machine's own lets others in
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// What clients call the model; without it the folder's name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Folder below which clients may have new weights loaded from; without it they may not
    #[arg(long, value_name = "DIR")]
    reload_dir: Option<PathBuf>,
    /// Environment variable with the key that clients have to send
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
    /// Sequences that decode at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = parse_positive)]
    max_running: usize,
    /// Tokens that are scored at a time; more is faster up to a point and takes more memory
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = parse_positive)]
    tokens_per_batch: usize,
    /// Requests that may wait; one more is told to ask again
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = parse_positive)]
    max_waiting: usize,
    /// Number format of the matrix products: bf16 is faster where the processor has AMX or AVX-512 BF16, and right to
    /// about three digits
    #[arg(long, default_value = "f32", value_parser = products())]
    arithmetic: Products,
    /// Where the model is computed: cpu, or an NVIDIA GPU, cuda (the first) or cuda:N
    #[arg(long, value_name = "D", default_value_t = DeviceName::Cpu)]
    device: DeviceName,
}

impl ServeArgs {
    /// Answers until a signal asks it to end.
    pub fn run(&self, context: &Context) -> Result<()> {
        let folder = model_folder(&self.model)?;
        let reload_dir = self.reload_dir.as_deref().map(model_folder).transpose()?;
        let device = self.device.open()?;
        let decoder = Decoder::load_frozen_on(&device, folder)?.in_arithmetic(self.arithmetic.into());
        let tokenizer = Tokenizer::from_dir(folder);
        if let Err(error) = &tokenizer {
            context.progress.note(&format!("no tokenizer, so the texts of answers are empty: {error}"));
        }
        let settings = Settings {
            name: self.name(),
            key: self.key()?,
            reload_dir: reload_dir.map(PathBuf::from),
            max_running: self.max_running,
            tokens_per_batch: self.tokens_per_batch,
            most_waiting: self.max_waiting,
        };
        if !self.host.is_loopback() && settings.key.is_none() {
            let what =
                "whoever reaches this address can use the server; --key-env VARIABLE asks clients for a key";
            context.progress.note(what);
        }
        let name = settings.name.clone();
        let address = SocketAddr::new(self.host, self.port);
        let failed = |error: std::io::Error| Error::Failed(format!("cannot serve at {address}: {error}"));
        let server = Server::bind(decoder, tokenizer.ok(), folder, settings, address).map_err(failed)?;
        let url = format!("http://{}", server.address());
        let stop = interrupt::stop_flag();
        last_line::outlive_faults();
        context.answer(
            &format!("serving {name} at {url}; Ctrl-C ends it"),
            &json!({ "url": url, "model": name, "port": server.address().port() }),
        )?;
        let served = server.run(stop).map_err(failed)?;
        context.progress.note(&format!("answered {} requests", served.requests));
        Ok(())
    }

    /// What clients call the model.
    fn name(&self) -> String {
        let of_folder = || {
            let resolved = self.model.canonicalize().unwrap_or_else(|_| self.model.clone());
            resolved.file_name().map(|name| name.to_string_lossy().into_owned())
        };
        self.name.clone().or_else(of_folder).unwrap_or_else(|| "model".into())
    }

    /// The key that clients have to send.
    fn key(&self) -> Result<Option<String>> {
        let Some(variable) = &self.key_env else { return Ok(None) };
        match std::env::var(variable) {
            Ok(key) if !key.trim().is_empty() => Ok(Some(key.trim().to_owned())),
            _ => Err(Error::Usage(format!(
                "--key-env {variable}: the environment has no such variable, or it is empty"
            ))),
        }
    }
}
