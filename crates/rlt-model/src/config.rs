//! `config.json` and `generation_config.json` of a Hugging Face model folder.

/// The supported decoder families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Qwen2 and Qwen2.5: bias on the query, key and value projections.
    Qwen2,
    /// Qwen3 (dense): RMS norm on each query and key head.
    Qwen3,
    /// Llama 2/3.x and models of its shape.
    Llama,
}

/// How rotary frequencies are changed for contexts longer than the pre-training one.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Plain rotary embedding.
    None,
    /// `rope_type = "llama3"`: low frequencies divided, a smooth ramp between.
    Llama3 {
        /// Division of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the pre-training, tokens.
        original_context: f64,
    },
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
    /// RMS norm per query and key head (Qwen3).
    pub qk_norm: bool,
    /// Longest context, tokens.
    pub max_position_embeddings: usize,
    /// Tokens that end a generation (`generation_config.json` first, else `config.json`).
    pub eos_token_ids: Vec<u32>,
}
