//! A sampler behind servers.

use std::sync::Arc;

use rlt_model::Stop;
use rlt_model::generate::{Completion, GenerationProgress, GenerationRequest, Receiver, SamplingParams};
use rlt_model::ids::TokenIds;

use super::answer::{Drawn, Expected};
use super::check::read_completions;
use super::connect::Served;
use super::pool::Reader;
use super::request::{Draw, samples_of_ask, sampling};
use crate::error::{Error, Result};
use crate::sampler::Sampler;

/// Requests for every one that can be under way that are handed over together: enough that the end of one lot costs little.
const LOTS: usize = 8;

/// Draws completions on servers.
#[derive(Debug, Clone)]
pub struct ServerSampler {
    /// Who draws.
    pub served: Arc<Served>,
    /// How tokens are drawn.
    pub params: SamplingParams,
    /// Seed of every draw.
    pub seed: u64,
    /// See [`Sampler::version`].
    pub version: u64,
    /// What servers call the weights of that version, where they were given them: it is looked at before and after a call.
    pub label: Option<String>,
}

/// What one request of the servers is for.
#[derive(Debug, Clone)]
struct Piece {
    request: usize,
    prompt: TokenIds,
    draw: Draw,
    longest: usize,
}

impl ServerSampler {
    /// Cuts requests into those that the servers are asked, in order.
    fn pieces(&self, requests: &[GenerationRequest]) -> Result<Vec<Piece>> {
        let context = self.served.context;
        let mut pieces = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            let (prompt, n_prompt) = (&request.prompt, request.prompt.len());
            self.check_ids(prompt)?;
            if n_prompt == 0 || n_prompt >= context {
                return Err(Error::Failed(format!(
                    "a prompt of {n_prompt} tokens leaves no room to generate: prompts need 1 to {} tokens",
                    context.saturating_sub(1)
                )));
            }
            let longest = self.params.max_new_tokens.min(context - n_prompt).max(1);
            let most = samples_of_ask(self.served.kind, request.n, longest).max(1);
            for first in (0..request.n).step_by(most) {
                let n = most.min(request.n - first);
                let draw = Draw { seed: self.seed, stream: request.stream, first, n };
                pieces.push(Piece { request: index, prompt: prompt.clone(), draw, longest });
            }
        }
        Ok(pieces)
    }
}

impl Sampler for ServerSampler {
    fn context_tokens(&self) -> usize {
        self.served.context
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        Ok(self.served.config().check_ids(ids.iter().copied(), self.served.context)?)
    }

    fn n_running(&self) -> usize {
        self.served.pool.capacity()
    }

    fn prompts_at_once(&self, n: usize) -> usize {
        let most = samples_of_ask(self.served.kind, n, self.params.max_new_tokens).max(1);
        (LOTS * self.served.pool.capacity()).div_ceil(n.div_ceil(most).max(1))
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn sample_each(
        &self,
        requests: &[GenerationRequest],
        stop: Stop,
        receiver: &mut dyn Receiver,
    ) -> Result<()> {
        let pieces = Arc::new(self.pieces(requests)?);
        let check_label = || self.label.as_deref().map_or(Ok(()), |label| self.served.check_label(label));
        check_label()?;
        let (kind, model) = (self.served.kind, self.served.model.as_str());
        let ask =
            |piece: &Piece| sampling(kind, model, &piece.prompt, &self.params, piece.longest, piece.draw);
        let read: Arc<Reader<Vec<Drawn>>> = {
            let (pieces, model) = (pieces.clone(), model.to_owned());
            let (stop_token_ids, vocab_size) = (self.params.stop_token_ids.clone(), self.served.vocab_size);
            Arc::new(move |place, bytes| {
                let Piece { prompt, draw, longest, .. } = &pieces[place];
                let expected = Expected {
                    model: &model,
                    n: draw.n,
                    prompt,
                    longest: *longest,
                    stop_token_ids: &stop_token_ids,
                    vocab_size,
                };
                read_completions(kind, bytes, &expected)
            })
        };
        let mut progress = GenerationProgress::default();
        let pool = &self.served.pool;
        pool.run(&mut pieces.iter().map(ask), &read, stop, &mut |place, drawn| {
            let Piece { request, draw, .. } = &pieces[place];
            for (at, Drawn { ids, logprobs, finish, .. }) in drawn.into_iter().enumerate() {
                progress.finished += 1;
                progress.tokens += ids.len();
                let completion = Completion { ids: ids.into(), logprobs, finish, version: self.version };
                receiver.receive(*request, draw.first + at, completion);
            }
            progress.under_way = pool.n_under_way();
            receiver.progress(progress);
        })?;
        check_label()
    }
}
