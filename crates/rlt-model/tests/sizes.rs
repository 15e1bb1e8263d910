//! The device that holds sizes alone takes what the processor takes: the same code runs on both, and the peak that each
//! records is compared. One test, so that nothing else in this process asks the processor's memory.

use std::path::Path;

use rlt_engine::Device;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::sizes::Operation;
use rlt_model::adapter::{Adapter, LoraSettings, Target};
use rlt_model::batch::{Continuation, PackedBatch, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::generate::{GenerationRequest, SamplingParams, generate};
use rlt_model::training_pass::Keep;
use rlt_model::weights::Dtype;
use rlt_model::{Decoder, Gradients, Stop};

/// Wide enough that every tensor that grows with the batch is a block of the pool.
const CONFIG: &str = r#"{
    "architectures": ["ARCHITECTURE"], "model_type": "TYPE", "vocab_size": 700, "hidden_size": 160,
    "intermediate_size": 416, "num_hidden_layers": 3, "num_attention_heads": 5, "num_key_value_heads": 1,
    "head_dim": 32, "max_position_embeddings": 512, "rope_theta": 10000.0, "rms_norm_eps": 1e-6,
    "hidden_act": "silu", "sliding_window": 100, "sliding_window_pattern": 2, "tie_word_embeddings": true, "eos_token_id": 699
}"#;

fn config(family: &str) -> ModelConfig {
    let architecture = match family {
        "qwen3" => "Qwen3ForCausalLM",
        "gemma3_text" => "Gemma3ForCausalLM",
        _ => "Qwen2ForCausalLM",
    };
    ModelConfig::from_json(&CONFIG.replace("ARCHITECTURE", architecture).replace("TYPE", family)).unwrap()
}

/// How a model computes and learns.
#[derive(Debug, Clone, Copy)]
struct Case {
    arithmetic: Arithmetic,
    learns: Learns,
    keep: Keep,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Learns {
    AllWeights,
    Adapter,
    Nothing,
}

/// Prompts with completions, as ids that stand for nothing.
fn groups() -> Vec<ScoringGroup> {
    [(70, [130, 90, 41]), (33, [64, 200, 5])]
        .into_iter()
        .map(|(prompt, lengths)| ScoringGroup {
            prefix: vec![1; prompt].into(),
            continuations: lengths.map(|n| Continuation::whole(vec![2; n])).into(),
        })
        .collect()
}

fn load(device: &Device, case: Case, folder: &Path) -> Decoder {
    let decoder = match case.learns {
        Learns::AllWeights => Decoder::load_on(device, folder).unwrap(),
        Learns::Adapter | Learns::Nothing => Decoder::load_frozen_on(device, folder).unwrap(),
    };
    let decoder = decoder.in_arithmetic(case.arithmetic);
    if case.learns != Learns::Adapter {
        return decoder;
    }
    let settings =
        LoraSettings::new(8, 16.0, vec![Target::Query, Target::AttentionOut, Target::Up, Target::Down]);
    let adapter = Adapter::random_on(device, decoder.config(), &settings, 5);
    decoder.with_adapter(adapter)
}

/// The peak of each part, bytes: loading, a training step, scoring, states before tokens, and generation.
fn peaks(device: &Device, case: Case, folder: &Path) -> Vec<(&'static str, u64)> {
    device.release_memory();
    device.take_peak();
    let (mut peaks, before) = (Vec::new(), device.usage().held);
    let mut end = |name| peaks.push((name, device.take_peak() - before));
    let decoder = load(device, case, folder);
    end("loading");
    let batch = PackedBatch::new(&groups());
    if case.learns != Learns::Nothing {
        let mut gradients = Gradients::zeros(&decoder);
        let learn = |_: usize, logprobs: &[f32]| Ok::<_, ()>(vec![-0.01; logprobs.len()]);
        decoder.train_micro_batch(&batch, 1.0, case.keep, &mut gradients, learn).unwrap();
        end("training");
    }
    assert_eq!(decoder.logprobs(&batch, 1.0).len(), batch.targets.len());
    end("scoring");
    let states = decoder.scored_states(Stop::never(), &groups(), 300).unwrap();
    assert_eq!(states.logprobs(0.7).len(), batch.targets.len());
    drop(states);
    end("states");
    let params = SamplingParams {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        max_new_tokens: 150,
        stop_token_ids: Vec::new(),
        max_running: 6,
    };
    let request = |n| GenerationRequest { prompt: vec![3; n].into(), n: 4, stream: [0, n as u64] };
    let requests: Vec<_> = [90, 20, 131].map(request).into();
    let done = generate(&decoder, &requests, &params, 1, Stop::never(), &mut |_| ()).unwrap();
    assert!(done.iter().flatten().all(|completion| completion.ids.len() == 150));
    end("generation");
    peaks
}

#[test]
fn a_device_of_sizes_takes_what_the_processor_takes() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("qwen2", Arithmetic::F32, Dtype::F32, Learns::AllWeights, Keep::Activations),
        ("qwen3", Arithmetic::F32, Dtype::Bf16, Learns::AllWeights, Keep::BlockInputs),
        ("qwen2", Arithmetic::Bf16, Dtype::F32, Learns::AllWeights, Keep::Activations),
        ("qwen2", Arithmetic::F32, Dtype::Bf16, Learns::Adapter, Keep::Activations),
        ("qwen3", Arithmetic::Bf16, Dtype::Bf16, Learns::Adapter, Keep::BlockInputs),
        ("qwen2", Arithmetic::Bf16, Dtype::Bf16, Learns::Nothing, Keep::Activations),
        ("gemma3_text", Arithmetic::F32, Dtype::F32, Learns::AllWeights, Keep::Activations),
        ("gemma3_text", Arithmetic::Bf16, Dtype::Bf16, Learns::Adapter, Keep::BlockInputs),
    ];
    // Threads need not all hold the most they hold at the same moment.
    for (n_threads, ratios) in [(1, 1.0..=1.0), (3, 0.95..=1.5)] {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        for (family, arithmetic, file, learns, keep) in cases {
            let case = Case { arithmetic, learns, keep };
            Decoder::random(&config(family), 1).save_as(folder.path(), file).unwrap();
            let sizes = Device::sizes();
            let of = |device: &Device| threads.install(|| peaks(device, case, folder.path()));
            let (measured, planned) = (of(&Device::Cpu), of(&sizes));
            for ((name, measured), (_, planned)) in measured.iter().zip(&planned) {
                let ratio = *planned as f64 / *measured as f64;
                assert!(
                    ratios.contains(&ratio),
                    "{family}, {case:?} of {file:?}, {n_threads} threads, {name}: {planned} bytes planned, {measured} taken"
                );
            }
            let Device::Sizes(sizes) = &sizes else { unreachable!("made above") };
            for (operation, work) in sizes.take_work() {
                // Whole weights send nothing.
                let is_sent = operation == Operation::Sending;
                assert_eq!(work.multiply_adds > 0.0, !is_sent, "{case:?}: {operation:?}");
                assert_eq!(work.bytes > 0.0, !is_sent, "{case:?}: {operation:?}");
            }
        }
    }
}
