//! A block's forward pass but for its attention: its matrices packed for products, and the two chains of row-wise
//! operations. Training, reading and decoding all come here.

use std::borrow::Cow;

use rlt_engine::Tensor;
use rlt_engine::geglu::geglu;
use rlt_engine::matmul::add_bias;
use rlt_engine::norm::{add_rms_norm, rms_norm};
use rlt_engine::swiglu::swiglu;

use crate::config::Activation;
use crate::decoder::{Decoder, RopeTables};
use crate::parameters::{BlockParameters, BlockWeight};
use crate::projection::PackedProjection;

/// The matrices of block `layer` of a decoder.
pub(crate) struct PackedBlock<'a> {
    decoder: &'a Decoder,
    layer: usize,
    block: Cow<'a, BlockParameters>,
    qkv: PackedProjection,
    attention_out: PackedProjection,
    gate_up: PackedProjection,
    down: PackedProjection,
}

impl<'a> PackedBlock<'a> {
    /// Packs a block's weights (a second copy of them, while it lives).
    pub(crate) fn new(decoder: &'a Decoder, layer: usize) -> Self {
        Self::of(decoder, layer, decoder.block(layer))
    }

    /// As [`Self::new`], of weights that are here.
    pub(crate) fn of(decoder: &'a Decoder, layer: usize, block: Cow<'a, BlockParameters>) -> Self {
        let packed = |matrix| PackedProjection::new(decoder.projection(layer, &block, matrix));
        let (qkv, attention_out) = (packed(BlockWeight::Qkv), packed(BlockWeight::AttentionOut));
        let (gate_up, down) = (packed(BlockWeight::GateUp), packed(BlockWeight::Down));
        Self { decoder, layer, block, qkv, attention_out, gate_up, down }
    }

    /// Which block of the decoder it is.
    pub(crate) fn layer(&self) -> usize {
        self.layer
    }

    /// What comes before attention, from the block's input (rows x hidden): writes `qkv`, query, key and value rows, rotated. What
    /// they are before the norms of heads is kept where it is wanted and there are any.
    pub(crate) fn before_attention(
        &self,
        x: &Tensor,
        positions: &[u32],
        ropes: &RopeTables,
        keep_bare: bool,
        qkv: &mut Tensor,
    ) -> BeforeAttention {
        let config = self.decoder.config();
        let (normed, inverse) =
            rms_norm(x, &self.norm_scale(BlockWeight::AttentionNorm), config.rms_norm_eps);
        self.qkv.replace(&normed, qkv);
        drop(normed);
        if let Some(bias) = self.weight(BlockWeight::QkvBias) {
            add_bias(qkv, bias);
        }
        let bare = (keep_bare && config.qk_norm).then(|| qkv.clone());
        self.decoder.place_heads(&self.block, qkv, positions, ropes.of(config.block(self.layer)));
        BeforeAttention { inverse, bare }
    }

    /// Adds what was attended to (rows x heads * head_dim) to the residual stream.
    pub(crate) fn add_attended(&self, attended: &Tensor, x: &mut Tensor) -> Option<BareAddition> {
        let bias = self.weight(BlockWeight::AttentionOutBias);
        self.add(&self.attention_out, attended, bias, BlockWeight::AfterAttentionNorm, x)
    }

    /// Adds the feed-forward layer's output to the residual stream.
    pub(crate) fn add_feed_forward(&self, x: &mut Tensor) -> AfterFeedForward {
        let eps = self.decoder.config().rms_norm_eps;
        let (normed, inverse) = rms_norm(x, &self.norm_scale(BlockWeight::FeedForwardNorm), eps);
        let gate_up = self.gate_up.forward(&normed);
        drop(normed);
        let activated = match self.decoder.config().activation {
            Activation::Silu => swiglu(&gate_up),
            Activation::GeluTanh => geglu(&gate_up),
        };
        let bare = self.add(&self.down, &activated, None, BlockWeight::AfterFeedForwardNorm, x);
        AfterFeedForward { inverse, gate_up, bare }
    }

    /// Adds a projection to the residual stream, through its norm where there is one.
    fn add(
        &self,
        projection: &PackedProjection,
        from: &Tensor,
        bias: Option<&Tensor>,
        norm: BlockWeight,
        x: &mut Tensor,
    ) -> Option<BareAddition> {
        if self.weight(norm).is_none() {
            projection.add(from, x);
            if let Some(bias) = bias {
                add_bias(x, bias);
            }
            return None;
        }
        let mut rows = projection.forward(from);
        if let Some(bias) = bias {
            add_bias(&mut rows, bias);
        }
        let inverse = add_rms_norm(x, &rows, &self.norm_scale(norm), self.decoder.config().rms_norm_eps);
        Some(BareAddition { rows, inverse })
    }

    fn weight(&self, weight: BlockWeight) -> Option<&Tensor> {
        self.block.get(weight)
    }

    /// What one of the block's norms multiplies by.
    fn norm_scale(&self, norm: BlockWeight) -> Cow<'_, Tensor> {
        self.decoder.norm_scale(&self.block[norm])
    }
}

/// What is added to the residual stream through a norm, before that norm.
pub(crate) struct BareAddition {
    /// Rows x hidden.
    pub rows: Tensor,
    /// Their inverse root mean squares, rows x 1.
    pub inverse: Tensor,
}

/// What the feed-forward layer leaves for the backward pass.
pub(crate) struct AfterFeedForward {
    /// Inverse root mean squares of the norm before it, rows x 1.
    pub inverse: Tensor,
    /// Gate and up rows.
    pub gate_up: Tensor,
    /// What it adds, where there is a norm after it.
    pub bare: Option<BareAddition>,
}

/// What comes before the attention of a block leaves for the backward pass.
pub(crate) struct BeforeAttention {
    /// Inverse root mean squares of the norm, rows x 1.
    pub inverse: Tensor,
    /// Query, key and value rows before the norms of heads.
    pub bare: Option<Tensor>,
}
