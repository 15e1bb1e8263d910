//! What a decoder computes: everything of `config.json` that changes the arithmetic, whatever the family.

use super::family::Family;
use super::rope::Rope;

/// Everything of `config.json` that changes the arithmetic, checked and with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which family: how its `config.json` is spelt.
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
    /// Rotary settings of blocks that attend to everything before, and of all where the others have none of their own.
    pub rope: Rope,
    /// Blocks that attend through a window; none where no position could notice it.
    pub windows: Option<Windows>,
    /// What scores are divided by the root of; the width of a head where nothing else is said.
    pub score_divisor: f64,
    /// Function of the gate.
    pub activation: Activation,
    /// Where a block has norms.
    pub norms: Norms,
    /// What norms multiply by.
    pub norm_scale: NormScale,
    /// What rows of the embedding are multiplied by.
    pub embedding_scale: EmbeddingScale,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f32,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Bias on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention output projection.
    pub attention_out_bias: bool,
    /// RMS norm per query and key head.
    pub qk_norm: bool,
    /// Positions as the file says it. The longest context is [`ModelConfig::context`].
    pub max_position_embeddings: usize,
    /// Tokens that end a generation (`generation_config.json` first, else `config.json`).
    pub eos_token_ids: Vec<u32>,
}

/// Which blocks attend through a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    /// Tokens that such a block sees: its own and those before it.
    pub tokens: usize,
    /// Whether each block is one of them, first to last.
    pub of_block: Vec<bool>,
    /// Their rotary settings, where they have their own.
    pub rope: Option<Rope>,
}

/// Which tokens a block's attention sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionKind {
    /// All up to its own.
    Full,
    /// Its own and those before it, so many together.
    Window(usize),
}

/// What the feed-forward layer of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForward {
    /// `down(activation(gate(x)) * up(x))` of so many features, for every token.
    Dense(usize),
}

/// What one block is, where blocks of a model differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockKind {
    /// Which tokens it sees.
    pub attention: AttentionKind,
    /// What follows.
    pub feed_forward: FeedForward,
    /// Index of its rotary settings in [`ModelConfig::ropes`].
    pub rope: usize,
}

/// Function of the gate of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU, approximated by tanh.
    GeluTanh,
}

impl Activation {
    /// As transformers spells it; the first is what is written.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Silu => &["silu", "swish"],
            Self::GeluTanh => &["gelu_pytorch_tanh"],
        }
    }
}

/// Where a block has norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before attention and before the feed-forward layer.
    Before,
    /// There, and on what each of the two adds to the residual stream.
    BeforeAndAfter,
}

/// What an RMS norm multiplies the normalised numbers by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormScale {
    /// Its weight.
    Weight,
    /// One more than its weight.
    OnePlusWeight,
}

/// What rows of the embedding are multiplied by before the first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddingScale {
    /// Nothing.
    One,
    /// The root of their width.
    RootOfWidth,
}

impl EmbeddingScale {
    /// The factor for rows of `width` numbers, as transformers has it in f32; none where it is one.
    pub fn factor(self, width: usize) -> Option<f32> {
        match self {
            Self::One => None,
            Self::RootOfWidth => Some((width as f64).sqrt() as f32),
        }
    }
}

impl ModelConfig {
    /// What block `layer` is.
    pub fn block(&self, layer: usize) -> BlockKind {
        let feed_forward = FeedForward::Dense(self.intermediate_size);
        match &self.windows {
            Some(windows) if windows.of_block[layer] => BlockKind {
                attention: AttentionKind::Window(windows.tokens),
                feed_forward,
                rope: usize::from(windows.rope.is_some()),
            },
            _ => BlockKind { attention: AttentionKind::Full, feed_forward, rope: 0 },
        }
    }

    /// The rotary settings that blocks name: at least one.
    pub fn ropes(&self) -> impl Iterator<Item = &Rope> {
        let of_windows = self.windows.as_ref().and_then(|windows| windows.rope.as_ref());
        std::iter::once(&self.rope).chain(of_windows)
    }

    /// Longest context, tokens, as vLLM takes it: where yarn stretches the positions, its factor times the length of the
    /// pre-training, whatever `max_position_embeddings` says.
    pub fn context(&self) -> usize {
        if self.family.counts_before_scaling() {
            self.rope.scaling.context(self.max_position_embeddings)
        } else {
            self.max_position_embeddings
        }
    }

    /// Checks that the ids of one sequence are tokens of this model and that it is no longer than `context`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the token or the lengths.
    pub fn check_ids(&self, ids: impl Iterator<Item = u32>, context: usize) -> crate::Result<()> {
        let mut n = 0;
        for id in ids {
            n += 1;
            if id as usize >= self.vocab_size {
                let vocab = self.vocab_size;
                return Err(crate::Error::Invalid(format!(
                    "token {id} is beyond the model's {vocab} tokens; is this the model's tokenizer?"
                )));
            }
        }
        if n > context {
            return Err(crate::Error::Invalid(format!(
                "a sequence of {n} tokens is longer than the model's context of {context}; shorten or drop it"
            )));
        }
        Ok(())
    }
}
