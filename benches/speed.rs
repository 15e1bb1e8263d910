//! How fast the parts are: `cargo bench`, or `cargo bench --bench speed -- decode` for some of them.
//!
//! The model is that of `benches/peers`: Qwen2-style, width 256, 6 layers, 8 query and 4 key/value heads,
//! vocabulary 2048, 4.95 M random parameters. Tokens per second are printed as items per second; a product's
//! as multiply-adds.

use std::convert::Infallible;

use divan::Bencher;
use divan::counter::ItemsCount;
use rlt_engine::Tensor;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::attention::{AttentionShape, Layout, attention, attention_backward};
use rlt_engine::matmul::{Output, matmul_nn, matmul_nt, matmul_tn};
use rlt_engine::norm::rms_norm;
use rlt_engine::packed::{PackedWeight, matmul_packed};
use rlt_engine::swiglu::swiglu;
use rlt_model::batch::{PackedBatch, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::generate::{GenerationRequest, SamplingParams, generate};
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Gradients, Stop};

fn main() {
    divan::main();
}

fn decoder() -> Decoder {
    let config = r#"{"model_type": "qwen2", "vocab_size": 2048, "hidden_size": 256,
        "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 8,
        "num_key_value_heads": 4, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "tie_word_embeddings": true, "hidden_act": "silu"}"#;
    Decoder::random(&ModelConfig::from_json(config).expect("a supported configuration"), 0)
}

fn sequences(rows: usize, tokens: usize) -> Vec<ScoringGroup> {
    let ids = |row: usize| (0..tokens).map(|i| ((i * 31 + row * 17) % 2045 + 3) as u32).collect::<Vec<u32>>();
    (0..rows)
        .map(|row| {
            let scored = 1..tokens;
            ScoringGroup::single(ids(row), vec![scored])
        })
        .collect()
}

fn filled(rows: usize, cols: usize) -> Tensor {
    let value = |i: usize| ((i * 7919) % 2003) as f32 / 1000.0 - 1.0;
    Tensor::from_vec(rows, cols, (0..rows * cols).map(value).collect())
}

#[divan::bench(sample_count = 5)]
fn training_gradient_16x256(bencher: Bencher) {
    let decoder = decoder();
    let batch = PackedBatch::new(&sequences(16, 256));
    let mut grads = Gradients::zeros(&decoder);
    bencher.counter(ItemsCount::new(16_usize * 256)).bench_local(|| {
        let derivative = |_, logprobs: &[f32]| Ok::<_, Infallible>(vec![-1e-3; logprobs.len()]);
        decoder.train_micro_batch(&batch, 1.0, Keep::Activations, &mut grads, derivative)
    });
}

#[divan::bench(args = [1, 16, 64], sample_count = 3)]
fn decode_64_tokens_after_256(bencher: Bencher, sequences: usize) {
    let decoder = decoder();
    let prompt = |q: usize| (0..256).map(|i| ((i * 31 + q * 17) % 2045 + 3) as u32).collect();
    let requests: Vec<_> = (0..sequences)
        .map(|q| GenerationRequest { prompt: prompt(q), n: 1, stream: [0, q as u64] })
        .collect();
    let params = SamplingParams {
        temperature: 0.7,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        max_new_tokens: 64,
        stop_token_ids: Vec::new(),
        max_running: 64,
    };
    bencher
        .counter(ItemsCount::new(64 * sequences))
        .bench_local(|| generate(&decoder, &requests, &params, 0, Stop::never(), &mut |_| ()));
}

#[divan::bench(sample_count = 3)]
fn logprobs_64x512(bencher: Bencher) {
    let (decoder, groups) = (decoder(), sequences(64, 512));
    bencher
        .counter(ItemsCount::new(64_usize * 512))
        .bench_local(|| decoder.token_logprobs(&groups, 1.0, 8192));
}

/// The widest product of a block over 4096 rows, forward.
#[divan::bench]
fn matmul_nt_4096x1408x256(bencher: Bencher) {
    let (x, w, mut y) = (filled(4096, 256), filled(1408, 256), Tensor::zeros(4096, 1408));
    bencher
        .counter(ItemsCount::new(4096_usize * 1408 * 256))
        .bench_local(|| matmul_nt(&x, &w, &mut y, Output::Replace));
}

/// A product of a 7B model over so many rows: with f32 weights (packed once for the one row of decoding, on
/// the way for many), and with the same weights kept in bf16.
#[divan::bench(args = [1, 16, 512], sample_count = 10)]
fn matmul_3584x3584_f32(bencher: Bencher, rows: usize) {
    large_product(bencher, rows, &bf16_numbers(3584, 3584));
}

#[divan::bench(args = [1, 16, 512], sample_count = 10)]
fn matmul_3584x3584_bf16(bencher: Bencher, rows: usize) {
    large_product(bencher, rows, &bf16_numbers(3584, 3584).narrowed().expect("all are bf16"));
}

fn bf16_numbers(rows: usize, cols: usize) -> Tensor {
    let value = |i: usize| ((i * 7919) % 251) as f32 / 128.0 - 1.0;
    Tensor::from_vec(rows, cols, (0..rows * cols).map(value).collect())
}

fn large_product(bencher: Bencher, rows: usize, w: &Tensor) {
    let (x, mut y) = (filled(rows, w.cols()), Tensor::zeros(rows, w.rows()));
    let packed = PackedWeight::new(w);
    bencher.counter(ItemsCount::new(rows * w.rows() * w.cols())).bench_local(|| {
        if rows < 64 {
            matmul_packed(&x, &packed, &mut y, Output::Replace);
        } else {
            matmul_nt(&x, w, &mut y, Output::Replace);
        }
    });
}

/// The gradient of its input.
#[divan::bench]
fn matmul_nn_4096x256x1408(bencher: Bencher) {
    let (dy, w, mut dx) = (filled(4096, 1408), filled(1408, 256), Tensor::zeros(4096, 256));
    bencher
        .counter(ItemsCount::new(4096_usize * 1408 * 256))
        .bench_local(|| matmul_nn(&dy, &w, &mut dx, Output::Replace));
}

/// The gradient of its weight.
#[divan::bench]
fn matmul_tn_1408x256x4096(bencher: Bencher) {
    let (dy, x, mut dw) = (filled(4096, 1408), filled(4096, 256), Tensor::zeros(1408, 256));
    bencher
        .counter(ItemsCount::new(4096_usize * 1408 * 256))
        .bench_local(|| matmul_tn(&dy, &x, &mut dw, Output::Accumulate));
}

const SHAPE: AttentionShape = AttentionShape::full(8, 4, 32);

fn layout(sequences: usize, tokens: usize) -> Layout {
    let mut layout = Layout::new();
    for _ in 0..sequences {
        layout.push(tokens, None);
    }
    layout
}

#[divan::bench(args = [256, 1024, 4096])]
fn attention_of_4096_rows(bencher: Bencher, tokens: usize) {
    let (qkv, layout) = (filled(4096, SHAPE.qkv_cols()), layout(4096 / tokens, tokens));
    bencher
        .counter(ItemsCount::new(4096_usize))
        .bench_local(|| attention(&qkv, &layout, SHAPE, Arithmetic::F32));
}

#[divan::bench(args = [256, 1024, 4096])]
fn attention_backward_of_4096_rows(bencher: Bencher, tokens: usize) {
    let (qkv, layout) = (filled(4096, SHAPE.qkv_cols()), layout(4096 / tokens, tokens));
    let (out, log_sums) = attention(&qkv, &layout, SHAPE, Arithmetic::F32);
    let dout = filled(4096, out.cols());
    bencher
        .counter(ItemsCount::new(4096_usize))
        .bench_local(|| attention_backward(&dout, &qkv, &out, &log_sums, &layout, SHAPE, Arithmetic::F32));
}

/// Bound by memory: reads and writes 4096 x 256 numbers.
#[divan::bench]
fn rms_norm_4096x256(bencher: Bencher) {
    let (x, weight) = (filled(4096, 256), filled(1, 256));
    bencher.counter(ItemsCount::new(4096_usize)).bench_local(|| rms_norm(&x, &weight, 1e-6));
}

/// Bound by memory and the exponential: reads 4096 x 1408 numbers, writes half as many.
#[divan::bench]
fn swiglu_4096x704(bencher: Bencher) {
    let gate_up = filled(4096, 1408);
    bencher.counter(ItemsCount::new(4096_usize)).bench_local(|| swiglu(&gate_up));
}
