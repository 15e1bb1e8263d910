//! Which rows a step works on.

use std::ops::Range;

use rlt_engine::random::RandomStream;

/// Rows in random order, epoch after epoch.
///
/// Rows are drawn by a global position: position `p` is in epoch `p / n_rows`, and each epoch is a
/// permutation of all rows that depends on the seed and the epoch only. So a run can go on from any
/// position, and any part of a step can be computed anywhere.
#[derive(Debug, Clone)]
pub struct EpochOrder {
    stream: RandomStream,
    n_rows: usize,
    epoch: u64,
    permutation: Vec<usize>,
}

impl EpochOrder {
    /// The order of `n_rows` rows (at least 1) under `seed`.
    pub fn new(seed: u64, n_rows: usize) -> Self {
        let stream = RandomStream::new(seed, "row order");
        Self { stream, n_rows, epoch: 0, permutation: stream.permutation([0, 0, 0], n_rows) }
    }

    /// The rows (from 0) at the global `positions`.
    pub fn rows(&mut self, positions: Range<u64>) -> Vec<usize> {
        positions.map(|position| self.row(position)).collect()
    }

    fn row(&mut self, position: u64) -> usize {
        let n_rows = self.n_rows as u64;
        let epoch = position / n_rows;
        if epoch != self.epoch {
            self.epoch = epoch;
            self.permutation = self.stream.permutation([epoch, 0, 0], self.n_rows);
        }
        self.permutation[(position % n_rows) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_every_row_once_in_another_order() {
        let mut order = EpochOrder::new(3, 20);
        let (first, second) = (order.rows(0..20), order.rows(20..40));
        assert_ne!(first, second);
        for mut epoch in [first, second] {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..20).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_position_gives_the_same_row_however_one_gets_there() {
        let all = EpochOrder::new(3, 7).rows(0..30);
        assert_eq!(EpochOrder::new(3, 7).rows(12..30), all[12..]);
        let mut order = EpochOrder::new(3, 7);
        order.rows(20..30);
        assert_eq!(order.rows(0..9), all[..9]);
        assert_ne!(EpochOrder::new(4, 7).rows(0..30), all);
    }
}
