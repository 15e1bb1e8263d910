//! Keys and values rounded to bf16, laid out tile by tile as the products of attention read them.

use pulp::bytemuck;
use rayon::prelude::*;

use super::key_runs::{KeyRuns, KeyTile, TILE_KEYS};
use super::layout::{AttentionShape, Layout};
use crate::buffer::{self, Buffer};
use crate::device::Device;
use crate::product::bf16::{LaidOut, Pairs, View};
use crate::tensor::Tensor;

/// A right factor that keys or values are laid out as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Factor {
    /// A column for each key, components inner: `. K^T`.
    KeysAcross,
    /// A row for each key, keys inner: `. K`.
    KeysInner,
    /// As [`Self::KeysAcross`], of values.
    ValuesAcross,
    /// As [`Self::KeysInner`], of values.
    ValuesInner,
}

/// Some factors of every tile of keys of some segments, for some key/value heads.
pub(super) struct KeyTiles<'a, const N: usize> {
    layout: &'a Layout,
    shape: AttentionShape,
    factors: [Factor; N],
    /// By head, then tile by tile.
    words: Buffer,
    first_head: usize,
    /// A run of keys a tile, those of one head.
    runs: KeyRuns,
}

/// Words of one factor: both ends are filled up to 32.
fn factor_words(shape: AttentionShape) -> usize {
    TILE_KEYS * shape.head_dim.next_multiple_of(32) / 2
}

impl<'a, const N: usize> KeyTiles<'a, N> {
    /// Lays out the given factors of `segments`.
    pub(super) fn new(
        qkv: &Tensor,
        layout: &'a Layout,
        shape: AttentionShape,
        segments: impl Iterator<Item = usize>,
        kv_heads: std::ops::Range<usize>,
        factors: [Factor; N],
    ) -> Self {
        let runs = KeyRuns::new(layout, segments, TILE_KEYS);
        let (n_tiles, size) = (runs.rows.len(), factor_words(shape));
        let mut words = buffer::take(qkv.device(), kv_heads.len() * n_tiles * N * size);
        if let Device::Sizes(sizes) = qkv.device() {
            sizes.did_rows(2 * kv_heads.len() * n_tiles * N * size);
            return Self { layout, shape, factors, words, first_head: kv_heads.start, runs };
        }
        let all: &mut [u32] = bytemuck::cast_slice_mut(&mut words);
        all.par_chunks_mut((N * size).max(1)).enumerate().with_min_len(4).for_each(|(index, words)| {
            let (kv_head, (row, n)) = (kv_heads.start + index / n_tiles, runs.rows[index % n_tiles]);
            let view = |column| head_view(qkv, row, column, n, shape.head_dim);
            let (k, v) = (view(shape.key_col(kv_head)), view(shape.value_col(kv_head)));
            for (factor, words) in factors.iter().zip(words.chunks_exact_mut(size)) {
                let _ = match factor {
                    Factor::KeysAcross => Pairs::lay_out_rows(k, words),
                    Factor::KeysInner => Pairs::lay_out_columns(k, words),
                    Factor::ValuesAcross => Pairs::lay_out_rows(v, words),
                    Factor::ValuesInner => Pairs::lay_out_columns(v, words),
                };
            }
        });
        Self { layout, shape, factors, words, first_head: kv_heads.start, runs }
    }

    /// The factors of one tile, in the order that was asked for. All keys of the tile were laid out, of which a
    /// tile of queries may see fewer.
    pub(super) fn get(&self, kv_head: usize, keys: KeyTile) -> [LaidOut<'_>; N] {
        let tile = (kv_head - self.first_head) * self.runs.rows.len() + self.runs.of(keys, TILE_KEYS);
        let size = factor_words(self.shape);
        let words: &[u32] = bytemuck::cast_slice(&self.words);
        let n = TILE_KEYS.min(self.layout.segments()[keys.segment].len - keys.first);
        std::array::from_fn(|i| LaidOut {
            words: &words[(tile * N + i) * size..][..size],
            tiles: match self.factors[i] {
                Factor::KeysAcross | Factor::ValuesAcross => self.shape.head_dim.div_ceil(32),
                Factor::KeysInner | Factor::ValuesInner => n.div_ceil(32),
            },
        })
    }
}

impl<const N: usize> Drop for KeyTiles<'_, N> {
    fn drop(&mut self) {
        buffer::give(std::mem::take(&mut self.words));
    }
}

/// One head's columns of some rows of `x`.
pub(super) fn head_view(x: &Tensor, row: usize, column: usize, n: usize, head_dim: usize) -> View<'_> {
    View::new(&x.data()[row * x.cols() + column..], x.cols(), n, head_dim)
}
