//! A sampler behind servers.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rlt_model::Stop;
use rlt_model::generate::{Completion, GenerationProgress, GenerationRequest, Receiver, SamplingParams};

use super::answer::{Drawn, Expected};
use super::check::read_completions;
use super::connect::Served;
use super::pool::Question;
use super::request::{Draw, samples_of_ask, sampling};
use crate::error::{Error, Result};
use crate::sampler::Sampler;

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

/// Which completions one request of the servers is for.
#[derive(Debug, Clone, Copy)]
struct Piece {
    request: usize,
    first: usize,
}

/// Completions of one prompt that have not been handed over.
#[derive(Debug)]
struct Group {
    /// Answers that were kept before it was asked for.
    answered: u64,
    completions: Vec<Option<Completion>>,
}

impl ServerSampler {
    /// Cuts a request into those that the servers are asked, in order.
    fn draws(&self, request: &GenerationRequest) -> Result<(usize, Vec<Draw>)> {
        let (context, n_prompt) = (self.served.context, request.prompt.len());
        self.check_ids(&request.prompt)?;
        if n_prompt == 0 || n_prompt >= context {
            return Err(Error::Failed(format!(
                "a prompt of {n_prompt} tokens leaves no room to generate: prompts need 1 to {} tokens",
                context.saturating_sub(1)
            )));
        }
        let longest = self.params.max_new_tokens.min(context - n_prompt).max(1);
        let most = samples_of_ask(self.served.kind, request.n, longest).max(1);
        let draw = |first| {
            let n = most.min(request.n - first);
            Draw { seed: self.seed, stream: request.stream, first, n }
        };
        Ok((longest, (0..request.n).step_by(most).map(draw).collect()))
    }

    /// What a server is asked for one draw, and how its answer is read.
    fn question(&self, request: &GenerationRequest, longest: usize, draw: Draw) -> Question<Vec<Drawn>> {
        let (kind, model) = (self.served.kind, self.served.model.clone());
        let ask = sampling(kind, &model, &request.prompt, &self.params, longest, draw);
        let (prompt, stop_token_ids) = (request.prompt.clone(), self.params.stop_token_ids.clone());
        let vocab_size = self.served.vocab_size;
        let read = move |bytes: &[u8]| {
            let expected = Expected {
                model: &model,
                n: draw.n,
                prompt: &prompt,
                longest,
                stop_token_ids: &stop_token_ids,
                vocab_size,
            };
            read_completions(kind, bytes, &expected)
        };
        Question { ask, read: Box::new(read) }
    }

    /// Has all `requests` drawn and hands over what each piece of one came to, as soon as it is there; with how many
    /// requests are under way then. `begun` is told of every request before it is asked for.
    fn draw_all(
        &self,
        requests: &mut dyn Iterator<Item = Result<GenerationRequest>>,
        stop: Stop,
        begun: &dyn Fn(&GenerationRequest),
        done: &mut dyn FnMut(Piece, Vec<Completion>, usize) -> Result<()>,
    ) -> Result<()> {
        let check_label = || self.label.as_deref().map_or(Ok(()), |label| self.served.check_label(label));
        check_label()?;
        let pool = &self.served.pool;
        let open: RefCell<HashMap<usize, Piece>> = RefCell::default();
        let (mut n_requests, mut n_asked) = (0, 0);
        let mut waiting: VecDeque<Question<Vec<Drawn>>> = VecDeque::new();
        let mut next = || -> Result<Option<Question<Vec<Drawn>>>> {
            while waiting.is_empty() {
                let Some(request) = requests.next() else { return Ok(None) };
                let request = request?;
                begun(&request);
                let (longest, draws) = self.draws(&request)?;
                for draw in draws {
                    open.borrow_mut().insert(n_asked, Piece { request: n_requests, first: draw.first });
                    n_asked += 1;
                    waiting.push_back(self.question(&request, longest, draw));
                }
                n_requests += 1;
            }
            Ok(waiting.pop_front())
        };
        pool.run(&mut std::iter::from_fn(|| next().transpose()), stop, &mut |place, drawn: Vec<Drawn>| {
            let Some(piece) = open.borrow_mut().remove(&place) else { return Ok(()) };
            let completion = |Drawn { ids, logprobs, finish, .. }: Drawn| Completion {
                ids: ids.into(),
                logprobs,
                finish,
                version: self.version,
            };
            done(piece, drawn.into_iter().map(completion).collect(), pool.n_under_way())
        })?;
        check_label()
    }
}

/// Counts what was drawn.
fn count(progress: &mut GenerationProgress, completions: &[Completion], under_way: usize) {
    progress.finished += completions.len();
    progress.tokens += completions.iter().map(|completion| completion.ids.len()).sum::<usize>();
    progress.under_way = under_way;
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

    fn version(&self) -> u64 {
        self.version
    }

    fn sample_each(
        &self,
        requests: &[GenerationRequest],
        stop: Stop,
        receiver: &mut dyn Receiver,
    ) -> Result<()> {
        let mut progress = GenerationProgress::default();
        let mut requests = requests.iter().cloned().map(Ok);
        self.draw_all(&mut requests, stop, &|_| (), &mut |piece, completions, under_way| {
            count(&mut progress, &completions, under_way);
            for (at, completion) in completions.into_iter().enumerate() {
                receiver.receive(piece.request, piece.first + at, completion);
            }
            receiver.progress(progress);
            Ok(())
        })
    }

    /// Requests follow each other without a pause: the next are asked while the last are answered. What was handed over
    /// is kept by whoever took it.
    fn sample_in_order(
        &self,
        requests: &mut dyn Iterator<Item = Result<GenerationRequest>>,
        stop: Stop,
        on_progress: &mut (dyn FnMut(GenerationProgress) + Send),
        take: &mut dyn FnMut(Vec<Vec<Completion>>) -> Result<()>,
    ) -> Result<()> {
        let pool = &self.served.pool;
        let mut progress = GenerationProgress::default();
        // Of the requests from `n_taken` on.
        let groups: RefCell<VecDeque<Group>> = RefCell::default();
        let mut n_taken = 0;
        let begun = |request: &GenerationRequest| {
            let group = Group { answered: pool.answered(), completions: vec![None; request.n] };
            groups.borrow_mut().push_back(group);
        };
        self.draw_all(requests, stop, &begun, &mut |piece, completions, under_way| {
            count(&mut progress, &completions, under_way);
            on_progress(progress);
            let mut complete = Vec::new();
            let released = {
                let mut groups = groups.borrow_mut();
                let group = &mut groups[piece.request - n_taken].completions;
                for (at, completion) in completions.into_iter().enumerate() {
                    group[piece.first + at] = Some(completion);
                }
                while groups.front().is_some_and(|group| group.completions.iter().all(Option::is_some)) {
                    complete.extend(
                        groups.pop_front().map(|group| group.completions.into_iter().flatten().collect()),
                    );
                }
                groups.front().map_or_else(|| pool.answered(), |group| group.answered)
            };
            if complete.is_empty() {
                return Ok(());
            }
            n_taken += complete.len();
            take(complete)?;
            pool.release(released)
        })
    }
}
