//! Rows that are picked by number (`kernels/rows.cu`).

use crate::gpu::Gpu;
use crate::launch::{Threads, of, size};
use crate::memory::Memory;

impl Gpu {
    /// Rows `picked` of `table`, whose rows are of `cols`.
    ///
    /// # Panics
    /// If one is not there.
    pub fn gather_rows(&self, table: &Memory, cols: usize, picked: &[u32]) -> Memory {
        let out = self.take(picked.len() * cols);
        check(table.len(), cols, picked);
        let numbers = self.upload(picked);
        let arguments =
            vec![of(&out, out.len()), of(table, table.len()), of(&numbers, picked.len()), size(cols)];
        self.launch("gather_rows", Threads::a_block_each(picked.len()), arguments);
        out
    }

    /// Adds row `i` of `x` to row `rows[i]` of `sums`, in order; rows are of `cols`.
    ///
    /// # Panics
    /// If one is not there.
    pub fn scatter_add_rows(&self, sums: &mut Memory, cols: usize, rows: &[u32], x: &Memory) {
        check(sums.len(), cols, rows);
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        order.sort_by_key(|&i| rows[i as usize]);
        let (mut targets, mut starts) = (Vec::new(), Vec::new());
        for (at, &i) in order.iter().enumerate() {
            let row = rows[i as usize];
            if targets.last() != Some(&row) {
                targets.push(row);
                starts.push(at as u32);
            }
        }
        starts.push(rows.len() as u32);
        let [on_targets, on_starts, on_order] = [&targets, &starts, &order].map(|list| self.upload(list));
        let arguments = vec![
            of(sums, sums.len()),
            of(x, rows.len() * cols),
            of(&on_targets, targets.len()),
            of(&on_starts, starts.len()),
            of(&on_order, rows.len()),
            size(cols),
        ];
        self.launch("add_runs_of_rows", Threads::a_block_each(targets.len()), arguments);
    }
}

/// Whether `rows` are there in a table of `numbers`.
pub(crate) fn check(numbers: usize, cols: usize, rows: &[u32]) {
    let there = numbers / cols.max(1);
    let missing = rows.iter().find(|&&row| row as usize >= there);
    assert!(missing.is_none(), "row {missing:?} of {there}");
}
