//! What ranks other than the first do.

use std::sync::atomic::AtomicBool;

use rlt_model::Stop;
use rlt_ranks::Ranks;

use super::message::{Order, Scoring, from_bytes, to_bytes};
use super::order::collect;
use super::sampler::{Drawn, draw};
use super::scorer::{Whose, score};
use crate::error::{Error, Result};
use crate::sampler::Sampler;
use crate::scorer::Scorer;

/// What another rank than the first can be asked for.
#[derive(Default)]
pub struct Answering<'a> {
    /// Who draws.
    pub sampler: Option<&'a dyn Sampler>,
    /// Who scores, and as whom.
    pub scorers: Vec<(Whose, &'a dyn Scorer)>,
}

/// Answers rank 0 until it dismisses this rank. Errors of the work are told to rank 0, which ends the job.
///
/// # Errors
/// Naming a rank that is gone; what sampling and scoring report, on every rank.
pub fn serve_first_rank(ranks: &Ranks, answering: &Answering, stop: &AtomicBool) -> Result<()> {
    loop {
        let order = from_bytes(&ranks.broadcast(0, Vec::new())?)?;
        let answer = match order {
            Order::Dismissed => return Ok(()),
            Order::Sample(requests) => {
                let sampler =
                    answering.sampler.ok_or_else(|| Error::Failed("this rank does not sample".into()));
                let draw = |sampler| draw(sampler, ranks, &requests, Stop::when(stop), &mut Drawn::silent());
                sampler.and_then(draw).map(|sampled| to_bytes(&sampled))
            }
            Order::Score(Scoring { model, temperature, tokens_per_batch, groups }) => {
                let scorer = answering.scorers.iter().find(|(whose, _)| *whose as u32 == model);
                let scorer = scorer.ok_or_else(|| Error::Failed(format!("this rank has no model {model}")));
                let score = |(_, scorer): &(Whose, &dyn Scorer)| {
                    score(*scorer, ranks, &groups, temperature, tokens_per_batch)
                };
                scorer.and_then(score).map(|scored| to_bytes(&scored))
            }
        };
        collect(ranks, answer)?;
    }
}
