//! Training and sampling with products in bf16: how far from f32 they are, and what they keep.
//!
//! The checkpoints of `../shared/parity` were made by transformers, their gradients by PyTorch in f32.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "says what was skipped and how close it came")]

mod common;

use std::convert::Infallible;

use common::parity_folder;
use rlt_engine::arithmetic::Arithmetic;
use rlt_model::batch::{Continuation, PackedBatch, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::generate::{GenerationRequest, SamplingParams, generate};
use rlt_model::parameters::slots;
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Gradients, Stop};

/// A prompt that three completions share, and a sequence on its own.
fn groups(vocab: usize) -> Vec<ScoringGroup> {
    let ids = |from: usize, n: usize| -> Vec<u32> {
        (0..n).map(|i| ((from * 31 + i * 17 + i * i) % (vocab - 3) + 3) as u32).collect()
    };
    let continuation = |ids: Vec<u32>| {
        let all = 0..ids.len();
        Continuation { scored: vec![all], ..Continuation::whole(ids) }
    };
    let continuations = (0..3).map(|c| continuation(ids(c, 20 + 9 * c)));
    let all_but_the_first = 1..70;
    vec![
        ScoringGroup { prefix: ids(7, 37).into(), continuations: continuations.collect() },
        ScoringGroup::single(ids(9, 70), vec![all_but_the_first]),
    ]
}

fn logprobs_and_gradients(decoder: &Decoder, groups: &[ScoringGroup]) -> (Vec<f32>, Gradients) {
    let batch = PackedBatch::new(groups);
    let mut grads = Gradients::zeros(decoder);
    let n = batch.targets.len() as f32;
    let gradient = |_, logprobs: &[f32]| Ok::<_, Infallible>(vec![-1.0 / n; logprobs.len()]);
    let logprobs = decoder.train_micro_batch(&batch, 1.0, Keep::Activations, &mut grads, gradient).unwrap();
    (logprobs, grads)
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn gradients_are_those_of_f32_up_to_the_rounding_of_bf16() {
    for name in ["qwen2_tied_f32", "qwen3_untied_f32_sharded", "llama3_untied_bf16"] {
        let Some(dir) = parity_folder(name) else { return };
        let exact = Decoder::load(&dir).unwrap();
        let rounded = Decoder::load(&dir).unwrap().in_arithmetic(Arithmetic::Bf16);
        let groups = groups(exact.config().vocab_size);
        let (logprobs, expected) = logprobs_and_gradients(&exact, &groups);
        let (again, grads) = logprobs_and_gradients(&rounded, &groups);
        let largest = logprobs.iter().zip(&again).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
        let mut worst = (0.0, String::new());
        for (slot, (ours, exact)) in
            slots(exact.config()).iter().zip(grads.tensors().into_iter().zip(expected.tensors()))
        {
            let (ours, exact) = (ours.to_host(), exact.to_host());
            let size = norm(exact.iter().copied());
            let relative = norm(ours.iter().zip(exact.iter()).map(|(a, b)| a - b)) / size.max(1e-5);
            if relative > worst.0 {
                worst = (relative, slot.parts[0].name.clone());
            }
        }
        println!("{name}: largest difference of a log-probability {largest:e}, of a gradient {worst:?}");
        assert!(largest > 1e-6, "{name}: nothing was rounded");
        assert!(largest < 0.05, "{name}: {largest}");
        assert!(worst.0 < 0.03, "{name}: {worst:?}");
    }
}

#[test]
fn a_model_kept_in_bf16_gives_the_bits_of_its_widened_copy() {
    let Some(dir) = parity_folder("llama3_untied_bf16") else { return };
    let of = |decoder: Decoder| {
        let decoder = decoder.in_arithmetic(Arithmetic::Bf16);
        let groups = groups(decoder.config().vocab_size);
        decoder.token_logprobs(&groups, 0.7, 64).unwrap()
    };
    assert_eq!(of(Decoder::load(&dir).unwrap()), of(Decoder::load_frozen(&dir).unwrap()));
}

#[test]
fn results_depend_neither_on_the_threads_nor_on_the_batch() {
    let Some(dir) = parity_folder("qwen3_untied_f32_sharded") else { return };
    let decoder = Decoder::load(&dir).unwrap().in_arithmetic(Arithmetic::Bf16);
    let groups = groups(decoder.config().vocab_size);
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (logprobs, grads) = logprobs_and_gradients(&decoder, &groups);
            let grads: Vec<u32> = grads
                .tensors()
                .iter()
                .flat_map(|t| t.to_host().iter().map(|v| v.to_bits()).collect::<Vec<_>>())
                .collect();
            (logprobs, grads)
        })
    };
    assert!(of(1) == of(3));
    let together = decoder.token_logprobs(&groups, 1.0, 1 << 20).unwrap();
    let apart: Vec<_> = groups
        .iter()
        .flat_map(|g| decoder.token_logprobs(std::slice::from_ref(g), 1.0, 1 << 20).unwrap())
        .collect();
    assert_eq!(together, apart);
}

#[test]
fn what_is_recorded_while_sampling_is_what_training_computes() {
    let Some(dir) = parity_folder("qwen2_tied_f32") else { return };
    let decoder = Decoder::load(&dir).unwrap().in_arithmetic(Arithmetic::Bf16);
    let vocab = ModelConfig::from_dir(&dir).unwrap().vocab_size;
    let prompt = groups(vocab)[0].prefix.clone();
    let params = SamplingParams {
        temperature: 0.7,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        max_new_tokens: 40,
        stop_token_ids: Vec::new(),
        max_running: 4,
    };
    let requests = [GenerationRequest { prompt: prompt.clone(), n: 4, stream: [0, 0] }];
    let groups_of = generate(&decoder, &requests, &params, 11, Stop::never(), &mut |_| ()).unwrap();
    let mut worst = 0.0_f32;
    for completion in &groups_of[0] {
        let all = 0..completion.ids.len();
        let continuation = Continuation { scored: vec![all], ..Continuation::whole(completion.ids.clone()) };
        let group = ScoringGroup { prefix: prompt.clone(), continuations: vec![continuation] };
        let again = decoder.token_logprobs(&[group], 0.7, 1 << 20).unwrap();
        for (a, b) in completion.logprobs.iter().zip(&again[0][0]) {
            worst = worst.max((a - b).abs());
        }
    }
    println!("largest difference of a log-probability {worst:e}");
    // Attention adds up in another order while decoding; rounding to bf16 afterwards makes that visible.
    assert!(worst < 0.03, "{worst}");
}
