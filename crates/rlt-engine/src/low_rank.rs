//! Low-rank terms beside frozen matrices (LoRA, arXiv 2106.09685): `y = x W^T + s (x A^T) B^T`.
//!
//! A matrix that is stacked from several projections has one term for each of them, which adds to that
//! projection's columns of the output.
//!
//! Shape legend: M rows (tokens), K input features, N output features of the term, R its rank.

use crate::device::Device;
use crate::matmul::{Output, matmul_nn, matmul_nt, matmul_tn};
use crate::packed::{PackedWeight, matmul_packed};
use crate::parallel::for_row_blocks;
use crate::simd;
use crate::tensor::Tensor;

/// One low-rank term, or the gradient of one.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[R, K]`.
    pub a: Tensor,
    /// `[N, R]`.
    pub b: Tensor,
    /// What the product is multiplied by (alpha / R).
    pub scale: f32,
    /// The column of the output at which the term's N columns begin.
    pub first_column: usize,
}

/// A term packed for its forward product.
pub struct PackedLowRank {
    a: PackedWeight,
    b: PackedWeight,
    scale: f32,
    first_column: usize,
}

fn product(x: &Tensor, w: &PackedWeight) -> Tensor {
    let mut y = x.beside(x.rows(), w.out_features());
    matmul_packed(x, w, &mut y, Output::Replace);
    y
}

impl PackedLowRank {
    /// Packs a term.
    pub fn new(term: &LowRank) -> Self {
        let (a, b) = (PackedWeight::new(&term.a), PackedWeight::new(&term.b));
        Self { a, b, scale: term.scale, first_column: term.first_column }
    }

    /// Adds `s (x A^T) B^T` to the term's columns of `y`, for `x` of M x K. A row's bits depend on that row
    /// alone.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn add(&self, x: &Tensor, y: &mut Tensor) {
        assert_eq!(x.rows(), y.rows(), "rows of a low-rank term");
        let term = product(&product(x, &self.a), &self.b);
        add_columns(y, self.first_column, &term, self.scale);
    }
}

/// `y[:, first..] += scale * term`, in the columns of `term`.
fn add_columns(y: &mut Tensor, first: usize, term: &Tensor, scale: f32) {
    let (cols, n) = (y.cols(), term.cols());
    assert!(first + n <= cols, "columns {first}..{} of {cols}", first + n);
    if let Device::Sizes(sizes) = y.device() {
        return sizes.did_rows(3 * term.len());
    }
    if let Some(gpu) = y.gpu() {
        return gpu.add_columns(y.memory_mut(), cols, first, term.memory(), n, scale);
    }
    for_row_blocks(y.data_mut(), cols, |first_row, rows| {
        simd::vectorized(
            #[inline(always)]
            || {
                for (i, row) in rows.chunks_exact_mut(cols).enumerate() {
                    add_scaled(&mut row[first..first + n], term.row(first_row + i), scale);
                }
            },
        );
    });
}

/// `y += scale * x`, for [`simd::vectorized`] code: outside of it, each element would be a call of a function.
#[inline(always)]
fn add_scaled(y: &mut [f32], x: &[f32], scale: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = x.mul_add(scale, *y);
    }
}

/// `scale * y[:, first..first + n]`.
fn scaled_columns(y: &Tensor, first: usize, n: usize, scale: f32) -> Tensor {
    assert!(first + n <= y.cols(), "columns {first}..{} of {}", first + n, y.cols());
    if let Some(gpu) = y.gpu() {
        let columns = gpu.scaled_columns(y.memory(), y.cols(), first, n, scale);
        return Tensor::of_memory(columns, y.rows(), n);
    }
    let mut out = y.beside(y.rows(), n);
    if let Device::Sizes(sizes) = y.device() {
        sizes.did_rows(2 * out.len());
        return out;
    }
    for_row_blocks(out.data_mut(), n, |first_row, rows| {
        for (i, row) in rows.chunks_exact_mut(n).enumerate() {
            for (out, y) in row.iter_mut().zip(&y.row(first_row + i)[first..first + n]) {
                *out = scale * y;
            }
        }
    });
    out
}

/// First half of the backward pass of [`PackedLowRank::add`]: from the gradient `dy` of its output (M x all columns)
/// adds the input's to `dx` (M x K). Returns the gradient of `x A^T` (M x R) for [`low_rank_gradients`].
///
/// With `d = s dy` in the term's columns: `dx = (d B) A`.
///
/// # Panics
/// If the shapes do not fit.
#[must_use]
pub fn low_rank_input_gradient(term: &LowRank, dy: &Tensor, dx: &mut Tensor) -> Tensor {
    let d = scaled_columns(dy, term.first_column, term.b.rows(), term.scale);
    let mut du = dy.beside(dy.rows(), term.a.rows());
    matmul_nn(&d, &term.b, &mut du, Output::Replace);
    matmul_nn(&du, &term.a, dx, Output::Accumulate);
    du
}

/// Second half: adds the gradients of A and B to those of `grad`, given the input `x` (M x K) and what the first half
/// returned.
///
/// With `u = x A^T` and `d = s dy` in the term's columns: `dB = d^T u`, `dA = (d B)^T x`.
///
/// # Panics
/// If the shapes do not fit.
pub fn low_rank_gradients(term: &LowRank, dy: &Tensor, x: &Tensor, du: &Tensor, grad: &mut LowRank) {
    let mut u = x.beside(x.rows(), term.a.rows());
    matmul_nt(x, &term.a, &mut u, Output::Replace);
    let d = scaled_columns(dy, term.first_column, term.b.rows(), term.scale);
    matmul_tn(&d, &u, &mut grad.b, Output::Accumulate);
    matmul_tn(du, x, &mut grad.a, Output::Accumulate);
}

/// `W + s B A` in f32: a matrix with its terms merged into it.
///
/// # Panics
/// If the shapes do not fit.
pub fn merged(w: &Tensor, terms: &[LowRank]) -> Tensor {
    let cols = w.cols();
    if let Some(gpu) = w.gpu() {
        return merged_on_gpu(&gpu, w, terms);
    }
    let mut out = w.beside(w.rows(), cols);
    match w.device() {
        Device::Cuda(_) => unreachable!("merged above"),
        Device::Cpu => for_row_blocks(out.data_mut(), cols, |first, rows| {
            for (i, row) in rows.chunks_exact_mut(cols).enumerate() {
                w.copy_row(first + i, row);
            }
        }),
        Device::Sizes(sizes) => sizes.did_rows(2 * out.len()),
    }
    for term in terms {
        let n = term.b.rows();
        let mut product = w.beside(n, cols);
        matmul_nn(&term.b, &term.a, &mut product, Output::Replace);
        if let Device::Sizes(sizes) = w.device() {
            sizes.did_rows(3 * product.len());
            continue;
        }
        let rows = &mut out.data_mut()[term.first_column * cols..(term.first_column + n) * cols];
        for_row_blocks(rows, cols, |first, rows| {
            let product = &product.data()[first * cols..][..rows.len()];
            simd::vectorized(
                #[inline(always)]
                || add_scaled(rows, product, term.scale),
            );
        });
    }
    out
}

/// As [`merged`], on a GPU.
fn merged_on_gpu(gpu: &rlt_cuda::Gpu, w: &Tensor, terms: &[LowRank]) -> Tensor {
    let mut out = w.widened_on_gpu();
    for term in terms {
        let (n, cols) = (term.b.rows(), w.cols());
        let mut product = w.beside(n, cols);
        matmul_nn(&term.b, &term.a, &mut product, Output::Replace);
        let rows: Vec<u32> = (term.first_column..term.first_column + n).map(|row| row as u32).collect();
        gpu.scale(product.memory_mut(), term.scale);
        gpu.scatter_add_rows(out.memory_mut(), cols, &rows, product.memory());
    }
    out
}
