//! Generation: equal to the uncached model, independent of scheduling, reproducible.

#![expect(clippy::print_stdout, reason = "says how close it came")]

mod made_up;

use std::collections::BTreeSet;

use rlt_model::Decoder;
use rlt_model::Stop;
use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::config::{Family, ModelConfig};
use rlt_model::generate::{Completion, Finish, GenerationRequest, SamplingParams, generate};

fn config(family: Family) -> ModelConfig {
    made_up::config(family, 120, 24, 400)
}

/// Random weights, large enough that the distributions are far from flat.
fn decoder(family: Family) -> Decoder {
    let mut decoder = Decoder::random(&config(family), 3);
    for tensor in decoder.parameters_mut().tensors_mut() {
        if tensor.rows() > 1 {
            let loud = tensor.to_host().iter().map(|v| v * 8.0).collect();
            *tensor = rlt_engine::Tensor::from_vec(tensor.rows(), tensor.cols(), loud);
        }
    }
    decoder
}

fn params() -> SamplingParams {
    SamplingParams {
        temperature: 0.7,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        max_new_tokens: 150,
        stop_token_ids: vec![0, 1],
        max_running: 64,
    }
}

fn requests() -> Vec<GenerationRequest> {
    let prompt =
        |q: usize| (0..[1, 5, 63, 64, 65, 130][q]).map(|i| (i * 7 + q * 3) as u32 % 118 + 2).collect();
    (0..6).map(|q| GenerationRequest { prompt: prompt(q), n: 1 + q % 4, stream: [9, q as u64] }).collect()
}

fn run(decoder: &Decoder, requests: &[GenerationRequest], params: &SamplingParams) -> Vec<Vec<Completion>> {
    generate(decoder, requests, params, 11, Stop::never(), &mut |_| ()).unwrap()
}

#[test]
fn recorded_logprobs_equal_those_that_training_computes() {
    for family in [Family::Qwen2, Family::Qwen3, Family::Llama, Family::Gemma3] {
        let decoder = decoder(family);
        let requests = requests();
        let completions = run(&decoder, &requests, &params());
        let groups: Vec<ScoringGroup> = requests
            .iter()
            .zip(&completions)
            .map(|(request, completions)| ScoringGroup {
                prefix: request.prompt.clone(),
                continuations: completions.iter().map(|c| Continuation::whole(c.ids.clone())).collect(),
            })
            .collect();
        let trained = decoder.token_logprobs(&groups, 0.7, 1 << 20).unwrap();
        let mut worst = 0.0_f32;
        for (completions, trained) in completions.iter().zip(&trained) {
            for (completion, trained) in completions.iter().zip(trained) {
                assert_eq!(completion.ids.len(), trained.len());
                for (a, b) in completion.logprobs.iter().zip(trained) {
                    worst = worst.max((a - b).abs());
                }
            }
        }
        println!("{family:?}: largest difference {worst:e} nats");
        assert!(worst < 1e-5, "{family:?}: {worst}");
        let lengths: BTreeSet<usize> = completions.iter().flatten().map(|c| c.ids.len()).collect();
        assert!(lengths.len() > 4, "sequences of several lengths were tested: {lengths:?}");
    }
}

#[test]
fn greedy_generation_with_the_cache_equals_generation_without() {
    let decoder = decoder(Family::Qwen3);
    let greedy = SamplingParams { temperature: 0.0, max_new_tokens: 40, stop_token_ids: vec![], ..params() };
    let request = GenerationRequest { prompt: [5, 9, 30, 7].into(), n: 1, stream: [0, 0] };
    let cached = &run(&decoder, std::slice::from_ref(&request), &greedy)[0][0];
    let mut ids = request.prompt.to_vec();
    for token in &cached.ids {
        let candidates: Vec<Continuation> = (0..120).map(|t| Continuation::whole(vec![t])).collect();
        let group = ScoringGroup { prefix: ids.clone().into(), continuations: candidates };
        let logprobs = decoder.token_logprobs(&[group], 1.0, 1 << 20).unwrap();
        let best = (0..120).max_by(|a, b| logprobs[0][*a][0].total_cmp(&logprobs[0][*b][0])).unwrap();
        assert_eq!(best as u32, *token);
        ids.push(*token);
    }
    assert_eq!(cached.finish, Finish::Length);
}

#[test]
fn completions_depend_on_neither_batch_size_nor_order_nor_threads_bit_for_bit() {
    let decoder = decoder(Family::Qwen2);
    let requests = requests();
    let bits = |completions: &[Vec<Completion>]| -> Vec<Vec<(Vec<u32>, Vec<u32>)>> {
        let one = |c: &Completion| (c.ids.to_vec(), c.logprobs.iter().map(|l| l.to_bits()).collect());
        completions.iter().map(|r| r.iter().map(one).collect()).collect()
    };
    let expected = bits(&run(&decoder, &requests, &params()));
    for max_running in [1, 2, 3, 7, 1000] {
        let params = SamplingParams { max_running, ..params() };
        assert!(expected == bits(&run(&decoder, &requests, &params)), "{max_running} at a time");
    }
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let got = pool.install(|| bits(&run(&decoder, &requests, &params())));
        assert!(expected == got, "{threads} threads");
    }
    let reversed: Vec<_> = requests.iter().rev().cloned().collect();
    let mut got = bits(&run(&decoder, &reversed, &params()));
    got.reverse();
    assert!(expected == got, "reversed order");
}

#[test]
fn limits_and_stops_end_a_completion() {
    let decoder = decoder(Family::Llama);
    let completions = run(&decoder, &requests(), &params());
    for completion in completions.iter().flatten() {
        let stops = completion.ids.iter().filter(|id| [0, 1].contains(*id)).count();
        match completion.finish {
            Finish::Stop => assert!(stops == 1 && [0, 1].contains(completion.ids.last().unwrap())),
            Finish::Length => assert!(stops == 0 && completion.ids.len() == 150),
        }
    }
    // With nothing left to run after the first tokens, too.
    let shortest = SamplingParams { max_new_tokens: 1, ..params() };
    for completions in run(&decoder, &requests(), &shortest) {
        assert!(completions.iter().all(|completion| completion.ids.len() == 1));
    }
    // The context is a limit too: 400 positions, 390 of them taken by the prompt.
    let long = GenerationRequest { prompt: vec![3; 390].into(), n: 2, stream: [1, 1] };
    let endless = SamplingParams { stop_token_ids: vec![], ..params() };
    for completion in &run(&decoder, &[long], &endless)[0] {
        assert_eq!((completion.ids.len(), completion.finish), (10, Finish::Length));
    }
}

#[test]
fn what_cannot_be_generated_is_said() {
    let decoder = decoder(Family::Qwen2);
    for (prompt, expected) in [(vec![], "no room"), (vec![2; 400], "no room"), (vec![120], "token 120")] {
        let request = GenerationRequest { prompt: prompt.into(), n: 1, stream: [0, 0] };
        let error = generate(&decoder, &[request], &params(), 1, Stop::never(), &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn generation_that_is_asked_to_stop_ends_before_its_next_step() {
    let decoder = decoder(Family::Qwen2);
    let request = GenerationRequest { prompt: vec![3; 9].into(), n: 3, stream: [1, 1] };
    let endless = SamplingParams { stop_token_ids: vec![], max_new_tokens: 300, ..params() };
    let asked = std::sync::atomic::AtomicBool::new(false);
    let mut tokens = 0;
    let error = generate(&decoder, &[request], &endless, 1, Stop::when(&asked), &mut |progress| {
        tokens = progress.tokens;
        asked.store(tokens > 40, std::sync::atomic::Ordering::SeqCst);
    });
    assert!(matches!(error, Err(rlt_model::Error::Stopped)));
    assert!(tokens < 100, "{tokens} tokens of 900");
}

#[test]
fn a_saved_model_is_the_same_model() {
    for family in [Family::Qwen2, Family::Qwen3, Family::Llama, Family::Gemma3] {
        let decoder = decoder(family);
        let dir = tempfile::tempdir().unwrap();
        decoder.save(dir.path()).unwrap();
        let loaded = Decoder::load(dir.path()).unwrap();
        assert_eq!(decoder.config(), loaded.config());
        for (a, b) in decoder.parameters().tensors().iter().zip(loaded.parameters().tensors()) {
            assert!(a.to_host() == b.to_host());
        }
    }
}
