//! Sets of instructions: the engine's results have the same bits with every set that fuses multiply and add.

#![expect(clippy::print_stdout, reason = "the bits are compared across processes")]

mod common;

use std::process::Command;
use std::sync::Arc;

use common::{bits, random};
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::attention::{AttentionShape, Layout, attention, attention_backward};
use rlt_engine::head::token_logprobs;
use rlt_engine::instructions::{InstructionSet, VARIABLE};
use rlt_engine::kv::{KvPages, KvSequence, decode_attention};
use rlt_engine::matmul::{Output, matmul_nn, matmul_nt, matmul_tn};
use rlt_engine::norm::rms_norm;
use rlt_engine::swiglu::swiglu;
use rlt_engine::{Device, Tensor};

/// A line that names an operation and hashes its bits.
fn tell(name: &str, results: &[&Tensor]) {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for bits in results.iter().flat_map(|result| bits(result)) {
        hash = (hash ^ u64::from(bits)).wrapping_mul(0x0100_0000_01b3);
    }
    println!("bits of {name}: {hash:016x}");
}

/// Sizes on both sides of the borders of register tiles, strips, panels and chunks.
const SIZES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (5, 17, 30), (12, 32, 256), (23, 47, 257), (70, 96, 512), (131, 330, 300), (300, 64, 700)];

#[test]
fn bits_of_every_operation() {
    for (m, n, k) in SIZES {
        let (x, w, dy) = (random(m, k, 1), random(n, k, 2), random(m, n, 3));
        let (mut y, mut dx, mut dw) = (random(m, n, 4), random(m, k, 5), random(n, k, 6));
        matmul_nt(&x, &w, &mut y, Output::Accumulate);
        matmul_nn(&dy, &w, &mut dx, Output::Accumulate);
        matmul_tn(&dy, &x, &mut dw, Output::Accumulate);
        tell(&format!("products {m} x {n} x {k}"), &[&y, &dx, &dw]);
        let narrow = Tensor::from_bf16_rows(n, k, |row| bytes_of(row, k));
        matmul_nt(&x, &narrow, &mut y, Output::Replace);
        tell(&format!("bf16 weights {m} x {n} x {k}"), &[&y]);
    }
    for head_dim in [16, 20, 32, 64, 80] {
        let shape = AttentionShape::full(4, 2, head_dim);
        let mut layout = Layout::new();
        let prefix = layout.push(70, None);
        for len in [1, 33, 150] {
            layout.push(len, Some(prefix));
        }
        let qkv = random(layout.rows(), shape.qkv_cols(), 7);
        let (out, log_sums) = attention(&qkv, &layout, shape, Arithmetic::F32);
        let dout = random(out.rows(), out.cols(), 8);
        let gradient = attention_backward(&dout, &qkv, &out, &log_sums, &layout, shape, Arithmetic::F32);
        tell(&format!("attention, heads of {head_dim}"), &[&out, &log_sums, &gradient]);
        for arithmetic in [Arithmetic::F32, Arithmetic::Bf16] {
            let mut prompt = KvPages::new(&Device::Cpu, 1, shape, arithmetic);
            prompt.store(0, &qkv, 0, 70);
            prompt.advance(70);
            let prompt = Arc::new(prompt);
            for n in [1, 2, 5] {
                let mut sequences: Vec<_> = (0..n).map(|_| KvSequence::after(Arc::clone(&prompt))).collect();
                for (i, sequence) in sequences.iter_mut().enumerate() {
                    sequence.own.store(0, &qkv, 70 + i, 1);
                }
                let sequences: Vec<&KvSequence> = sequences.iter().collect();
                let new = qkv.gather_rows(&(70..70 + n).collect::<Vec<_>>());
                let out = decode_attention(&new, &sequences, 0, shape);
                tell(&format!("decoding {n}, heads of {head_dim}, {arithmetic:?}"), &[&out]);
            }
        }
    }
    let (hidden, weight) = (random(9, 40, 9), random(77, 40, 10));
    let logprobs = token_logprobs(&hidden, &[0, 3, 8], (&weight).into(), &[76, 2, 40], 0.7);
    tell("head", &[&Tensor::from_vec(1, 3, logprobs)]);
    tell("norm", &[&rms_norm(&hidden, &random(1, 40, 11), 1e-6).0]);
    tell("swiglu", &[&swiglu(&hidden)]);
}

/// Numbers in bf16 of both signs.
fn bytes_of(row: usize, cols: usize) -> &'static [u8] {
    const ALL: [u8; 4096] = {
        let mut all = [0; 4096];
        let mut i = 0;
        while i < all.len() {
            let hash = (i as u32).wrapping_mul(2_654_435_761);
            all[i] = (hash >> 24) as u8;
            all[i + 1] = ((hash >> 8) & 0x80) as u8 | (0x3e + ((hash >> 20) & 1) as u8);
            i += 2;
        }
        all
    };
    static NUMBERS: [u8; 4096] = ALL;
    &NUMBERS[row * 2 % 2048..][..2 * cols]
}

#[test]
fn the_same_bits_with_every_set_that_fuses() {
    let told = |set: InstructionSet| {
        let again = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "bits_of_every_operation", "--nocapture"])
            .env(VARIABLE, set.to_string())
            .output()
            .unwrap();
        assert!(again.status.success(), "{set}: {}", String::from_utf8_lossy(&again.stderr));
        let said = String::from_utf8_lossy(&again.stdout).into_owned();
        said.lines().filter(|line| line.starts_with("bits of")).map(str::to_owned).collect::<Vec<_>>()
    };
    let fusing: Vec<_> =
        InstructionSet::available().into_iter().filter(|&set| set != InstructionSet::Baseline).collect();
    let Some((&first, others)) = fusing.split_first() else { return };
    let expected = told(first);
    assert!(expected.len() > 40, "{} results", expected.len());
    for &set in others {
        for (a, b) in expected.iter().zip(told(set)) {
            assert_eq!(*a, b, "{first} and {set}");
        }
    }
}

#[test]
fn an_unknown_set_is_named_and_so_are_those_there_are() {
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "bits_of_every_operation"])
        .env(VARIABLE, "mmx")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout).into_owned() + &String::from_utf8_lossy(&again.stderr);
    let all = InstructionSet::available().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let line = format!("RLT_SIMD=mmx: this processor has {all}; name one of them or leave it unset");
    assert!(!again.status.success() && said.contains(&line), "{said}");
}
