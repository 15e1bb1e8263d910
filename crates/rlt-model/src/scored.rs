//! Hidden states before scored tokens: log-probabilities and divergences of the same forward pass.

use std::borrow::Cow;
use std::ops::Range;

use rlt_engine::Tensor;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::head::{self, Distributions, OutputMatrix};
use rlt_engine::tensor::GatheredRows;

use crate::batch::{PackedBatch, ScoringGroup, micro_batches};
use crate::decoder::Decoder;
use crate::stop::Stop;

/// What a model knew before each of some scored tokens, as hidden states: n x hidden, where the distributions
/// themselves would be n x vocabulary.
pub struct ScoredStates<'a> {
    hidden: Tensor,
    targets: Vec<u32>,
    w: Cow<'a, Tensor>,
    arithmetic: Arithmetic,
}

impl<'a> ScoredStates<'a> {
    /// States (n x hidden) before the n `targets`, and the output matrix (vocabulary x hidden).
    ///
    /// # Panics
    /// When there is not one state a target.
    pub fn new(hidden: Tensor, targets: Vec<u32>, w: Cow<'a, Tensor>) -> Self {
        assert_eq!(hidden.rows(), targets.len(), "one state for each target");
        Self { hidden, targets, w, arithmetic: Arithmetic::F32 }
    }

    fn output_matrix(&self) -> OutputMatrix<'_> {
        OutputMatrix { weight: &self.w, arithmetic: self.arithmetic }
    }

    /// How many scored tokens there are.
    pub fn n(&self) -> usize {
        self.targets.len()
    }

    /// How many tokens the model knows: the rows of its output matrix.
    pub fn vocabulary(&self) -> usize {
        self.output_matrix().vocabulary()
    }

    /// What the model would have said before the scored tokens `rows`.
    pub(crate) fn distributions<'s>(&'s self, rows: &'s [usize], temperature: f32) -> Distributions<'s> {
        Distributions { hidden: &self.hidden, rows, w: self.output_matrix(), temperature }
    }

    /// Log-probability (nats) of every scored token at `temperature`, in order.
    pub fn logprobs(&self, temperature: f32) -> Vec<f32> {
        let all: Vec<usize> = (0..self.targets.len()).collect();
        let w = self.output_matrix();
        rayon::scope(|_| head::token_logprobs(&self.hidden, &all, w, &self.targets, temperature))
    }

    /// KL(self || other) over the whole vocabulary, nats, before the scored tokens `rows` of this model and
    /// `other_rows` of the other, pair by pair; each at its own temperature.
    ///
    /// # Panics
    /// When the numbers of rows or the vocabularies differ.
    pub fn divergence(
        &self,
        rows: &[Range<usize>],
        temperature: f32,
        other: &ScoredStates,
        other_rows: &[Range<usize>],
        other_temperature: f32,
    ) -> Vec<f32> {
        let [rows, other_rows] =
            [rows, other_rows].map(|rows| rows.iter().cloned().flatten().collect::<Vec<_>>());
        let (p, q) =
            (self.distributions(&rows, temperature), other.distributions(&other_rows, other_temperature));
        rayon::scope(|_| head::full_divergence(p, q))
    }
}

impl Decoder {
    /// The states before the scored tokens of `groups`: group by group, continuation by continuation. About
    /// `max_rows` rows are computed at a time, unless it is asked to stop between two parts.
    ///
    /// # Errors
    /// As [`Decoder::token_logprobs_unless`].
    pub fn scored_states(
        &self,
        stop: Stop,
        groups: &[ScoringGroup],
        max_rows: usize,
    ) -> crate::Result<ScoredStates<'_>> {
        self.check_groups(groups)?;
        let mut states = GatheredRows::new(self.device(), self.config().hidden_size);
        let mut targets = Vec::new();
        for part in micro_batches(groups, max_rows) {
            stop.check()?;
            let batch = PackedBatch::new(&part);
            let hidden = rayon::scope(|_| self.hidden_states(&batch));
            states.add(&hidden.gather_rows(&batch.rows));
            targets.extend(batch.targets);
        }
        let hidden = states.into_tensor();
        let w = self.head_weight();
        Ok(ScoredStates { arithmetic: self.arithmetic(), ..ScoredStates::new(hidden, targets, w) })
    }
}
