//! How a product is cut into tasks, which changes no element.

use std::ops::{Range, RangeInclusive};

use rayon::prelude::*;

use super::factors::{FEW_ROWS, Product, Right, View};
use super::part::{Part, RESIDENT_COLUMNS, Untouched};
use super::strips::in_strips;
use crate::device::{Device, not_on_gpus};
use crate::even_parts::EvenParts;
use crate::output::Output;
use crate::parallel::{SharedMut, is_alone};
use crate::simd::Vectors;
use crate::sizes::{Operation, Sizes};
use crate::tensor::Tensor;
use crate::tile::{MAX_ROWS, PANEL, Tiled, strip_columns};

/// Writes or adds a whole product to `out`, in parallel where it is worth it.
pub(crate) fn multiply(out: &mut Tensor, mode: Output, left: View, right: Right, depth: usize) {
    let (m, n) = (out.rows(), out.cols());
    let panels = n.div_ceil(PANEL);
    let device = out.device().clone();
    let serial = m * n * depth < SERIAL_WORK || is_alone();
    let strips_stay = strip_columns() <= RESIDENT_COLUMNS;
    let strips = match right {
        Right::Rows(rows) if !serial && m >= LAID_OUT_ROWS && strips_stay => {
            Some(in_strips(&device, rows, depth, n))
        }
        _ => None,
    };
    let right = strips.as_ref().map_or(right, |strips| Right::Panels(strips.numbers()));
    let product = Product::new((m, n, depth), left, right, out.shared_mut(), n, mode, &device);
    if serial {
        return match &device {
            // SAFETY: the whole output is ours.
            Device::Cpu => unsafe { product.compute_all() },
            Device::Sizes(sizes) => {
                count(sizes, (m, n, depth));
                product.scratch(0..m, 0..panels, m);
            }
            Device::Cuda(_) => not_on_gpus(),
        };
    }
    // How it is cut into tasks changes no element.
    let threads = rayon::current_num_threads();
    let wanted = TASKS_PER_THREAD * threads;
    let by_rows = if m <= FEW_ROWS {
        EvenParts::new(m, 1, 1, MAX_ROWS..=FEW_ROWS.next_multiple_of(MAX_ROWS), MAX_ROWS)
    } else if strips_stay && n >= WIDE * m && panels >= TASK_PANELS * wanted {
        EvenParts::new(m, 1, 1, TASK_ROWS, MAX_ROWS)
    } else {
        EvenParts::new(m, wanted, threads, TASK_ROWS, MAX_ROWS)
    };
    let limits = TASK_PANELS..=panels.next_multiple_of(TASK_PANELS);
    let by_panels = EvenParts::new(panels, wanted.div_ceil(by_rows.count()), 1, limits, 1);
    let tasks = by_rows.count() * by_panels.count();
    let task =
        |index: usize| (by_rows.part(index / by_panels.count()), by_panels.part(index % by_panels.count()));
    match &device {
        Device::Cpu => (0..tasks).into_par_iter().map(task).for_each(|(rows, panels)| {
            // SAFETY: the rows and columns of a task are written by it alone.
            unsafe { product.compute(rows, panels, by_rows.most()) };
        }),
        Device::Sizes(sizes) => {
            count(sizes, (m, n, depth));
            sizes.in_lanes((0..tasks).map(task), |(rows, panels)| {
                product.scratch(rows, panels, by_rows.most());
            });
        }
        Device::Cuda(_) => not_on_gpus(),
    }
}

/// Counts a product without computing it.
fn count(sizes: &Sizes, (m, n, depth): (usize, usize, usize)) {
    let operation = if m <= FEW_ROWS { Operation::FewRows } else { Operation::Product };
    sizes.did(operation, m as f64 * n as f64 * depth as f64, m * depth + n * depth + m * n);
}

/// Multiply-adds below which one thread does everything.
const SERIAL_WORK: usize = 1 << 16;

/// Tasks of a product: enough of them for threads that are not equally fast.
const TASKS_PER_THREAD: usize = 2;

/// Rows of a task: so few that they stay in the second-level cache, so many that the right factor is worth fetching.
const TASK_ROWS: RangeInclusive<usize> = 48..=240;

/// Panels of a task, at least.
const TASK_PANELS: usize = 4;

/// Columns a row from which on the right factor is so much the larger one that tasks share its columns first, where strips
/// stay in the first-level cache and there are columns enough for all of them.
const WIDE: usize = 4;

/// Rows from which on it pays to lay out a right factor that lies in rows once, for all tasks. (Strips that pass by are read as
/// they lie.)
const LAID_OUT_ROWS: usize = 480;

impl<'a> Product<'a> {
    /// `out` points to the first of m rows of n columns, `out_stride` apart; `shape` is (m, n, inner dimension).
    pub(super) fn new(
        shape: (usize, usize, usize),
        left: View<'a>,
        right: Right<'a>,
        out: SharedMut,
        out_stride: usize,
        mode: Output,
        device: &'a Device,
    ) -> Self {
        Self { shape, left, right, out, out_stride, mode, device }
    }

    /// Computes everything, on this thread.
    ///
    /// # Safety
    /// `out` must have the shape's rows and columns, and they be the caller's alone.
    pub(super) unsafe fn compute_all(&self) {
        let (m, n, _) = self.shape;
        // SAFETY: passed on to the caller.
        unsafe { self.compute(0..m, 0..n.div_ceil(PANEL), m) };
    }

    /// Takes what a task takes, and hands it back.
    fn scratch(&self, rows: Range<usize>, panels: Range<usize>, most_rows: usize) {
        Vectors::in_use().run(Tiled(Untouched(Part { product: self, rows, panels, most_rows })));
    }

    /// Computes some rows of some panels of columns, out of tasks of `most_rows` rows at most.
    ///
    /// # Safety
    /// `out` must have the shape's rows and columns, and these rows and columns be the caller's alone.
    unsafe fn compute(&self, rows: Range<usize>, panels: Range<usize>, most_rows: usize) {
        Vectors::in_use().run(Tiled(Part { product: self, rows, panels, most_rows }));
    }
}
