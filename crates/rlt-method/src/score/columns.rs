//! Scored samples as columns of rows.

use serde_json::{Map, Value, json};

use super::{RltSample, ScoredSample};
use crate::prompts::{ChatText, StudentSequence};
use rlt_reward::diagnostics::{repeated_ngram_share, solution_overlap};
use rlt_reward::rlt::{RltParts, quantiles};

/// Length of the n-grams whose repetition is measured, tokens.
pub const NGRAM_TOKENS: usize = 4;

/// Columns `reward` and `parts` of a scored row; parts that cannot be known are null. `chat` spells tokens.
pub fn score_columns(
    sample: Option<&RltSample>,
    scored: &ScoredSample,
    chat: &ChatText,
) -> Map<String, Value> {
    let parts = scored.score.parts.as_ref().ok();
    let part = |value: fn(&RltParts) -> f32| parts.map(|parts| number(value(parts)));
    let both = sample.zip(parts);
    let spelled = |id: Option<&u32>| id.map(|&id| chat.tokenizer.decode(&[id]));
    let share = |value: fn(&RltSample) -> f32| sample.map(|sample| number(value(sample)));
    let count = |value: fn(&StudentSequence) -> usize| sample.map(|sample| value(&sample.student));
    let parts = json!({
        "solution_logprob_mean": part(|p| p.solution_logprob_mean),
        "solution_logprob_min": part(|p| p.solution_logprob_min),
        "kl_mean": part(|p| p.kl_mean),
        "kl_max": part(|p| p.kl_max),
        "format_penalty": number(scored.score.format_penalty),
        "r_ss": part(|p| p.r_ss),
        "r_kl": part(|p| p.r_kl),
        "reward_no_entropy": part(|p| p.reward_no_entropy),
        "solution_logprob_min_at": parts.map(|p| p.solution_logprob_min_at),
        "solution_logprob_min_token":
            both.and_then(|(s, p)| spelled(s.solution_ids().get(p.solution_logprob_min_at))),
        "solution_logprob_quantiles": parts.map(|_| spread(&scored.solution_logprobs)),
        "kl_max_at": parts.map(|p| p.kl_max_at),
        "kl_max_token": both.and_then(|(s, p)| spelled(s.think_ids().get(p.kl_max_at))),
        "kl_quantiles": parts.map(|p| spread(&p.d_j)),
        "explanation_value": scored.explanation_value.map(number),
        "solution_overlap": share(|s| solution_overlap(s.think_ids(), s.solution_ids())),
        "repeated_ngram_share": share(|s| repeated_ngram_share(s.think_ids(), NGRAM_TOKENS)),
        "n_think": count(|s| s.thought.len()),
        "n_solution": count(|s| s.solution.len()),
        "n_boundary": count(|s| s.n_boundary),
        "status": match sample.and_then(|sample| sample.forged.as_ref()) {
            Some(tag) if parts.is_some() => format!("the explanation writes `{tag}` itself"),
            _ => scored.score.status(),
        },
    });
    Map::from_iter([("reward".to_owned(), number(scored.score.reward)), ("parts".to_owned(), parts)])
}

/// The per-token columns: token texts and log-probabilities (nats) of thought and solution, and D_j.
pub fn ledger_columns(sample: &RltSample, scored: &ScoredSample, chat: &ChatText) -> Map<String, Value> {
    let texts =
        |ids: &[u32]| ids.iter().map(|&id| Value::from(chat.tokenizer.decode(&[id]))).collect::<Value>();
    let numbers = |values: &[f32]| values.iter().copied().map(number).collect::<Value>();
    let d_j = scored.score.parts.as_ref().map_or(&[][..], |parts| &parts.d_j);
    Map::from_iter([
        ("think_tokens".to_owned(), texts(sample.think_ids())),
        ("d_j".to_owned(), numbers(d_j)),
        ("teacher_logprobs".to_owned(), numbers(&scored.teacher_logprobs)),
        ("student_logprobs".to_owned(), numbers(&scored.student_logprobs)),
        ("solution_tokens".to_owned(), texts(sample.solution_ids())),
        ("solution_logprobs".to_owned(), numbers(&scored.solution_logprobs)),
        ("solution_logprobs_without_explanation".to_owned(), numbers(&scored.solution_logprobs_without)),
    ])
}

/// Five quantiles of the tokens' values, nats.
fn spread(values: &[f32]) -> Value {
    let [q05, q25, q50, q75, q95] = quantiles(values, [0.05, 0.25, 0.5, 0.75, 0.95]).map(number);
    json!({"q05": q05, "q25": q25, "q50": q50, "q75": q75, "q95": q95})
}

/// An `f32` as its own shortest decimal, not as that of the nearest `f64`.
pub(crate) fn number(value: f32) -> Value {
    Value::from(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
}
