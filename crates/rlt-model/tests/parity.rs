//! Logits, loss and gradients against PyTorch (transformers), for checkpoints of each family in
//! `../shared/parity`; made by transformers with random weights, as its README says.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "says what was skipped and how close it came")]

mod common;

use std::path::Path;

use common::parity_folder;
use rlt_engine::{Tensor, head};
use rlt_model::batch::{PackedBatch, ScoringGroup};
use rlt_model::parameters::slots;
use rlt_model::training_pass::Keep;
use rlt_model::weights::Weights;
use rlt_model::{Decoder, Gradients};

const FAMILIES: [&str; 3] = ["qwen2_tied_f32", "qwen3_untied_f32_sharded", "llama3_untied_bf16"];

/// The two sequences of the golden file, without their padding.
fn sequences(dir: &Path) -> Vec<Vec<u32>> {
    let golden = safetensors_i64(dir, "input_ids");
    let mask = safetensors_i64(dir, "attention_mask");
    let width = golden.len() / 2;
    (0..2)
        .map(|s| (s * width..(s + 1) * width).filter(|&i| mask[i] == 1).map(|i| golden[i] as u32).collect())
        .collect()
}

fn safetensors_i64(dir: &Path, name: &str) -> Vec<i64> {
    let bytes = std::fs::read(dir.join("golden.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn packed(sequences: &[Vec<u32>]) -> (PackedBatch, Vec<ScoringGroup>) {
    let groups: Vec<_> = sequences
        .iter()
        .map(|ids| {
            let scored = 1..ids.len();
            ScoringGroup::single(ids.clone(), vec![scored])
        })
        .collect();
    (PackedBatch::new(&groups), groups)
}

#[test]
fn logits_equal_those_of_transformers() {
    for name in FAMILIES {
        let Some(dir) = parity_folder(name) else { return };
        let decoder = Decoder::load(&dir).unwrap();
        let golden = Weights::open_file(&dir.join("golden.safetensors")).unwrap();
        let shape = golden.shape("logits").unwrap().to_vec();
        let expected = golden.read_f32("logits", &shape).unwrap();
        let (width, vocab) = (shape[1], shape[2]);
        let mut worst = 0.0_f32;
        for (s, ids) in sequences(&dir).iter().enumerate() {
            // One row more than the tokens that are scored, so that the last logits are there too.
            let mut longer = ids.clone();
            longer.push(0);
            let (batch, _) = packed(&[longer]);
            let logits = head::logits(&decoder.hidden_states(&batch), decoder.parameters().head_weight());
            let expected = &expected[s * width * vocab..][..ids.len() * vocab];
            for (a, b) in logits.to_host().iter().zip(expected) {
                worst = worst.max((a - b).abs());
            }
        }
        println!("{name}: largest difference of a logit {worst:e}");
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

#[test]
fn loss_and_gradients_equal_those_of_pytorch() {
    for name in FAMILIES {
        let Some(dir) = parity_folder(name) else { return };
        let decoder = Decoder::load(&dir).unwrap();
        let golden: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.join("golden.json")).unwrap()).unwrap();
        let (batch, _) = packed(&sequences(&dir));
        let n = batch.targets.len();
        assert_eq!(n as u64, golden["n_targets"].as_u64().unwrap());
        for keep in [Keep::Activations, Keep::BlockInputs] {
            let mut grads = Gradients::zeros(&decoder);
            let logprobs = decoder
                .train_micro_batch(&batch, 1.0, keep, &mut grads, |_, logprobs| {
                    Ok::<_, std::convert::Infallible>(vec![-1.0 / n as f32; logprobs.len()])
                })
                .unwrap();
            let loss = -logprobs.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            assert!((loss - golden["loss"].as_f64().unwrap()).abs() < 1e-5, "{name}: loss {loss}");
            compare_gradients(name, &dir, &decoder, &grads, &golden);
        }
    }
}

fn compare_gradients(
    name: &str,
    dir: &Path,
    decoder: &Decoder,
    grads: &Gradients,
    golden: &serde_json::Value,
) {
    let expected = Weights::open_file(&dir.join("grads.safetensors")).unwrap();
    let mut worst_norm = 0.0_f64;
    for (slot, tensor) in slots(decoder.config()).iter().zip(grads.tensors()) {
        let host = tensor.to_host();
        let mut at = 0;
        for part in &slot.parts {
            let len: usize = part.shape.iter().product();
            let got = &host[at..at + len];
            at += len;
            let expected = expected.read_f32(&part.name, &part.shape).unwrap();
            let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let difference: Vec<f32> = got.iter().zip(&expected).map(|(a, b)| a - b).collect();
            let relative = norm(&difference) / norm(&expected).max(1e-12);
            // The key bias has no true gradient beyond rounding where it cancels in the softmax.
            assert!(
                relative < 1e-3 || norm(&difference) < 1e-6,
                "{name}, {}: relative difference {relative:e}",
                part.name
            );
            let wanted = golden["grad_norm"][&part.name].as_f64().unwrap();
            worst_norm = worst_norm.max((norm(got) - wanted).abs() / wanted);
        }
    }
    println!("{name}: largest relative difference of a gradient norm {worst_norm:e}");
    assert!(worst_norm < 1e-3, "{name}: {worst_norm}");
}

#[test]
fn a_shared_prefix_changes_neither_logprobs_nor_gradients() {
    let Some(dir) = parity_folder("qwen3_untied_f32_sharded") else { return };
    let decoder = Decoder::load(&dir).unwrap();
    let ids = &sequences(&dir)[0];
    let (prefix, rest) = ids.split_at(40);
    let continuations: Vec<Vec<u32>> = vec![rest.to_vec(), rest[3..20].to_vec(), rest[7..9].to_vec()];
    let shared = ScoringGroup {
        prefix: prefix.into(),
        continuations: continuations
            .iter()
            .map(|c| rlt_model::batch::Continuation::whole(c.clone()))
            .collect(),
    };
    let apart: Vec<ScoringGroup> = continuations
        .iter()
        .map(|c| {
            let scored = prefix.len()..prefix.len() + c.len();
            ScoringGroup::single([prefix, c].concat(), vec![scored])
        })
        .collect();
    let run = |batch: &PackedBatch| -> (Vec<f32>, Gradients) {
        let mut grads = Gradients::zeros(&decoder);
        let weights: Vec<f32> = (0..batch.targets.len()).map(|i| (i as f32 * 0.37).sin()).collect();
        let logprobs = decoder
            .train_micro_batch(batch, 0.7, Keep::Activations, &mut grads, |first, logprobs| {
                Ok::<_, std::convert::Infallible>(weights[first..first + logprobs.len()].to_vec())
            })
            .unwrap();
        (logprobs, grads)
    };
    let (logprobs, grads) = run(&PackedBatch::new(std::iter::once(&shared)));
    let (logprobs_apart, grads_apart) = run(&PackedBatch::new(&apart));
    for (a, b) in logprobs.iter().zip(&logprobs_apart) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    for (a, b) in grads.tensors().iter().zip(grads_apart.tensors()) {
        assert!(largest_difference(a, b) < 1e-4);
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    a.to_host().iter().zip(b.to_host().iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn results_do_not_depend_on_threads_or_batch_order_bit_for_bit() {
    let Some(dir) = parity_folder("qwen2_tied_f32") else { return };
    let decoder = Decoder::load(&dir).unwrap();
    let ids = sequences(&dir);
    let many: Vec<Vec<u32>> =
        (0..9).map(|i| ids[i % 2].iter().skip(i).map(|t| (t + i as u32 * 7) % 512).collect()).collect();
    let run = |sequences: &[Vec<u32>], threads: usize| -> (Vec<f32>, Gradients) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (batch, _) = packed(sequences);
            let mut grads = Gradients::zeros(&decoder);
            let logprobs = decoder
                .train_micro_batch(&batch, 0.7, Keep::Activations, &mut grads, |_, logprobs| {
                    Ok::<_, std::convert::Infallible>(logprobs.iter().map(|l| l * 0.01).collect())
                })
                .unwrap();
            (logprobs, grads)
        })
    };
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let (logprobs, grads) = run(&many, 1);
    for threads in [2, 3, 5] {
        let (logprobs_n, grads_n) = run(&many, threads);
        assert!(bits(&logprobs) == bits(&logprobs_n), "{threads} threads: log-probabilities");
        for (a, b) in grads.tensors().iter().zip(grads_n.tensors()) {
            assert!(bits(&a.to_host()) == bits(&b.to_host()), "{threads} threads: gradients");
        }
    }
    let reversed: Vec<Vec<u32>> = many.iter().rev().cloned().collect();
    let (logprobs_reversed, _) = run(&reversed, 2);
    let mut at = logprobs.len();
    let mut from = 0;
    for sequence in &reversed {
        let n = sequence.len() - 1;
        at -= n;
        assert!(bits(&logprobs[at..at + n]) == bits(&logprobs_reversed[from..from + n]), "batch order");
        from += n;
    }
    let (alone, _) = run(&many[..1], 1);
    assert!(bits(&alone) == bits(&logprobs[..alone.len()]), "a sequence alone");
}
