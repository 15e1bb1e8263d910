//! `config.json` and `generation_config.json` of a Hugging Face model folder.
//!
//! Every field that changes the arithmetic is honoured or refused by name; none is ignored. Both
//! spellings of the rotary settings are read: `rope_theta` + `rope_scaling` (transformers 4) and
//! `rope_parameters` (transformers 5); where both are there, `rope_scaling` counts, as in transformers. Dropout is never applied here, in training either.

mod count;
mod fields;
mod rope;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Result;
use crate::files::{parse_json, read_text};
use crate::sizes::{MAX_CONTEXT, MAX_HEADS, MAX_LAYERS, MAX_PARAMETERS, MAX_VOCABULARY, MAX_WIDTH};
use fields::Fields;
pub use rope::RopeScaling;

/// The supported decoder families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Qwen2 and Qwen2.5: bias on the query, key and value projections.
    Qwen2,
    /// Qwen3 (dense): RMS norm on each query and key head.
    Qwen3,
    /// Llama 2/3.x and models of its shape (Mistral without a sliding window).
    Llama,
}

impl Family {
    /// `model_type` and `architectures[0]` as transformers spells them.
    fn hf_names(self) -> (&'static str, &'static str) {
        match self {
            Family::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Family::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
            Family::Llama => ("llama", "LlamaForCausalLM"),
        }
    }

    /// `model_type` as transformers spells it.
    pub fn model_type(self) -> &'static str {
        self.hf_names().0
    }
}

/// Everything of `config.json` that changes the arithmetic, checked and with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which family, and so which tensors and which biases.
    pub family: Family,
    /// Rows of the embedding (may exceed the tokenizer's vocabulary).
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Number of decoder blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head (not always `hidden_size / n_heads`).
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Frequency scaling.
    pub rope_scaling: RopeScaling,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f32,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Bias on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention output projection.
    pub attention_out_bias: bool,
    /// RMS norm per query and key head (Qwen3).
    pub qk_norm: bool,
    /// Positions as the file says it. The longest context is [`ModelConfig::context`].
    pub max_position_embeddings: usize,
    /// Tokens that end a generation (`generation_config.json` first, else `config.json`).
    pub eos_token_ids: Vec<u32>,
}

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
        let (model_type, architecture) = self.family.hf_names();
        let rope_parameters = self.rope_scaling.to_json(Some(self.rope_theta));
        let rope_scaling = match self.rope_scaling {
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
            "hidden_act": "silu",
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
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        let attention_bias = self.attention_out_bias;
        let own = match self.family {
            Family::Qwen2 => json!({"sliding_window": null, "use_sliding_window": false}),
            Family::Qwen3 => {
                json!({"attention_bias": attention_bias, "sliding_window": null, "use_sliding_window": false})
            }
            Family::Llama => {
                json!({"attention_bias": attention_bias, "mlp_bias": false, "pretraining_tp": 1})
            }
        };
        for (key, value) in own.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    /// Longest context, tokens, as vLLM takes it: where yarn stretches the positions, its factor times the length of the
    /// pre-training, whatever `max_position_embeddings` says.
    pub fn context(&self) -> usize {
        self.rope_scaling.context(self.max_position_embeddings)
    }

    /// Rotary inverse frequencies (`head_dim / 2` of them, radians a position) and the factor on
    /// cosine and sine (1 except for yarn), as transformers computes them: each step is evaluated
    /// in f64 and rounded to the f32 that transformers holds there.
    pub fn rope_inv_freq(&self) -> (Vec<f32>, f32) {
        rope::inv_freq(&self.rope_scaling, self.rope_theta, self.head_dim)
    }

    fn parse(json: &Value, path: &Path) -> Result<Self> {
        let f = Fields::new(json, path)?;
        let hf = HfFamily::read(&f)?;
        refuse_unsupported(&f, hf)?;

        let n_heads = f.required_size_to("num_attention_heads", MAX_HEADS)?;
        let hidden_size = f.required_size_to("hidden_size", MAX_WIDTH)?;
        let n_layers = f.required_size_to("num_hidden_layers", MAX_LAYERS)?;
        let n_kv_heads = match (f.size_to("num_key_value_heads", MAX_HEADS)?, hf) {
            (Some(n), _) => n,
            (None, HfFamily::Llama) => n_heads,
            (None, _) if f.is_null("num_key_value_heads") => n_heads,
            (None, HfFamily::Mistral) => 8,
            (None, HfFamily::Qwen2 | HfFamily::Qwen3) => 32,
        };
        if n_heads % n_kv_heads != 0 {
            return Err(f.error(&format!(
                "num_key_value_heads = {n_kv_heads} does not divide num_attention_heads = {n_heads}"
            )));
        }
        let head_dim = match (f.size_to("head_dim", MAX_HEADS)?, hf) {
            (Some(n), _) => n,
            (None, HfFamily::Qwen3) if !f.is_null("head_dim") => 128,
            _ if hidden_size % n_heads == 0 => hidden_size / n_heads,
            _ => {
                return Err(f.error(&format!(
                    "head_dim is absent and num_attention_heads = {n_heads} does not divide \
                     hidden_size = {hidden_size}"
                )));
            }
        };
        if head_dim % 2 != 0 {
            return Err(f.error(&format!("head_dim = {head_dim} is odd: rotary embedding needs pairs")));
        }
        if n_heads * head_dim > MAX_WIDTH {
            return Err(f.beyond("num_attention_heads * head_dim", n_heads * head_dim, MAX_WIDTH));
        }
        let position_limit = f.size_to("max_position_embeddings", MAX_CONTEXT)?;
        let max_position_embeddings = position_limit.unwrap_or(match hf {
            HfFamily::Qwen2 | HfFamily::Qwen3 => 32768,
            HfFamily::Llama => 2048,
            HfFamily::Mistral => 131_072,
        });
        let (rope_theta, rope_scaling) = rope::read(&f, max_position_embeddings)?;
        let context = rope_scaling.context(max_position_embeddings);
        if context > MAX_CONTEXT {
            return Err(f.beyond("the context by its rope settings", context, MAX_CONTEXT));
        }
        refuse_sliding_window(&f, hf, n_layers, context)?;
        // Qwen2's own bias is fixed by its architecture and has no field; Mistral has none.
        let attention_bias = match hf {
            HfFamily::Llama | HfFamily::Qwen3 => f.flag("attention_bias")?.unwrap_or(false),
            HfFamily::Qwen2 | HfFamily::Mistral => false,
        };
        let rms_norm_eps = f.number("rms_norm_eps")?.unwrap_or(1e-6);
        if !(rms_norm_eps.is_finite() && rms_norm_eps > 0.0) {
            return Err(f.error(&format!("rms_norm_eps = {rms_norm_eps} must be positive")));
        }
        let config = Self {
            family: hf.family(),
            vocab_size: f.required_size_to("vocab_size", MAX_VOCABULARY)?,
            hidden_size,
            intermediate_size: f.required_size_to("intermediate_size", MAX_WIDTH)?,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            rope_theta,
            rope_scaling,
            rms_norm_eps: rms_norm_eps as f32,
            tie_word_embeddings: f.flag("tie_word_embeddings")?.unwrap_or(false),
            qkv_bias: attention_bias || hf == HfFamily::Qwen2,
            attention_out_bias: attention_bias,
            qk_norm: hf == HfFamily::Qwen3,
            max_position_embeddings,
            eos_token_ids: f.token_ids("eos_token_id")?,
        };
        match count::parameters(&config) {
            Some(n) if n <= MAX_PARAMETERS => Ok(config),
            _ => Err(f.error(&format!(
                "its sizes come to more than {MAX_PARAMETERS} parameters, which no machine holds"
            ))),
        }
    }
}

/// The families as `model_type` names them; each has its own defaults for absent fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HfFamily {
    Qwen2,
    Qwen3,
    Llama,
    Mistral,
}

impl HfFamily {
    fn read(f: &Fields) -> Result<Self> {
        let architecture = match f.get("architectures") {
            Some(Value::Array(names)) => names.first().and_then(Value::as_str),
            _ => None,
        };
        let model_type = f.text("model_type")?;
        let hf = match (model_type, architecture) {
            (Some("qwen2"), _) | (None, Some("Qwen2ForCausalLM")) => Self::Qwen2,
            (Some("qwen3"), _) | (None, Some("Qwen3ForCausalLM")) => Self::Qwen3,
            (Some("llama"), _) | (None, Some("LlamaForCausalLM")) => Self::Llama,
            (Some("mistral"), _) | (None, Some("MistralForCausalLM")) => Self::Mistral,
            (None, None) => {
                return Err(f.error("names no model_type: is this the configuration of a language model?"));
            }
            (name, other) => {
                let name = name.or(other).unwrap_or_default();
                return Err(f.error(&format!(
                    "model_type {name:?} is not supported (supported: qwen2, qwen3, llama, mistral)"
                )));
            }
        };
        match architecture {
            Some(name) if name != hf.architecture() => Err(f.error(&format!(
                "architecture {name:?} is not a causal language model of this family; {} is expected",
                hf.architecture()
            ))),
            _ => Ok(hf),
        }
    }

    fn architecture(self) -> &'static str {
        match self {
            Self::Mistral => "MistralForCausalLM",
            other => other.family().hf_names().1,
        }
    }

    fn family(self) -> Family {
        match self {
            Self::Qwen2 => Family::Qwen2,
            Self::Qwen3 => Family::Qwen3,
            Self::Llama | Self::Mistral => Family::Llama,
        }
    }
}

/// Fields that would change the arithmetic in a way the decoder does not have.
fn refuse_unsupported(f: &Fields, hf: HfFamily) -> Result<()> {
    if let Some(act) = f.text("hidden_act")?
        && act != "silu"
        && act != "swish"
    {
        return Err(f.error(&format!("hidden_act {act:?} is not supported, only \"silu\"")));
    }
    for key in ["mlp_bias", "use_mrope"] {
        let read_by_hf = key != "mlp_bias" || hf == HfFamily::Llama;
        if read_by_hf && f.flag(key)?.unwrap_or(false) {
            return Err(f.error(&format!("{key} = true is not supported")));
        }
    }
    if f.get("quantization_config").is_some() {
        return Err(f.error(
            "quantization_config is not supported: use the folder of the unquantised (bf16, f16 or f32) weights",
        ));
    }
    Ok(())
}

/// A sliding window that no position can notice is accepted; one in use is refused.
fn refuse_sliding_window(f: &Fields, hf: HfFamily, n_layers: usize, context: usize) -> Result<()> {
    if let Some(Value::Array(types)) = f.get("layer_types")
        && let Some(other) = types.iter().find(|t| t.as_str() != Some("full_attention"))
    {
        return Err(f.error(&format!("layer_types holds {other}: only \"full_attention\" is supported")));
    }
    let in_use = match hf {
        HfFamily::Llama => false,
        HfFamily::Mistral => true,
        HfFamily::Qwen2 | HfFamily::Qwen3 => {
            f.flag("use_sliding_window")?.unwrap_or(false)
                && f.get("layer_types").is_none()
                && f.size("max_window_layers")?.unwrap_or(28) < n_layers
        }
    };
    // transformers takes 4096 where the field is absent, and no window where it is null.
    let window = match f.size("sliding_window")? {
        None if !f.is_null("sliding_window") => Some(4096),
        window => window,
    };
    match window {
        Some(window) if in_use && window < context => Err(f.error(&format!(
            "sliding_window = {window} is in use, which is not supported (a window of null, or of at least \
             the context of {context}, is)"
        ))),
        _ => Ok(()),
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
