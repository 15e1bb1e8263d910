//! Token embedding: rows of a table.

use crate::device::Device;
use crate::parallel::for_row_blocks;
use crate::tensor::Tensor;

/// Row `i` of the result (M x D) is row `ids[i]` of `table` (V x D).
///
/// # Panics
/// If an id is not below V.
pub fn embed(ids: &[u32], table: &Tensor) -> Tensor {
    if let Some(gpu) = table.gpu() {
        let rows = match table.halves() {
            Some(halves) => gpu.gather_widened_rows(halves, table.cols(), ids),
            None => gpu.gather_rows(table.memory(), table.cols(), ids),
        };
        return Tensor::of_memory(rows, ids.len(), table.cols());
    }
    let d = table.cols();
    let mut out = table.beside(ids.len(), d);
    if let Device::Sizes(sizes) = table.device() {
        sizes.did_rows(2 * out.len());
        return out;
    }
    for_row_blocks(out.data_mut(), d, |first, rows| {
        for (i, row) in rows.chunks_exact_mut(d).enumerate() {
            table.copy_row(ids[first + i] as usize, row);
        }
    });
    out
}

/// Backward pass of [`embed`]: adds each row of `dout` to its token's row of `dtable`, in order.
pub fn embed_backward(ids: &[u32], dout: &Tensor, dtable: &mut Tensor) {
    let d = dtable.cols();
    if let Device::Sizes(sizes) = dtable.device() {
        return sizes.did_rows(3 * ids.len() * d);
    }
    if let Some(gpu) = dtable.gpu() {
        return gpu.scatter_add_rows(dtable.memory_mut(), d, ids, dout.memory());
    }
    for (i, &id) in ids.iter().enumerate() {
        let at = id as usize * d;
        for (t, g) in dtable.data_mut()[at..at + d].iter_mut().zip(dout.row(i)) {
            *t += g;
        }
    }
}

/// Multiplies `x` (M x D) by a factor: embedded rows, or their gradient.
pub fn scale(x: &mut Tensor, factor: f32) {
    let d = x.cols();
    if let Device::Sizes(sizes) = x.device() {
        return sizes.did_rows(2 * x.len());
    }
    if let Some(gpu) = x.gpu() {
        return gpu.scale(x.memory_mut(), factor);
    }
    for_row_blocks(x.data_mut(), d, |_, rows| rows.iter_mut().for_each(|value| *value *= factor));
}
