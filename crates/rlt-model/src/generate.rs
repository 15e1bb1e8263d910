//! Batched generation: token ids in, token ids and log-probabilities out.

use std::collections::VecDeque;
use std::sync::Arc;

use rayon::prelude::*;
use rlt_engine::Tensor;
use rlt_engine::kv::{KvPages, KvSequence};
use rlt_engine::random::RandomStream;
use rlt_engine::sample::{self, Sampling};

use crate::batch::PackedBatch;
use crate::decode::DecodeWeights;
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::ids::TokenIds;
use crate::stop::Stop;

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
    pub prompt: TokenIds,
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
    pub ids: TokenIds,
    /// Log-probability (nats) of each under the softmax at the sampling temperature, before top-k,
    /// top-p, min-p and the repetition penalty: what training computes for the same token.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
    /// Which weights drew it, as whoever updates them counts; 0 from [`generate`], which cannot know.
    pub version: u64,
}

/// Takes the completions of a call, each as soon as it has ended.
pub trait Receiver: Send {
    /// Completion `sample` of request `request` has ended. It is handed over once.
    fn receive(&mut self, request: usize, sample: usize, completion: Completion);

    /// How far the call is, for whoever watches.
    fn progress(&mut self, _progress: GenerationProgress) {}
}

/// How far a generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GenerationProgress {
    /// Completions that are done.
    pub finished: usize,
    /// Tokens drawn so far.
    pub tokens: usize,
    /// Requests under way where another program draws; none where this one does.
    pub under_way: usize,
}

/// Samples `n` completions for every request: `[request][sample]`, as [`generate_each`] does.
///
/// # Errors
/// As [`generate_each`].
pub fn generate(
    decoder: &Decoder,
    requests: &[GenerationRequest],
    params: &SamplingParams,
    seed: u64,
    stop: Stop,
    on_progress: &mut (dyn FnMut(GenerationProgress) + Send),
) -> Result<Vec<Vec<Completion>>> {
    let mut all = AllCompletions::of(requests, on_progress);
    generate_each(decoder, requests, params, seed, stop, &mut all)?;
    Ok(all.into_completions())
}

/// Keeps the completions of a call in their places.
pub struct AllCompletions<'a> {
    done: Vec<Vec<Option<Completion>>>,
    on_progress: &'a mut (dyn FnMut(GenerationProgress) + Send),
}

impl<'a> AllCompletions<'a> {
    /// Room for those of `requests`; `on_progress` hears how far the call is.
    pub fn of(
        requests: &[GenerationRequest],
        on_progress: &'a mut (dyn FnMut(GenerationProgress) + Send),
    ) -> Self {
        Self { done: requests.iter().map(|request| vec![None; request.n]).collect(), on_progress }
    }

    /// `[request][sample]`.
    ///
    /// # Panics
    /// When one has not been received.
    pub fn into_completions(self) -> Vec<Vec<Completion>> {
        let complete = |of_request: Vec<Option<Completion>>| {
            of_request.into_iter().map(|c| c.expect("every completion has ended")).collect()
        };
        self.done.into_iter().map(complete).collect()
    }

    /// `[request][sample]` of the first requests that are complete.
    pub fn into_complete(self) -> Vec<Vec<Completion>> {
        self.done.into_iter().map_while(|of_request| of_request.into_iter().collect()).collect()
    }
}

impl Receiver for AllCompletions<'_> {
    fn receive(&mut self, request: usize, sample: usize, completion: Completion) {
        self.done[request][sample] = Some(completion);
    }

    fn progress(&mut self, progress: GenerationProgress) {
        (self.on_progress)(progress);
    }
}

/// Samples `n` completions for every request, and hands each over as soon as it has ended.
///
/// A prompt is computed once for all its completions. A sequence that ends leaves the batch at once
/// and the next waiting one takes its place; what a sequence draws depends on neither.
///
/// # Errors
/// [`crate::Error::Invalid`] for an empty prompt, one that leaves no room in the context, or an
/// unknown token; [`crate::Error::Stopped`] when it was asked to stop, which it looks at before every step.
pub fn generate_each(
    decoder: &Decoder,
    requests: &[GenerationRequest],
    params: &SamplingParams,
    seed: u64,
    stop: Stop,
    receiver: &mut dyn Receiver,
) -> Result<()> {
    let context = decoder.config().context();
    for request in requests {
        decoder.check_ids(request.prompt.iter().copied())?;
        let n = request.prompt.len();
        if n == 0 || n >= context {
            let what = format!("a prompt of {n} tokens leaves no room to generate");
            return Err(Error::Invalid(format!("{what}: prompts need 1 to {} tokens", context - 1)));
        }
    }
    let mut batch = Batch::new(requests, params, seed, context);
    // Inside the pool: a call from outside would wake and await a worker at every operation.
    rayon::scope(|_| {
        let weights = DecodeWeights::new(decoder);
        while !stop.is_asked() {
            let runs = batch.admit(decoder, &weights);
            // A completion may end with its first token.
            batch.tell(receiver);
            if !runs {
                break;
            }
            while !batch.running.is_empty() && !stop.is_asked() {
                batch.advance(&weights, stop);
                batch.tell(receiver);
                if batch.has_room() {
                    break;
                }
            }
        }
    });
    stop.check()
}

/// A sequence that is being decoded. Its newest token has been drawn but not yet computed.
struct Running {
    request: usize,
    sample: usize,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    finish: Finish,
    /// Longest completion of this sequence, tokens.
    limit: usize,
    kv: KvSequence,
}

impl Running {
    fn newest(&self) -> u32 {
        *self.ids.last().expect("a running sequence has drawn a token")
    }
}

/// A prompt that has been computed, while some of its completions still wait.
struct Prompt {
    pages: Arc<KvPages>,
    /// Logits of the first token of every completion, 1 x vocabulary.
    logits: Tensor,
}

/// Rows of prompts that are computed together.
const PREFILL_ROWS: usize = 4096;

/// Sequences from which on a thread has enough to do with them alone: threads that take whole steps
/// of their own sequences need not wait for one another at every operation.
const SEQUENCES_OF_A_THREAD: usize = 16;

/// Steps that threads take with their own sequences before these are dealt out again.
const STEPS_OF_A_ROUND: usize = 8;

/// Some of the running sequences.
struct Share {
    running: Vec<Running>,
    ended: Vec<Running>,
    /// Tokens drawn in this round.
    tokens: usize,
}

/// How many steps from the present one on ask for the same memory: where nothing is computed, one stands for all of
/// them, until a sequence begins a new page or ends.
fn steps_alike(weights: &DecodeWeights, running: &[Running]) -> usize {
    if weights.device().has_numbers() {
        return 1;
    }
    let of = |running: &Running| running.kv.own.room().max(1).min(running.limit - running.ids.len());
    running.iter().map(of).min().unwrap_or(1).max(1)
}

/// The sequences that run and those that wait.
struct Batch<'a> {
    requests: &'a [GenerationRequest],
    params: &'a SamplingParams,
    sampling: Sampling,
    randomness: RandomStream,
    context: usize,
    /// Computed prompts, by request, until their last completion has begun.
    prompts: VecDeque<(usize, Prompt)>,
    /// The next completion to begin: request and sample.
    next: (usize, usize),
    running: Vec<Running>,
    /// What has ended and was not handed over yet: request, sample, completion.
    ended: Vec<(usize, usize, Completion)>,
    progress: GenerationProgress,
}

impl<'a> Batch<'a> {
    fn new(requests: &'a [GenerationRequest], params: &'a SamplingParams, seed: u64, context: usize) -> Self {
        let sampling = Sampling {
            temperature: params.temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
        };
        Self {
            requests,
            params,
            sampling,
            randomness: RandomStream::new(seed, "sample"),
            context,
            prompts: VecDeque::new(),
            next: (0, 0),
            running: Vec::new(),
            ended: Vec::new(),
            progress: GenerationProgress::default(),
        }
    }

    /// Whether a waiting completion could begin now. A quarter of the places is kept free before
    /// prompts are computed again, so that they are computed several at a time.
    fn has_room(&self) -> bool {
        let places = self.params.max_running.max(1);
        self.next.0 < self.requests.len() && self.running.len() + places.div_ceil(4) <= places
    }

    /// Fills the free places with waiting completions, computing their prompts first. Returns
    /// whether anything runs.
    fn admit(&mut self, decoder: &Decoder, weights: &DecodeWeights) -> bool {
        let places = self.params.max_running.max(1);
        while self.running.len() < places {
            let (request, sample) = self.next;
            let Some(wanted) = self.requests.get(request) else { break };
            if sample == wanted.n {
                self.next = (request + 1, 0);
                while self.prompts.front().is_some_and(|(r, _)| *r <= request) {
                    self.prompts.pop_front();
                }
                continue;
            }
            if self.prompts.is_empty() {
                self.compute_prompts(decoder, weights, places - self.running.len());
            }
            self.begin(request, sample);
            self.next.1 += 1;
        }
        !self.running.is_empty()
    }

    /// Computes the prompts of the next completions, for at most `places` of them.
    ///
    /// All tokens but a prompt's last are only needed for their keys and values; the last one goes
    /// through a decoding step, which gives the logits of the first token of every completion.
    fn compute_prompts(&mut self, decoder: &Decoder, weights: &DecodeWeights, places: usize) {
        let mut sequences = 0;
        let mut batch = PackedBatch::default();
        let (mut requests, mut firsts) = (Vec::new(), Vec::new());
        for (index, request) in self.requests.iter().enumerate().skip(self.next.0) {
            let rows = batch.ids.len();
            if !requests.is_empty() && (rows + request.prompt.len() > PREFILL_ROWS || sequences >= places) {
                break;
            }
            let (_, earlier) = request.prompt.split_last().expect("prompts are not empty");
            if !earlier.is_empty() {
                batch.layout.push(earlier.len(), None);
            }
            batch.ids.extend(earlier);
            requests.push(index);
            firsts.push(rows..rows + earlier.len());
            sequences += request.n;
        }
        let nothing = Arc::new(KvPages::new(
            decoder.device(),
            decoder.config().n_layers,
            decoder.attention_shape(),
            decoder.arithmetic(),
        ));
        let mut prompts: Vec<_> = requests.iter().map(|_| KvSequence::after(nothing.clone())).collect();
        weights.keys_and_values(&batch, |layer, qkv| {
            let mut stored: Vec<_> = prompts.iter_mut().zip(&firsts).collect();
            decoder.device().at_once(&mut stored, |(prompt, rows)| {
                prompt.own.store(layer, qkv, rows.start, rows.len());
            });
        });
        for (prompt, rows) in prompts.iter_mut().zip(firsts) {
            prompt.own.advance(rows.len());
        }
        let last = |request: &usize| *self.requests[*request].prompt.last().expect("prompts are not empty");
        let last: Vec<u32> = requests.iter().map(last).collect();
        let logits = weights.step(&last, &mut prompts.iter_mut().collect::<Vec<_>>()).on_host();
        for (row, (request, prompt)) in requests.into_iter().zip(prompts).enumerate() {
            let prompt = Prompt { pages: Arc::new(prompt.own), logits: logits.gather_rows(&[row]) };
            self.prompts.push_back((request, prompt));
        }
    }

    /// Begins one completion: its first token comes from the prompt's logits.
    fn begin(&mut self, request: usize, sample: usize) {
        let (_, prompt) = self.prompts.iter().find(|(r, _)| *r == request).expect("the prompt is computed");
        let room = self.context - self.requests[request].prompt.len();
        let mut running = Running {
            request,
            sample,
            ids: Vec::new(),
            logprobs: Vec::new(),
            finish: Finish::Length,
            limit: self.params.max_new_tokens.min(room).max(1),
            kv: KvSequence::after(prompt.pages.clone()),
        };
        let drawn = self.draw_one(&running, &prompt.logits, 0);
        self.progress.tokens += 1;
        if self.push(&mut running, drawn) {
            self.finish(running);
        } else {
            self.running.push(running);
        }
    }

    /// The random number of a sequence's next token.
    fn uniform(&self, running: &Running) -> f64 {
        let request = &self.requests[running.request];
        let index = [request.stream[0], request.stream[1], running.sample as u64];
        self.randomness.uniform(index, running.ids.len() as u64)
    }

    /// Draws the next token of each sequence from its row of `logits`.
    fn draw(&self, running: &[Running], logits: Tensor) -> Vec<(u32, f32)> {
        let uniforms = || running.iter().map(|running| self.uniform(running)).collect();
        sample::sample_there(&logits, &self.sampling, uniforms).unwrap_or_else(|| {
            let logits = logits.on_host();
            let rows = running.par_iter().enumerate().with_min_len(4);
            rows.map(|(row, running)| self.draw_one(running, &logits, row)).collect()
        })
    }

    /// Draws the next token of a sequence from row `row` of `logits`.
    fn draw_one(&self, running: &Running, logits: &Tensor, row: usize) -> (u32, f32) {
        let (request, uniform) = (&self.requests[running.request], self.uniform(running));
        if self.sampling.repetition_penalty == 1.0 {
            return sample::sample_row(logits, row, &self.sampling, [], uniform);
        }
        let seen = request.prompt.iter().chain(&running.ids).copied();
        sample::sample_row(logits, row, &self.sampling, seen, uniform)
    }

    /// Appends a drawn token; returns whether the sequence has ended.
    fn push(&self, running: &mut Running, (token, logprob): (u32, f32)) -> bool {
        running.ids.push(token);
        running.logprobs.push(logprob);
        if self.params.stop_token_ids.contains(&token) {
            running.finish = Finish::Stop;
            return true;
        }
        running.ids.len() >= running.limit
    }

    fn finish(&mut self, running: Running) {
        self.progress.finished += 1;
        let Running { request, sample, ids, logprobs, finish, .. } = running;
        self.ended.push((request, sample, Completion { ids: ids.into(), logprobs, finish, version: 0 }));
    }

    /// Hands over what has ended, and says how far it is.
    fn tell(&mut self, receiver: &mut dyn Receiver) {
        for (request, sample, completion) in self.ended.drain(..) {
            receiver.receive(request, sample, completion);
        }
        receiver.progress(self.progress);
    }

    /// Takes some steps with every running sequence: all threads with all of them together, or, where
    /// there are enough, each thread with its own.
    fn advance(&mut self, weights: &DecodeWeights, stop: Stop) {
        let n_threads = weights.device().tasks_at_once();
        let mut waiting = std::mem::take(&mut self.running);
        let n_shares = if waiting.len() >= n_threads * SEQUENCES_OF_A_THREAD { n_threads } else { 1 };
        let n_each = waiting.len().div_ceil(n_shares);
        let mut shares = Vec::with_capacity(n_shares);
        while !waiting.is_empty() {
            let rest = waiting.split_off(n_each.min(waiting.len()));
            let running = std::mem::replace(&mut waiting, rest);
            shares.push(Share { running, ended: Vec::new(), tokens: 0 });
        }
        weights.device().at_once(&mut shares, |share| {
            // What was drawn is dropped when it stops, so threads may stop at different steps.
            for _ in (0..STEPS_OF_A_ROUND).take_while(|_| !stop.is_asked()) {
                self.step(weights, share);
            }
        });
        for share in shares {
            self.progress.tokens += share.tokens;
            self.running.extend(share.running);
            for ended in share.ended {
                self.finish(ended);
            }
        }
    }

    /// Computes the newest token of every sequence of a share and draws the next one.
    fn step(&self, weights: &DecodeWeights, share: &mut Share) {
        if share.running.is_empty() {
            return;
        }
        let steps = steps_alike(weights, &share.running);
        let ids: Vec<u32> = share.running.iter().map(Running::newest).collect();
        let mut sequences: Vec<_> = share.running.iter_mut().map(|r| &mut r.kv).collect();
        let logits = weights.device().counted(steps, || weights.step(&ids, &mut sequences));
        let drawn = self.draw(&share.running, logits);
        share.tokens += steps * drawn.len();
        for (mut running, drawn) in std::mem::take(&mut share.running).into_iter().zip(drawn) {
            // Their keys and values lie in pages that are there.
            running.kv.own.advance(steps - 1);
            (1..steps).for_each(|_| _ = self.push(&mut running, drawn));
            let ended = self.push(&mut running, drawn);
            if ended { &mut share.ended } else { &mut share.running }.push(running);
        }
    }
}
