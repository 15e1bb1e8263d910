//! Whether a server has the weights that it was given: a fixed sequence, scored there and here.

use rlt_model::Decoder;
use rlt_model::batch::ScoringGroup;
use serde::Serialize;

use super::connect::Served;
use super::wire::Wire;
use crate::error::{Error, Result};

/// Differences below this are rounding, nats.
const ROUNDING: f64 = 2e-5;

/// How far two lists of log-probabilities of the same tokens are apart, nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Mean distance.
    pub mean: f64,
    /// The largest.
    pub max: f64,
}

impl Agreement {
    /// Between `a` and `b`.
    pub fn of(a: &[f32], b: &[f32]) -> Self {
        let distances = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
        let (mut sum, mut max) = (0.0, 0.0_f64);
        for distance in distances {
            sum += distance;
            max = max.max(distance);
        }
        Self { mean: sum / a.len().max(1) as f64, max }
    }
}

/// A fixed sequence, and what the own engine said of it.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    ids: Vec<u32>,
    /// Under the weights of the last push that arrived.
    before: Option<Vec<f32>>,
    /// How far servers are from the own engine where both have the same weights: the largest mean so far of pushes that
    /// arrived.
    noise: f64,
}

/// What a probe found wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Finding {
    Arrived,
    /// The server still has the weights from before.
    Stale,
    /// It has neither the old nor the new ones.
    Partial,
    /// It is too far from the own engine, whatever the reason.
    Far,
}

impl Probe {
    /// Of a sequence of two tokens or more.
    pub fn new(ids: Vec<u32>) -> Self {
        Self { ids, before: None, noise: 0.0 }
    }

    /// Log-probabilities of the sequence under `policy`, here.
    pub fn score_here(&self, policy: &Decoder) -> Result<Vec<f32>> {
        let after_first = 1..self.ids.len();
        let group = ScoringGroup::single(self.ids.clone(), vec![after_first]);
        let mut scores = policy.token_logprobs(&[group], 1.0, self.ids.len())?;
        Ok(scores.pop().and_then(|mut group| group.pop()).unwrap_or_default())
    }

    /// Compares what the server at `wire` says with `here`.
    ///
    /// # Errors
    /// [`Error::Failed`] with what differs, by how much and what is likely.
    pub fn compare(&self, served: &Served, wire: &Wire, here: &[f32]) -> Result<Agreement> {
        let there = served.score_at(wire, &self.ids).map_err(|fault| {
            Error::Failed(format!(
                "{}: {} does not score the probe: {}",
                served.table,
                wire.address(),
                fault.what()
            ))
        })?;
        let agreement = Agreement::of(here, &there);
        let why = match self.judge(here, &there, f64::from(served.tolerance)) {
            Finding::Arrived => return Ok(agreement),
            Finding::Stale => "those of the step before; its cache was not reset, or it has not loaded them",
            Finding::Partial => {
                "neither the new nor the old ones; a head that is tied to the embedding stays old in vLLM: start it on a \
                 folder with tie_word_embeddings = false and lm_head.weight (rlt exports both)"
            }
            Finding::Far => "other ones, or computes them otherwise (number format, quantisation)",
        };
        Err(Error::Failed(format!(
            "{}: {} does not have the weights that it was given, but {why}: the log-probabilities of the probe differ by {:.2e} \
             nats on average, {:.2e} at most ({}.tolerance is {})",
            served.table,
            wire.address(),
            agreement.mean,
            agreement.max,
            served.table,
            served.tolerance
        )))
    }

    /// What `there` says of a push after which the own engine says `here`.
    fn judge(&self, here: &[f32], there: &[f32], tolerance: f64) -> Finding {
        let apart = Agreement::of(here, there);
        let noise = self.noise.max(ROUNDING);
        if let Some(before) = &self.before {
            let moved = Agreement::of(here, before).mean;
            // A step smaller than the noise cannot be told from none.
            if moved > 4.0 * noise && apart.mean > 3.0 * noise && apart.mean > 0.3 * moved {
                let from_before = Agreement::of(before, there).mean;
                return if from_before < 3.0 * noise { Finding::Stale } else { Finding::Partial };
            }
        }
        if apart.max <= tolerance { Finding::Arrived } else { Finding::Far }
    }

    /// The weights that gave `here` have arrived everywhere, `agreement` at worst.
    pub fn arrived(&mut self, here: Vec<f32>, agreement: Agreement) {
        self.noise = self.noise.max(agreement.mean);
        self.before = Some(here);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_arrived_is_told_by_what_is_there_instead() {
        let mut probe = Probe::new(vec![1, 2, 3]);
        let old = vec![-1.0, -2.0, -3.0];
        assert_eq!(probe.judge(&old, &[-1.0, -2.0, -3.00001], 0.05), Finding::Arrived);
        assert_eq!(probe.judge(&old, &[-1.0, -2.0, -3.2], 0.05), Finding::Far);
        probe.arrived(old.clone(), Agreement { mean: 1e-6, max: 1e-6 });
        // A step of 1e-3 nats, far below the tolerance.
        let new = [-1.001, -2.001, -3.001];
        assert_eq!(probe.judge(&new, &[-1.001_001, -2.001, -3.001], 0.05), Finding::Arrived);
        assert_eq!(probe.judge(&new, &old, 0.05), Finding::Stale);
        assert_eq!(probe.judge(&new, &[-1.0006, -2.0004, -3.0006], 0.05), Finding::Partial);
        // A step that rounding hides is taken for arrived.
        assert_eq!(probe.judge(&[-1.000_001, -2.0, -3.0], &old, 0.05), Finding::Arrived);
    }

    #[test]
    fn agreement_by_hand() {
        assert_eq!(Agreement::of(&[-1.0, -2.0], &[-1.5, -2.0]), Agreement { mean: 0.25, max: 0.5 });
    }
}
