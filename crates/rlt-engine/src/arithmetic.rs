//! The number format in which matrix products are computed.

use crate::matmul::{Output, matmul_nn, matmul_nt, matmul_tn};
use crate::narrow::{Left, Pairs, product};
use crate::tensor::Tensor;
use crate::tile::PANEL;

/// What the factors of a matrix product are rounded to before they are multiplied. Everything else (sums, norms,
/// softmax, the residual stream, gradients, weights between updates) is f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arithmetic {
    /// Nothing is rounded.
    #[default]
    F32,
    /// 8 significant bits: what mixed-precision training means, by the processor's own instructions where it has
    /// any (AMX, AVX-512 BF16). Results depend on the kind of processor.
    Bf16,
}

/// The three products of a linear layer: shapes, modes and panics as the functions of [`crate::matmul`].
impl Arithmetic {
    /// `out[M,N] (+)= x[M,K] . w[N,K]^T`.
    pub fn nt(self, x: &Tensor, w: &Tensor, out: &mut Tensor, mode: Output) {
        match self {
            Self::F32 => matmul_nt(x, w, out, mode),
            Self::Bf16 => product(&Left::of_rows(x), &Pairs::of_rows(w), out, mode),
        }
    }

    /// `out[M,K] (+)= dy[M,N] . w[N,K]`.
    pub fn nn(self, dy: &Tensor, w: &Tensor, out: &mut Tensor, mode: Output) {
        match self {
            Self::F32 => matmul_nn(dy, w, out, mode),
            Self::Bf16 if w.is_bf16() => by_frozen(dy, w, out, mode),
            Self::Bf16 => product(&Left::of_rows(dy), &Pairs::of_columns(w), out, mode),
        }
    }

    /// `out[N,K] (+)= dy[M,N]^T . x[M,K]`.
    pub fn tn(self, dy: &Tensor, x: &Tensor, out: &mut Tensor, mode: Output) {
        match self {
            Self::F32 => matmul_tn(dy, x, out, mode),
            Self::Bf16 => product(&Left::of_columns(dy), &Pairs::of_columns(x), out, mode),
        }
    }
}

/// Output features that are laid out anew at a time: as many as a product adds up in whole chunks.
const FROZEN_FEATURES: usize = 1024;

/// [`Arithmetic::nn`] by weights that are kept in bf16, whose panels lie across the inner dimension here.
fn by_frozen(dy: &Tensor, w: &Tensor, out: &mut Tensor, mut mode: Output) {
    assert_eq!(dy.cols(), w.rows(), "inner dimension of a product");
    let panels = w.bf16_panels().expect("weights kept in bf16");
    for first in (0..w.rows()).step_by(FROZEN_FEATURES) {
        let features = first..w.rows().min(first + FROZEN_FEATURES);
        let some = first / PANEL..features.end.div_ceil(PANEL);
        let mut wide = Tensor::scratch(w.cols(), some.len() * PANEL);
        panels.widen_transposed(some, wide.data_mut());
        // What a last panel has beyond the last feature is zero on both sides.
        product(&Left::of_some_columns(dy, features), &Pairs::of_rows(&wide), out, mode);
        mode = Output::Accumulate;
    }
}
