//! A chain of operations over some rows at a time.
//!
//! Between the passes of a model that only reads its input nothing has to be kept: where a chain of row-wise
//! operations runs over few rows before the next ones begin, what lies between the operations never leaves the
//! second-level cache of the thread that computes it. Every operation computes a row from that row alone, so the cut
//! changes no bits.

use std::ops::{Range, RangeInclusive};

use rayon::prelude::*;

use crate::device::Device;
use crate::parallel::on_this_thread;
use crate::tensor::Tensor;

/// Rows of a block: more would leave the cache, with fewer weights would be read too often.
const BLOCK_ROWS: RangeInclusive<usize> = 64..=256;

/// Rows that a chain over `rows` rows takes at a time.
pub fn block_rows(rows: usize) -> usize {
    // A few blocks for each thread.
    let even = rows.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(32);
    even.clamp(*BLOCK_ROWS.start(), *BLOCK_ROWS.end())
}

/// The same on `device`: a GPU takes all of them at once.
fn block_rows_on(device: &Device, rows: usize) -> usize {
    if device.works_as_gpu() { rows } else { block_rows(rows) }
}

/// `rows` rows in blocks.
fn blocks_of(rows: usize, block: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(block).map(move |first| first..rows.min(first + block))
}

impl Tensor {
    /// A tensor of as many rows by `cols`, of which `chain(range, rows)` computes some rows from these rows of this one.
    /// It has to compute a row from what belongs to that row alone.
    ///
    /// # Panics
    /// If `chain` returns another shape.
    #[must_use]
    pub fn map_row_blocks(&self, cols: usize, chain: impl Fn(Range<usize>, &Self) -> Self + Sync) -> Self {
        let (rows, block) = (self.rows(), block_rows_on(self.device(), self.rows()));
        let checked = |range: Range<usize>, some: &Self| {
            let out = chain(range.clone(), some);
            assert_eq!((out.rows(), out.cols()), (range.len(), cols), "shape of a chain's result");
            out
        };
        if block >= rows {
            return checked(0..rows, self);
        }
        let mut out = self.beside(rows, cols);
        if let Device::Sizes(sizes) = self.device() {
            sizes.in_lanes(blocks_of(rows, block), |range| {
                on_this_thread(|| drop(checked(range.clone(), &self.copy_of_rows(range))));
            });
            return out;
        }
        out.data_mut().par_chunks_mut(block * cols).enumerate().for_each(|(index, to)| {
            let range = index * block..rows.min((index + 1) * block);
            on_this_thread(|| to.copy_from_slice(checked(range.clone(), &self.copy_of_rows(range)).data()));
        });
        out
    }

    /// Changes some rows at a time: `chain(other_rows, rows)` leaves in `rows` what becomes of them and the same rows
    /// of `other`. Otherwise as [`Self::map_row_blocks`].
    ///
    /// # Panics
    /// If the numbers of rows differ, or `chain` leaves another shape.
    pub fn update_row_blocks(&mut self, other: &Self, chain: impl Fn(&Self, &mut Self) + Sync) {
        let (rows, cols) = (self.rows(), self.cols());
        assert_eq!(other.rows(), rows, "rows of two tensors");
        let block = block_rows_on(self.device(), rows);
        if block >= rows {
            return chain(other, self);
        }
        if let Device::Sizes(sizes) = self.device() {
            return sizes.in_lanes(blocks_of(rows, block), |range| {
                on_this_thread(|| {
                    let mut some = self.beside(range.len(), cols);
                    chain(&other.copy_of_rows(range), &mut some);
                });
            });
        }
        self.data_mut().par_chunks_mut(block * cols).enumerate().for_each(|(index, data)| {
            let range = index * block..rows.min((index + 1) * block);
            on_this_thread(|| {
                let mut some = Self::scratch(range.len(), cols);
                some.data_mut().copy_from_slice(data);
                chain(&other.copy_of_rows(range.clone()), &mut some);
                assert_eq!((some.rows(), some.cols()), (range.len(), cols), "shape of a chain's result");
                data.copy_from_slice(some.data());
            });
        });
    }

    /// A tensor of its own, so that operations take it as they take any other.
    fn copy_of_rows(&self, rows: Range<usize>) -> Self {
        let mut out = self.beside(rows.len(), self.cols());
        if let Device::Sizes(sizes) = self.device() {
            sizes.did_rows(2 * out.len());
            return out;
        }
        out.data_mut().copy_from_slice(&self.data()[rows.start * self.cols()..rows.end * self.cols()]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::numbers;
    use crate::matmul::{Output, matmul_nt};
    use crate::norm::rms_norm;
    use crate::swiglu::swiglu;

    #[test]
    fn blocks_of_rows_change_no_bits() {
        let (gate_up, down) = (numbers(64, 24, 1), numbers(24, 32, 2));
        let weight = Tensor::full(1, 24, 0.5);
        for rows in [1, 64, 65, 300, 1100] {
            let (x, other) = (numbers(rows, 24, 3), numbers(rows, 24, 4));
            let into = |x: &Tensor| {
                let mut out = Tensor::scratch(x.rows(), 64);
                matmul_nt(&rms_norm(x, &weight, 1e-6).0, &gate_up, &mut out, Output::Replace);
                out
            };
            let out_of = |other: &Tensor, x: &mut Tensor| {
                matmul_nt(&swiglu(&into(other)), &down, x, Output::Accumulate);
            };
            let mapped = x.map_row_blocks(64, |range, x| {
                assert!(range.len() == x.rows() && x.rows() <= block_rows(rows));
                into(x)
            });
            assert!(mapped.data() == into(&x).data(), "{rows} rows");
            let (mut whole, mut by_blocks) = (x.clone(), x);
            out_of(&other, &mut whole);
            by_blocks.update_row_blocks(&other, out_of);
            assert!(by_blocks.data() == whole.data(), "{rows} rows");
        }
    }

    #[test]
    #[should_panic(expected = "shape of a chain's result")]
    fn a_chain_that_loses_rows_is_noticed() {
        let _ = numbers(500, 8, 1).map_row_blocks(8, |_, x| numbers(x.rows() - 1, 8, 2));
    }
}
