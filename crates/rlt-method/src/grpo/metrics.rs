//! What a step of GRPO says about itself: its row of `metrics.jsonl` and its samples.

use serde_json::{Map, Value, json};

use super::sample::{Group, Reading, Sample, Verdict, text_ids};
use super::update::Update;
use crate::metrics::{
    ACCURACY, CLIPPED_SHARE, COMPLETION_TOKENS_MEAN, DIVERGENCE, EXPLANATION_VALUE_MEAN, FORMAT_RATE,
    GENERATE_S, GENERATE_TOKENS_PER_S, GRAD_NORM, KL_MAX, KL_MEAN, KL_PENALTY_MEAN, KL_TO_REFERENCE,
    LEARNABILITY_MEAN, LEARNING_RATE, LOG_RATIO_MAX, LOSS, MASKED_COMPLETIONS, Metric, R_KL, R_SS,
    REPEATED_NGRAM_SHARE_MEAN, REWARD, REWARD_NO_ENTROPY_MEAN, SCORE_S, SCORE_TOKENS_PER_S,
    SOLUTION_LOGPROB_MEAN, SOLUTION_LOGPROB_MIN, SOLUTION_OVERLAP_MEAN, SURPRISE_GAP_MAX, SURPRISE_GAP_MEAN,
    THINK_TOKENS_MEAN, TOKENS_PER_S, TRUNCATED_RATE, UNSCORABLE, UPDATE_S, UPDATE_TOKENS_PER_S,
    ZERO_VARIANCE_GROUPS, put_reward_part,
};
use crate::prompts::{ChatText, PromptStyle};
use crate::score::{NGRAM_TOKENS, RltSample, ScoredSample, ledger_columns, number, score_columns};
use rlt_reward::diagnostics::{repeated_ngram_share, solution_overlap};

/// Metrics of the rewards and completions of everything that was sampled.
///
/// Parts of the RLT reward are over the completions that can be scored: `solution_logprob_min` and
/// `kl_max` are the means of each completion's minimum and maximum. Where there is nothing to take a mean
/// of, the key is absent.
pub(super) fn describe(groups: &[Group]) -> Map<String, Value> {
    let mut metrics = Map::new();
    let all = || groups.iter().flat_map(|group| &group.samples);
    let verdicts: Vec<&Verdict> = all().map(|sample| &sample.verdict).collect();
    let rewards: Vec<f64> = verdicts.iter().map(|verdict| verdict.reward.into()).collect();
    REWARD.put(&mut metrics, &rewards);
    for (part, (name, _)) in verdicts.first().map_or(&[][..], |first| &first.parts).iter().enumerate() {
        let values: Vec<f64> = verdicts.iter().map(|verdict| verdict.parts[part].1.into()).collect();
        put_reward_part(&mut metrics, name, &values);
    }
    let samples: Vec<&(RltSample, ScoredSample)> =
        verdicts.iter().filter_map(|verdict| verdict.scored.as_deref()).collect();
    if !samples.is_empty() {
        let parts: Vec<_> =
            samples.iter().filter_map(|(_, scored)| scored.score.parts.as_ref().ok()).collect();
        let of = |part: fn(&rlt_reward::rlt::RltParts) -> f32| -> Vec<f64> {
            parts.iter().map(|parts| part(parts).into()).collect()
        };
        R_SS.put(&mut metrics, &of(|p| p.r_ss));
        R_KL.put(&mut metrics, &of(|p| p.r_kl));
        SOLUTION_LOGPROB_MEAN.put_mean(&mut metrics, &of(|p| p.solution_logprob_mean));
        SOLUTION_LOGPROB_MIN.put_mean(&mut metrics, &of(|p| p.solution_logprob_min));
        KL_MEAN.put_mean(&mut metrics, &of(|p| p.kl_mean));
        KL_MAX.put_mean(&mut metrics, &of(|p| p.kl_max));
        REWARD_NO_ENTROPY_MEAN.put_mean(&mut metrics, &of(|p| p.reward_no_entropy));
        UNSCORABLE.put(&mut metrics, samples.len() - parts.len());
        let over = |value: fn(&RltSample) -> f64| -> Vec<f64> {
            samples.iter().map(|(sample, _)| value(sample)).collect()
        };
        THINK_TOKENS_MEAN.put_mean(&mut metrics, &over(|s| s.think_ids().len() as f64));
        let overlap = over(|s| solution_overlap(s.think_ids(), s.solution_ids()).into());
        SOLUTION_OVERLAP_MEAN.put_mean(&mut metrics, &overlap);
        let repeated = over(|s| repeated_ngram_share(s.think_ids(), NGRAM_TOKENS).into());
        REPEATED_NGRAM_SHARE_MEAN.put_mean(&mut metrics, &repeated);
        let value: Vec<f64> =
            samples.iter().filter_map(|(_, scored)| scored.explanation_value).map(f64::from).collect();
        EXPLANATION_VALUE_MEAN.put_mean(&mut metrics, &value);
    }
    describe_readings(&verdicts, &mut metrics);
    let share =
        |holds: Vec<bool>| -> Vec<f64> { holds.into_iter().map(|b| f64::from(u8::from(b))).collect() };
    let correct = verdicts.iter().filter_map(|verdict| verdict.is_correct).collect();
    ACCURACY.put_mean(&mut metrics, &share(correct));
    let formatted = verdicts.iter().map(|verdict| verdict.is_formatted).collect();
    FORMAT_RATE.put_mean(&mut metrics, &share(formatted));
    let lengths: Vec<f64> = all().map(|sample| sample.completion.ids.len() as f64).collect();
    COMPLETION_TOKENS_MEAN.put_mean(&mut metrics, &lengths);
    TRUNCATED_RATE.put_mean(&mut metrics, &share(all().map(Sample::is_truncated).collect()));
    let zero_variance = groups.iter().filter(|group| group.has_zero_variance());
    ZERO_VARIANCE_GROUPS.put(&mut metrics, zero_variance.count());
    metrics
}

/// What a student said of whole completions, over those that it could read.
fn describe_readings(verdicts: &[&Verdict], metrics: &mut Map<String, Value>) {
    let readings: Vec<&Reading> = verdicts.iter().filter_map(|verdict| verdict.reading.as_deref()).collect();
    if readings.is_empty() {
        return;
    }
    let read: Vec<&Reading> =
        readings.iter().copied().filter(|reading| reading.unscorable.is_none()).collect();
    let of = |value: fn(&Reading) -> f64| read.iter().map(|reading| value(reading)).collect::<Vec<f64>>();
    LEARNABILITY_MEAN.put_mean(metrics, &of(|reading| reading.learnability.into()));
    let mean = |gaps: &[f32]| gaps.iter().copied().map(f64::from).sum::<f64>() / gaps.len() as f64;
    let of_read = read.iter().filter(|reading| !reading.gaps.is_empty());
    SURPRISE_GAP_MEAN.put_mean(metrics, &of_read.map(|reading| mean(&reading.gaps)).collect::<Vec<f64>>());
    SURPRISE_GAP_MAX
        .put_mean(metrics, &of(|reading| reading.gaps.iter().copied().fold(0.0, f32::max).into()));
    UNSCORABLE.put(metrics, readings.len() - read.len());
}

impl Update {
    /// Metrics of the update; of several optimizer steps the means, and the largest log-ratio.
    pub(super) fn describe(&self) -> Map<String, Value> {
        let mut metrics = Map::new();
        GRAD_NORM.put_mean(&mut metrics, &self.grad_norms);
        if let Some(learning_rate) = self.learning_rate {
            LEARNING_RATE.put(&mut metrics, learning_rate);
        }
        if let Some(divergence) = self.divergence {
            DIVERGENCE.put(&mut metrics, divergence);
            return metrics;
        }
        let losses: Vec<f64> = self.losses.iter().map(|loss| loss.loss).collect();
        LOSS.put_mean(&mut metrics, &losses);
        let kl: Vec<f64> = self.losses.iter().filter_map(|loss| loss.kl_to_reference).collect();
        KL_TO_REFERENCE.put_mean(&mut metrics, &kl);
        let clipped: Vec<f64> = self.losses.iter().map(|loss| loss.clipped_share).collect();
        CLIPPED_SHARE.put_mean(&mut metrics, &clipped);
        let log_ratio = self.losses.iter().map(|loss| loss.log_ratio_max).fold(0.0, f64::max);
        LOG_RATIO_MAX.put(&mut metrics, log_ratio);
        if let Some(penalty) = self.kl_penalty {
            KL_PENALTY_MEAN.put(&mut metrics, penalty);
        }
        MASKED_COMPLETIONS.put(&mut metrics, self.masked);
        metrics
    }
}

/// Where the time of a step went, seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StepSeconds {
    pub generate: f64,
    pub score: f64,
    pub update: f64,
}

impl StepSeconds {
    /// Its metrics, for a step of so many completion tokens.
    pub fn put(&self, row: &mut Map<String, Value>, n_tokens: usize) {
        let Self { generate, score, update } = *self;
        let rate = |seconds: f64| n_tokens as f64 / seconds;
        TOKENS_PER_S.put(row, rate(generate + score + update));
        GENERATE_S.put(row, generate);
        SCORE_S.put(row, score);
        UPDATE_S.put(row, update);
        GENERATE_TOKENS_PER_S.put(row, rate(generate));
        SCORE_TOKENS_PER_S.put(row, rate(score));
        UPDATE_TOKENS_PER_S.put(row, rate(update));
    }
}

/// Completion tokens a second in each part of a step, for whoever watches. A part that hardly takes time (grading an answer is not scoring
/// it) has no speed worth a number.
pub(super) fn speeds(row: &Map<String, Value>) -> String {
    let of = |metric: Metric| metric.of(row).unwrap_or(0.0);
    let parts = [
        (GENERATE_S, GENERATE_TOKENS_PER_S, "written"),
        (SCORE_S, SCORE_TOKENS_PER_S, "scored"),
        (UPDATE_S, UPDATE_TOKENS_PER_S, "learnt"),
    ];
    let total: f64 = parts.iter().map(|(seconds, ..)| of(*seconds)).sum();
    let speeds = parts
        .iter()
        .filter(|(seconds, ..)| of(*seconds) > total / 100.0)
        .map(|(_, speed, what)| format!("{:.0} {what}", of(*speed)));
    format!("tokens/s: {}", speeds.collect::<Vec<_>>().join(", "))
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
    let group_size = groups.first().map_or(0, |group| group.samples.len());
    let chosen = (0..group_size).flat_map(|sample| (0..groups.len()).map(move |group| (group, sample)));
    let row = |(group, index): (usize, usize)| {
        let (question, sample) = (&groups[group].question.row, &groups[group].samples[index]);
        let verdict = &sample.verdict;
        let text = chat.tokenizer.decode(&text_ids(&sample.completion));
        let explanation = if verdict.scored.is_some() { style.split_explanation(&text).0 } else { &text };
        let mut columns = Map::from_iter([
            ("step".to_owned(), step.into()),
            ("question".to_owned(), question.question.as_str().into()),
            ("solution".to_owned(), question.solution.as_str().into()),
            ("explanation".to_owned(), explanation.into()),
            ("completion".to_owned(), text.as_str().into()),
            ("finish".to_owned(), if sample.is_truncated() { "length" } else { "stop" }.into()),
            ("reward".to_owned(), verdict.reward.into()),
        ]);
        if let Some(&advantage) = advantages.get(group * group_size + index) {
            columns.insert("advantage".into(), advantage.into());
        }
        if !verdict.parts.is_empty() {
            let rewards = verdict.parts.iter().map(|(name, value)| (name.to_string(), (*value).into()));
            columns.insert("rewards".into(), Value::Object(rewards.collect()));
        }
        if let Some(system) = &question.system {
            columns.insert("system".into(), system.as_str().into());
        }
        if let Some(of) = verdict.scored.as_deref() {
            columns.extend(score_columns(Some(&of.0), &of.1, chat));
            // What was learnt from, also where something was added.
            columns.insert("reward".into(), number(verdict.reward));
            columns.extend(ledger_columns(&of.0, &of.1, chat));
        } else if let Some(correct) = verdict.is_correct {
            let mut parts = json!({"status": "ok", "formatted": verdict.is_formatted, "correct": correct});
            if let Some(reading) = verdict.reading.as_deref() {
                match &reading.unscorable {
                    None => parts["learnability"] = number(reading.learnability),
                    Some(why) => parts["status"] = why.to_string().into(),
                }
                columns.extend(reading_columns(reading, &sample.completion.ids, chat));
            }
            columns.insert("parts".into(), parts);
        }
        Value::Object(columns)
    };
    chosen.take(n).map(row).collect()
}

/// The per-token columns of what a student said of a whole completion, nats.
fn reading_columns(reading: &Reading, ids: &[u32], chat: &ChatText) -> Map<String, Value> {
    let texts = ids.iter().map(|&id| Value::from(chat.tokenizer.decode(&[id]))).collect();
    let numbers = |values: &[f32]| values.iter().copied().map(number).collect();
    Map::from_iter([
        ("completion_tokens".to_owned(), texts),
        ("reader_logprobs".to_owned(), numbers(&reading.logprobs)),
        ("surprise_gaps".to_owned(), numbers(&reading.gaps)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpo::sample::tests::{question, sample};

    #[test]
    fn a_part_without_time_has_no_speed() {
        let of = |score| {
            let mut row = Map::new();
            StepSeconds { generate: 2.0, score, update: 1.0 }.put(&mut row, 600);
            speeds(&row)
        };
        assert_eq!(of(1.0), "tokens/s: 300 written, 600 scored, 600 learnt");
        assert_eq!(of(1e-5), "tokens/s: 300 written, 600 learnt");
    }

    #[test]
    fn groups_without_spread_are_counted() {
        let question = question();
        let groups = [[1.0, -1.0], [-0.5, -0.5]].map(|rewards| Group {
            question: &question,
            samples: rewards.map(|reward| sample(&[1, 2], reward)).into(),
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
