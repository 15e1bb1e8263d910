//! What decoding computes: keys and values of prompts, and a new token of every sequence.

use rlt_engine::kv::{KvSequence, decode_attention};
use rlt_engine::norm::rms_norm;
use rlt_engine::{Device, Tensor};

use crate::batch::PackedBatch;
use crate::decoder::Decoder;
use crate::packed_block::PackedBlock;
use crate::projection::{PackedProjection, Projection};

/// The matrices of a decoder, packed once for all that is decoded.
pub(crate) struct DecodeWeights<'a> {
    decoder: &'a Decoder,
    blocks: Vec<PackedBlock<'a>>,
    head: PackedProjection,
}

impl<'a> DecodeWeights<'a> {
    /// Packs a decoder's weights (a second copy of them, while it lives).
    pub(crate) fn new(decoder: &'a Decoder) -> Self {
        let blocks = (0..decoder.config().n_layers).map(|layer| PackedBlock::new(decoder, layer)).collect();
        let head = Projection {
            weight: decoder.parameters().head_weight(),
            terms: &[],
            arithmetic: decoder.arithmetic(),
        };
        Self { decoder, blocks, head: PackedProjection::new(head) }
    }

    /// Where they lie and steps are computed.
    pub(crate) fn device(&self) -> &Device {
        self.decoder.device()
    }

    /// Shows `see_qkv(layer, qkv)` each block's query/key/value rows of whole prompts. What comes after the last
    /// block's is not computed.
    pub(crate) fn keys_and_values(&self, batch: &PackedBatch, mut see_qkv: impl FnMut(usize, &Tensor)) {
        let rope = self.decoder.rope_for(&batch.layout);
        let mut x = self.decoder.embedded(&batch.ids);
        for (layer, block) in self.blocks.iter().enumerate() {
            let qkv = self.decoder.qkv_rows(block, &x, &batch.layout, &rope);
            see_qkv(layer, &qkv);
            if layer + 1 < self.blocks.len() {
                self.decoder.rest_of_block(block, qkv, &batch.layout, &mut x);
            }
        }
    }

    /// Computes one new token of every sequence (`ids[i]` continues `sequences[i]`), stores its keys
    /// and values, and returns the logits of the token after it (sequences x vocabulary).
    ///
    /// A row's bits depend on its own sequence only.
    pub(crate) fn step(&self, ids: &[u32], sequences: &mut [&mut KvSequence]) -> Tensor {
        let (config, parameters) = (self.decoder.config(), self.decoder.parameters());
        let positions: Vec<u32> = sequences.iter().map(|s| s.len() as u32).collect();
        let rope = self.decoder.rope(positions.iter().max().map_or(0, |p| *p as usize + 1));
        let mut x = self.decoder.embedded(ids);
        for (layer, block) in self.blocks.iter().enumerate() {
            let qkv = block.before_attention(&x, &positions, &rope, false).qkv;
            for (row, sequence) in sequences.iter_mut().enumerate() {
                sequence.own.store(layer, &qkv, row, 1);
            }
            let attended = decode_attention(&qkv, sequences, layer, self.decoder.attention_of(layer));
            block.add_attended(&attended, &mut x);
            block.add_feed_forward(&mut x);
        }
        for sequence in sequences {
            sequence.own.advance(1);
        }
        let (hidden, _) = rms_norm(&x, &self.decoder.norm_scale(&parameters.final_norm), config.rms_norm_eps);
        self.head.forward(&hidden)
    }
}
