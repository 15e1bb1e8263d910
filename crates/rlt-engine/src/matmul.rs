//! The three matrix products of a linear layer.
//!
//! Weights keep the Hugging Face layout `[out_features, in_features]`. The forward product is ours
//! ([`crate::packed`]), because a row's bits must not depend on its batch; the two gradients use the
//! `gemm` crate on one thread a block, the blocks' shape depending on the matrix only, so that the
//! bits do not depend on the number of threads.
//!
//! Shape legend: M rows (tokens), N output features, K input features.

use std::ops::Range;

use rayon::prelude::*;

use crate::bf16::Bf16Panels;
use crate::packed::{PackedWeight, matmul_packed};
use crate::parallel::{SharedMut, add_column_sums, for_row_blocks};
use crate::simd;
use crate::tensor::Tensor;
use crate::tile::PANEL;

/// Whether a product replaces what the output holds or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Overwrite.
    Replace,
    /// Add to the present contents.
    Accumulate,
}

/// Operands of [`gemm`]: a pointer and the strides between rows and between columns (elements).
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub data: *const f32,
    pub row_stride: isize,
    pub col_stride: isize,
}

// SAFETY: a view is only read; whoever makes one keeps the data alive for the call.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    fn of(tensor: &Tensor) -> Self {
        Self { data: tensor.data().as_ptr(), row_stride: tensor.cols() as isize, col_stride: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn offset(self, rows: usize, cols: usize) -> Self {
        let step = rows as isize * self.row_stride + cols as isize * self.col_stride;
        Self { data: self.data.wrapping_offset(step), ..self }
    }
}

/// One single-threaded product `out (+)= scale * lhs (m x k) . rhs (k x n)`, any strides.
///
/// # Safety
/// The pointers and strides must describe live memory, `out` writable and not aliased.
pub(crate) unsafe fn gemm(
    (m, n, k): (usize, usize, usize),
    out: *mut f32,
    out_row_stride: isize,
    mode: Output,
    lhs: View,
    rhs: View,
    scale: f32,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            out_row_stride,
            mode == Output::Accumulate,
            lhs.data,
            lhs.col_stride,
            lhs.row_stride,
            rhs.data,
            rhs.col_stride,
            rhs.row_stride,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Work (multiply-adds) below which one thread does everything.
const SERIAL_WORK: usize = 1 << 17;

/// Rows and columns of the blocks of an m x n output: a function of the shape only, never of the
/// number of threads, because the kernels may choose another summation order for another block.
fn block_shape(m: usize, n: usize, k: usize) -> (usize, usize) {
    if m * n * k <= SERIAL_WORK {
        (m, n)
    } else if m >= 2048 {
        (m.div_ceil(4).min(1024).next_multiple_of(48), n)
    } else if m >= n {
        (m.div_ceil(4).next_multiple_of(48), n)
    } else {
        (m, n.div_ceil(4).next_multiple_of(64))
    }
}

/// Cuts `out` (m x n) into blocks, one task each, and multiplies.
fn blocked(out: &mut Tensor, mode: Output, lhs: View, rhs: View, k: usize) {
    let (m, n) = (out.rows(), out.cols());
    if m == 0 || n == 0 {
        return;
    }
    let (block_m, block_n) = block_shape(m, n, k);
    let row_stride = n as isize;
    let base = SharedMut(out.data_mut().as_mut_ptr());
    let (blocks_m, blocks_n) = (m.div_ceil(block_m), n.div_ceil(block_n));
    let task = |index: usize| {
        let (i, j) = (index / blocks_n * block_m, index % blocks_n * block_n);
        let (rows, cols) = (block_m.min(m - i), block_n.min(n - j));
        // SAFETY: blocks do not overlap and lie inside `out`; operands were checked by the caller.
        unsafe {
            let at = base.get().add(i * n + j);
            gemm((rows, cols, k), at, row_stride, mode, lhs.offset(i, 0), rhs.offset(0, j), 1.0);
        }
    };
    if blocks_m * blocks_n == 1 {
        task(0);
    } else {
        (0..blocks_m * blocks_n).into_par_iter().for_each(task);
    }
}

/// `out[M,N] (+)= x[M,K] . w[N,K]^T`: the forward pass of a linear layer.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_nt(x: &Tensor, w: &Tensor, out: &mut Tensor, mode: Output) {
    assert_eq!((x.cols(), out.rows(), out.cols()), (w.cols(), x.rows(), w.rows()), "matmul_nt shapes");
    matmul_packed(x, &PackedWeight::new(w), out, mode);
}

/// `out[M,K] (+)= dy[M,N] . w[N,K]`: the gradient of a linear layer's input. Frozen weights kept in bf16 are
/// widened some panels at a time.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_nn(dy: &Tensor, w: &Tensor, out: &mut Tensor, mode: Output) {
    assert_eq!((dy.cols(), out.rows(), out.cols()), (w.rows(), dy.rows(), w.cols()), "matmul_nn shapes");
    match w.bf16_panels() {
        Some(panels) => by_widened(panels, w, mode, |features, wide, mode| {
            let (dy, inner) = (View::of(dy).offset(0, features.start), features.len());
            blocked(out, mode, dy, View::of(wide).transposed(), inner);
        }),
        None => blocked(out, mode, View::of(dy), View::of(w), dy.cols()),
    }
}

/// Output features of frozen weights that are widened at a time: whole chunks of a product in bf16, too.
const WIDENED_FEATURES: usize = 1024;

/// A product over the output features of weights `w` kept in bf16, in parts: `multiply(features, wide, mode)` gets
/// these features' weights widened and transposed (in_features x whole panels, zero beyond the last feature).
pub(crate) fn by_widened(
    panels: &Bf16Panels,
    w: &Tensor,
    mut mode: Output,
    mut multiply: impl FnMut(Range<usize>, &Tensor, Output),
) {
    for first in (0..w.rows()).step_by(WIDENED_FEATURES) {
        let features = first..w.rows().min(first + WIDENED_FEATURES);
        let some = first / PANEL..features.end.div_ceil(PANEL);
        let mut wide = Tensor::scratch(w.cols(), some.len() * PANEL);
        panels.widen_transposed(some, wide.data_mut());
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
    blocked(out, mode, View::of(dy).transposed(), View::of(x), x.rows());
}

/// Adds `bias` (1 x N) to every row of `y` (M x N).
pub fn add_bias(y: &mut Tensor, bias: &Tensor) {
    let cols = y.cols();
    assert_eq!(cols, bias.len(), "bias length");
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
    add_column_sums(dy.rows(), grad.data_mut(), |rows, partial| {
        for row in rows {
            for (p, v) in partial.iter_mut().zip(dy.row(row)) {
                *p += v;
            }
        }
    });
}
