//! A matrix of a block together with the low-rank terms beside it.

use rlt_engine::Tensor;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::low_rank::{LowRank, PackedLowRank, low_rank_backward};
use rlt_engine::matmul::Output;
use rlt_engine::packed::{PackedWeight, matmul_packed};

use crate::gradients::MatrixGradient;

/// `x -> x W^T + sum of terms`.
#[derive(Clone, Copy)]
pub(crate) struct Projection<'a> {
    pub weight: &'a Tensor,
    pub terms: &'a [LowRank],
    /// Number format of the products with the weight. The terms are small; theirs are f32.
    pub arithmetic: Arithmetic,
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
        let mut y = Tensor::scratch(x.rows(), self.weight.out_features());
        self.product(x, &mut y, Output::Replace);
        y
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
        let terms = match gradient {
            MatrixGradient::Weight(weight) => {
                self.arithmetic.tn(dy, x, weight, Output::Accumulate);
                &mut []
            }
            MatrixGradient::Terms(terms) => terms,
        };
        let mut dx = Tensor::scratch(x.rows(), x.cols());
        self.arithmetic.nn(dy, self.weight, &mut dx, Output::Replace);
        for (term, gradient) in self.terms.iter().zip(terms) {
            low_rank_backward(term, dy, x, gradient, &mut dx);
        }
        dx
    }
}
