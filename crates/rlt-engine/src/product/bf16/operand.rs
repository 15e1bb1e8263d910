//! The two factors of a product, rounded to bf16 and laid out as the kernels read them.
//!
//! A word holds two consecutive numbers of the inner dimension, the first in its lower half: what a dot-product
//! instruction takes. Both layouts fill the inner dimension up to whole tiles (32 numbers) with zeros.

use std::ops::Range;

use pulp::bytemuck;
use rayon::prelude::*;

use super::laid_out::LaidOut;
use super::numbers::NUMBERS;
use super::rounding::{pair, round_pairs, round_row, round_rows};
use super::tile_size::{TILE_ROWS, TILE_WORDS};
use super::view::View;
use crate::bf16::Bf16Panels;
use crate::buffer::{self, Buffer};
use crate::device::Device;
use crate::parallel::SharedMut;
use crate::simd;
use crate::tensor::Tensor;
use crate::tile::{PANEL, strip_columns};
use crate::transpose::transpose;

/// Words of a tile.
const TILE: usize = TILE_ROWS * TILE_WORDS;

/// Words of the inner dimension, whole tiles.
fn inner_words(inner: usize) -> usize {
    inner.div_ceil(2).next_multiple_of(TILE_WORDS)
}

fn words_of(buffer: &mut Buffer) -> &mut [u32] {
    bytemuck::cast_slice_mut(buffer)
}

/// The left factor, in f32 where it came from. A task lays out the part that it needs, in tiles of 16 rows by 32
/// numbers: tile after tile of the inner dimension, then the next 16 rows.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    x: View<'a>,
    inner: Inner,
}

/// Which dimension of a matrix is the inner one of a product.
#[derive(Clone, Copy)]
enum Inner {
    Columns,
    Rows,
}

impl<'a> Left<'a> {
    /// `x` itself (rows x inner).
    pub(crate) fn of_rows(x: impl Into<View<'a>>) -> Self {
        Self { x: x.into(), inner: Inner::Columns }
    }

    /// Some columns of `x`.
    pub(crate) fn of_some_columns(x: &'a Tensor, inner: Range<usize>) -> Self {
        Self::of_rows(View::from(x).columns(inner))
    }

    /// `x` transposed (inner x rows): the left factor of `x^T . y`.
    pub(crate) fn of_columns(x: impl Into<View<'a>>) -> Self {
        Self { x: x.into(), inner: Inner::Rows }
    }

    pub(super) fn rows(&self) -> usize {
        match self.inner {
            Inner::Columns => self.x.rows(),
            Inner::Rows => self.x.cols(),
        }
    }

    /// Words of a row.
    pub(super) fn width(&self) -> usize {
        inner_words(match self.inner {
            Inner::Columns => self.x.cols(),
            Inner::Rows => self.x.rows(),
        })
    }

    /// Lays out all of it; returns its tiles of the inner dimension.
    pub(crate) fn lay_out_all(&self, words: &mut [u32]) -> usize {
        let tiles = self.width() / TILE_WORDS;
        self.lay_out(0..self.rows(), 0, tiles, words);
        tiles
    }

    /// Lays out `tiles` tiles of the inner dimension from `first_tile` on, of `rows`.
    pub(super) fn lay_out(&self, rows: Range<usize>, first_tile: usize, tiles: usize, words: &mut [u32]) {
        let blocks = rows.len().div_ceil(TILE_ROWS);
        let words = &mut words[..blocks * tiles * TILE];
        simd::vectorized(
            #[inline(always)]
            || match self.inner {
                Inner::Columns => {
                    for (block, words) in words.chunks_exact_mut((tiles * TILE).max(1)).enumerate() {
                        let first = rows.start + block * TILE_ROWS;
                        let rows = first..(first + TILE_ROWS).min(rows.end);
                        self.lay_out_rows(rows, first_tile, words);
                    }
                }
                // In the order of memory: 32 rows of the tensor, all columns of the task.
                Inner::Rows => {
                    for tile in 0..tiles {
                        for block in 0..blocks {
                            let first = rows.start + block * TILE_ROWS;
                            let columns = first..(first + TILE_ROWS).min(rows.end);
                            let out = &mut words[(block * tiles + tile) * TILE..][..TILE];
                            self.lay_out_columns(columns, first_tile + tile, out);
                        }
                    }
                }
            },
        );
    }

    #[inline(always)]
    fn lay_out_rows(&self, rows: Range<usize>, first_tile: usize, words: &mut [u32]) {
        let from = first_tile * NUMBERS;
        let whole = from + words.len() / TILE_ROWS * 2 <= self.x.cols();
        if rows.len() < TILE_ROWS || !whole {
            words.fill(0);
        }
        // As many numbers as the words have room for.
        let columns = from..self.x.cols().min(from + words.len() / TILE_ROWS * 2);
        round_rows(self.x, rows, columns, words);
    }

    #[inline(always)]
    fn lay_out_columns(&self, columns: Range<usize>, tile: usize, words: &mut [u32]) {
        let mut across = [[0_u32; TILE_ROWS]; TILE_WORDS];
        pairs_of_rows(self.x, tile * NUMBERS, columns, &mut across);
        transpose(&across, words, TILE_WORDS);
    }
}

/// The tiles' parts of a row of a left factor that was laid out in `tiles` tiles of the inner dimension.
#[inline(always)]
pub(crate) fn left_row_mut(
    words: &mut [u32],
    tiles: usize,
    row: usize,
) -> impl Iterator<Item = &mut [u32; TILE_WORDS]> {
    let block = &mut words[row / TILE_ROWS * tiles * TILE..][..tiles * TILE];
    block.as_chunks_mut().0.iter_mut().skip(row % TILE_ROWS).step_by(TILE_ROWS)
}

/// The right factor: panels of 32 columns; in a panel, word after word of the inner dimension, of all columns.
pub(crate) struct Pairs {
    words: Buffer,
    columns: usize,
    /// Words of a column.
    width: usize,
}

impl Pairs {
    /// The rows of `w` (columns x inner) as columns: the right factor of `x . w^T`.
    pub(crate) fn of_rows(w: &Tensor) -> Self {
        if let Some(panels) = w.bf16_panels() {
            return Self::of_panels(panels, w.rows(), w.cols());
        }
        let (w, device) = (View::from(w), w.device());
        Self::in_panels(device, w.rows(), w.cols(), |columns, words| panel_of_rows(w, columns, words))
    }

    /// As [`Self::of_rows`], of weights that are kept in bf16.
    fn of_panels(panels: &Bf16Panels, rows: usize, cols: usize) -> Self {
        let half = strip_columns() / 2;
        Self::in_panels(panels.device(), rows, cols, |columns, words| {
            words.fill(0);
            for at in (0..PANEL).step_by(2 * half) {
                let from = panels.strip((columns.start + at) / (2 * half));
                for (words, both) in words.chunks_exact_mut(PANEL).zip(from.chunks(2 * half)) {
                    // Two input features; the second is absent after an odd number of them.
                    let (first, second) = both.split_at(half);
                    let second = if second.is_empty() { &[0; PANEL][..half] } else { second };
                    let (lower, upper) = words[at..at + 2 * half].split_at_mut(half);
                    for i in 0..half {
                        lower[i] = first[i] & 0xffff | second[i] << 16;
                        upper[i] = first[i] >> 16 | second[i] & 0xffff_0000;
                    }
                }
            }
        })
    }

    /// The columns of `x` (inner x columns): the right factor of `y . x`.
    pub(crate) fn of_columns(x: &Tensor) -> Self {
        let (x, device) = (View::from(x), x.device());
        let (columns, width) = (x.cols(), inner_words(x.rows()));
        let panels = columns.div_ceil(PANEL);
        let mut words = buffer::take(device, panels * PANEL * width);
        if let Device::Sizes(sizes) = device {
            sizes.did_rows(2 * panels * PANEL * width);
            return Self { words, columns, width };
        }
        let base = SharedMut(words.as_mut_ptr());
        // In the order of memory: 32 rows of the tensor, all columns.
        (0..width / TILE_WORDS).into_par_iter().with_min_len(4).for_each(|tile| {
            simd::vectorized(
                #[inline(always)]
                || {
                    for panel in 0..panels {
                        let first = panel * PANEL;
                        let out = tile_of_columns(x, tile, first..(first + PANEL).min(columns));
                        // SAFETY: this tile of this panel is written here alone.
                        unsafe {
                            let to = base.get().add((panel * width + tile * TILE_WORDS) * PANEL);
                            to.cast::<[[u32; PANEL]; TILE_WORDS]>().write(out);
                        }
                    }
                },
            );
        });
        Self { words, columns, width }
    }

    /// Lays out a small factor as [`Self::of_rows`] does, on this thread.
    pub(crate) fn lay_out_rows<'a>(w: View, words: &'a mut [u32]) -> LaidOut<'a> {
        let tiles = inner_words(w.cols()) / TILE_WORDS;
        simd::vectorized(
            #[inline(always)]
            || {
                let panels = words.chunks_exact_mut((tiles * TILE_WORDS * PANEL).max(1));
                for (panel, words) in panels.take(w.rows().div_ceil(PANEL)).enumerate() {
                    panel_of_rows(w, panel * PANEL..((panel + 1) * PANEL).min(w.rows()), words);
                }
            },
        );
        LaidOut { words, tiles }
    }

    /// Lays out a small factor as [`Self::of_columns`] does, on this thread.
    pub(crate) fn lay_out_columns<'a>(x: View, words: &'a mut [u32]) -> LaidOut<'a> {
        let tiles = inner_words(x.rows()) / TILE_WORDS;
        simd::vectorized(
            #[inline(always)]
            || {
                let (rows, _) = words.as_chunks_mut::<PANEL>();
                for (panel, words) in rows.chunks_exact_mut((tiles * TILE_WORDS).max(1)).enumerate() {
                    let first = panel * PANEL;
                    if first >= x.cols() {
                        break;
                    }
                    let (words, _) = words.as_chunks_mut::<TILE_WORDS>();
                    for (tile, words) in words.iter_mut().enumerate() {
                        *words = tile_of_columns(x, tile, first..(first + PANEL).min(x.cols()));
                    }
                }
            },
        );
        LaidOut { words, tiles }
    }

    /// Panels whose words `fill(columns, words)` writes.
    fn in_panels(
        device: &Device,
        columns: usize,
        inner: usize,
        fill: impl Fn(Range<usize>, &mut [u32]) + Sync,
    ) -> Self {
        let width = inner_words(inner);
        let mut words = buffer::take(device, columns.next_multiple_of(PANEL) * width);
        if let Device::Sizes(sizes) = device {
            sizes.did_rows(2 * columns * width);
            return Self { words, columns, width };
        }
        let panel = (PANEL * width).max(1);
        words_of(&mut words).par_chunks_mut(panel).enumerate().for_each(|(index, words)| {
            let first = index * PANEL;
            simd::vectorized(
                #[inline(always)]
                || fill(first..(first + PANEL).min(columns), words),
            );
        });
        Self { words, columns, width }
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The words of a panel from tile `tile` of the inner dimension on.
    pub(super) fn panel(&self, panel: usize, tile: usize) -> &[u32] {
        let at = (panel * self.width + tile * TILE_WORDS) * PANEL;
        bytemuck::cast_slice(&self.words[at..])
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        buffer::give(std::mem::take(&mut self.words));
    }
}

/// One panel of [`Pairs::of_rows`].
#[inline(always)]
fn panel_of_rows(w: View, columns: Range<usize>, words: &mut [u32]) {
    for (index, words) in words.chunks_exact_mut(TILE_WORDS * PANEL).enumerate() {
        for half in 0..PANEL / TILE_ROWS {
            let mut tile = [[0_u32; TILE_WORDS]; TILE_ROWS];
            let rows = columns.clone().skip(half * TILE_ROWS);
            for (words, row) in tile.iter_mut().zip(rows) {
                let numbers = &w.row(row)[index * NUMBERS..];
                round_row(&numbers[..numbers.len().min(NUMBERS)], words, TILE_WORDS);
            }
            transpose(&tile, &mut words[half * TILE_ROWS..], PANEL);
        }
    }
}

/// Tile `tile` of one panel of [`Pairs::of_columns`].
#[inline(always)]
fn tile_of_columns(x: View, tile: usize, columns: Range<usize>) -> [[u32; PANEL]; TILE_WORDS] {
    let mut out = [[0_u32; PANEL]; TILE_WORDS];
    pairs_of_rows(x, tile * NUMBERS, columns, &mut out);
    out
}

/// Word `w` of each of some columns of `x`: its rows `first + 2 w` and `first + 2 w + 1`. What lies beyond the last
/// row or column is left alone, or zero in half a word.
#[inline(always)]
fn pairs_of_rows<const N: usize>(x: View, first: usize, columns: Range<usize>, words: &mut [[u32; N]]) {
    let rows = x.rows();
    for (w, words) in words.iter_mut().enumerate() {
        let row = first + 2 * w;
        if row + 1 < rows {
            let (upper, lower) = (&x.row(row + 1)[columns.clone()], &x.row(row)[columns.clone()]);
            if let (Ok(lower), Ok(upper)) = (<&[f32; N]>::try_from(lower), <&[f32; N]>::try_from(upper)) {
                round_pairs(lower, upper, words);
            } else {
                for ((word, lower), upper) in words.iter_mut().zip(lower).zip(upper) {
                    *word = pair(*lower, *upper);
                }
            }
        } else if row < rows {
            for (word, lower) in words.iter_mut().zip(&x.row(row)[columns.clone()]) {
                *word = pair(*lower, 0.0);
            }
        }
    }
}
