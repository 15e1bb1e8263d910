//! Determinism, bit for bit: a row's forward result does not depend on the rows around it, and no
//! result depends on the number of threads.

mod common;

use common::{bits, random};
use rlt_engine::Tensor;
use rlt_engine::adamw::{AdamW, sum_of_squares};
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::attention::{AttentionShape, Layout, attention, attention_backward};
use rlt_engine::embedding::{embed, embed_backward};
use rlt_engine::head::{logits, token_logprobs, token_logprobs_with_backward};
use rlt_engine::matmul::{Output, add_bias, add_bias_backward, matmul_nn, matmul_nt, matmul_tn};
use rlt_engine::moment::Moment;
use rlt_engine::norm::{
    HeadColumns, head_norm, head_norm_backward, rms_norm, rms_norm_again, rms_norm_backward,
};
use rlt_engine::packed::{PackedWeight, matmul_packed};
use rlt_engine::rope::{RopeTable, Rotation, rotate};
use rlt_engine::swiglu::{swiglu, swiglu_backward};

/// `rows` of `x`.
fn rows_of(x: &Tensor, rows: std::ops::Range<usize>) -> Tensor {
    x.gather_rows(&rows.collect::<Vec<_>>())
}

/// The product of some rows of `x`, and the same added to some rows of `base`.
fn products(x: &Tensor, w: &Tensor, base: &Tensor, rows: std::ops::Range<usize>) -> [Vec<u32>; 2] {
    let some = rows_of(x, rows.clone());
    let mut replaced = Tensor::full(some.rows(), w.rows(), f32::NAN);
    matmul_nt(&some, w, &mut replaced, Output::Replace);
    let mut added = rows_of(base, rows);
    matmul_nt(&some, w, &mut added, Output::Accumulate);
    [bits(&replaced), bits(&added)]
}

/// How many rows differ between a product of `m` rows of `x` and the product of all its rows.
fn differing_rows(n: usize, k: usize, total: usize, row_counts: &[usize]) -> Vec<usize> {
    let (x, w, base) = (random(total, k, 1), random(n, k, 2), random(total, n, 3));
    let whole = products(&x, &w, &base, 0..total);
    row_counts
        .iter()
        .copied()
        .filter(|&m| {
            [0, total - m].into_iter().any(|first| {
                let some = products(&x, &w, &base, first..first + m);
                some.iter().zip(&whole).any(|(some, whole)| some[..] != whole[first * n..(first + m) * n])
            })
        })
        .collect()
}

#[test]
fn a_row_of_a_product_does_not_depend_on_the_other_rows() {
    let shapes = [
        (512, 256),
        (1408, 256),
        (256, 704),
        (2048, 256),
        (700, 704),
        (96, 96),
        (40, 2816),
        // Awkward widths: short last blocks, less than a vector, one column.
        (193, 700),
        (200, 513),
        (16, 1100),
        (3, 40),
        (1, 96),
        (96, 1),
    ];
    let counts: Vec<usize> = (1..=130).collect();
    let differing: Vec<_> = shapes
        .iter()
        .map(|&(n, k)| ((n, k), differing_rows(n, k, 131, &counts)))
        .filter(|(_, counts)| !counts.is_empty())
        .collect();
    assert!(differing.is_empty(), "(n, k) and the row counts that differ: {differing:?}");
}

#[test]
fn a_row_of_a_large_product_does_not_depend_on_the_other_rows() {
    for (n, k) in [(256, 96), (96, 600)] {
        let counts = [1, 191, 192, 193, 577, 1024, 1025, 2047, 2048, 2049, 2064, 2065, 2112];
        assert_eq!(differing_rows(n, k, 2113, &counts), [], "n {n}, k {k}");
    }
}

/// The segments of some sequences: (own length, prefix).
type Segments = [(usize, Option<usize>)];

fn layout_of(segments: &Segments) -> Layout {
    let mut layout = Layout::new();
    for &(len, prefix) in segments {
        layout.push(len, prefix);
    }
    layout
}

#[test]
fn attention_of_a_sequence_does_not_depend_on_the_rest_of_the_batch() {
    let shape = AttentionShape::full(4, 2, 16);
    let cols = shape.qkv_cols();
    for prefix_len in [1, 70, 128] {
        for own_len in [1, 2, 17, 64, 65, 129] {
            let (prefix, own) = (random(prefix_len, cols, 1), random(own_len, cols, 2));
            // The sequence alone, then behind other sequences, with a sibling on the same prefix.
            let others = random(150 + 40, cols, 3);
            let stack = |parts: &[&Tensor]| {
                let rows: Vec<f32> = parts.iter().flat_map(|p| p.to_host().into_owned()).collect();
                Tensor::from_vec(rows.len() / cols, cols, rows)
            };
            let alone = layout_of(&[(prefix_len, None), (own_len, Some(0))]);
            let (before, sibling) = (rows_of(&others, 0..150), rows_of(&others, 150..190));
            let packed = layout_of(&[
                (100, None),
                (prefix_len, None),
                (50, Some(0)),
                (40, Some(1)),
                (own_len, Some(1)),
            ]);
            let qkv_alone = stack(&[&prefix, &own]);
            let qkv_packed =
                stack(&[&rows_of(&before, 0..100), &prefix, &rows_of(&before, 100..150), &sibling, &own]);
            let (out_alone, sums_alone) = attention(&qkv_alone, &alone, shape, Arithmetic::F32);
            let (out_packed, sums_packed) = attention(&qkv_packed, &packed, shape, Arithmetic::F32);
            let rows = packed.rows();
            for (a, b, what) in [(&out_alone, &out_packed, "output"), (&sums_alone, &sums_packed, "log sum")]
            {
                let (own_a, own_b) =
                    (rows_of(a, prefix_len..prefix_len + own_len), rows_of(b, rows - own_len..rows));
                assert_eq!(bits(&own_a), bits(&own_b), "{what} of {own_len} after {prefix_len}");
                let (prefix_a, prefix_b) = (rows_of(a, 0..prefix_len), rows_of(b, 100..100 + prefix_len));
                assert_eq!(bits(&prefix_a), bits(&prefix_b), "{what} of the prefix of {prefix_len}");
            }
        }
    }
}

#[test]
fn log_probabilities_do_not_depend_on_what_else_is_asked_for() {
    let (hidden, w) = (random(600, 48, 1), random(300, 48, 2));
    let rows: Vec<usize> = (0..600).collect();
    let targets: Vec<u32> = (0..600).map(|i| i * 7 % 300).collect();
    let all = token_logprobs(&hidden, &rows, (&w).into(), &targets, 0.8);
    for (first, count) in [(0, 1), (511, 2), (599, 1), (100, 37), (3, 513)] {
        let span = first..first + count;
        let some = token_logprobs(&hidden, &rows[span.clone()], (&w).into(), &targets[span.clone()], 0.8);
        for (some, all) in some.iter().zip(&all[span]) {
            assert_eq!(some.to_bits(), all.to_bits(), "tokens {first}..{}", first + count);
        }
    }
}

fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The bits of what every operation computes, by name, at sizes that are split over threads.
fn every_operation() -> Vec<(&'static str, Vec<u32>)> {
    let mut results = Vec::new();
    let mut keep = |name, tensor: &Tensor| results.push((name, bits(tensor)));
    let (m, n, k) = (700, 320, 200);
    let (x, w, dy) = (random(m, k, 1), random(n, k, 2), random(m, n, 3));

    let mut y = random(m, n, 4);
    matmul_nt(&x, &w, &mut y, Output::Accumulate);
    add_bias(&mut y, &random(1, n, 5));
    keep("matmul_nt, add_bias", &y);
    let (mut plain, mut packed) = (Tensor::zeros(m, n), Tensor::zeros(m, n));
    matmul_nt(&x, &w, &mut plain, Output::Replace);
    keep("matmul_nt", &plain);
    matmul_packed(&x, &PackedWeight::new(&w), &mut packed, Output::Replace);
    keep("matmul_packed", &packed);
    let mut dx = random(m, k, 6);
    matmul_nn(&dy, &w, &mut dx, Output::Accumulate);
    keep("matmul_nn", &dx);
    let mut dw = random(n, k, 7);
    matmul_tn(&dy, &x, &mut dw, Output::Accumulate);
    keep("matmul_tn", &dw);
    let mut dbias = random(1, n, 8);
    add_bias_backward(&dy, &mut dbias);
    keep("add_bias_backward", &dbias);

    let scale = random(1, n, 9);
    let (normed, inverse) = rms_norm(&dy, &scale, 1e-6);
    keep("rms_norm", &normed);
    keep("rms_norm, inverse", &inverse);
    keep("rms_norm_again", &rms_norm_again(&dy, &scale, &inverse));
    let (mut dx, mut dscale) = (random(m, n, 10), random(1, n, 11));
    rms_norm_backward(&y, &dy, &scale, &inverse, &mut dx, Some(&mut dscale));
    keep("rms_norm_backward, input", &dx);
    keep("rms_norm_backward, weight", &dscale);

    let heads = HeadColumns { first_col: 64, n_heads: 5, head_dim: 32 };
    let (scale, mut dscale) = (random(1, 32, 12), random(1, 32, 13));
    let mut normed = dy.clone();
    head_norm(&mut normed, heads, &scale, 1e-6);
    keep("head_norm", &normed);
    let mut dx = y.clone();
    head_norm_backward(&mut dx, &dy, heads, &scale, 1e-6, Some(&mut dscale));
    keep("head_norm_backward, input", &dx);
    keep("head_norm_backward, weight", &dscale);

    let table = RopeTable::new(&[1.0; 16], 1.0, m);
    let positions: Vec<u32> = (0..m as u32).collect();
    for (way, name) in [(Rotation::Forward, "rotate"), (Rotation::Backward, "rotate, backward")] {
        let mut rotated = dy.clone();
        rotate(&mut rotated, heads, &positions, &table, way);
        keep(name, &rotated);
    }

    let activated = swiglu(&dy);
    keep("swiglu", &activated);
    let (mut again, mut dgate_up) = (activated.clone(), dy.clone());
    swiglu_backward(&mut again, &mut dgate_up);
    keep("swiglu_backward", &dgate_up);
    keep("swiglu once more", &again);

    let ids: Vec<u32> = (0..m as u32).map(|i| i * i % 50).collect();
    keep("embed", &embed(&ids, &w));
    let mut dtable = random(n, k, 14);
    embed_backward(&ids, &x, &mut dtable);
    keep("embed_backward", &dtable);

    let shape = AttentionShape::full(4, 2, 40);
    let layout = layout_of(&[(130, None), (200, Some(0)), (170, Some(0)), (150, None), (50, None)]);
    let (qkv, dout) = (random(m, shape.qkv_cols(), 15), random(m, 160, 16));
    let (out, log_sums) = attention(&qkv, &layout, shape, Arithmetic::F32);
    keep("attention", &out);
    keep("attention, log sums", &log_sums);
    keep(
        "attention_backward",
        &attention_backward(&dout, &qkv, &out, &log_sums, &layout, shape, Arithmetic::F32),
    );

    let rows: Vec<usize> = (0..m).rev().chain(0..20).collect();
    let targets: Vec<u32> = (0..rows.len() as u32).map(|i| i * 13 % n as u32).collect();
    let (mut dhidden, mut dw) = (random(m, k, 17), random(n, k, 18));
    let weights = |_, logprobs: &[f32]| Ok::<_, ()>(logprobs.iter().map(|lp| lp * 0.1).collect());
    let logprobs = token_logprobs_with_backward(
        &x,
        &rows,
        (&w).into(),
        &targets,
        0.7,
        &mut dhidden,
        Some(&mut dw),
        weights,
    )
    .expect("the weights never fail");
    keep("token_logprobs_with_backward, hidden", &dhidden);
    keep("token_logprobs_with_backward, output matrix", &dw);
    keep("logits", &logits(&x, &w));

    let (mut value, mut first, mut second) = (random(n, k, 19), random(n, k, 20), random(n, k, 21));
    for v in [&mut first, &mut second] {
        v.mix_in(&Tensor::full(n, k, 5.0), 0.9); // a second moment is not negative
    }
    let (mut first, mut second) = (Moment::F32(first), Moment::F32(second));
    let adamw = AdamW { learning_rate: 1e-2, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
    adamw.update(&mut value, &dw, &mut first, &mut second, 0.5, 3, true, 0);
    let (Moment::F32(first), Moment::F32(second)) = (first, second) else { unreachable!("both are f32") };
    keep("AdamW, value", &value);
    keep("AdamW, first moment", &first);
    keep("AdamW, second moment", &second);
    let norm = sum_of_squares(&dw).to_bits();
    results.push(("sum_of_squares", vec![(norm >> 32) as u32, norm as u32]));
    results.push(("token_logprobs_with_backward", bits_of(&logprobs)));
    results.push(("token_logprobs", bits_of(&token_logprobs(&x, &rows, (&w).into(), &targets, 0.7))));
    results
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool of threads").install(every_operation)
    };
    let one = with_threads(1);
    for (name, bits) in &one {
        let values = bits.iter().map(|&b| f32::from_bits(b));
        assert!(*name == "sum_of_squares" || values.clone().all(f32::is_finite), "{name} is finite");
    }
    for threads in [2, 3, 7] {
        for ((name, one), (_, many)) in one.iter().zip(&with_threads(threads)) {
            assert!(one == many, "{name} at {threads} threads");
        }
    }
    let named = |wanted: &str| &one.iter().find(|(name, _)| *name == wanted).expect("a result").1;
    assert_eq!(named("matmul_nt"), named("matmul_packed"));
    assert_eq!(named("rms_norm"), named("rms_norm_again"));
    assert_eq!(named("token_logprobs"), named("token_logprobs_with_backward"));
}
