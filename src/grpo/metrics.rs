//! What a step of GRPO says about itself: its row of `metrics.jsonl` and its samples.

use rlt_model::generate::Finish;
use serde_json::{Map, Value, json};

use super::judge::{Basis, Judged, text_ids};
use super::rollout::Group;
use super::update::Update;
use crate::prompts::{ChatText, PromptStyle};
use crate::score::{NGRAM_TOKENS, RltSample, ScoredSample, ledger_columns, score_columns};
use rlt_reward::diagnostics::{repeated_ngram_share, solution_overlap};

/// Metrics of the rewards and completions of everything that was sampled.
///
/// Parts of the RLT reward are over the completions that can be scored: `solution_logprob_min` and
/// `kl_max` are the means of each completion's minimum and maximum. Where there is nothing to take a mean
/// of, the key is absent.
pub(super) fn describe(groups: &[Group]) -> Map<String, Value> {
    let mut metrics = Map::new();
    let judged: Vec<&Judged> = groups.iter().flat_map(|group| &group.judged).collect();
    let rewards: Vec<f64> = judged.iter().map(|j| j.reward.into()).collect();
    distribution(&mut metrics, "reward", &rewards);
    for (part, (name, _)) in judged.first().map_or(&[][..], |first| &first.parts).iter().enumerate() {
        let values: Vec<f64> = judged.iter().map(|j| j.parts[part].1.into()).collect();
        distribution(&mut metrics, &format!("reward_{name}"), &values);
    }
    let samples: Vec<&(RltSample, ScoredSample)> = judged
        .iter()
        .filter_map(|j| match &j.basis {
            Basis::Rlt(sample) => Some(&**sample),
            Basis::Correctness(_) => None,
        })
        .collect();
    if !samples.is_empty() {
        let parts: Vec<_> =
            samples.iter().filter_map(|(_, scored)| scored.score.parts.as_ref().ok()).collect();
        let of = |part: fn(&rlt_reward::rlt::RltParts) -> f32| -> Vec<f64> {
            parts.iter().map(|parts| part(parts).into()).collect()
        };
        distribution(&mut metrics, "r_ss", &of(|p| p.r_ss));
        distribution(&mut metrics, "r_kl", &of(|p| p.r_kl));
        average(&mut metrics, "solution_logprob_mean", &of(|p| p.solution_logprob_mean));
        average(&mut metrics, "solution_logprob_min", &of(|p| p.solution_logprob_min));
        average(&mut metrics, "kl_mean", &of(|p| p.kl_mean));
        average(&mut metrics, "kl_max", &of(|p| p.kl_max));
        average(&mut metrics, "reward_no_entropy_mean", &of(|p| p.reward_no_entropy));
        metrics.insert("unscorable".into(), (samples.len() - parts.len()).into());
        let over = |value: fn(&RltSample) -> f64| -> Vec<f64> {
            samples.iter().map(|(sample, _)| value(sample)).collect()
        };
        average(&mut metrics, "think_tokens_mean", &over(|s| s.think_ids().len() as f64));
        let overlap = over(|s| solution_overlap(s.think_ids(), s.solution_ids()).into());
        average(&mut metrics, "solution_overlap_mean", &overlap);
        let repeated = over(|s| repeated_ngram_share(s.think_ids(), NGRAM_TOKENS).into());
        average(&mut metrics, "repeated_ngram_share_mean", &repeated);
        let value: Vec<f64> =
            samples.iter().filter_map(|(_, scored)| scored.explanation_value).map(f64::from).collect();
        average(&mut metrics, "explanation_value_mean", &value);
    }
    let correct: Vec<f64> = judged
        .iter()
        .filter_map(|j| match j.basis {
            Basis::Correctness(correct) => Some(f64::from(u8::from(correct))),
            Basis::Rlt(_) => None,
        })
        .collect();
    average(&mut metrics, "accuracy", &correct);
    let share =
        |holds: Vec<bool>| -> Vec<f64> { holds.into_iter().map(|b| f64::from(u8::from(b))).collect() };
    average(&mut metrics, "format_rate", &share(judged.iter().map(|j| j.formatted).collect()));
    let completions = || groups.iter().flat_map(|group| &group.completions);
    let lengths: Vec<f64> = completions().map(|c| c.ids.len() as f64).collect();
    average(&mut metrics, "completion_tokens_mean", &lengths);
    let truncated = completions().map(|c| c.finish == Finish::Length).collect();
    average(&mut metrics, "truncated_rate", &share(truncated));
    let zero_variance = groups.iter().filter(|group| group.has_zero_variance());
    metrics.insert("zero_variance_groups".into(), zero_variance.count().into());
    metrics
}

impl Update {
    /// Metrics of the update; of several optimizer steps the means, and the largest log-ratio.
    pub(super) fn describe(&self) -> Map<String, Value> {
        let mut metrics = Map::new();
        let losses: Vec<f64> = self.losses.iter().map(|loss| loss.loss).collect();
        average(&mut metrics, "loss", &losses);
        let kl: Vec<f64> = self.losses.iter().filter_map(|loss| loss.kl_to_reference).collect();
        average(&mut metrics, "kl_to_reference", &kl);
        let clipped: Vec<f64> = self.losses.iter().map(|loss| loss.clipped_share).collect();
        average(&mut metrics, "clipped_share", &clipped);
        let log_ratio = self.losses.iter().map(|loss| loss.log_ratio_max).fold(0.0, f64::max);
        metrics.insert("log_ratio_max".into(), log_ratio.into());
        average(&mut metrics, "grad_norm", &self.grad_norms);
        if let Some(learning_rate) = self.learning_rate {
            metrics.insert("learning_rate".into(), learning_rate.into());
        }
        if let Some(penalty) = self.kl_penalty {
            metrics.insert("kl_penalty_mean".into(), penalty.into());
        }
        metrics.insert("masked_completions".into(), self.masked.into());
        metrics
    }
}

/// `n` rows of `samples/`: the first completion of every question, then the second of every question ..
pub(super) fn sample_rows(
    n: usize,
    step: u64,
    groups: &[&Group],
    advantages: &[f32],
    style: &PromptStyle,
    chat: &ChatText,
) -> Vec<Value> {
    let group_size = groups.first().map_or(0, |group| group.completions.len());
    let chosen = (0..group_size).flat_map(|sample| (0..groups.len()).map(move |group| (group, sample)));
    let row = |(group, sample): (usize, usize)| {
        let (own, index) = (groups[group], group * group_size + sample);
        let (completion, question, judged) =
            (&own.completions[sample], &own.question.row, &own.judged[sample]);
        let text = chat.tokenizer.decode(text_ids(completion));
        let explanation = match judged.basis {
            Basis::Rlt(_) => style.split_explanation(&text).0,
            Basis::Correctness(_) => &text,
        };
        let mut columns = Map::from_iter([
            ("step".to_owned(), step.into()),
            ("question".to_owned(), question.question.as_str().into()),
            ("solution".to_owned(), question.solution.as_str().into()),
            ("explanation".to_owned(), explanation.into()),
            ("completion".to_owned(), text.as_str().into()),
            ("finish".to_owned(), if completion.finish == Finish::Stop { "stop" } else { "length" }.into()),
            ("reward".to_owned(), judged.reward.into()),
            ("advantage".to_owned(), advantages[index].into()),
        ]);
        if !judged.parts.is_empty() {
            let rewards = judged.parts.iter().map(|&(name, value)| (name.to_owned(), value.into()));
            columns.insert("rewards".into(), Value::Object(rewards.collect()));
        }
        if let Some(system) = &question.system {
            columns.insert("system".into(), system.as_str().into());
        }
        match &judged.basis {
            Basis::Rlt(sample) => {
                columns.extend(score_columns(Some(&sample.0), &sample.1, chat));
                columns.extend(ledger_columns(&sample.0, &sample.1, chat));
            }
            Basis::Correctness(correct) => {
                let parts = json!({"status": "ok", "formatted": judged.formatted, "correct": correct});
                columns.insert("parts".into(), parts);
            }
        }
        Value::Object(columns)
    };
    chosen.take(n).map(row).collect()
}

fn average(metrics: &mut Map<String, Value>, name: &str, values: &[f64]) {
    if !values.is_empty() {
        metrics.insert(name.into(), mean(values).into());
    }
}

/// `NAME_mean`, `_std` (n - 1 in the denominator), `_min`, `_max`, `_median`, `_q25` and `_q75`.
fn distribution(metrics: &mut Map<String, Value>, name: &str, values: &[f64]) {
    if values.is_empty() {
        return;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let std = (squares / (values.len() as f64 - 1.0).max(1.0)).sqrt();
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
    let [median, q25, q75] = [0.5, 0.25, 0.75].map(|share| quantile(&sorted, share));
    let statistics = [
        ("mean", mean),
        ("std", std),
        ("min", min),
        ("max", max),
        ("median", median),
        ("q25", q25),
        ("q75", q75),
    ];
    metrics.extend(statistics.map(|(statistic, value)| (format!("{name}_{statistic}"), value.into())));
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

#[cfg(test)]
mod tests {
    use rlt_model::generate::Completion;

    use super::*;
    use crate::grpo::judge::tests::{judged, question};

    #[test]
    fn a_distribution_by_hand() {
        let mut metrics = Map::new();
        distribution(&mut metrics, "reward", &[4.0, 1.0, 3.0, 0.0]);
        let value = |name: &str| metrics[&format!("reward_{name}")].as_f64().unwrap();
        assert_eq!([value("mean"), value("min"), value("max")], [2.0, 0.0, 4.0]);
        assert_eq!([value("q25"), value("median"), value("q75")], [0.75, 2.0, 3.25]);
        assert!((value("std") - (10.0_f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn groups_without_spread_are_counted() {
        let question = question();
        let completion = Completion { ids: vec![1, 2], logprobs: vec![0.0; 2], finish: Finish::Stop };
        let groups = [[1.0, -1.0], [-0.5, -0.5]].map(|rewards| Group {
            question: &question,
            completions: vec![completion.clone(); 2],
            judged: rewards.map(judged).into(),
        });
        let metrics = describe(&groups);
        assert_eq!(metrics["zero_variance_groups"], 1);
        assert_eq!((&metrics["format_rate"], &metrics["accuracy"]), (&json!(0.75), &json!(0.25)));
        assert_eq!(
            (&metrics["completion_tokens_mean"], &metrics["truncated_rate"]),
            (&json!(2.0), &json!(0.0))
        );
        assert!(!metrics.contains_key("r_ss_mean"));
    }
}
