//! Runs of f32, rounded to bf16 and put into words.

use std::ops::Range;

use pulp::bytemuck;

use super::numbers::{NUMBERS, WithRounding};
use super::tile_size::{TILE_ROWS, TILE_WORDS};
use super::view::View;
use crate::bf16::rounded;
use crate::simd;

/// Runs `work` compiled for the instructions of this processor, as [`simd::vectorized`] does.
#[inline(always)]
pub(crate) fn vectorized_with_rounding(work: impl WithRounding) {
    #[cfg(target_arch = "x86_64")]
    if super::dot::is_available() {
        // SAFETY: the instructions are there.
        return unsafe { super::dot::with_rounding(work) };
    }
    simd::vectorized(
        #[inline(always)]
        || {
            work.with_rounding(
                #[inline(always)]
                |run, words| round_runs(std::slice::from_ref(run), words, TILE_WORDS),
            );
        },
    );
}

/// Rounds some columns of at most 16 rows into tiles of a left factor, one after another. What lies beyond the last row
/// and the last pair of columns is left alone.
#[inline(always)]
pub(super) fn round_rows(x: View, rows: Range<usize>, columns: Range<usize>, words: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if columns.len().is_multiple_of(NUMBERS) && super::dot::is_available() {
        let runs = columns.len() / NUMBERS;
        assert!(rows.len() <= TILE_ROWS && words.len() >= runs * TILE_ROWS * TILE_WORDS, "words of rows");
        if let Some(last) = rows.clone().last() {
            assert!(x.row(last).len() >= columns.end, "columns of rows");
            let first = x.row(rows.start)[columns.start..].as_ptr();
            // SAFETY: the instructions are there, the rows lie inside the view, and the words have room.
            unsafe { super::dot::round_rows(first, x.stride(), (rows.len(), runs), words.as_mut_ptr()) };
        }
        return;
    }
    for (r, row) in rows.enumerate() {
        round_row(&x.row(row)[columns.clone()], &mut words[r * TILE_WORDS..], TILE_ROWS * TILE_WORDS);
    }
}

/// Rounds a row, two neighbours a word: 16 words for each run of 32 numbers, the runs `stride` words apart. Half a
/// word beyond the last number is zero; the words after it are left alone.
#[inline(always)]
pub(super) fn round_row(numbers: &[f32], words: &mut [u32], stride: usize) {
    let (runs, rest) = numbers.as_chunks::<NUMBERS>();
    assert!(runs.is_empty() || words.len() >= (runs.len() - 1) * stride + TILE_WORDS, "words of a row");
    #[cfg(target_arch = "x86_64")]
    if super::dot::is_available() {
        // SAFETY: the instructions are there, and the words have room.
        unsafe { super::dot::round_runs(runs, words.as_mut_ptr(), stride) };
    } else {
        round_runs(runs, words, stride);
    }
    #[cfg(not(target_arch = "x86_64"))]
    round_runs(runs, words, stride);
    if !rest.is_empty() {
        for (word, numbers) in words[runs.len() * stride..].iter_mut().zip(rest.chunks(2)) {
            *word = pair(numbers[0], numbers.get(1).copied().unwrap_or(0.0));
        }
    }
}

#[inline(always)]
fn round_runs(runs: &[[f32; NUMBERS]], words: &mut [u32], stride: usize) {
    for (run, words) in runs.iter().zip(words.chunks_mut(stride)) {
        let halves: &mut [u16] = bytemuck::cast_slice_mut(&mut words[..TILE_WORDS]);
        for (half, number) in halves.iter_mut().zip(run) {
            *half = rounded(*number) as u16;
        }
    }
}

/// Rounds two rows into one: word by word a number of each. `N` is a multiple of 16.
#[inline(always)]
pub(super) fn round_pairs<const N: usize>(first: &[f32; N], second: &[f32; N], words: &mut [u32; N]) {
    #[cfg(target_arch = "x86_64")]
    if super::dot::is_available() {
        // SAFETY: the instructions are there.
        unsafe { super::dot::round_pairs(first, second, words) };
        return;
    }
    for i in 0..N {
        words[i] = pair(first[i], second[i]);
    }
}

/// Two numbers in a word.
#[inline(always)]
pub(super) fn pair(first: f32, second: f32) -> u32 {
    rounded(first) | rounded(second) << 16
}
