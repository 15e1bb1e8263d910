//! A scorer behind servers.

use std::ops::Range;
use std::sync::Arc;

use rlt_model::Stop;
use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::ids::TokenIds;

use super::check::read_scores;
use super::connect::Served;
use super::pool::Question;
use super::request::scoring;
use crate::config::ServerKind;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::scorer::Scorer;

/// Calls that keep the pool full between them: while one waits for its last answers, and what it came to is written, others
/// are asked.
const CALLS: usize = 3;

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
    scored: Vec<Range<usize>>,
}

impl Sequence {
    fn of(prefix: &TokenIds, continuation: &Continuation) -> Self {
        let end = continuation.scored.last().map_or(0, |last| last.end);
        let ids = prefix.iter().copied().chain(continuation.tokens().take(end)).collect();
        let shifted = |range: &Range<usize>| range.start + prefix.len()..range.end + prefix.len();
        Self { ids, scored: continuation.scored.iter().map(shifted).collect() }
    }
}

/// The sequences of all groups, in order.
fn sequences(groups: &[ScoringGroup]) -> impl Iterator<Item = (&TokenIds, &Continuation)> {
    groups
        .iter()
        .flat_map(|group| group.continuations.iter().map(|continuation| (&group.prefix, continuation)))
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
        let is_asked = |(prefix, continuation): &(&TokenIds, &Continuation)| {
            // Of a single token a server has nothing to say.
            prefix.len() + continuation.scored.last().map_or(0, |last| last.end) > 1
        };
        let wanted: Vec<usize> = sequences(groups)
            .enumerate()
            .filter(|(_, sequence)| is_asked(sequence))
            .map(|(at, _)| at)
            .collect();
        let asked = sequences(groups).filter(is_asked);
        let mut questions = asked.map(|(prefix, continuation)| {
            let sequence = Sequence::of(prefix, continuation);
            self.served.config().check_ids(sequence.ids.iter().copied(), context)?;
            if sequence.scored.first().is_some_and(|first| first.start == 0 && !first.is_empty()) {
                let what = "the first token of a sequence is asked for, which nothing predicts";
                return Err(Error::Failed(what.into()));
            }
            Ok(self.question(sequence))
        });
        let mut scores = vec![Vec::new(); sequences(groups).count()];
        let pool = &self.served.pool;
        let mut n_answers = 0;
        pool.run(&mut questions, self.stop, &mut |place, values| {
            scores[wanted[place]] = values;
            n_answers += 1;
            let (n, under_way) = (wanted.len(), pool.n_under_way());
            self.progress.advance(0, &format!("{n_answers} of {n} answers, {under_way} requests under way"));
            Ok(())
        })?;
        let mut scores = scores.into_iter();
        Ok(groups.iter().map(|group| scores.by_ref().take(group.continuations.len()).collect()).collect())
    }

    /// What waits elsewhere takes no memory here, and the more is asked for the less is waited.
    fn tokens_at_once(&self, _tokens_per_batch: usize) -> usize {
        usize::MAX
    }

    fn calls_at_once(&self) -> usize {
        CALLS
    }

    fn answered(&self) -> u64 {
        self.served.pool.answered()
    }

    fn release(&self, n: u64) -> Result<()> {
        self.served.pool.release(n)
    }
}

impl ServerScorer<'_> {
    /// What a server is asked of a sequence, and how its answer is read.
    fn question(&self, sequence: Sequence) -> Question<Vec<f32>> {
        let (kind, model) = (self.served.kind, self.served.model.clone());
        let ask = scoring(kind, &model, &sequence.ids);
        let read = move |bytes: &[u8]| {
            let all = read_scores(kind, &model, bytes, &sequence.ids)?;
            Ok(sequence.scored.iter().flat_map(|range| range.clone().map(|at| all[at - 1])).collect())
        };
        Question { ask, read: Box::new(read) }
    }
}
