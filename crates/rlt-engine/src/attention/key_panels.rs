//! Keys or values in f32, laid out by panels of 32 keys as the products of attention read them.

use std::ops::Range;

use pulp::Simd;
use rayon::prelude::*;

use super::key_runs::{KeyRuns, KeyTile, TILE_KEYS};
use super::layout::{AttentionShape, Layout};
use crate::device::Device;
use crate::parallel::is_alone;
use crate::tensor::Tensor;
use crate::tile::{PANEL, rows_by_strip, strip, strip_columns};
use crate::transpose::rows_as_columns;

/// Keys, or values, of some segments and some heads: by key/value head and panel. Every segment begins a new panel;
/// what lies beyond its last key is never looked at.
pub(super) struct KeyPanels {
    /// One panel a row.
    panels: Tensor,
    first_head: usize,
    /// A run of keys a panel, those of one head.
    keys: KeyRuns,
}

/// Columns of a value in [`KeyPanels::inner`]: whole panels.
pub(super) fn value_cols(shape: AttentionShape) -> usize {
    shape.head_dim.next_multiple_of(PANEL)
}

impl KeyPanels {
    /// A column for each key, as `. K^T` reads them: by strips, head_dim x [`strip_columns`]. `column` is where a head begins in a row.
    pub(super) fn across(
        qkv: &Tensor,
        layout: &Layout,
        shape: AttentionShape,
        segments: impl Iterator<Item = usize>,
        kv_heads: Range<usize>,
        column: impl Fn(usize) -> usize + Sync,
    ) -> Self {
        let width = strip_columns();
        Self::new(
            qkv.device(),
            layout,
            segments,
            kv_heads,
            shape.head_dim * PANEL,
            |panel, kv_head, first, n| {
                for (strip, out) in panel.chunks_exact_mut(width * shape.head_dim).enumerate() {
                    let (i, at) = (strip * width, column(kv_head));
                    let key = |r: usize| &qkv.row(first + i + r)[at..][..shape.head_dim];
                    rows_as_columns(key, width.min(n.saturating_sub(i)), shape.head_dim, out, width);
                }
            },
        )
    }

    /// A row for each key, as `. V` reads them: 32 x [`value_cols`], the columns beyond head_dim zero.
    pub(super) fn inner(
        qkv: &Tensor,
        layout: &Layout,
        shape: AttentionShape,
        segments: impl Iterator<Item = usize>,
        kv_heads: Range<usize>,
        column: impl Fn(usize) -> usize + Sync,
    ) -> Self {
        let width = value_cols(shape);
        Self::new(qkv.device(), layout, segments, kv_heads, width * PANEL, |panel, kv_head, first, n| {
            for (i, row) in panel.chunks_exact_mut(width).take(n).enumerate() {
                let (value, filling) = row.split_at_mut(shape.head_dim);
                value.copy_from_slice(&qkv.row(first + i)[column(kv_head)..][..shape.head_dim]);
                filling.fill(0.0);
            }
        })
    }

    /// `put(panel, kv_head, first, n)` writes the keys of a panel: `n` rows of the batch from `first` on.
    fn new(
        device: &Device,
        layout: &Layout,
        segments: impl Iterator<Item = usize>,
        kv_heads: Range<usize>,
        size: usize,
        put: impl Fn(&mut [f32], usize, usize, usize) + Sync,
    ) -> Self {
        let keys = KeyRuns::new(layout, segments, PANEL);
        let n_panels = keys.rows.len();
        let mut panels = Tensor::scratch_on(device, kv_heads.len() * n_panels, size);
        if let Device::Sizes(sizes) = device {
            sizes.did_rows(2 * panels.len());
            return Self { panels, first_head: kv_heads.start, keys };
        }
        let write = |(index, panel): (usize, &mut [f32])| {
            let (kv_head, (first, n)) = (kv_heads.start + index / n_panels, keys.rows[index % n_panels]);
            put(panel, kv_head, first, n);
        };
        if is_alone() {
            panels.data_mut().chunks_mut(size).enumerate().for_each(write);
        } else {
            panels.data_mut().par_chunks_mut(size).enumerate().with_min_len(8).for_each(write);
        }
        Self { panels, first_head: kv_heads.start, keys }
    }

    /// Writes `row . key` for a row of each query of a tile and its keys, if the panels are [`Self::across`]: row by row
    /// of `scores`, of [`TILE_KEYS`] columns. Beyond the keys that a query sees they mean nothing.
    #[inline(always)]
    pub(super) fn scores<S: Simd, const MR: usize, const NV: usize>(
        &self,
        simd: S,
        kv_head: usize,
        keys: KeyTile,
        rows: &[&[f32]],
        scores: &mut Tensor,
    ) {
        let scores = scores.data_mut();
        let (width, depth) = (strip::<S, NV>(), self.panels.cols() / PANEL);
        let strips = self.from(kv_head, keys).chunks_exact(width * depth);
        for (index, strip) in strips.take(keys.len.div_ceil(width)).enumerate() {
            // Earlier queries see none of the strip's keys. Whole register tiles are left out.
            let first = keys.first_that_sees(index * width).min(rows.len()) / MR * MR;
            rows_by_strip::<S, MR, NV>(
                simd,
                &rows[first..],
                strip,
                width,
                depth,
                #[inline(always)]
                |row, products| {
                    let to = &mut scores[(first + row) * TILE_KEYS + index * width..][..width];
                    S::as_mut_simd_f32s(to).0.copy_from_slice(&products);
                },
            );
        }
    }

    /// `put(query, sum_key weights[query][key] * key)` for each query of a tile and the keys of a tile that it sees, if the
    /// panels are [`Self::inner`]: the columns of a strip from `column` on. Weights of keys that a query does not see, as
    /// far as another does, are zero. Give `put` as a closure marked `#[inline(always)]`.
    #[inline(always)]
    pub(super) fn weighted<S: Simd, const MR: usize, const NV: usize>(
        &self,
        simd: S,
        kv_head: usize,
        keys: KeyTile,
        column: usize,
        weights: &[&[f32]],
        mut put: impl FnMut(usize, [S::f32s; NV]),
    ) {
        let (columns, stride) = (&self.from(kv_head, keys)[column..], self.panels.cols() / PANEL);
        for (first, some) in (0..).step_by(MR).zip(weights.chunks(MR)) {
            let seen = keys.visible(first + some.len() - 1);
            rows_by_strip::<S, MR, NV>(
                simd,
                some,
                columns,
                stride,
                seen,
                #[inline(always)]
                |row, products| put(first + row, products),
            );
        }
    }

    /// The panels of a tile of keys, and all after them.
    pub(super) fn from(&self, kv_head: usize, keys: KeyTile) -> &[f32] {
        let first = (kv_head - self.first_head) * self.keys.rows.len() + self.keys.of(keys, PANEL);
        &self.panels.data()[first * self.panels.cols()..]
    }
}
