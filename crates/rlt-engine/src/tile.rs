//! The register tile of products in f32: a few rows times a panel of contiguous columns.

use pulp::{Simd, WithSimd};

use crate::simd::{Vectors, mul_add};

/// Columns of a panel, the unit in which matrices are laid out and shared among tasks: one strip or two.
pub(crate) const PANEL: usize = 32;

/// Rows of a register tile, at most.
pub(crate) const MAX_ROWS: usize = 12;

/// Columns of a strip: what a register tile spans, and how panels lie in memory, strip after strip. A power of two.
pub(crate) fn strip_columns() -> usize {
    match Vectors::in_use() {
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512(_) => PANEL,
        _ => PANEL / 2,
    }
}

/// As [`strip_columns`], of the vectors that a tile was chosen for.
pub(crate) const fn strip<S: Simd, const NV: usize>() -> usize {
    NV * S::F32_LANES
}

/// Work by register tiles of `MR` rows and `NV` vectors, which are one strip. To be dispatched inside [`Tiled`]; mark
/// the implementation `#[inline(always)]`.
pub(crate) trait ByTiles {
    fn run<S: Simd, const MR: usize, const NV: usize>(self, simd: S);
}

/// Chooses the tile by the registers there are: 32 with AVX-512 and NEON, 16 otherwise. They hold the sums, a step's
/// columns and one number of a row; the squarer the tile, the less a step loads for what it computes.
pub(crate) struct Tiled<W>(pub W);

impl<W: ByTiles> WithSimd for Tiled<W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (S::F32_LANES, S::REGISTER_COUNT) {
            (16, _) => self.0.run::<S, MAX_ROWS, 2>(simd),
            (8, _) => self.0.run::<S, 6, 2>(simd),
            (_, 32) => self.0.run::<S, 6, 4>(simd),
            _ => self.0.run::<S, 3, 4>(simd),
        }
    }
}

/// What a tile asks for while it computes, so that it arrives meanwhile.
#[derive(Clone, Copy)]
pub(crate) enum Ahead<'a> {
    Nothing,
    /// Its own right factor, some steps ahead: it comes from the second-level cache.
    Near,
    /// What is read after this tile, in the same shape: it comes from memory.
    Far(&'a [f32]),
    /// The left factor's rows of the next tile, so many elements a step: they come from the second-level cache.
    Rows {
        next: &'a [f32],
        step: usize,
    },
    /// A share of what later tiles read, in the order of memory, which it comes from: so many elements of four bytes a step, at most
    /// as many as the tile's own right factor has.
    Share {
        next: &'a [f32],
        step: usize,
    },
}

/// Steps that [`Ahead::Near`] looks ahead.
const NEAR_STEPS: usize = 16;

impl Ahead<'_> {
    /// Whether there is something to ask for in step `i` of a turn. Rows of a left factor take less than half of a cache line a step;
    /// a share is asked for once a turn, which needs fewer registers.
    #[inline(always)]
    fn asks_in(self, i: usize) -> bool {
        match self {
            Self::Nothing | Self::Near | Self::Far(_) => true,
            Self::Rows { .. } => i.is_multiple_of(2),
            Self::Share { .. } => i == 0,
        }
    }

    /// In step `k` of a tile that reads `width` elements of `right` every `stride`, by so many steps a turn.
    #[inline(always)]
    pub(crate) fn ask<T>(self, right: &[T], k: usize, stride: usize, width: usize, turn: usize) {
        match self {
            Self::Nothing => {}
            Self::Near => prefetch::<T, true>(right, (k + NEAR_STEPS) * stride, width),
            Self::Far(next) => prefetch::<f32, false>(next, k * stride, width),
            Self::Rows { next, step } => prefetch::<f32, true>(next, k * step, step),
            Self::Share { next, step } => prefetch::<f32, false>(next, k * step, turn * width),
        }
    }
}

/// Rows of a left factor as [`tile`] reads them.
#[inline(always)]
pub(crate) fn left_rows<const MR: usize>(
    rows: [&[f32]; MR],
    depth: usize,
) -> impl Fn(usize, usize) -> f32 + Copy {
    for row in rows {
        assert!(row.len() >= depth, "rows of a tile");
    }
    // SAFETY: a tile asks for k below its depth only; checks in its loop would cost a third of the speed.
    #[inline(always)]
    move |r, k| unsafe { *rows[r].get_unchecked(k) }
}

/// `sum_k left(r, k) * right[k * stride ..]` for `MR` rows and `NV` vectors of columns, k below `depth`, in the
/// order of k: an element's bits do not depend on `MR`, on the other rows, or on the columns beside it. Give `left` as a
/// closure marked `#[inline(always)]`.
#[inline(always)]
pub(crate) fn tile<S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    left: impl Fn(usize, usize) -> f32,
    right: &[f32],
    stride: usize,
    depth: usize,
    ahead: Ahead,
) -> [[S::f32s; NV]; MR] {
    let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
    let width = NV * S::F32_LANES;
    assert!(depth == 0 || right.len() >= (depth - 1) * stride + width, "columns of a tile");
    let steps = Steps { left, right, stride, ahead };
    if S::REGISTER_COUNT > 16 {
        for k in 0..depth {
            steps.add(simd, k, 1, &mut sums);
        }
        return sums;
    }
    // Processors with 16 registers have narrower vectors, and a step's own work is a larger part of it: four in a turn, which ask
    // for no cache line twice, gain 30 to 40 % (AMD Zen 3), eight lose as much.
    let whole = depth / UNROLLED * UNROLLED;
    for k in (0..whole).step_by(UNROLLED) {
        for i in 0..UNROLLED {
            steps.add(simd, k + i, if ahead.asks_in(i) { UNROLLED } else { 0 }, &mut sums);
        }
    }
    for k in whole..depth {
        steps.add(simd, k, 1, &mut sums);
    }
    sums
}

/// Steps that a turn of a tile's loop takes where there are 16 registers.
const UNROLLED: usize = 4;

/// What a tile reads step by step: as [`tile`] takes it.
struct Steps<'a, L> {
    left: L,
    right: &'a [f32],
    stride: usize,
    ahead: Ahead<'a>,
}

impl<L: Fn(usize, usize) -> f32> Steps<'_, L> {
    /// Adds step `k` to the sums, and asks for what comes later if `turn`, the steps of a turn, is not 0. The tile has made sure that
    /// the step's columns are there.
    #[inline(always)]
    fn add<S: Simd, const MR: usize, const NV: usize>(
        &self,
        simd: S,
        k: usize,
        turn: usize,
        sums: &mut [[S::f32s; NV]; MR],
    ) {
        let width = NV * S::F32_LANES;
        // SAFETY: inside its slice by the tile's assertion; a check in its loop would cost a third of the speed.
        let columns = unsafe { self.right.get_unchecked(k * self.stride..k * self.stride + width) };
        let (columns, _) = S::as_simd_f32s(columns);
        if turn > 0 {
            self.ahead.ask(self.right, k, self.stride, width, turn);
        }
        for r in 0..MR {
            let x = simd.splat_f32s((self.left)(r, k));
            for v in 0..NV {
                sums[r][v] = mul_add(simd, x, columns[v], sums[r][v]);
            }
        }
    }
}

/// A strip's product with many rows: `put(r, sums)` for each of them, [`tile`] by `tile`, as many rows
/// together as `MR`. Give `put` as a closure marked `#[inline(always)]`.
#[inline(always)]
pub(crate) fn rows_by_strip<S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    rows: &[&[f32]],
    columns: &[f32],
    stride: usize,
    depth: usize,
    mut put: impl FnMut(usize, [S::f32s; NV]),
) {
    // The loops over a tile's rows are short enough to be unrolled whole: a sum that is looked up by a
    // running index would live in memory, through the whole product.
    let mut first = 0;
    while let Some(some) = rows[first..].first_chunk::<MR>() {
        let sums = tile::<S, MR, NV>(simd, left_rows(*some, depth), columns, stride, depth, Ahead::Nothing);
        for r in 0..MR {
            put(first + r, sums[r]);
        }
        first += MR;
    }
    while let Some(some) = rows[first..].first_chunk::<4>() {
        let sums = tile::<S, 4, NV>(simd, left_rows(*some, depth), columns, stride, depth, Ahead::Nothing);
        for r in 0..4 {
            put(first + r, sums[r]);
        }
        first += 4;
    }
    for (row, some) in rows.iter().enumerate().skip(first) {
        let [sums] = tile::<S, 1, NV>(simd, left_rows([some], depth), columns, stride, depth, Ahead::Nothing);
        put(row, sums);
    }
}

/// Asks for `width` values of four bytes of `ahead` from `offset` on, without waiting for them: to the first-level
/// cache (`NEAR`) or the second.
#[inline(always)]
pub(crate) fn prefetch<T, const NEAR: bool>(ahead: &[T], offset: usize, width: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..width).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        let at = ahead.as_ptr().wrapping_add(offset + line).cast();
        // SAFETY: a prefetch of any address changes nothing but caches.
        unsafe {
            if NEAR {
                _mm_prefetch::<_MM_HINT_T0>(at);
            } else {
                _mm_prefetch::<_MM_HINT_T1>(at);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (ahead, offset, width);
}
