//! What a run says about itself: every metric that a row of `metrics.jsonl` can have, with its unit and its meaning.
//!
//! The names are a public contract. Whoever writes a metric and whoever reads one (the log, TensorBoard, the watch for
//! spikes, the report, comparisons of runs) takes it from here, so that no name is typed twice.

use serde_json::{Map, Value};

/// What a number counts or measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Natural logarithms of probabilities, and what is made of them.
    Nats,
    /// Tokens.
    Tokens,
    /// A part of a whole, 0 to 1.
    Share,
    /// How many of something.
    Count,
    /// A number without a unit.
    Plain,
    /// Wall-clock seconds.
    Seconds,
    /// Tokens in a second of wall clock.
    TokensPerSecond,
    /// Names, not a number.
    Names,
}

impl Unit {
    /// In words, for a table.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Tokens => "tokens",
            Self::Share => "share",
            Self::Count => "count",
            Self::Plain => "number",
            Self::Seconds => "s",
            Self::TokensPerSecond => "tokens/s",
            Self::Names => "names",
        }
    }
}

/// One number of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its key in `metrics.jsonl` and its tag in TensorBoard.
    pub name: &'static str,
    /// What it counts or measures.
    pub unit: Unit,
    /// One sentence for people.
    pub meaning: &'static str,
}

impl Metric {
    /// Whether it measures time. Such metrics differ between two runs of the same seed; all others are equal bit for bit,
    /// resumed or not.
    pub const fn is_time(&self) -> bool {
        matches!(self.unit, Unit::Seconds | Unit::TokensPerSecond)
    }

    /// Puts its value into a row.
    pub fn put(&self, row: &mut Map<String, Value>, value: impl Into<Value>) {
        row.insert(self.name.into(), value.into());
    }

    /// Puts the mean of `values` into a row; nothing where there are none.
    pub fn put_mean(&self, row: &mut Map<String, Value>, values: &[f64]) {
        if !values.is_empty() {
            self.put(row, mean(values));
        }
    }

    /// Its number in a row, where that has one.
    pub fn of(&self, row: &Map<String, Value>) -> Option<f64> {
        row.get(self.name)?.as_f64()
    }

    /// Whether a row has it.
    pub fn is_in(&self, row: &Map<String, Value>) -> bool {
        row.contains_key(self.name)
    }
}

/// How one value is distributed over the completions of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distribution {
    /// Its mean.
    pub mean: Metric,
    /// Its standard deviation, n - 1 in the denominator.
    pub std: Metric,
    /// The least.
    pub min: Metric,
    /// The greatest.
    pub max: Metric,
    /// The middle one.
    pub median: Metric,
    /// The end of the lowest quarter.
    pub q25: Metric,
    /// The beginning of the highest quarter.
    pub q75: Metric,
}

impl Distribution {
    const fn all(&self) -> [Metric; 7] {
        [self.mean, self.std, self.min, self.max, self.median, self.q25, self.q75]
    }

    /// Puts all seven into a row; nothing where there are no values.
    pub fn put(&self, row: &mut Map<String, Value>, values: &[f64]) {
        if let Some(statistics) = statistics(values) {
            self.all().iter().zip(statistics).for_each(|(metric, value)| metric.put(row, value));
        }
    }
}

/// The names of [`Distribution`]'s parts in their order: what follows the value's own name.
const STATISTICS: [&str; 7] = ["mean", "std", "min", "max", "median", "q25", "q75"];

/// Puts the distribution of one part of a reward that is a sum into a row: `reward_PART_mean` ..
pub fn put_reward_part(row: &mut Map<String, Value>, part: &str, values: &[f64]) {
    if let Some(statistics) = statistics(values) {
        let named =
            STATISTICS.iter().zip(statistics).map(|(name, value)| (format!("reward_{part}_{name}"), value));
        row.extend(named.map(|(name, value)| (name, value.into())));
    }
}

/// Mean, standard deviation, least, greatest, median and quartiles; none of nothing.
fn statistics(values: &[f64]) -> Option<[f64; 7]> {
    if values.is_empty() {
        return None;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let std = (squares / (values.len() as f64 - 1.0).max(1.0)).sqrt();
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let [median, q25, q75] = [0.5, 0.25, 0.75].map(|share| quantile(&sorted, share));
    Some([mean, std, sorted[0], sorted[sorted.len() - 1], median, q25, q75])
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Linear interpolation between the neighbours, as numpy's default.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

macro_rules! metrics {
    ($list:ident: $($id:ident = $name:literal, $unit:ident, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $id: Metric = Metric { name: $name, unit: Unit::$unit, meaning: $meaning };
        )*
        const $list: &[Metric] = &[$($id),*];
    };
}

macro_rules! distributions {
    ($($id:ident = $name:literal, $unit:ident, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $id: Distribution = Distribution {
                mean: Metric { name: concat!($name, "_mean"), unit: Unit::$unit, meaning: $meaning },
                std: Metric {
                    name: concat!($name, "_std"), unit: Unit::$unit, meaning: "Its standard deviation (n - 1)."
                },
                min: Metric { name: concat!($name, "_min"), unit: Unit::$unit, meaning: "The least of them." },
                max: Metric { name: concat!($name, "_max"), unit: Unit::$unit, meaning: "The greatest." },
                median: Metric { name: concat!($name, "_median"), unit: Unit::$unit, meaning: "The middle one." },
                q25: Metric {
                    name: concat!($name, "_q25"), unit: Unit::$unit, meaning: "A quarter of them is lower."
                },
                q75: Metric {
                    name: concat!($name, "_q75"), unit: Unit::$unit, meaning: "A quarter of them is higher."
                },
            };
        )*
        const DISTRIBUTIONS: &[Distribution] = &[$($id),*];
    };
}

metrics! { OF_EVERY_RUN:
    STEP = "step", Count, "The step that the row is of, from 1.";
    WALL_S = "wall_s", Seconds, "Seconds that the run has taken so far, over all its calls.";
    LOSS = "loss", Nats,
        "Fine-tuning: mean negative log-probability of the target tokens. GRPO: the objective's loss, near 0 by construction.";
    LEARNING_RATE = "learning_rate", Plain, "That of the step's last update.";
    GRAD_NORM = "grad_norm", Plain, "Global norm of the gradient before clipping.";
    TOKENS_PER_S = "tokens_per_s", TokensPerSecond,
        "Tokens of the batch (GRPO: of its completions) in a second of the whole step.";
    SPIKES = "spikes", Names, "The metrics that jumped away from those of the steps before.";
    EVAL_S = "eval_s", Seconds, "Seconds of the evaluation.";
    RANKS_S = "ranks_s", Seconds, "Seconds of the step in which rank 0 waited for others or sent to them (on several ranks).";
}

metrics! { OF_FINE_TUNING:
    TOKENS = "tokens", Tokens, "Target tokens of the batch.";
    EPOCH = "epoch", Plain, "Passes over the rows so far.";
    GATE_MEAN = "gate_mean", Share, "What a target token counts, mean (`sft.gate_kappa`); `loss` is of all in full.";
    EVAL_LOSS = "eval_loss", Nats, "`loss` on the held-out rows.";
}

distributions! {
    REWARD = "reward", Nats, "Reward of a completion, mean over all that were sampled.";
    R_SS = "r_ss", Nats, "r_SS, how likely the solution is after the explanation, mean over what can be scored.";
    R_KL = "r_kl", Nats, "r_KL, how far the explanation is from what the student would say, mean over what can be scored.";
}

metrics! { OF_REWARDS:
    SOLUTION_LOGPROB_MEAN = "solution_logprob_mean", Nats,
        "Mean log-probability of a solution's tokens after the explanation.";
    SOLUTION_LOGPROB_MIN = "solution_logprob_min", Nats, "Mean over completions of that of the least likely solution token.";
    KL_MEAN = "kl_mean", Nats, "Mean D_j of an explanation's tokens.";
    KL_MAX = "kl_max", Nats, "Mean over completions of the largest D_j.";
    REWARD_NO_ENTROPY_MEAN = "reward_no_entropy_mean", Nats, "Mean reward without the teacher's own log-probabilities.";
    UNSCORABLE = "unscorable", Count, "Completions without anything to score.";
    THINK_TOKENS_MEAN = "think_tokens_mean", Tokens, "Mean length of an explanation.";
    SOLUTION_OVERLAP_MEAN = "solution_overlap_mean", Share,
        "Longest run of the solution that the explanation repeats, mean share of the solution.";
    REPEATED_NGRAM_SHARE_MEAN = "repeated_ngram_share_mean", Share,
        "Runs of four tokens that the explanation had before, mean share.";
    EXPLANATION_VALUE_MEAN = "explanation_value_mean", Nats,
        "Mean solution score after the explanation less that without any.";
    LEARNABILITY_MEAN = "learnability_mean", Share,
        "Pedagogical reward: how learnable a completion is to the student, mean over all that it read, right or wrong.";
    SURPRISE_GAP_MEAN = "surprise_gap_mean", Nats,
        "How far the student's favourite token is ahead of the one that was written, mean over tokens, then completions.";
    SURPRISE_GAP_MAX = "surprise_gap_max", Nats, "Mean over completions of the largest such gap.";
    ACCURACY = "accuracy", Share, "Right answers.";
    FORMAT_RATE = "format_rate", Share, "Completions in the asked format.";
    COMPLETION_TOKENS_MEAN = "completion_tokens_mean", Tokens, "Mean length of a completion.";
    TRUNCATED_RATE = "truncated_rate", Share, "Completions that were cut at the length limit.";
    ZERO_VARIANCE_GROUPS = "zero_variance_groups", Count, "Questions whose rewards are all equal.";
}

metrics! { OF_UPDATES:
    KL_TO_REFERENCE = "kl_to_reference", Nats, "Divergence from the reference model a token (k3), where there is one.";
    DIVERGENCE = "divergence", Nats,
        "Distillation: divergence between the model and the teacher that is told the solution, mean over tokens, then completions.";
    CLIPPED_SHARE = "clipped_share", Share, "Tokens whose ratio of new to old probability a bound holds.";
    LOG_RATIO_MAX = "log_ratio_max", Nats,
        "Largest distance of a token's log-probability from the one recorded while sampling.";
    KL_PENALTY_MEAN = "kl_penalty_mean", Nats, "What the divergence took from a reward (`grpo.kl = \"k1\"`), mean.";
    MASKED_COMPLETIONS = "masked_completions", Count, "Completions left out of the loss (`grpo.mask_truncated`).";
    GROUPS_SAMPLED = "groups_sampled", Count, "Questions sampled, with those drawn in place of others (`grpo.resample_rounds`).";
    GENERATE_S = "generate_s", Seconds, "Seconds of sampling.";
    SCORE_S = "score_s", Seconds, "Seconds of rewarding.";
    UPDATE_S = "update_s", Seconds, "Seconds of learning.";
    GENERATE_TOKENS_PER_S = "generate_tokens_per_s", TokensPerSecond, "Completion tokens in a second of sampling.";
    SCORE_TOKENS_PER_S = "score_tokens_per_s", TokensPerSecond, "Completion tokens in a second of rewarding.";
    UPDATE_TOKENS_PER_S = "update_tokens_per_s", TokensPerSecond, "Completion tokens in a second of learning.";
}

metrics! { OF_SERVED_POLICIES:
    MISMATCH_MEAN = "mismatch_mean", Nats,
        "Where servers draw: mean distance of a token's log-probability there from the policy's own.";
    MISMATCH_MAX = "mismatch_max", Nats, "The largest such distance.";
    MISMATCH_OUTSIDE_SHARE = "mismatch_outside_share", Share,
        "Tokens whose ratio of the policy's probability to the server's is further from 1 than `rollout.band`.";
    CORRECTED_SHARE = "corrected_share", Share, "Tokens whose ratio `rollout.correction` cut or left out.";
    VERSION_LAG_MAX = "version_lag_max", Count, "Steps that the weights which drew lie behind the policy, at most.";
    SERVER_RETRIES = "server_retries", Count, "Requests that servers were asked again.";
    SYNC_S = "sync_s", Seconds, "Seconds until every server had the new weights, and proved it.";
}

metrics! { OF_EVALUATIONS:
    EVAL_REWARD_MEAN = "eval_reward_mean", Nats, "`reward_mean` on the held-out questions.";
    EVAL_R_SS_MEAN = "eval_r_ss_mean", Nats, "`r_ss_mean` on the held-out questions.";
    EVAL_R_KL_MEAN = "eval_r_kl_mean", Nats, "`r_kl_mean` on the held-out questions.";
    EVAL_SOLUTION_LOGPROB_MEAN = "eval_solution_logprob_mean", Nats,
        "`solution_logprob_mean` on the held-out questions.";
    EVAL_KL_MEAN = "eval_kl_mean", Nats, "`kl_mean` on the held-out questions.";
    EVAL_ACCURACY = "eval_accuracy", Share, "`accuracy` on the held-out questions.";
    EVAL_FORMAT_RATE = "eval_format_rate", Share, "`format_rate` on the held-out questions.";
    EVAL_COMPLETION_TOKENS_MEAN = "eval_completion_tokens_mean", Tokens,
        "`completion_tokens_mean` on the held-out questions.";
}

/// The metrics of training that an evaluation of GRPO has, too, and what they are called there.
pub const EVALUATED: [(Metric, Metric); 8] = [
    (REWARD.mean, EVAL_REWARD_MEAN),
    (R_SS.mean, EVAL_R_SS_MEAN),
    (R_KL.mean, EVAL_R_KL_MEAN),
    (SOLUTION_LOGPROB_MEAN, EVAL_SOLUTION_LOGPROB_MEAN),
    (KL_MEAN, EVAL_KL_MEAN),
    (ACCURACY, EVAL_ACCURACY),
    (FORMAT_RATE, EVAL_FORMAT_RATE),
    (COMPLETION_TOKENS_MEAN, EVAL_COMPLETION_TOKENS_MEAN),
];

/// What stands for the seven metrics of each part of a reward that is a sum: the parts' names come from the configuration.
pub const REWARD_PART: Metric = Metric {
    name: "reward_PART_STATISTIC",
    unit: Unit::Plain,
    meaning: "Where rewards are sums (`[reward.add]`): a part before its weight; the statistics are those of `reward`.",
};

/// The whole table but for [`REWARD_PART`], in the order of the documentation.
pub fn all() -> impl Iterator<Item = Metric> {
    let single = |list: &'static [Metric]| list.iter().copied();
    single(OF_EVERY_RUN)
        .chain(single(OF_FINE_TUNING))
        .chain(DISTRIBUTIONS.iter().flat_map(Distribution::all))
        .chain(single(OF_REWARDS))
        .chain(single(OF_UPDATES))
        .chain(single(OF_SERVED_POLICIES))
        .chain(single(OF_EVALUATIONS))
}

/// The metric called `name`.
pub fn find(name: &str) -> Option<Metric> {
    let is_part = || {
        let (part, statistic) = name.strip_prefix(REWARD_PREFIX)?.rsplit_once('_')?;
        (!part.is_empty() && STATISTICS.contains(&statistic)).then_some(REWARD_PART)
    };
    all().find(|metric| metric.name == name).or_else(is_part)
}

const REWARD_PREFIX: &str = "reward_";

/// Whether the metric called `name` measures time ([`Metric::is_time`]).
pub fn is_time(name: &str) -> bool {
    find(name).is_some_and(|metric| metric.is_time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_by_hand() {
        let mut row = Map::new();
        REWARD.put(&mut row, &[4.0, 1.0, 3.0, 0.0]);
        assert_eq!(row.keys().collect::<Vec<_>>(), REWARD.all().map(|metric| metric.name).each_ref());
        let value = |metric: Metric| metric.of(&row).unwrap();
        assert_eq!([value(REWARD.mean), value(REWARD.min), value(REWARD.max)], [2.0, 0.0, 4.0]);
        assert_eq!([value(REWARD.q25), value(REWARD.median), value(REWARD.q75)], [0.75, 2.0, 3.25]);
        assert!((value(REWARD.std) - (10.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        R_SS.put(&mut row, &[]);
        assert!(!R_SS.mean.is_in(&row));
    }

    #[test]
    fn no_name_stands_for_two_metrics() {
        let names: std::collections::BTreeSet<&str> = all().map(|metric| metric.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn a_name_is_found_with_what_it_means() {
        assert_eq!(find("reward_no_entropy_mean"), Some(REWARD_NO_ENTROPY_MEAN));
        let mut row = Map::new();
        put_reward_part(&mut row, "overlong", &[0.5]);
        assert_eq!(row.len(), 7);
        assert!(row.keys().all(|name| find(name) == Some(REWARD_PART)));
        assert_eq!(find("reward_overlong"), None);
        let times =
            ["wall_s", "tokens_per_s", "generate_s", "score_s", "update_s", "eval_s", "ranks_s", "sync_s"];
        let rates = ["generate_tokens_per_s", "score_tokens_per_s", "update_tokens_per_s"];
        let found: Vec<&str> = all().filter(Metric::is_time).map(|metric| metric.name).collect();
        assert_eq!(found.len(), times.len() + rates.len());
        assert!(times.iter().chain(&rates).all(|&name| is_time(name)) && !is_time("loss"));
    }
}
