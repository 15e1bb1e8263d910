//! Table 2: students as cold starts of conventional RL.

use super::curve::curve;
use super::pooled::PooledAccuracy;
use super::section::{Finding, Outcome, Section};
use super::stages::Answers;
use super::table::Table;
use super::table1::{self, TraceSet, TraceSource};
use super::work::SeedWork;
use crate::worlds::World;
use rlt_method::error::Result;
use rlt_report::figure::{FigureLine, lines};

/// Learning rate of RL after a cold start. The teachers' 3e-4 takes a student whose sums are new and brittle, one of the weak
/// base model, from 77 to 46 % in five steps; with a third of it nobody falls, and those that learn, learn nearly as fast.
const LEARNING_RATE: &str = "optimizer.learning_rate=1e-4";

/// What RL begins from.
const COLD_STARTS: [ColdStart; 10] = [
    (TraceSet::Full, TraceSource::Nothing),
    (TraceSet::Full, TraceSource::Textbook),
    (TraceSet::Full, TraceSource::PreRl),
    (TraceSet::Full, TraceSource::Conventional),
    (TraceSet::Full, TraceSource::ConventionalRight),
    (TraceSet::Full, TraceSource::Rlt),
    (TraceSet::Scarce, TraceSource::Nothing),
    (TraceSet::Scarce, TraceSource::Conventional),
    (TraceSet::Scarce, TraceSource::ConventionalRight),
    (TraceSet::Scarce, TraceSource::Rlt),
];

/// A cold start's way through RL (step, accuracy) and its answers at the end.
type Way = (ColdStart, Vec<(f64, f64)>, PooledAccuracy);

/// A student of table 1.
type ColdStart = (TraceSet, TraceSource);

fn label((set, source): ColdStart) -> String {
    match set {
        TraceSet::Scarce => format!("{} (weak base)", source.label()),
        _ => source.label().to_owned(),
    }
}

/// One cold start under one seed.
#[derive(Debug, Clone, Default)]
pub struct ColdStartCurve {
    /// Before the first step.
    before: Answers,
    /// After the last.
    after: Answers,
    /// Step and held-out accuracy on the way.
    curve: Vec<(f64, f64)>,
}

/// Every cold start of one seed.
///
/// # Errors
/// What the stages report.
pub fn measure(work: &SeedWork) -> Result<Vec<(ColdStart, ColdStartCurve)>> {
    let files = work.market()?;
    let steps = work.scale.cold_steps;
    let measure = |(set, source): ColdStart| {
        let (model, name, student) = table1::student(work, source, set)?;
        let run = format!("rl-after-{name}");
        let rate = [LEARNING_RATE.to_owned()];
        let tuned = work.correctness_rl(&run, &model, World::Market, &files, steps, &rate)?;
        let after = work.market_answers(&run, &tuned)?;
        let before = student.into_answers();
        let mut points = vec![(0.0, before.accuracy())];
        points.extend(curve(work, &run)?);
        Ok(((set, source), ColdStartCurve { before, after, curve: points }))
    };
    COLD_STARTS.into_iter().map(measure).collect()
}

/// The table, the figure and what holds.
pub fn section(seeds: &[(u64, Vec<(ColdStart, ColdStartCurve)>)]) -> Section {
    let rows = seeds.first().map_or(&[][..], |(_, rows)| rows);
    let of = |i: usize| seeds.iter().filter_map(move |(_, rows)| Some(&rows.get(i)?.1));
    let steps: Vec<f64> =
        rows.first().map_or_else(Vec::new, |(_, row)| row.curve.iter().map(|p| p.0).collect());
    let mean_curve = |i: usize| -> Vec<(f64, f64)> {
        let at = |k: usize| {
            let values: Vec<f64> = of(i).filter_map(|row| Some(row.curve.get(k)?.1)).collect();
            values.iter().sum::<f64>() / values.len().max(1) as f64
        };
        steps.iter().enumerate().map(|(k, &step)| (step, at(k))).collect()
    };
    let last = steps.last().copied().unwrap_or(0.0);
    let headings: Vec<String> = ["cold start".to_owned(), "before RL".into()]
        .into_iter()
        .chain(steps.iter().skip(1).map(|step| format!("step {step:.0}")))
        .chain([format!("after {last:.0} steps (95 %)"), "each seed".into()])
        .collect();
    let mut ours = Table { columns: headings, rows: Vec::new() };
    let mut data = Table::new(&["cold_start", "seed", "step", "accuracy"]);
    let mut figure = Vec::new();
    let mut ends: Vec<Way> = Vec::new();
    for (i, (source, _)) in rows.iter().enumerate() {
        let (before, after) = (
            PooledAccuracy::of(of(i).map(|row| &row.before)),
            PooledAccuracy::of(of(i).map(|row| &row.after)),
        );
        let points = mean_curve(i);
        let on_the_way = points.iter().skip(1).map(|(_, share)| format!("{:.0} %", 100.0 * share));
        ours.push(
            [label(*source), format!("{:.1} %", 100.0 * before.accuracy)]
                .into_iter()
                .chain(on_the_way)
                .chain([after.text(), after.seeds_text()]),
        );
        for (seed, rows) in seeds {
            let Some((_, row)) = rows.get(i) else { continue };
            for (step, share) in &row.curve {
                data.push([label(*source), seed.to_string(), format!("{step:.0}"), format!("{share:.4}")]);
            }
            let end = format!("{:.4}", row.after.accuracy());
            data.push([label(*source), seed.to_string(), format!("{last:.0} (all questions)"), end]);
        }
        figure.push(FigureLine { label: label(*source), points: points.clone() });
        ends.push((*source, points, after));
    }
    Section {
        name: "table2",
        title: "Table 2: which student is the best cold start of RL",
        story: "The students of table 1, full set, go on with GRPO on right answers, all with the same number of \
                steps. What counts is accuracy at equal steps."
            .into(),
        paper: paper(),
        tried: "From the usual base model RL without any cold start goes far, which leaves a cold start \
                little to win. Tried since: the weak base model of table 1. With the teachers' learning rate, \
                3e-4, its students fell in the first steps (from 33 to 14 %): steps of that size along the \
                gradient undo sums that are new, as random ones of the same size do not. Hence 1e-4 for all.",
        paper_note: "RL after a cold start, 7B, per cent.",
        figure: lines("Held-out accuracy in RL, by cold start", "steps of RL", &figure),
        caption: "Mean over seeds, on the questions that are asked during training (step 0: all held-out questions).".into(),
        findings: findings(&ends),
        ours,
        data,
        seeds: seeds.iter().map(|(seed, _)| *seed).collect(),
    }
}

fn findings(ends: &[Way]) -> Vec<Finding> {
    let of = |set: TraceSet, source: TraceSource| ends.iter().find(|(from, ..)| *from == (set, source));
    let others = [
        (TraceSource::Nothing, "no cold start"),
        (TraceSource::Conventional, "raw traces of a conventional teacher"),
        (TraceSource::ConventionalRight, "post-processed traces of a conventional teacher"),
        (TraceSource::Textbook, "curated traces"),
    ];
    let compare = |set: TraceSet, (source, words): (TraceSource, &str)| {
        let ((_, rlt_curve, rlt), (_, points, other)) = (of(set, TraceSource::Rlt)?, of(set, source)?);
        let ahead_at = rlt_curve.iter().zip(points).filter(|(rlt, other)| rlt.1 > other.1).count();
        let condition = if set == TraceSet::Scarce { " (weak base model)" } else { "" };
        Some(Finding::new(
            &format!("After RL, the RLT cold start is ahead of {words}{condition}"),
            Outcome::of(rlt.is_above(other), rlt.accuracy > other.accuracy),
            format!(
                "{} against {}; ahead at {ahead_at} of {} looks on the way",
                rlt.text(),
                other.text(),
                rlt_curve.len()
            ),
        ))
    };
    [TraceSet::Full, TraceSet::Scarce]
        .iter()
        .flat_map(|&set| others.iter().filter_map(move |&other| compare(set, other)))
        .collect()
}

fn paper() -> Table {
    let mut table = Table::new(&["cold start", "AIME24", "MATH500", "GPQA", "mean"]);
    for (name, numbers) in [
        ("none", ["13.3", "74.2", "34.8", "40.8"]),
        ("traces of an RL-trained teacher, raw", ["10.0", "71.0", "34.8", "38.6"]),
        ("the same, post-processed", ["16.7", "78.2", "36.9", "43.9"]),
        ("Bespoke-7B", ["16.7", "82.8", "45.4", "48.3"]),
        ("RLT-7B", ["26.7", "84.0", "40.9", "50.5"]),
    ] {
        table.push(std::iter::once(name).chain(numbers).map(str::to_owned));
    }
    table
}
