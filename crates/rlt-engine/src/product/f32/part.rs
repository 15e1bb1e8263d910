//! What one task computes: chunk by chunk of the inner dimension, a group of strips of columns at a time, a few rows at
//! a time.
//!
//! A strip narrow enough for the first-level cache stays there while all rows of the task pass by. Wider ones (AVX-512)
//! would leave no room for the rows: there a few rows stay, and strips pass by from the second-level cache.

use std::ops::Range;

use pulp::Simd;

use super::factors::{FEW_ROWS, Product, Right};
use super::read_ahead::ReadAhead;
use crate::bf16::{tile_bf16, widen_strip};
use crate::output::Output;
use crate::tensor::Tensor;
use crate::tile::{Ahead, ByTiles, MAX_ROWS, PANEL, left_rows, prefetch, strip, tile};

/// Inner dimension of a chunk: the left factor's rows of a register tile stay in the first-level cache with it.
const DEPTH: usize = 256;

/// Columns of a strip that stays in the first-level cache, at most: 16 KiB of a chunk.
pub(super) const RESIDENT_COLUMNS: usize = 16;

/// Bytes of the right factor that stay in the second-level cache while the rows pass by.
const GROUP_BYTES: usize = 512 << 10;

/// Columns from which on it pays to copy a left factor's rows, or its columns.
const COPY_ROWS: usize = 8 * PANEL;
const COPY_COLUMNS: usize = 4 * PANEL;

/// Columns that are asked for ahead where a left factor's are copied.
const COLUMNS_AHEAD: usize = 8;

/// Rows from which on it pays to copy a strip of a right factor that lies in rows, or to widen one in bf16.
const COPY_STRIP: usize = 48;

/// Elements between the rows of a left factor's copy: not a power of two, which would send the rows to the same
/// lines of the cache.
const ROW_STRIDE: usize = DEPTH + 16;

/// The part of a product that one task computes.
pub(super) struct Part<'a> {
    pub product: &'a Product<'a>,
    pub rows: Range<usize>,
    pub panels: Range<usize>,
    /// The most rows of any task of the product.
    pub most_rows: usize,
}

impl ByTiles for Part<'_> {
    #[inline(always)]
    fn run<S: Simd, const MR: usize, const NV: usize>(self, simd: S) {
        self.compute::<S, MR, NV>(simd);
    }
}

/// A part that only asks for its memory.
pub(super) struct Untouched<'a>(pub Part<'a>);

impl ByTiles for Untouched<'_> {
    fn run<S: Simd, const MR: usize, const NV: usize>(self, _: S) {
        drop(self.0.copied(MR, strip::<S, NV>()));
    }
}

/// A chunk of the inner dimension, and what becomes of its sums.
struct Chunk {
    range: Range<usize>,
    mode: Output,
    /// How the left factor is read.
    left: LeftCopy,
}

/// What of a chunk of the left factor was copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LeftCopy {
    Nothing,
    /// Its rows, [`ROW_STRIDE`] apart.
    Rows,
    /// Its columns: of each block of rows column after column.
    Columns,
}

/// Some strips of a chunk, which all rows pass by or which pass by all rows.
#[derive(Clone, Copy)]
struct Pass<'a> {
    chunk: &'a Chunk,
    copied: &'a Copied,
    strips: &'a Range<usize>,
    ahead: &'a ReadAhead<'a>,
    /// Rows of a tile, at most.
    tile_rows: usize,
}

/// Copies of parts of the factors, laid out as register tiles read them.
struct Copied {
    /// Of a chunk of the left factor: the rows of a register tile a row of this.
    left: Tensor,
    /// Of a chunk of the right factor: a strip that lies in rows, filled up with zeros, or is kept in bf16.
    strip: Tensor,
    /// Which strip that is.
    index: Option<usize>,
}

impl Part<'_> {
    /// How the left factor is read where strips are `width` columns wide.
    fn left_copy(&self, width: usize) -> LeftCopy {
        let (m, _, _) = self.product.shape;
        match self.strips(width).len() * width {
            columns if self.product.left.lies_in_columns() && columns >= COPY_COLUMNS => LeftCopy::Columns,
            columns
                if !self.product.left.lies_in_columns()
                    && m > FEW_ROWS
                    && columns >= COPY_ROWS
                    && !self.lies_in_blocks(width) =>
            {
                LeftCopy::Rows
            }
            _ => LeftCopy::Nothing,
        }
    }

    /// Whether the left factor's rows lie one behind the other, a chunk each: then they are as good as copied. (Where
    /// strips pass by, wider ones, this was not measured.)
    fn lies_in_blocks(&self, width: usize) -> bool {
        let (_, _, depth) = self.product.shape;
        width <= RESIDENT_COLUMNS && depth <= DEPTH && self.product.left.row_stride == depth
    }

    /// The strips of `width` columns.
    fn strips(&self, width: usize) -> Range<usize> {
        let (_, n, _) = self.product.shape;
        self.panels.start * (PANEL / width)..n.div_ceil(width).min(self.panels.end * (PANEL / width))
    }

    /// Room for what of the factors is copied, for tiles of `tile_rows` rows and strips of `width` columns.
    fn copied(&self, tile_rows: usize, width: usize) -> Copied {
        let copies_left = self.left_copy(width) != LeftCopy::Nothing;
        let blocks = if copies_left { self.most_rows.div_ceil(tile_rows) } else { 0 };
        let in_panels = matches!(self.product.right, Right::Panels(_));
        let scratch = |rows, cols| Tensor::scratch_on(self.product.device, rows, cols);
        Copied {
            left: scratch(blocks, tile_rows * ROW_STRIDE),
            strip: scratch(if in_panels { 0 } else { DEPTH }, width),
            index: None,
        }
    }

    #[inline(always)]
    fn compute<S: Simd, const MR: usize, const NV: usize>(&self, simd: S) {
        let width = strip::<S, NV>();
        let (m, n, depth) = self.product.shape;
        let one_by_one = m <= FEW_ROWS || width <= RESIDENT_COLUMNS;
        let (all_strips, left) = (self.strips(width), self.left_copy(width));
        let rows = self.rows.len();
        let mut copied = self.copied(MR, width);
        // Even a product over nothing has a result.
        for first in (0..depth.max(1)).step_by(DEPTH) {
            let range = first..depth.min(first + DEPTH);
            let mode = if first == 0 { self.product.mode } else { Output::Accumulate };
            let group = if one_by_one { 1 } else { (GROUP_BYTES / (width * 4 * range.len().max(1))).max(1) };
            self.copy_left::<MR>(left, range.clone(), &mut copied.left);
            copied.index = None;
            let chunk = Chunk { range, mode, left };
            for strip in all_strips.clone().step_by(group) {
                let strips = strip..all_strips.end.min(strip + group);
                let last = strips.end - 1;
                let partial = (last + 1) * width > n;
                let pays = match self.product.right {
                    Right::Rows(_) => partial || one_by_one && rows >= COPY_STRIP,
                    Right::Bf16(_) => S::REGISTER_COUNT <= 16 && rows >= COPY_STRIP,
                    Right::Panels(_) => false,
                };
                if pays {
                    self.copy_strip::<S, NV>(simd, last, chunk.range.clone(), &mut copied);
                }
                let copies_columns = left == LeftCopy::Columns;
                let ahead = &ReadAhead::new(
                    self.product,
                    &chunk.range,
                    DEPTH,
                    &strips,
                    &all_strips,
                    width,
                    copies_columns,
                );
                let pass = Pass { chunk: &chunk, copied: &copied, strips: &strips, ahead, tile_rows: MR };
                let (mut row, end) = (self.rows.start, self.rows.end);
                while row < end {
                    match end - row {
                        rest if rest >= MR => {
                            self.row_block::<S, MR, NV, MR>(simd, pass, row);
                            row += MR;
                        }
                        4.. => {
                            self.row_block::<S, 4, NV, MR>(simd, pass, row);
                            row += 4;
                        }
                        _ => {
                            self.row_block::<S, 1, NV, MR>(simd, pass, row);
                            row += 1;
                        }
                    }
                }
            }
        }
    }

    /// Copies a chunk of the left factor, for as many rows as a register tile has: row after row, or column after
    /// column. Columns that lie side by side come from memory whole rows of the task at a time.
    #[inline(always)]
    fn copy_left<const MR: usize>(&self, how: LeftCopy, chunk: Range<usize>, copied: &mut Tensor) {
        match how {
            LeftCopy::Nothing => {}
            LeftCopy::Rows => {
                let to = copied.data_mut().chunks_exact_mut(ROW_STRIDE);
                for (row, to) in self.rows.clone().zip(to) {
                    to[..chunk.len()]
                        .copy_from_slice(&self.product.left.from(row, chunk.start)[..chunk.len()]);
                }
            }
            LeftCopy::Columns => {
                for (k, at) in chunk.enumerate() {
                    let from = &self.product.left.from(self.rows.start, at)[..self.rows.len()];
                    if MR < MAX_ROWS {
                        // Each row lies on a page of its own: the processor does not guess it. (Tiles of as many rows as
                        // there can be were not measured.)
                        let later = self.product.left.from(self.rows.start, at + COLUMNS_AHEAD);
                        prefetch::<_, true>(later, 0, self.rows.len());
                    }
                    let mut to = copied.data_mut();
                    let (blocks, rest) = from.as_chunks::<MR>();
                    for block in blocks {
                        to[k * MR..(k + 1) * MR].copy_from_slice(block);
                        to = &mut to[MR * ROW_STRIDE..];
                    }
                    for (to, from) in to.iter_mut().skip(k * MR).zip(rest) {
                        *to = *from;
                    }
                }
            }
        }
    }

    /// Copies a chunk of a strip of a right factor that lies in rows or is kept in bf16.
    #[inline(always)]
    fn copy_strip<S: Simd, const NV: usize>(
        &self,
        simd: S,
        index: usize,
        chunk: Range<usize>,
        copied: &mut Copied,
    ) {
        let width = strip::<S, NV>();
        let (_, n, inner) = self.product.shape;
        let columns = width.min(n - index * width);
        let to = copied.strip.data_mut();
        match self.product.right {
            Right::Panels(_) => return,
            Right::Bf16(panels) => {
                let words = &panels.strips()[(index * inner + chunk.start) * width / 2..];
                widen_strip::<S, NV>(simd, &words[..chunk.len() * width / 2], to);
            }
            Right::Rows(rows) => {
                for (to, at) in to.chunks_exact_mut(width).zip(chunk) {
                    let from = rows.from(at, index * width);
                    if columns == width {
                        to.copy_from_slice(&from[..width]);
                    } else {
                        to[..columns].copy_from_slice(&from[..columns]);
                        to[columns..].fill(0.0);
                    }
                }
            }
        }
        copied.index = Some(index);
    }

    /// A few rows times a group of strips; `MAX` is the most rows that a tile has.
    #[inline(always)]
    fn row_block<S: Simd, const MR: usize, const NV: usize, const MAX: usize>(
        &self,
        simd: S,
        pass: Pass,
        row: usize,
    ) {
        let Pass { chunk, copied, .. } = pass;
        let left = self.product.left;
        let (first, depth) = (chunk.range.start, chunk.range.len());
        let at = row - self.rows.start;
        match chunk.left {
            LeftCopy::Columns => {
                let columns = &copied.left.row(at / MAX)[at % MAX..];
                assert!(depth == 0 || columns.len() >= (depth - 1) * MAX + MR, "columns of a left factor");
                // SAFETY: r < MR and k < depth.
                let left = move |r: usize, k: usize| unsafe { *columns.get_unchecked(k * MAX + r) };
                self.row_strips::<S, MR, NV>(simd, pass, row, left);
            }
            LeftCopy::Rows => {
                let rows = &copied.left.data()[at * ROW_STRIDE..];
                assert!(depth <= DEPTH && rows.len() >= MR * ROW_STRIDE, "rows of a left factor");
                // SAFETY: r < MR and k < depth, which is at most DEPTH.
                let left = move |r: usize, k: usize| unsafe { *rows.get_unchecked(r * ROW_STRIDE + k) };
                self.row_strips::<S, MR, NV>(simd, pass, row, left);
            }
            LeftCopy::Nothing if left.lies_in_columns() => {
                let (columns, stride) = (left.from(row, first), left.col_stride);
                assert!(depth == 0 || columns.len() >= (depth - 1) * stride + MR, "columns of a left factor");
                // SAFETY: r < MR and k < depth, so it lies inside by the assertion above.
                let left = move |r: usize, k: usize| unsafe { *columns.get_unchecked(k * stride + r) };
                self.row_strips::<S, MR, NV>(simd, pass, row, left);
            }
            LeftCopy::Nothing => {
                let rows: [&[f32]; MR] = std::array::from_fn(|r| left.from(row + r, first));
                self.row_strips::<S, MR, NV>(simd, pass, row, left_rows(rows, depth));
            }
        }
    }

    #[inline(always)]
    fn row_strips<S: Simd, const MR: usize, const NV: usize>(
        &self,
        simd: S,
        pass: Pass,
        row: usize,
        left: impl Fn(usize, usize) -> f32 + Copy,
    ) {
        for strip in pass.strips.clone() {
            self.tile::<S, MR, NV>(simd, pass, row, strip, left);
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const MR: usize, const NV: usize>(
        &self,
        simd: S,
        pass: Pass,
        row: usize,
        index: usize,
        left: impl Fn(usize, usize) -> f32 + Copy,
    ) {
        let Pass { chunk, copied, tile_rows, .. } = pass;
        let width = strip::<S, NV>();
        let (m, n, inner) = self.product.shape;
        let (first, depth) = (chunk.range.start, chunk.range.len());
        let columns = width.min(n - index * width);
        // SAFETY: the rows and these columns lie inside `out`, and only this task writes them.
        let to = unsafe { self.product.out.get().add(row * self.product.out_stride + index * width) };
        let out_stride = self.product.out_stride;
        // SAFETY: as before.
        let out = move |r: usize| unsafe { std::slice::from_raw_parts_mut(to.add(r * out_stride), columns) };
        // The output of a large product lies in no cache: asked for now, it has arrived when the sums are done.
        for r in 0..MR {
            prefetch::<_, true>(out(r), 0, columns);
        }
        // A strip is in the first-level cache already where many rows pass by it: then the next rows are asked for.
        let resident = width <= RESIDENT_COLUMNS && m > FEW_ROWS;
        let at = row - self.rows.start;
        if resident {
            pass.ahead.ask_by_rows(self.product, &self.rows, at..at + MR);
        }
        let next_rows = match chunk.left {
            LeftCopy::Nothing if self.lies_in_blocks(width) => self.product.left.from(row + MR, 0),
            LeftCopy::Nothing => &[],
            LeftCopy::Rows | LeftCopy::Columns => {
                copied.left.data().get((at + MR) * ROW_STRIDE..).unwrap_or_default()
            }
        };
        let right = match self.product.right {
            _ if copied.index == Some(index) => TileColumns::F32(copied.strip.data(), width),
            Right::Rows(rows) => TileColumns::F32(rows.from(first, index * width), rows.row_stride),
            Right::Panels(data) => TileColumns::F32(&data[(index * inner + first) * width..], width),
            Right::Bf16(panels) => TileColumns::Bf16(&panels.strips()[(index * inner + first) * width / 2..]),
        };
        let mode = chunk.mode;
        // Of few rows, the first tile waits for a strip; the others ask for the next one meanwhile.
        let share = match at / tile_rows {
            index @ 1.. if m <= FEW_ROWS => {
                pass.ahead.share_of_tile(index - 1, self.rows.len().div_ceil(tile_rows) - 1, depth)
            }
            _ => None,
        };
        // What is asked for ahead is named where the tile is computed, so that its loop need not look.
        if S::REGISTER_COUNT > 16 {
            let sums = match (right, share) {
                (TileColumns::F32(right, stride), _) if resident => {
                    let ahead = Ahead::Rows { next: next_rows, step: MR * ROW_STRIDE / DEPTH };
                    tile::<S, MR, NV>(simd, left, right, stride, depth, ahead)
                }
                (TileColumns::F32(right, stride), None) => {
                    tile::<S, MR, NV>(simd, left, right, stride, depth, Ahead::Near)
                }
                (TileColumns::F32(right, stride), Some((next, step))) => {
                    tile::<S, MR, NV>(simd, left, right, stride, depth, Ahead::Share { next, step })
                }
                (TileColumns::Bf16(words), _) => {
                    tile_bf16::<S, MR, NV>(simd, left, words, width / 2, depth, Ahead::Near)
                }
            };
            return put::<S, MR, NV>(simd, sums, columns, mode, out);
        }
        match (right, share) {
            (TileColumns::F32(right, stride), _) if resident => apart(
                simd,
                #[inline(always)]
                move || {
                    let ahead = Ahead::Rows { next: next_rows, step: MR * ROW_STRIDE / DEPTH };
                    let sums = tile::<S, MR, NV>(simd, left, right, stride, depth, ahead);
                    put::<S, MR, NV>(simd, sums, columns, mode, out);
                },
            ),
            (TileColumns::F32(right, stride), None) => apart(
                simd,
                #[inline(always)]
                move || {
                    let sums = tile::<S, MR, NV>(simd, left, right, stride, depth, Ahead::Near);
                    put::<S, MR, NV>(simd, sums, columns, mode, out);
                },
            ),
            (TileColumns::F32(right, stride), Some((next, step))) => apart(
                simd,
                #[inline(always)]
                move || {
                    let ahead = Ahead::Share { next, step };
                    let sums = tile::<S, MR, NV>(simd, left, right, stride, depth, ahead);
                    put::<S, MR, NV>(simd, sums, columns, mode, out);
                },
            ),
            (TileColumns::Bf16(words), None) => apart(
                simd,
                #[inline(always)]
                move || {
                    let sums = tile_bf16::<S, MR, NV>(simd, left, words, width / 2, depth, Ahead::Near);
                    put::<S, MR, NV>(simd, sums, columns, mode, out);
                },
            ),
            (TileColumns::Bf16(words), Some((next, step))) => apart(
                simd,
                #[inline(always)]
                move || {
                    let ahead = Ahead::Share { next, step };
                    let sums = tile_bf16::<S, MR, NV>(simd, left, words, width / 2, depth, ahead);
                    put::<S, MR, NV>(simd, sums, columns, mode, out);
                },
            ),
        }
    }
}

/// The columns that a tile reads.
#[derive(Clone, Copy)]
enum TileColumns<'a> {
    /// From one step to the next so many elements.
    F32(&'a [f32], usize),
    /// Words of two numbers, as a strip keeps them.
    Bf16(&'a [u32]),
}

/// Does `work`, compiled by itself: a tile that takes nearly all of the registers there are. Inlined among much else, one of its
/// sums is left without one, and then every step waits for that sum's way through memory. (With twice as many registers it is the
/// other way round: what is inlined keeps them.)
#[inline(never)]
fn apart<S: Simd>(simd: S, work: impl FnOnce()) {
    simd.vectorize(work);
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
    if columns < strip::<S, NV>() {
        for r in 0..MR {
            let mut values = [0.0_f32; PANEL];
            let (vectors, _) = S::as_mut_simd_f32s(&mut values);
            vectors[..NV].copy_from_slice(&sums[r]);
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
