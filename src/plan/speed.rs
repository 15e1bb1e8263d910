//! How fast this machine multiplies, measured for a moment: what the time of a plan rests on.

use std::time::Instant;

use rlt_engine::Tensor;
use rlt_engine::matmul::Output;
use rlt_engine::packed::{PackedWeight, matmul_packed};

use super::shape::Shape;

/// Multiply-adds a second.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// Of products over many rows, forward and backward.
    pub batch: f64,
    /// Of products of a decoding step.
    pub decode: f64,
}

/// Rows of the batch that is timed.
const ROWS: usize = 1024;
/// Numbers of the weights whose reading is timed, at most: servers' caches hold hundreds of megabytes.
const DECODE_NUMBERS: usize = 128 << 20;

/// Measures products of the shape's width: about a second.
pub fn measure(shape: &Shape, running: usize) -> Speed {
    let (k, widest) = shape.product_shape();
    let n = widest.min(4096);
    let (x, w, dy) = (Tensor::full(ROWS, k, 0.5), Tensor::full(n, k, 0.25), Tensor::full(ROWS, n, 0.125));
    let (mut y, mut dx, mut dw) = (Tensor::zeros(ROWS, n), Tensor::zeros(ROWS, k), Tensor::zeros(n, k));
    let arithmetic = shape.arithmetic();
    let mut batch = || {
        arithmetic.nt(&x, &w, &mut y, Output::Replace);
        arithmetic.nn(&dy, &w, &mut dx, Output::Replace);
        arithmetic.tn(&dy, &x, &mut dw, Output::Accumulate);
    };
    let of_batch = best_seconds(&mut batch);

    // As many as the model has: small ones stay in the caches from step to step.
    let n = ((shape.step_work(0) as usize).min(DECODE_NUMBERS) / k).max(1);
    let weights = if shape.is_bf16() {
        let row = vec![0_u8; 2 * k];
        Tensor::from_bf16_rows(n, k, |_| &row)
    } else {
        Tensor::full(n, k, 0.25)
    };
    let packed = PackedWeight::for_arithmetic(&weights, arithmetic);
    drop(weights);
    let (x, mut y) = (Tensor::full(running, k, 0.5), Tensor::zeros(running, n));
    let of_step = best_seconds(&mut || matmul_packed(&x, &packed, &mut y, Output::Replace));
    Speed {
        batch: 3.0 * (ROWS * k * dw.rows()) as f64 / of_batch,
        decode: (running * k * n) as f64 / of_step,
    }
}

/// The shortest of a few times, after one that warms up.
fn best_seconds(work: &mut dyn FnMut()) -> f64 {
    work();
    let timed = |_| {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64()
    };
    (0..4).map(timed).fold(f64::INFINITY, f64::min)
}
