//! Where the gradients of keys and values are summed while the tiles of queries pass by.

use super::key_panels::value_cols;
use super::key_runs::KeyTile;
use super::layout::{AttentionShape, Layout};
use crate::device::Device;
use crate::parallel::SharedMut;
use crate::tensor::Tensor;

/// Gradients of one head's keys and values, of a family of segments: in rows without gaps, which stay in the
/// second-level cache, where rows a whole row of the batch apart would share its lines.
pub(super) struct KeyGradients<'a> {
    layout: &'a Layout,
    shape: AttentionShape,
    /// Segments, the shared prefix first.
    family: &'a [usize],
    /// First row of each of them.
    first: Vec<usize>,
    /// Of keys, and of values: rows of [`value_cols`].
    sums: [Tensor; 2],
}

impl<'a> KeyGradients<'a> {
    /// All zero.
    pub(super) fn new(
        device: &Device,
        layout: &'a Layout,
        shape: AttentionShape,
        family: &'a [usize],
    ) -> Self {
        let (mut first, mut rows) = (Vec::with_capacity(family.len()), 0);
        for &index in family {
            first.push(rows);
            rows += layout.segments()[index].len;
        }
        let sums = [(); 2].map(|()| Tensor::zeros_on(device, rows, value_cols(shape)));
        Self { layout, shape, family, first, sums }
    }

    /// Those of keys, and of values, from the first key of a tile on.
    pub(super) fn from(&mut self, keys: KeyTile) -> [&mut [f32]; 2] {
        let segment = self.family.iter().position(|index| *index == keys.segment).expect("a family's keys");
        let at = (self.first[segment] + keys.first) * value_cols(self.shape);
        self.sums.each_mut().map(|sums| &mut sums.data_mut()[at..])
    }

    /// Writes all of them.
    ///
    /// # Safety
    /// No other task may touch the family's rows of this head in `dqkv`.
    pub(super) unsafe fn write(&self, dqkv: SharedMut, kv_head: usize) {
        let columns = [self.shape.key_col(kv_head), self.shape.value_col(kv_head)];
        for (sums, column) in self.sums.iter().zip(columns) {
            for (&index, first) in self.family.iter().zip(&self.first) {
                let segment = self.layout.segments()[index];
                let at = first * sums.cols();
                let rows = &sums.data()[at..at + segment.len * sums.cols()];
                // SAFETY: passed on to the caller.
                unsafe { write_head(dqkv, self.shape, segment.start, column, rows) };
            }
        }
    }
}

/// Writes a head's gradients (rows of [`value_cols`]) to its columns of `dqkv`, which begin at `column`, from `row` on.
///
/// # Safety
/// These rows and columns must lie inside `dqkv`, and no other task may touch them.
pub(super) unsafe fn write_head(
    dqkv: SharedMut,
    shape: AttentionShape,
    row: usize,
    column: usize,
    gradients: &[f32],
) {
    for (i, from) in gradients.chunks_exact(value_cols(shape)).enumerate() {
        let at = (row + i) * shape.qkv_cols() + column;
        // SAFETY: passed on to the caller.
        let to = unsafe { std::slice::from_raw_parts_mut(dqkv.get().add(at), shape.head_dim) };
        to.copy_from_slice(&from[..shape.head_dim]);
    }
}
