//! What a step of GRPO says about itself: its row of `metrics.jsonl` and its samples.

use rlt_model::generate::Finish;
use serde_json::{Map, Value, json};

use super::judge::{Basis, Judged, text_ids};
use super::rollout::Group;
use super::update::Update;
use crate::metrics::{
    ACCURACY, CLIPPED_SHARE, COMPLETION_TOKENS_MEAN, EXPLANATION_VALUE_MEAN, FORMAT_RATE, GRAD_NORM, KL_MAX,
    KL_MEAN, KL_PENALTY_MEAN, KL_TO_REFERENCE, LEARNING_RATE, LOG_RATIO_MAX, LOSS, MASKED_COMPLETIONS, R_KL,
    R_SS, REPEATED_NGRAM_SHARE_MEAN, REWARD, REWARD_NO_ENTROPY_MEAN, SOLUTION_LOGPROB_MEAN,
    SOLUTION_LOGPROB_MIN, SOLUTION_OVERLAP_MEAN, THINK_TOKENS_MEAN, TRUNCATED_RATE, UNSCORABLE,
    ZERO_VARIANCE_GROUPS, put_reward_part,
};
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
    REWARD.put(&mut metrics, &rewards);
    for (part, (name, _)) in judged.first().map_or(&[][..], |first| &first.parts).iter().enumerate() {
        let values: Vec<f64> = judged.iter().map(|j| j.parts[part].1.into()).collect();
        put_reward_part(&mut metrics, name, &values);
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
    let correct: Vec<f64> = judged
        .iter()
        .filter_map(|j| match j.basis {
            Basis::Correctness(correct) => Some(f64::from(u8::from(correct))),
            Basis::Rlt(_) => None,
        })
        .collect();
    ACCURACY.put_mean(&mut metrics, &correct);
    let share =
        |holds: Vec<bool>| -> Vec<f64> { holds.into_iter().map(|b| f64::from(u8::from(b))).collect() };
    FORMAT_RATE.put_mean(&mut metrics, &share(judged.iter().map(|j| j.formatted).collect()));
    let completions = || groups.iter().flat_map(|group| &group.completions);
    let lengths: Vec<f64> = completions().map(|c| c.ids.len() as f64).collect();
    COMPLETION_TOKENS_MEAN.put_mean(&mut metrics, &lengths);
    let truncated = completions().map(|c| c.finish == Finish::Length).collect();
    TRUNCATED_RATE.put_mean(&mut metrics, &share(truncated));
    let zero_variance = groups.iter().filter(|group| group.has_zero_variance());
    ZERO_VARIANCE_GROUPS.put(&mut metrics, zero_variance.count());
    metrics
}

impl Update {
    /// Metrics of the update; of several optimizer steps the means, and the largest log-ratio.
    pub(super) fn describe(&self) -> Map<String, Value> {
        let mut metrics = Map::new();
        let losses: Vec<f64> = self.losses.iter().map(|loss| loss.loss).collect();
        LOSS.put_mean(&mut metrics, &losses);
        let kl: Vec<f64> = self.losses.iter().filter_map(|loss| loss.kl_to_reference).collect();
        KL_TO_REFERENCE.put_mean(&mut metrics, &kl);
        let clipped: Vec<f64> = self.losses.iter().map(|loss| loss.clipped_share).collect();
        CLIPPED_SHARE.put_mean(&mut metrics, &clipped);
        let log_ratio = self.losses.iter().map(|loss| loss.log_ratio_max).fold(0.0, f64::max);
        LOG_RATIO_MAX.put(&mut metrics, log_ratio);
        GRAD_NORM.put_mean(&mut metrics, &self.grad_norms);
        if let Some(learning_rate) = self.learning_rate {
            LEARNING_RATE.put(&mut metrics, learning_rate);
        }
        if let Some(penalty) = self.kl_penalty {
            KL_PENALTY_MEAN.put(&mut metrics, penalty);
        }
        MASKED_COMPLETIONS.put(&mut metrics, self.masked);
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

#[cfg(test)]
mod tests {
    use rlt_model::generate::Completion;

    use super::*;
    use crate::grpo::judge::tests::{judged, question};

    #[test]
    fn groups_without_spread_are_counted() {
        let question = question();
        let completion =
            Completion { ids: [1, 2].into(), logprobs: vec![0.0; 2], finish: Finish::Stop, version: 0 };
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
