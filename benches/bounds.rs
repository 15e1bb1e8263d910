//! What share of this processor's bounds each operation gets: `cargo bench --bench bounds`, or with words behind `--` those
//! operations whose names hold one of them.
//!
//! Two bounds are measured first, on all threads: multiply-adds in registers alone, with the widest vectors in use, and bytes
//! a second of an array that no cache holds, changed in place. An operation's arithmetic and bytes are counted by the engine's device of
//! sizes, each operand and result once; it cannot be done sooner than the slower of the two takes. What an operation does
//! besides (exponentials, copies that its tiles need, a second look at an operand) counts nothing, so a share of 100 % is out
//! of reach. `RLT_SIMD` takes lesser instructions for both.

#![expect(clippy::print_stdout, reason = "the table is its answer")]

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Instant;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use rlt_engine::Tensor;
use rlt_engine::adamw::{AdamW, sum_of_squares};
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::attention::{AttentionShape, Layout, attention, attention_backward};
use rlt_engine::device::Device;
use rlt_engine::embedding::{embed, embed_backward};
use rlt_engine::head::{token_logprobs, token_logprobs_with_backward};
use rlt_engine::instructions::InstructionSet;
use rlt_engine::kv::{KvPages, KvSequence, decode_attention};
use rlt_engine::matmul::{Output, matmul_nn, matmul_nt, matmul_tn};
use rlt_engine::moment::Moment;
use rlt_engine::norm::{HeadColumns, add_rms_norm, rms_norm, rms_norm_backward};
use rlt_engine::packed::{PackedWeight, matmul_packed};
use rlt_engine::rope::{RopeTable, Rotation, rotate};
use rlt_engine::sizes::Operation;
use rlt_engine::swiglu::{swiglu, swiglu_backward};

/// Seconds that an operation is repeated for at least, and least number of times.
const AT_LEAST: (f64, usize) = (0.5, 5);

/// Rows of a micro-batch, and what the blocks of the model of `benches/peers` are made of.
const ROWS: usize = 4096;
const WIDTH: usize = 256;
const GATED: usize = 704;
const VOCABULARY: usize = 2048;
const SHAPE: AttentionShape = AttentionShape::full(8, 4, 32);
/// Wide rows, so that no cache holds an operand of the operations that are bound by memory.
const WIDE: usize = 8192;

/// An operation, ready to be done on some device again and again.
type Ready = Box<dyn FnMut()>;

/// A name, and the operation with its operands on a device.
type Case = (&'static str, fn(&Device) -> Ready);

const CASES: &[Case] = &[
    ("product forward 4096x1408x256", |device| {
        let (x, w, mut y) =
            (filled(device, ROWS, WIDTH), filled(device, 2 * GATED, WIDTH), zeros(device, ROWS, 2 * GATED));
        Box::new(move || matmul_nt(&x, &w, &mut y, Output::Replace))
    }),
    ("product input gradient 4096x256x1408", |device| {
        let (dy, w, mut dx) =
            (filled(device, ROWS, 2 * GATED), filled(device, 2 * GATED, WIDTH), zeros(device, ROWS, WIDTH));
        Box::new(move || matmul_nn(&dy, &w, &mut dx, Output::Replace))
    }),
    ("product weight gradient 1408x256x4096", |device| {
        let (dy, x, mut dw) =
            (filled(device, ROWS, 2 * GATED), filled(device, ROWS, WIDTH), zeros(device, 2 * GATED, WIDTH));
        Box::new(move || matmul_tn(&dy, &x, &mut dw, Output::Accumulate))
    }),
    ("product of 1 row, f32 weights 8192x2048", |device| few_rows(device, 1, false)),
    ("product of 1 row, bf16 weights 8192x2048", |device| few_rows(device, 1, true)),
    ("product of 16 rows, f32 weights 8192x2048", |device| few_rows(device, 16, false)),
    ("product of 16 rows, bf16 weights 8192x2048", |device| few_rows(device, 16, true)),
    ("product of 64 rows, f32 weights 8192x2048", |device| few_rows(device, 64, false)),
    ("product of 64 rows, bf16 weights 8192x2048", |device| few_rows(device, 64, true)),
    ("product of 256 rows, f32 weights 8192x2048", |device| few_rows(device, 256, false)),
    ("product of 256 rows, bf16 weights 8192x2048", |device| few_rows(device, 256, true)),
    ("attention forward, 16 x 256", |device| attention_forward(device, 256)),
    ("attention forward, 4 x 1024", |device| attention_forward(device, 1024)),
    ("attention forward, 1 x 4096", |device| attention_forward(device, 4096)),
    ("attention backward, 16 x 256", |device| attention_gradient(device, 256)),
    ("attention backward, 4 x 1024", |device| attention_gradient(device, 1024)),
    ("attention backward, 1 x 4096", |device| attention_gradient(device, 4096)),
    ("decode attention, 64 x 1024, f32", |device| decode(device, Arithmetic::F32)),
    ("decode attention, 64 x 1024, bf16", |device| decode(device, Arithmetic::Bf16)),
    ("log-probability head 4096x256x2048", |device| {
        let (hidden, w) = (filled(device, ROWS, WIDTH), filled(device, VOCABULARY, WIDTH));
        let (rows, targets): (Vec<usize>, Vec<u32>) =
            (0..ROWS).map(|row| (row, (row % VOCABULARY) as u32)).unzip();
        Box::new(move || drop(token_logprobs(&hidden, &rows, (&w).into(), &targets, 0.7)))
    }),
    ("log-probability head with gradients", |device| {
        let (hidden, w) = (filled(device, ROWS, WIDTH), filled(device, VOCABULARY, WIDTH));
        let (mut dhidden, mut dw) = (zeros(device, ROWS, WIDTH), zeros(device, VOCABULARY, WIDTH));
        let (rows, targets): (Vec<usize>, Vec<u32>) =
            (0..ROWS).map(|row| (row, (row % VOCABULARY) as u32)).unzip();
        Box::new(move || {
            let derivative = |_, logprobs: &[f32]| Ok::<_, Infallible>(vec![-1e-3; logprobs.len()]);
            let (dhidden, dw) = (&mut dhidden, Some(&mut dw));
            let done = token_logprobs_with_backward(
                &hidden,
                &rows,
                (&w).into(),
                &targets,
                0.7,
                dhidden,
                dw,
                derivative,
            );
            drop(done);
        })
    }),
    ("RMS norm 4096x8192", |device| {
        let (x, weight) = (filled(device, ROWS, WIDE), filled(device, 1, WIDE));
        Box::new(move || drop(rms_norm(&x, &weight, 1e-6)))
    }),
    ("sum and RMS norm 4096x8192", |device| {
        let (mut x, y, weight) =
            (filled(device, ROWS, WIDE), zeros(device, ROWS, WIDE), filled(device, 1, WIDE));
        Box::new(move || drop(add_rms_norm(&mut x, &y, &weight, 1e-6)))
    }),
    ("RMS norm backward 4096x8192", |device| {
        let (x, dy, weight) =
            (filled(device, ROWS, WIDE), filled(device, ROWS, WIDE), filled(device, 1, WIDE));
        let (_, inverse) = rms_norm(&x, &weight, 1e-6);
        let (mut dx, mut dweight) = (zeros(device, ROWS, WIDE), zeros(device, 1, WIDE));
        Box::new(move || rms_norm_backward(&dy, &x, &weight, &inverse, &mut dx, Some(&mut dweight)))
    }),
    ("SwiGLU 4096x8192", |device| {
        let gate_up = filled(device, ROWS, WIDE);
        Box::new(move || drop(swiglu(&gate_up)))
    }),
    ("SwiGLU backward 4096x8192", |device| {
        // In place and again and again, gradients would soon be below the normal numbers; zeros stay what they are.
        let (mut dout, mut gate_up) = (zeros(device, ROWS, WIDE / 2), filled(device, ROWS, WIDE));
        Box::new(move || swiglu_backward(&mut dout, &mut gate_up))
    }),
    ("rotation of queries and keys 4096x8192", |device| {
        let mut x = filled(device, ROWS, WIDE);
        let table = RopeTable::new(&[1.0, 0.5, 0.25, 0.125, 0.1, 0.05, 0.02, 0.01].repeat(4), 1.0, ROWS);
        let (heads, positions) = (
            HeadColumns { first_col: 0, n_heads: WIDE / 64, head_dim: 64 },
            (0..ROWS as u32).collect::<Vec<_>>(),
        );
        Box::new(move || rotate(&mut x, heads, &positions, &table, Rotation::Forward))
    }),
    ("embedding 8192 rows of 4096", |device| {
        let (ids, table) = (ids(), filled(device, VOCABULARY, 4096));
        Box::new(move || drop(embed(&ids, &table)))
    }),
    ("embedding backward 8192 rows of 4096", |device| {
        let (ids, dout, mut dtable) = (ids(), filled(device, 8192, 4096), zeros(device, VOCABULARY, 4096));
        Box::new(move || embed_backward(&ids, &dout, &mut dtable))
    }),
    ("AdamW, f32 moments, 16 Mi parameters", |device| optimizer(device, Moment::zeros_f32)),
    ("AdamW, bf16 moments, 16 Mi parameters", |device| optimizer(device, Moment::zeros_bf16)),
    ("sum of squares, 32 Mi numbers", |device| {
        let gradient = filled(device, ROWS, WIDE);
        Box::new(move || {
            black_box(sum_of_squares(&gradient));
        })
    }),
];

fn filled(device: &Device, rows: usize, cols: usize) -> Tensor {
    // Rows that do not resemble each other: of some that do, products are so large that softmax leaves numbers below the normal ones,
    // which some processors compute with a hundred times as slowly. All of them are numbers that bf16 holds.
    let value = |i: usize| {
        let mixed = (i as u32).wrapping_mul(0x9e37_79b9);
        let mixed = (mixed ^ mixed >> 16).wrapping_mul(0x85eb_ca6b);
        ((mixed ^ mixed >> 13) >> 24) as f32 / 128.0 - 1.0
    };
    Tensor::made_on(device, rows, cols, || (0..rows * cols).map(value).collect())
}

fn zeros(device: &Device, rows: usize, cols: usize) -> Tensor {
    Tensor::zeros_on(device, rows, cols)
}

fn ids() -> Vec<u32> {
    (0..8192).map(|i| (i * 31 % VOCABULARY) as u32).collect()
}

fn few_rows(device: &Device, rows: usize, bf16: bool) -> Ready {
    let (x, mut y, w) = (filled(device, rows, 2048), zeros(device, rows, 8192), filled(device, 8192, 2048));
    let w = if bf16 { w.known_to_fit_bf16().narrowed().expect("all are bf16") } else { w };
    let packed = PackedWeight::new(&w);
    Box::new(move || matmul_packed(&x, &packed, &mut y, Output::Replace))
}

fn layout(tokens: usize) -> Layout {
    let mut layout = Layout::new();
    for _ in 0..ROWS / tokens {
        layout.push(tokens, None);
    }
    layout
}

fn attention_forward(device: &Device, tokens: usize) -> Ready {
    let (qkv, layout) = (filled(device, ROWS, SHAPE.qkv_cols()), layout(tokens));
    Box::new(move || drop(attention(&qkv, &layout, SHAPE, Arithmetic::F32)))
}

fn attention_gradient(device: &Device, tokens: usize) -> Ready {
    let (qkv, layout) = (filled(device, ROWS, SHAPE.qkv_cols()), layout(tokens));
    let (out, log_sums) = attention(&qkv, &layout, SHAPE, Arithmetic::F32);
    let dout = filled(device, ROWS, out.cols());
    Box::new(move || drop(attention_backward(&dout, &qkv, &out, &log_sums, &layout, SHAPE, Arithmetic::F32)))
}

fn decode(device: &Device, arithmetic: Arithmetic) -> Ready {
    let qkv = filled(device, 1024, SHAPE.qkv_cols());
    let sequence = || {
        let mut prompt = KvPages::new(device, 1, SHAPE, arithmetic);
        prompt.store(0, &qkv, 0, 1023);
        prompt.advance(1023);
        let mut sequence = KvSequence::after(prompt.into());
        sequence.own.store(0, &qkv, 1023, 1);
        Box::new(sequence)
    };
    let sequences: Vec<_> = (0..64).map(|_| sequence()).collect();
    let newest = filled(device, 64, SHAPE.qkv_cols());
    Box::new(move || drop(decode_attention(&newest, &sequences, 0, SHAPE)))
}

fn optimizer(device: &Device, moment: fn(&Device, usize, usize) -> Moment) -> Ready {
    let (mut value, gradient) = (filled(device, 4096, 4096), filled(device, 4096, 4096));
    let (mut first, mut second) = (moment(device, 4096, 4096), moment(device, 4096, 4096));
    let adamw = AdamW { learning_rate: 1e-4, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.0 };
    Box::new(move || adamw.update(&mut value, &gradient, &mut first, &mut second, 1.0, 7, false, 0))
}

/// The median seconds of one `work`.
fn seconds(work: &mut dyn FnMut()) -> f64 {
    work();
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < AT_LEAST.1 || start.elapsed().as_secs_f64() < AT_LEAST.0 {
        let before = Instant::now();
        work();
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Multiply-adds in registers alone, as many chains as hide their latency.
struct Registers;

impl Registers {
    const TURNS: usize = 1 << 23;
}

impl WithSimd for Registers {
    /// Operations, two a multiply-add.
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let (x, one) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(1.0));
        // An array would live in memory where this is compiled for size.
        let (mut a, mut b, mut c, mut d, mut e) = (one, one, one, one, one);
        let (mut f, mut g, mut h, mut i, mut j) = (one, one, one, one, one);
        for _ in 0..Self::TURNS {
            a = simd.mul_add_f32s(a, x, x);
            b = simd.mul_add_f32s(b, x, x);
            c = simd.mul_add_f32s(c, x, x);
            d = simd.mul_add_f32s(d, x, x);
            e = simd.mul_add_f32s(e, x, x);
            f = simd.mul_add_f32s(f, x, x);
            g = simd.mul_add_f32s(g, x, x);
            h = simd.mul_add_f32s(h, x, x);
            i = simd.mul_add_f32s(i, x, x);
            j = simd.mul_add_f32s(j, x, x);
        }
        black_box([a, b, c, d, e, f, g, h, i, j]);
        (2 * 10 * Self::TURNS * size_of::<S::f32s>() / size_of::<f32>()) as f64
    }
}

fn in_registers() -> f64 {
    match InstructionSet::in_use() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx => {
            Simd::vectorize(pulp::x86::V4::try_new().expect("an available set"), Registers)
        }
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => {
            Simd::vectorize(pulp::x86::V3::try_new().expect("an available set"), Registers)
        }
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon => {
            Simd::vectorize(pulp::aarch64::Neon::try_new().expect("an available set"), Registers)
        }
        _ => Simd::vectorize(pulp::Scalar128b, Registers),
    }
}

/// Operations a second of all threads in registers, the best of some tries.
fn arithmetic_bound(threads: usize) -> f64 {
    let one = || {
        let start = Instant::now();
        let operations: f64 = (0..threads).into_par_iter().map(|_| in_registers()).sum();
        operations / start.elapsed().as_secs_f64()
    };
    (0..10).map(|_| one()).fold(0.0, f64::max)
}

/// Bytes a second, the best of some tries of changing an array in place: each number is read and written, and nothing is read
/// only because it is about to be written.
fn memory_bound(threads: usize) -> f64 {
    let mut numbers = vec![1.0_f32; 64 << 20];
    let (bytes, part) = (8 * numbers.len(), numbers.len() / threads);
    let mut once = || {
        let start = Instant::now();
        numbers.par_chunks_mut(part).for_each(|part| {
            for run in part.chunks_exact_mut(32) {
                let run: &mut [f32; 32] = run.try_into().expect("so many");
                *run = run.map(|x| -x);
            }
        });
        bytes as f64 / start.elapsed().as_secs_f64()
    };
    (0..10).map(|_| once()).fold(0.0, f64::max)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let threads = rayon::current_num_threads();
    let (operations, bytes) = (arithmetic_bound(threads), memory_bound(threads));
    println!(
        "{}, {threads} threads: {:.0} GFLOP/s in registers, {:.1} GB/s of memory\n",
        InstructionSet::in_use(),
        operations / 1e9,
        bytes / 1e9
    );
    println!("| operation | bound by | GFLOP/s | GB/s | ms | share of the bound |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for (name, ready) in CASES.iter().filter(|(name, _)| chosen(name)) {
        let device = Device::sizes();
        let mut counted = ready(&device);
        let Device::Sizes(sizes) = &device else { unreachable!("it was asked for") };
        sizes.take_work();
        counted();
        let (mut arithmetic_s, mut memory_s, mut bound_s, mut flops, mut moved) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (kind, work) in sizes.take_work() {
            let computes = if kind == Operation::Rows { 0.0 } else { 2.0 * work.multiply_adds };
            let (computing, moving) = (computes / operations, work.bytes / bytes);
            (arithmetic_s, memory_s, bound_s) =
                (arithmetic_s + computing, memory_s + moving, bound_s + f64::max(computing, moving));
            (flops, moved) = (flops + computes, moved + work.bytes);
        }
        let s = seconds(&mut *ready(&Device::Cpu));
        let by = if arithmetic_s > memory_s { "arithmetic" } else { "memory" };
        let (flops, moved) = (flops / s / 1e9, moved / s / 1e9);
        println!(
            "| {name} | {by} | {flops:.0} | {moved:.1} | {:.2} | {:.0} % |",
            1e3 * s,
            100.0 * bound_s / s
        );
    }
}
