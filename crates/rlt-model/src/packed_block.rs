//! A block's forward pass but for its attention: its matrices packed for products, and the two chains of row-wise
//! operations. Training, reading and decoding all come here.

use rlt_engine::Tensor;
use rlt_engine::matmul::add_bias;
use rlt_engine::norm::rms_norm;
use rlt_engine::rope::RopeTable;
use rlt_engine::swiglu::swiglu;

use crate::decoder::Decoder;
use crate::parameters::BlockWeight;
use crate::projection::PackedProjection;

/// The matrices of block `layer` of a decoder.
pub(crate) struct PackedBlock<'a> {
    decoder: &'a Decoder,
    layer: usize,
    qkv: PackedProjection,
    attention_out: PackedProjection,
    gate_up: PackedProjection,
    down: PackedProjection,
}

impl<'a> PackedBlock<'a> {
    /// Packs a block's weights (a second copy of them, while it lives).
    pub(crate) fn new(decoder: &'a Decoder, layer: usize) -> Self {
        let packed = |matrix| PackedProjection::new(decoder.projection(layer, matrix));
        Self {
            decoder,
            layer,
            qkv: packed(BlockWeight::Qkv),
            attention_out: packed(BlockWeight::AttentionOut),
            gate_up: packed(BlockWeight::GateUp),
            down: packed(BlockWeight::Down),
        }
    }

    /// What comes before attention, from the block's input (rows x hidden). What query, key and value rows are before the
    /// norms of heads is kept where it is wanted and there are any.
    pub(crate) fn before_attention(
        &self,
        x: &Tensor,
        positions: &[u32],
        rope: &RopeTable,
        keep_bare: bool,
    ) -> BeforeAttention {
        let (block, config) = (&self.decoder.parameters().blocks[self.layer], self.decoder.config());
        let (normed, inverse) = rms_norm(x, &block[BlockWeight::AttentionNorm], config.rms_norm_eps);
        let mut qkv = self.qkv.forward(&normed);
        drop(normed);
        if let Some(bias) = block.get(BlockWeight::QkvBias) {
            add_bias(&mut qkv, bias);
        }
        let bare = (keep_bare && config.qk_norm).then(|| qkv.clone());
        self.decoder.place_heads(block, &mut qkv, positions, rope);
        BeforeAttention { inverse, bare, qkv }
    }

    /// Adds what was attended to (rows x heads * head_dim) to the residual stream.
    pub(crate) fn add_attended(&self, attended: &Tensor, x: &mut Tensor) {
        self.attention_out.add(attended, x);
        if let Some(bias) = self.decoder.parameters().blocks[self.layer].get(BlockWeight::AttentionOutBias) {
            add_bias(x, bias);
        }
    }

    /// Adds the feed-forward layer's output to the residual stream. Returns the inverse root mean squares of its norm and
    /// its gate and up rows.
    pub(crate) fn add_feed_forward(&self, x: &mut Tensor) -> (Tensor, Tensor) {
        let (block, config) = (&self.decoder.parameters().blocks[self.layer], self.decoder.config());
        let (normed, inverse) = rms_norm(x, &block[BlockWeight::FeedForwardNorm], config.rms_norm_eps);
        let gate_up = self.gate_up.forward(&normed);
        drop(normed);
        self.down.add(&swiglu(&gate_up), x);
        (inverse, gate_up)
    }
}

/// What comes before the attention of a block.
pub(crate) struct BeforeAttention {
    /// Inverse root mean squares of the norm, rows x 1.
    pub inverse: Tensor,
    /// Query, key and value rows before the norms of heads.
    pub bare: Option<Tensor>,
    /// Query, key and value rows, rotated.
    pub qkv: Tensor,
}
