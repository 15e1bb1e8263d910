//! 16 x 16 words, transposed.

use super::tile_size::{TILE_ROWS, TILE_WORDS};
#[cfg(target_arch = "x86_64")]
use crate::instructions::InstructionSet;

/// Row `r`, column `c` of `tile` becomes row `c`, column `r` of `out`, whose rows are `stride` words apart.
pub(super) fn transpose(tile: &[[u32; TILE_WORDS]; TILE_ROWS], out: &mut [u32], stride: usize) {
    assert!(out.len() >= (TILE_WORDS - 1) * stride + TILE_ROWS, "room for a transposed tile");
    #[cfg(target_arch = "x86_64")]
    if InstructionSet::in_use() >= InstructionSet::Avx512 {
        // SAFETY: the instructions are there; the output has room.
        unsafe { in_registers(tile, out.as_mut_ptr(), stride) };
        return;
    }
    for (c, row) in out.chunks_mut(stride).take(TILE_WORDS).enumerate() {
        for r in 0..TILE_ROWS {
            row[r] = tile[r][c];
        }
    }
}

/// By three rounds of exchanges, within and then among quarters of registers, where scalar code would move word by
/// word.
///
/// # Safety
/// `out` must have room for 16 rows of 16 words.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn in_registers(tile: &[[u32; TILE_WORDS]; TILE_ROWS], out: *mut u32, stride: usize) {
    use std::arch::x86_64::{
        _mm512_loadu_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi32,
        _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };
    // SAFETY: each row of the tile is 16 words.
    let rows: [_; 16] = std::array::from_fn(|r| unsafe { _mm512_loadu_si512(tile[r].as_ptr().cast()) });
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
