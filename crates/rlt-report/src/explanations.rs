//! Pairs of explanations, as the templates show them.

use serde::Serialize;
use serde_json::Value;

use super::number::{compact, nats, percent, thousands};
use super::run_files::RunFiles;
use super::sample::Sample;
use super::tokens::{self, Scale, ShadedText, text_html};
use rlt_method::config::{Config, RewardKind};

/// At most this many pairs of explanations.
const MOST_PAIRS: usize = 8;

/// Two explanations side by side, or one alone.
#[derive(Serialize)]
pub(super) struct Pair {
    /// Shown once above both when they answer the same question.
    shared: Option<Task>,
    sides: Vec<Side>,
}

#[derive(Serialize, PartialEq)]
struct Task {
    question: String,
    solution: String,
}

#[derive(Serialize)]
struct Side {
    label: String,
    task: Option<Task>,
    reward: String,
    /// With the decimals of the parts, under their sum.
    reward_sum: String,
    cut_off: bool,
    /// Why it cannot be scored; empty when it can.
    unscorable: String,
    think: Option<ShadedText>,
    /// The text when there is no ledger, as HTML.
    plain: String,
    solution: Option<ShadedText>,
    parts: Vec<Part>,
    counts: Vec<(&'static str, String)>,
}

/// One line of the sum that makes the reward.
#[derive(Serialize)]
struct Part {
    label: &'static str,
    value: String,
    /// What it adds to the reward.
    adds: String,
}

/// The columns of explanations: those of the demo, else of the first and the last logged step.
pub(super) fn explanations(files: &RunFiles) -> Vec<(String, &[Sample])> {
    let or = |label: &str, default: &str| if label.is_empty() { default.into() } else { label.to_owned() };
    if let Some(demo) = &files.demo {
        return vec![
            (or(&demo.before.label, "Before RL"), &demo.before.samples),
            (or(&demo.after.label, "After RL"), &demo.after.samples),
        ];
    }
    [&files.first_samples, &files.last_samples]
        .into_iter()
        .filter_map(|samples| {
            Some((format!("Step {}", thousands(samples.first()?.step)), samples.as_slice()))
        })
        .collect()
}

/// Pairs by question where the columns share one, else in their order.
pub(super) fn pairs(columns: &[(String, &[Sample])], scale: Scale, config: &Config) -> Vec<Pair> {
    let [(left_label, left), rest @ ..] = columns else { return Vec::new() };
    let side = |label: &str, sample: &Sample| Side::of(label, sample, scale, config);
    let Some((right_label, right)) = rest.first() else {
        let alone = |sample| Pair::new(vec![side(left_label, sample)]);
        return left.iter().take(MOST_PAIRS).map(alone).collect();
    };
    let mut unpaired: Vec<&Sample> = right.iter().collect();
    let mut matched = Vec::new();
    for sample in *left {
        let same = |other: &&Sample| other.question == sample.question && other.solution == sample.solution;
        if let Some(index) = unpaired.iter().position(same) {
            matched.push((sample, unpaired.remove(index)));
        }
    }
    if matched.is_empty() {
        matched = left.iter().zip(right.iter()).collect();
    }
    let pair = |(a, b)| Pair::new(vec![side(left_label, a), side(right_label, b)]);
    matched.into_iter().take(MOST_PAIRS).map(pair).collect()
}

impl Pair {
    fn new(mut sides: Vec<Side>) -> Self {
        let same = sides.iter().all(|side| side.task == sides[0].task);
        let mut shared = None;
        if same {
            for side in &mut sides {
                shared = side.task.take();
            }
        }
        Self { shared, sides }
    }
}

impl Side {
    fn of(label: &str, sample: &Sample, scale: Scale, config: &Config) -> Self {
        let text = if sample.explanation.is_empty() { &sample.completion } else { &sample.explanation };
        let count = |key: &str| sample.parts.get(key).and_then(Value::as_u64);
        let mut counts = Vec::new();
        counts.extend(count("n_think").map(|n| ("think tokens", thousands(n))));
        counts.extend(count("n_solution").map(|n| ("solution tokens", thousands(n))));
        let number = |key: &str| sample.parts.get(key).and_then(Value::as_f64);
        counts.extend(number("explanation_value").map(|value| ("nats worth to the student", nats(value))));
        counts.extend(number("solution_overlap").map(|share| ("of the solution repeated", percent(share))));
        counts.extend(sample.advantage.map(|a| ("advantage", compact(a))));
        Self {
            label: label.to_owned(),
            task: Some(Task {
                question: text_html(sample.question.trim_end()),
                solution: text_html(sample.solution.trim()),
            }),
            reward: sample.reward.map_or_else(|| "not scorable".into(), compact),
            reward_sum: sample.reward.map_or_else(String::new, nats),
            cut_off: sample.finish == "length",
            unscorable: sample
                .parts
                .get("status")
                .and_then(Value::as_str)
                .filter(|&status| status != "ok")
                .unwrap_or_default()
                .to_owned(),
            think: tokens::think(sample, scale),
            plain: text_html(text),
            solution: tokens::solution(sample, scale),
            parts: parts(sample, config),
            counts,
        }
    }
}

/// The reward as a sum of its parts, from those that the sample has.
fn parts(sample: &Sample, config: &Config) -> Vec<Part> {
    // Other rewards are no sum of these.
    if config.reward.kind != RewardKind::Rlt {
        return Vec::new();
    }
    let reward = config.reward.settings();
    let (alpha_min, alpha_max) = (f64::from(reward.alpha_min), f64::from(reward.alpha_max));
    let (weight, lambda) = (f64::from(reward.solution_weight), f64::from(reward.lambda));
    let weights = [
        ("solution_logprob_mean", "mean log-probability of the solution", weight),
        ("solution_logprob_min", "its least likely token", weight * alpha_min),
        ("kl_mean", "mean divergence D", -lambda),
        ("kl_max", "its largest D", -lambda * alpha_max),
        ("format_penalty", "format penalty", 1.0),
    ];
    let mut sum = 0.0;
    let mut parts: Vec<Part> = weights
        .into_iter()
        .filter_map(|(key, label, weight)| {
            let value = sample.parts.get(key)?.as_f64()?;
            sum += weight * value;
            (key != "format_penalty" || value != 0.0).then(|| Part {
                label,
                value: nats(value),
                adds: nats(weight * value),
            })
        })
        .collect();
    // What was added, clipping, and reductions other than the mean change what the parts add.
    if let Some(rest) = sample.reward.map(|reward| reward - sum).filter(|rest| rest.abs() > 1e-3)
        && parts.len() > 1
    {
        parts.push(Part {
            label: "added rewards, clipping, other reductions",
            value: String::new(),
            adds: nats(rest),
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(question: &str) -> Sample {
        Sample { question: question.into(), solution: "4".into(), ..Sample::default() }
    }

    #[test]
    fn explanations_pair_by_question() {
        let (left, right) = ([asked("a"), asked("b"), asked("c")], [asked("c"), asked("a"), asked("d")]);
        let columns = [("Before".to_owned(), &left[..]), ("After".to_owned(), &right[..])];
        let pairs = pairs(&columns, Scale { kl: 1.0, logprob: 1.0 }, &Config::default());
        let questions: Vec<_> = pairs.iter().map(|p| p.shared.as_ref().unwrap().question.as_str()).collect();
        assert_eq!(questions, ["a", "c"]);
        assert!(pairs.iter().all(|pair| pair.sides.len() == 2));
    }

    #[test]
    fn different_questions_stand_above_their_own_column() {
        let (left, right) = ([asked("a")], [asked("b")]);
        let columns = [("Step 1".to_owned(), &left[..]), ("Step 9".to_owned(), &right[..])];
        let pairs = pairs(&columns, Scale { kl: 1.0, logprob: 1.0 }, &Config::default());
        assert!(pairs[0].shared.is_none());
        assert_eq!(pairs[0].sides[1].task.as_ref().unwrap().question, "b");
    }

    #[test]
    fn parts_add_up_to_the_reward() {
        let mut sample = asked("a");
        sample.parts = json!({"solution_logprob_mean": -0.5, "solution_logprob_min": -2.0, "kl_mean": 0.25,
            "kl_max": 3.0, "format_penalty": -1.0, "n_think": 12})
        .as_object()
        .unwrap()
        .clone();
        let parts = parts(&sample, &Config::default());
        let adds: Vec<&str> = parts.iter().map(|p| p.adds.as_str()).collect();
        assert_eq!(adds, ["−0.500", "−0.020", "−0.750", "−0.090", "−1.000"]);
    }
}
