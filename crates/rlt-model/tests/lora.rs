//! LoRA: an adapted decoder is the merged one, its gradients are those of the merged weights by the chain rule,
//! and its folder is PEFT's.

mod made_up;

use std::convert::Infallible;
use std::path::Path;

use rlt_engine::Tensor;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::matmul::{Output, matmul_nn, matmul_nt};
use rlt_engine::random::RandomStream;
use rlt_engine::row_blocks::block_rows;
use rlt_model::Stop;
use rlt_model::adapter::{Adapter, LoraScaling, LoraSettings, Pattern, Target, adapter_slots};
use rlt_model::adapter_folder::AdapterConfig;
use rlt_model::batch::{Continuation, PackedBatch, ScoringGroup};
use rlt_model::config::{Family, ModelConfig};
use rlt_model::generate::{GenerationRequest, SamplingParams, generate};
use rlt_model::parameters::{BlockWeight, slots};
use rlt_model::training_pass::Keep;
use rlt_model::weights::{Dtype, TensorView};
use rlt_model::{Decoder, Gradients};

const FAMILIES: [Family; 4] = [Family::Qwen2, Family::Qwen3, Family::Llama, Family::Gemma3];

fn config(family: Family) -> ModelConfig {
    made_up::config(family, 90, 12, 200)
}

fn base(family: Family) -> Decoder {
    let mut decoder = Decoder::random(&config(family), 3);
    for tensor in decoder.parameters_mut().tensors_mut().into_iter().filter(|tensor| tensor.rows() > 1) {
        let loud = tensor.to_host().iter().map(|v| v * 5.0).collect();
        *tensor = Tensor::from_vec(tensor.rows(), tensor.cols(), loud);
    }
    decoder
}

fn settings(targets: &[Target]) -> LoraSettings {
    LoraSettings::new(3, 6.0, targets.to_vec())
}

/// An adapter as after some training: no tensor of it is zero.
fn trained(config: &ModelConfig, settings: &LoraSettings) -> Adapter {
    let stream = RandomStream::new(11, "trained adapter");
    let mut index = 0;
    let made: Result<_, Infallible> = Adapter::build(config, settings, |slot| {
        index += 1;
        let data = stream.normals([index, 0, 0], slot.rows * slot.cols);
        Ok(Tensor::from_vec(slot.rows, slot.cols, data.into_iter().map(|v| 0.1 * v).collect()))
    });
    made.unwrap_or_else(|never| match never {})
}

fn adapted(family: Family, targets: &[Target]) -> Decoder {
    let settings = settings(targets);
    base(family).with_adapter(trained(&config(family), &settings))
}

/// The same model with its adapter merged, by way of its folder.
fn merged(decoder: &Decoder) -> Decoder {
    let dir = tempfile::tempdir().unwrap();
    decoder.save(dir.path()).unwrap();
    Decoder::load(dir.path()).unwrap()
}

fn groups() -> Vec<ScoringGroup> {
    let ids = |n: u32, factor: u32| -> Vec<u32> { (0..n).map(|i| (i * factor + 7) % 90).collect() };
    let continuations = vec![Continuation::whole(ids(19, 11)), Continuation::whole(ids(6, 13))];
    let counted = 3..31;
    vec![
        ScoringGroup { prefix: ids(13, 5).into(), continuations },
        ScoringGroup::single(ids(31, 17), vec![counted]),
    ]
}

fn flat(logprobs: Vec<Vec<Vec<f32>>>) -> Vec<f32> {
    logprobs.into_iter().flatten().flatten().collect()
}

fn gradients(decoder: &Decoder, keep: Keep) -> Gradients {
    let mut grads = Gradients::zeros(decoder);
    let batch = PackedBatch::new(&groups());
    let n = batch.targets.len() as f32;
    let derivative = |first: usize, logprobs: &[f32]| {
        Ok::<_, Infallible>((0..logprobs.len()).map(|i| ((first + i) as f32 * 0.7).sin() / n).collect())
    };
    decoder.train_micro_batch(&batch, 0.8, keep, &mut grads, derivative).unwrap();
    grads
}

const SOME: [Target; 4] = [Target::Query, Target::Value, Target::Up, Target::Down];

#[test]
fn log_probabilities_are_those_of_the_merged_model() {
    for family in FAMILIES {
        for targets in [&SOME[..], &Target::ALL] {
            let decoder = adapted(family, targets);
            let ours = flat(decoder.token_logprobs(&groups(), 0.8, 1000).unwrap());
            let expected = flat(merged(&decoder).token_logprobs(&groups(), 0.8, 1000).unwrap());
            let without = flat(decoder.base().token_logprobs(&groups(), 0.8, 1000).unwrap());
            for (a, b) in ours.iter().zip(&expected) {
                assert!((a - b).abs() < 2e-5, "{family:?}: {a} {b}");
            }
            assert_eq!(without, flat(base(family).token_logprobs(&groups(), 0.8, 1000).unwrap()));
            assert!(ours.iter().zip(&without).any(|(a, b)| (a - b).abs() > 0.01));
        }
    }
}

/// Reading goes through the blocks some rows at a time, training through all of them at once.
#[test]
fn log_probabilities_are_those_of_the_training_pass_bit_for_bit() {
    for (family, arithmetic) in FAMILIES.into_iter().zip([Arithmetic::F32, Arithmetic::Bf16].repeat(2)) {
        for decoder in [base(family), adapted(family, &SOME)] {
            let decoder = decoder.in_arithmetic(arithmetic);
            let groups: Vec<ScoringGroup> = (0..7).flat_map(|_| groups()).collect();
            let batch = PackedBatch::new(&groups);
            assert!(batch.n_rows() > 3 * block_rows(batch.n_rows()), "several blocks");
            let nothing = |_, logprobs: &[f32]| Ok::<_, Infallible>(vec![0.0; logprobs.len()]);
            let mut grads = Gradients::zeros(&decoder);
            let trained =
                decoder.train_micro_batch(&batch, 0.8, Keep::Activations, &mut grads, nothing).unwrap();
            assert_eq!(decoder.logprobs(&batch, 0.8), trained, "{family:?}, {arithmetic:?}");
        }
    }
}

/// With `W' = W + s B A`: `dA = s B^T dW'` and `dB = s dW' A^T`, dW' being the gradient of the merged weights.
#[test]
fn gradients_are_those_of_the_merged_weights_by_the_chain_rule() {
    for family in FAMILIES {
        for (targets, keep) in [(&SOME[..], Keep::Activations), (&Target::ALL, Keep::BlockInputs)] {
            let decoder = adapted(family, targets);
            let ours = gradients(&decoder, keep);
            let Gradients::Weights(of_merged) = gradients(&merged(&decoder), Keep::Activations) else {
                panic!("a merged model has no adapter");
            };
            // The rows of each projection's gradient, by its name in files.
            let mut by_name = std::collections::HashMap::new();
            for (slot, tensor) in slots(decoder.config()).iter().zip(of_merged.tensors()) {
                let mut first = 0;
                for part in slot.parts.iter().filter(|_| slot.decay) {
                    let rows: Vec<usize> = (first..first + part.shape[0]).collect();
                    first += part.shape[0];
                    by_name.insert(part.name.clone(), tensor.gather_rows(&rows));
                }
            }
            let adapter = decoder.adapter().unwrap();
            let names: Vec<String> = adapter_slots(decoder.config(), adapter.settings())
                .into_iter()
                .map(|slot| slot.parts[0].name.clone())
                .collect();
            let pairs = adapter
                .tensors()
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect::<Vec<_>>();
            for (index, ((a, b), grads)) in pairs.iter().zip(ours.tensors().chunks(2)).enumerate() {
                let name = names[2 * index].replace("base_model.model.", "").replace(".lora_A", "");
                let dw = &by_name[&name];
                let mut db = Tensor::zeros(b.rows(), b.cols());
                matmul_nt(dw, a, &mut db, Output::Replace);
                let mut da = Tensor::zeros(a.rows(), a.cols());
                matmul_nn(&transposed(b), dw, &mut da, Output::Replace);
                for (what, ours, expected) in [("A", grads[0], da), ("B", grads[1], db)] {
                    // Alpha / rank is 2.
                    let expected: Vec<f32> = expected.to_host().iter().map(|v| 2.0 * v).collect();
                    let largest = expected.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
                    assert!(largest > 0.0, "{name}, {what}");
                    for (ours, expected) in ours.to_host().iter().zip(&expected) {
                        assert!(
                            (ours - expected).abs() <= 1e-5 * largest,
                            "{name}, {what}: {ours} {expected}"
                        );
                    }
                }
            }
        }
    }
}

fn transposed(x: &Tensor) -> Tensor {
    let host = x.to_host();
    let data = (0..x.cols()).flat_map(|c| (0..x.rows()).map(move |r| (r, c)));
    let data = data.map(|(r, c)| host[r * x.cols() + c]).collect();
    Tensor::from_vec(x.cols(), x.rows(), data)
}

#[test]
fn a_new_adapter_changes_nothing_and_has_a_gradient() {
    let settings = settings(&Target::ALL);
    let decoder = base(Family::Qwen3).with_adapter(Adapter::random(&config(Family::Qwen3), &settings, 1));
    let ours = decoder.token_logprobs(&groups(), 1.0, 1000).unwrap();
    assert_eq!(ours, base(Family::Qwen3).token_logprobs(&groups(), 1.0, 1000).unwrap());
    let gradients = gradients(&decoder, Keep::Activations);
    for pair in gradients.tensors().chunks(2) {
        assert!(pair[0].to_host().iter().all(|v| *v == 0.0), "A's gradient is zero while B is");
        assert!(pair[1].to_host().iter().any(|v| *v != 0.0));
    }
}

#[test]
fn what_is_sampled_is_what_training_computes() {
    let decoder = adapted(Family::Qwen2, &Target::ALL);
    let prompt: Vec<u32> = (0..17).map(|i| (i * 7 + 3) % 90).collect();
    let requests = [GenerationRequest { prompt: prompt.clone().into(), n: 5, stream: [0, 0] }];
    let params = SamplingParams {
        temperature: 0.8,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        max_new_tokens: 40,
        stop_token_ids: vec![0],
        max_running: 3,
    };
    let completions =
        generate(&decoder, &requests, &params, 9, Stop::never(), &mut |_| ()).unwrap().remove(0);
    let continuations = completions.iter().map(|c| Continuation::whole(c.ids.clone())).collect();
    let groups = [ScoringGroup { prefix: prompt.into(), continuations }];
    let trained = flat(decoder.token_logprobs(&groups, 0.8, 1000).unwrap());
    let sampled: Vec<f32> = completions.into_iter().flat_map(|c| c.logprobs).collect();
    assert_eq!(sampled.len(), trained.len());
    for (a, b) in sampled.iter().zip(&trained) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn a_bf16_base_stays_bf16_and_gives_the_bits_of_its_widened_copy() {
    let dir = tempfile::tempdir().unwrap();
    base(Family::Qwen2).save_as(dir.path(), Dtype::Bf16).unwrap();
    let settings = settings(&Target::ALL);
    let with = |decoder: Decoder| {
        let adapter = trained(decoder.config(), &settings);
        decoder.with_adapter(adapter)
    };
    let (frozen, wide) =
        (with(Decoder::load_frozen(dir.path()).unwrap()), with(Decoder::load(dir.path()).unwrap()));
    assert!(frozen.parameters().blocks[0][BlockWeight::Down].is_bf16());
    let logprobs = |decoder: &Decoder| flat(decoder.token_logprobs(&groups(), 0.8, 1000).unwrap());
    assert_eq!(logprobs(&frozen), logprobs(&wide));
    let (frozen, wide) = (gradients(&frozen, Keep::BlockInputs), gradients(&wide, Keep::Activations));
    for (a, b) in frozen.tensors().iter().zip(wide.tensors()) {
        let largest = b.to_host().iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
        for (a, b) in a.to_host().iter().zip(b.to_host().iter()) {
            assert!((a - b).abs() <= 1e-5 * largest, "{a} {b}");
        }
    }
}

#[test]
fn a_folder_holds_all_of_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let (base_dir, adapter_dir) = (dir.path().join("base"), dir.path().join("adapter"));
    let decoder = adapted(Family::Llama, &SOME);
    decoder.base().save(&base_dir).unwrap();
    let adapter = decoder.adapter().unwrap();
    adapter.save(&adapter_dir, decoder.config(), &base_dir).unwrap();
    // The folder of an adapter is a model that is only read.
    let loaded = Decoder::load_frozen(&adapter_dir).unwrap();
    assert_eq!(loaded.adapter().unwrap().settings(), adapter.settings());
    for (a, b) in adapter.tensors().iter().zip(loaded.adapter().unwrap().tensors()) {
        assert_eq!(a.to_host(), b.to_host());
    }
    let logprobs = |decoder: &Decoder| flat(decoder.token_logprobs(&groups(), 0.8, 1000).unwrap());
    assert_eq!(logprobs(&decoder), logprobs(&loaded));

    std::fs::remove_dir_all(&base_dir).unwrap();
    let message = Decoder::load_frozen(&adapter_dir).unwrap_err().to_string();
    assert!(message.contains("set base_model_name_or_path"), "{message}");
}

/// As [`merged`], with the sums written out: W + s B A for every term.
#[test]
fn ranks_and_weights_by_pattern_and_rank_stabilised_are_as_in_peft() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(Family::Qwen2);
    let mut settings = settings(&[Target::Query, Target::Down]);
    settings.scaling = LoraScaling::ByRootOfRank;
    settings.rank_pattern = vec![(Pattern::new("layers.1.self_attn.q_proj").unwrap(), 4)];
    settings.alpha_pattern = vec![(Pattern::new("down_proj").unwrap(), 2.5)];
    let adapter = trained(&config, &settings);
    let shapes: Vec<_> = adapter.tensors().iter().map(|tensor| (tensor.rows(), tensor.cols())).collect();
    assert_eq!(shapes[0], (3, 48));
    assert_eq!(shapes[4], (4, 48));

    // Through the file, as PEFT's own keys.
    adapter.save(dir.path(), &config, Path::new("base")).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(json["use_rslora"], true);
    assert_eq!(json["rank_pattern"], serde_json::json!({ "layers.1.self_attn.q_proj": 4 }));
    assert_eq!(json["alpha_pattern"], serde_json::json!({ "down_proj": 2.5 }));
    let loaded = Adapter::load(dir.path(), &config).unwrap();
    assert_eq!(loaded.settings(), &settings);

    let plain = base(Family::Qwen2);
    let merged = merged(&base(Family::Qwen2).with_adapter(loaded));
    let factors = [[6.0 / 3.0_f32.sqrt(), 2.5 / 3.0_f32.sqrt()], [6.0 / 2.0, 2.5 / 3.0_f32.sqrt()]];
    let tensors = adapter.tensors();
    for layer in 0..2 {
        let block = |decoder: &Decoder| {
            let block = &decoder.parameters().blocks[layer];
            [BlockWeight::Qkv, BlockWeight::Down].map(|weight| block[weight].to_host().into_owned())
        };
        for (place, (before, after)) in block(&plain).iter().zip(block(&merged)).enumerate() {
            let [a, b] = [0, 1].map(|i| tensors[4 * layer + 2 * place + i]);
            let (rank, k) = (a.rows(), a.cols());
            let (a, b) = (a.to_host(), b.to_host());
            for row in 0..b.len() / rank {
                for column in 0..k {
                    let term: f32 = (0..rank).map(|r| b[row * rank + r] * a[r * k + column]).sum();
                    let expected = before[row * k + column] + factors[layer][place] * term;
                    let got = after[row * k + column];
                    assert!((got - expected).abs() < 1e-4, "layer {layer}, {place}: {got} {expected}");
                }
            }
        }
    }
}

fn refusal(dir: &Path, key: &str, value: serde_json::Value) -> String {
    let path = dir.join("adapter_config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let before = json.to_string();
    json[key] = value;
    std::fs::write(&path, json.to_string()).unwrap();
    let message = AdapterConfig::from_dir(dir).unwrap_err().to_string();
    std::fs::write(&path, before).unwrap();
    message
}

#[test]
fn what_would_change_the_arithmetic_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let decoder = adapted(Family::Qwen2, &SOME);
    decoder.adapter().unwrap().save(dir.path(), decoder.config(), Path::new("base")).unwrap();
    let cases = [
        ("peft_type", serde_json::json!("LOHA"), "only LORA"),
        ("use_rslora", "yes".into(), "use_rslora is \"yes\""),
        ("use_dora", true.into(), "use_dora is true"),
        ("bias", "all".into(), "bias is"),
        ("rank_pattern", serde_json::json!({ "q_proj": 0 }), "rank_pattern: q_proj is 0"),
        ("rank_pattern", serde_json::json!({ "q_proj": 1_u64 << 60 }), "a whole number from 1 to 65536"),
        ("rank_pattern", serde_json::json!({ "(": 4 }), "rank_pattern: \"(\" is not a pattern"),
        ("rank_pattern", serde_json::json!([4]), "rank_pattern is [4]"),
        ("alpha_pattern", serde_json::json!({ "q_proj": "4" }), "alpha_pattern: q_proj is \"4\""),
        (
            "modules_to_save",
            serde_json::json!(["lm_head"]),
            "modules_to_save is [\"lm_head\"], which is not supported; merge",
        ),
        ("r", serde_json::json!(1_u64 << 60), "r is 1152921504606846976; a whole number from 1 to 65536"),
        ("target_modules", serde_json::json!(["q_proj", "lm_head"]), "supported are q_proj, k_proj"),
        ("r", 0.into(), "r is 0"),
    ];
    for (key, value, expected) in cases {
        let message = refusal(dir.path(), key, value);
        assert!(message.contains("adapter_config.json: ") && message.contains(expected), "{message}");
    }
    // What PEFT leaves beside the terms, or in the form of old.
    let file = dir.path().join("adapter_model.safetensors");
    let terms = std::fs::read(&file).unwrap();
    for (name, expected) in [
        ("base_model.model.model.embed_tokens.weight", "weights of embed_tokens saved beside it"),
        ("base_model.model.lm_head.weight", "weights of lm_head saved beside it"),
        ("base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", "is the base model the one"),
    ] {
        let views = [TensorView { name, shape: &[2], data: &[0.0; 2] }];
        rlt_model::weights::write_safetensors(&file, &views, Dtype::F32).unwrap();
        let message = Adapter::load(dir.path(), decoder.config()).unwrap_err().to_string();
        assert!(message.contains(&format!("holds {name}")) && message.contains(expected), "{message}");
    }
    std::fs::rename(&file, dir.path().join("adapter_model.bin")).unwrap();
    let message = Adapter::load(dir.path(), decoder.config()).unwrap_err().to_string();
    assert!(message.contains("holds adapter_model.bin but no adapter_model.safetensors"), "{message}");
    std::fs::write(&file, terms).unwrap();
    // Another base model than the adapter was made for.
    let other = ModelConfig { hidden_size: 24, ..config(Family::Qwen2) };
    let message = Adapter::load(dir.path(), &other).unwrap_err().to_string();
    assert!(message.contains("lora_A.weight has shape [3, 48], expected [3, 24]"), "{message}");
}
