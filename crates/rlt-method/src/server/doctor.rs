//! What a server can do for rlt, found out by trying it.

use std::sync::Arc;
use std::time::Instant;

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::generate::{GenerationRequest, SamplingParams};
use rlt_model::tokenizer::Tokenizer;
use rlt_model::{Decoder, Stop};
use serde::Serialize;

use super::check::Wanted;
use super::connect::Served;
use super::probe::{Agreement, Probe};
use super::sampler::ServerSampler;
use super::scorer::ServerScorer;
use crate::error::Result;
use crate::progress::Progress;
use crate::sampler::Sampler;
use crate::scorer::Scorer;

/// Tokens of a completion by which speed is measured.
const DRAWN: usize = 64;

/// Completions of a prompt by which speed is measured.
const PROMPTS: usize = 32;

/// Whether a server does something, or why not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ability {
    /// What it is about: "sampling".
    pub what: &'static str,
    /// For which commands it is needed.
    pub needed_for: &'static str,
    /// What stands in the way; none where it does it.
    pub obstacle: Option<String>,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Examination {
    /// Who answers: "vllm 0.32.0 at http://127.0.0.1:8000, model policy".
    pub server: String,
    /// Its folder, as the server names it.
    pub root: String,
    /// Longest sequence, tokens.
    pub context: usize,
    /// One after the other.
    pub abilities: Vec<Ability>,
    /// How far its log-probabilities of a fixed sequence are from the local weights'; none where there are no weights, or it
    /// does not score.
    pub agreement: Option<Agreement>,
    /// Tokens drawn a second, with as many requests under way as are allowed.
    pub sampled_per_s: Option<f64>,
    /// Tokens scored a second.
    pub scored_per_s: Option<f64>,
}

/// Examines `served` with a model's tokenizer, and its weights where they are `local`.
///
/// # Errors
/// What the local files report; what a server cannot do is no error, but part of the answer.
pub fn examine(
    served: &Arc<Served>,
    tokenizer: &Tokenizer,
    params: &SamplingParams,
    local: Option<&Decoder>,
    progress: &dyn Progress,
) -> Result<Examination> {
    let try_it =
        |wanted: Wanted| served.check(tokenizer, &wanted, progress).err().map(|error| error.to_string());
    let sampling = try_it(Wanted { sampling: Some(params), ..Wanted::default() });
    let scoring = try_it(Wanted { scoring: true, ..Wanted::default() });
    let behaviour = try_it(Wanted { sampling: Some(params), behaviour: true, scoring: true });
    let weights = served.check_takes_weights().err().map(|error| error.to_string());
    let ids = served.probe_prompt(tokenizer)?;
    let (mut agreement, mut sampled_per_s, mut scored_per_s) = (None, None, None);
    if let (Some(local), None) = (local, &scoring) {
        let here = Probe::new(ids.clone()).score_here(local)?;
        let scored = served.pool.wires().first().and_then(|wire| served.score_at(wire, &ids).ok());
        agreement = scored.map(|there| Agreement::of(&here, &there));
    }
    if sampling.is_none() {
        let params = SamplingParams { max_new_tokens: DRAWN, ..params.clone() };
        let sampler = ServerSampler { served: served.clone(), params, seed: 1, version: 0, label: None };
        let request = |i: u64| GenerationRequest { prompt: ids.clone().into(), n: 1, stream: [0, i] };
        let requests: Vec<GenerationRequest> = (0..PROMPTS as u64).map(request).collect();
        let started = Instant::now();
        let drawn = sampler.sample(&requests, Stop::never())?;
        let n: usize = drawn.iter().flatten().map(|completion| completion.ids.len()).sum();
        sampled_per_s = Some(n as f64 / started.elapsed().as_secs_f64());
    }
    if scoring.is_none() {
        let scorer = ServerScorer { served: served.clone(), stop: Stop::never(), progress };
        let n = ids.len();
        let continuation = |i: usize| Continuation {
            // No two are the same, so that no cache answers.
            ids: ids.iter().copied().cycle().skip(i % n).take(n).collect::<Vec<u32>>().into(),
            then: rlt_model::ids::TokenIds::default(),
            scored: std::iter::once(1..n).collect(),
        };
        let group = ScoringGroup {
            prefix: rlt_model::ids::TokenIds::default(),
            continuations: (0..PROMPTS).map(continuation).collect(),
        };
        let started = Instant::now();
        scorer.token_logprobs(&[group], 1.0, 0)?;
        scored_per_s = Some((PROMPTS * n) as f64 / started.elapsed().as_secs_f64());
    }
    let abilities = [
        ("sampling", "explain, eval", sampling),
        ("scoring", "score, logprobs, student_server", scoring),
        ("log-probabilities of what it samples", "train", behaviour),
        ("new weights", "train", weights),
    ];
    let abilities = abilities
        .map(|(what, needed_for, obstacle)| Ability { what, needed_for, obstacle })
        .into_iter()
        .collect();
    Ok(Examination {
        server: served.describe(),
        root: served.root.clone(),
        context: served.context,
        abilities,
        agreement,
        sampled_per_s,
        scored_per_s,
    })
}
