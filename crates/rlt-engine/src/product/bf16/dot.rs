//! AVX-512 BF16: a block by `vdpbf16ps`, which adds the products of two pairs to each of 16 sums, and rounding by
//! `vcvtneps2bf16` (subnormal numbers become zero, which the products would make of them anyway).

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
    _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_or_si512,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::block::Block;
use super::numbers::{NUMBERS, WithRounding};
use super::tile_size::{TILE_ROWS, TILE_WORDS};
use crate::instructions::InstructionSet;
use crate::tile::PANEL;

/// Whether these instructions are in use.
#[inline]
pub(super) fn is_available() -> bool {
    InstructionSet::in_use() >= InstructionSet::Avx512Bf16
}

/// # Safety
/// The processor must have AVX-512 BF16, the factors must have passed [`Block::check`], and the output must be
/// writable and not aliased.
pub(super) unsafe fn block(block: &Block) {
    let mut row = 0;
    while row < block.rows {
        // SAFETY: passed on to the caller; steps do not cross the 16 rows of a tile.
        row += unsafe {
            match block.rows - row {
                1 => rows::<1>(block, row),
                2..4 => rows::<2>(block, row),
                4..8 => rows::<4>(block, row),
                _ => rows::<8>(block, row),
            }
        };
    }
}

/// `MR` rows from `first` on. Returns `MR`.
///
/// # Safety
/// As [`block`]; the rows lie in one tile.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows<const MR: usize>(block: &Block, first: usize) -> usize {
    let mut a = block.a[first / TILE_ROWS][first % TILE_ROWS * TILE_WORDS..].as_ptr();
    let mut b = block.b.as_ptr();
    // SAFETY: the caller's promise covers every address below.
    unsafe {
        let out = |r: usize| block.out.add((first + r) * block.stride);
        let mut sums: [[__m512; 2]; MR] = std::array::from_fn(|r| {
            let at =
                |v: usize| if block.add { _mm512_loadu_ps(out(r).add(16 * v)) } else { _mm512_setzero_ps() };
            [at(0), at(1)]
        });
        for _ in 0..block.tiles {
            for w in 0..TILE_WORDS {
                let columns = |v: usize| bf16s(_mm512_loadu_si512(b.add(w * PANEL + 16 * v).cast()));
                let columns = [columns(0), columns(1)];
                for r in 0..MR {
                    let x = bf16s(_mm512_set1_epi32(*a.add(r * TILE_WORDS + w) as i32));
                    for v in 0..2 {
                        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], x, columns[v]);
                    }
                }
            }
            a = a.wrapping_add(TILE_ROWS * TILE_WORDS);
            b = b.wrapping_add(TILE_WORDS * PANEL);
        }
        for r in 0..MR {
            for v in 0..2 {
                _mm512_storeu_ps(out(r).add(16 * v), sums[r][v]);
            }
        }
    }
    MR
}

/// The same bits, as pairs of bf16 numbers.
#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16s(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes, and any bits are bf16 numbers.
    unsafe { std::mem::transmute(words) }
}

/// Rounds rows of runs of 32 numbers, `stride` numbers apart, into tiles of a left factor, one after another.
///
/// # Safety
/// The processor must have AVX-512 BF16, the rows be readable, and `words` have room for `runs` tiles.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn round_rows(
    numbers: *const f32,
    stride: usize,
    (rows, runs): (usize, usize),
    words: *mut u32,
) {
    for r in 0..rows {
        // SAFETY: passed on to the caller.
        unsafe {
            round_run(numbers.add(r * stride), runs, words.add(r * TILE_WORDS), TILE_ROWS * TILE_WORDS);
        }
    }
}

/// Rounds runs of 32 numbers, `stride` words apart.
///
/// # Safety
/// The processor must have AVX-512 BF16, and `words` room for 16 words of every run.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn round_runs(runs: &[[f32; NUMBERS]], words: *mut u32, stride: usize) {
    // SAFETY: passed on to the caller.
    unsafe { round_run(runs.as_ptr().cast(), runs.len(), words, stride) };
}

/// # Safety
/// As [`round_runs`], of `32 * runs` numbers.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn round_run(numbers: *const f32, runs: usize, words: *mut u32, stride: usize) {
    for run in 0..runs {
        // SAFETY: a run is 32 numbers and becomes 16 words.
        unsafe {
            let half = |half: usize| _mm512_loadu_ps(numbers.add(run * NUMBERS + 16 * half));
            _mm512_storeu_si512(words.add(run * stride).cast(), all(_mm512_cvtne2ps_pbh(half(1), half(0))));
        }
    }
}

/// Runs `work` with what of AVX-512 comes with AVX-512 BF16.
///
/// # Safety
/// The processor must have it.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512cd,avx512dq,avx512vl")]
pub(super) unsafe fn with_rounding(work: impl WithRounding) {
    work.with_rounding(
        #[inline(always)]
        |run, words| {
            // SAFETY: the instructions are there by the caller's promise; a run is 32 numbers and becomes 16 words.
            unsafe { round_run(run.as_ptr(), 1, words.as_mut_ptr(), TILE_WORDS) };
        },
    );
}

/// Rounds two rows into words of a number of each; `N` is a multiple of 16.
///
/// # Safety
/// The processor must have AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn round_pairs<const N: usize>(first: &[f32; N], second: &[f32; N], words: &mut [u32; N]) {
    const { assert!(N.is_multiple_of(16)) };
    for at in (0..N).step_by(16) {
        // SAFETY: 16 numbers of each row, 16 words.
        unsafe {
            let wide = |row: &[f32; N]| {
                let numbers = _mm512_loadu_ps(row.as_ptr().add(at));
                _mm512_cvtepu16_epi32(halves(_mm512_cvtneps_pbh(numbers)))
            };
            let both = _mm512_or_si512(wide(first), _mm512_slli_epi32::<16>(wide(second)));
            _mm512_storeu_si512(words.as_mut_ptr().add(at).cast(), both);
        }
    }
}

/// The same bits, as words.
#[target_feature(enable = "avx512f,avx512bf16")]
fn all(numbers: __m512bh) -> __m512i {
    // SAFETY: both are 64 bytes, and any bits are integers.
    unsafe { std::mem::transmute(numbers) }
}

/// The same bits, as half words.
#[target_feature(enable = "avx512f,avx512bf16")]
fn halves(numbers: __m256bh) -> __m256i {
    // SAFETY: both are 32 bytes, and any bits are integers.
    unsafe { std::mem::transmute(numbers) }
}
