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

impl Tensor {
    /// A tensor of as many rows by `cols`, of which `chain(range, rows, out)` computes some rows from these rows of this one.
    /// It has to compute a row from what belongs to that row alone.
    ///
    /// # Panics
    /// If a chain puts another tensor in the place of its rows.
    #[must_use]
    pub fn map_row_blocks(
        &mut self,
        cols: usize,
        chain: impl Fn(Range<usize>, &Self, &mut Self) + Sync,
    ) -> Self {
        let mut out = self.beside(self.rows(), cols);
        self.in_row_blocks(&mut out, |range, rows, out| chain(range, rows, out));
        out
    }

    /// Changes some rows at a time: `chain(other_rows, rows)` leaves in `rows` what becomes of them and the same rows
    /// of `other`. Otherwise as [`Self::map_row_blocks`].
    ///
    /// # Panics
    /// If the numbers of rows differ, and as there.
    pub fn update_row_blocks(&mut self, other: &mut Self, chain: impl Fn(&Self, &mut Self) + Sync) {
        assert_eq!(other.rows(), self.rows(), "rows of two tensors");
        other.in_row_blocks(self, |_, other, rows| chain(other, rows));
    }

    /// `chain(range, rows, out)` for the same rows of this tensor and of `out`, some at a time, where they lie.
    fn in_row_blocks(&mut self, out: &mut Self, chain: impl Fn(Range<usize>, &Self, &mut Self) + Sync) {
        let (rows, block) = (self.rows(), block_rows_on(self.device(), self.rows()));
        if block >= rows {
            return chain(0..rows, self, out);
        }
        let sizes = match self.device() {
            Device::Sizes(sizes) => Some(sizes.clone()),
            Device::Cpu | Device::Cuda(_) => None,
        };
        let (from_whole, from) = std::mem::take(self).into_row_blocks(block);
        let (to_whole, mut to) = std::mem::take(out).into_row_blocks(block);
        let on_some = |(index, to): (usize, &mut Self)| {
            let range = index * block..rows.min((index + 1) * block);
            on_this_thread(|| chain(range, &from[index], to));
        };
        match sizes {
            Some(sizes) => sizes.in_lanes(to.iter_mut().enumerate(), on_some),
            None => to.par_iter_mut().enumerate().for_each(on_some),
        }
        *self = Self::joined(from_whole, from);
        *out = Self::joined(to_whole, to);
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
            let (mut x, mut other) = (numbers(rows, 24, 3), numbers(rows, 24, 4));
            let into = |x: &Tensor, out: &mut Tensor| {
                matmul_nt(&rms_norm(x, &weight, 1e-6).0, &gate_up, out, Output::Replace);
            };
            let out_of = |other: &Tensor, x: &mut Tensor| {
                let mut rows = Tensor::scratch(other.rows(), 64);
                into(other, &mut rows);
                matmul_nt(&swiglu(&rows), &down, x, Output::Accumulate);
            };
            let mapped = x.map_row_blocks(64, |range, x, out| {
                assert!(range.len() == x.rows() && x.rows() <= block_rows(rows));
                into(x, out);
            });
            let mut at_once = Tensor::scratch(rows, 64);
            into(&x, &mut at_once);
            assert!(mapped.data() == at_once.data(), "{rows} rows");
            let (mut whole, mut by_blocks) = (x.clone(), x);
            out_of(&other, &mut whole);
            by_blocks.update_row_blocks(&mut other, out_of);
            assert!(by_blocks.data() == whole.data(), "{rows} rows");
        }
    }

    #[test]
    #[should_panic(expected = "another buffer in the place of a part")]
    fn a_chain_that_takes_rows_away_is_noticed() {
        let _ = numbers(500, 8, 1).map_row_blocks(8, |_, x, out| *out = x.clone());
    }
}
