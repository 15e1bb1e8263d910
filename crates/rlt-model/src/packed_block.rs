//! A block of a decoder that is only read: its matrices packed for products, and the two chains of row-wise
//! operations around its attention.

use rlt_engine::Tensor;
use rlt_engine::matmul::add_bias;
use rlt_engine::norm::rms_norm;
use rlt_engine::rope::RopeTable;
use rlt_engine::swiglu::swiglu;

use crate::adapter::Site;
use crate::decoder::Decoder;
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
        let packed = |site| PackedProjection::new(decoder.projection(layer, site));
        Self {
            decoder,
            layer,
            qkv: packed(Site::Qkv),
            attention_out: packed(Site::AttentionOut),
            gate_up: packed(Site::GateUp),
            down: packed(Site::Down),
        }
    }

    /// What comes before attention: from the block's input (rows x hidden) to query, key and value rows.
    pub(crate) fn before_attention(&self, x: &Tensor, positions: &[u32], rope: &RopeTable) -> Tensor {
        let block = &self.decoder.parameters().blocks[self.layer];
        let (normed, _) = rms_norm(x, &block.attention_norm, self.decoder.config().rms_norm_eps);
        let mut qkv = self.qkv.forward(&normed);
        if let Some(bias) = &block.qkv_bias {
            add_bias(&mut qkv, bias);
        }
        self.decoder.place_heads(block, &mut qkv, positions, rope);
        qkv
    }

    /// What comes after it: from the block's input `x` (rows x hidden) and what was attended to the block's output,
    /// in the place of `x`.
    pub(crate) fn after_attention(&self, attended: &Tensor, x: &mut Tensor) {
        let block = &self.decoder.parameters().blocks[self.layer];
        self.attention_out.add(attended, x);
        if let Some(bias) = &block.attention_out_bias {
            add_bias(x, bias);
        }
        let (normed, _) = rms_norm(x, &block.mlp_norm, self.decoder.config().rms_norm_eps);
        let gate_up = self.gate_up.forward(&normed);
        drop(normed);
        let activated = swiglu(&gate_up);
        drop(gate_up);
        self.down.add(&activated, x);
    }
}
