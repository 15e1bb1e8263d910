//! The tables of a configuration that concern the run itself: what it makes, keeps and watches.

use serde::{Deserialize, Serialize};

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
