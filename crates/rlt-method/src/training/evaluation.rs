//! Evaluation while training: when it is due, which model is the best so far, and when to stop early.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::EvalConfig;

/// What an evaluation came to.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOutScore {
    /// For the step's row of `metrics.jsonl`; the names begin with `eval_`.
    pub metrics: Map<String, Value>,
    /// What the best model is chosen by; higher is better.
    pub score: f64,
}

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Optimizer steps done when it was made.
    pub step: u64,
    /// Its score.
    pub score: f64,
}

/// How a run's evaluations stand; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationState {
    /// The best one.
    pub best: Option<Best>,
    /// Evaluations after the best one.
    pub without_gain: u64,
    /// Whether the run ended because of these.
    pub ended_early: bool,
}

impl EvaluationState {
    /// Takes the score of the evaluation after `step`; true when it is the best so far. A score that is not a number
    /// never is.
    pub fn take(&mut self, step: u64, score: f64, settings: &EvalConfig) -> bool {
        let is_best = match self.best {
            None => !score.is_nan(),
            Some(best) => score > best.score + settings.min_gain,
        };
        if is_best {
            self.best = Some(Best { step, score });
            self.without_gain = 0;
        } else {
            self.without_gain += 1;
            self.ended_early = settings.patience > 0 && self.without_gain >= settings.patience as u64;
        }
        is_best
    }
}

/// Whether the model is evaluated after `step` of `total_steps`.
pub fn is_due(settings: &EvalConfig, step: u64, total_steps: u64) -> bool {
    settings.every > 0 && (step.is_multiple_of(settings.every as u64) || step == total_steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_are_due_every_so_often_and_at_the_end() {
        let due = |every, total| {
            let settings = EvalConfig { every, ..EvalConfig::default() };
            (1..=total).filter(|&step| is_due(&settings, step, total)).collect::<Vec<_>>()
        };
        assert_eq!(due(3, 7), [3, 6, 7]);
        assert_eq!(due(0, 7), [0; 0]);
    }

    #[test]
    fn the_best_stands_until_a_real_gain_and_patience_ends_the_run() {
        let settings = EvalConfig { patience: 2, min_gain: 0.1, ..EvalConfig::default() };
        let mut standing = EvaluationState::default();
        let best: Vec<bool> = [-3.0, -2.0, -1.95, -1.5, f64::NAN]
            .iter()
            .zip(1..)
            .map(|(&score, step)| standing.take(step, score, &settings))
            .collect();
        assert_eq!(best, [true, true, false, true, false]);
        assert_eq!(
            standing,
            EvaluationState {
                best: Some(Best { step: 4, score: -1.5 }),
                without_gain: 1,
                ended_early: false
            }
        );
        assert!(!standing.take(6, -1.45, &settings));
        assert!(standing.ended_early);
    }

    #[test]
    fn without_patience_a_run_never_ends_early() {
        let mut standing = EvaluationState::default();
        for step in 1..100 {
            standing.take(step, -(step as f64), &EvalConfig::default());
        }
        assert!(!standing.ended_early);
        assert_eq!(standing.without_gain, 98);
    }
}
