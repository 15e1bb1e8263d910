//! Completions that all ranks draw.

use rlt_model::generate::{Completion, GenerationProgress, GenerationRequest, Receiver};
use rlt_model::{Error as ModelError, Stop};
use rlt_ranks::Ranks;

use super::message::{Order, Placed, Sampled, from_bytes, to_bytes};
use super::order::{collect, order};
use super::share::share;
use crate::error::{Error, Result};
use crate::sampler::Sampler;

/// A sampler whose requests are dealt to all ranks. It stands on rank 0.
pub struct DealtSampler<'a> {
    /// Draws this rank's share.
    pub own: &'a dyn Sampler,
    /// Who else draws.
    pub ranks: &'a Ranks,
}

impl DealtSampler<'_> {
    /// What samples: all ranks, or this one where it is alone.
    pub fn sampler(&self) -> &dyn Sampler {
        if self.ranks.size() > 1 { self } else { self.own }
    }
}

impl Sampler for DealtSampler<'_> {
    fn context_tokens(&self) -> usize {
        self.own.context_tokens()
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        self.own.check_ids(ids)
    }

    fn n_running(&self) -> usize {
        self.own.n_running() * self.ranks.size()
    }

    fn version(&self) -> u64 {
        self.own.version()
    }

    /// Completions of other ranks are handed over when all ranks have drawn theirs.
    fn sample_each(
        &self,
        requests: &[GenerationRequest],
        stop: Stop,
        receiver: &mut dyn Receiver,
    ) -> Result<()> {
        order(self.ranks, &Order::Sample(requests.to_vec()))?;
        let mut own = Drawn::of_all_ranks(receiver, self.ranks.size());
        let drawn = draw(self.own, self.ranks, requests, stop, &mut own);
        let others = collect(self.ranks, drawn.map(|sampled| to_bytes(&sampled)))?;
        let mut is_stopped = false;
        for bytes in others {
            let sampled: Sampled = from_bytes(&bytes)?;
            is_stopped |= sampled.is_stopped;
            for Placed { request, sample, completion } in sampled.completions {
                let known = requests.get(request).is_some_and(|request| sample < request.n);
                if !known {
                    return Err(Error::Failed("a rank has drawn what nobody asked for".into()));
                }
                receiver.receive(request, sample, completion);
            }
        }
        if is_stopped { Err(ModelError::Stopped.into()) } else { Ok(()) }
    }
}

/// Draws the share of this rank.
pub(super) fn draw(
    sampler: &dyn Sampler,
    ranks: &Ranks,
    requests: &[GenerationRequest],
    stop: Stop,
    drawn: &mut Drawn,
) -> Result<Sampled> {
    let sizes: Vec<usize> = requests.iter().map(|request| request.n).collect();
    let places = share(&sizes, ranks.rank(), ranks.size());
    let own: Vec<GenerationRequest> = places.iter().map(|&place| requests[place].clone()).collect();
    drawn.places = places;
    let is_stopped = match sampler.sample_each(&own, stop, drawn) {
        Ok(()) => false,
        Err(Error::Model(ModelError::Stopped)) => true,
        Err(error) => return Err(error),
    };
    Ok(Sampled { completions: std::mem::take(&mut drawn.completions), is_stopped })
}

/// Takes this rank's completions.
pub(super) struct Drawn<'a> {
    /// Of this rank's requests among all.
    places: Vec<usize>,
    completions: Vec<Placed>,
    /// Who watches, and how many ranks draw as much as this one.
    watcher: Option<(&'a mut dyn Receiver, usize)>,
}

impl<'a> Drawn<'a> {
    /// Shows progress as if all ranks were as far as this one.
    fn of_all_ranks(watcher: &'a mut dyn Receiver, ranks: usize) -> Self {
        Self { places: Vec::new(), completions: Vec::new(), watcher: Some((watcher, ranks)) }
    }

    /// Unwatched.
    pub fn silent() -> Self {
        Self { places: Vec::new(), completions: Vec::new(), watcher: None }
    }
}

impl Receiver for Drawn<'_> {
    fn receive(&mut self, request: usize, sample: usize, completion: Completion) {
        self.completions.push(Placed { request: self.places[request], sample, completion });
    }

    fn progress(&mut self, progress: GenerationProgress) {
        if let Some((watcher, ranks)) = &mut self.watcher {
            let tokens = progress.tokens * *ranks;
            watcher.progress(GenerationProgress { tokens, ..progress });
        }
    }
}
