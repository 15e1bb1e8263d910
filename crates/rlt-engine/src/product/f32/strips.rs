//! A right factor that lies in rows, laid out in strips.

use rayon::prelude::*;

use super::factors::View;
use crate::device::Device;
use crate::parallel::SharedMut;
use crate::tensor::Tensor;
use crate::tile::{PANEL, strip_columns};

/// Rows that a task lays out.
const ROWS: usize = 32;

/// The `depth` rows of `n` columns, as [`super::Right::Panels`] has them: strip after strip, whole panels of them, zero beyond the
/// last column.
pub(super) fn in_strips(device: &Device, rows: View, depth: usize, n: usize) -> Tensor {
    let width = strip_columns();
    let mut strips = Tensor::scratch_on(device, n.div_ceil(PANEL), depth * PANEL);
    if let Device::Sizes(sizes) = device {
        sizes.did_rows(2 * strips.len());
        return strips;
    }
    let out = SharedMut(strips.data_mut().as_mut_ptr());
    (0..depth.div_ceil(ROWS)).into_par_iter().for_each(|task| {
        for k in task * ROWS..depth.min((task + 1) * ROWS) {
            let row = &rows.from(k, 0)[..n];
            for index in 0..n.div_ceil(PANEL) * (PANEL / width) {
                // SAFETY: there is a row of this strip for every k below the depth, and this task alone writes this one.
                let to = unsafe {
                    std::slice::from_raw_parts_mut(out.get().add((index * depth + k) * width), width)
                };
                let from = row.get(index * width..).unwrap_or_default();
                let columns = from.len().min(width);
                to[..columns].copy_from_slice(&from[..columns]);
                to[columns..].fill(0.0);
            }
        }
    });
    strips
}
