//! Every operation on a GPU against the processor: forward and backward, 1e-5 of the largest number; where numbers are rounded to
//! bf16 on the way, and one that lies between two bf16 numbers may go either way, 1e-2. On the emulated GPU, or with `RLT_CUDA=real`
//! on the first real one.

#![expect(clippy::print_stdout, reason = "what was skipped, and bits that are compared across processes")]

use std::sync::Arc;

use rlt_engine::adamw::{AdamW, BLOCK, squares_of_blocks};
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::attention::{AttentionShape, Layout, attention, attention_backward};
use rlt_engine::embedding::{embed, embed_backward, scale};
use rlt_engine::geglu::{geglu, geglu_backward};
use rlt_engine::head::{self, Distributions, Kl, OutputMatrix};
use rlt_engine::kv::{KvPages, KvSequence, Newest};
use rlt_engine::low_rank::{LowRank, PackedLowRank, low_rank_gradients, low_rank_input_gradient, merged};
use rlt_engine::matmul::{Output, add_bias, add_bias_backward, matmul_nn, matmul_nt, matmul_tn};
use rlt_engine::moment::Moment;
use rlt_engine::norm::{
    HeadColumns, add_rms_norm, head_norm, head_norm_backward, one_plus, rms_norm, rms_norm_again,
    rms_norm_backward,
};
use rlt_engine::offload::OffloadedTensors;
use rlt_engine::packed::{PackedWeight, matmul_packed};
use rlt_engine::random::RandomStream;
use rlt_engine::rope::{RopeTable, Rotation, rotate};
use rlt_engine::sample::{self, Sampling};
use rlt_engine::swiglu::{swiglu, swiglu_backward};
use rlt_engine::{Device, Tensor};

/// The GPU that tests run on; none where there is none.
fn gpu() -> Option<Device> {
    if std::env::var_os("RLT_CUDA").is_none_or(|which| which != "real")
        && let Err(why) = rlt_cuda_emulator::load()
    {
        println!("skipped: {why}");
        return None;
    }
    Some(Device::cuda(0).unwrap())
}

/// Numbers that are the same on every device.
fn numbers(device: &Device, rows: usize, cols: usize, seed: u64) -> Tensor {
    let stream = RandomStream::new(seed, "numbers");
    Tensor::made_on(device, rows, cols, || stream.normals([0, 0, 0], rows * cols))
}

/// Computes on the processor and on the GPU, and compares what comes out, tensor by tensor.
#[track_caller]
fn compare(what: &str, compute: impl Fn(&Device) -> Vec<Tensor>) {
    compare_to(1e-5, what, compute);
}

/// Numbers of a GPU and of the processor may be `tolerance` of the largest one apart.
const ROUNDED: f32 = 1e-2;

/// As [`compare`], to `tolerance` of the largest number.
#[track_caller]
fn compare_to(tolerance: f32, what: &str, compute: impl Fn(&Device) -> Vec<Tensor>) {
    let Some(gpu) = gpu() else { return };
    let (ours, theirs) = (compute(&Device::Cpu), compute(&gpu));
    let again = compute(&gpu);
    assert_eq!(ours.len(), theirs.len());
    for (index, ((ours, theirs), again)) in ours.iter().zip(&theirs).zip(&again).enumerate() {
        assert_eq!((ours.rows(), ours.cols()), (theirs.rows(), theirs.cols()), "{what}, tensor {index}");
        assert!(matches!(theirs.device(), Device::Cuda(_)), "{what}, tensor {index} left the GPU");
        assert!(theirs.has_bits_of(again), "{what}, tensor {index}: other bits the second time");
        close(tolerance, &format!("{what}, tensor {index}"), &ours.to_host(), &theirs.to_host());
    }
}

#[track_caller]
fn close(tolerance: f32, what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = ours.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        // Not so written that what is not a number would pass.
        assert!((a - b).abs() <= tolerance * largest, "{what} [{at}]: {a} and {b} of up to {largest}");
    }
}

#[test]
fn elements_and_rows() {
    compare("sums", |device| {
        let (x, y) = (numbers(device, 7, 33, 1), numbers(device, 7, 33, 2));
        let (mut sum, mut mixed, mut scaled) = (x.clone(), x.clone(), x.clone());
        sum.add(&y);
        mixed.mix_in(&y, 0.25);
        scale(&mut scaled, 3.0);
        let mut scattered = x.clone();
        let rows = [3, 0, 3, 3, 6];
        scattered.scatter_add_rows(&rows, &y.gather_rows(&[1, 1, 2, 5, 0]));
        let full = Tensor::full_on(device, 5, 3, 2.5);
        vec![sum, mixed, scaled, scattered, x.gather_rows(&rows), full, one_plus(&x.gather_rows(&[2])), x]
    });
}

#[test]
fn what_is_copied_is_apart() {
    let Some(gpu) = gpu() else { return };
    let mut x = Tensor::full_on(&gpu, 3, 5, 1.0);
    let copy = x.clone();
    x.fill_zero();
    assert_eq!((copy.to_host(), x.to_host()), (vec![1.0; 15].into(), vec![0.0; 15].into()));
    x.change_on_host(|numbers| numbers[4] = 7.0);
    assert_eq!(x.to_host()[4], 7.0);
    assert!(x.is_finite());
}

/// As [`numbers`], kept in bf16.
fn kept_in_bf16(device: &Device, rows: usize, cols: usize, seed: u64) -> Tensor {
    let bytes: Vec<u8> = numbers(&Device::Cpu, rows, cols, seed)
        .to_host()
        .iter()
        .flat_map(|number| ((number.to_bits() >> 16) as u16).to_le_bytes())
        .collect();
    Tensor::from_bf16_rows_on(device, rows, cols, |row| &bytes[2 * row * cols..2 * (row + 1) * cols])
}

#[test]
fn bf16_weights_keep_their_bits() {
    let Some(gpu) = gpu() else { return };
    // An odd number of numbers: the last one has a word of its own.
    for (rows, cols) in [(7, 33), (4, 10)] {
        let [ours, theirs] = [&Device::Cpu, &gpu].map(|device| kept_in_bf16(device, rows, cols, 1));
        let wide = Tensor::made_on(&gpu, rows, cols, || ours.to_host().into_owned());
        assert!(ours.has_bits_of(&theirs) && theirs.has_bits_of(&theirs.clone()));
        assert!(wide.narrowed().is_some_and(|narrowed| narrowed.has_bits_of(&ours)));
        assert!(theirs.is_bf16() && !wide.is_bf16());
        assert!(numbers(&gpu, rows, cols, 2).narrowed().is_none());
    }
}

#[test]
fn embeddings() {
    let ids = [5, 0, 5, 9, 5, 0];
    compare("embedding", |device| {
        let table = numbers(device, 10, 40, 1);
        let mut dtable = numbers(device, 10, 40, 2);
        embed_backward(&ids, &numbers(device, 6, 40, 3), &mut dtable);
        vec![embed(&ids, &table), dtable, embed(&ids, &kept_in_bf16(device, 10, 33, 4))]
    });
}

#[test]
fn norms() {
    for (rows, cols) in [(1, 5), (70, 96), (3, 600)] {
        compare("norm", |device| {
            let (x, weight) = (numbers(device, rows, cols, 1), numbers(device, 1, cols, 2));
            let (y, inverse) = rms_norm(&x, &weight, 1e-5);
            let again = rms_norm_again(&x, &weight, &inverse);
            let mut sum = numbers(device, rows, cols, 3);
            let inverse2 = add_rms_norm(&mut sum, &x, &weight, 1e-5);
            let (dy, mut dx) = (numbers(device, rows, cols, 4), numbers(device, rows, cols, 5));
            let mut dweight = numbers(device, 1, cols, 6);
            rms_norm_backward(&dy, &x, &weight, &inverse, &mut dx, Some(&mut dweight));
            rms_norm_backward(&dy, &x, &weight, &inverse, &mut sum, None);
            vec![y, inverse, again, sum, inverse2, dx, dweight]
        });
    }
}

#[test]
fn heads() {
    for width in [6, 64, 80] {
        let heads = HeadColumns { first_col: width, n_heads: 3, head_dim: width };
        let frequencies: Vec<f32> = (0..width / 2).map(|i| 1.0 / 100_f32.powf(i as f32 / 9.0)).collect();
        let table = RopeTable::new(&frequencies, 1.5, 40);
        let positions: Vec<u32> = (0..67).map(|row| row * 7 % 40).collect();
        compare("heads", |device| {
            let (x, weight) = (numbers(device, 67, 5 * width, 1), numbers(device, 1, width, 2));
            let mut normed = x.clone();
            head_norm(&mut normed, heads, &weight, 1e-5);
            let (mut dx, mut dweight) = (numbers(device, 67, 5 * width, 3), numbers(device, 1, width, 4));
            head_norm_backward(&mut dx, &x, heads, &weight, 1e-5, Some(&mut dweight));
            let (mut turned, mut back) = (x.clone(), x.clone());
            rotate(&mut turned, heads, &positions, &table, Rotation::Forward);
            rotate(&mut back, heads, &positions, &table, Rotation::Backward);
            vec![normed, dx, dweight, turned, back]
        });
    }
}

#[test]
fn gates() {
    compare("gates", |device| {
        let gate_up = numbers(device, 19, 2 * 37, 1);
        let mut all = vec![swiglu(&gate_up), geglu(&gate_up)];
        for backward in [swiglu_backward, geglu_backward] {
            let (mut dout, mut dgate_up) = (numbers(device, 19, 37, 2), gate_up.clone());
            backward(&mut dout, &mut dgate_up);
            all.extend([dout, dgate_up]);
        }
        all
    });
}

#[test]
fn products() {
    for (m, n, k) in [(1, 1, 1), (5, 7, 12), (70, 33, 65)] {
        compare("products", |device| {
            let (x, w, dy) = (numbers(device, m, k, 1), numbers(device, n, k, 2), numbers(device, m, n, 3));
            let mut all = Vec::new();
            for mode in [Output::Replace, Output::Accumulate] {
                let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
                matmul_nt(&x, &w, &mut y, mode);
                matmul_nn(&dy, &w, &mut dx, mode);
                matmul_tn(&dy, &x, &mut dw, mode);
                all.extend([y, dx, dw]);
            }
            let (mut biased, mut dbias) = (dy.clone(), numbers(device, 1, n, 5));
            add_bias(&mut biased, &numbers(device, 1, n, 4));
            add_bias_backward(&dy, &mut dbias);
            all.extend([biased, dbias]);
            all
        });
    }
}

#[test]
fn products_in_bf16() {
    for (m, n, k) in [(1, 1, 1), (5, 7, 12), (70, 33, 65)] {
        // The same factors are rounded the same way before they are multiplied.
        compare("products in bf16", |device| {
            let (x, dy) = (numbers(device, m, k, 1), numbers(device, m, n, 3));
            let mut all = Vec::new();
            for w in [numbers(device, n, k, 2), kept_in_bf16(device, n, k, 2)] {
                for mode in [Output::Replace, Output::Accumulate] {
                    let (mut y, mut packed) = (dy.clone(), dy.clone());
                    let (mut dx, mut dw) = (x.clone(), numbers(device, n, k, 4));
                    Arithmetic::Bf16.nt(&x, &w, &mut y, mode);
                    matmul_packed(&x, &PackedWeight::for_arithmetic(&w, Arithmetic::Bf16), &mut packed, mode);
                    Arithmetic::Bf16.nn(&dy, &w, &mut dx, mode);
                    Arithmetic::Bf16.tn(&dy, &x, &mut dw, mode);
                    all.extend([y, packed, dx, dw]);
                }
            }
            all
        });
        compare("products in f32 of weights in bf16", |device| {
            let (x, w, dy) =
                (numbers(device, m, k, 1), kept_in_bf16(device, n, k, 2), numbers(device, m, n, 3));
            let (mut y, mut dx) = (dy.clone(), x.clone());
            matmul_nt(&x, &w, &mut y, Output::Replace);
            matmul_nn(&dy, &w, &mut dx, Output::Accumulate);
            vec![y, dx]
        });
    }
}

#[test]
fn low_rank_terms() {
    compare("low rank", |device| {
        let term = |seed| LowRank {
            a: numbers(device, 3, 20, seed),
            b: numbers(device, 6, 3, seed + 1),
            scale: 0.5,
            first_column: 4,
        };
        let (x, dy) = (numbers(device, 9, 20, 3), numbers(device, 9, 16, 4));
        let (mut y, mut dx) = (dy.clone(), x.clone());
        PackedLowRank::new(&term(1)).add(&x, &mut y);
        let du = low_rank_input_gradient(&term(1), &dy, &mut dx);
        let mut gradient = term(7);
        low_rank_gradients(&term(1), &dy, &x, &du, &mut gradient);
        let all =
            [numbers(device, 16, 20, 5), kept_in_bf16(device, 16, 20, 5)].map(|w| merged(&w, &[term(1)]));
        let [merged, of_bf16] = all;
        vec![y, dx, du, gradient.a, gradient.b, merged, of_bf16]
    });
}

fn layout() -> Layout {
    let mut layout = Layout::new();
    let prompt = layout.push(37, None);
    layout.push(40, Some(prompt));
    layout.push(1, Some(prompt));
    layout.push(17, None);
    let short = layout.push(3, None);
    layout.push(33, Some(short));
    layout
}

#[test]
fn attention_forward_and_backward() {
    // On tensor cores: whole eights of columns, up to each of the widths that there are kernels for.
    let whole =
        [(4, 2, 8, None), (4, 2, 64, Some(50)), (2, 1, 80, None), (2, 2, 128, None), (1, 1, 136, Some(40))];
    let others = [(3, 1, 66, None), (2, 2, 10, Some(5)), (2, 1, 130, Some(40))];
    let shapes = whole.into_iter().chain(others);
    for (n_heads, n_kv_heads, head_dim, window) in shapes {
        let shape = AttentionShape { window, ..AttentionShape::full(n_heads, n_kv_heads, head_dim) };
        for (arithmetic, tolerance) in [(Arithmetic::F32, 1e-5), (Arithmetic::Bf16, ROUNDED)] {
            compare_to(tolerance, &format!("attention {shape:?} in {arithmetic:?}"), |device| {
                let layout = layout();
                let qkv = numbers(device, layout.rows(), shape.qkv_cols(), 1);
                let (out, log_sums) = attention(&qkv, &layout, shape, arithmetic);
                let dout = numbers(device, layout.rows(), n_heads * head_dim, 2);
                let dqkv = attention_backward(&dout, &qkv, &out, &log_sums, &layout, shape, arithmetic);
                vec![out, log_sums, dqkv]
            });
        }
    }
}

/// Two prompts, one of which three sequences share, and steps over the ends of pages.
/// Steps of decoding four sequences, of which `chosen` are there, three of them after a prompt of two parts: what each sees now and then.
fn decoded(
    device: &Device,
    shape: AttentionShape,
    arithmetic: Arithmetic,
    chosen: std::ops::Range<usize>,
) -> Vec<Tensor> {
    let layers = 2;
    let prompt = |tokens: usize, seed: u64| {
        let mut pages = KvPages::new(device, layers, shape, arithmetic);
        for layer in 0..layers {
            let rows = numbers(device, tokens + 1, shape.qkv_cols(), seed + layer as u64);
            pages.store(layer, &rows, 1, tokens);
        }
        pages.advance(tokens);
        Arc::new(pages)
    };
    let (long, short) = (prompt(300, 10), prompt(3, 20));
    let prompts = &[&long, &long, &long, &short][chosen.clone()];
    let mut sequences: Vec<_> = prompts.iter().map(|prompt| KvSequence::after((*prompt).clone())).collect();
    let rows: Vec<usize> = chosen.collect();
    let mut all = Vec::new();
    for step in 0..66 {
        let mut sequences: Vec<&mut KvSequence> = sequences.iter_mut().collect();
        let mut newest = Newest::of(device, &mut sequences);
        for layer in 0..layers {
            let all_rows = numbers(device, 4, shape.qkv_cols(), 100 + 2 * step + layer as u64);
            let qkv = all_rows.gather_rows(&rows);
            newest.store(layer, &qkv, shape);
            if [0, 63, 64, 65].contains(&step) {
                all.push(newest.attention(layer, &qkv, shape));
            }
        }
        for sequence in sequences {
            sequence.own.advance(1);
        }
    }
    all
}

#[test]
fn decoding() {
    for (heads, kv_heads, width, window) in
        [(4, 2, 8, None), (9, 1, 66, Some(70)), (1, 1, 6, Some(2)), (1, 1, 132, None)]
    {
        let shape = AttentionShape { window, ..AttentionShape::full(heads, kv_heads, width) };
        for arithmetic in [Arithmetic::F32, Arithmetic::Bf16] {
            // Keys and values are rounded the same way, and attended to in f32.
            let what = format!("decoding {shape:?} in {arithmetic:?}");
            compare(&what, |device| decoded(device, shape, arithmetic, 0..4));
        }
    }
}

#[test]
fn what_a_sequence_sees_does_not_depend_on_who_shares_its_prompt() {
    let Some(gpu) = gpu() else { return };
    let shape = AttentionShape { window: Some(200), ..AttentionShape::full(6, 2, 10) };
    for arithmetic in [Arithmetic::F32, Arithmetic::Bf16] {
        let together = decoded(&gpu, shape, arithmetic, 0..4);
        for row in 0..4 {
            let alone = decoded(&gpu, shape, arithmetic, row..row + 1);
            let mut pairs = together.iter().zip(&alone);
            assert!(
                pairs.all(|(together, alone)| together.gather_rows(&[row]).has_bits_of(alone)),
                "row {row}"
            );
        }
    }
}

#[test]
fn the_head() {
    compare("head", |device| of_the_head(device, Arithmetic::F32));
}

#[test]
fn the_head_in_bf16() {
    compare_to(ROUNDED, "head in bf16", |device| of_the_head(device, Arithmetic::Bf16));
}

fn of_the_head(device: &Device, arithmetic: Arithmetic) -> Vec<Tensor> {
    let (vocabulary, rows) = (700, vec![2, 0, 5, 5]);
    let targets = [699, 0, 3, 300];
    let (hidden, w) = (numbers(device, 6, 24, 1), numbers(device, vocabulary, 24, 2));
    let output = |weight| OutputMatrix { weight, arithmetic };
    let (mut dhidden, mut dw) = (numbers(device, 6, 24, 3), numbers(device, vocabulary, 24, 4));
    let plain = head::token_logprobs(&hidden, &rows, output(&w), &targets, 0.7);
    let beside = head::token_logprobs_beside_best(&hidden, &rows, output(&w), &targets, 0.7);
    assert!(beside.iter().zip(&plain).all(|(of, plain)| of.given.to_bits() == plain.to_bits()));
    assert!(beside.iter().all(|of| of.best >= of.given));
    let best = beside.iter().map(|of| of.best).collect();
    let weigh = |_: usize, logprobs: &[f32]| Ok::<_, ()>(logprobs.iter().map(|lp| 0.1 * lp).collect());
    let logprobs = head::token_logprobs_with_backward(
        &hidden,
        &rows,
        output(&w),
        &targets,
        0.7,
        &mut dhidden,
        Some(&mut dw),
        weigh,
    );
    let lists = [plain, best, logprobs.unwrap()].map(|list| Tensor::made_on(device, 1, 4, || list));
    let (hidden2, w2) = (numbers(device, 4, 10, 5), numbers(device, vocabulary, 10, 6));
    let p = Distributions { hidden: &hidden, rows: &rows, w: output(&w), temperature: 0.7 };
    let q = Distributions { hidden: &hidden2, rows: &[0, 1, 2, 3], w: output(&w2), temperature: 1.3 };
    let mut all = Vec::from(lists);
    all.push(Tensor::made_on(device, 1, 4, || head::full_divergence(p, q)));
    for kl in [Kl::Reverse, Kl::Forward] {
        let (mut dh, mut dw) = (dhidden.clone(), dw.clone());
        let divergences = head::divergence_with_backward(p, q, kl, &mut dh, Some(&mut dw), weigh);
        all.extend([Tensor::made_on(device, 1, 4, || divergences.unwrap()), dh, dw]);
    }
    all.extend([dhidden, dw]);
    all
}

#[test]
fn the_optimizer() {
    let settings = AdamW { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1 };
    compare("optimizer", |device| {
        let mut value = numbers(device, 3, 20_000, 1);
        let [mut first, mut second] = [0; 2].map(|_| Moment::zeros_f32(device, 3, 20_000));
        for step in 1..=2 {
            let gradient = numbers(device, 3, 20_000, 1 + step);
            settings.update(&mut value, &gradient, &mut first, &mut second, 0.5, step, true, 0);
        }
        let squares = squares_of_blocks(&value).into_iter().map(|sum| sum as f32).collect::<Vec<_>>();
        let squares = Tensor::made_on(device, 1, squares.len(), || squares);
        let (Moment::F32(first), Moment::F32(second)) = (first, second) else { unreachable!() };
        vec![value, first, second, squares]
    });
    // Offloaded, they come and go, in two chunks here, to the same bits.
    if let Some(gpu) = gpu() {
        for is_bf16 in [false, true] {
            let (rows, cols) = (3, 1_500_001);
            let moments = |is_offloaded| match (is_offloaded, is_bf16) {
                (true, _) => Moment::zeros_offloaded(&gpu, is_bf16, rows, cols),
                (false, false) => Moment::zeros_f32(&gpu, rows, cols),
                (false, true) => Moment::zeros_bf16(&gpu, rows, cols),
            };
            let [here, there] = [false, true].map(|is_offloaded| {
                let mut value = numbers(&gpu, rows, cols, 3);
                let [mut first, mut second] = [0; 2].map(|_| moments(is_offloaded));
                for step in 1..=2 {
                    let gradient = numbers(&gpu, rows, cols, 1 + step);
                    settings.update(&mut value, &gradient, &mut first, &mut second, 0.5, step, true, 0);
                    // As a checkpoint that is gone on with.
                    let kept = first.to_host().into_owned();
                    first.set(&kept);
                }
                [value.to_host().into_owned(), first.to_host().into_owned(), second.to_host().into_owned()]
            });
            assert!(here == there, "offloaded moments, bf16: {is_bf16}");
        }
    }
    // Moments in bf16 go up and down by the same random bits, here and there, of a part as of the whole.
    compare("optimizer with moments in bf16", |device| {
        let (rows, from) = (3, BLOCK);
        let gradients = [1, 2].map(|seed| numbers(device, rows, 20_001, seed));
        let mut value = numbers(device, rows, 20_001, 3);
        let [mut first, mut second] = [0; 2].map(|_| Moment::zeros_bf16(device, rows, 20_001));
        for (step, gradient) in (1..).zip(&gradients) {
            settings.update(&mut value, gradient, &mut first, &mut second, 0.5, step, true, 4);
        }
        let of_part = |whole: &Tensor| {
            Tensor::made_on(device, 1, whole.len() - from, || whole.to_host()[from..].to_vec())
        };
        let mut shard = of_part(&numbers(device, rows, 20_001, 3));
        let mut part = numbers(device, rows, 20_001, 3);
        let [mut a, mut b, mut c, mut d] = [0; 4].map(|_| Moment::zeros_bf16(device, 1, shard.len()));
        for (step, gradient) in (1..).zip(&gradients) {
            let gradient = of_part(gradient);
            settings.update_from(from, &mut part, &gradient, &mut a, &mut b, 0.5, step, true, 4);
            settings.update_shard(from, &mut shard, &gradient, &mut c, &mut d, 0.5, step, true, 4);
        }
        assert!(of_part(&value).has_bits_of(&shard) && of_part(&part).has_bits_of(&shard));
        assert_eq!((&first.to_host()[from..], &*a.to_host()), (&*c.to_host(), &*c.to_host()));
        assert_eq!((&second.to_host()[from..], &*b.to_host()), (&*d.to_host(), &*d.to_host()));
        let kept = first.to_host().into_owned();
        first.set(&kept);
        assert_eq!(*first.to_host(), kept);
        let moments = [first, second]
            .map(|moment| Tensor::made_on(device, rows, 20_001, || moment.to_host().into_owned()));
        [value].into_iter().chain(moments).collect()
    });
}

#[test]
fn tensors_come_back_from_the_hosts_memory_as_they_went() {
    let Some(gpu) = gpu() else { return };
    let whole = numbers(&gpu, 1, 33, 1);
    let halves = |seed: u8| {
        let bytes: Vec<u8> =
            (0..2 * 7 * 5).map(|i: u8| i.wrapping_mul(37).wrapping_add(seed) & 0xbf).collect();
        Tensor::from_bf16_rows_on(&gpu, 7, 5, |row| &bytes[10 * row..10 * (row + 1)])
    };
    let tensors = [whole, halves(1), numbers(&gpu, 300, 70, 2)];
    let are = |tensors: &[Tensor], expected: &[Tensor]| {
        assert_eq!(tensors.len(), expected.len());
        assert!(tensors.iter().zip(expected).all(|(tensor, expected)| tensor.has_bits_of(expected)));
    };
    let mut kept = OffloadedTensors::of(&gpu, &tensors.iter().collect::<Vec<_>>());
    assert_eq!((kept.len(), kept.bytes()), (33 + 35 + 21_000, 4 * (33 + 18 + 21_000)));
    are(&kept.bring().arrived(), &tensors);
    // Others in their place, while they are on their way and while they are not; a copy stays as it was.
    let (copy, coming) = (kept.clone(), kept.bring());
    for seed in [3, 4] {
        let others = [numbers(&gpu, 1, 33, seed), halves(seed as u8), numbers(&gpu, 300, 70, seed + 1)];
        kept.set(&others.iter().collect::<Vec<_>>());
        are(&kept.bring().arrived(), &others);
    }
    are(&coming.arrived(), &tensors);
    are(&copy.bring().arrived(), &tensors);
}

#[test]
fn tokens_are_drawn_as_on_the_processor() {
    let all = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };
    let there = |logits: &Tensor, sampling: &Sampling, uniforms: &[f64]| {
        sample::sample_there(logits, sampling, || uniforms.to_vec())
    };
    let Some(gpu) = gpu() else { return };
    // Fewer tokens than threads, some more, and a warp's run that ends in the middle.
    for (vocabulary, rows) in [(1, 3), (33, 40), (1025, 20), (5003, 40)] {
        let spread = numbers(&gpu, rows, vocabulary, 1);
        let mut logits =
            Tensor::made_on(&gpu, rows, vocabulary, || spread.to_host().iter().map(|x| 2.5 * x).collect());
        // Two tokens that are the likeliest, one that is impossible.
        logits.change_on_host(|all| {
            let best = all.iter().copied().fold(0.0, f32::max);
            all[vocabulary / 2] = best;
            all[vocabulary - 1] = best;
            if vocabulary > 40 {
                all[7] = f32::NEG_INFINITY;
            }
        });
        let ours = Tensor::made_on(&Device::Cpu, rows, vocabulary, || logits.to_host().into_owned());
        let stream = RandomStream::new(1, "uniforms");
        let mut uniforms: Vec<f64> = (0..rows).map(|row| stream.uniform([0; 3], row as u64)).collect();
        (uniforms[0], uniforms[1]) = (0.0, 1.0 - f64::EPSILON / 2.0);
        for temperature in [0.0, 0.6, 1.0, 3.0] {
            let sampling = Sampling { temperature, ..all };
            let theirs = there(&logits, &sampling, &uniforms).unwrap();
            assert_eq!(Some(&theirs), there(&logits, &sampling, &uniforms).as_ref());
            for (row, ((token, logprob), uniform)) in theirs.into_iter().zip(&uniforms).enumerate() {
                // Where rounding decides, a token that can be drawn.
                if row == 1 && temperature > 0.0 {
                    assert!(
                        ours.to_host()[row * vocabulary + token as usize].is_finite() && logprob.is_finite(),
                        "{token} {logprob}"
                    );
                    continue;
                }
                let (expected, expected_logprob) = sample::sample_row(&ours, row, &sampling, [], *uniform);
                assert_eq!(token, expected, "of {vocabulary} at {temperature}, row {row}");
                let difference = (logprob - expected_logprob).abs();
                assert!(difference <= 1e-5 * expected_logprob.abs().max(1.0), "{logprob} {expected_logprob}");
            }
        }
        for hosts in [Sampling { top_p: 0.9, ..all }, Sampling { repetition_penalty: 1.1, ..all }] {
            assert!(there(&logits, &hosts, &uniforms).is_none());
        }
        assert!(there(&ours, &all, &uniforms).is_none());
    }
}

/// A step of one sequence over six pages: more than a block has warps.
fn decoded_once(device: &Device, arithmetic: Arithmetic) -> Tensor {
    let shape = AttentionShape::full(1, 1, 4);
    let mut pages = KvPages::new(device, 1, shape, arithmetic);
    pages.store(0, &numbers(device, 350, shape.qkv_cols(), 6), 0, 350);
    pages.advance(350);
    let mut sequence = KvSequence::after(Arc::new(pages));
    let qkv = numbers(device, 1, shape.qkv_cols(), 7);
    let sequences = &mut [&mut sequence];
    let mut newest = Newest::of(device, sequences);
    newest.store(0, &qkv, shape);
    newest.attention(0, &qkv, shape)
}

/// Attention within `layout` on tensor cores, whose heads have at least eight columns.
fn attention_on_tensor_cores(device: &Device, layout: &Layout) -> [Tensor; 3] {
    let shape = AttentionShape { window: Some(70), ..AttentionShape::full(2, 1, 8) };
    let qkv = numbers(device, layout.rows(), shape.qkv_cols(), 8);
    let (out, log_sums) = attention(&qkv, layout, shape, Arithmetic::Bf16);
    let dout = numbers(device, layout.rows(), 16, 9);
    let dqkv = attention_backward(&dout, &qkv, &out, &log_sums, layout, shape, Arithmetic::Bf16);
    [out, log_sums, dqkv]
}

/// Tokens with their log-probabilities, drawn and the likeliest, where some warps have runs of the vocabulary.
fn drawn(device: &Device) -> [Tensor; 2] {
    let logits = numbers(device, 3, 200, 8);
    [0.7, 0.0].map(|temperature| {
        let sampling = Sampling { temperature, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };
        let uniforms = [0.1, 0.5, 0.9];
        let drawn = sample::sample_there(&logits, &sampling, || uniforms.to_vec()).unwrap_or_else(|| {
            let rows = uniforms.iter().enumerate();
            rows.map(|(row, uniform)| sample::sample_row(&logits, row, &sampling, [], *uniform)).collect()
        });
        Tensor::made_on(device, 3, 2, || {
            drawn.into_iter().flat_map(|(token, logprob)| [token as f32, logprob]).collect()
        })
    })
}

/// Set for the processes below.
const TINY: &str = "RLT_TEST_TINY";

/// Whatever has a barrier, on shapes that need each: several warps, several tiles, sums one after another. Prints all bits.
#[test]
fn tiny_shapes() {
    if std::env::var_os(TINY).is_none() {
        return;
    }
    let shape = AttentionShape { window: Some(70), ..AttentionShape::full(2, 1, 4) };
    let compute = |device: &Device| {
        let mut layout = Layout::new();
        let prompt = layout.push(36, None);
        layout.push(35, Some(prompt));
        layout.push(2, Some(prompt));
        let qkv = numbers(device, layout.rows(), shape.qkv_cols(), 1);
        let (out, log_sums) = attention(&qkv, &layout, shape, Arithmetic::F32);
        let dout = numbers(device, layout.rows(), 8, 2);
        let dqkv = attention_backward(&dout, &qkv, &out, &log_sums, &layout, shape, Arithmetic::F32);
        let rounded = attention_on_tensor_cores(device, &layout);
        let (hidden, w) = (numbers(device, 2, 6, 3), numbers(device, 300, 6, 4));
        let d = Distributions { hidden: &hidden, rows: &[0, 1], w: (&w).into(), temperature: 0.7 };
        let d2 = Distributions { temperature: 1.0, ..d };
        let divergences = head::full_divergence(d, d2);
        let (normed, _) = rms_norm(&w, &numbers(device, 1, 6, 5), 1e-5);
        let mut all = vec![out, log_sums, dqkv, Tensor::made_on(device, 1, 2, || divergences), normed];
        all.extend([Arithmetic::F32, Arithmetic::Bf16].map(|arithmetic| decoded_once(device, arithmetic)));
        all.extend(rounded);
        all.extend(drawn(device));
        all
    };
    compare_to(ROUNDED, "tiny shapes", compute);
    let all = compute(&gpu().unwrap());
    let bits = all.iter().flat_map(|x| x.to_host().into_owned());
    let hash = bits.fold(0_u64, |hash, x| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(x.to_bits()));
    println!("bits {hash:016x}");
}

/// Runs [`tiny_shapes`] in a process whose kernels are looked at: whether it passed, and what it said.
fn looked_at(folder: &std::path::Path, variables: &[(&str, &str)]) -> (bool, String) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tiny_shapes", "--nocapture"])
        .env("LD_LIBRARY_PATH", folder)
        .env("RLT_CUDA", "real")
        .env("EMU_RACES", "1")
        .env(TINY, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), said.concat())
}

#[test]
fn no_order_of_threads_changes_bits_and_no_barrier_can_be_spared() {
    let folder = match rlt_cuda_emulator::libraries(rlt_cuda_emulator::Build::Checked) {
        Ok(folder) => folder,
        Err(why) => return println!("skipped: {why}"),
    };
    let list = std::env::temp_dir().join(format!("rlt-barriers-{}", std::process::id()));
    let mut bits = Vec::new();
    for order in ["0", "1", "2", "3"] {
        let (passed, said) =
            looked_at(&folder, &[("EMU_ORDER", order), ("EMU_PLACES", list.to_str().unwrap())]);
        assert!(passed, "order {order}: {said}");
        bits.extend(said.lines().filter_map(|line| Some(line.split_once("bits ")?.1.to_owned())));
    }
    assert!(bits.len() == 4 && bits.iter().all(|other| *other == bits[0]), "{bits:?}");
    let places = std::fs::read_to_string(&list).unwrap();
    std::fs::remove_file(&list).unwrap();
    let places: std::collections::BTreeSet<&str> = places.lines().collect();
    assert!(places.len() > 12, "{places:?}");
    let spared: Vec<_> = places
        .into_iter()
        .filter(|place| looked_at(&folder, &[("EMU_ORDER", "3"), ("EMU_WITHOUT", place)]).0)
        .collect();
    assert!(spared.is_empty(), "nobody misses the barriers at {spared:?}");
}
