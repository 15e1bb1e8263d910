//! Models that several tests make up.

use rlt_model::config::{
    Activation, EmbeddingScale, Family, ModelConfig, NormScale, Norms, Rope, RopeScaling, Windows,
};

/// A tiny model of `family`, with all that the family has of its own switched on.
pub fn config(family: Family, vocab_size: usize, head_dim: usize, context: usize) -> ModelConfig {
    let plain = ModelConfig {
        family,
        vocab_size,
        hidden_size: 48,
        intermediate_size: 80,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
        windows: None,
        score_divisor: head_dim as f64,
        activation: Activation::Silu,
        norms: Norms::Before,
        norm_scale: NormScale::Weight,
        embedding_scale: EmbeddingScale::One,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: family == Family::Qwen2,
        qkv_bias: family == Family::Qwen2,
        attention_out_bias: false,
        qk_norm: family == Family::Qwen3,
        max_position_embeddings: context,
        eos_token_ids: vec![0],
    };
    if family != Family::Gemma3 {
        return plain;
    }
    let rope = Some(Rope { theta: 1000.0, scaling: RopeScaling::None });
    ModelConfig {
        windows: Some(Windows { tokens: 11, of_block: vec![true, false], rope }),
        score_divisor: 20.0,
        activation: Activation::GeluTanh,
        norms: Norms::BeforeAndAfter,
        norm_scale: NormScale::OnePlusWeight,
        embedding_scale: EmbeddingScale::RootOfWidth,
        qk_norm: true,
        tie_word_embeddings: true,
        ..plain
    }
}
