//! Qwen3 (dense): query and key heads have norms.

use serde_json::Value;

use super::super::family::Family;
use super::super::fields::Fields;
use super::super::model::ModelConfig;
use super::common::{self, Defaults, KeyHeads};
use super::windows;
use crate::Result;

pub(super) fn read(f: &Fields) -> Result<ModelConfig> {
    let defaults = Defaults { head_dim: Some(128), ..Defaults::new(KeyHeads::Count(32), 32_768) };
    let plain = common::read(f, Family::Qwen3, &defaults)?;
    let bias = f.flag("attention_bias")?.unwrap_or(false);
    let windows = windows::of_qwen(f, &plain)?;
    Ok(ModelConfig { windows, qkv_bias: bias, attention_out_bias: bias, qk_norm: true, ..plain })
}

pub(super) fn own_fields(config: &ModelConfig) -> Value {
    let mut fields = windows::qwen_fields(config);
    fields["attention_bias"] = config.attention_out_bias.into();
    fields
}
