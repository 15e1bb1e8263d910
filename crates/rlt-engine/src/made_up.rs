//! Numbers for tests.

use crate::tensor::Tensor;

/// Between -1 and 1, without a pattern that a layout would share.
pub(crate) fn numbers(rows: usize, cols: usize, salt: usize) -> Tensor {
    let value = |i: usize| ((i * 7919 + salt * 104_729) % 2003) as f32 / 1000.0 - 1.0;
    Tensor::from_vec(rows, cols, (0..rows * cols).map(value).collect())
}

pub(crate) fn transposed(x: &Tensor) -> Tensor {
    let value = |i: usize| x.row(i % x.rows())[i / x.rows()];
    Tensor::from_vec(x.cols(), x.rows(), (0..x.len()).map(value).collect())
}
