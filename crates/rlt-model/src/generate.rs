//! Batched generation: token ids in, token ids and log-probabilities out.

use crate::decoder::Decoder;
use crate::error::Result;

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Softmax temperature; 0 takes the most likely token.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides (multiplies) the positive (negative) logits of tokens already in the sequence.
    pub repetition_penalty: f32,
    /// Longest completion, tokens (the context of the model is a limit too).
    pub max_new_tokens: usize,
    /// Tokens that end a completion.
    pub stop_token_ids: Vec<u32>,
    /// Sequences that decode at the same time.
    pub max_running: usize,
}

/// One prompt and how many completions of it are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationRequest {
    /// Token ids of the prompt, computed once for all its completions.
    pub prompt: Vec<u32>,
    /// Number of completions.
    pub n: usize,
    /// What keys the random numbers, for example (step, question): results depend on it and on the
    /// sample's index, never on the batch.
    pub stream: [u64; 2],
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// With a stop token.
    Stop,
    /// At the length limit.
    Length,
}

/// A sampled completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The sampled ids, the stop token included.
    pub ids: Vec<u32>,
    /// Log-probability (nats) of each under the softmax at the sampling temperature, before top-k,
    /// top-p, min-p and the repetition penalty: what training computes for the same token.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// How far a generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GenerationProgress {
    /// Completions that are done.
    pub finished: usize,
    /// Tokens drawn so far.
    pub tokens: usize,
}

/// Samples `n` completions for every request: `[request][sample]`.
///
/// # Errors
/// [`crate::Error::Invalid`] for an empty prompt, one that leaves no room in the context, or an
/// unknown token.
pub fn generate(
    decoder: &Decoder,
    requests: &[GenerationRequest],
    params: &SamplingParams,
    seed: u64,
    on_progress: &mut dyn FnMut(GenerationProgress),
) -> Result<Vec<Vec<Completion>>> {
    let _ = (decoder, requests, params, seed, on_progress);
    Err(crate::Error::Invalid("generation is being written".into()))
}
