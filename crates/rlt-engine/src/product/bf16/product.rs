//! How a product is cut into tasks and blocks. The cut changes no bits: an element is a sum over the inner
//! dimension in its order, chunk by chunk.

use std::ops::{Range, RangeInclusive};

use pulp::bytemuck;
use rayon::prelude::*;

use super::block::Block;
use super::kernel::Kernel;
use super::laid_out::LaidOut;
use super::operand::{Left, Pairs};
use super::tile_size::{TILE_ROWS, TILE_WORDS};
use crate::buffer::{self, Buffer};
use crate::device::{Device, not_on_gpus};
use crate::even_parts::EvenParts;
use crate::output::Output;
use crate::parallel::{SharedMut, is_alone};
use crate::sizes::Operation;
use crate::tensor::Tensor;
use crate::tile::{PANEL, prefetch};

/// Rows of a task: so few that with a chunk of the inner dimension they stay in the second-level cache, so many that the right
/// factor is not read too often.
const TASK_ROWS: RangeInclusive<usize> = 64..=256;

/// Tiles of the inner dimension (32 numbers each) that are added up at a time: a panel of them stays in the
/// first-level cache.
const CHUNK_TILES: usize = 8;

/// Work (multiply-adds) below which one thread does everything.
const SERIAL_WORK: usize = 1 << 20;

/// `out (+)= a . b`.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn product(a: &Left, b: &Pairs, out: &mut Tensor, mode: Output) {
    product_by(Kernel::of_this_cpu(), a, b, out, mode);
}

/// As [`product`], by a kernel that this processor has.
pub(super) fn product_by(kernel: Kernel, a: &Left, b: &Pairs, out: &mut Tensor, mode: Output) {
    assert_eq!((a.rows(), b.columns()), (out.rows(), out.cols()), "shape of a product");
    assert_eq!(a.width(), b.width(), "inner dimension of a product");
    let (m, panels) = (a.rows(), b.columns().div_ceil(PANEL));
    if a.width() == 0 {
        if mode == Output::Replace {
            out.fill_zero();
        }
        return;
    }
    let device = out.device().clone();
    // A few tasks for each thread, first by rows: where rows are shared, each task lays them out again.
    let threads = rayon::current_num_threads();
    let (wanted, threads) = if is_alone() { (1, 1) } else { (2 * threads, threads) };
    let by_rows = EvenParts::new(m, wanted, threads, TASK_ROWS, 2 * TILE_ROWS);
    let by_panels = EvenParts::new(panels, wanted.div_ceil(by_rows.count()), 1, 1..=panels.max(1), 1);
    let base = out.shared_mut();
    let task = |index: usize| Task {
        rows: by_rows.part(index / by_panels.count()),
        most_rows: by_rows.most(),
        panels: by_panels.part(index % by_panels.count()),
        a,
        b,
        out: base,
        mode,
        device: &device,
    };
    let run = |index: usize| {
        // SAFETY: the rows and columns of a task are written by it alone.
        kernel.on(|| unsafe { task(index).run(kernel) });
    };
    let tasks = 0..by_rows.count() * by_panels.count();
    let serial = m * b.columns() * a.width() < SERIAL_WORK / 2 || is_alone();
    match &device {
        Device::Cpu if serial => tasks.for_each(run),
        Device::Cpu => tasks.into_par_iter().for_each(run),
        Device::Sizes(sizes) => {
            let (n, depth) = (b.columns(), 2 * a.width());
            let operation = if m < *TASK_ROWS.start() { Operation::FewRows } else { Operation::Product };
            sizes.did(operation, m as f64 * n as f64 * depth as f64, m * depth + n * depth / 2 + m * n);
            let lay_out = |index: usize| buffer::give(task(index).laid_out());
            if serial { tasks.for_each(lay_out) } else { sizes.in_lanes(tasks, lay_out) }
        }
        Device::Cuda(_) => not_on_gpus(),
    }
}

/// Some rows times some panels.
struct Task<'a> {
    rows: Range<usize>,
    /// The most rows of any task of the product.
    most_rows: usize,
    panels: Range<usize>,
    a: &'a Left<'a>,
    b: &'a Pairs,
    out: SharedMut,
    mode: Output,
    device: &'a Device,
}

/// Words of `tiles` tiles.
const fn words_of(tiles: usize) -> usize {
    TILE_ROWS * TILE_WORDS * tiles
}

impl Task<'_> {
    /// Room for a chunk of the left factor. From the pool, whose memory is aligned to whole cache lines.
    fn laid_out(&self) -> Buffer {
        let (tiles, blocks) = (self.a.width() / TILE_WORDS, self.most_rows.div_ceil(TILE_ROWS));
        buffer::take(self.device, blocks * words_of(CHUNK_TILES.min(tiles)))
    }

    /// # Safety
    /// Nothing else may touch these rows and columns of `out`.
    unsafe fn run(&self, kernel: Kernel) {
        let tiles = self.a.width() / TILE_WORDS;
        let blocks = self.rows.len().div_ceil(TILE_ROWS);
        let mut laid_out = self.laid_out();
        for first in (0..tiles).step_by(CHUNK_TILES) {
            let chunk = CHUNK_TILES.min(tiles - first);
            self.a.lay_out(self.rows.clone(), first, chunk, bytemuck::cast_slice_mut(&mut laid_out));
            let left: &[u32] = bytemuck::cast_slice(&laid_out);
            let add = first > 0 || self.mode == Output::Accumulate;
            // Two panels stay in the first-level cache while the rows pass by.
            for pair in self.panels.clone().step_by(2) {
                for block in (0..blocks).step_by(2) {
                    for panel in pair..(pair + 2).min(self.panels.end) {
                        let b = self.b.panel(panel, first);
                        let row = self.rows.start + block * TILE_ROWS;
                        let rows = (2 * TILE_ROWS).min(self.rows.end - row);
                        let lower = (block + 1).min(blocks - 1);
                        let a = [&left[block * words_of(chunk)..], &left[lower * words_of(chunk)..]];
                        let (n, column) = (self.b.columns(), panel * PANEL);
                        let size = (rows, PANEL.min(n - column));
                        // SAFETY: passed on to the caller.
                        unsafe {
                            let to = self.out.get().add(row * n + column);
                            write_block(kernel, a, b, chunk, add, size, to, n);
                        }
                    }
                }
            }
        }
        buffer::give(laid_out);
    }
}

/// A product of two laid-out factors on this thread: `out (+)= left . right`, m x n, `stride` elements between
/// the rows of `out`. The left factor has `tiles` tiles of the inner dimension, the right one at least as many. Call it inside [`Kernel::on`].
///
/// # Safety
/// `out` must be writable and not aliased.
pub(crate) unsafe fn small_product(
    kernel: Kernel,
    left: &[u32],
    tiles: usize,
    right: LaidOut,
    (m, n): (usize, usize),
    out: *mut f32,
    stride: usize,
    mode: Output,
) {
    let (of_block, of_panel) = (words_of(tiles), TILE_WORDS * PANEL * right.tiles);
    debug_assert!(tiles <= right.tiles, "inner dimension of a product");
    let add = mode == Output::Accumulate;
    for (panel, column) in (0..n).step_by(PANEL).enumerate() {
        for row in (0..m).step_by(2 * TILE_ROWS) {
            let block = row / TILE_ROWS;
            let size = ((2 * TILE_ROWS).min(m - row), PANEL.min(n - column));
            let lower = if size.0 > TILE_ROWS { block + 1 } else { block };
            let a = [&left[block * of_block..], &left[lower * of_block..]];
            // SAFETY: passed on to the caller.
            unsafe {
                let to = out.add(row * stride + column);
                write_block(kernel, a, &right.words[panel * of_panel..], tiles, add, size, to, stride);
            }
        }
    }
}

/// One block of a product, rows x columns, at `to`: in place where it is whole.
///
/// # Safety
/// The block must be writable and not aliased.
unsafe fn write_block(
    kernel: Kernel,
    a: [&[u32]; 2],
    b: &[u32],
    tiles: usize,
    add: bool,
    (rows, columns): (usize, usize),
    to: *mut f32,
    stride: usize,
) {
    if columns == PANEL && rows.is_multiple_of(kernel.row_step()) {
        // The output of a large product lies in no cache: asked for now, it has arrived when the sums are done.
        for r in 0..rows {
            // SAFETY: passed on to the caller.
            prefetch::<f32, true>(unsafe { std::slice::from_raw_parts(to.add(r * stride), PANEL) }, 0, PANEL);
        }
        // SAFETY: passed on to the caller.
        unsafe { kernel.block(&Block { a, b, tiles, rows, out: to, stride, add }) };
        return;
    }
    let mut values = [0.0_f32; 2 * TILE_ROWS * PANEL];
    // SAFETY: the row lies inside the block.
    let row = |r: usize| unsafe { std::slice::from_raw_parts_mut(to.add(r * stride), columns) };
    if add {
        for (r, values) in values.chunks_exact_mut(PANEL).take(rows).enumerate() {
            values[..columns].copy_from_slice(row(r));
        }
    }
    let out = values.as_mut_ptr();
    // SAFETY: the block lies inside `values`.
    unsafe { kernel.block(&Block { a, b, tiles, rows, out, stride: PANEL, add }) };
    for (r, values) in values.chunks_exact(PANEL).take(rows).enumerate() {
        row(r).copy_from_slice(&values[..columns]);
    }
}
