//! A scorer behind servers.

use std::sync::Arc;

use rlt_model::Stop;
use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::ids::TokenIds;

use super::check::read_scores;
use super::connect::Served;
use super::pool::Reader;
use super::request::scoring;
use crate::config::ServerKind;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::scorer::Scorer;

/// Gives log-probabilities of given tokens, at temperature 1.
#[derive(Clone)]
pub struct ServerScorer<'a> {
    /// Who scores.
    pub served: Arc<Served>,
    /// Looked at while answers are waited for.
    pub stop: Stop<'a>,
    /// Told of every answer how many requests are under way.
    pub progress: &'a dyn Progress,
}

/// One sequence, up to its last scored token.
#[derive(Debug)]
struct Sequence {
    ids: Vec<u32>,
    /// Positions that are wanted, in `ids`.
    scored: Vec<std::ops::Range<usize>>,
}

impl Sequence {
    fn of(prefix: &TokenIds, continuation: &Continuation) -> Self {
        let end = continuation.scored.last().map_or(0, |last| last.end);
        let ids = prefix.iter().copied().chain(continuation.tokens().take(end)).collect();
        let shifted = |range: &std::ops::Range<usize>| range.start + prefix.len()..range.end + prefix.len();
        Self { ids, scored: continuation.scored.iter().map(shifted).collect() }
    }
}

impl Scorer for ServerScorer<'_> {
    /// To all but our own, a scored sequence is a prompt, after which there must be room for a token.
    fn context_tokens(&self) -> usize {
        self.served.context - usize::from(self.served.kind != ServerKind::Rlt)
    }

    fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        _tokens_per_batch: usize,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        if temperature != 1.0 {
            let what = format!("a server scores at temperature 1 only, and {temperature} was asked for");
            return Err(Error::Usage(what));
        }
        let context = self.context_tokens();
        let of_group = |group: &ScoringGroup| {
            group.continuations.iter().map(|c| Sequence::of(&group.prefix, c)).collect::<Vec<_>>()
        };
        let sequences: Vec<Sequence> = groups.iter().flat_map(of_group).collect();
        for Sequence { ids, scored } in &sequences {
            self.served.config().check_ids(ids.iter().copied(), context)?;
            if scored.first().is_some_and(|first| first.start == 0 && !first.is_empty()) {
                return Err(Error::Failed(
                    "the first token of a sequence is asked for, which nothing predicts".into(),
                ));
            }
        }
        let wanted: Vec<usize> = (0..sequences.len()).filter(|&at| sequences[at].ids.len() > 1).collect();
        let (sequences, wanted) = (Arc::new(sequences), Arc::new(wanted));
        let (kind, model) = (self.served.kind, self.served.model.clone());
        let read: Arc<Reader<Vec<f32>>> = {
            let (sequences, wanted, model) = (sequences.clone(), wanted.clone(), model.clone());
            Arc::new(move |place, bytes| {
                let Sequence { ids, scored } = &sequences[wanted[place]];
                let all = read_scores(kind, &model, bytes, ids)?;
                Ok(scored.iter().flat_map(|range| range.clone().map(|at| all[at - 1])).collect())
            })
        };
        let mut scores = vec![Vec::new(); sequences.len()];
        let mut asks = wanted.iter().map(|&at| scoring(kind, &model, &sequences[at].ids));
        let pool = &self.served.pool;
        let mut n_answers = 0;
        pool.run(&mut asks, &read, self.stop, &mut |place, values| {
            scores[wanted[place]] = values;
            n_answers += 1;
            let (n, under_way) = (wanted.len(), pool.n_under_way());
            self.progress.advance(0, &format!("{n_answers} of {n} answers, {under_way} requests under way"));
        })?;
        let mut scores = scores.into_iter();
        Ok(groups.iter().map(|group| scores.by_ref().take(group.continuations.len()).collect()).collect())
    }
}
