//! Qwen2 and Qwen2.5: query, key and value projections have a bias, which is no field.

use serde_json::Value;

use super::super::family::Family;
use super::super::fields::Fields;
use super::super::model::ModelConfig;
use super::common::{self, Defaults, KeyHeads};
use super::windows;
use crate::Result;

pub(super) fn read(f: &Fields) -> Result<ModelConfig> {
    let plain = common::read(f, Family::Qwen2, &Defaults::new(KeyHeads::Count(32), 32_768))?;
    Ok(ModelConfig { windows: windows::of_qwen(f, &plain)?, qkv_bias: true, ..plain })
}

pub(super) fn own_fields(config: &ModelConfig) -> Value {
    windows::qwen_fields(config)
}
