//! The factors of a product, and the product as its tasks see it.

use crate::bf16::Bf16Panels;
use crate::device::Device;
use crate::output::Output;
use crate::parallel::SharedMut;
use crate::tensor::Tensor;

/// Rows up to which a product waits for its weights: a panel is read once, for all of them.
pub(super) const FEW_ROWS: usize = 64;

/// A matrix in memory: the elements between rows and between columns, one of which is 1.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> View<'a> {
    /// Rows that begin `stride` elements apart, the first of them at the front of `data`.
    pub(crate) fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, row_stride: stride, col_stride: 1 }
    }

    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        Self::rows(tensor.numbers(), tensor.cols())
    }

    pub(crate) fn transposed(self) -> Self {
        Self { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    pub(super) fn lies_in_columns(self) -> bool {
        self.row_stride == 1 && self.col_stride != 1
    }

    /// Elements from `(row, col)` on; none beyond the end.
    pub(super) fn from(self, row: usize, col: usize) -> &'a [f32] {
        self.data.get(row * self.row_stride + col * self.col_stride..).unwrap_or_default()
    }
}

/// A right factor.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// As it lies, row after row.
    Rows(View<'a>),
    /// Strip after strip, depth x [`crate::tile::strip_columns`] each, whole panels of them.
    Panels(&'a [f32]),
    /// As panels, of numbers in bf16.
    Bf16(&'a Bf16Panels),
}

/// A product, and where it goes.
pub(super) struct Product<'a> {
    /// Rows and columns of the output, and the inner dimension.
    pub shape: (usize, usize, usize),
    pub left: View<'a>,
    pub right: Right<'a>,
    /// First element of the output.
    pub out: SharedMut,
    /// Elements between rows of the output.
    pub out_stride: usize,
    pub mode: Output,
    pub device: &'a Device,
}
