//! One figure from several seeds.

use super::stages::Answers;
use rlt_method::evaluate::metrics::{Interval, bootstrap_by_seed, mean};

/// Draws behind an interval.
const N_RESAMPLES: usize = 2000;

/// Accuracy over seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct PooledAccuracy {
    /// Mean over seeds.
    pub accuracy: f64,
    /// 95 %: seeds are drawn, then questions within each ([`bootstrap_by_seed`]).
    pub interval: Interval,
    /// Each seed's.
    pub seeds: Vec<f64>,
    /// Questions asked under all seeds.
    pub n_questions: usize,
}

impl PooledAccuracy {
    /// Over the answers of one model under several seeds.
    pub fn of<'a>(answers: impl IntoIterator<Item = &'a Answers>) -> Self {
        let means: Vec<Vec<f64>> =
            answers.into_iter().map(|answers| answers.question_means.clone()).collect();
        let seeds: Vec<f64> = means.iter().map(|means| mean(means.iter().copied())).collect();
        Self {
            accuracy: mean(seeds.iter().copied()),
            interval: bootstrap_by_seed(&means, N_RESAMPLES, 0),
            seeds,
            n_questions: means.iter().map(Vec::len).sum(),
        }
    }

    /// `84.3 % (80.8 to 87.5)`.
    pub fn text(&self) -> String {
        let Interval { low, high } = self.interval;
        format!("{} ({:.1} to {:.1})", percent(self.accuracy), 100.0 * low, 100.0 * high)
    }

    /// `84, 98, 90`: each seed's, in per cent.
    pub fn seeds_text(&self) -> String {
        self.seeds.iter().map(|share| format!("{:.0}", 100.0 * share)).collect::<Vec<_>>().join(", ")
    }

    /// Whether the whole interval lies above another's.
    pub fn is_above(&self, other: &Self) -> bool {
        self.interval.low > other.interval.high
    }
}

/// `84.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_averaged_and_questions_drawn() {
        let answers = |right: usize| Answers {
            question_means: (0..100).map(|i| f64::from(u8::from(i < right))).collect(),
            ..Answers::default()
        };
        let (good, bad) = (
            PooledAccuracy::of(&[answers(80), answers(90)]),
            PooledAccuracy::of(&[answers(30), answers(40)]),
        );
        assert!((good.accuracy - 0.85).abs() < 1e-12);
        assert_eq!((good.seeds_text(), good.n_questions), ("80, 90".into(), 200));
        assert!(good.is_above(&bad) && !bad.is_above(&good) && !good.is_above(&good));
        assert!(good.text().starts_with("85.0 % ("), "{}", good.text());
        assert_eq!(PooledAccuracy::of(&[Answers::default()]).accuracy, 0.0);
    }
}
