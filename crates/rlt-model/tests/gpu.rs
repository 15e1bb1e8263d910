//! Checkpoints of every family on a GPU against transformers and the processor: logits, log-probabilities of sequences that share a
//! prefix, gradients, sampled completions. On the emulated GPU, or with `RLT_CUDA=real` on the first real one.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "says what was skipped and how close it came")]

mod common;

use std::path::{Path, PathBuf};

use common::parity_folder;
use rlt_engine::{Device, head};
use rlt_model::batch::{Continuation, PackedBatch, ScoringGroup};
use rlt_model::generate::{GenerationRequest, SamplingParams, generate};
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Gradients, Stop};

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

/// Every checkpoint that is here.
fn checkpoints() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints");
    let entries = std::fs::read_dir(own).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.join("config.json").exists()).collect();
    folders.sort();
    let shared = ["qwen2_tied_f32", "qwen3_untied_f32_sharded", "llama3_untied_bf16"];
    folders.extend(shared.into_iter().map_while(parity_folder));
    folders
}

fn ids(folder: &Path) -> Vec<u32> {
    let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let ids = tensors.tensor("input_ids").unwrap();
    let ids = ids.data().as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as u32);
    ids.take(60).collect()
}

/// One prompt with three continuations, and one more sequence.
fn groups(ids: &[u32]) -> Vec<ScoringGroup> {
    let (prefix, rest) = ids.split_at(25);
    let own = [rest.to_vec(), rest[3..20].to_vec(), rest[7..9].to_vec()];
    let scored = 1..12;
    vec![
        ScoringGroup { prefix: prefix.into(), continuations: own.map(Continuation::whole).into() },
        ScoringGroup::single(ids[..12].to_vec(), vec![scored]),
    ]
}

/// The largest difference, by the largest number or 1.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
    let apart = ours.iter().zip(theirs).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() });
    assert!(ours.iter().all(|x| x.is_finite()));
    apart.fold(0.0, f32::max) / largest
}

#[test]
fn a_forward_pass_gives_the_numbers_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    for folder in checkpoints() {
        let (here, there) =
            (Decoder::load_frozen(&folder).unwrap(), Decoder::load_frozen_on(&gpu, &folder).unwrap());
        let (ids, name) = (ids(&folder), folder.file_name().unwrap().display());
        let batch = PackedBatch::new(&groups(&ids));
        let logits = |decoder: &Decoder| {
            let hidden = decoder.hidden_states(&batch);
            head::logits(&hidden, decoder.parameters().head_weight()).to_host().into_owned()
        };
        let of_logits = difference(&logits(&there), &logits(&here));
        let of_logprobs = difference(&there.logprobs(&batch, 0.7), &here.logprobs(&batch, 0.7));
        println!("{name}: logits {of_logits:.1e}, log-probabilities {of_logprobs:.1e}");
        assert!(of_logits < 1e-5 && of_logprobs < 1e-5, "{name}: {of_logits:e} {of_logprobs:e}");
    }
}

#[test]
fn gradients_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    for (index, folder) in checkpoints().into_iter().enumerate() {
        let keep = [Keep::Activations, Keep::BlockInputs][index % 2];
        let batch = PackedBatch::new(&groups(&ids(&folder)));
        let weights: Vec<f32> = (0..batch.targets.len()).map(|i| (i as f32 * 0.37).sin()).collect();
        let gradients = |device: &Device| {
            let decoder = Decoder::load_on(device, &folder).unwrap();
            let mut gradients = Gradients::zeros(&decoder);
            let weigh = |first: usize, logprobs: &[f32]| {
                Ok::<_, std::convert::Infallible>(weights[first..first + logprobs.len()].to_vec())
            };
            decoder.train_micro_batch(&batch, 0.7, keep, &mut gradients, weigh).unwrap();
            gradients.tensors().iter().map(|tensor| tensor.to_host().into_owned()).collect::<Vec<_>>()
        };
        let (here, there, again) = (gradients(&Device::Cpu), gradients(&gpu), gradients(&gpu));
        let name = folder.file_name().unwrap().display();
        assert!(there == again, "{name}: other bits the second time");
        let worst = there.iter().zip(&here).map(|(there, here)| difference(there, here)).fold(0.0, f32::max);
        println!("{name}: gradients {worst:.1e}");
        assert!(worst < 1e-5, "{name}: {worst:e}");
    }
}

#[test]
fn completions_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    for folder in checkpoints() {
        let ids = ids(&folder);
        let params = SamplingParams {
            temperature: 0.8,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: 24,
            stop_token_ids: vec![],
            max_running: 5,
        };
        let requests =
            [5, 47].map(|n| GenerationRequest { prompt: ids[..n].into(), n: 3, stream: [n as u64, 0] });
        let sampled = |device: &Device| {
            let decoder = Decoder::load_frozen_on(device, &folder).unwrap();
            generate(&decoder, &requests, &params, 5, Stop::never(), &mut |_| ()).unwrap()
        };
        let (here, there) = (sampled(&Device::Cpu), sampled(&gpu));
        let name = folder.file_name().unwrap().display();
        for (here, there) in here.iter().flatten().zip(there.iter().flatten()) {
            assert_eq!(here.ids, there.ids, "{name}");
            let worst = difference(&there.logprobs, &here.logprobs);
            assert!(worst < 1e-5, "{name}: {worst:e}");
        }
    }
}
