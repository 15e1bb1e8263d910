//! What one task computes: chunk by chunk of the inner dimension, group by group of panels, a few rows at a time.

use std::ops::Range;

use pulp::Simd;

use super::{FEW_ROWS, Product, Right};
use crate::bf16::tile_bf16;
use crate::matmul::Output;
use crate::tensor::Tensor;
use crate::tile::{Ahead, ByTiles, MAX_ROWS, PANEL, left_rows, prefetch, tile};

/// Inner dimension of a chunk: the left factor's rows of a register tile stay in the first-level cache with it.
const DEPTH: usize = 256;

/// Bytes of the right factor that stay in the second-level cache while the rows pass by.
const GROUP_BYTES: usize = 512 << 10;

/// Panels from which on it pays to copy a left factor's rows, or its columns.
const COPY_ROWS: usize = 8;
const COPY_COLUMNS: usize = 4;

/// Elements between the rows of a left factor's copy: not a power of two, which would send the rows to the same
/// lines of the cache.
const ROW_STRIDE: usize = DEPTH + 16;

/// Elements of a copy of columns, of as many rows as a register tile has: as above.
const COPIED_BLOCK: usize = MAX_ROWS * DEPTH + 16;

/// The part of a product that one task computes.
pub(super) struct Part<'a> {
    pub product: &'a Product<'a>,
    pub rows: Range<usize>,
    pub panels: Range<usize>,
}

impl ByTiles for Part<'_> {
    #[inline(always)]
    fn run<S: Simd, const MR: usize, const NV: usize>(self, simd: S) {
        self.compute::<S, MR, NV>(simd);
    }
}

/// A chunk of the inner dimension, and what becomes of its sums.
struct Chunk {
    range: Range<usize>,
    mode: Output,
    /// Whether there is a copy of the left factor's columns.
    columns: bool,
}

/// Copies of parts of the factors, laid out as register tiles read them.
struct Copied {
    /// Of all columns of a chunk of the left factor: a row for as many rows of it as a tile has.
    columns: Tensor,
    /// Of one tile's rows.
    rows: [f32; MAX_ROWS * ROW_STRIDE],
    /// Of a chunk of the right factor's last panel, filled up to a whole one, where it is not and lies in rows.
    edge: Tensor,
}

impl Part<'_> {
    #[inline(always)]
    fn compute<S: Simd, const MR: usize, const NV: usize>(&self, simd: S) {
        let (m, n, depth) = self.product.shape;
        let few = m <= FEW_ROWS;
        let edge = match self.product.right {
            Right::Rows(rows) if self.panels.end * PANEL > n => Some(rows),
            _ => None,
        };
        let columns = self.product.left.lies_in_columns() && self.panels.len() >= COPY_COLUMNS;
        let blocks = if columns { self.rows.len().div_ceil(MR) } else { 0 };
        let mut copied = Copied {
            columns: Tensor::scratch(blocks, COPIED_BLOCK),
            rows: [0.0; MAX_ROWS * ROW_STRIDE],
            edge: Tensor::zeros(if edge.is_some() { DEPTH } else { 0 }, PANEL),
        };
        // Even a product over nothing has a result.
        for first in (0..depth.max(1)).step_by(DEPTH) {
            let range = first..depth.min(first + DEPTH);
            let mode = if first == 0 { self.product.mode } else { Output::Accumulate };
            let group = if few { 1 } else { (GROUP_BYTES / (PANEL * 4 * range.len().max(1))).max(1) };
            if columns {
                self.copy_columns::<MR>(range.clone(), &mut copied.columns);
            }
            if let Some(rows) = edge {
                let columns = n / PANEL * PANEL..n;
                for (to, at) in copied.edge.data_mut().chunks_exact_mut(PANEL).zip(range.clone()) {
                    to[..columns.len()].copy_from_slice(&rows.from(at, columns.start)[..columns.len()]);
                }
            }
            let chunk = Chunk { range, mode, columns };
            for panel in self.panels.clone().step_by(group) {
                let panels = panel..self.panels.end.min(panel + group);
                let (mut row, end) = (self.rows.start, self.rows.end);
                while row < end {
                    match end - row {
                        rest if rest >= MR => {
                            self.row_block::<S, MR, NV, MR>(simd, &chunk, &mut copied, row, panels.clone());
                            row += MR;
                        }
                        4.. => {
                            self.row_block::<S, 4, NV, MR>(simd, &chunk, &mut copied, row, panels.clone());
                            row += 4;
                        }
                        _ => {
                            self.row_block::<S, 1, NV, MR>(simd, &chunk, &mut copied, row, panels.clone());
                            row += 1;
                        }
                    }
                }
            }
        }
    }

    /// Copies a chunk of the columns that lie side by side: for as many rows as a register tile has, column after
    /// column. They come from memory whole rows of the task at a time.
    #[inline(always)]
    fn copy_columns<const MR: usize>(&self, chunk: Range<usize>, copied: &mut Tensor) {
        for (k, at) in chunk.enumerate() {
            let from = &self.product.left.from(self.rows.start, at)[..self.rows.len()];
            let mut to = copied.data_mut();
            let (blocks, rest) = from.as_chunks::<MR>();
            for block in blocks {
                to[k * MR..(k + 1) * MR].copy_from_slice(block);
                to = &mut to[COPIED_BLOCK..];
            }
            for (to, from) in to.iter_mut().skip(k * MR).zip(rest) {
                *to = *from;
            }
        }
    }

    /// A few rows times a group of panels; `MAX` is the most rows that a tile has.
    #[inline(always)]
    fn row_block<S: Simd, const MR: usize, const NV: usize, const MAX: usize>(
        &self,
        simd: S,
        chunk: &Chunk,
        copied: &mut Copied,
        row: usize,
        panels: Range<usize>,
    ) {
        let Product { left, .. } = *self.product;
        let Copied { columns, rows, edge } = copied;
        let (first, depth) = (chunk.range.start, chunk.range.len());
        if chunk.columns {
            let at = row - self.rows.start;
            let columns = &columns.row(at / MAX)[at % MAX..];
            assert!(columns.len() >= depth * MAX, "columns of a left factor");
            // SAFETY: r < MR and k < depth.
            let left = |r: usize, k: usize| unsafe { *columns.get_unchecked(k * MAX + r) };
            self.panels::<S, MR, NV>(simd, chunk, edge, row, panels, left);
        } else if left.lies_in_columns() {
            let (columns, stride) = (left.from(row, first), left.col_stride);
            assert!(depth == 0 || columns.len() >= (depth - 1) * stride + MR, "columns of a left factor");
            // SAFETY: r < MR and k < depth, so it lies inside by the assertion above.
            let left = |r: usize, k: usize| unsafe { *columns.get_unchecked(k * stride + r) };
            self.panels::<S, MR, NV>(simd, chunk, edge, row, panels, left);
        } else if panels.len() < COPY_ROWS {
            let rows: [&[f32]; MR] = std::array::from_fn(|r| left.from(row + r, first));
            self.panels::<S, MR, NV>(simd, chunk, edge, row, panels, left_rows(rows, depth));
        } else {
            for (r, to) in rows.chunks_exact_mut(ROW_STRIDE).take(MR).enumerate() {
                to[..depth].copy_from_slice(&left.from(row + r, first)[..depth]);
            }
            // SAFETY: r < MR and k < depth, which is at most DEPTH.
            let left = |r: usize, k: usize| unsafe { *rows.get_unchecked(r * ROW_STRIDE + k) };
            self.panels::<S, MR, NV>(simd, chunk, edge, row, panels, left);
        }
    }

    #[inline(always)]
    fn panels<S: Simd, const MR: usize, const NV: usize>(
        &self,
        simd: S,
        chunk: &Chunk,
        edge: &Tensor,
        row: usize,
        panels: Range<usize>,
        left: impl Fn(usize, usize) -> f32,
    ) {
        for panel in panels {
            self.tile::<S, MR, NV>(simd, chunk, edge, row, panel, &left);
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const MR: usize, const NV: usize>(
        &self,
        simd: S,
        chunk: &Chunk,
        edge: &Tensor,
        row: usize,
        panel: usize,
        left: impl Fn(usize, usize) -> f32,
    ) {
        let (_, n, _) = self.product.shape;
        let (first, depth) = (chunk.range.start, chunk.range.len());
        let columns = PANEL.min(n - panel * PANEL);
        // SAFETY: the rows and these columns lie inside `out`, and only this task writes them.
        let out = |r: usize| unsafe {
            let to = self.product.out.get().add((row + r) * self.product.out_stride + panel * PANEL);
            std::slice::from_raw_parts_mut(to, columns)
        };
        // The output of a large product lies in no cache: asked for now, it has arrived when the sums are done.
        for r in 0..MR {
            prefetch::<_, true>(out(r), 0, columns);
        }
        let sums = match self.product.right {
            Right::Rows(rows) => {
                let (right, stride) = if columns == PANEL {
                    (rows.from(first, panel * PANEL), rows.row_stride)
                } else {
                    (edge.data(), PANEL)
                };
                tile::<S, MR, NV>(simd, left, right, stride, depth, Ahead::Near)
            }
            Right::Panels { data, elements } => {
                let right = &data[panel * elements + first * PANEL..];
                tile::<S, MR, NV>(simd, left, right, PANEL, depth, Ahead::Near)
            }
            Right::Bf16(panels) => {
                let right = &panels.panel(panel)[first * PANEL / 2..];
                tile_bf16::<S, MR, NV>(simd, left, right, PANEL / 2, depth, Ahead::Near)
            }
        };
        put::<S, MR, NV>(simd, sums, columns, chunk.mode, out);
    }
}

/// Writes or adds the sums of a tile: row `r` of them to `out(r)`.
#[inline(always)]
fn put<'a, S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    sums: [[S::f32s; NV]; MR],
    columns: usize,
    mode: Output,
    out: impl Fn(usize) -> &'a mut [f32],
) {
    // Loops short enough to be unrolled whole: a sum that is looked up by a running index would live in memory,
    // through the whole product.
    if columns < PANEL {
        for r in 0..MR {
            let mut values = [0.0_f32; PANEL];
            let (vectors, _) = S::as_mut_simd_f32s(&mut values);
            vectors.copy_from_slice(&sums[r]);
            put_columns(out(r), &values, mode);
        }
    } else if mode == Output::Accumulate {
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

/// Writes the first of `values` to `out` or adds them to it.
#[inline(never)]
fn put_columns(out: &mut [f32], values: &[f32; PANEL], mode: Output) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = if mode == Output::Accumulate { *out + value } else { *value };
    }
}
