//! Weights that are only read, kept in bf16: half the memory of f32, the same arithmetic.
//!
//! A bf16 number is the upper half of an f32, so widening it is exact and costs a shift. Products widen in
//! registers and add in the order of the f32 product ([`crate::packed`]): a model whose weights are kept in
//! bf16 gives the bits of the same model widened to f32.
//!
//! The matrix lies in the panels that products read (by strips of output features, input feature by input feature),
//! so neither scoring nor decoding needs another copy of it; rows are put together again only for
//! embeddings and for saving.

use std::ops::Range;
use std::sync::Arc;

use pulp::{Simd, bytemuck};
use rayon::prelude::*;

use crate::buffer::{self, Buffer};
use crate::device::Device;
use crate::simd::mul_add;
use crate::tile::{Ahead, PANEL, strip_columns};

/// Words of one input feature in a strip. Word `i` holds output feature `i` of the strip in its lower and the one
/// half a strip later in its upper half, so that a vector of words widens to two vectors of neighbours.
fn strip_words() -> usize {
    strip_columns() / 2
}

/// A matrix `[out_features, in_features]` of bf16 numbers. Cloning shares it: it never changes.
#[derive(Clone)]
pub(crate) struct Bf16Panels {
    /// Whole panels, per strip `cols x` [`strip_words`]; features beyond the last row are zero.
    words: Arc<Words>,
    rows: usize,
    cols: usize,
}

/// What the panels lie in. Weights are not asked for again: their memory goes back to where it came from.
struct Words(Buffer);

impl Drop for Words {
    fn drop(&mut self) {
        buffer::lose(std::mem::take(&mut self.0));
    }
}

impl Bf16Panels {
    /// Where they lie.
    pub(crate) fn device(&self) -> &Device {
        self.words.0.device()
    }

    /// Lays out the rows that `row(index)` gives: `cols` little-endian numbers of two bytes each.
    pub(crate) fn from_rows<'a>(
        device: &Device,
        rows: usize,
        cols: usize,
        row: impl Fn(usize) -> &'a [u8] + Sync,
    ) -> Self {
        let half = strip_words();
        let mut buffer = buffer::take(device, rows.next_multiple_of(PANEL) * cols / 2);
        if let Device::Sizes(sizes) = device {
            sizes.did_rows(rows * cols / 2);
            return Self { words: Arc::new(Words(buffer)), rows, cols };
        }
        let words: &mut [u32] = bytemuck::cast_slice_mut(&mut buffer);
        words.par_chunks_mut((cols * half).max(1)).enumerate().for_each(|(strip, words)| {
            words.fill(0);
            let features = strip * 2 * half..rows.min((strip + 1) * 2 * half);
            let features: Vec<&[[u8; 2]]> = features
                .map(|index| {
                    let numbers = row(index).as_chunks::<2>().0;
                    assert_eq!(numbers.len(), cols, "numbers of row {index}");
                    numbers
                })
                .collect();
            // In squares, so that both the reads and the writes stay within a few cache lines.
            for (square, words) in words.chunks_mut(SQUARE * half).enumerate() {
                for (feature, numbers) in features.iter().enumerate() {
                    let (word, shift) = (feature % half, feature / half * 16);
                    for (words, &number) in words.chunks_exact_mut(half).zip(&numbers[square * SQUARE..]) {
                        words[word] |= u32::from(u16::from_le_bytes(number)) << shift;
                    }
                }
            }
        });
        Self { words: Arc::new(Words(buffer)), rows, cols }
    }

    /// All strips, one after another.
    pub(crate) fn strips(&self) -> &[u32] {
        bytemuck::cast_slice(&self.words.0)
    }

    /// The words of one strip.
    pub(crate) fn strip(&self, strip: usize) -> &[u32] {
        let words = self.cols * strip_words();
        &self.strips()[strip * words..][..words]
    }

    /// Row `row`, widened, into `out`.
    pub(crate) fn copy_row(&self, row: usize, out: &mut [f32]) {
        let half = strip_words();
        let feature = row % (2 * half);
        let (word, upper) = (feature % half, feature >= half);
        for (out, words) in out.iter_mut().zip(self.strip(row / (2 * half)).chunks_exact(half)) {
            let bits = words[word];
            *out = f32::from_bits(if upper { bits & UPPER } else { bits << 16 });
        }
    }

    /// Some rows, the first of which begins a panel, widened into `out`, one after another.
    pub(crate) fn widen(&self, rows: Range<usize>, out: &mut [f32]) {
        assert_eq!((rows.start % PANEL, out.len()), (0, rows.len() * self.cols), "widened rows");
        let half = strip_words();
        let first = rows.start / (2 * half);
        out.par_chunks_mut((2 * half * self.cols).max(1)).enumerate().for_each(|(strip, out)| {
            // Some columns of all rows at a time: their words stay in the first-level cache.
            for (square, words) in self.strip(first + strip).chunks(SQUARE * half).enumerate() {
                for (feature, row) in out.chunks_exact_mut(self.cols).enumerate() {
                    let (word, upper) = (feature % half, feature >= half);
                    let shift = if upper { 0 } else { 16 };
                    for (out, words) in row[square * SQUARE..].iter_mut().zip(words.chunks_exact(half)) {
                        *out = f32::from_bits((words[word] << shift) & UPPER);
                    }
                }
            }
        });
    }

    /// All rows, widened, one after another.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.rows * self.cols];
        self.widen(0..self.rows, &mut all);
        all
    }
}

/// Input features that are laid out or widened at a time.
const SQUARE: usize = 32;

const UPPER: u32 = 0xffff_0000;

/// The words of some input features of a strip of `NV` vectors, widened into `out`, one after another.
#[inline(always)]
pub(crate) fn widen_strip<S: Simd, const NV: usize>(simd: S, words: &[u32], out: &mut [f32]) {
    let (shift, upper) = (simd.splat_u32s(16), simd.splat_u32s(UPPER));
    let (words, _) = S::as_simd_u32s(words);
    let (out, _) = S::as_mut_simd_f32s(out);
    for (words, out) in words.chunks_exact(NV / 2).zip(out.chunks_exact_mut(NV)) {
        for v in 0..NV / 2 {
            out[v] = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words[v], shift));
            out[NV / 2 + v] = simd.transmute_f32s_u32s(simd.and_u32s(words[v], upper));
        }
    }
}

/// A bf16 number in f32.
#[inline(always)]
pub(crate) fn widen(number: u16) -> f32 {
    f32::from_bits(u32::from(number) << 16)
}

/// The bits of `x` rounded to bf16 (nearest, ties to even). What is not a number stays so.
#[inline(always)]
pub(crate) fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { bits >> 16 | 0x40 } else { nearest }
}

/// As [`crate::tile::tile`] over `NV` vectors of numbers that are widened in registers: the same sums in the
/// same order, so the same bits. Of a row's words, `stride` apart, word `i` holds number `i` in its lower and
/// the one half a row later in its upper half.
#[inline(always)]
pub(crate) fn tile_bf16<S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    left: impl Fn(usize, usize) -> f32,
    words: &[u32],
    stride: usize,
    depth: usize,
    ahead: Ahead,
) -> [[S::f32s; NV]; MR] {
    let width = NV * S::F32_LANES / 2;
    assert!(depth == 0 || words.len() >= (depth - 1) * stride + width, "columns of a tile");
    let (shift, upper) = (simd.splat_u32s(16), simd.splat_u32s(UPPER));
    let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
    for k in 0..depth {
        ahead.ask(words, k, stride, width, 1);
        // SAFETY: inside its slice by the assertion above; a check in this loop would cost a third of the speed.
        let (words, _) = S::as_simd_u32s(unsafe { words.get_unchecked(k * stride..k * stride + width) });
        let columns: [S::f32s; NV] = std::array::from_fn(|v| {
            let bits = if v < NV / 2 {
                simd.wrapping_dyn_shl_u32s(words[v], shift)
            } else {
                simd.and_u32s(words[v - NV / 2], upper)
            };
            simd.transmute_f32s_u32s(bits)
        });
        for r in 0..MR {
            let x = simd.splat_f32s(left(r, k));
            for v in 0..NV {
                sums[r][v] = mul_add(simd, x, columns[v], sums[r][v]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use crate::matmul::{Output, matmul_nn, matmul_nt};
    use crate::packed::{PackedWeight, matmul_packed};
    use crate::tensor::Tensor;
    use crate::{embedding, head};

    /// Numbers that bf16 holds, of both signs and many sizes, subnormal ones among them.
    fn bf16_bytes(n: usize) -> Vec<u8> {
        let number = |i: usize| {
            let hash = (i as u32).wrapping_mul(2_654_435_761) >> 7;
            match i % 97 {
                0 => 0x0001,
                1 => 0x8000,
                _ => (((hash & 0x807f) | (0x3b00 + (hash >> 3) % 0x0480)) & 0xffff) as u16,
            }
        };
        (0..n).flat_map(|i| number(i).to_le_bytes()).collect()
    }

    /// The matrix in bf16 and its widened copy.
    fn both(rows: usize, cols: usize) -> (Tensor, Tensor) {
        let bytes = bf16_bytes(rows * cols);
        let kept = Tensor::from_bf16_rows(rows, cols, |r| &bytes[2 * r * cols..2 * (r + 1) * cols]);
        let wide = bytes.as_chunks::<2>().0.iter();
        let wide = wide.map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)).collect();
        (kept, Tensor::from_vec(rows, cols, wide))
    }

    fn bits(t: &Tensor) -> Vec<u32> {
        t.to_host().iter().map(|v| v.to_bits()).collect()
    }

    fn inputs(rows: usize, cols: usize) -> Tensor {
        let value = |i: usize| ((i * 7919 + 13) % 2003) as f32 / 1000.0 - 1.0;
        Tensor::from_vec(rows, cols, (0..rows * cols).map(value).collect())
    }

    #[test]
    fn it_holds_the_numbers_it_was_given() {
        for (rows, cols) in [(1, 1), (16, 3), (17, 64), (32, 33), (95, 70), (130, 31)] {
            let (kept, wide) = both(rows, cols);
            assert!(kept.is_bf16() && !wide.is_bf16());
            assert_eq!(bits(&kept), bits(&wide), "{rows} x {cols}");
            assert_eq!(bits(&kept.clone()), bits(&wide));
        }
    }

    #[test]
    fn numbers_are_narrowed_only_where_nothing_is_lost() {
        let (kept, mut wide) = both(33, 20);
        let narrowed = wide.narrowed().expect("all of them are bf16");
        assert!(narrowed.is_bf16() && bits(&narrowed) == bits(&kept));
        assert!(kept.narrowed().is_some());
        wide.data_mut()[655] = 1.0 + 1.0 / 256.0;
        assert!(wide.narrowed().is_none());
    }

    #[test]
    fn products_have_the_bits_of_the_widened_weights() {
        for (n, k) in [(1, 5), (40, 17), (96, 96), (330, 64), (704, 256)] {
            let (kept, wide) = both(n, k);
            for m in [1, 2, 4, 7, 29, 250, 1000] {
                let x = inputs(m, k);
                for mode in [Output::Replace, Output::Accumulate] {
                    let (mut a, mut b) = (Tensor::full(m, n, 0.25), Tensor::full(m, n, 0.25));
                    matmul_nt(&x, &kept, &mut a, mode);
                    matmul_nt(&x, &wide, &mut b, mode);
                    assert_eq!(bits(&a), bits(&b), "{m} rows, {n} x {k}");
                    let mut c = Tensor::full(m, n, 0.25);
                    matmul_packed(&x, &PackedWeight::new(&kept), &mut c, mode);
                    assert_eq!(bits(&c), bits(&b), "packed, {m} rows, {n} x {k}");
                }
            }
        }
    }

    #[test]
    fn the_input_s_gradient_is_that_of_the_widened_weights() {
        for (n, k) in [(1, 5), (40, 17), (96, 96), (1100, 64), (2100, 40)] {
            let (kept, wide) = both(n, k);
            for m in [1, 7, 250] {
                let dy = inputs(m, n);
                for mode in [Output::Replace, Output::Accumulate] {
                    let (mut a, mut b) = (Tensor::full(m, k, 0.25), Tensor::full(m, k, 0.25));
                    matmul_nn(&dy, &kept, &mut a, mode);
                    matmul_nn(&dy, &wide, &mut b, mode);
                    let largest = b.to_host().iter().fold(1.0_f32, |largest, v| largest.max(v.abs()));
                    for (a, b) in a.to_host().iter().zip(b.to_host().iter()) {
                        assert!((a - b).abs() < 1e-5 * largest, "{m} rows, {n} x {k}: {a} {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn embeddings_and_log_probabilities_have_the_bits_of_the_widened_table() {
        let (kept, wide) = both(77, 40);
        let ids = [0, 76, 15, 16, 31, 32, 47, 48, 15];
        assert_eq!(bits(&embedding::embed(&ids, &kept)), bits(&embedding::embed(&ids, &wide)));
        let (hidden, rows, targets) = (inputs(9, 40), [0, 3, 8], [76, 2, 40]);
        let logprobs = |w: &Tensor| head::token_logprobs(&hidden, &rows, w.into(), &targets, 0.7);
        assert_eq!(logprobs(&kept), logprobs(&wide));
    }

    #[test]
    #[should_panic(expected = "read-only bf16 weights")]
    fn training_them_is_refused() {
        let (mut kept, wide) = both(4, 4);
        kept.mix_in(&wide, 0.5);
    }
}
