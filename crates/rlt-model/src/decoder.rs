//! A decoder: its weights, and what every pass over them needs.
//!
//! A block is `x += O(attention(rope(QKV(norm(x)))))`, then `x += down(gated(gate_up(norm(x))))`; what families add to
//! that (biases, norms of heads, norms of what is added, windows) is in the configuration. The passes are in files of their own:
//! `training_pass.rs`, `inference.rs`, `decode.rs`.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::attention::{AttentionShape, Layout};
use rlt_engine::embedding::{embed, scale};
use rlt_engine::head::OutputMatrix;
use rlt_engine::norm::{HeadColumns, head_norm, one_plus};
use rlt_engine::rope::{RopeTable, Rotation, rotate};
use rlt_engine::{Device, Tensor};

use crate::adapter::Adapter;
use crate::batch::ScoringGroup;
use crate::config::{AttentionKind, BlockKind, ModelConfig, NormScale, Rope};
use crate::offloaded::OffloadedParameters;
use crate::parameters::{BlockParameters, BlockWeight, Parameters};
use crate::projection::Projection;
use crate::shared::{Piece, SharedParameters};

/// A decoder-only language model, with or without an adapter.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    weights: Held,
    adapter: Option<Adapter>,
    arithmetic: Arithmetic,
    ropes: Mutex<Arc<RopeTables>>,
}

/// Where the weights are. They are one with those of the base model that an adapter stands beside ([`Decoder::base`]).
#[derive(Debug, Clone)]
enum Held {
    /// Here.
    Whole(Arc<Parameters>),
    /// Here and in other processes, a shard each.
    Shared(Arc<SharedParameters>),
    /// Here, those of blocks in the host's memory.
    Offloaded(Arc<OffloadedParameters>),
}

/// Rotary tables, by [`crate::config::BlockKind::rope`].
#[derive(Debug)]
pub(crate) struct RopeTables(Vec<RopeTable>);

impl RopeTables {
    /// Of a configuration, covering so many positions.
    fn new(config: &ModelConfig, positions: usize) -> Self {
        let table = |rope: &Rope| {
            let (inverse_frequencies, attention_factor) = rope.inv_freq(config.head_dim);
            RopeTable::new(&inverse_frequencies, attention_factor, positions)
        };
        Self(config.ropes().map(table).collect())
    }

    /// The one that a block uses.
    pub(crate) fn of(&self, block: BlockKind) -> &RopeTable {
        &self.0[block.rope]
    }
}

impl Decoder {
    /// A decoder of given weights.
    pub fn new(config: ModelConfig, parameters: Parameters) -> Self {
        Self::of(config, Held::Whole(Arc::new(parameters)))
    }

    /// A decoder of weights that several processes hold. Each of them computes what it has to; whoever reads weights here
    /// keeps the others waiting at most until they read some themselves.
    pub fn of_shared(config: ModelConfig, weights: SharedParameters) -> Self {
        Self::of(config, Held::Shared(Arc::new(weights)))
    }

    /// A decoder on a GPU, whose blocks wait in the host's memory: for one that is only read. Decoding brings all of them to the GPU
    /// for as long as it lasts.
    pub fn of_offloaded(config: ModelConfig, weights: OffloadedParameters) -> Self {
        Self::of(config, Held::Offloaded(Arc::new(weights)))
    }

    fn of(config: ModelConfig, weights: Held) -> Self {
        let ropes = Mutex::new(Arc::new(RopeTables::new(&config, 0)));
        Self { config, weights, adapter: None, arithmetic: Arithmetic::F32, ropes }
    }

    /// The same weights, frozen, with low-rank terms beside them: training changes these alone.
    #[must_use]
    pub fn with_adapter(self, adapter: Adapter) -> Self {
        assert_eq!(adapter.tensors().len(), 2 * self.config.n_layers * adapter.settings().targets.len());
        Self { adapter: Some(adapter), ..self }
    }

    /// The model without its adapter; the weights are shared, not copied.
    #[must_use]
    pub fn base(&self) -> Self {
        Self { arithmetic: self.arithmetic, ..Self::of(self.config.clone(), self.weights.clone()) }
    }

    /// A decoder of the same shape and settings with other weights, and no adapter.
    #[must_use]
    pub fn with_weights(&self, parameters: Parameters) -> Self {
        Self { arithmetic: self.arithmetic, ..Self::new(self.config.clone(), parameters) }
    }

    /// The same model once more, with weights of its own and no adapter. Shared ones are still to be carried.
    #[must_use]
    pub fn copy(&self) -> Self {
        let weights = match &self.weights {
            Held::Whole(parameters) => Held::Whole(Arc::new(Parameters::clone(parameters))),
            Held::Shared(shared) => Held::Shared(Arc::new(shared.copy())),
            Held::Offloaded(offloaded) => Held::Offloaded(Arc::new(OffloadedParameters::clone(offloaded))),
        };
        Self { arithmetic: self.arithmetic, ..Self::of(self.config.clone(), weights) }
    }

    /// As [`Self::copy`], of weights that are whole on a GPU, with the copy's blocks in the host's memory.
    ///
    /// # Panics
    /// If they are not.
    #[must_use]
    pub fn copy_offloaded(&self) -> Self {
        let weights = OffloadedParameters::of(&self.config, self.parameters());
        Self { arithmetic: self.arithmetic, ..Self::of_offloaded(self.config.clone(), weights) }
    }

    /// weights <- mix * those of `other` + (1 - mix) * weights, of a model of the same shape that is held alike, or whole.
    pub fn mix_in(&mut self, other: &Self, mix: f32) {
        match (&mut self.weights, &other.weights) {
            (Held::Whole(own), Held::Whole(other)) => {
                let own = Arc::make_mut(own).tensors_mut().into_iter();
                own.zip(other.tensors()).for_each(|(own, other)| own.mix_in(other, mix));
            }
            (Held::Shared(own), Held::Shared(other)) => own.mix_in(other, mix),
            (Held::Offloaded(own), Held::Whole(other)) => Arc::make_mut(own).mix_in(other, mix),
            _ => unreachable!("both are held alike, or the other one whole"),
        }
    }

    /// For a model that will only be read from now on: as [`Parameters::freeze`]. Shards stay as they are.
    pub fn freeze(&mut self) {
        match &mut self.weights {
            Held::Whole(own) => Arc::make_mut(own).freeze(),
            Held::Shared(_) => {}
            Held::Offloaded(own) => Arc::make_mut(own).freeze(),
        }
    }

    /// The same model with its matrix products in another number format.
    #[must_use]
    pub fn in_arithmetic(self, arithmetic: Arithmetic) -> Self {
        Self { arithmetic, ..self }
    }

    /// The same model with other tokens that end a text.
    #[must_use]
    pub fn ending_with(mut self, eos_token_ids: Vec<u32>) -> Self {
        self.config.eos_token_ids = eos_token_ids;
        self
    }

    /// Where its weights lie and its passes are computed.
    pub fn device(&self) -> &Device {
        match &self.weights {
            Held::Whole(parameters) => parameters.head_weight().device(),
            Held::Shared(shared) => shared.device(),
            Held::Offloaded(offloaded) => offloaded.ends().head_weight().device(),
        }
    }

    /// The number format of its matrix products.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// The matrix that turns hidden states into logits, vocabulary x hidden.
    pub(crate) fn head_weight(&self) -> Cow<'_, Tensor> {
        match &self.weights {
            Held::Whole(parameters) => Cow::Borrowed(parameters.head_weight()),
            Held::Shared(shared) if self.config.tie_word_embeddings => only(shared.piece(Piece::Embedding)),
            Held::Shared(shared) => only(shared.piece(Piece::Head)),
            Held::Offloaded(offloaded) => Cow::Borrowed(offloaded.ends().head_weight()),
        }
    }

    /// How it is multiplied with.
    pub(crate) fn output_matrix<'a>(&self, weight: &'a Tensor) -> OutputMatrix<'a> {
        OutputMatrix { weight, arithmetic: self.arithmetic }
    }

    /// Norm after the last block, 1 x hidden.
    pub(crate) fn final_norm(&self) -> Cow<'_, Tensor> {
        match &self.weights {
            Held::Whole(parameters) => Cow::Borrowed(&parameters.final_norm),
            Held::Shared(shared) => only(shared.piece(Piece::FinalNorm)),
            Held::Offloaded(offloaded) => Cow::Borrowed(&offloaded.ends().final_norm),
        }
    }

    /// The weights of a block.
    pub(crate) fn block(&self, layer: usize) -> Cow<'_, BlockParameters> {
        match &self.weights {
            Held::Whole(parameters) => Cow::Borrowed(&parameters.blocks[layer]),
            Held::Shared(shared) => Cow::Owned(shared.block(layer)),
            Held::Offloaded(offloaded) => Cow::Owned(offloaded.block(layer)),
        }
    }

    /// Shape and settings.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weights.
    ///
    /// # Panics
    /// When processes share them, or they wait in the host's memory.
    pub fn parameters(&self) -> &Parameters {
        match &self.weights {
            Held::Whole(parameters) => parameters,
            Held::Shared(_) | Held::Offloaded(_) => refuse_parts(),
        }
    }

    /// The weights, to update (a copy of their own, where another decoder shares them).
    ///
    /// # Panics
    /// As [`Self::parameters`].
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        match &mut self.weights {
            Held::Whole(parameters) => Arc::make_mut(parameters),
            Held::Shared(_) | Held::Offloaded(_) => refuse_parts(),
        }
    }

    /// Every weight, in the order of [`crate::config::slots`]; what is not whole here is brought here piece by piece.
    pub fn tensors(&self) -> Box<dyn Iterator<Item = Cow<'_, Tensor>> + '_> {
        match &self.weights {
            Held::Whole(parameters) => Box::new(parameters.tensors().into_iter().map(Cow::Borrowed)),
            Held::Shared(shared) => Box::new(shared.tensors().map(Cow::Owned)),
            Held::Offloaded(offloaded) => Box::new(offloaded.tensors()),
        }
    }

    /// The weights, where processes share them.
    pub fn shared(&self) -> Option<&Arc<SharedParameters>> {
        match &self.weights {
            Held::Whole(_) | Held::Offloaded(_) => None,
            Held::Shared(shared) => Some(shared),
        }
    }

    /// The weights, where those of blocks wait in the host's memory.
    pub fn offloaded(&self) -> Option<&Arc<OffloadedParameters>> {
        match &self.weights {
            Held::Whole(_) | Held::Shared(_) => None,
            Held::Offloaded(offloaded) => Some(offloaded),
        }
    }

    /// Number of parameters.
    pub fn n_parameters(&self) -> usize {
        match &self.weights {
            Held::Whole(parameters) => parameters.len(),
            Held::Shared(shared) => shared.len(),
            Held::Offloaded(offloaded) => offloaded.len(),
        }
    }

    /// The low-rank terms beside the weights.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// The low-rank terms, to update.
    pub fn adapter_mut(&mut self) -> Option<&mut Adapter> {
        self.adapter.as_mut()
    }

    /// A matrix of `block`, which is block `layer`, with the terms beside it.
    pub(crate) fn projection<'a>(
        &'a self,
        layer: usize,
        block: &'a BlockParameters,
        matrix: BlockWeight,
    ) -> Projection<'a> {
        let weight = &block[matrix];
        let terms = self.adapter.as_ref().map(|adapter| adapter.block(layer).terms(matrix));
        Projection { weight, terms: terms.unwrap_or_default(), arithmetic: self.arithmetic }
    }

    /// Heads of every attention layer.
    pub(crate) fn attention_shape(&self) -> AttentionShape {
        let c = &self.config;
        let plain = AttentionShape::full(c.n_heads, c.n_kv_heads, c.head_dim);
        AttentionShape { score_divisor: c.score_divisor as f32, ..plain }
    }

    /// How block `layer` attends.
    pub(crate) fn attention_of(&self, layer: usize) -> AttentionShape {
        let window = match self.config.block(layer).attention {
            AttentionKind::Full => None,
            AttentionKind::Window(tokens) => Some(tokens),
        };
        AttentionShape { window, ..self.attention_shape() }
    }

    /// What a norm multiplies by, by its weight.
    pub(crate) fn norm_scale<'a>(&self, weight: &'a Tensor) -> Cow<'a, Tensor> {
        match self.config.norm_scale {
            NormScale::Weight => Cow::Borrowed(weight),
            NormScale::OnePlusWeight => Cow::Owned(one_plus(weight)),
        }
    }

    /// What goes into the first block: the embeddings of tokens.
    pub(crate) fn embedded(&self, ids: &[u32]) -> Tensor {
        let mut x = match &self.weights {
            Held::Whole(parameters) => embed(ids, &parameters.embedding),
            Held::Shared(shared) => embed(ids, &only(shared.piece(Piece::Embedding))),
            Held::Offloaded(offloaded) => embed(ids, &offloaded.ends().embedding),
        };
        if let Some(factor) = self.config.embedding_scale.factor(self.config.hidden_size) {
            scale(&mut x, factor);
        }
        x
    }

    /// The rotary tables, covering at least `positions` positions.
    pub(crate) fn rope(&self, positions: usize) -> Arc<RopeTables> {
        // Whole whenever a thread could have failed: a new one replaces it at once or not at all.
        let mut tables = self.ropes.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.0[0].positions() < positions {
            *tables = Arc::new(RopeTables::new(&self.config, positions.next_power_of_two().max(256)));
        }
        tables.clone()
    }

    /// Columns of the query, key and (both) rotated heads in a packed query/key/value row.
    pub(crate) fn head_columns(&self) -> [HeadColumns; 3] {
        let c = &self.config;
        let heads = |first: usize, n: usize| HeadColumns {
            first_col: first * c.head_dim,
            n_heads: n,
            head_dim: c.head_dim,
        };
        [heads(0, c.n_heads), heads(c.n_heads, c.n_kv_heads), heads(0, c.n_heads + c.n_kv_heads)]
    }

    /// Applies head norms and rotation to query, key and value rows.
    pub(crate) fn place_heads(
        &self,
        block: &BlockParameters,
        qkv: &mut Tensor,
        positions: &[u32],
        rope: &RopeTable,
    ) {
        let [queries, keys, rotated] = self.head_columns();
        for (heads, norm) in [(queries, BlockWeight::QueryNorm), (keys, BlockWeight::KeyNorm)] {
            if let Some(norm) = block.get(norm) {
                head_norm(qkv, heads, &self.norm_scale(norm), self.config.rms_norm_eps);
            }
        }
        rotate(qkv, rotated, positions, rope, Rotation::Forward);
    }

    /// The rotary tables for the positions of a batch.
    pub(crate) fn rope_for(&self, layout: &Layout) -> Arc<RopeTables> {
        self.rope(layout.positions().iter().max().map_or(0, |p| *p as usize + 1))
    }

    /// Checks sequences that come from outside before they are packed.
    ///
    /// # Errors
    /// As [`Self::token_logprobs`].
    pub fn check_groups(&self, groups: &[ScoringGroup]) -> crate::Result<()> {
        for group in groups {
            for continuation in &group.continuations {
                self.check_ids(group.prefix.iter().copied().chain(continuation.tokens()))?;
                let first = continuation.scored.first().map_or(1, |range| range.start);
                let end = continuation.scored.last().map_or(0, |range| range.end);
                if (group.prefix.is_empty() && first == 0) || end > continuation.n_tokens() {
                    let what = format!("tokens {:?} of {}", continuation.scored, continuation.n_tokens());
                    return Err(crate::Error::Invalid(format!("{what} cannot be scored")));
                }
            }
        }
        Ok(())
    }

    /// Checks that the ids of one sequence are tokens of this model and fit its context.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the token or the lengths.
    pub fn check_ids(&self, ids: impl Iterator<Item = u32>) -> crate::Result<()> {
        self.config.check_ids(ids, self.config.context())
    }
}

#[cold]
fn refuse_parts() -> ! {
    panic!("weights that are not whole here, where an operation needs all of them")
}

/// The tensor of a piece that has one.
fn only<'a>(mut tensors: Vec<Tensor>) -> Cow<'a, Tensor> {
    Cow::Owned(tensors.swap_remove(0))
}
