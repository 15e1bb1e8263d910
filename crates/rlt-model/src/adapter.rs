//! What is learnt beside the frozen matrices of a decoder (LoRA, arXiv 2106.09685), with the names that
//! PEFT gives it in files.

use rlt_engine::low_rank::LowRank;
use rlt_engine::random::RandomStream;
use rlt_engine::{Device, Tensor};

pub use crate::adapter_settings::{LoraScaling, LoraSettings, Pattern, Target};
use crate::config::{BlockWeight, ModelConfig, Part, Place, Slot, block_prefix, block_weights};

/// A projection inside the stacked matrix that holds it.
struct Projected {
    matrix: BlockWeight,
    /// The row at which it begins there.
    first_row: usize,
    /// Input and output features.
    features: (usize, usize),
}

/// Where a projection of block `layer` is, by the list of weights.
fn projected(target: Target, config: &ModelConfig, layer: usize) -> Projected {
    let name = format!("{}.weight", target.path());
    for shape in block_weights(config, layer) {
        let mut first_row = 0;
        for (part, rows) in shape.parts {
            if part == name {
                let inputs = shape.cols.expect("projections are matrices");
                return Projected { matrix: shape.weight, first_row, features: (inputs, rows) };
            }
            first_row += rows;
        }
    }
    unreachable!("every block has {name}")
}

/// The terms of one block (or their gradients), by the matrix they stand beside, in the order of a block.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockAdapter {
    matrices: Vec<(BlockWeight, Vec<LowRank>)>,
}

impl BlockAdapter {
    pub(crate) fn terms(&self, matrix: BlockWeight) -> &[LowRank] {
        let found = self.matrices.iter().find(|(own, _)| *own == matrix);
        found.map(|(_, terms)| &terms[..]).unwrap_or_default()
    }

    pub(crate) fn terms_mut(&mut self, matrix: BlockWeight) -> &mut [LowRank] {
        let found = self.matrices.iter_mut().find(|(own, _)| *own == matrix);
        found.map(|(_, terms)| &mut terms[..]).unwrap_or_default()
    }

    /// Appends a term; those beside one matrix come one after the other.
    fn push(&mut self, matrix: BlockWeight, term: LowRank) {
        match self.matrices.last_mut() {
            Some((last, terms)) if *last == matrix => terms.push(term),
            _ => self.matrices.push((matrix, vec![term])),
        }
    }

    fn all(&self) -> impl Iterator<Item = &LowRank> {
        self.matrices.iter().flat_map(|(_, terms)| terms)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut LowRank> {
        self.matrices.iter_mut().flat_map(|(_, terms)| terms)
    }
}

/// The low-rank terms of a decoder, or their gradients.
#[derive(Debug, Clone)]
pub struct Adapter {
    settings: LoraSettings,
    blocks: Vec<BlockAdapter>,
}

impl Adapter {
    /// Builds an adapter from one tensor per slot of [`adapter_slots`], in that order.
    ///
    /// # Errors
    /// What `make` returns.
    pub fn build<E>(
        config: &ModelConfig,
        settings: &LoraSettings,
        mut make: impl FnMut(&Slot) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        assert!(settings.targets.is_sorted(), "targets in the order of a block");
        let all = adapter_slots(config, settings);
        let mut slots = all.iter();
        let mut next = || make(slots.next().expect("two slots a term"));
        let mut blocks = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            let mut block = BlockAdapter::default();
            for &target in &settings.targets {
                let Projected { matrix, first_row, .. } = projected(target, config, layer);
                let (_, scale) = settings.term(layer, target);
                block.push(matrix, LowRank { a: next()?, b: next()?, scale, first_column: first_row });
            }
            blocks.push(block);
        }
        Ok(Self { settings: settings.clone(), blocks })
    }

    /// Terms to begin training with: A normal with the variance that PEFT's uniform numbers have (1 / 3K), B
    /// zero, so that the decoder is the base model's. They depend on `seed` and the names only.
    pub fn random(config: &ModelConfig, settings: &LoraSettings, seed: u64) -> Self {
        Self::random_on(&Device::Cpu, config, settings, seed)
    }

    /// As [`Self::random`], on `device`.
    pub fn random_on(device: &Device, config: &ModelConfig, settings: &LoraSettings, seed: u64) -> Self {
        let stream = RandomStream::new(seed, "initial adapter");
        let mut index = 0;
        let made = Self::build(config, settings, |slot| {
            index += 1;
            if slot.parts[0].name.contains(".lora_B.") {
                return Ok::<_, std::convert::Infallible>(Tensor::zeros_on(device, slot.rows, slot.cols));
            }
            let std = 1.0 / (3.0 * slot.cols as f32).sqrt();
            Ok(Tensor::made_on(device, slot.rows, slot.cols, || {
                let data = stream.normals([index, 0, 0], slot.rows * slot.cols);
                data.into_iter().map(|value| value * std).collect()
            }))
        });
        match made {
            Ok(adapter) => adapter,
            Err(never) => match never {},
        }
    }

    /// All zeros, of the shape of `self`: gradients.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.tensors_mut().into_iter().for_each(Tensor::fill_zero);
        zeros
    }

    /// Rank, scale and places.
    pub fn settings(&self) -> &LoraSettings {
        &self.settings
    }

    pub(crate) fn block(&self, layer: usize) -> &BlockAdapter {
        &self.blocks[layer]
    }

    pub(crate) fn block_mut(&mut self, layer: usize) -> &mut BlockAdapter {
        &mut self.blocks[layer]
    }

    /// Every tensor, in the order of [`adapter_slots`].
    pub fn tensors(&self) -> Vec<&Tensor> {
        let terms = self.blocks.iter().flat_map(BlockAdapter::all);
        terms.flat_map(|term| [&term.a, &term.b]).collect()
    }

    /// Every tensor, to write to, in the order of [`adapter_slots`].
    pub fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let terms = self.blocks.iter_mut().flat_map(BlockAdapter::all_mut);
        terms.flat_map(|term| [&mut term.a, &mut term.b]).collect()
    }

    /// The terms beside the matrix of one of [`crate::parameters::slots`].
    pub(crate) fn terms_beside(&self, slot: &Slot) -> &[LowRank] {
        match slot.place {
            Place::Block(layer, matrix) => self.blocks[layer].terms(matrix),
            _ => &[],
        }
    }
}

/// Every tensor of an adapter in the order of [`Adapter::tensors`], named as PEFT names it: block by block,
/// target by target, A before B.
pub fn adapter_slots(config: &ModelConfig, settings: &LoraSettings) -> Vec<Slot> {
    let mut slots = Vec::new();
    for layer in 0..config.n_layers {
        for &target in &settings.targets {
            let Projected { matrix: beside, features: (k, n), .. } = projected(target, config, layer);
            let (rank, _) = settings.term(layer, target);
            for (matrix, rows, cols) in [("lora_A", rank, k), ("lora_B", n, rank)] {
                let path = target.path();
                let name = format!("base_model.model.{}{path}.{matrix}.weight", block_prefix(layer));
                let parts = vec![Part { name, shape: vec![rows, cols] }];
                slots.push(Slot { place: Place::Term(layer, beside), parts, rows, cols, decay: true });
            }
        }
    }
    slots
}
