//! Rows cut into parts of nearly the same size.

use std::ops::{Range, RangeInclusive};

/// Rows in parts that differ by one step at most: threads that take as many of them as each other end together. (Parts of one size
/// and a smaller last one would leave one thread waiting for another's whole part.)
#[derive(Debug, Clone, Copy)]
pub(crate) struct EvenParts {
    rows: usize,
    step: usize,
    count: usize,
}

impl EvenParts {
    /// As many parts as `wanted`, where none exceeds the most of `limits`; else as few as that allows, in a multiple of `threads`. Fewer
    /// where they would fall below the least. Each begins at a multiple of `step`, of which both limits are multiples.
    pub(crate) fn new(
        rows: usize,
        wanted: usize,
        threads: usize,
        limits: RangeInclusive<usize>,
        step: usize,
    ) -> Self {
        debug_assert!(limits.start().is_multiple_of(step) && limits.end().is_multiple_of(step), "{limits:?}");
        let parts = wanted.max(threads * rows.div_ceil(threads * limits.end()));
        Self { rows, step, count: parts.min(rows / limits.start()).max(1) }
    }

    pub(crate) fn count(self) -> usize {
        self.count
    }

    /// The rows of part `index`.
    pub(crate) fn part(self, index: usize) -> Range<usize> {
        let begin =
            |index: usize| self.rows.min(self.rows.div_ceil(self.step) * index / self.count * self.step);
        begin(index)..begin(index + 1)
    }

    /// The most rows that a part can have: what a task takes for its part, it takes for that many, so that the next task finds it of its size.
    pub(crate) fn most(self) -> usize {
        self.rows.min(self.rows.div_ceil(self.step).div_ceil(self.count) * self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_rows_and_differ_by_a_step_at_most() {
        let sizes = |rows, wanted, threads, limits, step| -> Vec<usize> {
            let parts = EvenParts::new(rows, wanted, threads, limits, step);
            let mut next = 0;
            let lens = (0..parts.count()).map(|index| {
                let part = parts.part(index);
                assert_eq!(part.start, next);
                next = part.end;
                part.len()
            });
            let lens: Vec<usize> = lens.collect();
            let largest = *lens.iter().max().unwrap();
            assert_eq!(next, rows);
            assert!((largest..largest + step).contains(&parts.most()), "{largest} rows, {}", parts.most());
            lens
        };
        assert_eq!(sizes(1024, 4, 2, 48..=240, 4), [168, 172, 172, 168, 172, 172]);
        assert_eq!(sizes(256, 4, 2, 48..=240, 12), [60, 72, 60, 64]);
        assert_eq!(sizes(100, 16, 8, 48..=240, 12), [48, 52]);
        assert_eq!(sizes(9, 2, 1, 4..=8, 1), [4, 5]);
        assert_eq!(sizes(7, 2, 1, 4..=8, 1), [7]);
        assert_eq!(sizes(0, 4, 2, 48..=240, 12), [0]);
        for rows in 1..3000 {
            for threads in [1, 2, 3, 16] {
                let lens = sizes(rows, 2 * threads, threads, 48..=240, 12);
                let (least, most) = (*lens.iter().min().unwrap(), *lens.iter().max().unwrap());
                assert!(most <= 240 && most - least < 24, "{rows} rows for {threads}: {lens:?}");
                assert!(least >= 37 || lens.len() == 1, "{rows} rows for {threads}: {lens:?}");
            }
        }
    }
}
