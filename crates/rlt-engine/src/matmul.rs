//! The three matrix products of a linear layer.
//!
//! Weights keep the Hugging Face layout `[out_features, in_features]`. The forward product reads them in panels
//! ([`crate::packed`]); the two gradients read both factors as they lie.
//!
//! Shape legend: M rows (tokens), N output features, K input features.

use std::ops::Range;

use rlt_cuda::Product;

use crate::arithmetic::Arithmetic;
use crate::bf16::Bf16Panels;
use crate::device::Device;
pub use crate::output::Output;
use crate::packed::{PackedWeight, matmul_packed};
use crate::parallel::{add_column_sums, for_row_blocks};
use crate::product::bf16::{Left, Pairs, product};
use crate::product::cuda;
use crate::product::f32::{Right, View, multiply};
use crate::simd;
use crate::tensor::Tensor;

/// `out[M,N] (+)= x[M,K] . w[N,K]^T`: the forward pass of a linear layer.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_nt(x: &Tensor, w: &Tensor, out: &mut Tensor, mode: Output) {
    assert_eq!((x.cols(), out.rows(), out.cols()), (w.cols(), x.rows(), w.rows()), "matmul_nt shapes");
    matmul_packed(x, &PackedWeight::new(w), out, mode);
}

/// `out[M,K] (+)= dy[M,N] . w[N,K]`: the gradient of a linear layer's input. Frozen weights kept in bf16 are
/// widened some rows at a time.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_nn(dy: &Tensor, w: &Tensor, out: &mut Tensor, mode: Output) {
    assert_eq!((dy.cols(), out.rows(), out.cols()), (w.rows(), dy.rows(), w.cols()), "matmul_nn shapes");
    if dy.device().works_as_gpu() {
        return Arithmetic::F32.nn(dy, w, out, mode);
    }
    match w.bf16_panels() {
        Some(panels) => by_widened(panels, w, mode, |features, wide, mode| {
            let left = View::rows(dy.numbers().get(features.start..).unwrap_or_default(), dy.cols());
            multiply(out, mode, left, Right::Rows(View::of(wide)), features.len());
        }),
        None => multiply(out, mode, View::of(dy), Right::Rows(View::of(w)), dy.cols()),
    }
}

/// Output features of frozen weights that are widened at a time: whole chunks of a product in bf16, too.
const WIDENED_FEATURES: usize = 1024;

/// A product over the output features of weights `w` kept in bf16, in parts: `multiply(features, wide, mode)` gets
/// these features' weights widened (features x in_features).
fn by_widened(
    panels: &Bf16Panels,
    w: &Tensor,
    mut mode: Output,
    mut multiply: impl FnMut(Range<usize>, &Tensor, Output),
) {
    for first in (0..w.rows()).step_by(WIDENED_FEATURES) {
        let features = first..w.rows().min(first + WIDENED_FEATURES);
        let mut wide = w.beside(features.len(), w.cols());
        match w.device() {
            Device::Cpu => panels.widen(features.clone(), wide.data_mut()),
            Device::Sizes(sizes) => sizes.did_rows(wide.len() * 3 / 2),
            Device::Cuda(_) => unreachable!("a GPU has no weights in panels"),
        }
        multiply(features, &wide, mode);
        mode = Output::Accumulate;
    }
}

/// `out[N,K] (+)= dy[M,N]^T . x[M,K]`: the gradient of a linear layer's weight.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_tn(dy: &Tensor, x: &Tensor, out: &mut Tensor, mode: Output) {
    assert_eq!((dy.rows(), out.rows(), out.cols()), (x.rows(), dy.cols(), x.cols()), "matmul_tn shapes");
    if dy.device().works_as_gpu() {
        return Arithmetic::F32.tn(dy, x, out, mode);
    }
    multiply(out, mode, View::of(dy).transposed(), Right::Rows(View::of(x)), x.rows());
}

/// The three products of a linear layer: shapes, modes and panics as the functions above.
impl Arithmetic {
    /// `out[M,N] (+)= x[M,K] . w[N,K]^T`.
    pub fn nt(self, x: &Tensor, w: &Tensor, out: &mut Tensor, mode: Output) {
        if x.gpu().is_some() {
            return matmul_packed(x, &PackedWeight::for_arithmetic(w, self), out, mode);
        }
        match self {
            Self::F32 => matmul_nt(x, w, out, mode),
            Self::Bf16 => product(&Left::of_rows(x), &Pairs::of_rows(w), out, mode),
        }
    }

    /// `out[M,K] (+)= dy[M,N] . w[N,K]`.
    pub fn nn(self, dy: &Tensor, w: &Tensor, out: &mut Tensor, mode: Output) {
        if dy.device().works_as_gpu() {
            let sizes = [dy.rows(), dy.cols(), w.cols()];
            return cuda::product(self, Product::InputGradient, sizes, [dy, w], out, mode);
        }
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
        if dy.device().works_as_gpu() {
            let sizes = [dy.rows(), dy.cols(), x.cols()];
            return cuda::product(self, Product::WeightGradient, sizes, [dy, x], out, mode);
        }
        match self {
            Self::F32 => matmul_tn(dy, x, out, mode),
            Self::Bf16 => product(&Left::of_columns(dy), &Pairs::of_columns(x), out, mode),
        }
    }
}

/// Adds `bias` (1 x N) to every row of `y` (M x N).
pub fn add_bias(y: &mut Tensor, bias: &Tensor) {
    let cols = y.cols();
    assert_eq!(cols, bias.len(), "bias length");
    if let Device::Sizes(sizes) = y.device() {
        return sizes.did_rows(2 * y.len());
    }
    if let Some(gpu) = y.gpu() {
        return gpu.add_bias(y.memory_mut(), bias.memory());
    }
    for_row_blocks(y.data_mut(), cols, |_, rows| {
        simd::vectorized(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(cols) {
                    for (y, b) in row.iter_mut().zip(bias.data()) {
                        *y += b;
                    }
                }
            },
        );
    });
}

/// Adds the column sums of `dy` (M x N) to `grad` (1 x N): the backward pass of [`add_bias`].
pub fn add_bias_backward(dy: &Tensor, grad: &mut Tensor) {
    assert_eq!(dy.cols(), grad.len(), "bias gradient length");
    if let Device::Sizes(sizes) = dy.device() {
        return sizes.did_rows(dy.len());
    }
    if let Some(gpu) = dy.gpu() {
        return gpu.add_column_sums(grad.memory_mut(), dy.memory());
    }
    add_column_sums(dy.rows(), grad.data_mut(), |rows, partial| {
        simd::vectorized(
            #[inline(always)]
            || {
                for row in rows {
                    for (p, v) in partial.iter_mut().zip(dy.row(row)) {
                        *p += v;
                    }
                }
            },
        );
    });
}
