//! The forward product of a linear layer, over weights laid out in panels of 32 output features.
//!
//! Each output element is the sum over the input features in their order, so its bits do not depend
//! on the other rows, their number, or the threads: what makes a sequence's result independent of
//! its batch. Decoding, where a handful of rows would spend most of its time rearranging weights,
//! packs them once.

use rayon::prelude::*;

use rlt_cuda::Product;

use crate::arithmetic::Arithmetic;
use crate::bf16::Bf16Panels;
use crate::device::Device;
use crate::output::Output;
use crate::product::bf16::{Left, Pairs, product};
use crate::product::cuda;
use crate::product::f32::{Right, View, multiply};
use crate::tensor::Tensor;
use crate::tile::{PANEL, strip_columns};
use crate::transpose::rows_as_columns;

/// A weight matrix `[out_features, in_features]`, packed by panels of 32 output features.
pub struct PackedWeight {
    rows: usize,
    cols: usize,
    packed: Packed,
}

enum Packed {
    /// For products in f32: whole panels, per strip `cols x` [`strip_columns`]; features beyond the last are zero.
    F32(Tensor),
    /// Also for products in f32, and shared with the weight: read-only weights are kept in panels anyway.
    Bf16(Bf16Panels),
    /// For products in bf16.
    Pairs(Pairs),
    /// On a GPU, as it lies, in the format of products in this arithmetic; shared with a weight that has it.
    Cuda(Arithmetic, Tensor),
}

impl PackedWeight {
    /// Packs a weight of N output and K input features. Read-only bf16 weights are shared, not copied, but on a GPU, which
    /// widens them.
    pub fn new(weight: &Tensor) -> Self {
        let (rows, cols) = (weight.rows(), weight.cols());
        if weight.device().works_as_gpu() {
            return Self { rows, cols, packed: Packed::Cuda(Arithmetic::F32, weight.widened_on_gpu()) };
        }
        if let Some(panels) = weight.bf16_panels() {
            return Self { rows, cols, packed: Packed::Bf16(panels.clone()) };
        }
        let width = strip_columns();
        let mut panels = weight.beside(rows.div_ceil(PANEL), cols * PANEL);
        if let Device::Sizes(sizes) = weight.device() {
            sizes.did_rows(2 * panels.len());
            return Self { rows, cols, packed: Packed::F32(panels) };
        }
        panels.data_mut().par_chunks_mut(cols * PANEL).enumerate().for_each(|(index, panel)| {
            if (index + 1) * PANEL > rows {
                panel.fill(0.0);
            }
            for (strip, out) in panel.chunks_exact_mut((cols * width).max(1)).enumerate() {
                let first = index * PANEL + strip * width;
                let n = width.min(rows.saturating_sub(first));
                rows_as_columns(|c| weight.row(first + c), n, cols, out, width);
            }
        });
        Self { rows, cols, packed: Packed::F32(panels) }
    }

    /// Packs a weight for products in `arithmetic`.
    pub fn for_arithmetic(weight: &Tensor, arithmetic: Arithmetic) -> Self {
        match arithmetic {
            Arithmetic::F32 => Self::new(weight),
            Arithmetic::Bf16 => {
                let packed = match weight.device() {
                    device if device.works_as_gpu() => Packed::Cuda(arithmetic, weight.rounded_on_gpu()),
                    _ => Packed::Pairs(Pairs::of_rows(weight)),
                };
                Self { rows: weight.rows(), cols: weight.cols(), packed }
            }
        }
    }

    /// Number of output features.
    pub fn out_features(&self) -> usize {
        self.rows
    }
}

/// `out[M,N] (+)= x[M,K] . w[N,K]^T`.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_packed(x: &Tensor, w: &PackedWeight, out: &mut Tensor, mode: Output) {
    assert_eq!((x.cols(), out.rows(), out.cols()), (w.cols, x.rows(), w.rows), "matmul_packed shapes");
    match &w.packed {
        Packed::F32(panels) => {
            multiply(out, mode, View::of(x), Right::Panels(panels.numbers()), w.cols);
        }
        Packed::Bf16(panels) => multiply(out, mode, View::of(x), Right::Bf16(panels), w.cols),
        Packed::Pairs(pairs) => product(&Left::of_rows(x), pairs, out, mode),
        Packed::Cuda(arithmetic, weight) => {
            let sizes = [x.rows(), w.rows, w.cols];
            cuda::product(*arithmetic, Product::Forward, sizes, [x, weight], out, mode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::numbers;

    #[test]
    fn a_row_does_not_depend_on_the_number_of_rows() {
        for (n, k) in [(40, 17), (96, 96), (330, 64), (704, 256)] {
            let w = numbers(n, k, 1);
            let packed = PackedWeight::new(&w);
            let x = numbers(29, k, 2);
            let mut all = Tensor::zeros(29, n);
            matmul_packed(&x, &packed, &mut all, Output::Replace);
            for rows in 1..29 {
                let some = x.gather_rows(&(29 - rows..29).collect::<Vec<_>>());
                let mut out = Tensor::full(rows, n, 0.0);
                matmul_packed(&some, &packed, &mut out, Output::Accumulate);
                assert!(out.data() == &all.data()[(29 - rows) * n..], "{rows} rows of {n} x {k}");
            }
        }
    }
}
