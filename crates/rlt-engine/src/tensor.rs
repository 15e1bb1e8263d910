//! A contiguous, row-major f32 matrix.

use std::borrow::Cow;
use std::fmt;

use crate::buffer;

/// A contiguous row-major matrix of f32, `rows x cols`. A vector is a matrix of one row.
///
/// The storage is private to this crate: other crates hand whole tensors to operations and copy
/// whole tensors in and out, so a tensor may come to live on another device.
pub struct Tensor {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl Tensor {
    /// All zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        let mut out = Self::scratch(rows, cols);
        out.fill_zero();
        out
    }

    /// Unspecified contents, for an operation that writes every element.
    pub fn scratch(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: buffer::take(rows * cols) }
    }

    /// All equal to `value`.
    pub fn full(rows: usize, cols: usize, value: f32) -> Self {
        let mut out = Self::scratch(rows, cols);
        out.data.fill(value);
        out
    }

    /// Copies host values in.
    ///
    /// # Panics
    /// If `data` does not hold `rows * cols` values.
    pub fn from_vec(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), rows * cols, "{rows} x {cols} tensor from {} values", data.len());
        Self { rows, cols, data }
    }

    /// The values as the host sees them, row by row.
    pub fn to_host(&self) -> Cow<'_, [f32]> {
        Cow::Borrowed(&self.data)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Sets every element to zero.
    pub fn fill_zero(&mut self) {
        self.data.fill(0.0);
    }

    /// `self = mix * other + (1 - mix) * self`, element by element (reference synchronisation).
    pub fn mix_in(&mut self, other: &Self, mix: f32) {
        assert_eq!((self.rows, self.cols), (other.rows, other.cols), "shapes of a mixture");
        for (a, b) in self.data.iter_mut().zip(&other.data) {
            *a = mix * b + (1.0 - mix) * *a;
        }
    }

    /// A copy of the rows named, in that order (a row may be named more than once).
    #[must_use]
    pub fn gather_rows(&self, rows: &[usize]) -> Self {
        let mut out = Self::scratch(rows.len(), self.cols);
        for (to, &from) in out.data.chunks_exact_mut(self.cols).zip(rows) {
            to.copy_from_slice(&self.data[from * self.cols..(from + 1) * self.cols]);
        }
        out
    }

    /// Adds row `i` of `source` to row `rows[i]`, in order.
    pub fn scatter_add_rows(&mut self, rows: &[usize], source: &Self) {
        for (from, &to) in source.data.chunks_exact(self.cols).zip(rows) {
            for (a, b) in self.data[to * self.cols..(to + 1) * self.cols].iter_mut().zip(from) {
                *a += b;
            }
        }
    }

    /// Whether every element is finite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|v| v.is_finite())
    }

    pub(crate) fn data(&self) -> &[f32] {
        &self.data
    }

    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }
}

impl Clone for Tensor {
    fn clone(&self) -> Self {
        let mut out = Self::scratch(self.rows, self.cols);
        out.data.copy_from_slice(&self.data);
        out
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        buffer::give(std::mem::take(&mut self.data));
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} x {})", self.rows, self.cols)
    }
}

/// Returns recycled tensor memory to the operating system.
pub fn release_memory() {
    buffer::release_all();
}
