//! The number format in which matrix products are computed.

use crate::matmul::{Output, by_widened, matmul_nn, matmul_nt, matmul_tn};
use crate::narrow::{Left, Pairs, product};
use crate::tensor::Tensor;

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
        match (self, w.bf16_panels()) {
            (Self::F32, _) => matmul_nn(dy, w, out, mode),
            (Self::Bf16, None) => product(&Left::of_rows(dy), &Pairs::of_columns(w), out, mode),
            (Self::Bf16, Some(panels)) => {
                assert_eq!(dy.cols(), w.rows(), "inner dimension of a product");
                by_widened(panels, w, mode, |features, wide, mode| {
                    product(&Left::of_some_columns(dy, features), &Pairs::of_columns(wide), out, mode);
                });
            }
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
