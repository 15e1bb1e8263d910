//! Vector building blocks. They are plain loops over fixed-size blocks that the compiler
//! vectorises inside [`vectorized`], which takes the instructions of [`InstructionSet::in_use`].

use std::any::TypeId;
use std::sync::OnceLock;

use pulp::{Scalar128b, Simd, WithSimd};

use crate::four::Four;
use crate::instructions::InstructionSet;

/// The vectors in use.
#[derive(Clone, Copy)]
pub(crate) enum Vectors {
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
    /// Four numbers that the compiler keeps together as well as it can.
    Four(Scalar128b),
}

impl Vectors {
    /// Those of [`InstructionSet::in_use`].
    #[inline]
    pub(crate) fn in_use() -> Self {
        static VECTORS: OnceLock<Vectors> = OnceLock::new();
        *VECTORS.get_or_init(|| Self::of(InstructionSet::in_use()))
    }

    fn of(set: InstructionSet) -> Self {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx => {
                Self::Avx512(pulp::x86::V4::try_new().expect("an available set"))
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => Self::Avx2(pulp::x86::V3::try_new().expect("an available set")),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => Self::Neon(pulp::aarch64::Neon::try_new().expect("an available set")),
            _ => Self::Four(Scalar128b),
        }
    }

    /// Runs `work` with these.
    #[inline(always)]
    pub(crate) fn run<W: WithSimd>(self, work: W) -> W::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => Simd::vectorize(simd, work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => Simd::vectorize(simd, work),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => Simd::vectorize(simd, work),
            Self::Four(simd) => Simd::vectorize(simd, work),
        }
    }
}

/// Runs `work` compiled for the instructions in use.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    struct Work<F>(F);
    impl<R, F: FnOnce() -> R> WithSimd for Work<F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    Vectors::in_use().run(Work(work))
}

/// `a * b + c`, rounded once; where there is no instruction for it, twice, which is many times as fast as the exact
/// sum by other instructions.
#[inline(always)]
pub(crate) fn mul_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    if TypeId::of::<S>() == TypeId::of::<Scalar128b>() {
        simd.add_f32s(simd.mul_f32s(a, b), c)
    } else {
        simd.mul_add_f32s(a, b, c)
    }
}

/// Lanes of the accumulators below: a fixed number, so sums have the same shape on every CPU.
pub(crate) const LANES: usize = 32;

/// Adds up lane accumulators, pairwise and in a fixed order: the upper half to the lower, until one is left.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: Lanes) -> f32 {
    const FOURS: usize = LANES / 4;
    let (fours, _) = lanes.as_chunks();
    let mut sums: [Four; FOURS] = std::array::from_fn(|i| Four::new(fours[i]));
    let mut width = FOURS / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] = sums[i].plus(sums[i + width]);
        }
        width /= 2;
    }
    let [a, b, c, d] = sums[0].numbers();
    (a + c) + (b + d)
}

/// What is left after the last whole block, as a block filled up with negative infinity: neither a
/// maximum nor a sum of exponentials sees the filling.
#[inline(always)]
fn filled_up(rest: &[f32]) -> [f32; LANES] {
    let mut block = [f32::NEG_INFINITY; LANES];
    block[..rest.len()].copy_from_slice(rest);
    block
}

/// Sum of `x * y`.
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (x_blocks, y_blocks) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_rest, y_rest) = (x_blocks.remainder(), y_blocks.remainder());
    for (a, b) in x_blocks.zip(y_blocks) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    let mut sum = sum_lanes(lanes);
    for (a, b) in x_rest.iter().zip(y_rest) {
        sum = a.mul_add(*b, sum);
    }
    sum
}

/// The larger of two values; `a` where `b` is not a number.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Largest element, or negative infinity for none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], block[i]);
        }
    }
    if !rest.is_empty() {
        let block = filled_up(rest);
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], block[i]);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = larger(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// As [`max`], of whole blocks.
#[inline(always)]
pub(crate) fn max_of_blocks<S: Simd>(simd: S, blocks: &[Lanes]) -> f32 {
    let (vectors, _) = S::as_simd_f32s(blocks.as_flattened());
    let mut max = [simd.splat_f32s(f32::NEG_INFINITY); 2];
    // A block is at least two vectors.
    for two in vectors.as_chunks::<2>().0 {
        max = [simd.max_f32s(two[0], max[0]), simd.max_f32s(two[1], max[1])];
    }
    simd.reduce_max_f32s(simd.max_f32s(max[0], max[1]))
}

/// Puts negative infinity in the place of all but the first `n` elements in the block that holds the `n`-th, and
/// returns the blocks up to it: neither a maximum nor a sum of exponentials sees the filling.
#[inline(always)]
pub(crate) fn first_blocks(blocks: &mut [Lanes], n: usize) -> &mut [Lanes] {
    let seen = &mut blocks[..n.div_ceil(LANES)];
    if let (Some(last), rest @ 1..) = (seen.last_mut(), n % LANES) {
        for (i, x) in last.iter_mut().enumerate() {
            *x = if i < rest { *x } else { f32::NEG_INFINITY };
        }
    }
    seen
}

/// Replaces each `x` of whole blocks by `exp(x * scale - shift)`, which must not exceed 1, and adds them to `lanes`.
/// `scale` is above 0.
#[inline(always)]
pub(crate) fn exp_blocks_scaled(blocks: &mut [Lanes], scale: f32, shift: f32, lanes: &mut Lanes) {
    let mut sum = *lanes;
    for block in blocks {
        let powers = exp_block(block, scale, shift);
        add_lanes(&mut sum, &powers);
        *block = powers;
    }
    *lanes = sum;
}

/// As [`exp_blocks_scaled`], of any number of `x`.
#[inline(always)]
pub(crate) fn exp_scaled(x: &mut [f32], scale: f32, shift: f32, lanes: &mut Lanes) {
    let (blocks, rest) = x.as_chunks_mut();
    exp_blocks_scaled(blocks, scale, shift, lanes);
    if !rest.is_empty() {
        let powers = exp_block(&filled_up(rest), scale, shift);
        add_lanes(lanes, &powers);
        rest.copy_from_slice(&powers[..rest.len()]);
    }
}

/// Lane accumulators of a sum.
pub(crate) type Lanes = [f32; LANES];

/// No lanes have been added yet.
pub(crate) const NO_LANES: Lanes = [0.0; LANES];

/// A block of exponentials: `exp(x * scale - shift)`. The difference is taken before the change of base, which
/// would round large values a second time.
#[inline(always)]
fn exp_block(block: &Lanes, scale: f32, shift: f32) -> [f32; LANES] {
    let mut powers = [0.0; LANES];
    for i in 0..LANES {
        powers[i] = exp_below_one(block[i].mul_add(scale, -shift));
    }
    powers
}

#[inline(always)]
fn add_lanes(lanes: &mut Lanes, block: &[f32; LANES]) {
    for i in 0..LANES {
        lanes[i] += block[i];
    }
}

/// Sum of `exp(x * scale - shift)`, none of which may exceed 1, leaving `x` as it is. `scale` is above 0.
#[inline(always)]
pub(crate) fn sum_exp_scaled(x: &[f32], scale: f32, shift: f32) -> f32 {
    let mut lanes = NO_LANES;
    let (blocks, rest) = x.as_chunks();
    for block in blocks {
        add_lanes(&mut lanes, &exp_block(block, scale, shift));
    }
    if !rest.is_empty() {
        add_lanes(&mut lanes, &exp_block(&filled_up(rest), scale, shift));
    }
    sum_lanes(lanes)
}

/// Sum of `exp(a) (a - b + offset)` with `a = x * scale - shift` of the first triple and `b` of the second.
#[inline(always)]
pub(crate) fn sum_weighted_difference(
    (x, x_scale, x_shift): (&[f32], f32, f32),
    (y, y_scale, y_shift): (&[f32], f32, f32),
    offset: f32,
) -> f32 {
    let term = |x: f32, y: f32| {
        let a = x.mul_add(x_scale, -x_shift);
        exp(a) * (a - y.mul_add(y_scale, -y_shift) + offset)
    };
    let mut lanes = [0.0_f32; LANES];
    let (x_blocks, y_blocks) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_rest, y_rest) = (x_blocks.remainder(), y_blocks.remainder());
    for (a, b) in x_blocks.zip(y_blocks) {
        for i in 0..LANES {
            lanes[i] += term(a[i], b[i]);
        }
    }
    x_rest.iter().zip(y_rest).fold(sum_lanes(lanes), |sum, (&x, &y)| sum + term(x, y))
}

/// A polynomial at `r`; the coefficient of the highest power comes first.
#[inline(always)]
fn polynomial<const N: usize>(r: f32, coefficients: [f32; N]) -> f32 {
    coefficients[1..].iter().fold(coefficients[0], |p, c| p.mul_add(r, *c))
}

/// e^x with a relative error below 3e-7; 0 below -87.3, infinity above 88.7, NaN for NaN.
///
/// Written so that a loop over it becomes vector code: range reduction by a rounding addition,
/// a degree-6 polynomial, and the exponent put in by integer arithmetic.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let clamped = if x > 88.722_84 { 88.722_84 } else { x };
    let clamped = if clamped < -87.3 { -87.3 } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, clamped);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = polynomial(r, [1.388_794_8e-3, 8.333_345e-3, 4.166_664_6e-2, 1.666_666_6e-1, 0.5, 1.0, 1.0]);
    // 2^n in two halves, so that n = 128 does not overflow the exponent field.
    let n = shifted.to_bits() as i32 - ROUND.to_bits() as i32;
    let half = n >> 1;
    let a = f32::from_bits(((half + 127) << 23) as u32);
    let b = f32::from_bits(((n - half + 127) << 23) as u32);
    let y = p * a * b;
    if x < -87.3 { 0.0 } else { y }
}

/// e^x for x of at most a little above 0; 0 below -88, NaN for NaN.
#[inline(always)]
pub(crate) fn exp_below_one(x: f32) -> f32 {
    exp2_below_one(x * std::f32::consts::LOG2_E)
}

/// 2^t for t of at most a little above 0, with a relative error below 3e-7 from -126 on; 0 below -126.5, NaN for NaN.
/// What a softmax needs, in fewer operations than [`exp`].
#[inline(always)]
fn exp2_below_one(t: f32) -> f32 {
    let (n, r) = whole_and_rest(t);
    // Taylor's series: (ln 2)^k / k!.
    let coefficients =
        [1.540_353e-4, 1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 2.402_265e-1, std::f32::consts::LN_2, 1.0];
    let p = polynomial(r, coefficients);
    p * power_of_two(n)
}

/// The integer next to t, in the lower bits of the first number, and t minus it. Not below -127.
#[inline(always)]
fn whole_and_rest(t: f32) -> (f32, f32) {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let clamped = if t < -127.0 { -127.0 } else { t };
    let shifted = clamped + ROUND;
    (shifted, clamped - (shifted - ROUND))
}

/// 2^n, of n as [`whole_and_rest`] gives it: n goes into the exponent, whose field n + 127 is 0, and with it the
/// power, for n = -127.
#[inline(always)]
fn power_of_two(n: f32) -> f32 {
    f32::from_bits((n.to_bits() << 23).wrapping_add(127 << 23))
}

/// 2^t for t of at most a little above 0, with a relative error below 3e-6 from -126 on; 0 below -126.5, NaN for NaN.
/// For powers that are rounded to bf16 next, which loses a thousand times as much.
#[inline(always)]
fn coarse_exp2_below_one(t: f32) -> f32 {
    let (n, r) = whole_and_rest(t);
    // The best polynomial of its degree that is 1 at 0.
    polynomial(r, [9.582_856e-3, 5.590_643e-2, 2.402_41e-1, 6.931_242e-1, 1.0]) * power_of_two(n)
}

/// Replaces `x` of a whole block by `exp(x * scale - shift)`, coarsely: `scale` and `shift` are those of base 2.
#[inline(always)]
pub(crate) fn coarse_exp2_block(block: &Lanes, scale: f32, shift: f32, lanes: &mut Lanes) -> Lanes {
    let mut powers = [0.0; LANES];
    for i in 0..LANES {
        powers[i] = coarse_exp2_below_one(block[i].mul_add(scale, -shift));
    }
    add_lanes(lanes, &powers);
    powers
}

/// Logistic function 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        let mut worst = 0.0_f64;
        for i in 0..200_000 {
            let x = -87.0 + 175.5 * (i as f32 / 200_000.0);
            let exact = (x as f64).exp();
            worst = worst.max(((vectorized(|| exp(x)) as f64 - exact) / exact).abs());
        }
        assert!(worst < 3e-7, "relative error {worst}");
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(1000.0) > 1e38);
    }

    #[test]
    fn exp2_is_accurate_below_one() {
        for (exp2, bound) in [(exp2_below_one as fn(f32) -> f32, 3e-7), (coarse_exp2_below_one, 3e-6)] {
            let mut worst = 0.0_f64;
            for i in 0..200_000 {
                let t = -126.0 + 126.5 * (i as f32 / 200_000.0);
                let exact = f64::from(t).exp2();
                worst = worst.max(((f64::from(vectorized(|| exp2(t))) - exact) / exact).abs());
            }
            assert!(worst < bound, "relative error {worst}");
            assert_eq!([f32::NEG_INFINITY, -1000.0, 0.0].map(exp2), [0.0, 0.0, 1.0]);
            assert!(exp2(f32::NAN).is_nan());
        }
    }

    #[test]
    fn lanes_are_added_pairwise() {
        let lanes: Lanes = std::array::from_fn(|i| 1.0 / (1.0 + i as f32));
        let mut sums = lanes.to_vec();
        while sums.len() > 1 {
            let half = sums.len() / 2;
            sums = (0..half).map(|i| sums[i] + sums[half + i]).collect();
        }
        assert_eq!(sum_lanes(lanes).to_bits(), sums[0].to_bits());
    }

    #[test]
    fn reductions_cover_blocks_and_rests() {
        for n in [0_usize, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.5 - 3.0).collect();
            let expected: f32 = x.iter().map(|v| v * v).sum();
            assert!((dot(&x, &x) - expected).abs() <= 1e-3 * (1.0 + expected));
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut y = x.clone();
            y.resize(n.next_multiple_of(LANES), 7.0);
            let blocks = first_blocks(y.as_chunks_mut().0, n);
            assert_eq!(max_of_blocks(pulp::Scalar, blocks), max(&x));
            let (mut lanes, mut blocks_lanes) = (NO_LANES, NO_LANES);
            exp_blocks_scaled(blocks, 0.1, 5.0, &mut blocks_lanes);
            let mut z = x.clone();
            exp_scaled(&mut z, 0.1, 5.0, &mut lanes);
            assert_eq!((&z[..], lanes), (&y[..n], blocks_lanes));
            assert!(y[n..].iter().all(|y| *y == 0.0));
            let sum = sum_lanes(lanes);
            assert_eq!(sum.to_bits(), sum_exp_scaled(&x, 0.1, 5.0).to_bits());
            let exact: f64 = x.iter().map(|v| (f64::from(*v) * 0.1 - 5.0).exp()).sum();
            assert!((f64::from(sum) - exact).abs() < 1e-4 * (1.0 + exact));
        }
    }
}
