//! The tables of a configuration that concern the run itself: what it makes, keeps and watches.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[train]`: what both kinds of training share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Partial sums of a batch's gradient (K), which are added up in a fixed tree: K decides the bits of a run, the number of
    /// ranks that share the lanes does not. Unset, the number of ranks that the run begins with.
    pub lanes: Option<usize>,
}

/// `[eval]`: evaluation while training, on rows that are not trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Save every this many steps; 0 saves only at the end.
    pub every: usize,
    /// Keep the last this many checkpoints; 0 keeps all.
    pub keep: usize,
    /// Keep every checkpoint whose step is a multiple of this, too; 0 keeps no others.
    pub keep_every: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 25, keep: 2, keep_every: 0 }
    }
}
