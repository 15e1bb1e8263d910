//! The tables of a configuration that concern the run itself: what it makes, keeps and watches.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Config, DataConfig};
use crate::error::Result;

/// `[world]`: rows and a model of random weights that the run makes itself, in `RUN/world`. They stand in for
/// whatever of `model.path`, `model.student` and `data.path` is not set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorldConfig {
    /// Which world (`market`); empty for a run on rows and models of your own.
    pub name: String,
    /// Rows to train on: the textbook's for `rlt sft`, questions for `rlt train`.
    pub rows: usize,
    /// Held-out questions.
    pub heldout_rows: usize,
    /// Width of the model's residual stream.
    pub hidden_size: usize,
    /// Width of its gated feed-forward layer.
    pub intermediate_size: usize,
    /// Its decoder blocks.
    pub n_layers: usize,
    /// Its attention heads; they divide `hidden_size`.
    pub n_heads: usize,
    /// Its longest context, tokens.
    pub context: usize,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            rows: 2000,
            heldout_rows: 500,
            hidden_size: 128,
            intermediate_size: 256,
            n_layers: 3,
            n_heads: 4,
            context: 512,
        }
    }
}

/// `[eval]`: evaluation while training, on rows that are not trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Evaluate every this many steps, and after the last one; 0 never does.
    pub every: usize,
    /// Held-out rows, as `data.path`; the columns are those of `[data]`.
    pub data: PathBuf,
    /// Use at most this many rows; 0 means all.
    pub max_rows: usize,
    /// Completions of each question (`rlt train`).
    pub samples: usize,
    /// End the run after this many evaluations in a row without a gain; 0 never does.
    pub patience: usize,
    /// The least gain that counts: nats of the loss (`rlt sft`) or of the mean reward (`rlt train`).
    pub min_gain: f64,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { every: 0, data: PathBuf::new(), max_rows: 0, samples: 1, patience: 0, min_gain: 0.0 }
    }
}

/// `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Save every this many steps; 0 saves only at the end.
    pub every: usize,
    /// Keep the last this many checkpoints; 0 keeps all.
    pub keep: usize,
    /// Beside the last, keep every checkpoint of a step that this number divides; 0 keeps no others.
    pub keep_every: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 25, keep: 2, keep_every: 0 }
    }
}

impl Config {
    /// The same configuration with the held-out rows of `[eval]` as its data; none when nothing is evaluated.
    pub fn on_held_out_rows(&self) -> Option<Self> {
        let eval = &self.eval;
        let data = DataConfig { path: eval.data.clone(), max_rows: eval.max_rows, ..self.data.clone() };
        (eval.every > 0).then(|| Self { data, ..self.clone() })
    }

    /// The same configuration without the keys that change no number of a run (set to their defaults): what a run must
    /// find unchanged to go on.
    #[must_use]
    pub fn deciding(&self) -> Self {
        let defaults = Self::default();
        let mut deciding = self.clone();
        deciding.threads = defaults.threads;
        deciding.run_dir = defaults.run_dir;
        deciding.checkpoint = defaults.checkpoint;
        deciding.memory = defaults.memory;
        deciding.grpo.samples_every = defaults.grpo.samples_every;
        deciding.grpo.samples_logged = defaults.grpo.samples_logged;
        deciding
    }

    /// The first key whose value another configuration changes: "grpo.steps was 10, now 11".
    ///
    /// # Errors
    /// As [`Config::settings`].
    pub fn first_change(&self, now: &Self) -> Result<Option<String>> {
        let (was, is) = (self.settings()?, now.settings()?);
        let value = |settings: &BTreeMap<String, String>, key| {
            settings.get(key).map_or_else(|| "unset".to_owned(), Clone::clone)
        };
        let changed = was.keys().chain(is.keys()).find(|&key| was.get(key) != is.get(key));
        Ok(changed.map(|key| format!("{key} was {}, now {}", value(&was, key), value(&is, key))))
    }
}
