//! A policy in training that servers sample from: after every update they are given its weights, and prove that they have them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rlt_files::replace_folder;
use rlt_model::generate::{Completion, GenerationRequest, SamplingParams};
use rlt_model::tokenizer::Tokenizer;
use rlt_model::weights::Dtype;
use rlt_model::{Decoder, Stop};

use super::check::Wanted;
use super::connect::Served;
use super::probe::{Agreement, Probe};
use super::sampler::ServerSampler;
use crate::error::{Error, Result, io_error};
use crate::progress::Progress;
use crate::sampler::{Followers, Sampler, SamplingEngine};

/// Servers that follow a policy.
#[derive(Debug)]
pub struct ServedPolicy {
    served: Arc<Served>,
    params: SamplingParams,
    seed: u64,
    version: u64,
    /// Where weights are exported to, a folder a version.
    exports: PathBuf,
    dtype: Dtype,
    tokenizer: Tokenizer,
    probe: Probe,
    sync_s: f64,
    ahead: Option<Ahead>,
}

/// Completions that are drawn while the policy learns.
#[derive(Debug)]
struct Ahead {
    requests: Vec<GenerationRequest>,
    drawing: JoinHandle<Result<Vec<Vec<Completion>>>>,
}

/// How often waiting looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);

impl ServedPolicy {
    /// Looks at the servers; `exports` is a folder of the run that they see under the same name. They are given weights at
    /// the first [`SamplingEngine::refresh`].
    ///
    /// # Errors
    /// As [`Served::check`] and [`Served::check_takes_weights`].
    pub fn new(
        served: Arc<Served>,
        params: SamplingParams,
        seed: u64,
        exports: &Path,
        dtype: Dtype,
        tokenizer: Tokenizer,
    ) -> Result<Self> {
        served.check_takes_weights()?;
        let probe = Probe::new(served.probe_prompt(&tokenizer)?);
        let (version, sync_s, exports) = (0, 0.0, exports.to_owned());
        Ok(Self { served, params, seed, version, exports, dtype, tokenizer, probe, sync_s, ahead: None })
    }

    fn server_sampler(&self) -> ServerSampler {
        ServerSampler {
            served: self.served.clone(),
            params: self.params.clone(),
            seed: self.seed,
            version: self.version,
            label: Some(label(self.version)),
        }
    }

    /// Writes the weights of `version`, whole or not at all, with a head of their own, and returns their folder.
    fn export(&self, policy: &Decoder, version: u64) -> Result<PathBuf> {
        fs::create_dir_all(&self.exports).map_err(io_error(&self.exports))?;
        let exports = self.exports.canonicalize().map_err(io_error(&self.exports))?;
        let folder = exports.join(label(version));
        replace_folder(&folder, |folder| -> Result<()> {
            policy.save_untied(folder, self.dtype)?;
            Ok(self.tokenizer.save(folder)?)
        })?;
        Ok(folder)
    }

    /// Removes what was exported before `version`, once every server has proved that it has that.
    fn tidy(&self, version: u64) -> Result<()> {
        let kept = label(version);
        for entry in fs::read_dir(&self.exports).map_err(io_error(&self.exports))? {
            let path = entry.map_err(io_error(&self.exports))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_ours = name.trim_start_matches(rlt_files::UNFINISHED).starts_with("step-");
            if is_ours && name != kept {
                fs::remove_dir_all(&path).map_err(io_error(&path))?;
            }
        }
        Ok(())
    }
}

/// "step-000012": the folder of a version, and what servers call its weights.
fn label(version: u64) -> String {
    format!("step-{version:06}")
}

impl SamplingEngine for ServedPolicy {
    fn refresh(&mut self, policy: &Decoder, version: u64) -> Result<()> {
        let started = Instant::now();
        // What is drawn ahead is drawn by the weights that it began with.
        while self.ahead.as_ref().is_some_and(|ahead| !ahead.drawing.is_finished()) {
            thread::sleep(LOOK);
        }
        let folder = self.export(policy, version)?;
        let here = self.probe.score_here(policy)?;
        if let Some(at) = here.iter().position(|logprob| !logprob.is_finite()) {
            return Err(Error::NonFinite(format!(
                "step {version}: the probe's log-probability {at} is {}",
                here[at]
            )));
        }
        let mut worst = Agreement { mean: 0.0, max: 0.0 };
        for wire in self.served.pool.wires() {
            self.served.load_at(wire, &folder, &label(version))?;
            let agreement = self.probe.compare(&self.served, wire, &here)?;
            worst = Agreement { mean: worst.mean.max(agreement.mean), max: worst.max.max(agreement.max) };
        }
        self.probe.arrived(here, worst);
        self.tidy(version)?;
        self.version = version;
        self.sync_s = started.elapsed().as_secs_f64();
        Ok(())
    }

    fn begin(&self, progress: &dyn Progress) -> Result<()> {
        let wanted = Wanted { sampling: Some(&self.params), behaviour: true, scoring: true };
        self.served.check(&self.tokenizer, &wanted, progress)
    }

    fn sampler<'a>(&'a self, _policy: &'a Decoder) -> Box<dyn Sampler + 'a> {
        Box::new(self.server_sampler())
    }

    fn draw_ahead(&mut self, requests: Vec<GenerationRequest>) {
        let (sampler, asked) = (self.server_sampler(), requests.clone());
        let drawing = thread::spawn(move || sampler.sample(&asked, Stop::never()));
        self.ahead = Some(Ahead { requests, drawing });
    }

    fn drawn_ahead(
        &mut self,
        requests: &[GenerationRequest],
        stop: Stop,
    ) -> Option<Result<Vec<Vec<Completion>>>> {
        let Ahead { requests: drawn, drawing } = self.ahead.take()?;
        if drawn != requests {
            return None;
        }
        Some(wait_for(drawing, stop))
    }

    fn followers(&self) -> Option<Followers> {
        Some(Followers { sync_s: self.sync_s, n_retries: self.served.n_retries() })
    }
}

/// The completions of a thread that draws, unless it is asked to stop before they are there.
fn wait_for(drawing: JoinHandle<Result<Vec<Vec<Completion>>>>, stop: Stop) -> Result<Vec<Vec<Completion>>> {
    while !drawing.is_finished() {
        stop.check()?;
        thread::sleep(LOOK);
    }
    drawing.join().unwrap_or_else(|_| Err(Error::Failed("the thread that drew ahead ended early".into())))
}
