//! The passes of a training step over a packed batch: forward, keeping what the backward pass needs, the head, and back.

use std::borrow::Cow;

use rlt_engine::attention::{Layout, attention, attention_backward};
use rlt_engine::embedding::{embed_backward, scale};
use rlt_engine::geglu::geglu_backward;
use rlt_engine::head::{Distributions, Kl};
use rlt_engine::matmul::add_bias_backward;
use rlt_engine::norm::{head_norm_backward, rms_norm, rms_norm_again, rms_norm_backward};
use rlt_engine::rope::{Rotation, rotate};
use rlt_engine::swiglu::swiglu_backward;
use rlt_engine::{Tensor, head};

use crate::batch::PackedBatch;
use crate::config::Activation;
use crate::decoder::{Decoder, RopeTables};
use crate::gradients::{BlockGradients, Gradients};
use crate::packed_block::{AfterFeedForward, BareAddition, BeforeAttention, PackedBlock};
use crate::parameters::{BlockParameters, BlockWeight};
use crate::scored::ScoredStates;
use crate::shared::Piece;

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
    /// What attention and the feed-forward layer add, where there are norms after them.
    bare_attention: Option<BareAddition>,
    bare_feed_forward: Option<BareAddition>,
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
    /// Forward pass of one block over `x` (rows x hidden). Returns the output and what the
    /// backward pass needs.
    fn block_forward(
        &self,
        layer: usize,
        weights: Cow<BlockParameters>,
        x: &Tensor,
        layout: &Layout,
        ropes: &RopeTables,
    ) -> (Tensor, BlockActivations) {
        let block = PackedBlock::of(self, layer, weights);
        let shape = self.attention_of(layer);
        let mut qkv = x.beside(x.rows(), shape.qkv_cols());
        let BeforeAttention { inverse: inverse_attention, bare: qkv_before_norm } =
            block.before_attention(x, layout.positions(), ropes, true, &mut qkv);
        let (attended, log_sums) = attention(&qkv, layout, shape, self.arithmetic());
        let mut middle = x.clone();
        let bare_attention = block.add_attended(&attended, &mut middle);
        let mut out = middle.clone();
        let AfterFeedForward { inverse: inverse_mlp, gate_up, bare: bare_feed_forward } =
            block.add_feed_forward(&mut out);
        let saved = BlockActivations {
            inverse_attention,
            qkv_before_norm,
            qkv,
            attended,
            log_sums,
            middle,
            inverse_mlp,
            gate_up,
            bare_attention,
            bare_feed_forward,
        };
        (out, saved)
    }

    /// Backward pass of one block: turns `dx`, the gradient of the block's output, into that of
    /// its input, and adds the gradients of what is trained to `grads`.
    fn block_backward(
        &self,
        layer: usize,
        block: &BlockParameters,
        x: &Tensor,
        saved: BlockActivations,
        layout: &Layout,
        ropes: &RopeTables,
        dx: &mut Tensor,
        grads: &mut BlockGradients,
    ) {
        let eps = self.config().rms_norm_eps;
        let BlockActivations { inverse_attention, qkv_before_norm, qkv, attended, log_sums, .. } = saved;
        let (middle, inverse_mlp, mut gate_up) = (saved.middle, saved.inverse_mlp, saved.gate_up);

        // Feed-forward layer.
        let down = self.projection(layer, block, BlockWeight::Down);
        let dbare = self.addition_backward(
            block,
            BlockWeight::AfterFeedForwardNorm,
            saved.bare_feed_forward,
            dx,
            grads,
        );
        let dadded = dbare.as_ref().unwrap_or(dx);
        let (mut dactivated, through) = down.input_gradient(dadded);
        match self.config().activation {
            Activation::Silu => swiglu_backward(&mut dactivated, &mut gate_up),
            Activation::GeluTanh => geglu_backward(&mut dactivated, &mut gate_up),
        }
        let (activated, dgate_up) = (dactivated, gate_up);
        down.add_gradients(dadded, &activated, through, grads.matrix(BlockWeight::Down));
        drop((activated, dbare));
        let mlp_norm = self.norm_scale(&block[BlockWeight::FeedForwardNorm]);
        let normed = rms_norm_again(&middle, &mlp_norm, &inverse_mlp);
        let dnormed = self.projection(layer, block, BlockWeight::GateUp).backward(
            &dgate_up,
            &normed,
            grads.matrix(BlockWeight::GateUp),
        );
        drop((normed, dgate_up));
        let dnorm = grads.weight(BlockWeight::FeedForwardNorm);
        rms_norm_backward(&dnormed, &middle, &mlp_norm, &inverse_mlp, dx, dnorm);
        drop(dnormed);

        // Attention.
        let dbare =
            self.addition_backward(block, BlockWeight::AfterAttentionNorm, saved.bare_attention, dx, grads);
        let dadded = dbare.as_ref().unwrap_or(dx);
        if let Some(bias) = grads.weight(BlockWeight::AttentionOutBias) {
            add_bias_backward(dadded, bias);
        }
        let dattended = self.projection(layer, block, BlockWeight::AttentionOut).backward(
            dadded,
            &attended,
            grads.matrix(BlockWeight::AttentionOut),
        );
        drop(dbare);
        let mut dqkv = attention_backward(
            &dattended,
            &qkv,
            &attended,
            &log_sums,
            layout,
            self.attention_of(layer),
            self.arithmetic(),
        );
        drop((dattended, attended, qkv));
        let [queries, keys, rotated] = self.head_columns();
        rotate(
            &mut dqkv,
            rotated,
            layout.positions(),
            ropes.of(self.config().block(layer)),
            Rotation::Backward,
        );
        if let Some(before) = &qkv_before_norm {
            for (heads, norm) in [(queries, BlockWeight::QueryNorm), (keys, BlockWeight::KeyNorm)] {
                let Some(weight) = block.get(norm) else { continue };
                head_norm_backward(
                    &mut dqkv,
                    before,
                    heads,
                    &self.norm_scale(weight),
                    eps,
                    grads.weight(norm),
                );
            }
        }
        if let Some(bias) = grads.weight(BlockWeight::QkvBias) {
            add_bias_backward(&dqkv, bias);
        }
        let attention_norm = self.norm_scale(&block[BlockWeight::AttentionNorm]);
        let normed = rms_norm_again(x, &attention_norm, &inverse_attention);
        let dnormed = self.projection(layer, block, BlockWeight::Qkv).backward(
            &dqkv,
            &normed,
            grads.matrix(BlockWeight::Qkv),
        );
        let dnorm = grads.weight(BlockWeight::AttentionNorm);
        rms_norm_backward(&dnormed, x, &attention_norm, &inverse_attention, dx, dnorm);
    }

    /// Backward pass through the norm of what is added to the residual stream, whose gradient is `dx`: the gradient of
    /// what was added before that norm, where there is one.
    fn addition_backward(
        &self,
        block: &BlockParameters,
        norm: BlockWeight,
        bare: Option<BareAddition>,
        dx: &Tensor,
        grads: &mut BlockGradients,
    ) -> Option<Tensor> {
        let BareAddition { rows, inverse } = bare?;
        let weight = self.norm_scale(&block[norm]);
        let mut dbare = Tensor::zeros_on(rows.device(), rows.rows(), rows.cols());
        rms_norm_backward(dx, &rows, &weight, &inverse, &mut dbare, grads.weight(norm));
        Some(dbare)
    }

    /// Forward pass that keeps what [`Self::backward`] needs.
    pub fn forward(&self, batch: &PackedBatch, keep: Keep) -> Activations {
        let rope = self.rope_for(&batch.layout);
        let mut x = self.embedded(&batch.ids);
        let (mut inputs, mut blocks) = (Vec::new(), Vec::new());
        for layer in 0..self.config().n_layers {
            let (out, saved) = self.block_forward(layer, self.block(layer), &x, &batch.layout, &rope);
            inputs.push(std::mem::replace(&mut x, out));
            if keep == Keep::Activations {
                blocks.push(saved);
            }
        }
        let (hidden, inverse_final) =
            rms_norm(&x, &self.norm_scale(&self.final_norm()), self.config().rms_norm_eps);
        Activations { inputs, blocks, last: x, inverse_final, hidden }
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
        let mut dx = Tensor::zeros_on(self.device(), dhidden.rows(), dhidden.cols());
        rms_norm_backward(
            dhidden,
            &activations.last,
            &self.norm_scale(&self.final_norm()),
            &activations.inverse_final,
            &mut dx,
            grads.final_norm_mut(),
        );
        grads.done_with(Piece::FinalNorm);
        for layer in (0..self.config().n_layers).rev() {
            let x = activations.inputs.pop().expect("one input a block");
            let block = self.block(layer);
            let again = || self.block_forward(layer, Cow::Borrowed(&*block), &x, &batch.layout, &rope).1;
            let saved = activations.blocks.pop().unwrap_or_else(again);
            let mut of_block = grads.block_mut(layer);
            self.block_backward(layer, &block, &x, saved, &batch.layout, &rope, &mut dx, &mut of_block);
            drop(block);
            of_block.done();
        }
        if let Some(embedding) = grads.embedding_mut() {
            if let Some(factor) = self.config().embedding_scale.factor(self.config().hidden_size) {
                scale(&mut dx, factor);
            }
            embed_backward(&batch.ids, &dx, embedding);
        }
        grads.done_with(Piece::Embedding);
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
            let hidden = &activations.hidden;
            let head_weight = self.head_weight();
            let w = self.output_matrix(&head_weight);
            let logprobs = head::token_logprobs(hidden, &batch.rows, w, &batch.targets, temperature);
            drop(head_weight);
            let derivatives = gradient(&logprobs)?;
            self.train_head_and_blocks(batch, activations, temperature, grads, |first, logprobs| {
                Ok(derivatives[first..first + logprobs.len()].to_vec())
            })
        })
    }

    /// As [`Self::train_micro_batch`], where the loss is made of the divergences, the way that `kl` says, between what this model
    /// and a teacher would say before every scored token, over the whole vocabulary: `teacher` holds the teacher's states before
    /// the same tokens in the same order, whatever stands before these in its own sequences. Both are taken at `temperature`.
    /// `weight` gets the divergences (nats) in the place of log-probabilities, and they are returned.
    ///
    /// # Panics
    /// When the teacher has another number of scored tokens, or another vocabulary.
    ///
    /// # Errors
    /// What `weight` returns; `grads` is then incomplete.
    pub fn train_divergence_micro_batch<E: Send>(
        &self,
        batch: &PackedBatch,
        teacher: &ScoredStates,
        kl: Kl,
        temperature: f32,
        keep: Keep,
        grads: &mut Gradients,
        weight: impl FnMut(usize, &[f32]) -> Result<Vec<f32>, E> + Send,
    ) -> Result<Vec<f32>, E> {
        rayon::scope(|_| {
            let activations = self.forward(batch, keep);
            let mut dhidden = Tensor::zeros_on(self.device(), batch.n_rows(), self.config().hidden_size);
            let head_weight = self.head_weight();
            let w = self.output_matrix(&head_weight);
            let p = Distributions { hidden: &activations.hidden, rows: &batch.rows, w, temperature };
            let all: Vec<usize> = (0..teacher.n()).collect();
            let q = teacher.distributions(&all, temperature);
            let divergences =
                head::divergence_with_backward(p, q, kl, &mut dhidden, grads.head_mut(), weight)?;
            drop(head_weight);
            grads.done_with(Piece::Head);
            self.backward(batch, activations, &dhidden, grads);
            Ok(divergences)
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
        let mut dhidden = Tensor::zeros_on(self.device(), batch.n_rows(), self.config().hidden_size);
        let head_weight = self.head_weight();
        let logprobs = head::token_logprobs_with_backward(
            &activations.hidden,
            &batch.rows,
            self.output_matrix(&head_weight),
            &batch.targets,
            temperature,
            &mut dhidden,
            grads.head_mut(),
            gradient,
        )?;
        drop(head_weight);
        grads.done_with(Piece::Head);
        self.backward(batch, activations, &dhidden, grads);
        Ok(logprobs)
    }
}
