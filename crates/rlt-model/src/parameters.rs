//! The weights of a decoder (or their gradients, or optimizer moments) and where each comes from.
//!
//! Projections that read the same input are stored as one matrix (query, key and value; gate and
//! up), so that each is one product; files keep the Hugging Face names and shapes.

use std::ops::Index;

use rlt_engine::{Device, Tensor};

use crate::config::ModelConfig;
pub use crate::config::{BlockWeight, Part, Place, Slot, slots};

/// The weights of one decoder block, in the order of the list ([`crate::config::slots`]). Matrices are
/// `[out_features, in_features]`.
#[derive(Debug, Clone)]
pub struct BlockParameters {
    tensors: Vec<(BlockWeight, Tensor)>,
}

impl BlockParameters {
    /// A block of given tensors, in the order of the list.
    pub(crate) fn of(tensors: impl Iterator<Item = (Place, Tensor)>) -> Self {
        let of_block = |(place, tensor)| match place {
            Place::Block(_, weight) => (weight, tensor),
            other => unreachable!("{other:?} is of no block"),
        };
        Self { tensors: tensors.map(of_block).collect() }
    }

    /// Every tensor, in the order of the list.
    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        self.tensors.iter().map(|(_, tensor)| tensor).collect()
    }

    /// Every tensor, to write to, in the order of the list.
    pub(crate) fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        self.tensors.iter_mut().map(|(_, tensor)| tensor).collect()
    }

    /// As [`Self::tensors`], to have.
    pub(crate) fn into_tensors(self) -> impl Iterator<Item = Tensor> {
        self.tensors.into_iter().map(|(_, tensor)| tensor)
    }

    /// As [`Parameters::freeze`].
    pub(crate) fn freeze(&mut self) {
        self.tensors_mut().into_iter().for_each(narrow);
    }

    /// A weight, where a block of this model has it.
    pub fn get(&self, weight: BlockWeight) -> Option<&Tensor> {
        self.tensors.iter().find(|(own, _)| *own == weight).map(|(_, tensor)| tensor)
    }

    /// As [`Self::get`], to write to.
    pub fn get_mut(&mut self, weight: BlockWeight) -> Option<&mut Tensor> {
        self.tensors.iter_mut().find(|(own, _)| *own == weight).map(|(_, tensor)| tensor)
    }
}

impl Index<BlockWeight> for BlockParameters {
    type Output = Tensor;

    /// A weight that every block has.
    fn index(&self, weight: BlockWeight) -> &Tensor {
        self.get(weight).unwrap_or_else(|| panic!("a block of this model has no {weight:?}"))
    }
}

/// All weights of a decoder.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Token embedding, vocabulary x hidden.
    pub embedding: Tensor,
    /// The blocks, first to last.
    pub blocks: Vec<BlockParameters>,
    /// Norm after the last block, 1 x hidden.
    pub final_norm: Tensor,
    /// Output matrix, vocabulary x hidden; none where it is the embedding.
    pub head: Option<Tensor>,
}

impl Parameters {
    /// Builds parameters from one tensor per slot of [`slots`], in that order.
    ///
    /// # Errors
    /// What `make` returns.
    pub fn build<E>(
        config: &ModelConfig,
        mut make: impl FnMut(&Slot) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let mut embedding = None;
        let mut blocks: Vec<BlockParameters> = Vec::with_capacity(config.n_layers);
        let (mut final_norm, mut head) = (None, None);
        for slot in slots(config) {
            let tensor = make(&slot)?;
            assert_eq!((tensor.rows(), tensor.cols()), (slot.rows, slot.cols), "shape of {slot:?}");
            match slot.place {
                Place::Embedding => embedding = Some(tensor),
                Place::Block(layer, weight) => {
                    if blocks.len() == layer {
                        blocks.push(BlockParameters { tensors: Vec::new() });
                    }
                    blocks[layer].tensors.push((weight, tensor));
                }
                Place::FinalNorm => final_norm = Some(tensor),
                Place::Head => head = Some(tensor),
                Place::Term(..) => unreachable!("no weight of the decoder"),
            }
        }
        let (Some(embedding), Some(final_norm)) = (embedding, final_norm) else {
            unreachable!("the list begins with an embedding and ends with a norm")
        };
        Ok(Self { embedding, blocks, final_norm, head })
    }

    /// All zeros (gradients, optimizer moments), on `device`.
    pub fn zeros(device: &Device, config: &ModelConfig) -> Self {
        let made: Result<Self, std::convert::Infallible> =
            Self::build(config, |slot| Ok(Tensor::zeros_on(device, slot.rows, slot.cols)));
        match made {
            Ok(parameters) => parameters,
            Err(never) => match never {},
        }
    }

    /// The output matrix, vocabulary x hidden.
    pub fn head_weight(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The output matrix to write to (the embedding where the two are tied).
    pub fn head_weight_mut(&mut self) -> &mut Tensor {
        self.head.as_mut().unwrap_or(&mut self.embedding)
    }

    /// Every tensor, in the order of [`slots`].
    pub fn tensors(&self) -> Vec<&Tensor> {
        let blocks = self.blocks.iter().flat_map(|block| &block.tensors).map(|(_, tensor)| tensor);
        std::iter::once(&self.embedding).chain(blocks).chain([&self.final_norm]).chain(&self.head).collect()
    }

    /// Every tensor, to write to, in the order of [`slots`].
    pub fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let blocks = self.blocks.iter_mut().flat_map(BlockParameters::tensors_mut);
        let ends = [&mut self.final_norm].into_iter().chain(&mut self.head);
        std::iter::once(&mut self.embedding).chain(blocks).chain(ends).collect()
    }

    /// For a model that will only be read from now on: keeps in bf16 every matrix whose numbers bf16 holds
    /// exactly (all of a model that was loaded from bf16 and not trained). No bit of a result changes.
    pub fn freeze(&mut self) {
        self.tensors_mut().into_iter().for_each(narrow);
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.tensors().iter().map(|t| t.len()).sum()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets everything to zero.
    pub fn fill_zero(&mut self) {
        for tensor in self.tensors_mut() {
            tensor.fill_zero();
        }
    }
}

/// Keeps a matrix in bf16 where that holds every number.
fn narrow(tensor: &mut Tensor) {
    if tensor.rows() > 1
        && let Some(narrowed) = tensor.narrowed()
    {
        *tensor = narrowed;
    }
}
