//! Log-probabilities that all ranks compute.

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::{Error as ModelError, ScoredStates};
use rlt_ranks::Ranks;

use super::message::{Logprobs, Order, Scored, Scoring, from_bytes, to_bytes};
use super::order::{collect, order};
use super::share::share;
use crate::error::{Error, Result};
use crate::scorer::Scorer;

/// Which model scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The one that writes explanations.
    Teacher,
    /// The one that reads them.
    Student,
}

/// A scorer whose groups are dealt to all ranks, one call after the other. It stands on rank 0. Hidden states are computed on rank 0 alone: they would
/// take longer on their way than to compute.
pub struct DealtScorer<'a> {
    /// Scores this rank's share.
    pub own: &'a dyn Scorer,
    /// Which of the models that every rank holds.
    pub whose: Whose,
    /// Who else scores.
    pub ranks: &'a Ranks,
}

impl DealtScorer<'_> {
    /// What scores: all ranks, or this one where it is alone.
    pub fn scorer(&self) -> &dyn Scorer {
        if self.ranks.size() > 1 { self } else { self.own }
    }
}

impl Scorer for DealtScorer<'_> {
    fn context_tokens(&self) -> usize {
        self.own.context_tokens()
    }

    fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        tokens_per_batch: usize,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let model = self.whose as u32;
        let scoring = Scoring { model, temperature, tokens_per_batch, groups: groups.to_vec() };
        order(self.ranks, &Order::Score(scoring))?;
        let own = score(self.own, self.ranks, groups, temperature, tokens_per_batch);
        let own = own.map(|scored| to_bytes(&scored));
        let all = collect(self.ranks, own)?;
        let mut is_any_stopped = false;
        let mut scored: Vec<Option<Vec<Vec<f32>>>> = vec![None; groups.len()];
        for (rank, bytes) in all.into_iter().enumerate() {
            let Scored { logprobs, is_stopped } = from_bytes(&bytes)?;
            is_any_stopped |= is_stopped;
            let places = share(&sizes(groups), rank, self.ranks.size());
            for (place, logprobs) in places.into_iter().zip(logprobs) {
                scored[place] = Some(logprobs);
            }
        }
        if is_any_stopped {
            return Err(ModelError::Stopped.into());
        }
        let complete: Option<Vec<_>> = scored.into_iter().collect();
        let is_whole = |all: &Vec<Vec<Vec<f32>>>| {
            all.iter().zip(groups).all(|(scored, group)| {
                scored.len() == group.continuations.len()
                    && scored.iter().zip(&group.continuations).all(|(scored, c)| scored.len() == n_scored(c))
            })
        };
        let missing = || Error::Failed("a rank has not scored all of its share".into());
        complete.filter(is_whole).ok_or_else(missing)
    }

    fn tokens_at_once(&self, tokens_per_batch: usize) -> usize {
        self.own.tokens_at_once(tokens_per_batch)
    }

    fn answered(&self) -> u64 {
        self.own.answered()
    }

    fn release(&self, n: u64) -> Result<()> {
        self.own.release(n)
    }

    fn scored_states(&self, groups: &[ScoringGroup], tokens_per_batch: usize) -> Result<ScoredStates<'_>> {
        self.own.scored_states(groups, tokens_per_batch)
    }
}

fn n_scored(continuation: &Continuation) -> usize {
    continuation.scored.iter().map(std::ops::Range::len).sum()
}

fn sizes(groups: &[ScoringGroup]) -> Vec<usize> {
    let n_tokens = |group: &ScoringGroup| {
        group.prefix.len() + group.continuations.iter().map(Continuation::n_tokens).sum::<usize>()
    };
    groups.iter().map(n_tokens).collect()
}

/// Scores the share of this rank.
pub(super) fn score(
    scorer: &dyn Scorer,
    ranks: &Ranks,
    groups: &[ScoringGroup],
    temperature: f32,
    tokens_per_batch: usize,
) -> Result<Scored> {
    let places = share(&sizes(groups), ranks.rank(), ranks.size());
    let own: Vec<ScoringGroup> = places.into_iter().map(|place| groups[place].clone()).collect();
    if own.is_empty() {
        return Ok(Scored { logprobs: Logprobs::new(), is_stopped: false });
    }
    match scorer.token_logprobs(&own, temperature, tokens_per_batch) {
        Ok(logprobs) => Ok(Scored { logprobs, is_stopped: false }),
        Err(Error::Model(ModelError::Stopped)) => Ok(Scored { logprobs: Logprobs::new(), is_stopped: true }),
        Err(error) => Err(error),
    }
}
