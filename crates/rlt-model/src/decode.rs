//! What decoding computes: keys and values of prompts, and a new token of every sequence.

use rlt_engine::kv::{KvSequence, Newest};
use rlt_engine::norm::rms_norm;
use rlt_engine::{Device, Tensor};

use crate::batch::PackedBatch;
use crate::decoder::Decoder;
use crate::packed_block::PackedBlock;
use crate::projection::{PackedProjection, Projection};

/// The matrices of a decoder, packed once for all that is decoded; where processes share its weights, a block's at a time
/// and anew for every token.
pub(crate) struct DecodeWeights<'a> {
    decoder: &'a Decoder,
    packed: Option<Packed<'a>>,
}

struct Packed<'a> {
    blocks: Vec<PackedBlock<'a>>,
    head: PackedProjection,
}

impl<'a> DecodeWeights<'a> {
    /// Packs a decoder's weights (a second copy of them, while it lives).
    pub(crate) fn new(decoder: &'a Decoder) -> Self {
        let packed = || {
            let blocks = (0..decoder.config().n_layers).map(|layer| PackedBlock::new(decoder, layer));
            Packed { blocks: blocks.collect(), head: packed_head(decoder) }
        };
        Self { decoder, packed: decoder.shared().is_none().then(packed) }
    }

    /// Calls `compute` with a block.
    fn with_block<R>(&self, layer: usize, compute: impl FnOnce(&PackedBlock) -> R) -> R {
        match &self.packed {
            Some(packed) => compute(&packed.blocks[layer]),
            None => compute(&PackedBlock::new(self.decoder, layer)),
        }
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
        let n_layers = self.decoder.config().n_layers;
        for layer in 0..n_layers {
            self.with_block(layer, |block| {
                let qkv = self.decoder.qkv_rows(block, &mut x, &batch.layout, &rope);
                see_qkv(layer, &qkv);
                if layer + 1 < n_layers {
                    self.decoder.rest_of_block(block, qkv, &batch.layout, &mut x);
                }
            });
        }
    }

    /// Computes one new token of every sequence (`ids[i]` continues `sequences[i]`), stores its keys
    /// and values, and returns the logits of the token after it (sequences x vocabulary).
    ///
    /// A row's bits depend on its own sequence only.
    pub(crate) fn step(&self, ids: &[u32], sequences: &mut [&mut KvSequence]) -> Tensor {
        let config = self.decoder.config();
        let positions: Vec<u32> = sequences.iter().map(|s| s.len() as u32).collect();
        let rope = self.decoder.rope(positions.iter().max().map_or(0, |p| *p as usize + 1));
        let mut x = self.decoder.embedded(ids);
        let mut newest = Newest::of(self.device(), sequences);
        for layer in 0..config.n_layers {
            self.with_block(layer, |block| {
                let shape = self.decoder.attention_of(layer);
                let mut qkv = x.beside(x.rows(), shape.qkv_cols());
                block.before_attention(&x, &positions, &rope, false, &mut qkv);
                newest.store(layer, &qkv, shape);
                let attended = newest.attention(layer, &qkv, shape);
                block.add_attended(&attended, &mut x);
                block.add_feed_forward(&mut x);
            });
        }
        for sequence in sequences {
            sequence.own.advance(1);
        }
        let norm = self.decoder.final_norm();
        let (hidden, _) = rms_norm(&x, &self.decoder.norm_scale(&norm), config.rms_norm_eps);
        match &self.packed {
            Some(packed) => packed.head.forward(&hidden),
            None => packed_head(self.decoder).forward(&hidden),
        }
    }
}

fn packed_head(decoder: &Decoder) -> PackedProjection {
    let weight = decoder.head_weight();
    PackedProjection::new(Projection { weight: &weight, terms: &[], arithmetic: decoder.arithmetic() })
}
