//! What servers are asked: completions of ids, and log-probabilities of ids. Never text.

use rlt_model::generate::SamplingParams;
use serde_json::{Map, Value, json};

use super::wire::Ask;
use crate::config::ServerKind;

/// Most bytes of an answer to each token that it is about, and beside them.
const MOST_OF_TOKEN: u64 = 2048;
const MOST_BESIDE: u64 = 1 << 20;

/// Completions that one request asks for, at most, in tokens: a lost answer loses no more.
const TOKENS_OF_ASK: usize = 32_768;

/// Which draws a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draw {
    /// Seed of the work.
    pub seed: u64,
    /// What keys the request, as the own engine has it.
    pub stream: [u64; 2],
    /// The first sample of the request that is drawn.
    pub first: usize,
    /// How many.
    pub n: usize,
}

impl Draw {
    /// One number for all four, the same whenever it is asked for: SplitMix64's mixing, without the upper bits that a
    /// signed number, or one counted up by `n`, has not.
    pub fn server_seed(&self) -> u64 {
        let mut mixed = 0_u64;
        for word in [self.seed, self.stream[0], self.stream[1], self.first as u64] {
            let mut x = (mixed ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed = x ^ (x >> 31);
        }
        mixed >> 2
    }
}

/// Samples of one prompt that a request asks for. `rlt serve` draws a whole group as the own engine does.
pub(super) fn samples_of_ask(kind: ServerKind, n: usize, longest: usize) -> usize {
    match kind {
        ServerKind::Rlt => n,
        // Its answers to several are lists of another shape.
        ServerKind::Sglang => 1,
        _ => n.min(TOKENS_OF_ASK / longest.max(1)).max(1),
    }
}

/// Asks for completions of at most `longest` tokens.
pub(super) fn sampling(
    kind: ServerKind,
    model: &str,
    prompt: &[u32],
    params: &SamplingParams,
    longest: usize,
    draw: Draw,
) -> Ask {
    let tokens = (prompt.len() + draw.n * longest) as u64;
    if kind == ServerKind::Sglang {
        let body = json!({
            "input_ids": prompt,
            "sampling_params": sglang_params(params, longest, draw),
            "return_logprob": true,
            // Of the prompt, none is wanted.
            "logprob_start_len": -1,
        });
        return Ask::post("/generate", &body, MOST_BESIDE + MOST_OF_TOKEN * tokens);
    }
    let mut body = json!({
        "model": model,
        "prompt": prompt,
        "n": draw.n,
        "max_tokens": longest,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "seed": draw.server_seed(),
        "logprobs": 0,
        "return_token_ids": true,
        "return_tokens_as_token_ids": true,
        "skip_special_tokens": false,
        "stop_token_ids": params.stop_token_ids,
    });
    if let Some(body) = body.as_object_mut() {
        truncation(kind, params, body);
        if kind == ServerKind::Rlt {
            // Its draws are ours by the very keys.
            body.insert("rlt_draw".into(), json!({ "seed": draw.seed, "stream": draw.stream }));
        }
    }
    Ask::post("/v1/completions", &body, MOST_BESIDE + MOST_OF_TOKEN * tokens)
}

/// What is cut of the distribution. vLLM takes what is not said from the model's `generation_config.json`, so all is said; a
/// server that nothing is known of may refuse keys that it does not know, so it is told what matters.
fn truncation(kind: ServerKind, params: &SamplingParams, body: &mut Map<String, Value>) {
    let all = kind != ServerKind::Openai;
    let top_k = if params.top_k == 0 { json!(-1) } else { json!(params.top_k) };
    for (key, value, matters) in [
        ("top_k", top_k, params.top_k > 0),
        ("min_p", json!(params.min_p), params.min_p > 0.0),
        ("repetition_penalty", json!(params.repetition_penalty), params.repetition_penalty != 1.0),
    ] {
        if all || matters {
            body.insert(key.into(), value);
        }
    }
}

fn sglang_params(params: &SamplingParams, longest: usize, draw: Draw) -> Value {
    json!({
        "max_new_tokens": longest,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": if params.top_k == 0 { -1 } else { params.top_k as i64 },
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
        "stop_token_ids": params.stop_token_ids,
        "skip_special_tokens": false,
        // It takes 32 bits.
        "sampling_seed": draw.server_seed() & 0x7fff_ffff,
    })
}

/// Asks for the log-probability of every token after the first.
pub(super) fn scoring(kind: ServerKind, model: &str, ids: &[u32]) -> Ask {
    let most = MOST_BESIDE + MOST_OF_TOKEN * ids.len() as u64;
    match kind {
        ServerKind::Sglang => {
            let body = json!({
                "input_ids": ids,
                "sampling_params": { "max_new_tokens": 0, "temperature": 1.0 },
                "return_logprob": true,
                "logprob_start_len": 0,
            });
            Ask::post("/generate", &body, most)
        }
        ServerKind::Openai => {
            let body = json!({
                "model": model,
                "prompt": ids,
                "max_tokens": 0,
                "echo": true,
                "logprobs": 0,
                "temperature": 1.0,
            });
            Ask::post("/v1/completions", &body, most)
        }
        _ => {
            let body = json!({
                "model": model,
                "prompt": ids,
                // To others a prompt that fills the context leaves no room for the token that they insist on.
                "max_tokens": usize::from(kind != ServerKind::Rlt),
                "temperature": 1.0,
                "prompt_logprobs": 0,
                "return_token_ids": true,
            });
            Ask::post("/v1/completions", &body, most)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> SamplingParams {
        SamplingParams {
            temperature: 0.7,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: 16,
            stop_token_ids: vec![2],
            max_running: 4,
        }
    }

    #[test]
    fn draws_have_seeds_of_their_own_that_repeat() {
        let draw = Draw { seed: 7, stream: [1, 2], first: 0, n: 4 };
        assert_eq!(draw.server_seed(), draw.server_seed());
        let others = [
            Draw { seed: 8, ..draw },
            Draw { stream: [2, 1], ..draw },
            Draw { stream: [1, 3], ..draw },
            Draw { first: 4, ..draw },
        ];
        assert!(others.iter().all(|other| other.server_seed().abs_diff(draw.server_seed()) > 1_000_000));
        // Counted up by any number of samples, it is still one that a signed number holds.
        assert!(draw.server_seed() < 1 << 62);
    }

    #[test]
    fn what_is_cut_of_the_distribution_is_always_said() {
        let draw = Draw { seed: 7, stream: [1, 2], first: 0, n: 4 };
        let body = |kind| -> Value {
            let ask = sampling(kind, "policy", &[5, 6], &params(), 16, draw);
            serde_json::from_slice(&ask.body.unwrap()).unwrap()
        };
        let vllm = body(ServerKind::Vllm);
        assert_eq!((&vllm["top_k"], &vllm["min_p"], &vllm["top_p"]), (&json!(-1), &json!(0.0), &json!(1.0)));
        assert_eq!(vllm["repetition_penalty"], 1.0);
        assert_eq!(vllm["prompt"], json!([5, 6]));
        assert!(vllm.get("rlt_draw").is_none() && vllm["seed"].is_u64());
        assert!(body(ServerKind::Openai).get("top_k").is_none());
        assert_eq!(body(ServerKind::Rlt)["rlt_draw"], json!({"seed": 7, "stream": [1, 2]}));
        let sglang = body(ServerKind::Sglang);
        assert_eq!((&sglang["input_ids"], &sglang["return_logprob"]), (&json!([5, 6]), &json!(true)));
    }

    #[test]
    fn long_completions_are_asked_for_one_by_one() {
        assert_eq!(samples_of_ask(ServerKind::Vllm, 64, 1024), 32);
        assert_eq!(samples_of_ask(ServerKind::Vllm, 64, 100_000), 1);
        assert_eq!(samples_of_ask(ServerKind::Vllm, 4, 16), 4);
        assert_eq!(samples_of_ask(ServerKind::Rlt, 64, 100_000), 64);
        assert_eq!(samples_of_ask(ServerKind::Sglang, 64, 16), 1);
    }
}
