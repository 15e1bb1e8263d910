//! Vector building blocks. They are plain loops over fixed-size blocks that the compiler
//! vectorises inside [`vectorized`], which picks the widest instructions the CPU has at run time.

/// Runs `work` compiled for the best instruction set of this CPU (AVX-512, AVX2 + FMA, NEON ..).
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    struct Work<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Work<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Work(work))
}

/// Lanes of the accumulators below: a fixed number, so sums have the same shape on every CPU.
const LANES: usize = 32;

/// Adds up lane accumulators pairwise, in a fixed order.
#[inline(always)]
fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
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

/// Largest element, or negative infinity for none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder();
    for a in blocks {
        for i in 0..LANES {
            lanes[i] = if a[i] > lanes[i] { a[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

/// Replaces each `x` by `exp(x * scale - shift)` and returns the sum.
#[inline(always)]
pub(crate) fn exp_scaled_sum(x: &mut [f32], scale: f32, shift: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let mut blocks = x.chunks_exact_mut(LANES);
    for a in &mut blocks {
        for i in 0..LANES {
            a[i] = exp(a[i].mul_add(scale, -shift));
            lanes[i] += a[i];
        }
    }
    let mut sum = sum_lanes(lanes);
    for v in blocks.into_remainder() {
        *v = exp(v.mul_add(scale, -shift));
        sum += *v;
    }
    sum
}

/// Sum of `exp(x * scale - shift)`, leaving `x` as it is.
#[inline(always)]
pub(crate) fn sum_exp_scaled(x: &[f32], scale: f32, shift: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder();
    for a in blocks {
        for i in 0..LANES {
            lanes[i] += exp(a[i].mul_add(scale, -shift));
        }
    }
    rest.iter().fold(sum_lanes(lanes), |sum, v| sum + exp(v.mul_add(scale, -shift)))
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
    let mut p = 1.388_794_8e-3_f32;
    p = p.mul_add(r, 8.333_345e-3);
    p = p.mul_add(r, 4.166_664_6e-2);
    p = p.mul_add(r, 1.666_666_6e-1);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    // 2^n in two halves, so that n = 128 does not overflow the exponent field.
    let n = shifted.to_bits() as i32 - ROUND.to_bits() as i32;
    let half = n >> 1;
    let a = f32::from_bits(((half + 127) << 23) as u32);
    let b = f32::from_bits(((n - half + 127) << 23) as u32);
    let y = p * a * b;
    if x < -87.3 { 0.0 } else { y }
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
    fn reductions_cover_blocks_and_rests() {
        for n in [0, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.5 - 3.0).collect();
            let expected: f32 = x.iter().map(|v| v * v).sum();
            assert!((dot(&x, &x) - expected).abs() <= 1e-3 * (1.0 + expected));
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut y = x.clone();
            let sum = exp_scaled_sum(&mut y, 0.1, 0.2);
            assert_eq!(sum.to_bits(), sum_exp_scaled(&x, 0.1, 0.2).to_bits());
            let exact: f64 = x.iter().map(|v| (f64::from(*v) * 0.1 - 0.2).exp()).sum();
            assert!((f64::from(sum) - exact).abs() < 1e-4 * (1.0 + exact));
        }
    }
}
