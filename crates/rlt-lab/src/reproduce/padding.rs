//! The ablation of minimum and maximum where an explanation can grow: the same stories, but textbook and warm-up show explanations
//! with up to a dozen remarks among the steps, which cost a student that has read them nothing and thin out a mean.

use std::path::PathBuf;

use serde_json::json;

use super::pooled::{PooledAccuracy, percent};
use super::section::{Finding, Outcome, Section};
use super::stages::{Answers, Questions};
use super::table::Table;
use super::traces::Traces;
use super::work::{SeedWork, StageKind};
use crate::worlds::dataset::{Mixture, sample_row};
use crate::worlds::explanation::padded;
use crate::worlds::story::Side;
use crate::worlds::{ExplanationKind, World};
use rlt_method::dataset::JsonlWriter;
use rlt_method::error::Result;
use rlt_method::random::Stream;
use rlt_report::figure::{FigureBar, bars};

/// Remarks in the longest explanation that anybody has read.
const MOST_REMARKS: usize = 12;
/// Longest explanation that a teacher may write: all steps of the longest story and twice as many remarks.
const MOST_TOKENS: usize = 320;
/// The paper's alpha is 0.01. Ten times as much says whether it is too small to be seen.
const ALPHAS: [f64; 3] = [0.0, 0.01, 0.1];

/// A teacher, its explanations and their student under one seed.
#[derive(Debug, Clone)]
pub struct PaddingTeacher {
    /// None before RL.
    alpha: Option<f64>,
    traces: Traces,
    answers: Answers,
}

impl PaddingTeacher {
    fn label(&self) -> String {
        self.alpha.map_or_else(|| "teacher before RL".into(), |alpha| format!("alpha = {alpha}"))
    }
}

/// Every teacher of one seed.
///
/// # Errors
/// What the stages report.
pub fn measure(work: &SeedWork) -> Result<Vec<PaddingTeacher>> {
    let rows = |name: &str, mixture: &Mixture, n: usize| padded_rows(work, name, mixture, n);
    let textbook = rows("padded-textbook", &textbook(), work.scale.market.textbook)?;
    let warm_up = rows("padded-warm-up", &teacher_sft(), work.scale.market.teacher_sft)?;
    let base = work.base_model("padded-base", &work.scale.shape, &textbook, &[])?;
    let teacher = work.warm_up("padded-teacher", &base, &warm_up)?;
    let questions = work.market()?;
    let held_out = Questions {
        longest_answer: MOST_TOKENS,
        ..Questions::new(World::Market, &questions.questions_heldout)
    };
    let limit = [format!("sampling.max_new_tokens={MOST_TOKENS}")];
    std::iter::once(None)
        .chain(ALPHAS.map(Some))
        .map(|alpha| {
            let (name, model) = match alpha {
                None => ("padded-before".to_owned(), teacher.clone()),
                Some(alpha) => {
                    let name = format!("padded-alpha-{alpha}");
                    let reward = format!("reward.alpha={alpha}");
                    let overrides = [&limit[..], &[reward]].concat();
                    (name.clone(), work.rlt(&format!("rlt-{name}"), &teacher, &base, &overrides)?)
                }
            };
            let (rows, traces) = work.explain(
                &format!("traces-{name}"),
                held_out.world,
                &model,
                &questions.questions_train,
                work.scale.explained,
                &limit,
            )?;
            let (_, answers) =
                work.distilled(&name, ("padded-base", &base), (&rows, traces.n), &[], &held_out)?;
            Ok(PaddingTeacher { alpha, traces, answers })
        })
        .collect()
}

fn textbook() -> Mixture {
    Mixture {
        kinds: vec![
            (ExplanationKind::Full, 40),
            (ExplanationKind::Skipping, 20),
            (ExplanationKind::Rambling, 40),
        ],
        ..Mixture::textbook()
    }
}

fn teacher_sft() -> Mixture {
    Mixture {
        kinds: vec![
            (ExplanationKind::Full, 15),
            (ExplanationKind::Skipping, 20),
            (ExplanationKind::Wrong, 15),
            (ExplanationKind::Restatement, 15),
            (ExplanationKind::Rambling, 35),
        ],
        ..Mixture::teacher_sft()
    }
}

/// Rows of such stories and explanations; what rambles has up to [`MOST_REMARKS`] remarks.
fn padded_rows(work: &SeedWork, name: &str, mixture: &Mixture, n: usize) -> Result<PathBuf> {
    let seed = work.miniature.seed;
    let file = "rows.jsonl";
    work.stage(StageKind::Rows, name, &format!("{n} rows, {mixture:?}, {MOST_REMARKS} remarks"), |folder| {
        let mut out = JsonlWriter::create(&folder.join(file))?;
        for index in 0..n as u64 {
            let (story, kind, explanation) = sample_row(mixture, Side::Train, seed, name, index);
            let explanation = if kind == ExplanationKind::Rambling {
                padded(&story, MOST_REMARKS, &mut Stream::new(seed, "padding", index))
            } else {
                explanation
            };
            out.write(&json!({
                "question": story.question(), "solution": story.solution(), "reasoning_trace": explanation,
            }))?;
        }
        out.finish()
    })?;
    Ok(work.at(name).join(file))
}

/// The table, the figure and what holds.
pub fn section(seeds: &[(u64, Vec<PaddingTeacher>)]) -> Section {
    let rows = seeds.first().map_or(&[][..], |(_, rows)| rows);
    let of = |i: usize| seeds.iter().filter_map(move |(_, rows)| rows.get(i));
    let shares = |i: usize, kinds: &[ExplanationKind]| {
        let share =
            |row: &PaddingTeacher| kinds.iter().map(|&kind| row.traces.figures.share(kind)).sum::<f64>();
        percent(of(i).map(share).sum::<f64>() / seeds.len().max(1) as f64)
    };
    let tokens = |i: usize| of(i).map(|row| row.traces.figures.tokens).collect::<Vec<f64>>();
    let remarks =
        |i: usize| of(i).map(|row| row.traces.figures.share(ExplanationKind::Rambling)).collect::<Vec<f64>>();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let each =
        |values: &[f64]| values.iter().map(|value| format!("{value:.0}")).collect::<Vec<_>>().join(", ");
    let students: Vec<PooledAccuracy> =
        (0..rows.len()).map(|i| PooledAccuracy::of(of(i).map(|row| &row.answers))).collect();
    let mut ours = Table::new(&[
        "teacher",
        "tokens",
        "each seed",
        "every step, nothing else",
        "every step, and remarks",
        "steps left out",
        "student's accuracy (95 %)",
    ]);
    let mut data = Table::new(&["teacher", "seed", "tokens", "full", "rambling", "skipping", "accuracy"]);
    for (i, row) in rows.iter().enumerate() {
        ours.push([
            row.label(),
            format!("{:.0}", mean(&tokens(i))),
            each(&tokens(i)),
            shares(i, &[ExplanationKind::Full]),
            shares(i, &[ExplanationKind::Rambling]),
            shares(i, &[ExplanationKind::Skipping]),
            students[i].text(),
        ]);
        for (seed, rows) in seeds {
            let Some(row) = rows.get(i) else { continue };
            let figures = &row.traces.figures;
            let share = |kind| format!("{:.4}", figures.share(kind));
            data.push([
                row.label(),
                seed.to_string(),
                format!("{:.2}", figures.tokens),
                share(ExplanationKind::Full),
                share(ExplanationKind::Rambling),
                share(ExplanationKind::Skipping),
                format!("{:.4}", row.answers.accuracy()),
            ]);
        }
    }
    let bar = |(i, row): (usize, &PaddingTeacher)| {
        let remarks = remarks(i);
        FigureBar {
            label: row.label(),
            share: mean(&remarks),
            low: remarks.iter().copied().fold(f64::INFINITY, f64::min).min(1.0),
            high: remarks.iter().copied().fold(0.0, f64::max),
            emphasis: row.alpha == Some(0.01),
        }
    };
    let at = |alpha: f64| rows.iter().position(|row| row.alpha == Some(alpha));
    let compared = at(0.0).and_then(|without| Some((without, at(0.01)?, at(0.1)?)));
    let findings = compared.map(|(without, with, more)| {
        let shares = |i: usize| each(&remarks(i).iter().map(|share| 100.0 * share).collect::<Vec<_>>());
        let claim = |which: usize, words: &str| {
            let (short, long) = (tokens(which), tokens(without));
            let shorter = long.iter().zip(&short).all(|(long, short)| long > short);
            let rarer =
                of(which).zip(of(without)).all(|(less, all)| fewer_remarks(&less.traces, &all.traces));
            Finding::new(
                words,
                Outcome::of(shorter && rarer, mean(&long) > mean(&short)),
                format!(
                    "{:.1} tokens against {:.1}; remarks in {} % of the explanations against {}, each seed",
                    mean(&short),
                    mean(&long),
                    shares(which),
                    shares(without)
                ),
            )
        };
        [
            claim(with, "Minimum and maximum with the paper's alpha, 0.01, keep explanations short"),
            claim(more, "Minimum and maximum with alpha = 0.1 keep explanations short"),
        ]
    });
    Section {
        name: "padding",
        title: "Minimum and maximum, where an explanation can grow",
        story: "The stories of table 1, but textbook and warm-up show explanations with up to a dozen remarks among the steps \
                (\"The market is busy today.\"). A student that has read such a book expects them, so they cost it nothing, and a mean over \
                tokens becomes better by them; a maximum does not. Steps can be left out, too. Base model, teacher and students begin from \
                that book; everything else is as in table 1."
            .into(),
        paper: paper(),
        paper_note: "In words.",
        tried: "The ablations' own row of alpha = 0 is from the usual book, whose explanations have at most three remarks.",
        figure: bars("Explanations with every step and remarks, by alpha", &rows.iter().enumerate().map(bar).collect::<Vec<_>>()),
        caption: "Bars: mean share of explanations over seeds. Whiskers: the lowest and the highest seed.".into(),
        findings: findings.into_iter().flatten().collect(),
        ours,
        data,
        seeds: seeds.iter().map(|(seed, _)| *seed).collect(),
    }
}

/// Whether explanations with remarks are rarer in one set than in another, by more than chance (one in forty) allows.
fn fewer_remarks(less: &Traces, more: &Traces) -> bool {
    let share = |traces: &Traces| traces.figures.share(ExplanationKind::Rambling);
    let variance = |traces: &Traces| share(traces) * (1.0 - share(traces)) / traces.n.max(1) as f64;
    share(more) - share(less) > 1.96 * (variance(less) + variance(more)).sqrt()
}

fn paper() -> Table {
    let mut table = Table::new(&["without", "what happens"]);
    table.push(["minimum and maximum".to_owned(), "the explanations grow longer".to_owned()]);
    table
}
