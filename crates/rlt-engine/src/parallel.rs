//! Splitting row-wise work over threads.

use std::cell::Cell;

use rayon::prelude::*;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with every operation inside it on this thread alone: for callers that hand rows to threads themselves.
pub(crate) fn on_this_thread<R>(work: impl FnOnce() -> R) -> R {
    /// Also when `work` panics.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _before = Before(ALONE.replace(true));
    work()
}

/// Whether this runs inside [`on_this_thread`].
pub(crate) fn is_alone() -> bool {
    ALONE.get()
}

/// Below this many elements a parallel region costs more than it saves.
const SERIAL_ELEMENTS: usize = 16 * 1024;

/// Rows handed to a thread at a time: about this many elements.
const GRAIN_ELEMENTS: usize = 8 * 1024;

/// Runs `work(first_row, rows)` over consecutive blocks of whole rows of `out`.
///
/// The block size never changes a result: every row is computed on its own.
pub(crate) fn for_row_blocks<W>(out: &mut [f32], cols: usize, work: W)
where
    W: Fn(usize, &mut [f32]) + Sync,
{
    if cols == 0 || out.is_empty() {
        return;
    }
    if out.len() <= SERIAL_ELEMENTS || is_alone() {
        return work(0, out);
    }
    let rows = (GRAIN_ELEMENTS / cols).max(1);
    out.par_chunks_mut(rows * cols).enumerate().for_each(|(block, chunk)| work(block * rows, chunk));
}

/// Like [`for_row_blocks`], with a second output that has one row (of `cols2`) per row of the first.
pub(crate) fn for_row_blocks2<W>(out: &mut [f32], cols: usize, out2: &mut [f32], cols2: usize, work: W)
where
    W: Fn(usize, &mut [f32], &mut [f32]) + Sync,
{
    if cols == 0 || out.is_empty() {
        return;
    }
    if out.len() <= SERIAL_ELEMENTS || is_alone() {
        return work(0, out, out2);
    }
    let rows = (GRAIN_ELEMENTS / cols).max(1);
    out.par_chunks_mut(rows * cols)
        .zip(out2.par_chunks_mut(rows * cols2))
        .enumerate()
        .for_each(|(block, (a, b))| work(block * rows, a, b));
}

/// Rows summed in one block of a column sum; fixed, so that sums do not depend on the thread count.
const SUM_BLOCK_ROWS: usize = 128;

/// Adds to `total` (length `cols`) the sum over rows that `add(rows, partial)` computes block by
/// block; blocks are added up in order.
pub(crate) fn add_column_sums<W>(rows: usize, total: &mut [f32], add: W)
where
    W: Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
{
    let blocks = rows.div_ceil(SUM_BLOCK_ROWS);
    let blocks = (0..blocks).into_par_iter();
    add_block_sums(blocks, total, |block, partial| {
        add(block * SUM_BLOCK_ROWS..((block + 1) * SUM_BLOCK_ROWS).min(rows), partial);
    });
}

/// As [`add_column_sums`] of a work that also changes rows of `out`, as many columns wide as `total`:
/// `update(first_row, rows, partial)`.
pub(crate) fn update_rows_adding_column_sums<W>(out: &mut [f32], total: &mut [f32], update: W)
where
    W: Fn(usize, &mut [f32], &mut [f32]) + Sync,
{
    let blocks = out.par_chunks_mut((SUM_BLOCK_ROWS * total.len()).max(1)).enumerate();
    add_block_sums(blocks, total, |(block, rows), partial| update(block * SUM_BLOCK_ROWS, rows, partial));
}

/// Adds up in order what `add(block, partial)` computes of each block.
fn add_block_sums<B: Send>(
    blocks: impl IndexedParallelIterator<Item = B>,
    total: &mut [f32],
    add: impl Fn(B, &mut [f32]) + Sync,
) {
    let columns = total.len();
    let partial = |block| {
        let mut partial = vec![0.0; columns];
        add(block, &mut partial);
        partial
    };
    let partials: Vec<Vec<f32>> = blocks.map(partial).collect();
    for partial in &partials {
        for (t, p) in total.iter_mut().zip(partial) {
            *t += p;
        }
    }
}

/// A pointer that several tasks may write through, each to its own elements.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut(pub *mut f32);

// SAFETY: whoever uses the pointer must write disjoint elements; each use says why they are.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    /// The pointer; a method, so that closures capture the wrapper and not the raw field.
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}
