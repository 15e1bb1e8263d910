//! What training changes of a decoder: all of its weights, or the adapter beside them; and the gradients of
//! these.

use rlt_engine::Tensor;

use crate::adapter::{Adapter, BlockAdapter, adapter_slots};
use crate::decoder::Decoder;
use crate::parameters::{BlockParameters, BlockWeight, Parameters, Slot, slots};
use crate::projection::MatrixGradient;

/// Gradients of what training changes.
#[derive(Debug, Clone)]
pub enum Gradients {
    /// Of all weights.
    Weights(Parameters),
    /// Of the adapter alone: the weights are frozen.
    Adapter(Adapter),
}

impl Gradients {
    /// Zero gradients of what training changes of `decoder`: its adapter where it has one, else all weights.
    pub fn zeros(decoder: &Decoder) -> Self {
        match decoder.adapter() {
            Some(adapter) => Self::Adapter(adapter.zeros_like()),
            None => Self::Weights(Parameters::zeros(decoder.device(), decoder.config())),
        }
    }

    /// Every tensor, in the order of [`Decoder::trained_slots`].
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Weights(weights) => weights.tensors(),
            Self::Adapter(adapter) => adapter.tensors(),
        }
    }

    /// Every tensor, to write to, in the order of [`Decoder::trained_slots`].
    pub fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        match self {
            Self::Weights(weights) => weights.tensors_mut(),
            Self::Adapter(adapter) => adapter.tensors_mut(),
        }
    }

    /// Sets everything to zero.
    pub fn fill_zero(&mut self) {
        self.tensors_mut().into_iter().for_each(Tensor::fill_zero);
    }

    /// Adds the gradients `other`, of the same decoder.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.tensors_mut().into_iter().zip(other.tensors()) {
            own.add(other);
        }
    }

    /// Gradients of the weights, where these are trained.
    pub(crate) fn weights_mut(&mut self) -> Option<&mut Parameters> {
        match self {
            Self::Weights(weights) => Some(weights),
            Self::Adapter(_) => None,
        }
    }

    pub(crate) fn block_mut(&mut self, layer: usize) -> BlockGradients<'_> {
        match self {
            Self::Weights(weights) => BlockGradients::Weights(&mut weights.blocks[layer]),
            Self::Adapter(adapter) => BlockGradients::Adapter(adapter.block_mut(layer)),
        }
    }
}

/// Gradients of one block.
pub(crate) enum BlockGradients<'a> {
    Weights(&'a mut BlockParameters),
    Adapter(&'a mut BlockAdapter),
}

impl BlockGradients<'_> {
    /// Gradient of a weight, where it is trained and the block has it.
    pub(crate) fn weight(&mut self, weight: BlockWeight) -> Option<&mut Tensor> {
        match self {
            Self::Weights(weights) => weights.get_mut(weight),
            Self::Adapter(_) => None,
        }
    }

    /// Gradient of a matrix that every block has, or of the terms beside it.
    pub(crate) fn matrix(&mut self, matrix: BlockWeight) -> MatrixGradient<'_> {
        match self {
            Self::Weights(weights) => {
                MatrixGradient::Weight(weights.get_mut(matrix).expect("a matrix that every block has"))
            }
            Self::Adapter(terms) => MatrixGradient::Terms(terms.terms_mut(matrix)),
        }
    }
}

impl Decoder {
    /// Names and shapes of what training changes, in the order of [`Self::trained_tensors_mut`].
    pub fn trained_slots(&self) -> Vec<Slot> {
        match self.adapter() {
            Some(adapter) => adapter_slots(self.config(), adapter.settings()),
            None => slots(self.config()),
        }
    }

    /// What training changes: the adapter where there is one, else all weights.
    pub fn trained_tensors(&self) -> Vec<&Tensor> {
        match self.adapter() {
            Some(adapter) => adapter.tensors(),
            None => self.parameters().tensors(),
        }
    }

    /// As [`Self::trained_tensors`], to write to.
    pub fn trained_tensors_mut(&mut self) -> Vec<&mut Tensor> {
        if self.adapter().is_some() {
            return self.adapter_mut().map(Adapter::tensors_mut).unwrap_or_default();
        }
        self.parameters_mut().tensors_mut()
    }
}
