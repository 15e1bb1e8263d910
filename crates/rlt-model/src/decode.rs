//! One decoding step: a new token of every sequence goes through the decoder.

use rlt_engine::Tensor;
use rlt_engine::embedding::embed;
use rlt_engine::kv::{KvSequence, decode_attention};
use rlt_engine::matmul::{Output, add_bias};
use rlt_engine::norm::rms_norm;
use rlt_engine::packed::{PackedWeight, matmul_packed};
use rlt_engine::swiglu::swiglu;

use crate::decoder::Decoder;

/// The matrices of a decoder, packed for products of few rows.
pub(crate) struct DecodeWeights {
    blocks: Vec<PackedBlock>,
    head: PackedWeight,
}

struct PackedBlock {
    qkv: PackedWeight,
    attention_out: PackedWeight,
    gate_up: PackedWeight,
    down: PackedWeight,
}

fn linear(x: &Tensor, w: &PackedWeight) -> Tensor {
    let mut out = Tensor::scratch(x.rows(), w.out_features());
    matmul_packed(x, w, &mut out, Output::Replace);
    out
}

impl DecodeWeights {
    /// Packs a decoder's weights (a second copy of them, while it lives).
    pub(crate) fn new(decoder: &Decoder) -> Self {
        let parameters = decoder.parameters();
        let blocks = parameters.blocks.iter().map(|b| PackedBlock {
            qkv: PackedWeight::new(&b.qkv),
            attention_out: PackedWeight::new(&b.attention_out),
            gate_up: PackedWeight::new(&b.gate_up),
            down: PackedWeight::new(&b.down),
        });
        Self { blocks: blocks.collect(), head: PackedWeight::new(parameters.head_weight()) }
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
            let mut qkv = linear(&normed, &packed.qkv);
            decoder.finish_qkv(block, &mut qkv, &positions, &rope);
            for (row, sequence) in sequences.iter_mut().enumerate() {
                sequence.own.store(layer, &qkv, row, 1);
            }
            let attended = decode_attention(&qkv, sequences, layer, decoder.attention_shape());
            matmul_packed(&attended, &packed.attention_out, &mut x, Output::Accumulate);
            if let Some(bias) = &block.attention_out_bias {
                add_bias(&mut x, bias);
            }
            let (normed, _) = rms_norm(&x, &block.mlp_norm, eps);
            let activated = swiglu(&linear(&normed, &packed.gate_up));
            matmul_packed(&activated, &packed.down, &mut x, Output::Accumulate);
        }
        for sequence in sequences {
            sequence.own.advance(1);
        }
        let (hidden, _) = rms_norm(&x, &parameters.final_norm, eps);
        linear(&hidden, &self.head)
    }
}
