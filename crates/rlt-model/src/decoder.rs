//! The decoder: forward and backward pass over packed batches.
//!
//! A block is `x += O(attention(rope(QKV(norm(x)))))`, then `x += down(swiglu(gate_up(norm(x))))`,
//! for Qwen2 (bias on QKV), Qwen3 (norm on query and key heads) and Llama.

use std::sync::{Arc, Mutex, PoisonError};

use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::attention::{AttentionShape, Layout, attention, attention_backward};
use rlt_engine::embedding::{embed, embed_backward};
use rlt_engine::head::OutputMatrix;
use rlt_engine::matmul::add_bias_backward;
use rlt_engine::norm::{
    HeadColumns, head_norm, head_norm_backward, rms_norm, rms_norm_again, rms_norm_backward,
};
use rlt_engine::rope::{RopeTable, Rotation, rotate};
use rlt_engine::swiglu::swiglu_backward;
use rlt_engine::{Tensor, head};

use crate::adapter::{Adapter, Site};
use crate::batch::{Continuation, PackedBatch, ScoringGroup, micro_batches};
use crate::config::ModelConfig;
use crate::gradients::{BlockGradients, Gradients};
use crate::packed_block::{BeforeAttention, PackedBlock};
use crate::parameters::{BlockParameters, Parameters};
use crate::projection::Projection;
use crate::stop::Stop;

/// A decoder-only language model, with or without an adapter.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    /// Shared with the base model that an adapter stands beside ([`Decoder::base`]).
    parameters: Arc<Parameters>,
    adapter: Option<Adapter>,
    arithmetic: Arithmetic,
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

impl Decoder {
    /// A decoder of given weights.
    pub fn new(config: ModelConfig, parameters: Parameters) -> Self {
        let rope = Mutex::new(Arc::new(rope_table(&config, 0)));
        let arithmetic = Arithmetic::F32;
        Self { config, parameters: Arc::new(parameters), adapter: None, arithmetic, rope }
    }

    /// The same weights, frozen, with low-rank terms beside them: training changes these alone.
    #[must_use]
    pub fn with_adapter(self, adapter: Adapter) -> Self {
        assert_eq!(adapter.tensors().len(), 2 * self.config.n_layers * adapter.settings().targets.len());
        Self { adapter: Some(adapter), ..self }
    }

    /// The model without its adapter; the weights are shared, not copied.
    #[must_use]
    pub fn base(&self) -> Self {
        let rope = Mutex::new(Arc::new(rope_table(&self.config, 0)));
        let (config, parameters) = (self.config.clone(), self.parameters.clone());
        Self { config, parameters, adapter: None, arithmetic: self.arithmetic, rope }
    }

    /// A decoder of the same shape and settings with other weights, and no adapter.
    #[must_use]
    pub fn with_weights(&self, parameters: Parameters) -> Self {
        Self { arithmetic: self.arithmetic, ..Self::new(self.config.clone(), parameters) }
    }

    /// The same model with its matrix products in another number format.
    #[must_use]
    pub fn in_arithmetic(self, arithmetic: Arithmetic) -> Self {
        Self { arithmetic, ..self }
    }

    /// The same model with other tokens that end a text.
    #[must_use]
    pub fn ending_with(mut self, eos_token_ids: Vec<u32>) -> Self {
        self.config.eos_token_ids = eos_token_ids;
        self
    }

    /// The number format of its matrix products.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// The matrix that turns hidden states into logits.
    pub(crate) fn output_matrix(&self) -> OutputMatrix<'_> {
        OutputMatrix { weight: self.parameters.head_weight(), arithmetic: self.arithmetic }
    }

    /// Shape and settings.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The weights, to update (a copy of their own, where another decoder shares them).
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        Arc::make_mut(&mut self.parameters)
    }

    /// The low-rank terms beside the weights.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// The low-rank terms, to update.
    pub fn adapter_mut(&mut self) -> Option<&mut Adapter> {
        self.adapter.as_mut()
    }

    /// A matrix of block `layer` with the terms beside it.
    pub(crate) fn projection(&self, layer: usize, site: Site) -> Projection<'_> {
        let block = &self.parameters.blocks[layer];
        let weight = match site {
            Site::Qkv => &block.qkv,
            Site::AttentionOut => &block.attention_out,
            Site::GateUp => &block.gate_up,
            Site::Down => &block.down,
        };
        let terms = self.adapter.as_ref().map(|adapter| adapter.block(layer).terms(site));
        Projection { weight, terms: terms.unwrap_or_default(), arithmetic: self.arithmetic }
    }

    /// Heads of every attention layer.
    pub(crate) fn attention_shape(&self) -> AttentionShape {
        let c = &self.config;
        AttentionShape { n_heads: c.n_heads, n_kv_heads: c.n_kv_heads, head_dim: c.head_dim }
    }

    /// The rotary table, covering at least `positions` positions.
    pub(crate) fn rope(&self, positions: usize) -> Arc<RopeTable> {
        // Whole whenever a thread could have failed: a new one replaces it at once or not at all.
        let mut table = self.rope.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Applies head norms and rotation to query, key and value rows.
    pub(crate) fn place_heads(
        &self,
        block: &BlockParameters,
        qkv: &mut Tensor,
        positions: &[u32],
        rope: &RopeTable,
    ) {
        let [queries, keys, rotated] = self.head_columns();
        for (heads, norm) in [(queries, &block.query_norm), (keys, &block.key_norm)] {
            if let Some(norm) = norm {
                head_norm(qkv, heads, norm, self.config.rms_norm_eps);
            }
        }
        rotate(qkv, rotated, positions, rope, Rotation::Forward);
    }

    /// Forward pass of one block over `x` (rows x hidden). Returns the output and what the
    /// backward pass needs.
    fn block_forward(
        &self,
        layer: usize,
        x: &Tensor,
        layout: &Layout,
        rope: &RopeTable,
    ) -> (Tensor, BlockActivations) {
        let block = PackedBlock::new(self, layer);
        let BeforeAttention { inverse: inverse_attention, bare: qkv_before_norm, qkv } =
            block.before_attention(x, layout.positions(), rope, true);
        let (attended, log_sums) = attention(&qkv, layout, self.attention_shape(), self.arithmetic);
        let mut middle = x.clone();
        block.add_attended(&attended, &mut middle);
        let mut out = middle.clone();
        let (inverse_mlp, gate_up) = block.add_feed_forward(&mut out);
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
    /// its input, and adds the gradients of what is trained to `grads`.
    fn block_backward(
        &self,
        layer: usize,
        x: &Tensor,
        saved: BlockActivations,
        layout: &Layout,
        rope: &RopeTable,
        dx: &mut Tensor,
        mut grads: BlockGradients,
    ) {
        let block = &self.parameters.blocks[layer];
        let eps = self.config.rms_norm_eps;
        let BlockActivations { inverse_attention, qkv_before_norm, qkv, attended, log_sums, .. } = saved;
        let (middle, inverse_mlp, mut gate_up) = (saved.middle, saved.inverse_mlp, saved.gate_up);

        // Feed-forward layer.
        let down = self.projection(layer, Site::Down);
        let (mut dactivated, through) = down.input_gradient(dx);
        swiglu_backward(&mut dactivated, &mut gate_up);
        let (activated, dgate_up) = (dactivated, gate_up);
        down.add_gradients(dx, &activated, through, grads.matrix(Site::Down));
        drop(activated);
        let normed = rms_norm_again(&middle, &block.mlp_norm, &inverse_mlp);
        let dnormed =
            self.projection(layer, Site::GateUp).backward(&dgate_up, &normed, grads.matrix(Site::GateUp));
        drop((normed, dgate_up));
        let dnorm = grads.weights().map(|weights| &mut weights.mlp_norm);
        rms_norm_backward(&dnormed, &middle, &block.mlp_norm, &inverse_mlp, dx, dnorm);
        drop(dnormed);

        // Attention.
        if let Some(bias) = grads.weights().and_then(|weights| weights.attention_out_bias.as_mut()) {
            add_bias_backward(dx, bias);
        }
        let dattended = self.projection(layer, Site::AttentionOut).backward(
            dx,
            &attended,
            grads.matrix(Site::AttentionOut),
        );
        let mut dqkv = attention_backward(
            &dattended,
            &qkv,
            &attended,
            &log_sums,
            layout,
            self.attention_shape(),
            self.arithmetic,
        );
        drop((dattended, attended, qkv));
        let [queries, keys, rotated] = self.head_columns();
        rotate(&mut dqkv, rotated, layout.positions(), rope, Rotation::Backward);
        if let Some(before) = &qkv_before_norm {
            let (dquery, dkey) = match grads.weights() {
                Some(weights) => (weights.query_norm.as_mut(), weights.key_norm.as_mut()),
                None => (None, None),
            };
            for (heads, weight, dweight) in
                [(queries, &block.query_norm, dquery), (keys, &block.key_norm, dkey)]
            {
                let Some(weight) = weight else { continue };
                head_norm_backward(&mut dqkv, before, heads, weight, eps, dweight);
            }
        }
        if let Some(bias) = grads.weights().and_then(|weights| weights.qkv_bias.as_mut()) {
            add_bias_backward(&dqkv, bias);
        }
        let normed = rms_norm_again(x, &block.attention_norm, &inverse_attention);
        let dnormed = self.projection(layer, Site::Qkv).backward(&dqkv, &normed, grads.matrix(Site::Qkv));
        let dnorm = grads.weights().map(|weights| &mut weights.attention_norm);
        rms_norm_backward(&dnormed, x, &block.attention_norm, &inverse_attention, dx, dnorm);
    }

    /// Forward pass that keeps what [`Self::backward`] needs.
    pub fn forward(&self, batch: &PackedBatch, keep: Keep) -> Activations {
        let rope = self.rope_for(&batch.layout);
        let mut x = embed(&batch.ids, &self.parameters.embedding);
        let (mut inputs, mut blocks) = (Vec::new(), Vec::new());
        for layer in 0..self.config.n_layers {
            let (out, saved) = self.block_forward(layer, &x, &batch.layout, &rope);
            inputs.push(std::mem::replace(&mut x, out));
            if keep == Keep::Activations {
                blocks.push(saved);
            }
        }
        let (hidden, inverse_final) = rms_norm(&x, &self.parameters.final_norm, self.config.rms_norm_eps);
        Activations { inputs, blocks, last: x, inverse_final, hidden }
    }

    /// The rotary table for the positions of a batch.
    pub(crate) fn rope_for(&self, layout: &Layout) -> Arc<RopeTable> {
        self.rope(layout.positions().iter().max().map_or(0, |p| *p as usize + 1))
    }

    /// Backward pass from the gradient of the hidden states (rows x hidden); adds to `grads`, which must be of
    /// this decoder ([`Gradients::zeros`]).
    pub fn backward(
        &self,
        batch: &PackedBatch,
        mut activations: Activations,
        dhidden: &Tensor,
        grads: &mut Gradients,
    ) {
        let rope = self.rope_for(&batch.layout);
        let mut dx = Tensor::zeros(dhidden.rows(), dhidden.cols());
        rms_norm_backward(
            dhidden,
            &activations.last,
            &self.parameters.final_norm,
            &activations.inverse_final,
            &mut dx,
            grads.weights_mut().map(|weights| &mut weights.final_norm),
        );
        for layer in (0..self.config.n_layers).rev() {
            let x = activations.inputs.pop().expect("one input a block");
            let saved = activations
                .blocks
                .pop()
                .unwrap_or_else(|| self.block_forward(layer, &x, &batch.layout, &rope).1);
            self.block_backward(layer, &x, saved, &batch.layout, &rope, &mut dx, grads.block_mut(layer));
        }
        if let Some(weights) = grads.weights_mut() {
            embed_backward(&batch.ids, &dx, &mut weights.embedding);
        }
    }

    /// Log-probabilities (nats) of the batch's scored tokens at `temperature`, in order.
    pub fn logprobs(&self, batch: &PackedBatch, temperature: f32) -> Vec<f32> {
        // Inside the pool: a call from outside would wake and await a worker at every operation.
        rayon::scope(|_| {
            let hidden = self.hidden_states(batch);
            let w = self.output_matrix();
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
        self.token_logprobs_unless(Stop::never(), groups, temperature, max_rows)
    }

    /// As [`Self::token_logprobs`], unless it is asked to stop between two parts.
    ///
    /// # Errors
    /// As there, and [`crate::Error::Stopped`].
    pub fn token_logprobs_unless(
        &self,
        stop: Stop,
        groups: &[ScoringGroup],
        temperature: f32,
        max_rows: usize,
    ) -> crate::Result<Vec<Vec<Vec<f32>>>> {
        self.check_groups(groups)?;
        let mut flat = Vec::new();
        for part in micro_batches(groups, max_rows) {
            stop.check()?;
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
        let context = self.config.context();
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
    /// of the first) and returns the derivative of the loss by each log-probability. The gradients of
    /// what is trained are added to `grads`, which must be of this decoder ([`Gradients::zeros`]). Returns all log-probabilities (nats).
    ///
    /// # Errors
    /// What `gradient` returns; `grads` is then incomplete.
    pub fn train_micro_batch<E: Send>(
        &self,
        batch: &PackedBatch,
        temperature: f32,
        keep: Keep,
        grads: &mut Gradients,
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
        grads: &mut Gradients,
        gradient: impl FnOnce(&[f32]) -> Result<Vec<f32>, E> + Send,
    ) -> Result<Vec<f32>, E> {
        rayon::scope(|_| {
            let activations = self.forward(batch, keep);
            let w = self.output_matrix();
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
        grads: &mut Gradients,
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
        grads: &mut Gradients,
        gradient: impl FnMut(usize, &[f32]) -> Result<Vec<f32>, E>,
    ) -> Result<Vec<f32>, E> {
        let mut dhidden = Tensor::zeros(batch.n_rows(), self.config.hidden_size);
        let logprobs = head::token_logprobs_with_backward(
            &activations.hidden,
            &batch.rows,
            self.output_matrix(),
            &batch.targets,
            temperature,
            &mut dhidden,
            grads.weights_mut().map(Parameters::head_weight_mut),
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
