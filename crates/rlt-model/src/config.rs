//! `config.json` and `generation_config.json` of a Hugging Face model folder.
//!
//! Every field that changes the arithmetic is honoured or refused by name; none is ignored. Both
//! spellings of the rotary settings are read: `rope_theta` + `rope_scaling` (transformers 4) and
//! `rope_parameters` (transformers 5); where both are there, `rope_scaling` counts, as in transformers. Dropout is never applied here, in training either.

mod families;
mod family;
mod fields;
mod model;
mod rope;
mod weight_list;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Result;
use crate::files::{parse_json, read_text};
use crate::sizes::MAX_PARAMETERS;
pub use family::Family;
use fields::Fields;
pub use model::{
    Activation, AttentionKind, BlockKind, EmbeddingScale, FeedForward, ModelConfig, NormScale, Norms, Windows,
};
pub use rope::{Rope, RopeScaling};
pub use weight_list::{BlockWeight, Part, Place, Slot, block_slots, slots};
pub(crate) use weight_list::{block_prefix, block_weights};

impl ModelConfig {
    /// Reads `config.json` and, where there is one, the end-of-text tokens of
    /// `generation_config.json` in the model folder `dir`.
    ///
    /// # Errors
    /// The file is missing or is not JSON, the architecture is unknown, a field has the wrong
    /// type, or it asks for arithmetic that is not supported; the message names the field.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let mut config = Self::parse(&read_json(&path)?, &path)?;
        let generation_path = dir.join("generation_config.json");
        if generation_path.exists() {
            let generation = read_json(&generation_path)?;
            let eos = Fields::new(&generation, &generation_path)?.token_ids("eos_token_id")?;
            if !eos.is_empty() {
                config.eos_token_ids = eos;
            }
        }
        Ok(config)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// As [`ModelConfig::from_dir`].
    pub fn from_json(text: &str) -> Result<Self> {
        let path = PathBuf::from("config.json");
        Self::parse(&parse_json(text, &path)?, &path)
    }

    /// The `config.json` that transformers 4 and 5 load as this model, with float32 weights
    /// (a caller that writes another type sets `torch_dtype` and `dtype`).
    pub fn to_json(&self) -> Value {
        let (model_type, architecture) = (self.family.model_type(), self.family.architecture());
        let rope_parameters = self.rope.scaling.to_json(Some(self.rope.theta));
        let rope_scaling = match self.rope.scaling {
            RopeScaling::None => Value::Null,
            ref scaling => scaling.to_json(None),
        };
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            many => json!(many),
        };
        let mut config = json!({
            "architectures": [architecture],
            "attention_dropout": 0.0,
            "bos_token_id": null,
            "dtype": "float32",
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": self.activation.names()[0],
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": model_type,
            "num_attention_heads": self.n_heads,
            "num_hidden_layers": self.n_layers,
            "num_key_value_heads": self.n_kv_heads,
            "rms_norm_eps": shortest(self.rms_norm_eps),
            "rope_parameters": rope_parameters,
            "rope_scaling": rope_scaling,
            "rope_theta": self.rope.theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        for (key, value) in families::own_fields(self).as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    fn parse(json: &Value, path: &Path) -> Result<Self> {
        let f = Fields::new(json, path)?;
        let config = families::read(families::find(&f)?, &f)?;
        if weight_list::count(&config) > MAX_PARAMETERS {
            return Err(f.error(&format!(
                "its sizes come to more than {MAX_PARAMETERS} parameters, which no machine holds"
            )));
        }
        Ok(config)
    }
}

/// The f64 with the decimal spelling of `x`, so that 1e-6 is written as 1e-6.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

fn read_json(path: &Path) -> Result<Value> {
    parse_json(&read_text(path)?, path)
}

#[cfg(test)]
mod tests;
