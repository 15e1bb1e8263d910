//! Who draws completions: prompts in, completions with their log-probabilities out.
//!
//! Whatever samples stands behind [`Sampler`]: the own engine ([`DecoderSampler`]), a script in tests, or a server. It
//! speaks ids only and answers for one policy, the one that [`Sampler::version`] names. Where a policy changes, in
//! training, a [`SamplingEngine`] follows its updates and gives the sampler of each.

use rlt_model::generate::{
    AllCompletions, Completion, GenerationProgress, GenerationRequest, Receiver, SamplingParams,
    generate_each,
};
use rlt_model::{Decoder, Stop};

use crate::error::Result;
use crate::progress::Progress;

/// Draws completions of one policy.
pub trait Sampler {
    /// Longest sequence, prompt and completion together, tokens.
    fn context_tokens(&self) -> usize;

    /// Refuses ids that the policy does not know.
    ///
    /// # Errors
    /// Naming the id.
    fn check_ids(&self, ids: &[u32]) -> Result<()>;

    /// How many completions it works on at the same time.
    fn n_running(&self) -> usize;

    /// Prompts to hand over at once when each is completed `n` times: enough that finished sequences are
    /// replaced by waiting ones most of the time.
    fn prompts_at_once(&self, n: usize) -> usize {
        (8 * self.n_running()).div_ceil(n.max(1))
    }

    /// Which policy draws: how many steps it has learnt from.
    fn version(&self) -> u64;

    /// Draws `n` completions of every request and hands each over as soon as it has ended. Draws depend on the
    /// request's key and on the sample's index alone, never on what else is asked for.
    ///
    /// Log-probabilities are those that training computes for the same tokens: at the temperature, over the whole
    /// vocabulary.
    ///
    /// # Errors
    /// For a prompt that is empty, too long or has an unknown id; [`rlt_model::Error::Stopped`] once it is asked to stop:
    /// what had ended was handed over, the rest is lost.
    fn sample_each(
        &self,
        requests: &[GenerationRequest],
        stop: Stop,
        receiver: &mut dyn Receiver,
    ) -> Result<()>;

    /// Draws completions of all that `requests` gives, however many that are, and hands them to `take` in the order of the
    /// requests: `[request][sample]` of the next ones, as soon as they are complete. Requests are asked for as they are
    /// needed, a bounded number ahead. `on_progress` hears what was drawn since the call began.
    ///
    /// # Errors
    /// As [`Self::sample_each`], and what `requests` and `take` report; what was complete by then was handed over.
    fn sample_in_order(
        &self,
        requests: &mut dyn Iterator<Item = Result<GenerationRequest>>,
        stop: Stop,
        on_progress: &mut (dyn FnMut(GenerationProgress) + Send),
        take: &mut dyn FnMut(Vec<Vec<Completion>>) -> Result<()>,
    ) -> Result<()> {
        let mut done = GenerationProgress::default();
        loop {
            let Some(first) = requests.next().transpose()? else { return Ok(()) };
            let more = self.prompts_at_once(first.n).saturating_sub(1);
            let batch = std::iter::once(Ok(first)).chain(requests.take(more)).collect::<Result<Vec<_>>>()?;
            let mut of_batch = |now: GenerationProgress| {
                let (finished, tokens) = (done.finished + now.finished, done.tokens + now.tokens);
                on_progress(GenerationProgress { finished, tokens, ..now });
            };
            let mut all = AllCompletions::of(&batch, &mut of_batch);
            let outcome = self.sample_each(&batch, stop, &mut all);
            let completions = all.into_complete();
            let drawn = completions.iter().flatten();
            done.finished += drawn.clone().count();
            done.tokens += drawn.map(|completion| completion.ids.len()).sum::<usize>();
            if !completions.is_empty() {
                take(completions)?;
            }
            outcome?;
        }
    }

    /// All completions of a call, `[request][sample]`.
    ///
    /// # Errors
    /// As [`Self::sample_each`].
    fn sample(&self, requests: &[GenerationRequest], stop: Stop) -> Result<Vec<Vec<Completion>>> {
        let mut silent = |_: GenerationProgress| ();
        let mut all = AllCompletions::of(requests, &mut silent);
        self.sample_each(requests, stop, &mut all)?;
        Ok(all.into_completions())
    }
}

/// Gives samplers of a policy while it is trained.
pub trait SamplingEngine {
    /// The policy has learnt from `version` steps: what is sampled from here on is drawn by these weights.
    ///
    /// # Errors
    /// The weights did not arrive where sampling happens.
    fn refresh(&mut self, policy: &Decoder, version: u64) -> Result<()>;

    /// Looked at once, after the first refresh: whether what is drawn is what training needs.
    ///
    /// # Errors
    /// Why it is not.
    fn begin(&self, _progress: &dyn Progress) -> Result<()> {
        Ok(())
    }

    /// The sampler of the policy as it was at the last refresh; `policy` is that policy, for whoever computes here.
    fn sampler<'a>(&'a self, policy: &'a Decoder) -> Box<dyn Sampler + 'a>;

    /// Begins to draw completions of `requests` by the weights of the last refresh, while the policy learns. Whoever cannot
    /// do both at a time leaves it.
    fn draw_ahead(&mut self, _requests: Vec<GenerationRequest>) {}

    /// What was drawn ahead for these very `requests`, waited for; none where nothing was.
    ///
    /// # Errors
    /// As [`Sampler::sample_each`].
    fn drawn_ahead(
        &mut self,
        _requests: &[GenerationRequest],
        _stop: Stop,
    ) -> Option<Result<Vec<Vec<Completion>>>> {
        None
    }

    /// What the last refresh came to, where others draw: their log-probabilities are not those that the policy computes here.
    fn followers(&self) -> Option<Followers> {
        None
    }
}

/// Servers that follow a policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Followers {
    /// Seconds until the last had the weights of the last refresh, and proved it.
    pub sync_s: f64,
    /// Requests that were asked again since they were first asked anything.
    pub n_retries: usize,
}

/// The own engine with a model's weights.
#[derive(Debug)]
pub struct DecoderSampler<'a> {
    /// The model.
    pub decoder: &'a Decoder,
    /// How tokens are drawn.
    pub params: SamplingParams,
    /// Seed of every draw.
    pub seed: u64,
    /// See [`Sampler::version`].
    pub version: u64,
}

impl Sampler for DecoderSampler<'_> {
    fn context_tokens(&self) -> usize {
        self.decoder.config().context()
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        Ok(self.decoder.check_ids(ids.iter().copied())?)
    }

    fn n_running(&self) -> usize {
        self.params.max_running
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
        let receiver = &mut OfVersion { version: self.version, receiver };
        Ok(generate_each(self.decoder, requests, &self.params, self.seed, stop, receiver)?)
    }
}

/// Notes on every completion which policy drew it.
struct OfVersion<'a> {
    version: u64,
    receiver: &'a mut dyn Receiver,
}

impl Receiver for OfVersion<'_> {
    fn receive(&mut self, request: usize, sample: usize, completion: Completion) {
        self.receiver.receive(request, sample, Completion { version: self.version, ..completion });
    }

    fn progress(&mut self, progress: GenerationProgress) {
        self.receiver.progress(progress);
    }
}

/// The own engine, which computes with the very weights that are trained: a refresh moves nothing.
#[derive(Debug)]
pub struct OwnEngine {
    params: SamplingParams,
    seed: u64,
    version: u64,
}

impl OwnEngine {
    /// Draws as `params` and `seed` say.
    pub fn new(params: SamplingParams, seed: u64) -> Self {
        Self { params, seed, version: 0 }
    }
}

impl SamplingEngine for OwnEngine {
    fn refresh(&mut self, _policy: &Decoder, version: u64) -> Result<()> {
        self.version = version;
        Ok(())
    }

    fn sampler<'a>(&'a self, policy: &'a Decoder) -> Box<dyn Sampler + 'a> {
        let Self { params, seed, version } = self;
        Box::new(DecoderSampler { decoder: policy, params: params.clone(), seed: *seed, version: *version })
    }
}

/// A "model" that writes what a script says, whatever it is asked.
#[cfg(test)]
pub(crate) struct ScriptedSampler {
    /// The ids of sample `[1]` of a request with the key `[0]`.
    pub answer: fn([u64; 2], usize) -> Vec<u32>,
    /// See [`Sampler::version`].
    pub version: u64,
    /// Completions after which it stops, as if it was asked to.
    pub stops_after: usize,
}

#[cfg(test)]
impl Sampler for ScriptedSampler {
    fn context_tokens(&self) -> usize {
        4096
    }

    fn check_ids(&self, _ids: &[u32]) -> Result<()> {
        Ok(())
    }

    fn n_running(&self) -> usize {
        4
    }

    fn version(&self) -> u64 {
        self.version
    }

    /// The last request's completions end first, as far as that is possible.
    fn sample_each(
        &self,
        requests: &[GenerationRequest],
        _stop: Stop,
        receiver: &mut dyn Receiver,
    ) -> Result<()> {
        let places = requests.iter().enumerate().flat_map(|(r, request)| (0..request.n).map(move |s| (r, s)));
        let places: Vec<(usize, usize)> = places.collect();
        for &(request, sample) in places.iter().take(self.stops_after).rev() {
            let ids = (self.answer)(requests[request].stream, sample);
            let completion = Completion {
                logprobs: vec![-0.5; ids.len()],
                ids: ids.into(),
                finish: rlt_model::generate::Finish::Stop,
                version: self.version,
            };
            receiver.receive(request, sample, completion);
        }
        if places.len() > self.stops_after { Err(rlt_model::Error::Stopped.into()) } else { Ok(()) }
    }
}
