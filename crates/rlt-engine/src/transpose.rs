//! Rows that become columns, in squares of 16 x 16 words: reads and writes stay within a few cache lines.

use pulp::bytemuck;

#[cfg(target_arch = "x86_64")]
use crate::instructions::InstructionSet;

/// Rows and columns of a square.
const SIDE: usize = 16;

/// A square of words.
pub(crate) type Square = [[u32; SIDE]; SIDE];

/// Writes `n` rows of `depth` numbers, of which `row` gives each, as the first `n` columns of the rows of `out`, which are `stride`
/// numbers apart.
pub(crate) fn rows_as_columns<'a>(
    row: impl Fn(usize) -> &'a [f32],
    n: usize,
    depth: usize,
    out: &mut [f32],
    stride: usize,
) {
    for first in (0..n).step_by(SIDE) {
        let rows = SIDE.min(n - first);
        for k in (0..depth).step_by(SIDE) {
            let (columns, out) = (SIDE.min(depth - k), &mut out[k * stride + first..]);
            if rows == SIDE && columns == SIDE {
                let square: [[f32; SIDE]; SIDE] =
                    std::array::from_fn(|r| *row(first + r)[k..].first_chunk().expect("a row of a square"));
                transpose(bytemuck::cast_ref(&square), bytemuck::cast_slice_mut(out), stride);
                continue;
            }
            for r in 0..rows {
                for (out, value) in out.chunks_mut(stride).zip(&row(first + r)[k..k + columns]) {
                    out[r] = *value;
                }
            }
        }
    }
}

/// Row `r`, column `c` of `square` becomes row `c`, column `r` of `out`, whose rows are `stride` words apart.
pub(crate) fn transpose(square: &Square, out: &mut [u32], stride: usize) {
    assert!(out.len() >= (SIDE - 1) * stride + SIDE, "room for a transposed square");
    #[cfg(target_arch = "x86_64")]
    {
        let set = InstructionSet::in_use();
        if set >= InstructionSet::Avx512 {
            // SAFETY: the instructions are there; the output has room.
            return unsafe { in_registers(square, out.as_mut_ptr(), stride) };
        } else if set == InstructionSet::Avx2 {
            // SAFETY: as above.
            return unsafe { in_halves(square, out.as_mut_ptr(), stride) };
        }
    }
    for (c, row) in out.chunks_mut(stride).take(SIDE).enumerate() {
        for r in 0..SIDE {
            row[r] = square[r][c];
        }
    }
}

/// Quarter by quarter of 8 x 8 words, each by three rounds of exchanges, where scalar code would move word by word.
///
/// # Safety
/// `out` must have room for 16 rows of 16 words.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn in_halves(square: &Square, out: *mut u32, stride: usize) {
    use std::arch::x86_64::{
        _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_storeu_si256, _mm256_unpackhi_epi32,
        _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    };
    for (r, c) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
        // SAFETY: eight words from column 0 or 8 of 16.
        let rows: [_; 8] =
            std::array::from_fn(|i| unsafe { _mm256_loadu_si256(square[r + i][c..].as_ptr().cast()) });
        // Half h of `fours[i + j]`: column 4 h + j of rows i .. i + 4.
        let mut fours = rows;
        for i in [0, 4] {
            let [w, x, y, z] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
            let (wx, yz) = (_mm256_unpacklo_epi32(w, x), _mm256_unpacklo_epi32(y, z));
            fours[i] = _mm256_unpacklo_epi64(wx, yz);
            fours[i + 1] = _mm256_unpackhi_epi64(wx, yz);
            let (wx, yz) = (_mm256_unpackhi_epi32(w, x), _mm256_unpackhi_epi32(y, z));
            fours[i + 2] = _mm256_unpacklo_epi64(wx, yz);
            fours[i + 3] = _mm256_unpackhi_epi64(wx, yz);
        }
        for j in 0..4 {
            let (upper, lower) = (fours[j], fours[4 + j]);
            let columns = [
                _mm256_permute2x128_si256::<0x20>(upper, lower),
                _mm256_permute2x128_si256::<0x31>(upper, lower),
            ];
            for (half, column) in columns.into_iter().enumerate() {
                // SAFETY: row c + 4 half + j < 16, and eight words of it from r on.
                unsafe { _mm256_storeu_si256(out.add((c + 4 * half + j) * stride + r).cast(), column) };
            }
        }
    }
}

/// By three rounds of exchanges, within and then among quarters of registers.
///
/// # Safety
/// `out` must have room for 16 rows of 16 words.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn in_registers(square: &Square, out: *mut u32, stride: usize) {
    use std::arch::x86_64::{
        _mm512_loadu_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi32,
        _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };
    // SAFETY: each row of the square is 16 words.
    let rows: [_; 16] = std::array::from_fn(|r| unsafe { _mm512_loadu_si512(square[r].as_ptr().cast()) });
    // Quarter q of `fours[i + j]`: column 4 q + j of rows i .. i + 4.
    let mut fours = rows;
    for i in (0..16).step_by(4) {
        let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        fours[i] = _mm512_unpacklo_epi64(ab, cd);
        fours[i + 1] = _mm512_unpackhi_epi64(ab, cd);
        let (ab, cd) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        fours[i + 2] = _mm512_unpacklo_epi64(ab, cd);
        fours[i + 3] = _mm512_unpackhi_epi64(ab, cd);
    }
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        // Even quarters, then odd ones.
        let (ab, cd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
        let (even0, even2) = (_mm512_shuffle_i32x4::<0x88>(ab, cd), _mm512_shuffle_i32x4::<0xdd>(ab, cd));
        let (ab, cd) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
        let (odd1, odd3) = (_mm512_shuffle_i32x4::<0x88>(ab, cd), _mm512_shuffle_i32x4::<0xdd>(ab, cd));
        for (quarter, column) in [even0, odd1, even2, odd3].into_iter().enumerate() {
            // SAFETY: column 4 quarter + j < 16.
            unsafe { _mm512_storeu_si512(out.add((4 * quarter + j) * stride).cast(), column) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::numbers;

    #[test]
    fn rows_of_every_number_and_depth_become_columns() {
        for (n, depth, stride) in
            [(16, 16, 16), (16, 64, 16), (32, 48, 32), (17, 40, 32), (3, 7, 16), (32, 15, 32)]
        {
            let x = numbers(n, depth, 1);
            let mut out = vec![-2.0; depth * stride];
            rows_as_columns(|r| x.row(r), n, depth, &mut out, stride);
            for (k, row) in out.chunks_exact(stride).enumerate() {
                for (r, value) in row.iter().enumerate() {
                    let expected = if r < n { x.row(r)[k] } else { -2.0 };
                    assert_eq!(*value, expected, "{n} rows of {depth}: row {r}, column {k}");
                }
            }
        }
    }
}
