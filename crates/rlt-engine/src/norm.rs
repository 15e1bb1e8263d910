//! RMS normalisation: `y = x / sqrt(mean(x^2) + eps) * weight`, over whole rows or over heads.

use crate::device::Device;
use crate::parallel::{add_column_sums, for_row_blocks, for_row_blocks2, update_rows_adding_column_sums};
use crate::simd;
use crate::tensor::Tensor;

/// 1 / root mean square of one vector.
#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (simd::dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// Input gradient of one normalised vector, with `g = dy * weight`:
/// `dx = r * (g - x * r^2 * mean(g * x))`, where r is the inverse root mean square.
#[inline(always)]
fn backward_vector(dx: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], r: f32) {
    for ((d, g), w) in dx.iter_mut().zip(dy).zip(weight) {
        *d = g * w;
    }
    let mean = simd::dot(dx, x) / x.len() as f32;
    let c = r * r * r * mean;
    for (d, x) in dx.iter_mut().zip(x) {
        *d = d.mul_add(r, -c * x);
    }
}

/// Normalises every row of `x` (M x D) by `weight` (1 x D).
///
/// Returns the output (M x D) and the inverse root mean squares (M x 1) for the backward pass.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> (Tensor, Tensor) {
    let d = x.cols();
    if let Some(gpu) = x.gpu() {
        let (y, inverse) = gpu.rms_norm(x.memory(), weight.memory(), eps);
        return (Tensor::of_memory(y, x.rows(), d), Tensor::of_memory(inverse, x.rows(), 1));
    }
    let mut y = x.beside(x.rows(), d);
    let mut inverse = x.beside(x.rows(), 1);
    if let Device::Sizes(sizes) = x.device() {
        sizes.did_rows(2 * x.len());
        return (y, inverse);
    }
    for_row_blocks2(y.data_mut(), d, inverse.data_mut(), 1, |first, y, inverse| {
        simd::vectorized(
            #[inline(always)]
            || {
                for (i, (y, r)) in y.chunks_exact_mut(d).zip(inverse).enumerate() {
                    let x = x.row(first + i);
                    *r = inverse_rms(x, eps);
                    for ((y, x), w) in y.iter_mut().zip(x).zip(weight.data()) {
                        *y = x * *r * w;
                    }
                }
            },
        );
    });
    (y, inverse)
}

/// The output of [`rms_norm`] again, from the saved inverse root mean squares.
pub fn rms_norm_again(x: &Tensor, weight: &Tensor, inverse: &Tensor) -> Tensor {
    let d = x.cols();
    if let Some(gpu) = x.gpu() {
        let y = gpu.rms_norm_again(x.memory(), weight.memory(), inverse.memory());
        return Tensor::of_memory(y, x.rows(), d);
    }
    let mut y = x.beside(x.rows(), d);
    if let Device::Sizes(sizes) = x.device() {
        sizes.did_rows(2 * x.len());
        return y;
    }
    for_row_blocks(y.data_mut(), d, |first, y| {
        simd::vectorized(
            #[inline(always)]
            || {
                for (i, y) in y.chunks_exact_mut(d).enumerate() {
                    let r = inverse.data()[first + i];
                    for ((y, x), w) in y.iter_mut().zip(x.row(first + i)).zip(weight.data()) {
                        *y = x * r * w;
                    }
                }
            },
        );
    });
    y
}

/// Adds the rows of `y` (M x D), normalised by `weight` (1 x D), to those of `x`. Returns the inverse root mean squares
/// of `y` (M x 1) for the backward pass, which is [`rms_norm`]'s.
pub fn add_rms_norm(x: &mut Tensor, y: &Tensor, weight: &Tensor, eps: f32) -> Tensor {
    let d = y.cols();
    if let Some(gpu) = y.gpu() {
        let inverse = gpu.add_rms_norm(x.memory_mut(), y.memory(), weight.memory(), eps);
        return Tensor::of_memory(inverse, y.rows(), 1);
    }
    let mut inverse = y.beside(y.rows(), 1);
    if let Device::Sizes(sizes) = y.device() {
        sizes.did_rows(3 * y.len());
        return inverse;
    }
    for_row_blocks2(x.data_mut(), d, inverse.data_mut(), 1, |first, x, inverse| {
        simd::vectorized(
            #[inline(always)]
            || {
                for (i, (x, r)) in x.chunks_exact_mut(d).zip(inverse).enumerate() {
                    let y = y.row(first + i);
                    *r = inverse_rms(y, eps);
                    for ((x, y), w) in x.iter_mut().zip(y).zip(weight.data()) {
                        *x += y * *r * w;
                    }
                }
            },
        );
    });
    inverse
}

/// What a norm multiplies by whose weight (1 x D) says how far that is from one.
pub fn one_plus(weight: &Tensor) -> Tensor {
    if let Some(gpu) = weight.gpu() {
        return Tensor::of_memory(gpu.one_plus(weight.memory()), 1, weight.cols());
    }
    let mut out = weight.beside(1, weight.cols());
    if weight.device().has_numbers() {
        out.data_mut().iter_mut().zip(weight.data()).for_each(|(out, w)| *out = 1.0 + w);
    }
    out
}

/// Backward pass of [`rms_norm`]: adds the input gradient to `dx` (M x D) and, where it is wanted, the
/// weight's to `dweight` (1 x D).
pub fn rms_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    inverse: &Tensor,
    dx: &mut Tensor,
    dweight: Option<&mut Tensor>,
) {
    let d = x.cols();
    if let Device::Sizes(sizes) = x.device() {
        return sizes.did_rows(4 * x.len());
    }
    if let Some(gpu) = x.gpu() {
        let (dy, x, weight, inverse) = (dy.memory(), x.memory(), weight.memory(), inverse.memory());
        let dweight = dweight.map(Tensor::memory_mut);
        return gpu.rms_norm_backward(dy, x, weight, inverse, dx.memory_mut(), dweight);
    }
    let rows = |first: usize, dx: &mut [f32], mut dweight: Option<&mut [f32]>| {
        simd::vectorized(
            #[inline(always)]
            || {
                let mut own = vec![0.0; d];
                for (i, dx) in dx.chunks_exact_mut(d).enumerate() {
                    let row = first + i;
                    let (dy, x, r) = (dy.row(row), x.row(row), inverse.data()[row]);
                    backward_vector(&mut own, dy, x, weight.data(), r);
                    for (dx, own) in dx.iter_mut().zip(&own) {
                        *dx += own;
                    }
                    let Some(dweight) = &mut dweight else { continue };
                    for ((p, dy), x) in dweight.iter_mut().zip(dy).zip(x) {
                        *p += dy * x * r;
                    }
                }
            },
        );
    };
    match dweight {
        // While a row is at hand.
        Some(dweight) => {
            update_rows_adding_column_sums(dx.data_mut(), dweight.data_mut(), |first, dx, sums| {
                rows(first, dx, Some(sums));
            });
        }
        None => for_row_blocks(dx.data_mut(), d, |first, dx| rows(first, dx, None)),
    }
}

/// A run of heads inside the rows of a packed query/key/value matrix.
#[derive(Debug, Clone, Copy)]
pub struct HeadColumns {
    /// First column of the first head.
    pub first_col: usize,
    /// Number of heads, side by side.
    pub n_heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
}

impl HeadColumns {
    fn len(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// The same in rows of `stride` numbers on a GPU.
    pub(crate) fn on_gpu(&self, stride: usize) -> rlt_cuda::Heads {
        rlt_cuda::Heads { stride, first: self.first_col, n: self.n_heads, width: self.head_dim }
    }
}

/// Normalises each head of `heads` in place (Qwen3's query and key norms), by `weight`
/// (1 x head_dim).
pub fn head_norm(x: &mut Tensor, heads: HeadColumns, weight: &Tensor, eps: f32) {
    let cols = x.cols();
    if let Device::Sizes(sizes) = x.device() {
        return sizes.did_rows(2 * x.rows() * heads.len());
    }
    if let Some(gpu) = x.gpu() {
        return gpu.head_norm(x.memory_mut(), heads.on_gpu(cols), weight.memory(), eps);
    }
    for_row_blocks(x.data_mut(), cols, |_, rows| {
        simd::vectorized(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(cols) {
                    let row = &mut row[heads.first_col..heads.first_col + heads.len()];
                    for head in row.chunks_exact_mut(heads.head_dim) {
                        let r = inverse_rms(head, eps);
                        for (x, w) in head.iter_mut().zip(weight.data()) {
                            *x = *x * r * w;
                        }
                    }
                }
            },
        );
    });
}

/// Backward pass of [`head_norm`]: `dx` holds the gradient of the output in the heads' columns and
/// receives the gradient of the input there; `x` is the input before the norm. The weight's gradient is
/// added to `dweight` where it is wanted.
pub fn head_norm_backward(
    dx: &mut Tensor,
    x: &Tensor,
    heads: HeadColumns,
    weight: &Tensor,
    eps: f32,
    dweight: Option<&mut Tensor>,
) {
    if let Device::Sizes(sizes) = x.device() {
        return sizes.did_rows(3 * x.rows() * heads.len());
    }
    if let Some(gpu) = x.gpu() {
        let (heads, dweight) = (heads.on_gpu(x.cols()), dweight.map(Tensor::memory_mut));
        return gpu.head_norm_backward(dx.memory_mut(), x.memory(), heads, weight.memory(), eps, dweight);
    }
    let span = heads.first_col..heads.first_col + heads.len();
    if let Some(dweight) = dweight {
        let dx = &*dx;
        add_column_sums(x.rows(), dweight.data_mut(), |rows, partial| {
            for row in rows {
                let (dy, x) = (&dx.row(row)[span.clone()], &x.row(row)[span.clone()]);
                for (dy, x) in dy.chunks_exact(heads.head_dim).zip(x.chunks_exact(heads.head_dim)) {
                    let r = inverse_rms(x, eps);
                    for ((p, dy), x) in partial.iter_mut().zip(dy).zip(x) {
                        *p += dy * x * r;
                    }
                }
            }
        });
    }
    let cols = dx.cols();
    for_row_blocks(dx.data_mut(), cols, |first, rows| {
        simd::vectorized(
            #[inline(always)]
            || {
                let mut own = vec![0.0; heads.head_dim];
                for (i, row) in rows.chunks_exact_mut(cols).enumerate() {
                    let x = &x.row(first + i)[span.clone()];
                    let dy = &mut row[span.clone()];
                    for (dy, x) in dy.chunks_exact_mut(heads.head_dim).zip(x.chunks_exact(heads.head_dim)) {
                        backward_vector(&mut own, dy, x, weight.data(), inverse_rms(x, eps));
                        dy.copy_from_slice(&own);
                    }
                }
            },
        );
    });
}
