//! Checkpoints of every family on a GPU against transformers and the processor: logits, log-probabilities of sequences that share a
//! prefix, gradients, sampled completions. On the emulated GPU, or with `RLT_CUDA=real` on the first real one.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "says what was skipped and how close it came")]

mod common;

use std::path::{Path, PathBuf};

use common::parity_folder;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::{Device, head};
use rlt_model::batch::{Continuation, PackedBatch, ScoringGroup};
use rlt_model::generate::{Completion, GenerationRequest, SamplingParams, generate};
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

/// Whether what a GPU computed in bf16 is as close to f32 as what the processor did, which rounds the same numbers, and no farther
/// from that: layer by layer, what lies between two bf16 numbers goes up here and down there.
#[track_caller]
fn as_close_in_bf16(what: &str, exact: &[f32], ours: &[f32], theirs: &[f32]) {
    let (our_error, their_error, apart) = (error(ours, exact), error(theirs, exact), error(theirs, ours));
    let [largest, from_ours] = [exact, ours].map(|to| difference(theirs, to));
    println!("{what} in bf16: {their_error:.1e} from f32 (processor: {our_error:.1e}), {apart:.1e} apart");
    println!("by the largest number: {largest:.1e} from f32, {from_ours:.1e} apart");
    let within = their_error.max(apart) < 1.5 * our_error;
    assert!(within, "{what}: {their_error:e} {our_error:e} {apart:e}");
}

/// The length of the difference of two vectors, by the length of the second.
fn error(ours: &[f32], theirs: &[f32]) -> f32 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let apart: f64 = ours.iter().zip(theirs).map(|(a, b)| square(a - b)).sum();
    (apart / theirs.iter().map(|x| square(*x)).sum::<f64>()).sqrt() as f32
}

#[test]
fn a_forward_pass_gives_the_numbers_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    for folder in checkpoints() {
        let (here, there) =
            (Decoder::load_frozen(&folder).unwrap(), Decoder::load_frozen_on(&gpu, &folder).unwrap());
        let (ids, name) = (ids(&folder), folder.file_name().unwrap().display());
        for (here, there) in here.parameters().tensors().iter().zip(there.parameters().tensors()) {
            assert!(here.has_bits_of(there), "{name}");
        }
        let batch = PackedBatch::new(&groups(&ids));
        let logits = |decoder: &Decoder| {
            let hidden = decoder.hidden_states(&batch);
            head::logits(&hidden, decoder.parameters().head_weight()).to_host().into_owned()
        };
        let said = |decoder: &Decoder| [logits(decoder), decoder.logprobs(&batch, 0.7)];
        let ours = said(&here);
        for (ours, theirs) in ours.iter().zip(said(&there)) {
            let worst = difference(&theirs, ours);
            println!("{name}: {worst:.1e}");
            assert!(worst < 1e-5, "{name}: {worst:e}");
        }
        let [here, there] = [here, there].map(|decoder| said(&decoder.in_arithmetic(Arithmetic::Bf16)));
        for ((exact, here), there) in ours.iter().zip(&here).zip(&there) {
            as_close_in_bf16(&format!("{name}"), exact, here, there);
        }
    }
}

/// What two passes say of a batch, the second of which finds what the first has left.
fn said(decoder: &Decoder, batch: &PackedBatch) -> (Vec<f32>, Vec<f32>) {
    (decoder.hidden_states(batch).to_host().into_owned(), decoder.logprobs(batch, 0.7))
}

/// Whether two models have the same weights and say the same, bit for bit.
fn are_alike(a: &Decoder, b: &Decoder, batch: &PackedBatch) -> bool {
    let weights = a.tensors().zip(b.tensors()).all(|(a, b)| a.has_bits_of(&b));
    weights && a.tensors().count() == b.tensors().count() && said(a, batch) == said(b, batch)
}

#[test]
fn blocks_that_wait_in_the_hosts_memory_give_the_bits_of_whole_weights() {
    let Some(gpu) = gpu() else { return };
    for (index, folder) in checkpoints().into_iter().enumerate() {
        let (ids, name) = (ids(&folder), folder.file_name().unwrap().display());
        let batch = PackedBatch::new(&groups(&ids));
        for arithmetic in [Arithmetic::F32, Arithmetic::Bf16] {
            let [whole, offloaded] = [Decoder::load_frozen_on, Decoder::load_frozen_offloaded_on]
                .map(|load| load(&gpu, &folder).unwrap().in_arithmetic(arithmetic));
            assert!(are_alike(&whole, &offloaded, &batch), "{name}, {arithmetic:?}");
            assert_eq!(whole.n_parameters(), offloaded.n_parameters());
            assert!(offloaded.offloaded().unwrap().bytes() > 0, "{name}");
            if index > 0 {
                continue;
            }
            let [here, there] = [whole, offloaded].map(|decoder| {
                let completions = sampled(&decoder, &ids).1.into_iter().flatten();
                completions.map(|of| (of.ids, of.logprobs)).collect::<Vec<_>>()
            });
            assert!(here == there, "{name}, {arithmetic:?}: other completions");
        }
    }
}

#[test]
fn a_reference_in_the_hosts_memory_moves_as_a_whole_one_does() {
    let Some(gpu) = gpu() else { return };
    for folder in checkpoints().into_iter().step_by(4) {
        let name = folder.file_name().unwrap().display();
        let batch = PackedBatch::new(&groups(&ids(&folder)));
        let mut policy = Decoder::load_on(&gpu, &folder).unwrap();
        let [mut here, mut there] = [policy.copy(), policy.copy_offloaded()];
        for tensor in policy.parameters_mut().tensors_mut() {
            let twice = tensor.clone();
            tensor.add(&twice);
        }
        for reference in [&mut here, &mut there] {
            reference.mix_in(&policy, 0.9);
        }
        assert!(are_alike(&here, &there, &batch), "{name}");
        let mut copy = there.copy();
        for reference in [&mut here, &mut there] {
            reference.mix_in(&policy, 1.0);
        }
        assert!(!are_alike(&there, &copy, &batch), "{name}: a copy moves with it");
        // Never to move again, it is as small as it can be.
        here.freeze();
        there.freeze();
        assert!(are_alike(&here, &there, &batch), "{name}");
        let was_bf16 = Decoder::load_frozen(&folder).unwrap().tensors().any(|tensor| tensor.is_bf16());
        assert_eq!(there.tensors().any(|tensor| tensor.is_bf16()), was_bf16, "{name}");
        copy.mix_in(&policy, 1.0);
        assert!(said(&copy, &batch) == said(&policy, &batch), "{name}");
    }
}

#[test]
fn gradients_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    for (index, folder) in checkpoints().into_iter().enumerate() {
        let keep = [Keep::Activations, Keep::BlockInputs][index % 2];
        let batch = PackedBatch::new(&groups(&ids(&folder)));
        let weights: Vec<f32> = (0..batch.targets.len()).map(|i| (i as f32 * 0.37).sin()).collect();
        let name = folder.file_name().unwrap().display();
        let gradients = |device: &Device, arithmetic| {
            let decoder = Decoder::load_on(device, &folder).unwrap().in_arithmetic(arithmetic);
            let mut gradients = Gradients::zeros(&decoder);
            let weigh = |first: usize, logprobs: &[f32]| {
                Ok::<_, std::convert::Infallible>(weights[first..first + logprobs.len()].to_vec())
            };
            decoder.train_micro_batch(&batch, 0.7, keep, &mut gradients, weigh).unwrap();
            gradients.tensors().iter().map(|tensor| tensor.to_host().into_owned()).collect::<Vec<_>>()
        };
        let of = |arithmetic| [&Device::Cpu, &gpu, &gpu].map(|device| gradients(device, arithmetic));
        let [ours, theirs, again] = of(Arithmetic::F32);
        assert!(theirs == again, "{name}: other bits the second time");
        let worst = theirs.iter().zip(&ours).map(|(theirs, ours)| difference(theirs, ours));
        let worst = worst.fold(0.0, f32::max);
        println!("{name}: gradients {worst:.1e}");
        assert!(worst < 1e-5, "{name}: {worst:e}");
        let [here, there, again] = of(Arithmetic::Bf16);
        assert!(there == again, "{name}: other bits the second time");
        as_close_in_bf16(&format!("{name}"), &ours.concat(), &here.concat(), &there.concat());
    }
}

/// Three completions of each of two prompts.
fn sampled(decoder: &Decoder, ids: &[u32]) -> (Vec<GenerationRequest>, Vec<Vec<Completion>>) {
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
    let completions = generate(decoder, &requests, &params, 5, Stop::never(), &mut |_| ()).unwrap();
    (requests.into(), completions)
}

/// In bf16 a draw between two tokens may fall either way; what was drawn has the processor's log-probabilities.
#[test]
fn completions_in_bf16_are_scored_as_by_the_processor() {
    let Some(gpu) = gpu() else { return };
    for folder in checkpoints() {
        let ids = ids(&folder);
        let on = |device: &Device| {
            Decoder::load_frozen_on(device, &folder).unwrap().in_arithmetic(Arithmetic::Bf16)
        };
        let ((requests, completions), (_, again)) = (sampled(&on(&gpu), &ids), sampled(&on(&gpu), &ids));
        let name = folder.file_name().unwrap().display();
        let (all, again) = (completions.iter().flatten(), again.iter().flatten());
        assert!(all.zip(again).all(|(a, b)| a.ids == b.ids && a.logprobs == b.logprobs), "{name}");
        let groups = requests.iter().zip(&completions).map(|(request, completions)| ScoringGroup {
            prefix: request.prompt.clone(),
            continuations: completions.iter().map(|of| Continuation::whole(of.ids.clone())).collect(),
        });
        let said: Vec<f32> = completions.iter().flatten().flat_map(|of| of.logprobs.clone()).collect();
        let scored = on(&Device::Cpu).logprobs(&PackedBatch::new(&groups.collect::<Vec<_>>()), 0.8);
        let apart = error(&said, &scored);
        println!("{name}: log-probabilities of what was drawn {apart:.1e}");
        assert!(apart < 1e-2, "{name}: {apart:e}");
    }
}

#[test]
fn completions_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    for folder in checkpoints() {
        let ids = ids(&folder);
        let sampled = |device: &Device| sampled(&Decoder::load_frozen_on(device, &folder).unwrap(), &ids).1;
        let (here, there) = (sampled(&Device::Cpu), sampled(&gpu));
        let name = folder.file_name().unwrap().display();
        for (here, there) in here.iter().flatten().zip(there.iter().flatten()) {
            assert_eq!(here.ids, there.ids, "{name}");
            let worst = difference(&there.logprobs, &here.logprobs);
            assert!(worst < 1e-5, "{name}: {worst:e}");
        }
    }
}
