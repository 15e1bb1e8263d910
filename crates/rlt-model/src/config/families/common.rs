//! Fields that families share.

use super::super::family::Family;
use super::super::fields::Fields;
use super::super::model::{Activation, EmbeddingScale, ModelConfig, NormScale, Norms};
use super::super::rope::{self, Rope};
use crate::Result;
use crate::sizes::{MAX_CONTEXT, MAX_HEADS, MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH};

/// How many key/value heads there are where `num_key_value_heads` is absent; null always means as many as queries'.
pub(super) enum KeyHeads {
    AsQueries,
    Count(usize),
}

/// What a family's configuration in transformers has where a field is absent.
pub(super) struct Defaults {
    pub key_heads: KeyHeads,
    /// None: the width divided by the heads.
    pub head_dim: Option<usize>,
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    /// Where the activation stands, and the one that is supported.
    pub activation: (&'static str, Activation),
    /// How the rotary settings of full attention are read, given the positions.
    pub rope: fn(&Fields, usize) -> Result<Rope>,
}

impl Defaults {
    /// What most families have.
    pub(super) const fn new(key_heads: KeyHeads, max_position_embeddings: usize) -> Self {
        Self {
            key_heads,
            head_dim: None,
            max_position_embeddings,
            tie_word_embeddings: false,
            activation: ("hidden_act", Activation::Silu),
            rope: rope::read,
        }
    }
}

/// A decoder of the plain shape by the fields that all families have: full attention, norms before, no biases.
pub(super) fn read(f: &Fields, family: Family, defaults: &Defaults) -> Result<ModelConfig> {
    let (key, activation) = defaults.activation;
    if let Some(name) = f.text(key)?
        && !activation.names().contains(&name)
    {
        let only = activation.names()[0];
        return Err(f.error(&format!("{key} {name:?} is not supported, only {only:?}")));
    }
    refuse_flag(f, "use_mrope")?;
    if f.get("quantization_config").is_some() {
        return Err(f.error(
            "quantization_config is not supported: use the folder of the unquantised (bf16, f16 or f32) weights",
        ));
    }

    let n_heads = f.required_size_to("num_attention_heads", MAX_HEADS)?;
    let hidden_size = f.required_size_to("hidden_size", MAX_WIDTH)?;
    let n_layers = f.required_size_to("num_hidden_layers", MAX_LAYERS)?;
    let n_kv_heads = match (f.size_to("num_key_value_heads", MAX_HEADS)?, &defaults.key_heads) {
        (Some(n), _) => n,
        (None, KeyHeads::Count(n)) if !f.is_null("num_key_value_heads") => *n,
        (None, _) => n_heads,
    };
    if n_heads % n_kv_heads != 0 {
        return Err(f.error(&format!(
            "num_key_value_heads = {n_kv_heads} does not divide num_attention_heads = {n_heads}"
        )));
    }
    let head_dim = match (f.size_to("head_dim", MAX_HEADS)?, defaults.head_dim) {
        (Some(n), _) => n,
        (None, Some(n)) if !f.is_null("head_dim") => n,
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
    let max_position_embeddings = position_limit.unwrap_or(defaults.max_position_embeddings);
    let rope = (defaults.rope)(f, max_position_embeddings)?;
    let context = rope.scaling.context(max_position_embeddings);
    if context > MAX_CONTEXT {
        return Err(f.beyond("the context by its rope settings", context, MAX_CONTEXT));
    }
    let rms_norm_eps = f.number("rms_norm_eps")?.unwrap_or(1e-6);
    if !(rms_norm_eps.is_finite() && rms_norm_eps > 0.0) {
        return Err(f.error(&format!("rms_norm_eps = {rms_norm_eps} must be positive")));
    }
    Ok(ModelConfig {
        family,
        vocab_size: f.required_size_to("vocab_size", MAX_VOCABULARY)?,
        hidden_size,
        intermediate_size: f.required_size_to("intermediate_size", MAX_WIDTH)?,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim,
        rope,
        windows: None,
        score_divisor: head_dim as f64,
        activation,
        norms: Norms::Before,
        norm_scale: NormScale::Weight,
        embedding_scale: EmbeddingScale::One,
        rms_norm_eps: rms_norm_eps as f32,
        tie_word_embeddings: f.flag("tie_word_embeddings")?.unwrap_or(defaults.tie_word_embeddings),
        qkv_bias: false,
        attention_out_bias: false,
        qk_norm: false,
        max_position_embeddings,
        eos_token_ids: f.token_ids("eos_token_id")?,
    })
}

/// Refuses a field that asks for arithmetic that is not here.
pub(super) fn refuse_flag(f: &Fields, key: &str) -> Result<()> {
    match f.flag(key)? {
        Some(true) => Err(f.error(&format!("{key} = true is not supported"))),
        _ => Ok(()),
    }
}
