//! The divergence over the whole vocabulary against a direct f64 computation, and the sampled log-ratio
//! against it.

mod common;

use common::{product_nt, random, wide};
use rlt_engine::Tensor;
use rlt_engine::head::{Distributions, full_divergence, token_logprobs};
use rlt_engine::random::RandomStream;

/// log softmax(logits / temperature) in f64.
fn log_softmax(logits: &[f64], temperature: f32) -> Vec<f64> {
    let scaled: Vec<f64> = logits.iter().map(|x| x / f64::from(temperature)).collect();
    let max = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = max + scaled.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    scaled.into_iter().map(|x| x - log_sum).collect()
}

/// Log-probabilities of every row of `d`, in f64.
fn rows(d: &Distributions) -> Vec<Vec<f64>> {
    let logits = product_nt(&wide(&d.hidden.gather_rows(d.rows)), &wide(d.w.weight), d.hidden.cols());
    logits.chunks(d.w.weight.rows()).map(|row| log_softmax(row, d.temperature)).collect()
}

fn exact(p: &Distributions, q: &Distributions) -> Vec<f64> {
    let of_row = |(p, q): (&Vec<f64>, &Vec<f64>)| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum();
    rows(p).iter().zip(&rows(q)).map(of_row).collect()
}

fn scaled(x: &Tensor, by: f32) -> Tensor {
    Tensor::from_vec(x.rows(), x.cols(), x.to_host().iter().map(|x| x * by).collect())
}

#[test]
fn equals_the_direct_sum_in_f64() {
    // Widths differ; rows repeat; several chunks (a chunk has 64 rows or more); vocabularies on both sides of a block.
    for (n, vocab, widths) in
        [(3, 7, [5, 9]), (150, 1023, [16, 32]), (70, 5000, [24, 24]), (1, 40_000, [8, 16])]
    {
        let (hp, hq) = (random(9, widths[0], 1), random(9, widths[1], 2));
        for sharpness in [0.05, 1.0, 3.0] {
            let (wp, wq) = (
                scaled(&random(vocab, widths[0], 3), sharpness),
                scaled(&random(vocab, widths[1], 4), sharpness),
            );
            let at: Vec<usize> = (0..n).map(|i| i * 5 % 9).collect();
            let p = Distributions { hidden: &hp, rows: &at, w: (&wp).into(), temperature: 0.7 };
            let q = Distributions { hidden: &hq, rows: &at, w: (&wq).into(), temperature: 1.3 };
            for (ours, exact) in full_divergence(p, q).into_iter().zip(exact(&p, &q)) {
                let error = (f64::from(ours) - exact).abs();
                assert!(
                    error < 1e-6 * exact.max(1.0),
                    "{n} x {vocab}, x{sharpness}: {ours}, exactly {exact}"
                );
                assert!(ours >= 0.0);
            }
        }
    }
}

#[test]
fn a_distribution_does_not_diverge_from_itself() {
    let (h, w) = (random(4, 16, 1), random(300, 16, 2));
    let p = Distributions { hidden: &h, rows: &[0, 1, 2, 3], w: (&w).into(), temperature: 0.7 };
    assert_eq!(full_divergence(p, p), [0.0; 4]);
    // Nor much from one that is nearly the same: what is left is the rounding of the logits.
    let near = scaled(&w, 1.001);
    let q = Distributions { w: (&near).into(), ..p };
    for (ours, exact) in full_divergence(p, q).into_iter().zip(exact(&p, &q)) {
        assert!((f64::from(ours) - exact).abs() < 5e-7, "{ours}, exactly {exact}");
    }
}

#[test]
fn the_sampled_log_ratio_estimates_it_without_bias() {
    const DRAWS: usize = 200_000;
    let vocab = 200;
    let (h, wp, wq) = (random(5, 12, 7), random(vocab, 12, 8), random(vocab, 12, 9));
    let at = [0, 1, 2, 3, 4];
    let p = Distributions { hidden: &h, rows: &at, w: (&wp).into(), temperature: 0.7 };
    let q = Distributions { w: (&wq).into(), ..p };
    let full = full_divergence(p, q);
    let stream = RandomStream::new(1, "draws");
    let (log_p, log_q) = {
        let of = |d: &Distributions| -> Vec<Vec<f32>> {
            let every: Vec<u32> = (0..vocab as u32).collect();
            at.iter()
                .map(|&row| token_logprobs(d.hidden, &vec![row; vocab], d.w, &every, d.temperature))
                .collect()
        };
        (of(&p), of(&q))
    };
    for row in 0..at.len() {
        let (mut sum, mut squares) = (0.0, 0.0);
        for draw in 0..DRAWS {
            let mut left = stream.uniform([row as u64, 0, 0], draw as u64);
            let token = (0..vocab).position(|v| {
                left -= f64::from(log_p[row][v]).exp();
                left < 0.0
            });
            let token = token.unwrap_or(vocab - 1);
            let ratio = f64::from(log_p[row][token]) - f64::from(log_q[row][token]);
            sum += ratio;
            squares += ratio * ratio;
        }
        let mean = sum / DRAWS as f64;
        let standard_error = ((squares / DRAWS as f64 - mean * mean) / DRAWS as f64).sqrt();
        let z = (mean - f64::from(full[row])) / standard_error;
        // Five rows with a fixed seed: beyond three standard errors is a fault, not chance.
        assert!(
            z.abs() < 3.0,
            "row {row}: {mean} +- {standard_error} sampled, {} exactly (z {z})",
            full[row]
        );
        assert!(full[row] > 20.0 * standard_error as f32, "row {row}: the test could not fail");
    }
}

#[test]
fn all_of_this_with_lesser_instructions() {
    common::repeat_with_lesser_instructions("all_of_this_with_lesser_instructions");
}
