//! What training changes of a decoder: all of its weights, or the adapter beside them; and the gradients of
//! these.

use std::sync::Arc;

use rlt_engine::Tensor;

use crate::adapter::{Adapter, BlockAdapter, adapter_slots};
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::parameters::{BlockParameters, BlockWeight, Parameters, Slot, slots};
use crate::projection::MatrixGradient;
use crate::shared::{Piece, SharedParameters};

/// Gradients of what training changes.
#[derive(Debug)]
pub enum Gradients {
    /// Of all weights.
    Weights(Parameters),
    /// Of the adapter alone: the weights are frozen.
    Adapter(Adapter),
    /// Of weights that processes share: handed in as they come.
    Shared(Box<PassingGradients>),
}

/// The gradients of a pass over weights that processes share. Nothing is left of them when the pass is done.
#[derive(Debug)]
pub struct PassingGradients {
    shared: Arc<SharedParameters>,
    config: ModelConfig,
    ends: EndGradients,
}

/// Of what is not in a block: there from their first use in a pass to the last.
#[derive(Debug, Default)]
struct EndGradients {
    /// That of the output matrix, too, where the two are tied.
    embedding: Option<Tensor>,
    final_norm: Option<Tensor>,
    head: Option<Tensor>,
}

impl Gradients {
    /// Zero gradients of what training changes of `decoder`: its adapter where it has one, else all weights.
    pub fn zeros(decoder: &Decoder) -> Self {
        match (decoder.adapter(), decoder.shared()) {
            (Some(adapter), _) => Self::Adapter(adapter.zeros_like()),
            (None, None) => Self::Weights(Parameters::zeros(decoder.device(), decoder.config())),
            (None, Some(shared)) => {
                let (shared, config) = (shared.clone(), decoder.config().clone());
                Self::Shared(Box::new(PassingGradients { shared, config, ends: EndGradients::default() }))
            }
        }
    }

    /// Every tensor, in the order of [`Decoder::trained_slots`]; none of weights that processes share.
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Weights(weights) => weights.tensors(),
            Self::Adapter(adapter) => adapter.tensors(),
            Self::Shared(_) => Vec::new(),
        }
    }

    /// As [`Self::tensors`], to write to.
    pub fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        match self {
            Self::Weights(weights) => weights.tensors_mut(),
            Self::Adapter(adapter) => adapter.tensors_mut(),
            Self::Shared(_) => Vec::new(),
        }
    }

    /// Sets everything to zero.
    pub fn fill_zero(&mut self) {
        self.tensors_mut().into_iter().for_each(Tensor::fill_zero);
        if let Self::Shared(passing) = self {
            passing.ends = EndGradients::default();
        }
    }

    /// Adds the gradients `other`, of the same decoder.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.tensors_mut().into_iter().zip(other.tensors()) {
            own.add(other);
        }
    }

    /// Of the output matrix (of the embedding, where the two are one), where weights are trained.
    pub(crate) fn head_mut(&mut self) -> Option<&mut Tensor> {
        match self {
            Self::Weights(weights) => Some(weights.head_weight_mut()),
            Self::Adapter(_) => None,
            Self::Shared(passing) => Some(passing.head_mut()),
        }
    }

    /// Of the norm after the last block, where weights are trained.
    pub(crate) fn final_norm_mut(&mut self) -> Option<&mut Tensor> {
        match self {
            Self::Weights(weights) => Some(&mut weights.final_norm),
            Self::Adapter(_) => None,
            Self::Shared(passing) => Some(passing.final_norm_mut()),
        }
    }

    /// Of the embedding, where weights are trained.
    pub(crate) fn embedding_mut(&mut self) -> Option<&mut Tensor> {
        match self {
            Self::Weights(weights) => Some(&mut weights.embedding),
            Self::Adapter(_) => None,
            Self::Shared(passing) => Some(passing.embedding_mut()),
        }
    }

    /// Of a block, for one pass, which ends with [`BlockGradients::done`].
    pub(crate) fn block_mut(&mut self, layer: usize) -> BlockGradients<'_> {
        match self {
            Self::Weights(weights) => BlockGradients::Weights(&mut weights.blocks[layer]),
            Self::Adapter(adapter) => BlockGradients::Adapter(adapter.block_mut(layer)),
            Self::Shared(passing) => {
                BlockGradients::Shared(&passing.shared, layer, passing.shared.zero_block(layer))
            }
        }
    }

    /// A pass adds nothing more to the gradient of `piece`, which is none of a block.
    pub(crate) fn done_with(&mut self, piece: Piece) {
        if let Self::Shared(passing) = self {
            passing.done_with(piece);
        }
    }
}

impl PassingGradients {
    fn head_mut(&mut self) -> &mut Tensor {
        if self.config.tie_word_embeddings {
            return self.embedding_mut();
        }
        let (rows, cols) = (self.config.vocab_size, self.config.hidden_size);
        or_zeros(&mut self.ends.head, &self.shared, rows, cols)
    }

    fn final_norm_mut(&mut self) -> &mut Tensor {
        or_zeros(&mut self.ends.final_norm, &self.shared, 1, self.config.hidden_size)
    }

    fn embedding_mut(&mut self) -> &mut Tensor {
        let (rows, cols) = (self.config.vocab_size, self.config.hidden_size);
        or_zeros(&mut self.ends.embedding, &self.shared, rows, cols)
    }

    fn done_with(&mut self, piece: Piece) {
        let done = match piece {
            Piece::Embedding => self.ends.embedding.take(),
            Piece::FinalNorm => self.ends.final_norm.take(),
            Piece::Head => self.ends.head.take(),
            Piece::Block(_) => unreachable!("blocks hand in their own"),
        };
        if let Some(gradient) = done {
            self.shared.hand_in(piece, &[&gradient]);
        }
    }
}

/// A gradient that is there, or zeros.
fn or_zeros<'a>(
    own: &'a mut Option<Tensor>,
    shared: &SharedParameters,
    rows: usize,
    cols: usize,
) -> &'a mut Tensor {
    own.get_or_insert_with(|| Tensor::zeros_on(shared.device(), rows, cols))
}

/// Gradients of one block.
pub(crate) enum BlockGradients<'a> {
    Weights(&'a mut BlockParameters),
    Adapter(&'a mut BlockAdapter),
    /// Of a block whose weights processes share.
    Shared(&'a SharedParameters, usize, BlockParameters),
}

impl BlockGradients<'_> {
    /// Gradient of a weight, where it is trained and the block has it.
    pub(crate) fn weight(&mut self, weight: BlockWeight) -> Option<&mut Tensor> {
        match self {
            Self::Weights(weights) => weights.get_mut(weight),
            Self::Adapter(_) => None,
            Self::Shared(.., weights) => weights.get_mut(weight),
        }
    }

    /// Gradient of a matrix that every block has, or of the terms beside it.
    pub(crate) fn matrix(&mut self, matrix: BlockWeight) -> MatrixGradient<'_> {
        let weights = match self {
            Self::Weights(weights) => &mut **weights,
            Self::Adapter(terms) => return MatrixGradient::Terms(terms.terms_mut(matrix)),
            Self::Shared(.., weights) => weights,
        };
        MatrixGradient::Weight(weights.get_mut(matrix).expect("a matrix that every block has"))
    }

    /// The pass has gone through the block.
    pub(crate) fn done(self) {
        if let Self::Shared(shared, layer, weights) = self {
            shared.hand_in(Piece::Block(layer), &weights.tensors());
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
