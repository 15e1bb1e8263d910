//! One decoding step: a new token of every sequence goes through the decoder.

use rlt_engine::Tensor;
use rlt_engine::embedding::embed;
use rlt_engine::kv::{KvSequence, decode_attention};
use rlt_engine::matmul::add_bias;
use rlt_engine::norm::rms_norm;
use rlt_engine::swiglu::swiglu;

use crate::adapter::Site;
use crate::decoder::Decoder;
use crate::projection::{PackedProjection, Projection};

/// The matrices of a decoder, packed for products of few rows.
pub(crate) struct DecodeWeights {
    blocks: Vec<PackedBlock>,
    head: PackedProjection,
}

struct PackedBlock {
    qkv: PackedProjection,
    attention_out: PackedProjection,
    gate_up: PackedProjection,
    down: PackedProjection,
}

impl DecodeWeights {
    /// Packs a decoder's weights (a second copy of them, while it lives).
    pub(crate) fn new(decoder: &Decoder) -> Self {
        let packed = |layer, site| PackedProjection::new(decoder.projection(layer, site));
        let blocks = (0..decoder.config().n_layers).map(|layer| PackedBlock {
            qkv: packed(layer, Site::Qkv),
            attention_out: packed(layer, Site::AttentionOut),
            gate_up: packed(layer, Site::GateUp),
            down: packed(layer, Site::Down),
        });
        let head = Projection {
            weight: decoder.parameters().head_weight(),
            terms: &[],
            arithmetic: decoder.arithmetic(),
        };
        Self { blocks: blocks.collect(), head: PackedProjection::new(head) }
    }

    /// Computes one new token of every sequence (`ids[i]` continues `sequences[i]`), stores its keys
    /// and values, and returns the logits of the token after it (sequences x vocabulary).
    ///
    /// A row's bits depend on its own sequence only.
    pub(crate) fn step(&self, decoder: &Decoder, ids: &[u32], sequences: &mut [&mut KvSequence]) -> Tensor {
        let (config, parameters) = (decoder.config(), decoder.parameters());
        let eps = config.rms_norm_eps;
        let positions: Vec<u32> = sequences.iter().map(|s| s.len() as u32).collect();
        let rope = decoder.rope(positions.iter().max().map_or(0, |p| *p as usize + 1));
        let mut x = embed(ids, &parameters.embedding);
        for (layer, (block, packed)) in parameters.blocks.iter().zip(&self.blocks).enumerate() {
            let (normed, _) = rms_norm(&x, &block.attention_norm, eps);
            let mut qkv = packed.qkv.forward(&normed);
            decoder.finish_qkv(block, &mut qkv, &positions, &rope);
            for (row, sequence) in sequences.iter_mut().enumerate() {
                sequence.own.store(layer, &qkv, row, 1);
            }
            let attended = decode_attention(&qkv, sequences, layer, decoder.attention_shape());
            packed.attention_out.add(&attended, &mut x);
            if let Some(bias) = &block.attention_out_bias {
                add_bias(&mut x, bias);
            }
            let (normed, _) = rms_norm(&x, &block.mlp_norm, eps);
            let activated = swiglu(&packed.gate_up.forward(&normed));
            packed.down.add(&activated, &mut x);
        }
        for sequence in sequences {
            sequence.own.advance(1);
        }
        let (hidden, _) = rms_norm(&x, &parameters.final_norm, eps);
        self.head.forward(&hidden)
    }
}
