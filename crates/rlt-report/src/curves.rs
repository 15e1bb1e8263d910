//! Which curves a report shows, and in what order.

use serde::Serialize;
use serde_json::{Map, Value};

use super::chart::{Axis, Chart};
use super::run_kind::RunKind;
use rlt_method::metrics;

/// The curves in the order of the page; those without data are left out.
const CHART_SECTIONS: [(&str, &[Chart]); 5] = [
    (
        "Reward over training",
        &[
            Chart {
                title: "Reward",
                caption: "Mean of the step's completions. Inner band: the middle half; outer band: worst to best.",
                metric: metrics::REWARD.mean,
                bands: &[
                    (metrics::REWARD.min, metrics::REWARD.max),
                    (metrics::REWARD.q25, metrics::REWARD.q75),
                ],
                axis: Axis::Plain,
                smoothed: true,
            },
            Chart {
                title: "<var>r</var><sub>SS</sub>: can the student reach the solution?",
                caption: "Log-probability of the solution after the explanation, nats. Higher is better.",
                metric: metrics::R_SS.mean,
                bands: &[],
                axis: Axis::Plain,
                smoothed: true,
            },
            Chart {
                title: "<var>r</var><sub>KL</sub>: would the student think this?",
                caption: "Divergence of the teacher's words from the student's, nats. Lower is better.",
                metric: metrics::R_KL.mean,
                bands: &[],
                axis: Axis::Plain,
                smoothed: true,
            },
        ],
    ),
    (
        "On held-out rows",
        &[
            Chart {
                title: "Held-out reward",
                caption: "Mean over the completions of questions that are not trained on.",
                metric: metrics::EVAL_REWARD_MEAN,
                bands: &[],
                axis: Axis::Plain,
                smoothed: false,
            },
            Chart {
                title: "Held-out accuracy",
                caption: "Share of right answers to questions that are not trained on.",
                metric: metrics::EVAL_ACCURACY,
                bands: &[],
                axis: Axis::Share,
                smoothed: false,
            },
            Chart {
                title: "Held-out loss",
                caption: "Mean negative log-probability of the target tokens of rows that are not trained on, nats.",
                metric: metrics::EVAL_LOSS,
                bands: &[],
                axis: Axis::Plain,
                smoothed: false,
            },
        ],
    ),
    (
        "What the model writes",
        &[
            Chart {
                title: "Explanation length",
                caption: "Think tokens of a completion, mean.",
                metric: metrics::THINK_TOKENS_MEAN,
                bands: &[],
                axis: Axis::Positive,
                smoothed: true,
            },
            Chart {
                title: "Format rate",
                caption: "Share of completions in the asked format.",
                metric: metrics::FORMAT_RATE,
                bands: &[],
                axis: Axis::Share,
                smoothed: true,
            },
            Chart {
                title: "Solution overlap",
                caption: "Longest run of the solution that the explanation repeats, as a share. A rise hints at copying.",
                metric: metrics::SOLUTION_OVERLAP_MEAN,
                bands: &[],
                axis: Axis::Share,
                smoothed: true,
            },
            Chart {
                title: "Repeated n-grams",
                caption: "Share of an explanation's runs of four tokens that it had before. A rise hints at padding.",
                metric: metrics::REPEATED_NGRAM_SHARE_MEAN,
                bands: &[],
                axis: Axis::Share,
                smoothed: true,
            },
            Chart {
                title: "What an explanation is worth",
                caption: "Solution score after it less that without any thought, nats. Higher is better.",
                metric: metrics::EXPLANATION_VALUE_MEAN,
                bands: &[],
                axis: Axis::Plain,
                smoothed: true,
            },
        ],
    ),
    (
        "Optimisation",
        &[
            Chart {
                title: "KL to the reference",
                caption: "How far the policy has moved from its reference model, nats a token.",
                metric: metrics::KL_TO_REFERENCE,
                bands: &[],
                axis: Axis::Positive,
                smoothed: true,
            },
            Chart {
                title: "Divergence from the teacher",
                caption: "From what the teacher would say that is told the solution, nats a token. It is the loss.",
                metric: metrics::DIVERGENCE,
                bands: &[],
                axis: Axis::Positive,
                smoothed: true,
            },
            Chart {
                title: "Loss",
                caption: "Mean negative log-probability of the target tokens, nats.",
                metric: metrics::LOSS,
                bands: &[],
                axis: Axis::Plain,
                smoothed: true,
            },
            Chart {
                title: "Gradient norm",
                caption: "Before clipping.",
                metric: metrics::GRAD_NORM,
                bands: &[],
                axis: Axis::Positive,
                smoothed: true,
            },
            Chart {
                title: "Learning rate",
                caption: "Of the optimizer step.",
                metric: metrics::LEARNING_RATE,
                bands: &[],
                axis: Axis::Positive,
                smoothed: false,
            },
        ],
    ),
    (
        "Speed",
        &[
            Chart {
                title: "Writing",
                caption: "Completion tokens sampled a second.",
                metric: metrics::GENERATE_TOKENS_PER_S,
                bands: &[],
                axis: Axis::Positive,
                smoothed: true,
            },
            Chart {
                title: "Scoring",
                caption: "Completion tokens rewarded a second.",
                metric: metrics::SCORE_TOKENS_PER_S,
                bands: &[],
                axis: Axis::Positive,
                smoothed: true,
            },
            Chart {
                title: "Learning",
                caption: "Completion tokens learnt from a second.",
                metric: metrics::UPDATE_TOKENS_PER_S,
                bands: &[],
                axis: Axis::Positive,
                smoothed: true,
            },
        ],
    ),
];

#[derive(Serialize)]
pub(super) struct ChartSection {
    title: &'static str,
    charts: Vec<DrawnChart>,
}

#[derive(Serialize)]
struct DrawnChart {
    title: &'static str,
    caption: &'static str,
    note: Option<String>,
    svg: String,
}

#[derive(Serialize)]
pub(super) struct OverlaySection {
    title: &'static str,
    charts: Vec<Overlay>,
}

#[derive(Serialize)]
struct Overlay {
    title: &'static str,
    caption: &'static str,
    svg: String,
}

/// The curves of several runs over each other.
pub(super) fn overlays(runs: &[&[Map<String, Value>]]) -> Vec<OverlaySection> {
    let rewarded = runs.iter().any(|rows| rows.iter().any(|row| metrics::REWARD.mean.is_in(row)));
    let drawn = |chart: &Chart| {
        if chart.metric == metrics::LOSS && rewarded {
            return None;
        }
        // The rest of a caption explains bands, which are not drawn here.
        let caption = match chart.bands {
            [] => chart.caption,
            _ => chart.caption.split_inclusive(". ").next().unwrap_or_default(),
        };
        Some(Overlay { title: chart.title, caption, svg: chart.overlay(runs)? })
    };
    CHART_SECTIONS
        .iter()
        .map(|(title, charts)| OverlaySection { title, charts: charts.iter().filter_map(drawn).collect() })
        .filter(|section| !section.charts.is_empty())
        .collect()
}

pub(super) fn charts(rows: &[Map<String, Value>], kind: RunKind) -> Vec<ChartSection> {
    let drawn = |chart: &Chart| {
        // One update a batch: GRPO's loss says nothing that the reward does not.
        if chart.metric == metrics::LOSS && kind != RunKind::Sft {
            return None;
        }
        let svg = chart.svg(rows)?;
        let note = chart.clipping_note(rows);
        Some(DrawnChart { title: chart.title, caption: chart.caption, note, svg })
    };
    let mut sections: Vec<ChartSection> = CHART_SECTIONS
        .iter()
        .map(|(title, charts)| ChartSection { title, charts: charts.iter().filter_map(drawn).collect() })
        .filter(|section| !section.charts.is_empty())
        .collect();
    if kind == RunKind::Sft {
        sections.reverse();
    }
    sections
}
