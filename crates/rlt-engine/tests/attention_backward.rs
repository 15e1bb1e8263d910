//! Packed attention against a plain f64 version, and its gradient against central differences of it.

mod common;

use common::{assert_close, check_gradient, check_groups, dot, random, wide};
use rlt_engine::Tensor;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::attention::{AttentionShape, Layout, attention, attention_backward};

/// Forward results, relative to the largest value.
const FORWARD: f64 = 1e-5;
/// Gradients, relative to their norm.
const BACKWARD: f64 = 1e-4;

/// The segments of a batch: (length, prefix).
type Segments = [(usize, Option<usize>)];

/// First row of every segment.
fn starts(segments: &Segments) -> Vec<usize> {
    segments
        .iter()
        .scan(0, |row, (len, _)| {
            *row += len;
            Some(*row - len)
        })
        .collect()
}

/// For each row, the rows it attends to: all of the prefix, then its own segment up to itself; of these the last, where
/// there is a window.
fn visible_rows(segments: &Segments, window: Option<usize>) -> Vec<Vec<usize>> {
    let starts = starts(segments);
    let mut visible = Vec::new();
    for (index, &(len, prefix)) in segments.iter().enumerate() {
        let shared = prefix.map_or(0..0, |p| starts[p]..starts[p] + segments[p].0);
        for i in 0..len {
            let mut rows: Vec<usize> = shared.clone().chain(starts[index]..=starts[index] + i).collect();
            rows.drain(..window.map_or(0, |window| rows.len().saturating_sub(window)));
            visible.push(rows);
        }
    }
    visible
}

/// Outputs (rows x n_heads head_dim) and logs of the softmax denominators (rows x n_heads).
fn attention_wide(qkv: &[f64], visible: &[Vec<usize>], shape: AttentionShape) -> (Vec<f64>, Vec<f64>) {
    let (hd, cols) = (shape.head_dim, shape.qkv_cols());
    let head_of = |row: usize, head: usize| &qkv[row * cols + head * hd..][..hd];
    let (mut out, mut log_sums) = (Vec::new(), Vec::new());
    for (row, visible) in visible.iter().enumerate() {
        for head in 0..shape.n_heads {
            let kv_head = head / (shape.n_heads / shape.n_kv_heads);
            let query = head_of(row, head);
            let scores: Vec<f64> = visible
                .iter()
                .map(|&key| {
                    dot(query, head_of(key, shape.n_heads + kv_head)) / f64::from(shape.score_divisor).sqrt()
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            let mut mixed = vec![0.0; hd];
            for (&key, score) in visible.iter().zip(&scores) {
                let p = (score - max).exp() / sum;
                let value = head_of(key, shape.n_heads + shape.n_kv_heads + kv_head);
                mixed.iter_mut().zip(value).for_each(|(m, v)| *m += p * v);
            }
            out.extend(mixed);
            log_sums.push(max + sum.ln());
        }
    }
    (out, log_sums)
}

/// Coordinates that move together: the queries, the keys or the values of up to 64 rows of one
/// segment.
fn groups(segments: &Segments, shape: AttentionShape) -> Vec<Vec<usize>> {
    let (hd, cols) = (shape.head_dim, shape.qkv_cols());
    let (queries, keys) = (shape.n_heads * hd, shape.n_kv_heads * hd);
    let kinds = [0..queries, queries..queries + keys, queries + keys..cols];
    let mut groups = Vec::new();
    for (start, &(len, _)) in starts(segments).into_iter().zip(segments) {
        for first in (0..len).step_by(64) {
            for kind in &kinds {
                let rows = start + first..start + len.min(first + 64);
                groups.push(rows.flat_map(|row| kind.clone().map(move |c| row * cols + c)).collect());
            }
        }
    }
    groups
}

fn check(segments: &Segments, (n_heads, n_kv_heads, head_dim): (usize, usize, usize)) {
    check_shape(segments, AttentionShape::full(n_heads, n_kv_heads, head_dim));
}

fn check_shape(segments: &Segments, shape: AttentionShape) {
    let AttentionShape { n_heads, n_kv_heads, head_dim, window, .. } = shape;
    let what =
        format!("attention over {segments:?}, {n_heads}/{n_kv_heads} heads of {head_dim}, window {window:?}");
    let mut layout = Layout::new();
    for &(len, prefix) in segments {
        layout.push(len, prefix);
    }
    let visible = visible_rows(segments, window);
    assert_eq!(layout.rows(), visible.len());
    for (position, visible) in layout.positions().iter().zip(visible_rows(segments, None)) {
        assert_eq!(*position as usize, visible.len() - 1, "{what}: position");
    }

    let rows = layout.rows();
    let (qkv, dout) = (random(rows, shape.qkv_cols(), 1), random(rows, n_heads * head_dim, 2));
    let (x, g) = (wide(&qkv), wide(&dout));
    let (out, log_sums) = attention(&qkv, &layout, shape, Arithmetic::F32);
    let (out_wide, log_sums_wide) = attention_wide(&x, &visible, shape);
    assert_close(&what, &out, &out_wide, FORWARD);
    assert_close(&format!("{what}: log sums"), &log_sums, &log_sums_wide, FORWARD);

    let dqkv = attention_backward(&dout, &qkv, &out, &log_sums, &layout, shape, Arithmetic::F32);
    let loss = |x: &[f64]| dot(&attention_wide(x, &visible, shape).0, &g);
    if rows * shape.qkv_cols() <= 600 {
        check_gradient(&what, &x, loss, &dqkv, BACKWARD);
    } else {
        check_groups(&what, &x, loss, &dqkv, &groups(segments, shape), BACKWARD);
    }
    let rounded = attention_backward(&dout, &qkv, &out, &log_sums, &layout, shape, Arithmetic::Bf16);
    // Without a window only a segment's first row is alone.
    let alone = if window == Some(1) { visible.len() } else { 1 };
    check_rounded(&what, &rounded, &dqkv, shape, alone);
    let (rounded, rounded_sums) = attention(&qkv, &layout, shape, Arithmetic::Bf16);
    for (rounded, exact, limit) in [(&rounded, &out, 0.04), (&rounded_sums, &log_sums, 0.04)] {
        for (a, b) in wide(rounded).into_iter().zip(wide(exact)) {
            assert!((a - b).abs() < limit, "{what}: {a} in bf16, {b} in f32");
        }
    }
}

/// Products in bf16 have the gradients of f32 to one or two parts in a hundred, of queries, keys and values alike; `alone`
/// rows see one key alone, where all do.
fn check_rounded(what: &str, rounded: &Tensor, exact: &Tensor, shape: AttentionShape, alone: usize) {
    let (rounded, exact) = (wide(rounded), wide(exact));
    let (hd, cols) = (shape.head_dim, shape.qkv_cols());
    let (queries, keys) = (shape.n_heads * hd, shape.n_kv_heads * hd);
    for (kind, columns) in
        [("queries", 0..queries), ("keys", queries..queries + keys), ("values", queries + keys..cols)]
    {
        let of_kind = |i: &usize| columns.contains(&(i % cols));
        let norm = |value: &dyn Fn(usize) -> f64| {
            (0..exact.len()).filter(of_kind).map(|i| value(i).powi(2)).sum::<f64>().sqrt()
        };
        let (error, size) = (norm(&|i| rounded[i] - exact[i]), norm(&|i| exact[i]));
        // One key alone has no gradient, as the difference of two sums that are rounded apart.
        let of_differences = 0.03 * (alone as f64).sqrt();
        assert!(error <= 0.02 * size + of_differences, "{what}: {kind} in bf16 differ by {error} of {size}");
        let largest = (0..exact.len()).map(|i| exact[i].abs()).fold(0.0, f64::max);
        let worst = (0..exact.len()).map(|i| (rounded[i] - exact[i]).abs()).fold(0.0, f64::max);
        assert!(worst <= 0.02 * largest + 0.03, "{what}: {worst} of {largest}");
    }
}

/// (query heads, key/value heads, head width): 1, 2 and 4 query heads per key/value head.
const SHAPES: [(usize, usize, usize); 3] = [(2, 2, 16), (4, 2, 32), (4, 1, 80)];

#[test]
fn every_coordinate_of_small_batches() {
    for shape in [(1, 1, 4), (2, 1, 4), (4, 1, 2), (4, 2, 2)] {
        check(&[(1, None)], shape);
        check(&[(5, None), (1, None), (7, None)], shape);
        check(&[(4, None), (3, Some(0)), (1, Some(0)), (5, None), (2, Some(3)), (2, Some(0))], shape);
    }
}

#[test]
fn plain_segments_across_tile_borders() {
    for shape in SHAPES {
        check(&[(1, None), (63, None), (64, None), (65, None)], shape);
        check(&[(47, None), (48, None), (49, None), (97, None)], shape);
        check(&[(127, None), (129, None)], shape);
        check(&[(193, None)], shape);
    }
}

#[test]
fn shared_prefixes_across_tile_borders() {
    for shape in SHAPES {
        check(&[(70, None), (5, Some(0)), (64, Some(0)), (65, Some(0))], shape);
        check(&[(49, None), (48, Some(0)), (1, Some(0)), (95, Some(0))], shape);
        check(&[(128, None), (60, Some(0)), (1, Some(0)), (129, Some(0))], shape);
        // Two families, their members mixed, and a sequence without a prefix.
        check(&[(129, None), (1, None), (30, Some(0)), (66, Some(1)), (20, None), (7, Some(0))], shape);
    }
}

#[test]
fn every_head_width_with_every_ratio() {
    for head_dim in [16, 32, 80] {
        for (n_heads, n_kv_heads) in [(2, 2), (2, 1), (4, 1)] {
            check(&[(20, None), (12, Some(0)), (3, Some(0))], (n_heads, n_kv_heads, head_dim));
        }
    }
}

#[test]
fn windows_at_the_borders_of_tiles_segments_and_prefixes() {
    let with = |(n_heads, n_kv_heads, head_dim), window, divisor| AttentionShape {
        window: Some(window),
        score_divisor: divisor,
        ..AttentionShape::full(n_heads, n_kv_heads, head_dim)
    };
    // Every coordinate of small ones: of one token, inside, across the shared prefix, longer than the sequence.
    for window in [1, 2, 3, 5, 6, 7, 100, usize::MAX] {
        let shape = with((4, 2, 2), window, 3.0);
        check_shape(&[(5, None), (1, None), (7, None)], shape);
        check_shape(&[(4, None), (3, Some(0)), (1, Some(0)), (5, None), (2, Some(3)), (2, Some(0))], shape);
    }
    // Around the tiles of queries (48, 64) and keys (128).
    for window in [1, 2, 47, 48, 49, 64, 65, 127, 128, 129, 176, 300] {
        let shape = with((4, 2, 32), window, 32.0);
        check_shape(&[(257, None), (64, None)], shape);
        check_shape(&[(129, None), (30, Some(0)), (1, Some(0)), (140, Some(0))], shape);
    }
}

#[test]
fn a_window_as_long_as_the_sequence_gives_the_bits_of_full_attention() {
    let mut layout = Layout::new();
    layout.push(150, None);
    layout.push(50, Some(0));
    let full = AttentionShape::full(4, 2, 32);
    let windowed = AttentionShape { window: Some(200), ..full };
    let (qkv, dout) = (random(200, full.qkv_cols(), 1), random(200, 128, 2));
    for arithmetic in [Arithmetic::F32, Arithmetic::Bf16] {
        let of = |shape| {
            let (out, log_sums) = attention(&qkv, &layout, shape, arithmetic);
            let dqkv = attention_backward(&dout, &qkv, &out, &log_sums, &layout, shape, arithmetic);
            [out, log_sums, dqkv].map(|tensor| common::bits(&tensor))
        };
        assert!(of(full) == of(windowed), "{arithmetic:?}");
    }
}

#[test]
fn large_scores_stay_finite() {
    // Scores of about +-1e5: the softmax is one-hot and its gradient nearly zero.
    let shape = AttentionShape::full(2, 1, 16);
    let mut layout = Layout::new();
    layout.push(200, None);
    let mut qkv = random(200, shape.qkv_cols(), 1);
    qkv.mix_in(&Tensor::zeros(200, shape.qkv_cols()), -299.0); // 300 times itself
    let dout = random(200, 32, 2);
    let (out, log_sums) = attention(&qkv, &layout, shape, Arithmetic::F32);
    let (expected, _) = attention_wide(&wide(&qkv), &visible_rows(&[(200, None)], None), shape);
    assert_close("attention of large scores", &out, &expected, FORWARD);
    assert!(attention_backward(&dout, &qkv, &out, &log_sums, &layout, shape, Arithmetic::F32).is_finite());
}

#[test]
fn all_of_this_with_lesser_instructions() {
    common::repeat_with_lesser_instructions("all_of_this_with_lesser_instructions");
}
