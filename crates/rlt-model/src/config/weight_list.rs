//! The weights of a decoder, listed once: what each is, its shape, and the names of its parts in Hugging Face files.
//! Parameters, their gradients and moments, adapters, files, sizes and plans all follow this list.

use super::model::{FeedForward, ModelConfig, Norms};

/// A tensor of a block, in the order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockWeight {
    /// Norm before attention, 1 x hidden.
    AttentionNorm,
    /// Query, key and value projections, (heads + 2 kv heads) * head_dim x hidden.
    Qkv,
    /// Their bias, 1 x rows of these.
    QkvBias,
    /// Norm of each query head, 1 x head_dim.
    QueryNorm,
    /// Norm of each key head, 1 x head_dim.
    KeyNorm,
    /// Attention output projection, hidden x heads * head_dim.
    AttentionOut,
    /// Its bias, 1 x hidden.
    AttentionOutBias,
    /// Norm of what attention adds, 1 x hidden.
    AfterAttentionNorm,
    /// Norm before the feed-forward layer, 1 x hidden.
    FeedForwardNorm,
    /// Gate and up projections, 2 * intermediate x hidden.
    GateUp,
    /// Down projection, hidden x intermediate.
    Down,
    /// Norm of what the feed-forward layer adds, 1 x hidden.
    AfterFeedForwardNorm,
}

/// What a weight is in the whole decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Token embedding, vocabulary x hidden.
    Embedding,
    /// Of a block.
    Block(usize, BlockWeight),
    /// Norm after the last block, 1 x hidden.
    FinalNorm,
    /// Output matrix, vocabulary x hidden.
    Head,
    /// A term of an adapter beside a block's matrix.
    Term(usize, BlockWeight),
}

impl Place {
    /// Whether it is what a norm multiplies by.
    pub fn is_norm(self) -> bool {
        use BlockWeight::{
            AfterAttentionNorm, AfterFeedForwardNorm, AttentionNorm, FeedForwardNorm, KeyNorm, QueryNorm,
        };
        let norms =
            [AttentionNorm, QueryNorm, KeyNorm, AfterAttentionNorm, FeedForwardNorm, AfterFeedForwardNorm];
        match self {
            Self::FinalNorm => true,
            Self::Block(_, weight) => norms.contains(&weight),
            _ => false,
        }
    }

    /// Whether its product is added to the residual stream.
    pub fn adds_to_residual(self) -> bool {
        matches!(self, Self::Block(_, BlockWeight::AttentionOut | BlockWeight::Down))
    }
}

/// A tensor as it is named and shaped in a Hugging Face file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Name in the file.
    pub name: String,
    /// Shape in the file: one number for a vector, two for a matrix.
    pub shape: Vec<usize>,
}

/// One tensor of a model: the parts that are stacked, row under row (vectors end to end).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// What it is.
    pub place: Place,
    /// The parts in order.
    pub parts: Vec<Part>,
    /// Rows of the tensor.
    pub rows: usize,
    /// Columns of the tensor.
    pub cols: usize,
    /// Whether weight decay applies (matrices; not norms and biases).
    pub decay: bool,
}

/// A weight of a block: parts by name within the block and rows (of a vector: columns), and the columns of a matrix.
pub(crate) struct BlockShape {
    pub weight: BlockWeight,
    pub parts: Vec<(&'static str, usize)>,
    /// None for a vector.
    pub cols: Option<usize>,
}

impl BlockShape {
    fn len(&self) -> usize {
        self.parts.iter().map(|(_, n)| n).sum::<usize>() * self.cols.unwrap_or(1)
    }

    fn slot(&self, layer: usize) -> Slot {
        let place = Place::Block(layer, self.weight);
        let parts = self.parts.iter().map(|&(name, n)| (format!("{}{name}", block_prefix(layer)), n));
        slot(place, self.cols, parts.collect())
    }
}

/// What the names of a block's tensors begin with.
pub(crate) fn block_prefix(layer: usize) -> String {
    format!("model.layers.{layer}.")
}

fn slot(place: Place, cols: Option<usize>, parts: Vec<(String, usize)>) -> Slot {
    let together = parts.iter().map(|(_, n)| n).sum();
    let shape = |n| cols.map_or_else(|| vec![n], |cols| vec![n, cols]);
    let parts = parts.into_iter().map(|(name, n)| Part { name, shape: shape(n) }).collect();
    let (rows, cols) = cols.map_or((1, together), |cols| (together, cols));
    Slot { place, parts, rows, cols, decay: shape(1).len() == 2 }
}

/// The weights of block `layer`, in order.
pub(crate) fn block_weights(config: &ModelConfig, layer: usize) -> Vec<BlockShape> {
    let (d, hd) = (config.hidden_size, config.head_dim);
    let (q, kv) = (config.n_heads * hd, config.n_kv_heads * hd);
    let FeedForward::Dense(f) = config.block(layer).feed_forward;
    // The second norm's name says "after attention" where there is no norm there, and the third's says what it is.
    let (after_attention, before_feed_forward) = match config.norms {
        Norms::Before => (None, "post_attention_layernorm.weight"),
        Norms::BeforeAndAfter => {
            (Some("post_attention_layernorm.weight"), "pre_feedforward_layernorm.weight")
        }
    };
    let after_feed_forward = after_attention.map(|_| "post_feedforward_layernorm.weight");
    let mut list = Vec::with_capacity(12);
    let mut add = |weight, cols, parts: &[(&'static str, usize)]| {
        list.push(BlockShape { weight, parts: parts.to_vec(), cols });
    };
    add(BlockWeight::AttentionNorm, None, &[("input_layernorm.weight", d)]);
    let qkv =
        [("self_attn.q_proj.weight", q), ("self_attn.k_proj.weight", kv), ("self_attn.v_proj.weight", kv)];
    add(BlockWeight::Qkv, Some(d), &qkv);
    if config.qkv_bias {
        let qkv =
            [("self_attn.q_proj.bias", q), ("self_attn.k_proj.bias", kv), ("self_attn.v_proj.bias", kv)];
        add(BlockWeight::QkvBias, None, &qkv);
    }
    if config.qk_norm {
        add(BlockWeight::QueryNorm, None, &[("self_attn.q_norm.weight", hd)]);
        add(BlockWeight::KeyNorm, None, &[("self_attn.k_norm.weight", hd)]);
    }
    add(BlockWeight::AttentionOut, Some(q), &[("self_attn.o_proj.weight", d)]);
    if config.attention_out_bias {
        add(BlockWeight::AttentionOutBias, None, &[("self_attn.o_proj.bias", d)]);
    }
    if let Some(name) = after_attention {
        add(BlockWeight::AfterAttentionNorm, None, &[(name, d)]);
    }
    add(BlockWeight::FeedForwardNorm, None, &[(before_feed_forward, d)]);
    add(BlockWeight::GateUp, Some(d), &[("mlp.gate_proj.weight", f), ("mlp.up_proj.weight", f)]);
    add(BlockWeight::Down, Some(f), &[("mlp.down_proj.weight", d)]);
    if let Some(name) = after_feed_forward {
        add(BlockWeight::AfterFeedForwardNorm, None, &[(name, d)]);
    }
    list
}

fn embedding(config: &ModelConfig) -> Slot {
    let name = "model.embed_tokens.weight".into();
    slot(Place::Embedding, Some(config.hidden_size), vec![(name, config.vocab_size)])
}

/// What follows the blocks.
fn ends(config: &ModelConfig) -> Vec<Slot> {
    let (d, norm) = (config.hidden_size, "model.norm.weight".into());
    let mut ends = vec![slot(Place::FinalNorm, None, vec![(norm, d)])];
    if !config.tie_word_embeddings {
        let name = "lm_head.weight".into();
        ends.push(slot(Place::Head, Some(d), vec![(name, config.vocab_size)]));
    }
    ends
}

/// The tensors of block `layer` of a model of this shape.
pub fn block_slots(config: &ModelConfig, layer: usize) -> Vec<Slot> {
    block_weights(config, layer).iter().map(|shape| shape.slot(layer)).collect()
}

/// Every tensor of a model of this shape, in the order in which it is held and written.
pub fn slots(config: &ModelConfig) -> Vec<Slot> {
    let blocks = (0..config.n_layers).flat_map(|layer| block_slots(config, layer));
    std::iter::once(embedding(config)).chain(blocks).chain(ends(config)).collect()
}

/// Numbers of all weights together. Every size has been bounded, so that their products and sums fit 64 bits; no names are made.
pub(super) fn count(config: &ModelConfig) -> usize {
    let of_block = |layer| block_weights(config, layer).iter().map(BlockShape::len).sum::<usize>();
    let of_slot = |slot: Slot| slot.rows * slot.cols;
    let blocks: usize = (0..config.n_layers).map(of_block).sum();
    of_slot(embedding(config)) + blocks + ends(config).into_iter().map(of_slot).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_as_the_slots_hold_them() {
        for (model_type, more) in [
            ("llama", serde_json::json!({})),
            ("llama", serde_json::json!({"attention_bias": true, "tie_word_embeddings": true})),
            ("qwen2", serde_json::json!({})),
            ("qwen3", serde_json::json!({"tie_word_embeddings": true})),
        ] {
            let mut json = serde_json::json!({
                "model_type": model_type, "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40,
                "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10,
            });
            json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let config = ModelConfig::from_json(&json.to_string()).unwrap();
            let held: usize = slots(&config).iter().map(|slot| slot.rows * slot.cols).sum();
            assert_eq!(count(&config), held, "{json}");
        }
    }
}
