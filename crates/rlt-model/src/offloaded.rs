//! The weights of a model on a GPU that is only read: its blocks wait in the host's memory, and a pass brings each to the GPU
//! while the one before it is computed.
//!
//! Two blocks are on the GPU at a time, one that is used and one that comes. It comes no sooner than all that was asked for before
//! the block in use is done, so that it may have the memory of the last one, and is waited for by what uses it: see
//! [`OffloadedTensors`]. Embedding, last norm and output matrix stay on the GPU. A pass computes what it computes with whole
//! weights, to the bit; its first block comes while nothing else is done.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use rlt_engine::offload::{ComingTensors, OffloadedTensors};
use rlt_engine::{Device, Tensor};

use crate::config::{ModelConfig, Place, Slot, block_slots};
use crate::parameters::{BlockParameters, Parameters};

/// The weights of a decoder on a GPU, those of its blocks in the host's memory.
#[derive(Debug)]
pub struct OffloadedParameters {
    /// What is in no block.
    ends: Parameters,
    blocks: Vec<OffloadedBlock>,
    /// The block that will be wanted next, and its number.
    next: Mutex<Option<(usize, ComingTensors)>>,
}

#[derive(Debug, Clone)]
struct OffloadedBlock {
    places: Vec<Place>,
    tensors: OffloadedTensors,
}

impl OffloadedBlock {
    /// Copies of a block's tensors.
    fn of(places: Vec<Place>, device: &Device, tensors: &[&Tensor]) -> Self {
        Self { places, tensors: OffloadedTensors::of(device, tensors) }
    }
}

impl OffloadedParameters {
    /// Of one tensor a slot, on a GPU, which `make` makes; no two blocks of them are there at the same time.
    ///
    /// # Errors
    /// What `make` returns.
    pub fn build<E>(
        config: &ModelConfig,
        mut make: impl FnMut(&Slot) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let without_blocks = ModelConfig { n_layers: 0, ..config.clone() };
        let ends = Parameters::build(&without_blocks, &mut make)?;
        let mut blocks = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            let slots = block_slots(config, layer);
            let tensors = slots.iter().map(&mut make).collect::<Result<Vec<_>, E>>()?;
            let places = slots.iter().map(|slot| slot.place).collect();
            let device = ends.embedding.device();
            blocks.push(OffloadedBlock::of(places, device, &tensors.iter().collect::<Vec<_>>()));
        }
        Ok(Self { ends, blocks, next: Mutex::default() })
    }

    /// Copies of a model's weights.
    pub(crate) fn of(config: &ModelConfig, parameters: &Parameters) -> Self {
        let Parameters { embedding, blocks, final_norm, head } = parameters;
        let ends = Parameters {
            embedding: embedding.clone(),
            blocks: Vec::new(),
            final_norm: final_norm.clone(),
            head: head.clone(),
        };
        let offloaded = |(layer, block): (usize, &BlockParameters)| {
            let places = block_slots(config, layer).iter().map(|slot| slot.place).collect();
            OffloadedBlock::of(places, embedding.device(), &block.tensors())
        };
        let blocks = blocks.iter().enumerate().map(offloaded).collect();
        Self { ends, blocks, next: Mutex::default() }
    }

    /// What stays on the GPU, as the weights of a model without blocks.
    pub(crate) fn ends(&self) -> &Parameters {
        &self.ends
    }

    /// A block, for what the GPU is asked for from now on; the next one sets out.
    pub(crate) fn block(&self, layer: usize) -> BlockParameters {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = next.take().filter(|(expected, _)| *expected == layer);
        let block = &self.blocks[layer];
        let tensors = expected.map_or_else(|| block.tensors.bring(), |(_, coming)| coming).arrived();
        *next = self.blocks.get(layer + 1).map(|after| (layer + 1, after.tensors.bring()));
        BlockParameters::of(block.places.iter().copied().zip(tensors))
    }

    /// As [`crate::Decoder::mix_in`], block by block on the GPU.
    pub(crate) fn mix_in(&mut self, other: &Parameters, mix: f32) {
        for layer in 0..self.blocks.len() {
            let mut block = self.block(layer);
            let own = block.tensors_mut().into_iter();
            own.zip(other.blocks[layer].tensors()).for_each(|(own, other)| own.mix_in(other, mix));
            self.blocks[layer].tensors.set(&block.tensors());
        }
        let Parameters { embedding, final_norm, head, .. } = &mut self.ends;
        embedding.mix_in(&other.embedding, mix);
        final_norm.mix_in(&other.final_norm, mix);
        if let (Some(own), Some(other)) = (head, &other.head) {
            own.mix_in(other, mix);
        }
    }

    /// As [`Parameters::freeze`].
    pub(crate) fn freeze(&mut self) {
        self.ends.freeze();
        let device = self.ends.embedding.device().clone();
        for layer in 0..self.blocks.len() {
            let mut block = self.block(layer);
            block.freeze();
            self.blocks[layer].tensors = OffloadedTensors::of(&device, &block.tensors());
        }
    }

    /// Every tensor, in the order of [`slots`](crate::config::slots).
    pub(crate) fn tensors(&self) -> impl Iterator<Item = Cow<'_, Tensor>> {
        let of_blocks = (0..self.blocks.len()).flat_map(|layer| self.block(layer).into_tensors());
        let Parameters { embedding, final_norm, head, .. } = &self.ends;
        let (first, last) = (std::iter::once(embedding), std::iter::once(final_norm).chain(head));
        first.map(Cow::Borrowed).chain(of_blocks.map(Cow::Owned)).chain(last.map(Cow::Borrowed))
    }

    /// Number of parameters.
    pub(crate) fn len(&self) -> usize {
        self.ends.len() + self.blocks.iter().map(|block| block.tensors.len()).sum::<usize>()
    }

    /// Bytes of the host's memory.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.tensors.bytes()).sum()
    }
}

impl Clone for OffloadedParameters {
    fn clone(&self) -> Self {
        Self { ends: self.ends.clone(), blocks: self.blocks.clone(), next: Mutex::default() }
    }
}
