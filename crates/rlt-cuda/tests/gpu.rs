//! A GPU from below: memory, launches, products. On the emulated one, or with `RLT_CUDA=real` on the first real one.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use rlt_cuda::{Error, Factors, Gpu, Product};

/// The GPU that tests run on; none where there is none.
fn gpu() -> Option<Gpu> {
    if std::env::var_os("RLT_CUDA").is_none_or(|which| which != "real")
        && let Err(why) = rlt_cuda_emulator::load()
    {
        println!("skipped: {why}");
        return None;
    }
    Some(Gpu::open(0).unwrap())
}

fn made_up(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i ^ seed.wrapping_mul(77)).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

#[test]
fn numbers_come_back_from_recycled_memory() {
    let Some(gpu) = gpu() else { return };
    let numbers = made_up(1001, 1);
    let mut memory = gpu.upload(&numbers);
    assert_eq!(memory.to_host::<f32>(), numbers);
    let copy = memory.copy();
    gpu.scale(&mut memory, 2.0);
    assert_eq!(copy.to_host::<f32>(), numbers);
    assert!(memory.to_host::<f32>().iter().zip(&numbers).all(|(twice, number)| *twice == 2.0 * number));
    assert!(gpu.upload::<u32>(&[]).to_host::<u32>().is_empty());
}

#[test]
fn products_are_right_and_are_added() {
    let Some(gpu) = gpu() else { return };
    let (m, n, k) = (5, 7, 12);
    let (x, w, dy) = (made_up(m * k, 1), made_up(n * k, 2), made_up(m * n, 3));
    let sum = |terms: usize, term: &dyn Fn(usize) -> f32| (0..terms).map(|i| f64::from(term(i))).sum::<f64>();
    let expected = [
        (Product::Forward, (m, n), (&x, &w)),
        (Product::InputGradient, (m, k), (&dy, &w)),
        (Product::WeightGradient, (n, k), (&dy, &x)),
    ];
    for (product, (rows, cols), (left, right)) in expected {
        let mut out = gpu.upload(&vec![0.5_f32; rows * cols]);
        let (left, right) = (gpu.upload(left), gpu.upload(right));
        gpu.product(product, [m, n, k], Factors::F32(&left, &right), &mut out, true);
        for (at, got) in out.to_host::<f32>().into_iter().enumerate() {
            let (r, c) = (at / cols, at % cols);
            let exact = match product {
                Product::Forward => sum(k, &|i| x[r * k + i] * w[c * k + i]),
                Product::InputGradient => sum(n, &|i| dy[r * n + i] * w[i * k + c]),
                Product::WeightGradient => sum(m, &|i| dy[i * n + r] * x[i * k + c]),
            };
            assert!(
                (f64::from(got) - exact - 0.5).abs() < 1e-5,
                "{product:?} {r} {c}: {got} for {exact} + 0.5"
            );
        }
    }
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    if gpu().is_some() {
        assert_eq!(Gpu::open(77).unwrap_err(), Error::NoSuchGpu { asked: 77, found: 1 });
    }
}
