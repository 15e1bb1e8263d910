//! Attention of newly decoded tokens over pages of keys and values: against plain f64, against the
//! packed attention, and bit for bit whatever else is decoded.

mod common;

use std::sync::Arc;

use common::{assert_close, bits, dot, random, wide};
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::attention::{AttentionShape, Layout, attention};
use rlt_engine::kv::{KvPages, KvSequence, decode_attention};
use rlt_engine::{Device, Tensor};

const LAYERS: usize = 2;

/// Other values in each layer.
fn qkv_of(rows: usize, shape: AttentionShape, layer: usize, key: u64) -> Tensor {
    random(rows, shape.qkv_cols(), key * 10 + layer as u64)
}

/// Pages holding all of `len` tokens but the last `open`, which are stored and not counted.
fn pages(len: usize, open: usize, shape: AttentionShape, arithmetic: Arithmetic, key: u64) -> KvPages {
    let mut pages = KvPages::new(&Device::Cpu, LAYERS, shape, arithmetic);
    // In runs of unequal length, as a prompt and then single tokens arrive.
    for (first, n) in [(0, len / 3), (len / 3, len - open - len / 3), (len - open, open)] {
        for layer in 0..LAYERS {
            pages.store(layer, &qkv_of(len, shape, layer, key), first, n);
        }
        if first + n <= len - open {
            pages.advance(n);
        }
    }
    assert_eq!((pages.len(), pages.is_empty()), (len - open, len == open));
    pages
}

/// A sequence in decoding: its prompt's key and length, its own key and length (newest included).
#[derive(Clone, Copy)]
struct Sequence {
    prefix: (u64, usize),
    own: (u64, usize),
}

/// The newest tokens' attention in `layer`, the sequences of one prompt sharing its pages.
fn decode(sequences: &[Sequence], layer: usize, shape: AttentionShape, arithmetic: Arithmetic) -> Tensor {
    let mut prefixes: Vec<((u64, usize), Arc<KvPages>)> = Vec::new();
    let mut decoding = Vec::new();
    let mut newest = Vec::new();
    for sequence in sequences {
        let known = prefixes.iter().find(|(prefix, _)| *prefix == sequence.prefix);
        let prefix = if let Some((_, pages)) = known {
            pages.clone()
        } else {
            let (key, len) = sequence.prefix;
            let made = Arc::new(pages(len, 0, shape, arithmetic, key));
            prefixes.push((sequence.prefix, made.clone()));
            made
        };
        let (key, len) = sequence.own;
        decoding.push(KvSequence { prefix, own: pages(len, 1, shape, arithmetic, key) });
        newest.extend_from_slice(&qkv_of(len, shape, layer, key).gather_rows(&[len - 1]).to_host());
    }
    let qkv = Tensor::from_vec(sequences.len(), shape.qkv_cols(), newest);
    decode_attention(&qkv, &decoding.iter().collect::<Vec<_>>(), layer, shape)
}

/// Rows of a sequence, prompt first; keys and values as pages of that arithmetic hold them.
fn rows_of(sequence: Sequence, layer: usize, shape: AttentionShape, arithmetic: Arithmetic) -> Vec<f64> {
    let mut rows = wide(&qkv_of(sequence.prefix.1, shape, layer, sequence.prefix.0));
    rows.extend(wide(&qkv_of(sequence.own.1, shape, layer, sequence.own.0)));
    if arithmetic == Arithmetic::Bf16 {
        let (cols, kept) = (shape.qkv_cols(), shape.n_heads * shape.head_dim);
        rows.iter_mut().enumerate().filter(|(i, _)| i % cols >= kept).for_each(|(_, v)| *v = in_bf16(*v));
    }
    rows
}

/// The nearest number of 8 significant bits (none of these is a tie).
fn in_bf16(x: f64) -> f64 {
    let unit = 2.0_f64.powi(x.abs().log2().floor() as i32 - 7);
    if x == 0.0 { 0.0 } else { (x / unit).round_ties_even() * unit }
}

const ARITHMETICS: [Arithmetic; 2] = [Arithmetic::F32, Arithmetic::Bf16];

/// Attention of the last row over all rows, in f64.
fn last_row_wide(rows: &[f64], shape: AttentionShape) -> Vec<f64> {
    let (hd, cols) = (shape.head_dim, shape.qkv_cols());
    let last = rows.chunks_exact(cols).next_back().expect("a row");
    let seen = shape.window.unwrap_or(usize::MAX).min(rows.len() / cols);
    let rows = &rows[rows.len() - seen * cols..];
    let mut out = Vec::new();
    for head in 0..shape.n_heads {
        let kv_head = head / shape.queries_per_kv();
        let part = |row: &[f64], head: usize| row[head * hd..(head + 1) * hd].to_vec();
        let query = part(last, head);
        let scores: Vec<f64> = rows
            .chunks_exact(cols)
            .map(|row| {
                dot(&query, &part(row, shape.n_heads + kv_head)) / f64::from(shape.score_divisor).sqrt()
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for c in 0..hd {
            let column = (shape.n_heads + shape.n_kv_heads + kv_head) * hd + c;
            let values = rows.chunks_exact(cols).map(|row| row[column]);
            out.push(weights.iter().zip(values).map(|(w, v)| w * v).sum::<f64>() / sum);
        }
    }
    out
}

/// Prompts and own lengths on both sides of a page's border, some prompts shared.
fn batch() -> Vec<Sequence> {
    let lengths = [(1, 1), (63, 2), (64, 63), (65, 64), (128, 65), (200, 129)];
    let mut sequences = Vec::new();
    for (i, (prefix, own)) in (0..).zip(lengths) {
        for sibling in 0..=2 * i % 5 {
            let key = 100 + i * 20 + sibling;
            sequences.push(Sequence { prefix: (i, prefix), own: (key, own + sibling as usize) });
        }
    }
    // More sequences of one prompt than a task takes.
    sequences.extend((0..11).map(|i| Sequence { prefix: (50, 70), own: (300 + i, 3 + i as usize) }));
    sequences
}

/// (query heads, key/value heads, head width); 20 is no multiple of a vector.
const SHAPES: [(usize, usize, usize); 4] = [(2, 2, 16), (4, 2, 20), (4, 1, 32), (4, 2, 80)];

#[test]
fn newest_tokens_attend_to_all_before() {
    for (n_heads, n_kv_heads, head_dim) in SHAPES {
        let shape = AttentionShape::full(n_heads, n_kv_heads, head_dim);
        for (layer, arithmetic) in (0..LAYERS).flat_map(|layer| ARITHMETICS.map(|a| (layer, a))) {
            let out = decode(&batch(), layer, shape, arithmetic);
            for (i, sequence) in batch().into_iter().enumerate() {
                let rows = rows_of(sequence, layer, shape, arithmetic);
                let heads = format!("{n_heads}/{n_kv_heads} heads of {head_dim}");
                let what = format!("sequence {i}, layer {layer}, {heads}, {arithmetic:?}");
                let own = out.gather_rows(&[i]);
                assert_close(&what, &own, &last_row_wide(&rows, shape), 1e-5);

                let mut layout = Layout::new();
                layout.push(sequence.prefix.1, None);
                layout.push(sequence.own.1, Some(0));
                let narrow = rows.iter().map(|v| *v as f32).collect();
                let whole = Tensor::from_vec(layout.rows(), shape.qkv_cols(), narrow);
                let (packed, _) = attention(&whole, &layout, shape, Arithmetic::F32);
                let last = packed.gather_rows(&[layout.rows() - 1]);
                assert_close(&format!("{what}, packed"), &own, &wide(&last), 1e-5);
            }
        }
    }
}

#[test]
fn a_decoded_row_does_not_depend_on_the_batch_or_the_threads() {
    for ((n_heads, n_kv_heads, head_dim), arithmetic) in
        SHAPES.into_iter().flat_map(|s| ARITHMETICS.map(|a| (s, a)))
    {
        let shape = AttentionShape::full(n_heads, n_kv_heads, head_dim);
        let all = decode(&batch(), 1, shape, arithmetic);
        let reversed: Vec<Sequence> = batch().into_iter().rev().collect();
        let backwards = decode(&reversed, 1, shape, arithmetic);
        for (i, sequence) in batch().into_iter().enumerate() {
            let expected = bits(&all.gather_rows(&[i]));
            assert_eq!(bits(&decode(&[sequence], 1, shape, arithmetic)), expected, "sequence {i} alone");
            let at = reversed.len() - 1 - i;
            assert_eq!(bits(&backwards.gather_rows(&[at])), expected, "sequence {i}, reversed batch");
        }
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let out = pool.expect("a pool of threads").install(|| decode(&batch(), 1, shape, arithmetic));
            assert_eq!(bits(&out), bits(&all), "{threads} threads");
        }
    }
}

#[test]
fn newest_tokens_attend_through_windows() {
    for window in [1, 2, 5, 63, 64, 65, 66, 100, 128, 129, 1000] {
        for (layer, arithmetic) in (0..LAYERS).flat_map(|layer| ARITHMETICS.map(|a| (layer, a))) {
            let shape = AttentionShape {
                window: Some(window),
                score_divisor: 24.0,
                ..AttentionShape::full(4, 2, 20)
            };
            let out = decode(&batch(), layer, shape, arithmetic);
            for (i, sequence) in batch().into_iter().enumerate() {
                let what = format!("sequence {i}, layer {layer}, window {window}, {arithmetic:?}");
                let own = out.gather_rows(&[i]);
                let rows = rows_of(sequence, layer, shape, arithmetic);
                assert_close(&what, &own, &last_row_wide(&rows, shape), 1e-5);
                let alone = decode(&[sequence], layer, shape, arithmetic);
                assert_eq!(bits(&alone), bits(&own), "{what}, alone");
            }
        }
    }
}

#[test]
fn scores_far_below_zero_keep_their_weights() {
    // Queries against keys that point the other way: every score lies below -1000.
    let shape = AttentionShape::full(1, 1, 16);
    let mut rows = random(100, 48, 1).to_host().into_owned();
    for row in rows.chunks_exact_mut(48) {
        for c in 0..16 {
            (row[c], row[16 + c]) = (30.0, row[16 + c] - 30.0);
        }
    }
    let qkv = Tensor::from_vec(100, 48, rows);
    let mut own = KvPages::new(&Device::Cpu, 1, shape, Arithmetic::F32);
    own.store(0, &qkv, 0, 99);
    own.advance(99);
    own.store(0, &qkv, 99, 1);
    let sequence =
        KvSequence { prefix: Arc::new(KvPages::new(&Device::Cpu, 1, shape, Arithmetic::F32)), own };
    let out = decode_attention(&qkv.gather_rows(&[99]), &[&sequence], 0, shape);
    assert_close("scores far below zero", &out, &last_row_wide(&wide(&qkv), shape), 1e-3);
}

#[test]
fn all_of_this_with_lesser_instructions() {
    common::repeat_with_lesser_instructions("all_of_this_with_lesser_instructions");
}
