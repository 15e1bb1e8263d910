//! Every operation's forward pass against a plain f64 version of it, and its backward pass against
//! central differences of that f64 version. (Attention has its own file.)

mod common;

use common::{assert_close, check_gradient, dot, product_nt, random, wide};
use rlt_engine::Tensor;
use rlt_engine::embedding::{embed, embed_backward, scale};
use rlt_engine::geglu::{geglu, geglu_backward};
use rlt_engine::head::{logits, token_logprobs, token_logprobs_beside_best, token_logprobs_with_backward};
use rlt_engine::matmul::{Output, add_bias, add_bias_backward, matmul_nn, matmul_nt, matmul_tn};
use rlt_engine::norm::{
    HeadColumns, add_rms_norm, head_norm, head_norm_backward, one_plus, rms_norm, rms_norm_again,
    rms_norm_backward,
};
use rlt_engine::rope::{RopeTable, Rotation, rotate};
use rlt_engine::swiglu::{swiglu, swiglu_backward};

/// Forward results, relative to the largest value.
const FORWARD: f64 = 1e-5;
/// Gradients, relative to their norm.
const BACKWARD: f64 = 1e-4;
const EPS: f32 = 1e-5;

/// `a - b`, element by element: what an operation has added to `b`.
fn difference(a: &Tensor, b: &Tensor) -> Tensor {
    let values = a.to_host().iter().zip(b.to_host().iter()).map(|(a, b)| a - b).collect();
    Tensor::from_vec(a.rows(), a.cols(), values)
}

#[test]
fn linear_layer() {
    // All in one block; cut by columns; cut by rows; a long inner product in every direction.
    for (m, n, k) in [(5, 7, 9), (1, 130, 70), (70, 300, 40), (300, 70, 40), (40, 90, 1100), (1100, 40, 60)] {
        let (x, w, b, g) = (random(m, k, 1), random(n, k, 2), random(1, n, 3), random(m, n, 4));
        let forward = |x: &[f64], w: &[f64], b: &[f64]| {
            let mut y = product_nt(x, w, k);
            for (i, y) in y.iter_mut().enumerate() {
                *y += b[i % n];
            }
            y
        };
        let (xw, ww, bw, gw) = (wide(&x), wide(&w), wide(&b), wide(&g));
        let name = |part: &str| format!("linear layer {m} x {n} x {k}, {part}");

        let mut y = Tensor::full(m, n, f32::NAN);
        matmul_nt(&x, &w, &mut y, Output::Replace);
        add_bias(&mut y, &b);
        assert_close(&name("output"), &y, &forward(&xw, &ww, &bw), FORWARD);
        matmul_nt(&x, &w, &mut y, Output::Accumulate);
        let twice: Vec<f64> =
            forward(&xw, &ww, &bw).iter().zip(product_nt(&xw, &ww, k)).map(|(a, b)| a + b).collect();
        assert_close(&name("output, accumulated"), &y, &twice, FORWARD);

        // The loss is linear in x, in w and in b: one product gives all differences.
        let (mut dx, mut dw, mut db) =
            (Tensor::full(m, k, f32::NAN), Tensor::full(n, k, f32::NAN), Tensor::zeros(1, n));
        matmul_nn(&g, &w, &mut dx, Output::Replace);
        matmul_tn(&g, &x, &mut dw, Output::Replace);
        add_bias_backward(&g, &mut db);
        check_gradient(&name("input"), &xw, |x| dot(&forward(x, &ww, &bw), &gw), &dx, BACKWARD);
        check_gradient(&name("weight"), &ww, |w| dot(&forward(&xw, w, &bw), &gw), &dw, BACKWARD);
        check_gradient(&name("bias"), &bw, |b| dot(&forward(&xw, &ww, b), &gw), &db, BACKWARD);

        // Accumulating adds the same once more.
        let (dx_once, dw_once, db_once) = (dx.clone(), dw.clone(), db.clone());
        matmul_nn(&g, &w, &mut dx, Output::Accumulate);
        matmul_tn(&g, &x, &mut dw, Output::Accumulate);
        add_bias_backward(&g, &mut db);
        assert_close(&name("input, again"), &difference(&dx, &dx_once), &wide(&dx_once), FORWARD);
        assert_close(&name("weight, again"), &difference(&dw, &dw_once), &wide(&dw_once), FORWARD);
        assert_close(&name("bias, again"), &difference(&db, &db_once), &wide(&db_once), FORWARD);
    }
}

/// One vector, normalised.
fn rms_norm_wide(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let r = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(EPS)).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * r * w).collect()
}

#[test]
fn root_mean_square_norm() {
    for (m, d) in [(3, 5), (7, 40), (300, 70)] {
        let (x, weight, g) = (random(m, d, 1), random(1, d, 2), random(m, d, 3));
        let forward = |x: &[f64], w: &[f64]| -> Vec<f64> {
            x.chunks_exact(d).flat_map(|row| rms_norm_wide(row, w)).collect()
        };
        let (xw, ww, gw) = (wide(&x), wide(&weight), wide(&g));
        let (y, inverse) = rms_norm(&x, &weight, EPS);
        assert_close("rms_norm", &y, &forward(&xw, &ww), FORWARD);
        assert_close("rms_norm_again", &rms_norm_again(&x, &weight, &inverse), &wide(&y), 0.0);

        // Both gradients are added to what is there.
        let (dx0, dw0) = (random(m, d, 4), random(1, d, 5));
        let (mut dx, mut dw) = (dx0.clone(), dw0.clone());
        rms_norm_backward(&g, &x, &weight, &inverse, &mut dx, Some(&mut dw));
        let (dx, dw) = (difference(&dx, &dx0), difference(&dw, &dw0));
        check_gradient("rms_norm, input", &xw, |x| dot(&forward(x, &ww), &gw), &dx, BACKWARD);
        check_gradient("rms_norm, weight", &ww, |w| dot(&forward(&xw, w), &gw), &dw, BACKWARD);
    }
}

/// Rows of 4 other columns, the heads, and 3 other columns.
fn heads_between(n_heads: usize, head_dim: usize) -> (HeadColumns, usize) {
    (HeadColumns { first_col: 4, n_heads, head_dim }, 4 + n_heads * head_dim + 3)
}

/// Every head of `x` replaced by `change(row, head)`; the other columns stay.
fn map_heads(
    x: &[f64],
    heads: HeadColumns,
    cols: usize,
    change: impl Fn(usize, &[f64]) -> Vec<f64>,
) -> Vec<f64> {
    let mut out = x.to_vec();
    for (i, row) in out.chunks_exact_mut(cols).enumerate() {
        let row = &mut row[heads.first_col..heads.first_col + heads.n_heads * heads.head_dim];
        for head in row.chunks_exact_mut(heads.head_dim) {
            let changed = change(i, head);
            head.copy_from_slice(&changed);
        }
    }
    out
}

#[test]
fn norm_of_each_head() {
    for (m, n_heads, head_dim) in [(3, 2, 6), (200, 3, 32), (260, 1, 80)] {
        let (heads, cols) = heads_between(n_heads, head_dim);
        let (x, weight, g) = (random(m, cols, 1), random(1, head_dim, 2), random(m, cols, 3));
        let forward = |x: &[f64], w: &[f64]| map_heads(x, heads, cols, |_, head| rms_norm_wide(head, w));
        let (xw, ww, gw) = (wide(&x), wide(&weight), wide(&g));
        let mut y = x.clone();
        head_norm(&mut y, heads, &weight, EPS);
        assert_close("head_norm", &y, &forward(&xw, &ww), FORWARD);

        let dw0 = random(1, head_dim, 4);
        let (mut dx, mut dw) = (g.clone(), dw0.clone());
        head_norm_backward(&mut dx, &x, heads, &weight, EPS, Some(&mut dw));
        let dw = difference(&dw, &dw0);
        check_gradient("head_norm, input", &xw, |x| dot(&forward(x, &ww), &gw), &dx, BACKWARD);
        check_gradient("head_norm, weight", &ww, |w| dot(&forward(&xw, w), &gw), &dw, BACKWARD);
    }
}

#[test]
fn rotary_embedding() {
    for (m, n_heads, half) in [(5, 2, 3), (300, 3, 16)] {
        let (heads, cols) = heads_between(n_heads, 2 * half);
        let frequencies: Vec<f32> = (0..half).map(|i| 100.0_f32.powf(-(i as f32) / half as f32)).collect();
        let factor = 1.25_f32;
        let table = RopeTable::new(&frequencies, factor, 500);
        assert_eq!(table.positions(), 500);
        let positions: Vec<u32> = (0..m as u32).map(|i| (i * 37) % 500).collect();
        let forward = |x: &[f64]| {
            map_heads(x, heads, cols, |row, head| {
                let angle = |i: usize| f64::from(positions[row] as f32 * frequencies[i % half]);
                let turned = |i: usize| if i < half { -head[i + half] } else { head[i - half] };
                (0..2 * half)
                    .map(|i| f64::from(factor) * (head[i] * angle(i).cos() + turned(i) * angle(i).sin()))
                    .collect()
            })
        };
        let (x, g) = (random(m, cols, 1), random(m, cols, 2));
        let mut y = x.clone();
        rotate(&mut y, heads, &positions, &table, Rotation::Forward);
        assert_close("rotate", &y, &forward(&wide(&x)), FORWARD);
        let mut dx = g.clone();
        rotate(&mut dx, heads, &positions, &table, Rotation::Backward);
        check_gradient("rotate", &wide(&x), |x| dot(&forward(x), &wide(&g)), &dx, BACKWARD);
    }
}

#[test]
fn gated_activation() {
    for (m, f) in [(3, 5), (200, 96)] {
        let (x, g) = (random(m, 2 * f, 1), random(m, f, 2));
        let forward = |x: &[f64]| -> Vec<f64> {
            x.chunks_exact(2 * f)
                .flat_map(|row| {
                    let (gate, up) = row.split_at(f);
                    gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect::<Vec<_>>()
                })
                .collect()
        };
        assert_close("swiglu", &swiglu(&x), &forward(&wide(&x)), FORWARD);
        let (mut dx, mut again) = (x.clone(), g.clone());
        swiglu_backward(&mut again, &mut dx);
        assert_eq!(again.to_host(), swiglu(&x).to_host(), "the output once more");
        check_gradient("swiglu", &wide(&x), |x| dot(&forward(x), &wide(&g)), &dx, BACKWARD);
    }
}

#[test]
fn gated_activation_of_gelu() {
    let gelu = |x: f64| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
        0.5 * x * (1.0 + inner.tanh())
    };
    for (m, f, size) in [(3, 5, 1.0_f32), (200, 96, 1.0), (7, 40, 6.0)] {
        let mut x = random(m, 2 * f, 1);
        scale(&mut x, size);
        let g = random(m, f, 2);
        let forward = |x: &[f64]| -> Vec<f64> {
            x.chunks_exact(2 * f)
                .flat_map(|row| {
                    let (gate, up) = row.split_at(f);
                    gate.iter().zip(up).map(|(g, u)| gelu(*g) * u).collect::<Vec<_>>()
                })
                .collect()
        };
        assert_close("geglu", &geglu(&x), &forward(&wide(&x)), FORWARD);
        let (mut dx, mut again) = (x.clone(), g.clone());
        geglu_backward(&mut again, &mut dx);
        assert_eq!(again.to_host(), geglu(&x).to_host(), "the output once more");
        check_gradient("geglu", &wide(&x), |x| dot(&forward(x), &wide(&g)), &dx, BACKWARD);
    }
}

#[test]
fn rows_added_through_a_norm() {
    for (m, d) in [(3, 5), (300, 70)] {
        let (x, y, weight) = (random(m, d, 1), random(m, d, 2), random(1, d, 3));
        let mut sum = x.clone();
        let inverse = add_rms_norm(&mut sum, &y, &one_plus(&weight), EPS);
        let weights: Vec<f64> = wide(&weight).iter().map(|w| 1.0 + w).collect();
        let normed =
            wide(&y).chunks_exact(d).flat_map(|row| rms_norm_wide(row, &weights)).collect::<Vec<_>>();
        let expected: Vec<f64> = wide(&x).iter().zip(&normed).map(|(x, y)| x + y).collect();
        assert_close("add_rms_norm", &sum, &expected, FORWARD);
        assert_eq!(inverse.to_host(), rms_norm(&y, &weight, EPS).1.to_host());
    }
}

#[test]
fn token_embedding() {
    let (vocab, d) = (20, 9);
    let ids = [3_u32, 0, 19, 3, 3, 7, 0];
    let (table, g) = (random(vocab, d, 1), random(ids.len(), d, 2));
    let forward = |table: &[f64]| -> Vec<f64> {
        ids.iter().flat_map(|&id| table[id as usize * d..][..d].to_vec()).collect()
    };
    assert_close("embed", &embed(&ids, &table), &forward(&wide(&table)), 0.0);
    let before = random(vocab, d, 3);
    let mut dtable = before.clone();
    embed_backward(&ids, &g, &mut dtable);
    let dtable = difference(&dtable, &before);
    check_gradient("embed", &wide(&table), |t| dot(&forward(t), &wide(&g)), &dtable, BACKWARD);
}

/// Log-probabilities of `targets` after `rows` of `hidden`, in f64.
fn logprobs_wide(hidden: &[f64], w: &[f64], d: usize, asked: &[(usize, u32)], temperature: f64) -> Vec<f64> {
    asked
        .iter()
        .map(|&(row, target)| {
            let mut logits = product_nt(&hidden[row * d..(row + 1) * d], w, d);
            for logit in &mut logits {
                *logit /= temperature;
            }
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            logits[target as usize] - max - logits.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
        })
        .collect()
}

/// The head under the loss `sum_i c_i exp(logprob_i)`, whose derivative needs the log-probabilities.
fn check_head(m: usize, d: usize, vocab: usize, asked: &[(usize, u32)], temperature: f32) {
    let (hidden, w) = (random(m, d, 1), random(vocab, d, 2));
    let (rows, targets): (Vec<usize>, Vec<u32>) = asked.iter().copied().unzip();
    let coefficients = random(1, asked.len(), 3);
    let c = wide(&coefficients);
    let (hw, ww) = (wide(&hidden), wide(&w));
    let forward = |h: &[f64], w: &[f64]| logprobs_wide(h, w, d, asked, f64::from(temperature));
    let loss =
        |h: &[f64], w: &[f64]| -> f64 { forward(h, w).iter().zip(&c).map(|(lp, c)| c * lp.exp()).sum() };

    let (dh0, dw0) = (random(m, d, 4), random(vocab, d, 5));
    let (mut dh, mut dw) = (dh0.clone(), dw0.clone());
    let mut starts = Vec::new();
    let weights = |first: usize, logprobs: &[f32]| {
        starts.push((first, logprobs.len()));
        let c = &coefficients.to_host()[first..first + logprobs.len()];
        Ok::<_, ()>(c.iter().zip(logprobs).map(|(c, lp)| c * lp.exp()).collect())
    };
    let logprobs = token_logprobs_with_backward(
        &hidden,
        &rows,
        (&w).into(),
        &targets,
        temperature,
        &mut dh,
        Some(&mut dw),
        weights,
    )
    .expect("the weights never fail");
    let covered = starts.iter().fold(0, |end, &(first, count)| {
        assert_eq!(first, end, "chunks follow each other");
        first + count
    });
    assert_eq!(covered, asked.len(), "every token was weighted");

    let count = asked.len();
    let same = token_logprobs(&hidden, &rows, (&w).into(), &targets, temperature);
    assert_eq!(logprobs, same, "with and without a backward pass");
    let logprobs = Tensor::from_vec(1, count, logprobs);
    assert_close("token_logprobs", &logprobs, &forward(&hw, &ww), FORWARD);
    let (dh, dw) = (difference(&dh, &dh0), difference(&dw, &dw0));
    check_gradient("head, hidden states", &hw, |h| loss(h, &ww), &dh, BACKWARD);
    check_gradient("head, output matrix", &ww, |w| loss(&hw, w), &dw, BACKWARD);

    // A frozen output matrix changes nothing for the hidden states.
    let mut dh_frozen = dh0.clone();
    let weights = |first: usize, logprobs: &[f32]| {
        let c = &coefficients.to_host()[first..first + logprobs.len()];
        Ok::<_, ()>(c.iter().zip(logprobs).map(|(c, lp)| c * lp.exp()).collect())
    };
    token_logprobs_with_backward(
        &hidden,
        &rows,
        (&w).into(),
        &targets,
        temperature,
        &mut dh_frozen,
        None,
        weights,
    )
    .expect("the weights never fail");
    assert_eq!(wide(&difference(&dh_frozen, &dh0)), wide(&dh));
}

#[test]
fn head_with_repeated_rows() {
    let asked = [(0, 3), (4, 10), (4, 0), (4, 10), (8, 7), (2, 5)];
    check_head(9, 6, 11, &asked, 1.0);
    check_head(9, 6, 11, &asked, 0.7);
    check_head(9, 6, 11, &asked[..1], 1.3);
}

#[test]
fn head_in_several_chunks() {
    let asked: Vec<(usize, u32)> = (0..1100).map(|i| (i * 7 % 40, (i * 5 % 33) as u32)).collect();
    check_head(40, 12, 33, &asked, 0.9);
}

#[test]
fn the_most_likely_token_stands_beside_the_given_one() {
    // Several chunks, and a vocabulary that no vector divides.
    let (m, d, vocab, temperature) = (13, 10, 147, 0.7);
    let (hidden, w) = (random(m, d, 1), random(vocab, d, 2));
    let asked: Vec<(usize, u32)> = (0..600).map(|i| (i * 7 % m, (i * 5 % vocab) as u32)).collect();
    let (rows, targets): (Vec<usize>, Vec<u32>) = asked.iter().copied().unzip();
    let both = token_logprobs_beside_best(&hidden, &rows, (&w).into(), &targets, temperature);
    let alone = token_logprobs(&hidden, &rows, (&w).into(), &targets, temperature);
    assert!(both.iter().map(|token| token.given).eq(alone), "the given token's is that of the other pass");
    let all = logits(&hidden, &w);
    for (token, &(row, target)) in both.iter().zip(&asked) {
        let row = &all.to_host()[row * vocab..(row + 1) * vocab];
        let gap = row.iter().copied().fold(f32::MIN, f32::max) - row[target as usize];
        assert!((token.best - token.given - gap / temperature).abs() < 1e-4, "{token:?}, {gap}");
        assert!(token.best >= token.given && (token.best == token.given) == (gap == 0.0), "{token:?}, {gap}");
    }
    assert!(both.iter().any(|token| token.best == token.given), "some are the most likely ones");
}

#[test]
fn head_of_extreme_logits_stays_finite() {
    // One logit of 1000 and one of -1000: probabilities 1 and 0 to the last bit.
    let (hidden, w) = (Tensor::full(1, 1, 1000.0), Tensor::from_vec(3, 1, vec![1.0, 0.0, -1.0]));
    assert_eq!(wide(&logits(&hidden, &w)), [1000.0, 0.0, -1000.0]);
    assert_eq!(token_logprobs(&hidden, &[0, 0, 0], (&w).into(), &[0, 1, 2], 1.0), [0.0, -1000.0, -2000.0]);
    let (mut dh, mut dw) = (Tensor::zeros(1, 1), Tensor::zeros(3, 1));
    token_logprobs_with_backward(&hidden, &[0], (&w).into(), &[2], 1.0, &mut dh, Some(&mut dw), |_, _| {
        Ok::<_, ()>(vec![1.0])
    })
    .expect("the weights never fail");
    assert_eq!(wide(&dh), [-2.0]);
    assert_eq!(wide(&dw), [-1000.0, 0.0, 1000.0]);
}

#[test]
fn an_error_of_the_weights_comes_back() {
    let (hidden, w) = (random(2, 3, 1), random(5, 3, 2));
    let mut dh = Tensor::zeros(2, 3);
    let result =
        token_logprobs_with_backward(&hidden, &[1], (&w).into(), &[4], 1.0, &mut dh, None, |_, _| {
            Err("no weights")
        });
    assert_eq!(result, Err("no weights"));
    assert_eq!(wide(&dh), [0.0; 6]);
}

#[test]
fn all_of_this_with_lesser_instructions() {
    common::repeat_with_lesser_instructions("all_of_this_with_lesser_instructions");
}
