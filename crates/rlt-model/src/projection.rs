//! A matrix of a block together with the low-rank terms beside it.

use rlt_engine::Tensor;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::low_rank::{LowRank, PackedLowRank, low_rank_gradients, low_rank_input_gradient};
use rlt_engine::matmul::Output;
use rlt_engine::packed::{PackedWeight, matmul_packed};

/// `x -> x W^T + sum of terms`.
#[derive(Clone, Copy)]
pub(crate) struct Projection<'a> {
    pub weight: &'a Tensor,
    pub terms: &'a [LowRank],
    /// Number format of the products with the weight. The terms are small; theirs are f32.
    pub arithmetic: Arithmetic,
}

/// Gradient of one matrix, or of the terms beside it.
pub(crate) enum MatrixGradient<'a> {
    Weight(&'a mut Tensor),
    Terms(&'a mut [LowRank]),
}

/// A [`Projection`] packed for forward products.
pub(crate) struct PackedProjection {
    weight: PackedWeight,
    terms: Vec<PackedLowRank>,
}

impl PackedProjection {
    pub(crate) fn new(projection: Projection) -> Self {
        Self {
            weight: PackedWeight::for_arithmetic(projection.weight, projection.arithmetic),
            terms: projection.terms.iter().map(PackedLowRank::new).collect(),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let mut y = x.beside(x.rows(), self.weight.out_features());
        self.replace(x, &mut y);
        y
    }

    /// As [`Self::forward`], written to `y`.
    pub(crate) fn replace(&self, x: &Tensor, y: &mut Tensor) {
        self.product(x, y, Output::Replace);
    }

    /// As [`Self::forward`], added to `y`.
    pub(crate) fn add(&self, x: &Tensor, y: &mut Tensor) {
        self.product(x, y, Output::Accumulate);
    }

    fn product(&self, x: &Tensor, y: &mut Tensor, mode: Output) {
        matmul_packed(x, &self.weight, y, mode);
        for term in &self.terms {
            term.add(x, y);
        }
    }
}

impl Projection<'_> {
    /// Backward pass: adds the gradient of the weight or of the terms, returns the input's.
    pub(crate) fn backward(self, dy: &Tensor, x: &Tensor, gradient: MatrixGradient) -> Tensor {
        let (dx, through) = self.input_gradient(dy);
        self.add_gradients(dy, x, through, gradient);
        dx
    }

    /// The gradient of the input, which need not be known, and what [`Self::add_gradients`] needs of it.
    pub(crate) fn input_gradient(self, dy: &Tensor) -> (Tensor, ThroughTerms) {
        let mut dx = dy.beside(dy.rows(), self.weight.cols());
        self.arithmetic.nn(dy, self.weight, &mut dx, Output::Replace);
        let through = self.terms.iter().map(|term| low_rank_input_gradient(term, dy, &mut dx)).collect();
        (dx, ThroughTerms(through))
    }

    /// Adds the gradient of the weight or of the terms.
    pub(crate) fn add_gradients(
        self,
        dy: &Tensor,
        x: &Tensor,
        through: ThroughTerms,
        gradient: MatrixGradient,
    ) {
        match gradient {
            MatrixGradient::Weight(weight) => self.arithmetic.tn(dy, x, weight, Output::Accumulate),
            MatrixGradient::Terms(gradients) => {
                for ((term, du), gradient) in self.terms.iter().zip(through.0).zip(gradients) {
                    low_rank_gradients(term, dy, x, &du, gradient);
                }
            }
        }
    }
}

/// Gradients inside the low-rank terms, of rows x rank each.
pub(crate) struct ThroughTerms(Vec<Tensor>);
