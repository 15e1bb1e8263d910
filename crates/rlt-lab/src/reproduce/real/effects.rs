//! From the parts of one scoring pass to rewards under every lambda and alpha, and who wins.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::kinds::ExplanationVariant;
use rlt_method::dataset::{Record, read_records};
use rlt_method::error::Result;
use rlt_method::evaluate::metrics::{Interval, bootstrap_interval, mean};

/// Weights of r_KL.
pub const LAMBDAS: [f64; 4] = [0.0, 0.5, 1.0, 3.0];
/// Weights of minimum and maximum.
pub const ALPHAS: [f64; 3] = [0.0, 0.01, 0.1];
/// Resamples of an interval.
const RESAMPLES: usize = 2000;
/// What keys them.
const SEED: u64 = 1;

/// The four numbers that every reward is made of, nats, and the length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts {
    /// mean_k log pi_S(s_k).
    pub solution_mean: f64,
    /// min_k log pi_S(s_k).
    pub solution_min: f64,
    /// mean_j D_j.
    pub kl_mean: f64,
    /// max_j D_j.
    pub kl_max: f64,
    /// Think tokens.
    pub tokens: f64,
}

/// The settings of a reward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardWeights {
    /// Of r_KL.
    pub lambda: f64,
    /// Of minimum and maximum.
    pub alpha: f64,
}

impl RewardWeights {
    /// The paper's.
    pub const PAPER: Self = Self { lambda: 3.0, alpha: 0.01 };

    /// Every combination, lambda by lambda.
    pub fn all() -> impl Iterator<Item = Self> {
        LAMBDAS.into_iter().flat_map(|lambda| ALPHAS.map(|alpha| Self { lambda, alpha }))
    }
}

/// A term of the reward: its name, and its value with its weight.
pub type Term = (&'static str, fn(&Parts, RewardWeights) -> f64);

/// The four terms; the reward is their sum.
pub const TERMS: [Term; 4] = [
    ("mean of the solution", |parts, _| parts.solution_mean),
    ("alpha x its minimum", |parts, w| w.alpha * parts.solution_min),
    ("-lambda x mean D_j", |parts, w| -w.lambda * parts.kl_mean),
    ("-lambda alpha x its maximum", |parts, w| -w.lambda * w.alpha * parts.kl_max),
];

impl Parts {
    /// r_SS - lambda * r_KL, as [`rlt_reward::rlt::rlt_reward`] has it for an explanation that is closed.
    pub fn reward(&self, weights: RewardWeights) -> f64 {
        TERMS.iter().map(|(_, term)| term(self, weights)).sum()
    }
}

/// A question with the parts of its six explanations, in the order of [`ExplanationVariant::ALL`].
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionParts {
    /// Where it is from.
    pub source: String,
    /// One a kind.
    pub kinds: [Parts; 6],
}

/// Every question that could be scored whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Effects {
    /// The questions.
    pub questions: Vec<QuestionParts>,
    /// Questions of which an explanation could not be scored.
    pub dropped: usize,
}

/// A mean with its 95 % interval: questions are drawn with replacement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its interval.
    pub interval: Interval,
}

impl Estimate {
    /// Of one number a question.
    pub fn of(values: &[f64]) -> Self {
        Self { mean: mean(values.iter().copied()), interval: bootstrap_interval(values, RESAMPLES, SEED) }
    }
}

impl Effects {
    /// The sources in the order of the rows.
    pub fn sources(&self) -> Vec<&str> {
        let mut sources: Vec<&str> = Vec::new();
        for question in &self.questions {
            if !sources.contains(&question.source.as_str()) {
                sources.push(&question.source);
            }
        }
        sources
    }

    /// The questions of one source, or all of them.
    #[must_use]
    pub fn of(&self, source: Option<&str>) -> Self {
        let kept =
            self.questions.iter().filter(|question| source.is_none_or(|source| question.source == source));
        Self { questions: kept.cloned().collect(), dropped: 0 }
    }

    /// A number of every question's explanation of this kind.
    pub fn estimate(&self, kind: ExplanationVariant, value: impl Fn(&Parts) -> f64) -> Estimate {
        let values: Vec<f64> = self.questions.iter().map(|question| value(question.part(kind))).collect();
        Estimate::of(&values)
    }

    /// How much higher a number is for the full rationale than for this kind, question by question.
    pub fn lead(&self, kind: ExplanationVariant, value: impl Fn(&Parts) -> f64) -> Estimate {
        let lead = |question: &QuestionParts| {
            value(question.part(ExplanationVariant::Full)) - value(question.part(kind))
        };
        Estimate::of(&self.questions.iter().map(lead).collect::<Vec<_>>())
    }

    /// The share of questions in which the full rationale is rewarded higher than this kind; a tie is half.
    pub fn wins(&self, kind: ExplanationVariant, weights: RewardWeights) -> Estimate {
        let win = |question: &QuestionParts| {
            let [full, other] =
                [ExplanationVariant::Full, kind].map(|kind| question.part(kind).reward(weights));
            if full > other { 1.0 } else { f64::from(u8::from(full == other)) / 2.0 }
        };
        Estimate::of(&self.questions.iter().map(win).collect::<Vec<_>>())
    }
}

impl QuestionParts {
    /// The parts of one kind.
    pub fn part(&self, kind: ExplanationVariant) -> &Parts {
        &self.kinds[kind as usize]
    }
}

/// Reads scored rows; a question with a row that has no reward of its own is dropped whole.
///
/// # Errors
/// The file cannot be read, or a row lacks what `rlt score` writes.
pub fn read(scored: &Path) -> Result<Effects> {
    let mut found: BTreeMap<(String, u64), [Option<Parts>; 6]> = BTreeMap::new();
    let mut order = Vec::new();
    for record in read_records(scored, 0)? {
        let columns = &record.columns;
        let source = record.text("source")?.unwrap_or_default();
        let index =
            columns.get("index").and_then(Value::as_u64).ok_or_else(|| record.error("has no `index`"))?;
        let name = record.text("kind")?.unwrap_or_default();
        let kind = ExplanationVariant::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| record.error(format!("has the unknown kind {name:?}")))?;
        let key = (source, index);
        if !found.contains_key(&key) {
            order.push(key.clone());
        }
        found.entry(key).or_default()[kind as usize] = parts(&record)?;
    }
    let mut effects = Effects { questions: Vec::new(), dropped: 0 };
    for key in order {
        let kinds: Option<Vec<Parts>> = found[&key].iter().copied().collect();
        match kinds.and_then(|kinds| kinds.try_into().ok()) {
            Some(kinds) => effects.questions.push(QuestionParts { source: key.0, kinds }),
            None => effects.dropped += 1,
        }
    }
    Ok(effects)
}

/// The parts of a scored row; none where its status is not `ok`.
fn parts(record: &Record) -> Result<Option<Parts>> {
    let Some(parts) = record.columns.get("parts") else { return Err(record.error("has no `parts`")) };
    if parts["status"] != "ok" {
        return Ok(None);
    }
    let number = |name: &str| {
        parts[name].as_f64().ok_or_else(|| record.error(format!("has no number `parts.{name}`")))
    };
    Ok(Some(Parts {
        solution_mean: number("solution_logprob_mean")?,
        solution_min: number("solution_logprob_min")?,
        kl_mean: number("kl_mean")?,
        kl_max: number("kl_max")?,
        tokens: number("n_think")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlt_method::config::RewardConfig;
    use rlt_reward::rlt::{RltInputs, rlt_reward};

    fn parts(solution_mean: f64) -> Parts {
        Parts { solution_mean, solution_min: -4.0, kl_mean: 0.5, kl_max: 2.0, tokens: 9.0 }
    }

    #[test]
    fn the_reward_is_that_of_training_under_every_setting() {
        let inputs = RltInputs {
            sample: "row 1",
            solution_logprobs: &[-0.5, -2.5, -0.25],
            student_think_logprobs: &[-1.0, -3.0],
            teacher_think_logprobs: &[-0.5, -0.25],
            full_divergence: &[],
            has_end_tag: true,
        };
        for RewardWeights { lambda, alpha } in RewardWeights::all() {
            let config =
                RewardConfig { lambda: lambda as f32, alpha: alpha as f32, ..RewardConfig::default() };
            let score = rlt_reward(&inputs, &config.settings()).unwrap();
            let of_training = score.parts.unwrap();
            let parts = Parts {
                solution_mean: f64::from(of_training.solution_logprob_mean),
                solution_min: f64::from(of_training.solution_logprob_min),
                kl_mean: f64::from(of_training.kl_mean),
                kl_max: f64::from(of_training.kl_max),
                tokens: 2.0,
            };
            let reward = parts.reward(RewardWeights { lambda, alpha });
            assert!((reward - f64::from(score.reward)).abs() < 1e-5, "{reward} {}", score.reward);
        }
    }

    #[test]
    fn leads_and_wins_by_hand() {
        let question = |source: &str, full: f64, other: f64| {
            let mut kinds = [parts(other); 6];
            kinds[0] = parts(full);
            QuestionParts { source: source.into(), kinds }
        };
        let questions = vec![question("a", -1.0, -2.0), question("b", -3.0, -3.0), question("b", -4.0, -1.0)];
        let effects = Effects { questions, dropped: 0 };
        assert_eq!(effects.sources(), ["a", "b"]);
        assert_eq!(effects.wins(ExplanationVariant::Cut, RewardWeights::PAPER).mean, 0.5);
        let lead = effects.lead(ExplanationVariant::Cut, |parts| parts.reward(RewardWeights::PAPER)).mean;
        assert!((lead - (1.0 + 0.0 - 3.0) / 3.0).abs() < 1e-12, "{lead}");
        let of_b = effects.of(Some("b"));
        assert_eq!(
            (of_b.questions.len(), of_b.wins(ExplanationVariant::Cut, RewardWeights::PAPER).mean),
            (2, 0.25)
        );
        // -1 - 0.04 - 3 * (0.5 + 0.02)
        assert!((parts(-1.0).reward(RewardWeights::PAPER) + 2.6).abs() < 1e-12);
    }

    #[test]
    fn a_question_with_an_unscored_kind_is_dropped() {
        let row = |index: usize, kind: ExplanationVariant, status: &str| {
            serde_json::json!({
                "source": "a", "index": index, "kind": kind.name(),
                "parts": {"status": status, "solution_logprob_mean": -1.0, "solution_logprob_min": -2.0,
                          "kl_mean": 0.1, "kl_max": 0.2, "n_think": kind as usize},
            })
            .to_string()
        };
        let mut rows: Vec<String> = ExplanationVariant::ALL.map(|kind| row(0, kind, "ok")).to_vec();
        rows.extend(
            ExplanationVariant::ALL
                .map(|kind| row(1, kind, if kind == ExplanationVariant::Cut { "too long" } else { "ok" })),
        );
        rows.push(row(2, ExplanationVariant::Full, "ok"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scored.jsonl");
        std::fs::write(&path, rows.join("\n")).unwrap();
        let effects = read(&path).unwrap();
        assert_eq!((effects.questions.len(), effects.dropped), (1, 2));
        assert_eq!(effects.questions[0].part(ExplanationVariant::Restated).tokens, 5.0);
    }
}
