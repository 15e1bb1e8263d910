//! The tasks of attention's backward pass with products in f32.

use pulp::Simd;

use super::backward_tile::{Inputs, RowSums, Scratch};
use super::key_gradients::{KeyGradients, write_head};
use super::key_panels::{KeyPanels, value_cols};
use super::key_runs::{KeyTile, TILE_KEYS};
use crate::parallel::SharedMut;
use crate::simd::Vectors;
use crate::tensor::Tensor;
use crate::tile::{Ahead, ByTiles, Tiled, strip, tile};

/// Queries of a tile: a multiple of the rows of a register tile.
const QUERIES: usize = 48;

/// One key/value head of a family of segments. Its keys and values are laid out once; the tiles of queries pass by.
pub(super) struct FamilyHead<'a> {
    inputs: &'a Inputs<'a>,
    /// Segments, the shared prefix first.
    family: &'a [usize],
    kv_head: usize,
    keys_across: KeyPanels,
    values_across: KeyPanels,
    keys_inner: KeyPanels,
    gradients: KeyGradients<'a>,
}

/// One head's queries of a tile, in rows without gaps as [`KeyGradients`].
pub(super) struct Queries {
    /// Rows of [`value_cols`].
    q: Tensor,
    dout: Tensor,
    /// The queries' gradients.
    dq: Tensor,
}

impl Queries {
    pub(super) fn new(inputs: &Inputs) -> Self {
        let new = || Tensor::zeros_on(inputs.qkv.device(), QUERIES, value_cols(inputs.shape));
        Self { q: new(), dout: new(), dq: new() }
    }
}

impl<'a> FamilyHead<'a> {
    pub(super) fn new(inputs: &'a Inputs<'a>, family: &'a [usize], kv_head: usize) -> Self {
        let Inputs { qkv, layout, shape, .. } = *inputs;
        let (key, value) = (|head| shape.key_col(head), |head| shape.value_col(head));
        let (segments, heads) = (|| family.iter().copied(), kv_head..kv_head + 1);
        Self {
            inputs,
            family,
            kv_head,
            keys_across: KeyPanels::across(qkv, layout, shape, segments(), heads.clone(), key),
            values_across: KeyPanels::across(qkv, layout, shape, segments(), heads.clone(), value),
            keys_inner: KeyPanels::inner(qkv, layout, shape, segments(), heads, key),
            gradients: KeyGradients::new(qkv.device(), layout, shape, family),
        }
    }

    /// Writes the gradients of this head's keys and values and of the queries that see them.
    ///
    /// # Safety
    /// No other task may touch these rows and heads of `dqkv`.
    pub(super) unsafe fn write_gradients(
        self,
        scratch: &mut Scratch,
        queries: &mut Queries,
        dqkv: SharedMut,
    ) {
        Vectors::in_use().run(Tiled(Task { head: self, scratch, queries, dqkv }));
    }
}

struct Task<'a, 'b> {
    head: FamilyHead<'a>,
    scratch: &'b mut Scratch,
    queries: &'b mut Queries,
    dqkv: SharedMut,
}

impl ByTiles for Task<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, const MR: usize, const NV: usize>(mut self, simd: S) {
        let FamilyHead { inputs, family, kv_head, .. } = self.head;
        let (shape, segments) = (inputs.shape, inputs.layout.segments());
        for &index in family {
            for first in (0..segments[index].len).step_by(QUERIES) {
                for head in kv_head * shape.queries_per_kv()..(kv_head + 1) * shape.queries_per_kv() {
                    self.tile::<S, MR, NV>(simd, index, first, head);
                }
            }
        }
        // SAFETY: a task's rows and heads are its own.
        unsafe { self.head.gradients.write(self.dqkv, kv_head) };
    }
}

impl Task<'_, '_> {
    /// Adds the gradients that one head of one query tile gives to its keys and values, and writes its own:
    /// with P = softmax(Q K^T scale), `dV += P^T dO`, `dP = dO V^T`,
    /// `dS = P * (dP - rowsum(dO * O)) scale`, `dQ = dS K`, `dK += dS^T Q`.
    #[inline(always)]
    fn tile<S: Simd, const MR: usize, const NV: usize>(
        &mut self,
        simd: S,
        segment: usize,
        first: usize,
        head: usize,
    ) {
        let FamilyHead { inputs, kv_head, .. } = self.head;
        let (shape, start) = (inputs.shape, inputs.layout.segments()[segment].start);
        let (hd, vd) = (shape.head_dim, value_cols(shape));
        let n = QUERIES.min(inputs.layout.segments()[segment].len - first);
        let row0 = start + first;
        let sums = RowSums::new(inputs, row0, n, head);
        let Queries { q, dout, dq } = &mut *self.queries;
        for (to, from) in [(&mut *q, inputs.qkv), (&mut *dout, inputs.dout)] {
            for (i, to) in to.data_mut().chunks_exact_mut(vd).take(n).enumerate() {
                to[..hd].copy_from_slice(&from.row(row0 + i)[head * hd..][..hd]);
            }
        }
        let (q, dout) = (q.data(), dout.data());
        let [q_rows, dout_rows] = [q, dout].map(|x| x.chunks_exact(vd).take(n).collect::<Vec<_>>());

        let scratch = &mut *self.scratch;
        let dq = &mut dq.data_mut()[..n * vd];
        dq.fill(0.0);
        for keys in inputs.layout.key_tiles(segment, first, n, shape) {
            let FamilyHead { keys_across, values_across, keys_inner, gradients, .. } = &mut self.head;
            keys_across.scores::<S, MR, NV>(simd, kv_head, keys, &q_rows, &mut scratch.p);
            values_across.scores::<S, MR, NV>(simd, kv_head, keys, &dout_rows, &mut scratch.dp);
            scratch.softmax_backward(keys, n, &sums, shape.scale());

            let [dk, dv] = gradients.from(keys);
            let (p, ds) = (scratch.p.data(), scratch.dp.data());
            let ds_rows: Vec<&[f32]> = ds.chunks_exact(TILE_KEYS).take(n).collect();
            for column in (0..shape.head_dim).step_by(strip::<S, NV>()) {
                let of_keys = [(p, dout, &mut *dv), (ds, q, &mut *dk)];
                for (weights, right, to) in of_keys {
                    let (right, out) = (&right[column..], &mut to[column..]);
                    Across { weights, keys, n, right, out, stride: vd }.add::<S, MR, NV>(simd);
                }
                keys_inner.weighted::<S, MR, NV>(
                    simd,
                    kv_head,
                    keys,
                    column,
                    &ds_rows,
                    #[inline(always)]
                    |query, products| add::<S, NV>(simd, &mut dq[query * vd + column..], products),
                );
            }
        }
        // SAFETY: a task's rows and heads are its own.
        unsafe { write_head(self.dqkv, shape, row0, head * hd, dq) };
    }
}

/// `sum_i weights[i][key] * right[i]` for each key of a tile, over the queries of a tile that see it.
struct Across<'a> {
    /// Of `n` queries, in rows of [`TILE_KEYS`].
    weights: &'a [f32],
    keys: KeyTile,
    n: usize,
    /// A row a query, `stride` apart; at the column where a strip begins.
    right: &'a [f32],
    /// What the sums are added to: a row a key, as far apart.
    out: &'a mut [f32],
    stride: usize,
}

impl Across<'_> {
    #[inline(always)]
    fn add<S: Simd, const MR: usize, const NV: usize>(mut self, simd: S) {
        let (keys, mut key) = (self.keys.len, 0);
        while key + MR <= keys {
            self.add_some::<S, MR, NV>(simd, key);
            key += MR;
        }
        while key + 4 <= keys {
            self.add_some::<S, 4, NV>(simd, key);
            key += 4;
        }
        while key < keys {
            self.add_some::<S, 1, NV>(simd, key);
            key += 1;
        }
    }

    /// Adds to the rows of `MR` keys from `key` on.
    #[inline(always)]
    fn add_some<S: Simd, const MR: usize, const NV: usize>(&mut self, simd: S, key: usize) {
        // Weights of earlier queries, which see none of these keys, are zero.
        let first = self.keys.first_that_sees(key).min(self.n - 1);
        let (queries, stride) = (self.n - first, self.stride);
        let (weights, right) = (&self.weights[first * TILE_KEYS + key..], &self.right[first * stride..]);
        assert!(weights.len() >= (queries - 1) * TILE_KEYS + MR, "weights of a tile");
        let sums = tile::<S, MR, NV>(
            simd,
            // SAFETY: r < MR and i < queries, so it lies inside by the assertion above.
            #[inline(always)]
            |r, i| unsafe { *weights.get_unchecked(i * TILE_KEYS + r) },
            right,
            stride,
            queries,
            Ahead::Nothing,
        );
        for r in 0..MR {
            add::<S, NV>(simd, &mut self.out[(key + r) * stride..], sums[r]);
        }
    }
}

/// Adds a panel's sums.
#[inline(always)]
fn add<S: Simd, const NV: usize>(simd: S, out: &mut [f32], sums: [S::f32s; NV]) {
    let (out, _) = S::as_mut_simd_f32s(&mut out[..strip::<S, NV>()]);
    for v in 0..NV {
        out[v] = simd.add_f32s(out[v], sums[v]);
    }
}
