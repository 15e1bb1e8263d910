//! Numbers that are still to be rounded.

use std::ops::Range;

use crate::tensor::Tensor;

/// A matrix of f32 inside a larger one.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    /// Elements between its rows.
    stride: usize,
    rows: usize,
    cols: usize,
}

impl<'a> From<&'a Tensor> for View<'a> {
    fn from(x: &'a Tensor) -> Self {
        let (rows, cols) = (x.rows(), x.cols());
        if !x.device().has_numbers() {
            return Self { data: &[], stride: cols, rows, cols };
        }
        Self::new(x.data(), cols, rows, cols)
    }
}

impl<'a> View<'a> {
    /// `rows x cols` elements, the first of `data` its first, rows `stride` apart.
    ///
    /// # Panics
    /// If `data` is too short.
    pub(crate) fn new(data: &'a [f32], stride: usize, rows: usize, cols: usize) -> Self {
        assert!(cols <= stride || rows <= 1, "rows of a view do not overlap");
        assert!(rows == 0 || data.len() >= (rows - 1) * stride + cols, "elements of a view");
        Self { data, stride, rows, cols }
    }

    /// Some columns.
    pub(super) fn columns(self, columns: Range<usize>) -> Self {
        assert!(columns.end <= self.cols, "columns of a view");
        let data = self.data.get(columns.start..).unwrap_or_default();
        Self { data, cols: columns.len(), ..self }
    }

    pub(super) fn rows(self) -> usize {
        self.rows
    }

    pub(super) fn cols(self) -> usize {
        self.cols
    }

    /// Elements between its rows.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn stride(self) -> usize {
        self.stride
    }

    #[inline(always)]
    pub(super) fn row(self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.cols]
    }
}
