//! The weights of a decoder (or their gradients, or optimizer moments) and where each comes from.
//!
//! Projections that read the same input are stored as one matrix (query, key and value; gate and
//! up), so that each is one product; files keep the Hugging Face names and shapes.

use rlt_engine::Tensor;

use crate::config::ModelConfig;

/// One decoder block. Matrices are `[out_features, in_features]`.
#[derive(Debug, Clone)]
pub struct BlockParameters {
    /// Norm before attention, 1 x hidden.
    pub attention_norm: Tensor,
    /// Query, key and value projections, (heads + 2 kv heads) * head_dim x hidden.
    pub qkv: Tensor,
    /// Their bias (Qwen2, or `attention_bias`), 1 x rows of `qkv`.
    pub qkv_bias: Option<Tensor>,
    /// Norm of each query head (Qwen3), 1 x head_dim.
    pub query_norm: Option<Tensor>,
    /// Norm of each key head (Qwen3), 1 x head_dim.
    pub key_norm: Option<Tensor>,
    /// Attention output projection, hidden x heads * head_dim.
    pub attention_out: Tensor,
    /// Its bias (`attention_bias`), 1 x hidden.
    pub attention_out_bias: Option<Tensor>,
    /// Norm before the feed-forward layer, 1 x hidden.
    pub mlp_norm: Tensor,
    /// Gate and up projections, 2 * intermediate x hidden.
    pub gate_up: Tensor,
    /// Down projection, hidden x intermediate.
    pub down: Tensor,
}

/// All weights of a decoder.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Token embedding, vocabulary x hidden.
    pub embedding: Tensor,
    /// The blocks, first to last.
    pub blocks: Vec<BlockParameters>,
    /// Norm after the last block, 1 x hidden.
    pub final_norm: Tensor,
    /// Output matrix, vocabulary x hidden; none where it is the embedding.
    pub head: Option<Tensor>,
}

/// A tensor as it is named and shaped in a Hugging Face file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Name in the file.
    pub name: String,
    /// Shape in the file: one number for a vector, two for a matrix.
    pub shape: Vec<usize>,
}

/// One tensor of [`Parameters`]: the parts that are stacked, row under row (vectors end to end).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The parts in order.
    pub parts: Vec<Part>,
    /// Rows of the tensor.
    pub rows: usize,
    /// Columns of the tensor.
    pub cols: usize,
    /// Whether weight decay applies (matrices; not norms and biases).
    pub decay: bool,
}

impl Slot {
    fn matrix(cols: usize, parts: &[(String, usize)]) -> Self {
        let rows = parts.iter().map(|(_, r)| r).sum();
        let parts = parts.iter().map(|(n, r)| Part { name: n.clone(), shape: vec![*r, cols] }).collect();
        Self { parts, rows, cols, decay: true }
    }

    fn vector(parts: &[(String, usize)]) -> Self {
        let cols = parts.iter().map(|(_, c)| c).sum();
        let parts = parts.iter().map(|(n, c)| Part { name: n.clone(), shape: vec![*c] }).collect();
        Self { parts, rows: 1, cols, decay: false }
    }
}

/// Every tensor of a model of this shape, in the order of [`Parameters::tensors`].
pub fn slots(config: &ModelConfig) -> Vec<Slot> {
    let (d, hd) = (config.hidden_size, config.head_dim);
    let (q, kv, f) = (config.n_heads * hd, config.n_kv_heads * hd, config.intermediate_size);
    let mut slots = vec![Slot::matrix(d, &[("model.embed_tokens.weight".into(), config.vocab_size)])];
    for layer in 0..config.n_layers {
        let at = |name: &str| format!("model.layers.{layer}.{name}");
        let attention = |name: &str| at(&format!("self_attn.{name}"));
        slots.push(Slot::vector(&[(at("input_layernorm.weight"), d)]));
        let qkv = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
        slots.push(Slot::matrix(d, &qkv.map(|(n, r)| (attention(&format!("{n}.weight")), r))));
        if config.qkv_bias {
            slots.push(Slot::vector(&qkv.map(|(n, r)| (attention(&format!("{n}.bias")), r))));
        }
        if config.qk_norm {
            slots.push(Slot::vector(&[(attention("q_norm.weight"), hd)]));
            slots.push(Slot::vector(&[(attention("k_norm.weight"), hd)]));
        }
        slots.push(Slot::matrix(q, &[(attention("o_proj.weight"), d)]));
        if config.attention_out_bias {
            slots.push(Slot::vector(&[(attention("o_proj.bias"), d)]));
        }
        slots.push(Slot::vector(&[(at("post_attention_layernorm.weight"), d)]));
        let gate_up = ["gate_proj", "up_proj"].map(|n| (at(&format!("mlp.{n}.weight")), f));
        slots.push(Slot::matrix(d, &gate_up));
        slots.push(Slot::matrix(f, &[(at("mlp.down_proj.weight"), d)]));
    }
    slots.push(Slot::vector(&[("model.norm.weight".into(), d)]));
    if !config.tie_word_embeddings {
        slots.push(Slot::matrix(d, &[("lm_head.weight".into(), config.vocab_size)]));
    }
    slots
}

impl Parameters {
    /// Builds parameters from one tensor per slot of [`slots`], in that order.
    ///
    /// # Errors
    /// What `make` returns.
    pub fn build<E>(
        config: &ModelConfig,
        mut make: impl FnMut(&Slot) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let slots = slots(config);
        let mut tensors = slots.iter().map(|slot| {
            let tensor = make(slot)?;
            assert_eq!((tensor.rows(), tensor.cols()), (slot.rows, slot.cols), "shape of {slot:?}");
            Ok(tensor)
        });
        let mut next = || tensors.next().expect("slots lists every tensor");
        let embedding = next()?;
        let mut blocks = Vec::with_capacity(config.n_layers);
        for _ in 0..config.n_layers {
            blocks.push(BlockParameters {
                attention_norm: next()?,
                qkv: next()?,
                qkv_bias: if config.qkv_bias { Some(next()?) } else { None },
                query_norm: if config.qk_norm { Some(next()?) } else { None },
                key_norm: if config.qk_norm { Some(next()?) } else { None },
                attention_out: next()?,
                attention_out_bias: if config.attention_out_bias { Some(next()?) } else { None },
                mlp_norm: next()?,
                gate_up: next()?,
                down: next()?,
            });
        }
        let final_norm = next()?;
        let head = if config.tie_word_embeddings { None } else { Some(next()?) };
        Ok(Self { embedding, blocks, final_norm, head })
    }

    /// All zeros (gradients, optimizer moments).
    pub fn zeros(config: &ModelConfig) -> Self {
        let made: Result<Self, std::convert::Infallible> =
            Self::build(config, |slot| Ok(Tensor::zeros(slot.rows, slot.cols)));
        match made {
            Ok(parameters) => parameters,
            Err(never) => match never {},
        }
    }

    /// The output matrix, vocabulary x hidden.
    pub fn head_weight(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The output matrix to write to (the embedding where the two are tied).
    pub fn head_weight_mut(&mut self) -> &mut Tensor {
        self.head.as_mut().unwrap_or(&mut self.embedding)
    }

    /// Every tensor, in the order of [`slots`].
    pub fn tensors(&self) -> Vec<&Tensor> {
        let mut all = vec![&self.embedding];
        for b in &self.blocks {
            all.extend([&b.attention_norm, &b.qkv]);
            all.extend(&b.qkv_bias);
            all.extend(&b.query_norm);
            all.extend(&b.key_norm);
            all.push(&b.attention_out);
            all.extend(&b.attention_out_bias);
            all.extend([&b.mlp_norm, &b.gate_up, &b.down]);
        }
        all.push(&self.final_norm);
        all.extend(&self.head);
        all
    }

    /// Every tensor, to write to, in the order of [`slots`].
    pub fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let mut all = vec![&mut self.embedding];
        for b in &mut self.blocks {
            all.extend([&mut b.attention_norm, &mut b.qkv]);
            all.extend(&mut b.qkv_bias);
            all.extend(&mut b.query_norm);
            all.extend(&mut b.key_norm);
            all.push(&mut b.attention_out);
            all.extend(&mut b.attention_out_bias);
            all.extend([&mut b.mlp_norm, &mut b.gate_up, &mut b.down]);
        }
        all.push(&mut self.final_norm);
        all.extend(&mut self.head);
        all
    }

    /// For a model that will only be read from now on: keeps in bf16 every matrix whose numbers bf16 holds
    /// exactly (all of a model that was loaded from bf16 and not trained). No bit of a result changes.
    pub fn freeze(&mut self) {
        for tensor in self.tensors_mut() {
            if tensor.rows() > 1
                && let Some(narrowed) = tensor.narrowed()
            {
                *tensor = narrowed;
            }
        }
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.tensors().iter().map(|t| t.len()).sum()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets everything to zero.
    pub fn fill_zero(&mut self) {
        for tensor in self.tensors_mut() {
            tensor.fill_zero();
        }
    }
}
