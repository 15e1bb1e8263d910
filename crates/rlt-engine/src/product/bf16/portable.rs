//! A block without instructions for bf16: words are widened in registers, products added in f32.

use pulp::{Simd, WithSimd};

use super::block::Block;
use super::tile_size::{TILE_ROWS, TILE_WORDS};
use crate::simd::{Vectors, mul_add};
use crate::tile::PANEL;

const UPPER: u32 = 0xffff_0000;

/// # Safety
/// The block's output must be writable and not aliased.
pub(super) unsafe fn block(block: &Block) {
    for row in (0..block.rows).step_by(ROWS) {
        let rows = ROWS.min(block.rows - row);
        let a = &block.a[row / TILE_ROWS][row % TILE_ROWS * TILE_WORDS..];
        let mut sums = [[0.0_f32; PANEL]; ROWS];
        Vectors::in_use().run(Some { a, b: block.b, tiles: block.tiles, sums: &mut sums });
        for (r, sums) in sums.iter().take(rows).enumerate() {
            // SAFETY: the row lies inside the block.
            let out =
                unsafe { std::slice::from_raw_parts_mut(block.out.add((row + r) * block.stride), PANEL) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = if block.add { *out + sum } else { *sum };
            }
        }
    }
}

/// Rows that are computed together: a divisor of a tile's.
const ROWS: usize = 4;

/// Four rows of a tile times a panel. (Those beyond the last are zero and not written.)
struct Some<'a> {
    a: &'a [u32],
    b: &'a [u32],
    tiles: usize,
    sums: &'a mut [[f32; PANEL]; ROWS],
}

impl WithSimd for Some<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.sum::<S, 2>(simd),
            8 => self.sum::<S, 4>(simd),
            4 => self.sum::<S, 8>(simd),
            _ => self.sum::<S, PANEL>(simd),
        }
    }
}

impl Some<'_> {
    #[inline(always)]
    fn sum<S: Simd, const NV: usize>(self, simd: S) {
        let (shift, upper) = (simd.splat_u32s(16), simd.splat_u32s(UPPER));
        let mut sums = [[simd.splat_f32s(0.0); NV]; ROWS];
        let tiles = self.a.chunks(TILE_ROWS * TILE_WORDS).zip(self.b.chunks_exact(TILE_WORDS * PANEL));
        for (a, b) in tiles.take(self.tiles) {
            for (w, words) in b.chunks_exact(PANEL).enumerate() {
                let (words, _) = S::as_simd_u32s(words);
                for v in 0..NV {
                    let first = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words[v], shift));
                    let second = simd.transmute_f32s_u32s(simd.and_u32s(words[v], upper));
                    for r in 0..ROWS {
                        let word = a[r * TILE_WORDS + w];
                        let (x, y) = (f32::from_bits(word << 16), f32::from_bits(word & UPPER));
                        sums[r][v] = mul_add(simd, simd.splat_f32s(x), first, sums[r][v]);
                        sums[r][v] = mul_add(simd, simd.splat_f32s(y), second, sums[r][v]);
                    }
                }
            }
        }
        for r in 0..ROWS {
            S::as_mut_simd_f32s(&mut self.sums[r]).0.copy_from_slice(&sums[r]);
        }
    }
}
