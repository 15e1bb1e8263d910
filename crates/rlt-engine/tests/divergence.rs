//! The divergence over the whole vocabulary against a direct f64 computation, and the sampled log-ratio
//! against it.

mod common;

use common::{check_gradient, product_nt, random, wide};
use rlt_engine::Tensor;
use rlt_engine::head::{Distributions, Kl, divergence_with_backward, full_divergence, token_logprobs};
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

/// Divergences, the gradient of the hidden states and of the output matrix, at the weight of each row.
fn backward(p: Distributions, q: Distributions, kl: Kl, weights: &[f32]) -> (Vec<f32>, Tensor, Tensor) {
    let mut dhidden = Tensor::zeros(p.hidden.rows(), p.hidden.cols());
    let mut dw = Tensor::zeros(p.w.weight.rows(), p.w.weight.cols());
    let weight =
        |first: usize, divergences: &[f32]| Ok::<_, ()>(weights[first..first + divergences.len()].to_vec());
    let all = divergence_with_backward(p, q, kl, &mut dhidden, Some(&mut dw), weight).unwrap();
    (all, dhidden, dw)
}

#[test]
fn the_gradient_of_a_divergence_by_hand() {
    // Two tokens. The model says (0.6, 0.4), the teacher (0.5, 0.5): its logits are the hidden state times (1, 0).
    let (z, ln) = (1.5_f32.ln(), f32::ln);
    let (h, w) = (Tensor::from_vec(1, 1, vec![z]), Tensor::from_vec(2, 1, vec![1.0, 0.0]));
    let zero = Tensor::from_vec(1, 1, vec![0.0]);
    let p = Distributions { hidden: &h, rows: &[0], w: (&w).into(), temperature: 1.0 };
    let q = Distributions { hidden: &zero, ..p };
    let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a}, by hand {b}");
    // 0.6 ln 1.2 + 0.4 ln 0.8; by the logit: 0.6 * 0.4 * ln(1.2 / 0.8).
    let (divergence, dh, _) = backward(p, q, Kl::Reverse, &[2.0]);
    near(divergence[0], 0.6 * ln(1.2) + 0.4 * ln(0.8));
    near(dh.to_host()[0], 2.0 * 0.6 * 0.4 * ln(1.5));
    // -0.5 ln 1.2 - 0.5 ln 0.8; by the logit: 0.6 - 0.5.
    let (divergence, dh, dw) = backward(p, q, Kl::Forward, &[2.0]);
    near(divergence[0], -0.5 * ln(1.2) - 0.5 * ln(0.8));
    near(dh.to_host()[0], 2.0 * 0.1);
    near(dw.to_host()[0], 2.0 * 0.1 * z);
    near(dw.to_host()[1], -2.0 * 0.1 * z);
    // At temperature 2 of both a logit counts half, and says less.
    let [p, q] = [p, q].map(|d| Distributions { temperature: 2.0, ..d });
    let share = 1.5_f32.sqrt() / (1.0 + 1.5_f32.sqrt());
    let (_, dh, _) = backward(p, q, Kl::Forward, &[2.0]);
    near(dh.to_host()[0], share - 0.5);
}

#[test]
fn the_gradient_of_a_divergence_agrees_with_finite_differences() {
    // Rows repeat, so that what they add to a hidden state adds up; more than one chunk of rows.
    let (n, vocab, width) = (150, 37, 10);
    let (h, hq, w, wq) = (random(9, width, 1), random(9, 6, 2), random(vocab, width, 3), random(vocab, 6, 4));
    let (w, wq) = (scaled(&w, 0.5), scaled(&wq, 0.5));
    let at: Vec<usize> = (0..n).map(|i| i * 5 % 9).collect();
    let weights: Vec<f32> = (0..n).map(|i| 0.5 + (i as f32).sin()).collect();
    let p = Distributions { hidden: &h, rows: &at, w: (&w).into(), temperature: 0.7 };
    let q = Distributions { hidden: &hq, rows: &at, w: (&wq).into(), temperature: 0.7 };
    let of_q = rows(&q);
    for kl in [Kl::Reverse, Kl::Forward] {
        let (all, dhidden, dw) = backward(p, q, kl, &weights);
        let exact = if kl == Kl::Reverse { exact(&p, &q) } else { self::exact(&q, &p) };
        for (ours, exact) in all.iter().zip(&exact) {
            assert!((f64::from(*ours) - exact).abs() < 1e-6 * exact.max(1.0), "{ours}, exactly {exact}");
        }
        let loss = |h: &[f64], w: &[f64]| -> f64 {
            let logits = product_nt(h, w, width);
            let of_row = |(i, &row): (usize, &usize)| -> f64 {
                let of_p = log_softmax(&logits[row * vocab..][..vocab], 0.7);
                let terms = of_p.iter().zip(&of_q[i]).map(|(p, q)| match kl {
                    Kl::Reverse => p.exp() * (p - q),
                    Kl::Forward => q.exp() * (q - p),
                });
                f64::from(weights[i]) * terms.sum::<f64>()
            };
            at.iter().enumerate().map(of_row).sum()
        };
        let (h, w) = (wide(&h), wide(&w));
        check_gradient("hidden states", &h, |h| loss(h, &w), &dhidden, 2e-4);
        check_gradient("output matrix", &w, |w| loss(&h, w), &dw, 2e-4);
    }
}

#[test]
fn all_of_this_with_lesser_instructions() {
    common::repeat_with_lesser_instructions("all_of_this_with_lesser_instructions");
}
