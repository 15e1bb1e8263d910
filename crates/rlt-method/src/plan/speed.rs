//! How fast this machine multiplies, measured for a moment: what the time of a plan rests on.

use std::time::Instant;

use rlt_engine::Tensor;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::matmul::Output;
use rlt_engine::packed::{PackedWeight, matmul_packed};
use rlt_model::config::ModelConfig;

use crate::config::Config;

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

/// Measures products of the model's width, whose weights are `parameters` numbers: about a second.
pub(super) fn measure(config: &Config, model: &ModelConfig, parameters: usize, running: usize) -> Speed {
    let (k, n) = (model.hidden_size, (2 * model.intermediate_size).min(4096));
    let (x, w, dy) = (Tensor::full(ROWS, k, 0.5), Tensor::full(n, k, 0.25), Tensor::full(ROWS, n, 0.125));
    let (mut y, mut dx, mut dw) = (Tensor::zeros(ROWS, n), Tensor::zeros(ROWS, k), Tensor::zeros(n, k));
    let arithmetic = Arithmetic::from(config.model.arithmetic);
    let mut batch = || {
        arithmetic.nt(&x, &w, &mut y, Output::Replace);
        arithmetic.nn(&dy, &w, &mut dx, Output::Replace);
        arithmetic.tn(&dy, &x, &mut dw, Output::Accumulate);
    };
    let of_batch = best_seconds(&mut batch);

    // As many as the model has: small ones stay in the caches from step to step.
    let n = (parameters.min(DECODE_NUMBERS) / k).max(1);
    let packed = PackedWeight::for_arithmetic(&Tensor::full(n, k, 0.25), arithmetic);
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
