//! What can say how likely given tokens are: a model, or a table in tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rlt_engine::head::TokenLogprob;
#[cfg(test)]
use rlt_model::batch::Continuation;
use rlt_model::batch::ScoringGroup;
use rlt_model::{Decoder, ScoredStates, Stop};

use crate::error::{Error, Result};

/// Gives log-probabilities of given tokens.
pub trait Scorer: Sync {
    /// Longest sequence (prefix and continuation together), tokens.
    fn context_tokens(&self) -> usize;

    /// log p(token | everything before it) at `temperature`, in nats, for every scored position:
    /// `[group][continuation][scored token, in order]`. About `tokens_per_batch` tokens are computed at a
    /// time; the results do not depend on it.
    ///
    /// # Errors
    /// What the implementation reports, for a sequence longer than the context for example.
    fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        tokens_per_batch: usize,
    ) -> Result<Vec<Vec<Vec<f32>>>>;

    /// Tokens to hand over at once where about `tokens_per_batch` may be computed at a time here.
    fn tokens_at_once(&self, tokens_per_batch: usize) -> usize {
        tokens_per_batch
    }

    /// Calls to make at the same time, from several threads: more than one where others compute and calls wait.
    fn calls_at_once(&self) -> usize {
        1
    }

    /// How many answers it has kept until they stand in rows: none where they are computed.
    fn answered(&self) -> u64 {
        0
    }

    /// The first `n` of the answers that it keeps stand in rows.
    ///
    /// # Errors
    /// Where they are kept cannot be written.
    fn release(&self, _n: u64) -> Result<()> {
        Ok(())
    }

    /// As [`Self::token_logprobs`], with the log-probability of the most likely token in the place of each.
    ///
    /// # Errors
    /// As there; [`Error::Usage`] from whatever is told of given tokens alone.
    fn token_logprobs_beside_best(
        &self,
        _groups: &[ScoringGroup],
        _temperature: f32,
        _tokens_per_batch: usize,
    ) -> Result<Vec<Vec<Vec<TokenLogprob>>>> {
        let what = "reward.kind = \"pedagogical\" needs the log-probability of the most likely token beside that of the given one, \
                    and what scores here gives the latter only; let the student be computed here";
        Err(Error::Usage(what.into()))
    }

    /// The whole distributions before every scored token, as hidden states: group by group, continuation by
    /// continuation. All of them are held; give it about `tokens_per_batch` tokens at a time.
    ///
    /// # Errors
    /// As [`Self::token_logprobs`]; [`Error::Usage`] from whatever knows no hidden states.
    fn scored_states(&self, _groups: &[ScoringGroup], _tokens_per_batch: usize) -> Result<ScoredStates<'_>> {
        let what = "reward.kl = \"full\" needs hidden states, and what scores here gives log-probabilities only; choose \
                    another reward.kl";
        Err(Error::Usage(what.into()))
    }
}

/// A scorer that several threads ask, one at a time where it does not take more.
pub(crate) struct InTurn<'a> {
    scorer: &'a dyn Scorer,
    turn: Mutex<()>,
}

impl<'a> InTurn<'a> {
    /// Of `scorer`.
    pub fn of(scorer: &'a dyn Scorer) -> Self {
        Self { scorer, turn: Mutex::new(()) }
    }

    fn wait(&self) -> Option<MutexGuard<'_, ()>> {
        let is_alone = self.scorer.calls_at_once() <= 1;
        is_alone.then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Scorer for InTurn<'_> {
    fn context_tokens(&self) -> usize {
        self.scorer.context_tokens()
    }

    fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        tokens_per_batch: usize,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let _turn = self.wait();
        self.scorer.token_logprobs(groups, temperature, tokens_per_batch)
    }

    fn tokens_at_once(&self, tokens_per_batch: usize) -> usize {
        self.scorer.tokens_at_once(tokens_per_batch)
    }

    fn scored_states(&self, groups: &[ScoringGroup], tokens_per_batch: usize) -> Result<ScoredStates<'_>> {
        let _turn = self.wait();
        self.scorer.scored_states(groups, tokens_per_batch)
    }
}

/// A model that is asked to stop between the parts of what it scores.
#[derive(Debug, Clone, Copy)]
pub struct Stoppable<'a>(pub &'a Decoder, pub Stop<'a>);

impl Scorer for Stoppable<'_> {
    fn context_tokens(&self) -> usize {
        self.0.context_tokens()
    }

    fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        tokens_per_batch: usize,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        Ok(self.0.token_logprobs_unless(self.1, groups, temperature, tokens_per_batch)?)
    }

    fn token_logprobs_beside_best(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        tokens_per_batch: usize,
    ) -> Result<Vec<Vec<Vec<TokenLogprob>>>> {
        Ok(self.0.token_logprobs_beside_best(self.1, groups, temperature, tokens_per_batch)?)
    }

    fn scored_states(&self, groups: &[ScoringGroup], tokens_per_batch: usize) -> Result<ScoredStates<'_>> {
        Ok(Decoder::scored_states(self.0, self.1, groups, tokens_per_batch)?)
    }
}

impl Scorer for Decoder {
    fn context_tokens(&self) -> usize {
        self.config().context()
    }

    fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        tokens_per_batch: usize,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        Ok(Decoder::token_logprobs(self, groups, temperature, tokens_per_batch)?)
    }

    fn scored_states(&self, groups: &[ScoringGroup], tokens_per_batch: usize) -> Result<ScoredStates<'_>> {
        Ok(Decoder::scored_states(self, Stop::never(), groups, tokens_per_batch)?)
    }
}

/// A "model" whose log-probability of a token depends on the token and the temperature alone.
#[cfg(test)]
pub(crate) struct TokenTable {
    /// Log-probability by token id at temperature 1, nats.
    pub logprobs: fn(u32) -> f32,
    /// See [`Scorer::context_tokens`].
    pub context_tokens: usize,
}

#[cfg(test)]
impl Scorer for TokenTable {
    fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        _tokens_per_batch: usize,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let score = |continuation: &Continuation| {
            wanted(continuation).into_iter().map(|id| (self.logprobs)(id) / temperature).collect()
        };
        Ok(groups.iter().map(|group| group.continuations.iter().map(score).collect()).collect())
    }

    /// One state for every position, whose output matrix is the table: normalised over [`TABLE_TOKENS`].
    fn scored_states(&self, groups: &[ScoringGroup], _tokens_per_batch: usize) -> Result<ScoredStates<'_>> {
        use rlt_engine::Tensor;
        let continuations = groups.iter().flat_map(|group| &group.continuations);
        let targets: Vec<u32> = continuations.flat_map(wanted).collect();
        let table = (0..TABLE_TOKENS).map(self.logprobs).collect();
        let w = Tensor::from_vec(TABLE_TOKENS as usize, 1, table);
        Ok(ScoredStates::new(Tensor::full(targets.len(), 1, 1.0), targets, std::borrow::Cow::Owned(w)))
    }
}

/// The scored tokens.
#[cfg(test)]
fn wanted(continuation: &Continuation) -> Vec<u32> {
    let tokens: Vec<u32> = continuation.tokens().collect();
    continuation.scored.iter().cloned().flatten().map(|at| tokens[at]).collect()
}

/// Tokens of a [`TokenTable`]'s whole distribution.
#[cfg(test)]
pub(crate) const TABLE_TOKENS: u32 = 512;
