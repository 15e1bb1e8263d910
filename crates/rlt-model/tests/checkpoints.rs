//! Checkpoints of every family and variant as transformers writes them: yarn, linear and llama3 rope, tied and
//! untied, one file and shards, f32, bf16 and f16, both spellings of `config.json`. `tests/parity/make_checkpoints.py`
//! made them, with transformers' logits.

#![expect(clippy::print_stdout, reason = "says how close it came")]

use std::path::{Path, PathBuf};

use rlt_engine::{Tensor, head};
use rlt_model::Stop;
use rlt_model::batch::{Continuation, PackedBatch, ScoringGroup};
use rlt_model::generate::{GenerationRequest, SamplingParams, generate};
use rlt_model::parameters::slots;
use rlt_model::training_pass::Keep;
use rlt_model::weights::{Dtype, Weights};
use rlt_model::{Decoder, Gradients};

/// Name, and the number format of its weights.
const CHECKPOINTS: [(&str, Dtype); 15] = [
    ("qwen2_tied_f32", Dtype::F32),
    ("qwen2_yarn_bf16", Dtype::Bf16),
    ("qwen3_tied_bf16_sharded", Dtype::Bf16),
    ("qwen3_yarn_f32", Dtype::F32),
    ("llama_linear_f32", Dtype::F32),
    ("llama3_bf16_sharded", Dtype::Bf16),
    ("llama3_tied_f32", Dtype::F32),
    ("llama_bias_f32", Dtype::F32),
    ("qwen3_bias_bf16", Dtype::Bf16),
    ("smollm_tied_f16", Dtype::F16),
    ("mistral_bf16", Dtype::Bf16),
    ("mistral_window_f32", Dtype::F32),
    ("qwen2_window_f32", Dtype::F32),
    ("gemma3_window_f32", Dtype::F32),
    ("gemma3_bf16", Dtype::Bf16),
];

/// Those with transformers' gradients: biases, windows.
const WITH_GRADIENTS: [&str; 4] =
    ["llama_bias_f32", "mistral_window_f32", "qwen2_window_f32", "gemma3_window_f32"];

/// Ways to keep what the backward pass needs.
const KEPT: [Keep; 2] = [Keep::Activations, Keep::BlockInputs];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

struct Golden {
    ids: Vec<u32>,
    logits: Vec<f32>,
    /// Of f64 arithmetic throughout.
    logits_f64: Vec<f64>,
    /// Of transformers' own bf16 arithmetic.
    logits_bf16: Option<Vec<f32>>,
}

fn golden(name: &str) -> Golden {
    let bytes = std::fs::read(folder(name).join("golden.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Option<Vec<f32>> {
        let view = tensors.tensor(name).ok()?;
        Some(view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let f64s = tensors.tensor("logits_f64").unwrap();
    let ids = tensors.tensor("input_ids").unwrap();
    Golden {
        ids: ids.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect(),
        logits: floats("logits").unwrap(),
        logits_f64: f64s.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        logits_bf16: floats("logits_bf16"),
    }
}

/// Logits of every token (T x V).
fn logits(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    // One row more than the tokens that are scored, so that the last logits are there too.
    let longer = [ids, &[0]].concat();
    let scored = 1..longer.len();
    let batch = PackedBatch::new(&[ScoringGroup::single(longer, vec![scored])]);
    let logits = head::logits(&decoder.hidden_states(&batch), decoder.parameters().head_weight());
    logits.to_host()[..ids.len() * decoder.config().vocab_size].to_vec()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |worst, (a, b)| (a - b).abs().max(worst))
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_host().iter().map(|v| v.to_bits()).collect()
}

fn equal_weights(a: &Decoder, b: &Decoder) -> bool {
    let (a, b) = (a.parameters().tensors(), b.parameters().tensors());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| bits(a) == bits(b))
}

#[test]
fn logits_equal_those_of_transformers() {
    for (name, _) in CHECKPOINTS {
        let golden = golden(name);
        let ours = logits(&Decoder::load_frozen(&folder(name)).unwrap(), &golden.ids);
        let worst = largest_difference(&ours, &golden.logits);
        println!("{name}: largest difference of a logit {worst:e}");
        assert!(worst < 1e-4, "{name}: {worst}");
        // Rounding is all that is left: measured against f64 arithmetic, ours is of the size of transformers' own.
        let error = |logits: &[f32]| {
            let errors = logits.iter().zip(&golden.logits_f64).map(|(&a, b)| (f64::from(a) - b).abs());
            errors.fold(0.0, f64::max)
        };
        let [ours, theirs] = [&ours, &golden.logits].map(|logits| error(logits));
        println!("{name}: error against f64 {ours:.1e}; of transformers in f32 {theirs:.1e}");
        assert!(ours < 2.0 * theirs, "{name}: {ours:e} {theirs:e}");
        if let Some(theirs) = &golden.logits_bf16 {
            // A bf16 checkpoint is held in bf16, exactly, and computed with in f32; transformers rounds the result
            // of every operation to bf16 as well.
            let theirs = error(theirs);
            println!("{name}: of transformers in bf16 {theirs:.1e}");
            assert!(ours < theirs / 1000.0, "{name}: {ours:e} {theirs:e}");
        }
    }
}

#[test]
fn a_frozen_model_keeps_bf16_and_computes_the_bits_of_the_widened_one() {
    for (name, dtype) in CHECKPOINTS {
        let (wide, frozen) =
            (Decoder::load(&folder(name)).unwrap(), Decoder::load_frozen(&folder(name)).unwrap());
        for (wide, frozen) in wide.parameters().tensors().iter().zip(frozen.parameters().tensors()) {
            let is_matrix = wide.rows() > 1;
            assert!(!wide.is_bf16() && frozen.is_bf16() == (is_matrix && dtype == Dtype::Bf16), "{name}");
        }
        assert!(equal_weights(&wide, &frozen), "{name}");
        let mut refrozen = Decoder::load(&folder(name)).unwrap();
        refrozen.parameters_mut().freeze();
        for (a, b) in refrozen.parameters().tensors().iter().zip(frozen.parameters().tensors()) {
            // A matrix of f16 that bf16 holds exactly does not occur in these random ones.
            assert!(a.is_bf16() == b.is_bf16() && bits(a) == bits(b), "{name}");
        }
        let ids = golden(name).ids;
        assert!(logits(&wide, &ids) == logits(&frozen, &ids), "{name}");

        let params = SamplingParams {
            temperature: 0.9,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: 20,
            stop_token_ids: vec![],
            max_running: 5,
        };
        let request = [GenerationRequest { prompt: ids[..30].into(), n: 7, stream: [3, 1] }];
        let [a, b] =
            [&wide, &frozen].map(|d| generate(d, &request, &params, 5, Stop::never(), &mut |_| ()).unwrap());
        assert!(a == b, "{name}: sampled tokens and their log-probabilities");
    }
}

/// Plain families' gradients are compared in `parity.rs`.
#[test]
fn gradients_equal_those_of_pytorch() {
    for (name, keep) in WITH_GRADIENTS.into_iter().flat_map(|name| KEPT.map(|keep| (name, keep))) {
        let (decoder, ids) = (Decoder::load(&folder(name)).unwrap(), golden(name).ids);
        let n = ids.len() - 1;
        let scored = 1..ids.len();
        let batch = PackedBatch::new(&[ScoringGroup::single(ids, vec![scored])]);
        let mut grads = Gradients::zeros(&decoder);
        decoder
            .train_micro_batch(&batch, 1.0, keep, &mut grads, |_, logprobs| {
                Ok::<_, std::convert::Infallible>(vec![-1.0 / n as f32; logprobs.len()])
            })
            .unwrap();
        let expected = Weights::open_file(&folder(name).join("golden.safetensors")).unwrap();
        let mut worst_of_all = 0.0_f32;
        for (slot, grad) in slots(decoder.config()).iter().zip(grads.tensors()) {
            let parts = slot.parts.iter();
            let parts =
                parts.map(|part| expected.read_f32(&format!("grad.{}", part.name), &part.shape).unwrap());
            let parts: Vec<f32> = parts.flatten().collect();
            let largest = parts.iter().fold(0.0_f32, |m, x| x.abs().max(m));
            let worst = largest_difference(&grad.to_host(), &parts);
            // The softmax does not notice a key's bias, so that its gradient is zero but for rounding.
            assert!(
                worst < 1e-5 * largest.max(1.0),
                "{name}, {}: {worst:e} of {largest}",
                slot.parts[0].name
            );
            worst_of_all = worst_of_all.max(worst / largest.max(1.0));
        }
        println!("{name}: largest difference of a gradient {worst_of_all:e}");
    }
}

/// Sequences that share a prefix of which a part has left the windows: as each alone, forward and backward.
#[test]
fn a_shared_prefix_changes_neither_logprobs_nor_gradients() {
    for name in WITH_GRADIENTS {
        let (decoder, ids) = (Decoder::load(&folder(name)).unwrap(), golden(name).ids);
        let (prefix, rest) = ids.split_at(25);
        let continuations = [rest.to_vec(), rest[3..20].to_vec(), rest[7..9].to_vec()];
        let shared = ScoringGroup {
            prefix: prefix.into(),
            continuations: continuations.iter().cloned().map(Continuation::whole).collect::<Vec<_>>(),
        };
        let apart = continuations.iter().map(|own| {
            let scored = prefix.len()..prefix.len() + own.len();
            ScoringGroup::single([prefix, own].concat(), vec![scored])
        });
        let run = |groups: &[ScoringGroup]| {
            let batch = PackedBatch::new(groups);
            let mut grads = Gradients::zeros(&decoder);
            let weights: Vec<f32> = (0..batch.targets.len()).map(|i| (i as f32 * 0.37).sin()).collect();
            let logprobs = decoder
                .train_micro_batch(&batch, 0.7, Keep::Activations, &mut grads, |first, logprobs| {
                    Ok::<_, std::convert::Infallible>(weights[first..first + logprobs.len()].to_vec())
                })
                .unwrap();
            (logprobs, grads)
        };
        let (shared, apart) = (run(&[shared]), run(&apart.collect::<Vec<_>>()));
        let worst = largest_difference(&shared.0, &apart.0);
        assert!(worst < 1e-5, "{name}: {worst}");
        for (a, b) in shared.1.tensors().iter().zip(apart.1.tensors()) {
            let largest = b.to_host().iter().fold(1.0_f32, |m, x| x.abs().max(m));
            let worst = largest_difference(&a.to_host(), &b.to_host());
            assert!(worst < 1e-4 * largest, "{name}: {worst} of {largest}");
        }
    }
}

/// Sampled over pages of keys and values, several completions of each prompt, and scored again in packed batches.
#[test]
fn sampled_logprobs_are_those_of_teacher_forcing() {
    for name in WITH_GRADIENTS {
        let decoder = Decoder::load(&folder(name)).unwrap();
        let ids = golden(name).ids;
        let params = SamplingParams {
            temperature: 0.8,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: 40,
            stop_token_ids: vec![],
            max_running: 4,
        };
        let requests =
            [5, 17].map(|n| GenerationRequest { prompt: ids[..n].into(), n: 3, stream: [n as u64, 0] });
        let sampled = generate(&decoder, &requests, &params, 5, Stop::never(), &mut |_| ()).unwrap();
        let groups: Vec<_> = requests
            .iter()
            .zip(&sampled)
            .map(|(request, completions)| ScoringGroup {
                prefix: request.prompt.clone(),
                continuations: completions.iter().map(|c| Continuation::whole(c.ids.clone())).collect(),
            })
            .collect();
        let scored = decoder.token_logprobs(&groups, 0.8, 1000).unwrap();
        for (completion, scored) in sampled.iter().flatten().zip(scored.iter().flatten()) {
            let worst = largest_difference(&completion.logprobs, scored);
            assert!(worst < 1e-4, "{name}: {worst}");
        }
    }
}

/// Leaves the folders where `tests/parity/load_saved.py` can check that transformers loads them.
#[test]
fn a_saved_checkpoint_is_the_same_model() {
    let saved_root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("saved_checkpoints");
    for (name, dtype) in CHECKPOINTS {
        let (wide, frozen) =
            (Decoder::load(&folder(name)).unwrap(), Decoder::load_frozen(&folder(name)).unwrap());
        let dir = saved_root.join(name);
        // From either kind of memory, the same file, byte for byte; in the number format it came in, nothing is lost.
        let mut files = Vec::new();
        for decoder in [&wide, &frozen] {
            decoder.save_as(&dir, dtype).unwrap();
            files.push(std::fs::read(dir.join("model.safetensors")).unwrap());
        }
        assert!(files[0] == files[1], "{name}");
        let again = Decoder::load(&dir).unwrap();
        assert_eq!(again.config(), wide.config(), "{name}");
        assert!(equal_weights(&again, &wide), "{name}");
        let weights = Weights::open(&dir).unwrap();
        assert!(weights.names().iter().all(|tensor| weights.dtype(tensor).unwrap() == dtype), "{name}");

        let ids = golden(name).ids;
        let rows: Vec<_> =
            logits(&again, &ids).chunks(again.config().vocab_size).map(<[f32]>::to_vec).collect();
        let row = serde_json::json!({ "ids": ids, "logits": rows });
        std::fs::write(dir.join("logits.jsonl"), format!("{row}\n")).unwrap();
    }
}

#[test]
fn weights_that_the_configuration_has_no_place_for_are_refused_by_name() {
    // A Qwen2 checkpoint whose configuration says Llama: its biases would be left out.
    let dir = tempfile::tempdir().unwrap();
    let from = folder("qwen2_tied_f32");
    std::fs::copy(from.join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(from.join("config.json")).unwrap();
    let config = config.replace("qwen2", "llama").replace("Qwen2ForCausalLM", "LlamaForCausalLM");
    std::fs::write(dir.path().join("config.json"), &config).unwrap();
    let message = Decoder::load(dir.path()).unwrap_err().to_string();
    assert!(message.contains("holds model.layers.0.self_attn.k_proj.bias"), "{message}");

    // A configuration of one layer for a file of two.
    let config = std::fs::read_to_string(from.join("config.json")).unwrap();
    let one = config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    assert_ne!(config, one);
    std::fs::write(dir.path().join("config.json"), one).unwrap();
    let message = Decoder::load_frozen(dir.path()).unwrap_err().to_string();
    assert!(message.contains("holds model.layers.1."), "{message}");
}
