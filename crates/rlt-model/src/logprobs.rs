//! Log-probabilities of given tokens.

use rlt_engine::Tensor;
use rlt_engine::head::{self, OutputMatrix, TokenLogprob};

use crate::batch::{Continuation, PackedBatch, ScoringGroup, micro_batches};
use crate::decoder::Decoder;
use crate::stop::Stop;

/// What is said of given tokens after given hidden states, at a temperature.
type Head<T> = fn(&Tensor, &[usize], OutputMatrix, &[u32], f32) -> Vec<T>;

impl Decoder {
    /// Log-probabilities (nats) of the batch's scored tokens at `temperature`, in order.
    pub fn logprobs(&self, batch: &PackedBatch, temperature: f32) -> Vec<f32> {
        self.of_scored(batch, temperature, head::token_logprobs)
    }

    /// What `head` says of the batch's scored tokens, in order.
    fn of_scored<T: Send>(&self, batch: &PackedBatch, temperature: f32, head: Head<T>) -> Vec<T> {
        // Inside the pool: a call from outside would wake and await a worker at every operation.
        rayon::scope(|_| {
            let hidden = self.hidden_states(batch);
            let head_weight = self.head_weight();
            let w = self.output_matrix(&head_weight);
            head(&hidden, &batch.rows, w, &batch.targets, temperature)
        })
    }

    /// Log-probabilities (nats) of the scored tokens of `groups` at `temperature`:
    /// `[group][continuation][scored token, in order]`. About `max_rows` rows are computed at a
    /// time, which bounds the memory and does not change the results beyond rounding.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] when a sequence is longer than the context, has a token beyond the
    /// vocabulary, or asks for a token that nothing predicts.
    pub fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        max_rows: usize,
    ) -> crate::Result<Vec<Vec<Vec<f32>>>> {
        self.token_logprobs_unless(Stop::never(), groups, temperature, max_rows)
    }

    /// As [`Self::token_logprobs`], unless it is asked to stop between two parts.
    ///
    /// # Errors
    /// As there, and [`crate::Error::Stopped`].
    pub fn token_logprobs_unless(
        &self,
        stop: Stop,
        groups: &[ScoringGroup],
        temperature: f32,
        max_rows: usize,
    ) -> crate::Result<Vec<Vec<Vec<f32>>>> {
        self.of_groups(stop, groups, temperature, max_rows, head::token_logprobs)
    }

    /// As [`Self::token_logprobs_unless`], with the log-probability of the most likely token beside that of each scored one.
    ///
    /// # Errors
    /// As there.
    pub fn token_logprobs_beside_best(
        &self,
        stop: Stop,
        groups: &[ScoringGroup],
        temperature: f32,
        max_rows: usize,
    ) -> crate::Result<Vec<Vec<Vec<TokenLogprob>>>> {
        self.of_groups(stop, groups, temperature, max_rows, head::token_logprobs_beside_best)
    }

    /// What `head` says of the scored tokens: `[group][continuation][scored token, in order]`.
    fn of_groups<T: Send>(
        &self,
        stop: Stop,
        groups: &[ScoringGroup],
        temperature: f32,
        max_rows: usize,
        head: Head<T>,
    ) -> crate::Result<Vec<Vec<Vec<T>>>> {
        self.check_groups(groups)?;
        let mut flat = Vec::new();
        for part in micro_batches(groups, max_rows) {
            stop.check()?;
            flat.extend(self.of_scored(&PackedBatch::new(&part), temperature, head));
        }
        let mut rest = flat.into_iter();
        let mut of = |c: &Continuation| rest.by_ref().take(c.n_scored()).collect();
        Ok(groups.iter().map(|g| g.continuations.iter().map(&mut of).collect()).collect())
    }
}
