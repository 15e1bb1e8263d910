//! The decoder: forward and backward pass over packed batches.
//!
//! A block is `x += O(attention(rope(QKV(norm(x)))))`, then `x += down(swiglu(gate_up(norm(x))))`,
//! for Qwen2 (bias on QKV), Qwen3 (norm on query and key heads) and Llama.

use std::sync::{Arc, Mutex};

use rlt_engine::attention::{AttentionShape, Layout, attention, attention_backward};
use rlt_engine::embedding::{embed, embed_backward};
use rlt_engine::matmul::{Output, add_bias, add_bias_backward, matmul_nn, matmul_nt, matmul_tn};
use rlt_engine::norm::{
    HeadColumns, head_norm, head_norm_backward, rms_norm, rms_norm_again, rms_norm_backward,
};
use rlt_engine::rope::{RopeTable, Rotation, rotate};
use rlt_engine::swiglu::{swiglu, swiglu_backward};
use rlt_engine::{Tensor, head};

use crate::batch::{Continuation, PackedBatch, ScoringGroup, micro_batches};
use crate::config::ModelConfig;
use crate::parameters::{BlockParameters, Parameters};

/// A decoder-only language model.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    parameters: Parameters,
    rope: Mutex<Arc<RopeTable>>,
}

/// What the backward pass needs of one block.
struct BlockActivations {
    inverse_attention: Tensor,
    /// Query/key/value before the head norms (Qwen3 only).
    qkv_before_norm: Option<Tensor>,
    qkv: Tensor,
    attended: Tensor,
    log_sums: Tensor,
    /// Residual stream between attention and feed-forward layer.
    middle: Tensor,
    inverse_mlp: Tensor,
    gate_up: Tensor,
}

/// Query, key and value rows of a block, rotated, and what the backward pass needs besides.
struct BlockQkv {
    inverse_attention: Tensor,
    qkv_before_norm: Option<Tensor>,
    qkv: Tensor,
}

/// What the backward pass needs of a whole forward pass.
pub struct Activations {
    /// Input of each block.
    inputs: Vec<Tensor>,
    /// The rest of each block; empty when blocks are computed again in the backward pass.
    blocks: Vec<BlockActivations>,
    last: Tensor,
    inverse_final: Tensor,
    /// Hidden state of every row after the final norm, rows x hidden.
    hidden: Tensor,
}

/// What to keep between the passes of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Everything: fastest.
    #[default]
    Activations,
    /// Only each block's input; the block is computed again in the backward pass.
    BlockInputs,
}

fn linear(x: &Tensor, w: &Tensor) -> Tensor {
    let mut y = Tensor::scratch(x.rows(), w.rows());
    matmul_nt(x, w, &mut y, Output::Replace);
    y
}

/// Gradients of `y = x w^T`: adds the weight's to `dw`, returns the input's.
fn linear_backward(dy: &Tensor, x: &Tensor, w: &Tensor, dw: &mut Tensor) -> Tensor {
    matmul_tn(dy, x, dw, Output::Accumulate);
    let mut dx = Tensor::scratch(x.rows(), x.cols());
    matmul_nn(dy, w, &mut dx, Output::Replace);
    dx
}

impl Decoder {
    /// A decoder of given weights.
    pub fn new(config: ModelConfig, parameters: Parameters) -> Self {
        let rope = Mutex::new(Arc::new(rope_table(&config, 0)));
        Self { config, parameters, rope }
    }

    /// Shape and settings.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The weights, to update.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Heads of every attention layer.
    pub(crate) fn attention_shape(&self) -> AttentionShape {
        let c = &self.config;
        AttentionShape { n_heads: c.n_heads, n_kv_heads: c.n_kv_heads, head_dim: c.head_dim }
    }

    /// The rotary table, covering at least `positions` positions.
    pub(crate) fn rope(&self, positions: usize) -> Arc<RopeTable> {
        let mut table = self.rope.lock().expect("no panic holds this lock");
        if table.positions() < positions {
            *table = Arc::new(rope_table(&self.config, positions.next_power_of_two().max(256)));
        }
        table.clone()
    }

    /// Columns of the query, key and (both) rotated heads in a packed query/key/value row.
    pub(crate) fn head_columns(&self) -> [HeadColumns; 3] {
        let c = &self.config;
        let heads = |first: usize, n: usize| HeadColumns {
            first_col: first * c.head_dim,
            n_heads: n,
            head_dim: c.head_dim,
        };
        [heads(0, c.n_heads), heads(c.n_heads, c.n_kv_heads), heads(0, c.n_heads + c.n_kv_heads)]
    }

    /// Turns the bare projections of a block into query, key and value rows: adds the bias, applies
    /// head norms and rotation. Returns the rows before the head norms where there are any.
    pub(crate) fn finish_qkv(
        &self,
        block: &BlockParameters,
        qkv: &mut Tensor,
        positions: &[u32],
        rope: &RopeTable,
    ) -> Option<Tensor> {
        if let Some(bias) = &block.qkv_bias {
            add_bias(qkv, bias);
        }
        let [queries, keys, rotated] = self.head_columns();
        let mut before_norm = None;
        if let (Some(q), Some(k)) = (&block.query_norm, &block.key_norm) {
            before_norm = Some(qkv.clone());
            head_norm(qkv, queries, q, self.config.rms_norm_eps);
            head_norm(qkv, keys, k, self.config.rms_norm_eps);
        }
        rotate(qkv, rotated, positions, rope, Rotation::Forward);
        before_norm
    }

    /// The first part of a block: from its input (rows x hidden) to query, key and value rows.
    fn block_qkv(
        &self,
        block: &BlockParameters,
        x: &Tensor,
        positions: &[u32],
        rope: &RopeTable,
    ) -> BlockQkv {
        let (normed, inverse_attention) = rms_norm(x, &block.attention_norm, self.config.rms_norm_eps);
        let mut qkv = linear(&normed, &block.qkv);
        drop(normed);
        let qkv_before_norm = self.finish_qkv(block, &mut qkv, positions, rope);
        BlockQkv { inverse_attention, qkv_before_norm, qkv }
    }

    /// Forward pass of one block over `x` (rows x hidden). Returns the output and what the
    /// backward pass needs.
    fn block_forward(
        &self,
        block: &BlockParameters,
        x: &Tensor,
        layout: &Layout,
        rope: &RopeTable,
    ) -> (Tensor, BlockActivations) {
        let eps = self.config.rms_norm_eps;
        let BlockQkv { inverse_attention, qkv_before_norm, qkv } =
            self.block_qkv(block, x, layout.positions(), rope);
        let (attended, log_sums) = attention(&qkv, layout, self.attention_shape());
        let mut middle = x.clone();
        matmul_nt(&attended, &block.attention_out, &mut middle, Output::Accumulate);
        if let Some(bias) = &block.attention_out_bias {
            add_bias(&mut middle, bias);
        }

        let (normed, inverse_mlp) = rms_norm(&middle, &block.mlp_norm, eps);
        let gate_up = linear(&normed, &block.gate_up);
        drop(normed);
        let activated = swiglu(&gate_up);
        let mut out = middle.clone();
        matmul_nt(&activated, &block.down, &mut out, Output::Accumulate);
        let saved = BlockActivations {
            inverse_attention,
            qkv_before_norm,
            qkv,
            attended,
            log_sums,
            middle,
            inverse_mlp,
            gate_up,
        };
        (out, saved)
    }

    /// Backward pass of one block: turns `dx`, the gradient of the block's output, into that of
    /// its input, and adds the weights' gradients to `grads`.
    fn block_backward(
        &self,
        block: &BlockParameters,
        x: &Tensor,
        saved: BlockActivations,
        layout: &Layout,
        rope: &RopeTable,
        dx: &mut Tensor,
        grads: &mut BlockParameters,
    ) {
        let eps = self.config.rms_norm_eps;
        let BlockActivations { inverse_attention, qkv_before_norm, qkv, attended, log_sums, .. } = saved;
        let (middle, inverse_mlp, mut gate_up) = (saved.middle, saved.inverse_mlp, saved.gate_up);

        // Feed-forward layer.
        let activated = swiglu(&gate_up);
        let dactivated = linear_backward(dx, &activated, &block.down, &mut grads.down);
        drop(activated);
        swiglu_backward(&dactivated, &mut gate_up);
        drop(dactivated);
        let dgate_up = gate_up;
        let normed = rms_norm_again(&middle, &block.mlp_norm, &inverse_mlp);
        let dnormed = linear_backward(&dgate_up, &normed, &block.gate_up, &mut grads.gate_up);
        drop((normed, dgate_up));
        rms_norm_backward(&dnormed, &middle, &block.mlp_norm, &inverse_mlp, dx, &mut grads.mlp_norm);
        drop(dnormed);

        // Attention.
        if let Some(bias) = &mut grads.attention_out_bias {
            add_bias_backward(dx, bias);
        }
        let dattended = linear_backward(dx, &attended, &block.attention_out, &mut grads.attention_out);
        let mut dqkv =
            attention_backward(&dattended, &qkv, &attended, &log_sums, layout, self.attention_shape());
        drop((dattended, attended, qkv));
        let [queries, keys, rotated] = self.head_columns();
        rotate(&mut dqkv, rotated, layout.positions(), rope, Rotation::Backward);
        if let Some(before) = &qkv_before_norm {
            let norms = [
                (queries, &block.query_norm, &mut grads.query_norm),
                (keys, &block.key_norm, &mut grads.key_norm),
            ];
            for (heads, weight, grad) in norms {
                let (Some(weight), Some(grad)) = (weight, grad) else { continue };
                head_norm_backward(&mut dqkv, before, heads, weight, eps, grad);
            }
        }
        if let Some(bias) = &mut grads.qkv_bias {
            add_bias_backward(&dqkv, bias);
        }
        let normed = rms_norm_again(x, &block.attention_norm, &inverse_attention);
        let dnormed = linear_backward(&dqkv, &normed, &block.qkv, &mut grads.qkv);
        rms_norm_backward(
            &dnormed,
            x,
            &block.attention_norm,
            &inverse_attention,
            dx,
            &mut grads.attention_norm,
        );
    }

    /// Forward pass that keeps what [`Self::backward`] needs.
    pub fn forward(&self, batch: &PackedBatch, keep: Keep) -> Activations {
        let rope = self.rope_for(&batch.layout);
        let mut x = embed(&batch.ids, &self.parameters.embedding);
        let (mut inputs, mut blocks) = (Vec::new(), Vec::new());
        for block in &self.parameters.blocks {
            let (out, saved) = self.block_forward(block, &x, &batch.layout, &rope);
            inputs.push(std::mem::replace(&mut x, out));
            if keep == Keep::Activations {
                blocks.push(saved);
            }
        }
        let (hidden, inverse_final) = rms_norm(&x, &self.parameters.final_norm, self.config.rms_norm_eps);
        Activations { inputs, blocks, last: x, inverse_final, hidden }
    }

    /// Hidden states after the final norm (rows x hidden), keeping nothing else.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Tensor {
        let rope = self.rope_for(&batch.layout);
        let mut x = embed(&batch.ids, &self.parameters.embedding);
        for block in &self.parameters.blocks {
            x = self.block_forward(block, &x, &batch.layout, &rope).0;
        }
        rms_norm(&x, &self.parameters.final_norm, self.config.rms_norm_eps).0
    }

    /// Shows `see_qkv(layer, qkv)` each block's query/key/value rows. What comes after the last
    /// block's is not computed.
    pub(crate) fn keys_and_values(&self, batch: &PackedBatch, mut see_qkv: impl FnMut(usize, &Tensor)) {
        let rope = self.rope_for(&batch.layout);
        let mut x = embed(&batch.ids, &self.parameters.embedding);
        let last = self.parameters.blocks.len() - 1;
        for (layer, block) in self.parameters.blocks[..last].iter().enumerate() {
            let (out, saved) = self.block_forward(block, &x, &batch.layout, &rope);
            see_qkv(layer, &saved.qkv);
            x = out;
        }
        let block = &self.parameters.blocks[last];
        see_qkv(last, &self.block_qkv(block, &x, batch.layout.positions(), &rope).qkv);
    }

    fn rope_for(&self, layout: &Layout) -> Arc<RopeTable> {
        self.rope(layout.positions().iter().max().map_or(0, |p| *p as usize + 1))
    }

    /// Backward pass from the gradient of the hidden states (rows x hidden); adds to `grads`.
    pub fn backward(
        &self,
        batch: &PackedBatch,
        mut activations: Activations,
        dhidden: &Tensor,
        grads: &mut Parameters,
    ) {
        let rope = self.rope_for(&batch.layout);
        let mut dx = Tensor::zeros(dhidden.rows(), dhidden.cols());
        rms_norm_backward(
            dhidden,
            &activations.last,
            &self.parameters.final_norm,
            &activations.inverse_final,
            &mut dx,
            &mut grads.final_norm,
        );
        for index in (0..self.parameters.blocks.len()).rev() {
            let block = &self.parameters.blocks[index];
            let x = activations.inputs.pop().expect("one input a block");
            let saved = activations
                .blocks
                .pop()
                .unwrap_or_else(|| self.block_forward(block, &x, &batch.layout, &rope).1);
            self.block_backward(block, &x, saved, &batch.layout, &rope, &mut dx, &mut grads.blocks[index]);
        }
        embed_backward(&batch.ids, &dx, &mut grads.embedding);
    }

    /// Log-probabilities (nats) of the batch's scored tokens at `temperature`, in order.
    pub fn logprobs(&self, batch: &PackedBatch, temperature: f32) -> Vec<f32> {
        // Inside the pool: a call from outside would wake and await a worker at every operation.
        rayon::scope(|_| {
            let hidden = self.hidden_states(batch);
            let w = self.parameters.head_weight();
            head::token_logprobs(&hidden, &batch.rows, w, &batch.targets, temperature)
        })
    }

    /// Log-probabilities (nats) of the scored tokens of `groups` at `temperature`:
    /// `[group][continuation][scored token, in order]`. About `max_rows` rows are computed at a
    /// time, which bounds the memory and does not change the results beyond rounding.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] when a sequence is longer than the context, has a token beyond the
    /// vocabulary, or asks for a token that nothing predicts.
    pub fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        max_rows: usize,
    ) -> crate::Result<Vec<Vec<Vec<f32>>>> {
        self.check_groups(groups)?;
        let mut flat = Vec::new();
        for part in micro_batches(groups, max_rows) {
            flat.extend(self.logprobs(&PackedBatch::new(&part), temperature));
        }
        let mut rest = flat.into_iter();
        let mut of = |c: &Continuation| rest.by_ref().take(c.n_scored()).collect();
        Ok(groups.iter().map(|g| g.continuations.iter().map(&mut of).collect()).collect())
    }

    /// Checks sequences that come from outside before they are packed.
    ///
    /// # Errors
    /// As [`Self::token_logprobs`].
    pub fn check_groups(&self, groups: &[ScoringGroup]) -> crate::Result<()> {
        for group in groups {
            for continuation in &group.continuations {
                let ids = group.prefix.iter().chain(&continuation.ids);
                self.check_ids(ids.copied())?;
                let first = continuation.scored.first().map_or(1, |range| range.start);
                let end = continuation.scored.last().map_or(0, |range| range.end);
                if (group.prefix.is_empty() && first == 0) || end > continuation.ids.len() {
                    let what = format!("tokens {:?} of {}", continuation.scored, continuation.ids.len());
                    return Err(crate::Error::Invalid(format!("{what} cannot be scored")));
                }
            }
        }
        Ok(())
    }

    /// Checks that the ids of one sequence are tokens of this model and fit its context.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the token or the lengths.
    pub fn check_ids(&self, ids: impl Iterator<Item = u32>) -> crate::Result<()> {
        let mut n = 0;
        for id in ids {
            n += 1;
            if id as usize >= self.config.vocab_size {
                let vocab = self.config.vocab_size;
                return Err(crate::Error::Invalid(format!(
                    "token {id} is beyond the model's {vocab} tokens; is this the model's tokenizer?"
                )));
            }
        }
        let context = self.config.max_position_embeddings;
        if n > context {
            return Err(crate::Error::Invalid(format!(
                "a sequence of {n} tokens is longer than the model's context of {context}; shorten or drop it"
            )));
        }
        Ok(())
    }

    /// One micro-batch of a training step: forward pass, head, backward pass.
    ///
    /// `gradient(i, logprobs)` is called with consecutive runs of scored tokens (`i` is the index
    /// of the first) and returns the derivative of the loss by each log-probability. The weights'
    /// gradients are added to `grads`. Returns all log-probabilities (nats).
    ///
    /// # Errors
    /// What `gradient` returns; `grads` is then incomplete.
    pub fn train_micro_batch<E: Send>(
        &self,
        batch: &PackedBatch,
        temperature: f32,
        keep: Keep,
        grads: &mut Parameters,
        gradient: impl FnMut(usize, &[f32]) -> Result<Vec<f32>, E> + Send,
    ) -> Result<Vec<f32>, E> {
        rayon::scope(|_| self.train_in_pool(batch, temperature, keep, grads, gradient))
    }

    /// As [`Self::train_micro_batch`], for a loss that needs all log-probabilities of a sequence before any
    /// derivative: `gradient` is called once, with all of them. The head is computed twice.
    ///
    /// # Errors
    /// What `gradient` returns; nothing was added to `grads` then.
    pub fn train_whole_micro_batch<E: Send>(
        &self,
        batch: &PackedBatch,
        temperature: f32,
        keep: Keep,
        grads: &mut Parameters,
        gradient: impl FnOnce(&[f32]) -> Result<Vec<f32>, E> + Send,
    ) -> Result<Vec<f32>, E> {
        rayon::scope(|_| {
            let activations = self.forward(batch, keep);
            let w = self.parameters.head_weight();
            let hidden = &activations.hidden;
            let logprobs = head::token_logprobs(hidden, &batch.rows, w, &batch.targets, temperature);
            let derivatives = gradient(&logprobs)?;
            self.train_head_and_blocks(batch, activations, temperature, grads, |first, logprobs| {
                Ok(derivatives[first..first + logprobs.len()].to_vec())
            })
        })
    }

    fn train_in_pool<E>(
        &self,
        batch: &PackedBatch,
        temperature: f32,
        keep: Keep,
        grads: &mut Parameters,
        gradient: impl FnMut(usize, &[f32]) -> Result<Vec<f32>, E>,
    ) -> Result<Vec<f32>, E> {
        let activations = self.forward(batch, keep);
        self.train_head_and_blocks(batch, activations, temperature, grads, gradient)
    }

    /// What follows the forward pass: the head in both directions, then the backward pass.
    fn train_head_and_blocks<E>(
        &self,
        batch: &PackedBatch,
        activations: Activations,
        temperature: f32,
        grads: &mut Parameters,
        gradient: impl FnMut(usize, &[f32]) -> Result<Vec<f32>, E>,
    ) -> Result<Vec<f32>, E> {
        let mut dhidden = Tensor::zeros(batch.n_rows(), self.config.hidden_size);
        let logprobs = head::token_logprobs_with_backward(
            &activations.hidden,
            &batch.rows,
            self.parameters.head_weight(),
            &batch.targets,
            temperature,
            &mut dhidden,
            Some(grads.head_weight_mut()),
            gradient,
        )?;
        self.backward(batch, activations, &dhidden, grads);
        Ok(logprobs)
    }
}

fn rope_table(config: &ModelConfig, positions: usize) -> RopeTable {
    let (inverse_frequencies, attention_factor) = config.rope_inv_freq();
    RopeTable::new(&inverse_frequencies, attention_factor, positions)
}
