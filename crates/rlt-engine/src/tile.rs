//! The register tile of decoding: a few rows times a panel of contiguous columns.

use pulp::Simd;

/// Columns of a panel of [`crate::packed::PackedWeight`].
pub(crate) const PANEL: usize = 32;

/// `sum_k a[r][k] * b[k * b_stride ..]` for `MR` rows and `NV` vectors of columns, in the order of
/// k: an element's bits do not depend on `MR`, on the other rows, or on the columns beside it.
///
/// `ahead` is what will be read after `b`, in the same shape: it is asked for line by line while this
/// tile computes, so that it arrives meanwhile.
#[inline(always)]
pub(crate) fn tile<S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    a: [&[f32]; MR],
    b: &[f32],
    b_stride: usize,
    depth: usize,
    ahead: Option<&[f32]>,
) -> [[S::f32s; NV]; MR] {
    let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
    let width = NV * S::F32_LANES;
    assert!(depth == 0 || b.len() >= (depth - 1) * b_stride + width, "columns of a tile");
    for row in a {
        assert!(row.len() >= depth, "rows of a tile");
    }
    for k in 0..depth {
        // SAFETY: both lie inside their slices by the two assertions above; checks in this loop
        // would cost a third of the speed.
        let columns = unsafe { b.get_unchecked(k * b_stride..k * b_stride + width) };
        let (columns, _) = S::as_simd_f32s(columns);
        if let Some(ahead) = ahead {
            prefetch(ahead, k * b_stride, width);
        }
        for r in 0..MR {
            // SAFETY: as above.
            let x = simd.splat_f32s(unsafe { *a[r].get_unchecked(k) });
            for v in 0..NV {
                sums[r][v] = simd.mul_add_f32s(x, columns[v], sums[r][v]);
            }
        }
    }
    sums
}

/// One panel's product with many rows: `put(r, sums)` for each of them, [`tile`] by `tile`, as many rows
/// together as `MR`. Give `put` as a closure marked `#[inline(always)]`.
#[inline(always)]
pub(crate) fn rows_by_panel<S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    rows: &[&[f32]],
    panel: &[f32],
    stride: usize,
    depth: usize,
    mut put: impl FnMut(usize, [S::f32s; NV]),
) {
    // The loops over a tile's rows are short enough to be unrolled whole: a sum that is looked up by a
    // running index would live in memory, through the whole product.
    let mut first = 0;
    while let Some(some) = rows[first..].first_chunk::<MR>() {
        let sums = tile::<S, MR, NV>(simd, *some, panel, stride, depth, None);
        for r in 0..MR {
            put(first + r, sums[r]);
        }
        first += MR;
    }
    while let Some(some) = rows[first..].first_chunk::<4>() {
        let sums = tile::<S, 4, NV>(simd, *some, panel, stride, depth, None);
        for r in 0..4 {
            put(first + r, sums[r]);
        }
        first += 4;
    }
    for (row, some) in rows.iter().enumerate().skip(first) {
        let [sums] = tile::<S, 1, NV>(simd, [some], panel, stride, depth, None);
        put(row, sums);
    }
}

/// Asks for `width` values of four bytes of `ahead` from `offset` on, without waiting for them.
#[inline(always)]
pub(crate) fn prefetch<T>(ahead: &[T], offset: usize, width: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..width).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch of any address changes nothing but caches.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(ahead.as_ptr().wrapping_add(offset + line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (ahead, offset, width);
}
