//! A step of decoding: the newest token of every sequence, whose keys and values are stored and attended to layer by layer.

use rayon::prelude::*;
use rlt_cuda::{Gpu, PageTable, SlotTable};

use super::attend::decode_attention;
use super::pages::KvSequence;
use super::tables::page_table;
use crate::attention::AttentionShape;
use crate::device::Device;
use crate::tensor::Tensor;

/// Cache lines below which one thread stores all keys.
const SERIAL_LINES: usize = 512;

/// The newest token of each of some sequences, which is not counted yet. Row `i` of queries, keys and values is that of sequence `i`.
pub struct Newest<'a, 's>(Place<'a, 's>);

enum Place<'a, 's> {
    Here(&'a mut [&'s mut KvSequence]),
    OnGpu(&'a Gpu, Box<Tables<'a>>),
}

/// Where tokens go and what they attend to, which is the same in all layers and uploaded once.
struct Tables<'a> {
    slots: SlotTable<'a>,
    pages: PageTable<'a>,
}

impl<'a, 's> Newest<'a, 's> {
    /// Makes room for a token of each of `sequences`, which are all of `device` and one model. [`super::KvPages::advance`] makes
    /// them count in the end.
    pub fn of(device: &'a Device, sequences: &'a mut [&'s mut KvSequence]) -> Self {
        let (Device::Cuda(gpu), false) = (device, sequences.is_empty()) else {
            return Self(Place::Here(sequences));
        };
        for sequence in sequences.iter_mut() {
            sequence.own.reserve(1);
        }
        let sequences: Vec<&KvSequence> = sequences.iter().map(|sequence| &**sequence).collect();
        let layout = sequences[0].own.on_gpu();
        let newest = |(row, sequence): (usize, &&'a KvSequence)| sequence.own.slot(sequence.own.len(), row);
        let slots: Vec<_> = sequences.iter().enumerate().map(newest).collect();
        let tables =
            Tables { slots: gpu.slot_table(&slots, layout), pages: page_table(gpu, &sequences, layout) };
        Self(Place::OnGpu(gpu, Box::new(tables)))
    }

    /// Stores the keys and values of one layer.
    pub fn store(&mut self, layer: usize, qkv: &Tensor, shape: AttentionShape) {
        match &mut self.0 {
            Place::Here(sequences) => {
                let store = |row: usize, sequence: &mut KvSequence| sequence.own.store(layer, qkv, row, 1);
                // Each number of a key goes to a cache line of its own, which comes from memory.
                let lines = sequences.len() * shape.n_kv_heads * shape.head_dim;
                if lines < SERIAL_LINES || matches!(qkv.device(), Device::Sizes(_)) {
                    sequences.iter_mut().enumerate().for_each(|(row, sequence)| store(row, sequence));
                } else {
                    let sequences = sequences.par_iter_mut().enumerate().with_min_len(2);
                    sequences.for_each(|(row, sequence)| store(row, sequence));
                }
            }
            Place::OnGpu(gpu, tables) => {
                gpu.store_tokens(&tables.slots, qkv.memory(), layer, shape.on_gpu());
            }
        }
    }

    /// Attention in one layer, whose keys and values are stored: as [`decode_attention`].
    pub fn attention(&self, layer: usize, qkv: &Tensor, shape: AttentionShape) -> Tensor {
        match &self.0 {
            Place::Here(sequences) => decode_attention(qkv, sequences, layer, shape),
            Place::OnGpu(gpu, tables) => {
                let out = gpu.decode_attention(qkv.memory(), &tables.pages, layer, shape.on_gpu());
                Tensor::of_memory(out, qkv.rows(), shape.n_heads * shape.head_dim)
            }
        }
    }
}
