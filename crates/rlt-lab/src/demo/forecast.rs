//! How long a demo will still take: from its first line on, on whatever machine.

use std::time::Instant;

use rlt_method::Result;
use rlt_model::Decoder;
use rlt_model::batch::ScoringGroup;
use rlt_model::config::ModelConfig;

use std::path::Path;

/// What [`probe`] takes on the machine on which the stages were timed: two cores of an Intel Xeon with AVX-512.
pub(super) const PROBE_SECONDS: f64 = 0.03;
/// How often the probe runs.
const PROBES: u32 = 8;
/// The probe counts as much as this many seconds of stages: it is short, and only like what they do.
const PROBE_WEIGHT: f64 = 5.0;
/// A stage that took less than this share of what it should was done by an earlier attempt.
const LEAST_SHARE: f64 = 0.1;

/// Seconds that a model of random weights in this folder (which needs no weights) takes for the log-probabilities of a
/// few made-up sequences, in the mean over a third of a second or so: what else runs on the machine counts.
pub(super) fn probe(model: &Path) -> Result<f64> {
    let decoder = Decoder::random(&ModelConfig::from_dir(model)?, 0);
    let vocabulary = decoder.config().vocab_size as u32;
    let group = |row: u32| {
        let ids: Vec<u32> = (0..256).map(|place| (row * 31 + place * 7) % vocabulary).collect();
        ScoringGroup::single(ids, std::iter::once(1..256).collect())
    };
    let groups: Vec<ScoringGroup> = (0..16).map(group).collect();
    decoder.token_logprobs(&groups, 1.0, 4096)?;
    let started = Instant::now();
    for _ in 0..PROBES {
        decoder.token_logprobs(&groups, 1.0, 4096)?;
    }
    Ok(started.elapsed().as_secs_f64() / f64::from(PROBES))
}

/// What is known of the time of a demo's stages.
#[derive(Debug, Clone)]
pub(super) struct Forecast<'a> {
    /// What the stages take where the probe takes [`PROBE_SECONDS`], and how many are over.
    stages: &'a [f64],
    done: usize,
    /// Seconds that were spent, and that the same would take there.
    spent: f64,
    reference: f64,
}

impl<'a> Forecast<'a> {
    pub fn new(stages: &'a [f64], probe_seconds: f64) -> Self {
        let spent = PROBE_WEIGHT * probe_seconds / PROBE_SECONDS;
        Self { stages, done: 0, spent, reference: PROBE_WEIGHT }
    }

    /// Seconds that are left.
    pub fn left(&self) -> f64 {
        self.stages[self.done..].iter().sum::<f64>() * self.spent / self.reference
    }

    /// The next stage is over and took this long.
    pub fn end_stage(&mut self, seconds: f64) {
        let expected = self.stages[self.done];
        if seconds > LEAST_SHARE * expected * self.spent / self.reference {
            self.spent += seconds;
            self.reference += expected;
        }
        self.done += 1;
    }
}

/// Seconds as a person says them who does not know them well: "about 20 s", "about 3 min".
pub(super) fn roughly(seconds: f64) -> String {
    match seconds {
        s if s < 7.5 => "a few seconds".into(),
        s if s < 57.5 => format!("about {:.0} s", 5.0 * (s / 5.0).round()),
        s if s < 3570.0 => format!("about {:.0} min", (s / 60.0).round().max(1.0)),
        s => format!("about {:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slower_machine_is_known_before_the_first_stage_and_better_after_it() {
        let stages = [10.0, 20.0, 30.0];
        let mut forecast = Forecast::new(&stages, 2.0 * PROBE_SECONDS);
        assert_eq!(forecast.left(), 120.0);
        // The first stage took four times as long: 10 s of probe and 40 s of work for 15 s.
        forecast.end_stage(40.0);
        assert!((forecast.left() - 50.0 * 50.0 / 15.0).abs() < 1e-9);
        // One that was done before says nothing.
        forecast.end_stage(0.01);
        assert!((forecast.left() - 30.0 * 50.0 / 15.0).abs() < 1e-9);
        forecast.end_stage(100.0);
        assert_eq!(forecast.left(), 0.0);
    }

    #[test]
    fn rough_times_read_well() {
        let all = [2.0, 21.0, 58.0, 118.0, 7200.0].map(roughly);
        assert_eq!(all, ["a few seconds", "about 20 s", "about 1 min", "about 2 min", "about 2.0 h"]);
    }
}
