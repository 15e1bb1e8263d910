//! Determinism, bit for bit: a row's forward result does not depend on the rows around it, and no
//! result depends on the number of threads.

mod common;

use common::{bits, random};
use rlt_engine::Tensor;
use rlt_engine::adamw::{AdamW, sum_of_squares};
use rlt_engine::attention::{AttentionShape, Layout, attention, attention_backward};
use rlt_engine::embedding::{embed, embed_backward};
use rlt_engine::head::{logits, token_logprobs, token_logprobs_with_backward};
use rlt_engine::matmul::{Output, add_bias, add_bias_backward, matmul_nn, matmul_nt, matmul_tn};
use rlt_engine::norm::{
    HeadColumns, head_norm, head_norm_backward, rms_norm, rms_norm_again, rms_norm_backward,
};
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
