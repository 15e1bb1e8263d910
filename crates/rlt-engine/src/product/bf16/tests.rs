use super::kernel::Kernel;
use super::product::product_by;
use super::{Left, Pairs};
use crate::arithmetic::Arithmetic;
use crate::made_up::{numbers, transposed};
use crate::matmul::Output;
use crate::tensor::Tensor;

/// `x` rounded to bf16, by the definition: the nearer of its two neighbours, the even one on a tie.
fn rounded(x: f32) -> f64 {
    let below = f32::from_bits(x.to_bits() & 0xffff_0000);
    let above = f32::from_bits((x.to_bits() & 0xffff_0000).wrapping_add(0x1_0000));
    let (x, low, high) = (f64::from(x), f64::from(below), f64::from(above));
    match (x - low).abs().total_cmp(&(high - x).abs()) {
        std::cmp::Ordering::Less => low,
        std::cmp::Ordering::Equal if below.to_bits() & 0x1_0000 == 0 => low,
        _ => high,
    }
}

const SHAPES: [(usize, usize, usize); 9] = [
    (1, 32, 1),
    (5, 3, 7),
    (16, 32, 32),
    (17, 33, 65),
    (32, 64, 512),
    (31, 40, 513),
    (70, 96, 704),
    (300, 130, 1100),
    (1100, 48, 64),
];

#[test]
fn every_kernel_adds_up_the_products_of_the_rounded_factors() {
    assert!(Kernel::available().contains(&Kernel::Portable));
    for (m, n, k) in SHAPES {
        let (x, w) = (numbers(m, k, 1), numbers(n, k, 2));
        // The sum and the sum of magnitudes, which bounds what rounding can do.
        let exact: Vec<(f64, f64)> = (0..m * n)
            .map(|i| {
                let products = x.row(i / n).iter().zip(w.row(i % n)).map(|(x, w)| rounded(*x) * rounded(*w));
                products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()))
            })
            .collect();
        let (a, b) = (Left::of_rows(&x), Pairs::of_rows(&w));
        for kernel in Kernel::available() {
            for (mode, before) in [(Output::Replace, 0.0), (Output::Accumulate, 0.25)] {
                let mut out = Tensor::full(m, n, 0.25);
                product_by(kernel, &a, &b, &mut out, mode);
                for (i, (value, (exact, size))) in out.data().iter().zip(&exact).enumerate() {
                    let error = (f64::from(*value) - exact - before).abs();
                    assert!(
                        error < 5e-6 * (1.0 + size),
                        "{kernel:?} {m} x {n} x {k}, {mode:?}, {i}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn both_ways_to_lay_out_a_factor_agree() {
    for (m, n, k) in SHAPES {
        let (x, w) = (numbers(m, k, 3), numbers(n, k, 4));
        let mut of_rows = Tensor::zeros(m, n);
        let mut of_columns = Tensor::zeros(m, n);
        for kernel in Kernel::available() {
            product_by(kernel, &Left::of_rows(&x), &Pairs::of_rows(&w), &mut of_rows, Output::Replace);
            let (x, w) = (transposed(&x), transposed(&w));
            let (a, b) = (Left::of_columns(&x), Pairs::of_columns(&w));
            product_by(kernel, &a, &b, &mut of_columns, Output::Replace);
            assert!(of_rows.data() == of_columns.data(), "{kernel:?} {m} x {n} x {k}");
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others_nor_on_the_threads() {
    for (_, n, k) in SHAPES {
        let (x, w) = (numbers(70, k, 5), Pairs::of_rows(&numbers(n, k, 6)));
        for kernel in Kernel::available() {
            let mut all = Tensor::zeros(70, n);
            product_by(kernel, &Left::of_rows(&x), &w, &mut all, Output::Replace);
            for rows in [1, 2, 7, 16, 19, 33, 64] {
                let some = x.gather_rows(&(70 - rows..70).collect::<Vec<_>>());
                let mut out = Tensor::zeros(rows, n);
                product_by(kernel, &Left::of_rows(&some), &w, &mut out, Output::Replace);
                assert!(out.data() == &all.data()[(70 - rows) * n..], "{kernel:?} {rows} rows of {n} x {k}");
            }
            let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
            let mut alone = Tensor::zeros(70, n);
            one.install(|| product_by(kernel, &Left::of_rows(&x), &w, &mut alone, Output::Replace));
            assert!(alone.data() == all.data(), "{kernel:?} on one thread, {n} x {k}");
        }
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    for kernel in Kernel::available() {
        for bad in [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::from_bits(0x7fff_ffff),
            f32::from_bits(0x7f80_0001),
        ] {
            let mut x = numbers(3, 40, 7);
            x.data_mut()[45] = bad;
            let mut out = Tensor::zeros(3, 5);
            product_by(
                kernel,
                &Left::of_rows(&x),
                &Pairs::of_rows(&numbers(5, 40, 8)),
                &mut out,
                Output::Replace,
            );
            assert!(out.row(0).iter().chain(out.row(2)).all(|v| v.is_finite()), "{kernel:?} {bad}");
            assert!(out.row(1).iter().all(|v| !v.is_finite()), "{kernel:?} {bad}");
        }
    }
}

#[test]
fn weights_kept_in_bf16_are_laid_out_as_their_widened_copy() {
    for (n, k) in [(1, 5), (40, 17), (96, 96), (1100, 64), (2100, 41)] {
        let bytes: Vec<u8> =
            numbers(n, k, 9).data().iter().flat_map(|v| v.to_bits().to_be_bytes()[..2].to_vec()).collect();
        let bytes: Vec<u8> = bytes.chunks(2).flat_map(|b| [b[1], b[0]]).collect();
        let kept = Tensor::from_bf16_rows(n, k, |r| &bytes[2 * r * k..2 * (r + 1) * k]);
        let wide = Tensor::from_vec(n, k, kept.to_host().into_owned());
        let (x, dy) = (numbers(37, k, 10), numbers(37, n, 11));
        for mode in [Output::Replace, Output::Accumulate] {
            let (mut a, mut b) = (Tensor::full(37, n, 0.5), Tensor::full(37, n, 0.5));
            Arithmetic::Bf16.nt(&x, &kept, &mut a, mode);
            Arithmetic::Bf16.nt(&x, &wide, &mut b, mode);
            assert!(a.data() == b.data(), "{n} x {k}");
            let (mut a, mut b) = (Tensor::full(37, k, 0.5), Tensor::full(37, k, 0.5));
            Arithmetic::Bf16.nn(&dy, &kept, &mut a, mode);
            Arithmetic::Bf16.nn(&dy, &wide, &mut b, mode);
            assert!(a.data() == b.data(), "gradient, {n} x {k}");
        }
    }
}
