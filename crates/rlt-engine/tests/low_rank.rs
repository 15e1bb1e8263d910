//! Low-rank terms: forward product, merged weights, and every gradient against central differences in f64.

mod common;

use common::{assert_close, bits, check_gradient, dot, product_nt, random, wide};
use rlt_engine::Tensor;
use rlt_engine::low_rank::{LowRank, PackedLowRank, low_rank_gradients, low_rank_input_gradient, merged};
use rlt_engine::matmul::{Output, matmul_nt};

/// Rows, input features, all output columns; rank; first column and columns of each term.
type Shape = (usize, usize, usize, usize, [(usize, usize); 2]);
const SHAPES: [Shape; 3] = [
    (3, 5, 9, 2, [(0, 4), (6, 3)]),
    (40, 33, 70, 4, [(1, 32), (40, 30)]),
    (150, 64, 96, 16, [(0, 64), (64, 32)]),
];

fn terms(cols: usize, rank: usize, columns: [(usize, usize); 2]) -> Vec<LowRank> {
    let term = |(index, (first_column, n)): (usize, (usize, usize))| LowRank {
        a: random(rank, cols, 10 + index as u64),
        b: random(n, rank, 20 + index as u64),
        scale: 0.75 + index as f32,
        first_column,
    };
    columns.into_iter().enumerate().map(term).collect()
}

fn add_all(terms: &[LowRank], x: &Tensor, y: &mut Tensor) {
    for term in terms {
        PackedLowRank::new(term).add(x, y);
    }
}

/// `sum (G o sum_terms s (x A^T) B^T)` in f64, for a term's values given as x, A and B.
fn objective(x: &[f64], a: &[f64], b: &[f64], term: &LowRank, g: &[f64], cols: usize) -> f64 {
    let (rank, k, n) = (term.a.rows(), term.a.cols(), term.b.rows());
    let y = product_nt(&product_nt(x, a, k), b, rank);
    y.chunks_exact(n)
        .zip(g.chunks_exact(cols))
        .map(|(y, g)| f64::from(term.scale) * dot(y, &g[term.first_column..term.first_column + n]))
        .sum()
}

#[test]
fn adding_terms_equals_the_product_with_the_merged_matrix() {
    for (m, k, cols, rank, columns) in SHAPES {
        let (x, w, terms) = (random(m, k, 1), random(cols, k, 2), terms(k, rank, columns));
        let mut y = Tensor::zeros(m, cols);
        matmul_nt(&x, &w, &mut y, Output::Replace);
        add_all(&terms, &x, &mut y);
        let merged = merged(&w, &terms);
        assert_close("product", &y, &product_nt(&wide(&x), &wide(&merged), k), 1e-5);
        // Rows on their own have the same bits.
        for row in [0, m / 2, m - 1] {
            let one = x.gather_rows(&[row]);
            let mut alone = Tensor::zeros(1, cols);
            matmul_nt(&one, &w, &mut alone, Output::Replace);
            add_all(&terms, &one, &mut alone);
            assert_eq!(bits(&alone), bits(&y.gather_rows(&[row])), "row {row} of {m}");
        }
    }
}

#[test]
fn gradients_agree_with_central_differences() {
    for (m, k, cols, rank, columns) in SHAPES {
        let (x, g) = (random(m, k, 1), random(m, cols, 3));
        for term in terms(k, rank, columns) {
            let mut grad =
                LowRank { a: Tensor::zeros(rank, k), b: Tensor::zeros(term.b.rows(), rank), ..term.clone() };
            let mut dx = Tensor::zeros(m, k);
            let du = low_rank_input_gradient(&term, &g, &mut dx);
            low_rank_gradients(&term, &g, &x, &du, &mut grad);
            let (x, a, b, g) = (wide(&x), wide(&term.a), wide(&term.b), wide(&g));
            check_gradient("x", &x, |x| objective(x, &a, &b, &term, &g, cols), &dx, 1e-5);
            check_gradient("A", &a, |a| objective(&x, a, &b, &term, &g, cols), &grad.a, 1e-5);
            check_gradient("B", &b, |b| objective(&x, &a, b, &term, &g, cols), &grad.b, 1e-5);
        }
    }
}

#[test]
fn gradients_are_added_to_what_is_there() {
    let (m, k, cols, rank, columns) = SHAPES[1];
    let (x, g) = (random(m, k, 1), random(m, cols, 3));
    let term = &terms(k, rank, columns)[0];
    let run = |start: f32, times: usize| {
        let n = term.b.rows();
        let mut grad =
            LowRank { a: Tensor::full(rank, k, start), b: Tensor::full(n, rank, start), ..term.clone() };
        let mut dx = Tensor::full(m, k, start);
        for _ in 0..times {
            let du = low_rank_input_gradient(term, &g, &mut dx);
            low_rank_gradients(term, &g, &x, &du, &mut grad);
        }
        [grad.a, grad.b, dx]
    };
    for (once, twice) in run(0.0, 1).iter().zip(run(0.5, 2)) {
        let expected: Vec<f64> = wide(once).iter().map(|v| 2.0 * v + 0.5).collect();
        assert_close("twice", &twice, &expected, 1e-5);
    }
}

#[test]
fn all_of_this_with_lesser_instructions() {
    common::repeat_with_lesser_instructions("all_of_this_with_lesser_instructions");
}
