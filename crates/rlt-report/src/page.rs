//! What the report's templates show, from what the run files hold.

use serde::Serialize;
use serde_json::{Map, Value};

use super::curves::{ChartSection, charts};
use super::explanations::{Pair, explanations, pairs};
use super::forensics::{Forensics, forensics};
use super::number::{compact, duration, percent, thousands};
use super::run_files::{DemoSummary, Evaluation, RunFiles, Student};
use super::run_kind::RunKind;
use super::tokens::Scale;
use super::trend::first_and_last;
use rlt_method::config::{Config, KlEstimator, RewardKind};
use rlt_method::metrics::{self, Metric};

/// How often the page of a run that goes on is loaded again, seconds: about as often as it is written.
const RELOAD_S: u32 = 20;

/// The whole page.
#[derive(Serialize)]
pub(super) struct Page {
    style: &'static str,
    title: String,
    kind: RunKind,
    /// The page refreshes itself every so many seconds; none where the run is over.
    reload_s: Option<u32>,
    /// Short facts under the title.
    facts: Vec<String>,
    /// The demo's own words about its questions.
    world: String,
    headline: Vec<Figure>,
    accuracy: Vec<BarGroup>,
    reward: Option<RewardRule>,
    scale: Scale,
    pairs: Vec<Pair>,
    forensics: Option<Forensics>,
    charts: Vec<ChartSection>,
    /// "step 57 (grad_norm)".
    spikes: Vec<String>,
    stages: Vec<StageBar>,
    total_time: String,
    config: String,
}

/// A headline number.
#[derive(Serialize)]
struct Figure {
    label: &'static str,
    value: String,
    /// What it was at first; empty when there is no such thing.
    from: String,
    note: String,
}

#[derive(Serialize)]
struct BarGroup {
    title: String,
    bars: Vec<Bar>,
}

/// One accuracy with its interval; positions in per cent of the axis.
#[derive(Serialize)]
struct Bar {
    label: String,
    note: String,
    value: String,
    interval: String,
    width: f64,
    low: f64,
    high: f64,
    emphasis: bool,
}

/// The reward's settings, as text.
#[derive(Serialize)]
struct RewardRule {
    alpha_min: String,
    alpha_max: String,
    solution_weight: String,
    lambda: String,
    format_penalty: String,
    unscorable_reward: String,
    student_temperature: String,
    kl: KlEstimator,
}

#[derive(Serialize)]
struct StageBar {
    name: String,
    seconds: String,
    width: f64,
}

impl Page {
    pub fn of(files: &RunFiles) -> Self {
        let kind = RunKind::of(files);
        let config = files.config.clone().unwrap_or_default();
        let columns = explanations(files);
        let samples = columns.iter().flat_map(|(_, samples)| *samples);
        let scale = Scale::of(samples.clone());
        let has_ledger = samples.clone().any(|s| !s.d_j.is_empty());
        let is_papers = (kind == RunKind::Rlt || has_ledger) && config.reward.kind == RewardKind::Rlt;
        let demo = files.demo.clone().unwrap_or_default();
        let total_seconds: f64 = demo.stages.iter().map(|s| s.seconds).sum();
        Self {
            style: crate::STYLE,
            title: title(files, &config),
            kind,
            reload_s: files.is_going_on.then_some(RELOAD_S),
            facts: facts(files, &config, &demo),
            world: demo.world.clone(),
            headline: headline(files, kind),
            accuracy: accuracy(files),
            reward: is_papers.then(|| RewardRule::of(&config)),
            scale,
            pairs: pairs(&columns, scale, &config),
            forensics: forensics(&files.metrics, &files.extremes),
            charts: charts(&files.metrics, kind),
            spikes: spikes(&files.metrics),
            stages: demo
                .stages
                .iter()
                .map(|stage| StageBar {
                    name: stage.name.clone(),
                    seconds: duration(stage.seconds),
                    width: 100.0 * stage.seconds / total_seconds.max(1e-9),
                })
                .collect(),
            total_time: duration(total_seconds),
            config: files.config_text.clone(),
        }
    }
}

impl RewardRule {
    fn of(config: &Config) -> Self {
        let (reward, settings) = (&config.reward, config.reward.settings());
        let plain = |x: f32| format!("{x}").replace('-', "\u{2212}");
        Self {
            alpha_min: plain(settings.alpha_min),
            alpha_max: plain(settings.alpha_max),
            solution_weight: if reward.solution_weight == 1.0 {
                String::new()
            } else {
                plain(reward.solution_weight)
            },
            lambda: plain(reward.lambda),
            format_penalty: plain(reward.format_penalty),
            unscorable_reward: plain(settings.unscorable_reward),
            student_temperature: plain(reward.student_temperature),
            kl: reward.kl,
        }
    }
}

fn title(files: &RunFiles, config: &Config) -> String {
    if files.demo.is_none() && !config.name.is_empty() { config.name.clone() } else { files.folder.clone() }
}

fn facts(files: &RunFiles, config: &Config, demo: &DemoSummary) -> Vec<String> {
    let mut facts = Vec::new();
    let mut model = |path: &std::path::Path, what: &str| {
        if !path.as_os_str().is_empty() {
            facts.push(format!("{what} {}", path.display()));
        }
    };
    if files.demo.is_none() {
        model(&config.model.path, "model");
        model(&config.model.student, "student");
        model(&config.data.path, "data");
    }
    if let Some(step) =
        files.metrics.last().and_then(|row| row.get(metrics::STEP.name)).and_then(Value::as_u64)
    {
        let of = if files.demo.is_some() { " of RL" } else { "" };
        facts.push(format!("{} steps{of}", thousands(step)));
    }
    let seeds: Vec<String> = match (files.config.is_some(), demo.seeds.is_empty()) {
        (_, false) => demo.seeds.iter().map(u64::to_string).collect(),
        (true, true) => vec![config.seed.to_string()],
        (false, true) => Vec::new(),
    };
    match seeds.len() {
        0 => {}
        1 => facts.push(format!("seed {}", seeds[0])),
        _ => facts.push(format!("seeds {}", seeds.join(", "))),
    }
    facts
}

fn headline(files: &RunFiles, kind: RunKind) -> Vec<Figure> {
    let mut figures = Vec::new();
    let students = files.demo.as_ref().map_or(&[][..], |demo| &demo.students);
    if let Some(best) = students.iter().find(|s| s.emphasis) {
        let base = students.iter().find(|s| s.name == "pre_rl").or(students.first());
        figures.push(Figure {
            label: "Student accuracy",
            value: percent(best.accuracy),
            from: base.map_or_else(String::new, |base| percent(base.accuracy)),
            note: "student of the teacher before RL → after RL".into(),
        });
    }
    /// Label, metric, how to write it.
    type Headline = (&'static str, Metric, fn(f64) -> String);
    let headlines: &[Headline] = match kind {
        RunKind::Sft | RunKind::Evaluation => &[("Loss", metrics::LOSS, compact)],
        RunKind::Correctness => &[
            ("Reward", metrics::REWARD.mean, compact),
            ("Format rate", metrics::FORMAT_RATE, percent),
            ("Completion tokens", metrics::COMPLETION_TOKENS_MEAN, compact),
        ],
        RunKind::Distillation => &[
            ("Divergence", metrics::DIVERGENCE, compact),
            ("Accuracy", metrics::ACCURACY, percent),
            ("Completion tokens", metrics::COMPLETION_TOKENS_MEAN, compact),
        ],
        RunKind::Demo | RunKind::Rlt => &[
            ("Reward", metrics::REWARD.mean, compact),
            ("Solution log-prob", metrics::SOLUTION_LOGPROB_MEAN, compact),
            ("Mean divergence D", metrics::KL_MEAN, compact),
            ("Think tokens", metrics::THINK_TOKENS_MEAN, compact),
        ],
    };
    for &(label, metric, format) in headlines {
        if let Some((first, last, few)) = first_and_last(&files.metrics, &metric) {
            let note = if few == 1 {
                "first → last step".into()
            } else {
                format!("first {few} → last {few} steps")
            };
            figures.push(Figure { label, value: format(last), from: format(first), note });
        }
    }
    figures.extend(speed(files, kind));
    figures
}

/// The steps at which something jumped away from the steps before.
fn spikes(rows: &[Map<String, Value>]) -> Vec<String> {
    let of_row = |row: &Map<String, Value>| {
        let names: Vec<&str> =
            row.get(metrics::SPIKES.name)?.as_array()?.iter().filter_map(Value::as_str).collect();
        Some(format!("step {} ({})", row.get(metrics::STEP.name)?, names.join(", ")))
    };
    rows.iter().filter_map(of_row).collect()
}

fn speed(files: &RunFiles, kind: RunKind) -> Vec<Figure> {
    let last = |metric: Metric| metric.of(files.metrics.last()?);
    let plain = |label, value, note: &str| Figure { label, value, from: String::new(), note: note.into() };
    let mut figures = Vec::new();
    if let Some(demo) = files.demo.as_ref().filter(|demo| !demo.stages.is_empty()) {
        let total = demo.stages.iter().map(|s| s.seconds).sum();
        figures.push(plain("Time", duration(total), "all stages"));
    } else if let Some(seconds) = last(metrics::WALL_S) {
        figures.push(plain("Time", duration(seconds), "wall clock"));
    }
    if kind == RunKind::Sft {
        if let Some(epoch) = last(metrics::EPOCH) {
            figures.push(plain("Epochs", compact(epoch), "passes over the rows"));
        }
        if let Some((_, rate, _)) = first_and_last(&files.metrics, &metrics::TOKENS_PER_S) {
            figures.push(plain("Speed", format!("{} tokens/s", compact(rate)), "last steps"));
        }
    }
    figures
}

fn accuracy(files: &RunFiles) -> Vec<BarGroup> {
    let mut groups = Vec::new();
    if let Some(demo) = files.demo.as_ref().filter(|demo| !demo.students.is_empty()) {
        let bars = demo.students.iter().map(Bar::of_student).collect();
        groups.push(BarGroup { title: "Students on held-out questions".into(), bars });
    }
    for evaluation in &files.evaluations {
        let bar = Bar::of_evaluation(evaluation);
        let title = match evaluation.split.as_str() {
            "" => evaluation.task.clone(),
            split => format!("{}, {split}", evaluation.task),
        };
        match groups.iter_mut().find(|group| group.title == title) {
            Some(group) => group.bars.push(bar),
            None => groups.push(BarGroup { title, bars: vec![bar] }),
        }
    }
    groups
}

impl Bar {
    fn new(label: &str, note: String, (accuracy, low, high): (f64, f64, f64), emphasis: bool) -> Self {
        let on_axis = |share: f64| (share * 1000.0).round().clamp(0.0, 1000.0) / 10.0;
        Self {
            label: label.to_owned(),
            note,
            value: percent(accuracy),
            interval: format!("{} to {}", percent(low), percent(high)),
            width: on_axis(accuracy),
            low: on_axis(low),
            high: on_axis(high),
            emphasis,
        }
    }

    fn of_student(student: &Student) -> Self {
        let label = if student.label.is_empty() { &student.name } else { &student.label };
        let note = format!("{} answers", thousands(student.n));
        Self::new(label, note, (student.accuracy, student.low, student.high), student.emphasis)
    }

    fn of_evaluation(eval: &Evaluation) -> Self {
        let mut note =
            vec![format!("{} questions × {}", thousands(eval.n_questions), thousands(eval.n_samples))];
        note.extend(eval.format_rate.map(|rate| format!("format {}", percent(rate))));
        note.extend(eval.mean_tokens.map(|tokens| format!("{} tokens", compact(tokens))));
        note.extend(eval.truncated_rate.map(|rate| format!("cut off {}", percent(rate))));
        Self::new(&eval.model, note.join(" · "), (eval.accuracy, eval.low, eval.high), true)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jumps_are_listed_by_step() {
        let rows = [json!({"step": 1}), json!({"step": 57, "spikes": ["grad_norm", "reward_mean"]})];
        let rows: Vec<_> = rows.iter().map(|row| row.as_object().unwrap().clone()).collect();
        assert_eq!(spikes(&rows), ["step 57 (grad_norm, reward_mean)"]);
    }
}
