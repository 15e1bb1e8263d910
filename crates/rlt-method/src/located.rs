//! A model that is computed here, or served elsewhere: what commands that sample or score need of it.

use std::path::Path;
use std::sync::Arc;

use rlt_model::config::ModelConfig;
use rlt_model::generate::SamplingParams;
use rlt_model::tokenizer::Tokenizer;
use rlt_model::{Decoder, Stop};

use crate::config::{ModelPaths, SamplingConfig, ServerConfig};
use crate::error::Result;
use crate::progress::Progress;
use crate::prompts::ChatText;
use crate::ranks::Holding;
use crate::sampler::{DecoderSampler, Sampler};
use crate::sampling::{sampling_params, stop_tokens};
use crate::scorer::{Scorer, Stoppable};
use crate::server::{Served, ServerSampler, ServerScorer, Wanted};
use crate::training::run::frozen_model_on;

/// A model and where it is.
pub enum LocatedModel {
    /// Its weights are in this process.
    Here(Box<Decoder>),
    /// Servers have them; of its folder, `config.json` and the tokenizer are read.
    Served(Arc<Served>),
}

impl LocatedModel {
    /// Loads the model in `folder`, to be held as `holding` says, or asks the servers of `server`, where the configuration names any, who they are.
    ///
    /// # Errors
    /// What the folder's files report; as [`Served::connect`].
    pub fn find(
        server: Option<(&'static str, &ServerConfig)>,
        model: &ModelPaths,
        folder: &Path,
        holding: &Holding,
        progress: &dyn Progress,
    ) -> Result<Self> {
        if let Some((table, server)) = server {
            return Ok(Self::Served(Served::connect(table, server, folder, progress)?.into()));
        }
        let device = model.device.open()?;
        Ok(Self::Here(frozen_model_on(&device, holding, model, folder)?.into()))
    }

    /// Its shape.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::Here(decoder) => decoder.config(),
            Self::Served(served) => served.config(),
        }
    }

    /// The model in this process, where it is here.
    pub fn here(&self) -> Option<&Decoder> {
        match self {
            Self::Here(decoder) => Some(decoder),
            Self::Served(_) => None,
        }
    }

    /// The servers, where there are any.
    pub fn served(&self) -> Option<&Arc<Served>> {
        match self {
            Self::Here(_) => None,
            Self::Served(served) => Some(served),
        }
    }

    /// What scores under it, looking at `stop` between its parts, or while answers are waited for; `progress` is told of these.
    /// Servers are to be looked at first ([`Self::check`]).
    pub fn scorer<'a>(&'a self, stop: Stop<'a>, progress: &'a dyn Progress) -> Box<dyn Scorer + 'a> {
        match self {
            Self::Here(decoder) => Box::new(Stoppable(decoder, stop)),
            Self::Served(served) => Box::new(ServerScorer { served: served.clone(), stop, progress }),
        }
    }

    /// What samples from it with `params`. Servers are looked at first.
    pub fn sampler(&self, params: SamplingParams, seed: u64) -> Box<dyn Sampler + '_> {
        match self {
            Self::Here(decoder) => Box::new(DecoderSampler { decoder, params, seed, version: 0 }),
            Self::Served(served) => {
                Box::new(ServerSampler { served: served.clone(), params, seed, version: 0, label: None })
            }
        }
    }

    /// Refuses servers that cannot do what is `wanted`, or that speak other tokens than `tokenizer`.
    ///
    /// # Errors
    /// As [`Served::check`].
    pub fn check(&self, tokenizer: &Tokenizer, wanted: &Wanted, progress: &dyn Progress) -> Result<()> {
        self.served().map_or(Ok(()), |served| served.check(tokenizer, wanted, progress))
    }

    /// How `[sampling]` has it drawn from: completions end with its own tokens.
    ///
    /// # Errors
    /// As [`stop_tokens`].
    pub fn params(&self, sampling: &SamplingConfig, chat: &ChatText) -> Result<SamplingParams> {
        Ok(sampling_params(sampling, stop_tokens(self.config(), chat)?))
    }
}
