//! The tasks of attention's backward pass with products in bf16.

use pulp::bytemuck;

use super::backward_tile::{Inputs, RowSums, Scratch, TILE_QUERIES};
use super::key_runs::TILE_KEYS;
use super::key_tiles::{Factor, KeyTiles, head_view};
use crate::buffer::{self, Buffer};
use crate::output::Output;
use crate::parallel::SharedMut;
use crate::product::bf16::{Kernel, Left, Pairs, View, small_product};

/// One key/value head of a family of segments. Its keys and values are rounded and laid out once; the tiles of
/// queries pass by.
pub(super) struct FamilyHead<'a> {
    inputs: &'a Inputs<'a>,
    /// Segments, the shared prefix first.
    family: &'a [usize],
    kv_head: usize,
    keys: KeyTiles<'a, 3>,
}

/// Words of a factor that a tile of queries is: both ends are filled up to 32.
fn query_words(head_dim: usize) -> usize {
    TILE_QUERIES * head_dim.next_multiple_of(32) / 2
}

/// Words of probabilities as a left factor, either way.
const PROBABILITIES: usize = TILE_QUERIES * TILE_KEYS / 2;

impl<'a> FamilyHead<'a> {
    pub(super) fn new(inputs: &'a Inputs<'a>, family: &'a [usize], kv_head: usize) -> Self {
        let keys = KeyTiles::new(
            inputs.qkv,
            inputs.layout,
            inputs.shape,
            family.iter().copied(),
            kv_head..kv_head + 1,
            [Factor::KeysAcross, Factor::ValuesAcross, Factor::KeysInner],
        );
        Self { inputs, family, kv_head, keys }
    }

    /// Room for what a tile of queries lays out.
    pub(super) fn factors(&self) -> Buffer {
        let words = 4 * query_words(self.inputs.shape.head_dim) + PROBABILITIES;
        buffer::take(self.inputs.qkv.device(), words)
    }

    /// Adds the gradients of all queries of this head's family: of themselves, of keys and of values.
    ///
    /// # Safety
    /// No other task may touch these rows and heads of `dqkv`.
    pub(super) unsafe fn add_gradients(&self, scratch: &mut Scratch, dqkv: SharedMut) {
        let kernel = Kernel::of_this_cpu();
        let per_kv = self.inputs.shape.queries_per_kv();
        let mut factors = self.factors();
        let words: &mut [u32] = bytemuck::cast_slice_mut(&mut factors);
        kernel.on(|| {
            for &index in self.family {
                for first in (0..self.inputs.layout.segments()[index].len).step_by(TILE_QUERIES) {
                    for head in self.kv_head * per_kv..(self.kv_head + 1) * per_kv {
                        // SAFETY: passed on to the caller.
                        unsafe { self.tile(kernel, index, first, head, scratch, words, dqkv) };
                    }
                }
            }
        });
        buffer::give(factors);
    }

    /// As the f32 tile of [`super::backward_f32`], equation by equation.
    ///
    /// # Safety
    /// As [`Self::add_gradients`].
    unsafe fn tile(
        &self,
        kernel: Kernel,
        segment: usize,
        first: usize,
        head: usize,
        scratch: &mut Scratch,
        words: &mut [u32],
        dqkv: SharedMut,
    ) {
        let inputs = self.inputs;
        let (shape, segments) = (inputs.shape, inputs.layout.segments());
        let (hd, cols, scale) = (shape.head_dim, inputs.qkv.cols(), shape.scale());
        let size = query_words(hd);
        let n = TILE_QUERIES.min(segments[segment].len - first);
        let row0 = segments[segment].start + first;
        let sums = RowSums::new(inputs, row0, n, head);

        let (q_rows, words) = words.split_at_mut(size);
        let (do_rows, words) = words.split_at_mut(size);
        let (q_inner, words) = words.split_at_mut(size);
        let (do_inner, probabilities) = words.split_at_mut(size);
        let q = head_view(inputs.qkv, row0, head * hd, n, hd);
        let dout = head_view(inputs.dout, row0, head * hd, n, hd);
        let components = Left::of_rows(q).lay_out_all(q_rows);
        Left::of_rows(dout).lay_out_all(do_rows);
        let q_inner = Pairs::lay_out_columns(q, q_inner);
        let do_inner = Pairs::lay_out_columns(dout, do_inner);

        for keys in inputs.layout.key_tiles(segment, first, n, shape) {
            let key_row = segments[keys.segment].start + keys.first;
            let [key_columns, value_columns, keys_inner] = self.keys.get(self.kv_head, keys);
            let m = keys.len;
            let (p, dp) = (scratch.p.data_mut().as_mut_ptr(), scratch.dp.data_mut().as_mut_ptr());
            // SAFETY: a tile of the scratch buffers.
            unsafe {
                small_product(kernel, q_rows, components, key_columns, (n, m), p, TILE_KEYS, Output::Replace);
                small_product(
                    kernel,
                    do_rows,
                    components,
                    value_columns,
                    (n, m),
                    dp,
                    TILE_KEYS,
                    Output::Replace,
                );
            }
            scratch.softmax_backward(keys, n, &sums, scale);
            let (p, ds) =
                (View::new(scratch.p.data(), TILE_KEYS, n, m), View::new(scratch.dp.data(), TILE_KEYS, n, m));
            // SAFETY: row and column lie inside the matrix, and these rows and heads belong to this task.
            let at = |row: usize, col: usize| unsafe { dqkv.get().add(row * cols + col) };
            let (dq, dk, dv) = (
                at(row0, head * hd),
                at(key_row, shape.key_col(self.kv_head)),
                at(key_row, shape.value_col(self.kv_head)),
            );
            let add = Output::Accumulate;
            // SAFETY: as above.
            unsafe {
                let queries = Left::of_columns(p).lay_out_all(probabilities);
                small_product(kernel, probabilities, queries, do_inner, (m, hd), dv, cols, add);
                let key_tiles = Left::of_rows(ds).lay_out_all(probabilities);
                small_product(kernel, probabilities, key_tiles, keys_inner, (n, hd), dq, cols, add);
                let queries = Left::of_columns(ds).lay_out_all(probabilities);
                small_product(kernel, probabilities, queries, q_inner, (m, hd), dk, cols, add);
            }
        }
    }
}
