//! Llama 2/3.x.

use serde_json::{Value, json};

use super::super::family::Family;
use super::super::fields::Fields;
use super::super::model::ModelConfig;
use super::common::{self, Defaults, KeyHeads, refuse_flag};
use super::windows;
use crate::Result;

pub(super) fn read(f: &Fields) -> Result<ModelConfig> {
    refuse_flag(f, "mlp_bias")?;
    windows::refuse_layer_types(f)?;
    let bias = f.flag("attention_bias")?.unwrap_or(false);
    let plain = common::read(f, Family::Llama, &Defaults::new(KeyHeads::AsQueries, 2048))?;
    Ok(ModelConfig { qkv_bias: bias, attention_out_bias: bias, ..plain })
}

pub(super) fn own_fields(config: &ModelConfig) -> Value {
    json!({"attention_bias": config.attention_out_bias, "mlp_bias": false, "pretraining_tp": 1})
}
