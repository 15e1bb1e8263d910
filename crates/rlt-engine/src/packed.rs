//! The forward product of a linear layer, over weights laid out in panels of 32 output features.
//!
//! Each output element is the sum over the input features in their order, so its bits do not depend
//! on the other rows, their number, or the threads: what makes a sequence's result independent of
//! its batch. Decoding, where a handful of rows would spend most of its time rearranging weights,
//! packs them once.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::arithmetic::Arithmetic;
use crate::bf16::{Bf16Panels, tile_bf16};
use crate::matmul::Output;
use crate::narrow::{Left, Pairs, product};
use crate::parallel::SharedMut;
use crate::tensor::Tensor;
use crate::tile::{PANEL, tile};

/// A weight matrix `[out_features, in_features]`, packed by panels of 32 output features.
pub struct PackedWeight {
    rows: usize,
    cols: usize,
    packed: Packed,
}

enum Packed {
    /// For products in f32.
    Panels(Panels),
    /// For products in bf16.
    Pairs(Pairs),
}

enum Panels {
    /// Per panel, `cols x PANEL`; features beyond the last are zero.
    F32(Tensor),
    /// Shared with the weight: read-only weights are kept in panels anyway.
    Bf16(Bf16Panels),
}

/// One panel.
#[derive(Clone, Copy)]
enum Panel<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u32]),
}

impl Panels {
    fn len(&self) -> usize {
        match self {
            Self::F32(panels) => panels.rows(),
            Self::Bf16(panels) => panels.n_panels(),
        }
    }

    fn get(&self, panel: usize) -> Panel<'_> {
        match self {
            Self::F32(panels) => Panel::F32(panels.row(panel)),
            Self::Bf16(panels) => Panel::Bf16(panels.panel(panel)),
        }
    }
}

impl PackedWeight {
    /// Packs a weight of N output and K input features. Read-only bf16 weights are shared, not copied.
    pub fn new(weight: &Tensor) -> Self {
        let (rows, cols) = (weight.rows(), weight.cols());
        if let Some(panels) = weight.bf16_panels() {
            return Self { rows, cols, packed: Packed::Panels(Panels::Bf16(panels.clone())) };
        }
        let mut panels = Tensor::zeros(rows.div_ceil(PANEL), cols * PANEL);
        panels.data_mut().par_chunks_mut(cols * PANEL).enumerate().for_each(|(index, panel)| {
            // In squares, so that both the reads and the writes stay within a few cache lines.
            for (square, out) in panel.chunks_mut(PANEL * PANEL).enumerate() {
                for c in 0..PANEL.min(rows - index * PANEL) {
                    let from = &weight.row(index * PANEL + c)[square * PANEL..];
                    for (out, value) in out.chunks_exact_mut(PANEL).zip(from) {
                        out[c] = *value;
                    }
                }
            }
        });
        Self { rows, cols, packed: Packed::Panels(Panels::F32(panels)) }
    }

    /// Packs a weight for products in `arithmetic`.
    pub fn for_arithmetic(weight: &Tensor, arithmetic: Arithmetic) -> Self {
        match arithmetic {
            Arithmetic::F32 => Self::new(weight),
            Arithmetic::Bf16 => {
                let packed = Packed::Pairs(Pairs::of_rows(weight));
                Self { rows: weight.rows(), cols: weight.cols(), packed }
            }
        }
    }

    /// Number of output features.
    pub fn out_features(&self) -> usize {
        self.rows
    }
}

/// Rows of a task: they stay in the second-level cache while the panels pass by.
const TASK_ROWS: usize = 240;

/// Panels of a task when there are too few rows to keep every thread busy.
const TASK_PANELS: usize = 4;

/// Rows up to which a product waits for its weights: the next panel is asked for while one is computed.
const FEW_ROWS: usize = 64;

/// `out[M,N] (+)= x[M,K] . w[N,K]^T`.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_packed(x: &Tensor, w: &PackedWeight, out: &mut Tensor, mode: Output) {
    assert_eq!((x.cols(), out.rows(), out.cols()), (w.cols, x.rows(), w.rows), "matmul_packed shapes");
    match &w.packed {
        Packed::Panels(panels) => matmul_panels(x, w.rows, panels, out, mode),
        Packed::Pairs(pairs) => product(&Left::of_rows(x), pairs, out, mode),
    }
}

/// [`matmul_packed`] in f32, by weights of `n` output features.
fn matmul_panels(x: &Tensor, n: usize, w: &Panels, out: &mut Tensor, mode: Output) {
    let (m, panels) = (x.rows(), w.len());
    let base = SharedMut(out.data_mut().as_mut_ptr());
    let arch = pulp::Arch::new();
    // How the output is cut into tasks changes no element: see `tile`.
    let panels_per_task = if m > 4 * TASK_ROWS { panels } else { TASK_PANELS };
    let (tasks_m, tasks_n) = (m.div_ceil(TASK_ROWS), panels.div_ceil(panels_per_task));
    let task = |index: usize| {
        let (row, panel) = (index / tasks_n * TASK_ROWS, index % tasks_n * panels_per_task);
        for panel in panel..(panel + panels_per_task).min(panels) {
            arch.dispatch(PanelProduct {
                x,
                rows: row..(row + TASK_ROWS).min(m),
                panel: w.get(panel),
                next: (m <= FEW_ROWS && panel + 1 < panels).then(|| w.get(panel + 1)),
                column: panel * PANEL,
                n,
                // The rows and columns of a task are written by it alone.
                out: base,
                mode,
            });
        }
    };
    if m * n * x.cols() < 1 << 18 {
        (0..tasks_m * tasks_n).for_each(task);
    } else {
        (0..tasks_m * tasks_n).into_par_iter().for_each(task);
    }
}

/// Some rows times one panel.
struct PanelProduct<'a> {
    x: &'a Tensor,
    rows: std::ops::Range<usize>,
    panel: Panel<'a>,
    /// The panel that comes after it, where it is worth asking for.
    next: Option<Panel<'a>>,
    column: usize,
    n: usize,
    out: SharedMut,
    mode: Output,
}

impl WithSimd for PanelProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Two 512-bit or four 256-bit vectors a panel; rows as many as the registers hold.
        match S::F32_LANES {
            16 => self.rows::<S, 12, 2>(simd),
            8 => self.rows::<S, 3, 4>(simd),
            4 => self.rows::<S, 3, 8>(simd),
            _ => self.rows::<S, 1, PANEL>(simd),
        }
    }
}

impl PanelProduct<'_> {
    #[inline(always)]
    fn rows<S: Simd, const MR: usize, const NV: usize>(&self, simd: S) {
        let (mut row, m) = (self.rows.start, self.rows.end);
        while row + MR <= m {
            self.block::<S, MR, NV>(simd, row);
            row += MR;
        }
        while row + 4 <= m {
            self.block::<S, 4, NV>(simd, row);
            row += 4;
        }
        while row < m {
            self.block::<S, 1, NV>(simd, row);
            row += 1;
        }
    }

    #[inline(always)]
    fn block<S: Simd, const MR: usize, const NV: usize>(&self, simd: S, row: usize) {
        let rows: [&[f32]; MR] = std::array::from_fn(|r| self.x.row(row + r));
        let next = self.next.filter(|_| row == self.rows.start);
        let sums = match self.panel {
            Panel::F32(panel) => {
                let ahead = match next {
                    Some(Panel::F32(next)) => Some(next),
                    _ => None,
                };
                tile::<S, MR, NV>(simd, rows, panel, PANEL, self.x.cols(), ahead)
            }
            Panel::Bf16(panel) => {
                let ahead = match next {
                    Some(Panel::Bf16(next)) => Some(next),
                    _ => None,
                };
                tile_bf16::<S, MR, NV>(simd, rows, panel, PANEL / 2, self.x.cols(), ahead)
            }
        };
        let columns = PANEL.min(self.n - self.column);
        // SAFETY: the rows and these columns lie inside `out`, and only this task writes them.
        let out = |r: usize| unsafe {
            let to = self.out.get().add((row + r) * self.n + self.column);
            std::slice::from_raw_parts_mut(to, columns)
        };
        // Loops short enough to be unrolled whole: a sum that is looked up by a running index would
        // live in memory, through the whole product.
        if columns < PANEL {
            for r in 0..MR {
                let mut values = [0.0_f32; PANEL];
                let (vectors, _) = S::as_mut_simd_f32s(&mut values);
                vectors.copy_from_slice(&sums[r]);
                put_columns(out(r), &values, self.mode);
            }
        } else if self.mode == Output::Accumulate {
            for r in 0..MR {
                let (out, _) = S::as_mut_simd_f32s(out(r));
                for v in 0..NV {
                    out[v] = simd.add_f32s(out[v], sums[r][v]);
                }
            }
        } else {
            for r in 0..MR {
                let (out, _) = S::as_mut_simd_f32s(out(r));
                out.copy_from_slice(&sums[r]);
            }
        }
    }
}

/// Writes the first of `values` to `out` or adds them to it.
#[inline(never)]
fn put_columns(out: &mut [f32], values: &[f32; PANEL], mode: Output) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = if mode == Output::Accumulate { *out + value } else { *value };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::matmul_nt;

    fn numbers(rows: usize, cols: usize, salt: usize) -> Tensor {
        let value = |i: usize| ((i * 7919 + salt * 104_729) % 2003) as f32 / 1000.0 - 1.0;
        Tensor::from_vec(rows, cols, (0..rows * cols).map(value).collect())
    }

    #[test]
    fn equals_the_plain_product_and_does_not_depend_on_the_number_of_rows() {
        for (n, k) in [(40, 17), (96, 96), (330, 64), (704, 256)] {
            let w = numbers(n, k, 1);
            let packed = PackedWeight::new(&w);
            let x = numbers(29, k, 2);
            let mut all = Tensor::zeros(29, n);
            matmul_packed(&x, &packed, &mut all, Output::Replace);
            let mut plain = Tensor::zeros(29, n);
            matmul_nt(&x, &w, &mut plain, Output::Replace);
            for (a, b) in all.data().iter().zip(plain.data()) {
                assert!((a - b).abs() < 1e-3, "{a} {b}");
            }
            for rows in 1..29 {
                let some = x.gather_rows(&(29 - rows..29).collect::<Vec<_>>());
                let mut out = Tensor::full(rows, n, 0.0);
                matmul_packed(&some, &packed, &mut out, Output::Accumulate);
                assert!(out.data() == &all.data()[(29 - rows) * n..], "{rows} rows of {n} x {k}");
            }
        }
    }
}
