//! What of `config.json` means what, family by family: one file each.
//!
//! A family reads its fields into a [`ModelConfig`], with transformers' defaults for absent ones, refuses by name what is
//! not supported, and knows the fields of its own that are written.

mod common;
mod gemma3;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod windows;

use serde_json::Value;

use super::family::Family;
use super::fields::Fields;
use super::model::ModelConfig;
use crate::Result;

/// Which family a `config.json` is of, by `model_type` and else by its first architecture.
pub(super) fn find(f: &Fields) -> Result<Family> {
    let architecture = match f.get("architectures") {
        Some(Value::Array(names)) => names.first().and_then(Value::as_str),
        _ => None,
    };
    let model_type = f.text("model_type")?;
    let found = match (model_type, architecture) {
        (Some(name), _) => Family::ALL.into_iter().find(|family| family.model_type() == name),
        (None, Some(name)) => Family::ALL.into_iter().find(|family| family.architecture() == name),
        (None, None) => {
            return Err(f.error("names no model_type: is this the configuration of a language model?"));
        }
    };
    let Some(family) = found else {
        let name = model_type.or(architecture).unwrap_or_default();
        let known = Family::ALL.map(Family::model_type).join(", ");
        return Err(f.error(&format!("model_type {name:?} is not supported (supported: {known})")));
    };
    match architecture {
        Some(name) if name != family.architecture() => Err(f.error(&format!(
            "architecture {name:?} is not a causal language model of this family; {} is expected",
            family.architecture()
        ))),
        _ => Ok(family),
    }
}

/// Reads the fields of a model of `family`.
pub(super) fn read(family: Family, f: &Fields) -> Result<ModelConfig> {
    match family {
        Family::Gemma3 => gemma3::read(f),
        Family::Llama => llama::read(f),
        Family::Mistral => mistral::read(f),
        Family::Qwen2 => qwen2::read(f),
        Family::Qwen3 => qwen3::read(f),
    }
}

/// The fields that this family has besides those that all have, or other than they have.
pub(super) fn own_fields(config: &ModelConfig) -> Value {
    match config.family {
        Family::Gemma3 => gemma3::own_fields(config),
        Family::Llama => llama::own_fields(config),
        Family::Mistral => mistral::own_fields(config),
        Family::Qwen2 => qwen2::own_fields(config),
        Family::Qwen3 => qwen3::own_fields(config),
    }
}
