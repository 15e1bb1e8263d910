//! Mistral: Llama's shape without biases; where `sliding_window` is not null, every block attends through it.

use serde_json::{Value, json};

use super::super::family::Family;
use super::super::fields::Fields;
use super::super::model::ModelConfig;
use super::common::{self, Defaults, KeyHeads};
use super::windows;
use crate::Result;

pub(super) fn read(f: &Fields) -> Result<ModelConfig> {
    windows::refuse_layer_types(f)?;
    let plain = common::read(f, Family::Mistral, &Defaults::new(KeyHeads::Count(8), 131_072))?;
    // transformers takes 4096 where the field is absent, and no window where it is null.
    let tokens = windows::tokens(f, 4096)?;
    let windows = windows::of_blocks(&plain, tokens, vec![true; plain.n_layers]);
    Ok(ModelConfig { windows, ..plain })
}

pub(super) fn own_fields(config: &ModelConfig) -> Value {
    json!({"sliding_window": config.windows.as_ref().map(|windows| windows.tokens)})
}
