//! What each part of the method is for: teachers trained without it, and their students.

use super::curve::last;
use super::pooled::{PooledAccuracy, percent};
use super::section::{Finding, Outcome, Section};
use super::stages::{Answers, Questions, Start};
use super::table::Table;
use super::traces::Traces;
use super::work::SeedWork;
use crate::worlds::World;
use rlt_method::error::Result;
use rlt_report::figure::{FigureBar, bars};

/// A change of the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// None.
    Whole,
    /// Without r_KL.
    NoKl,
    /// Without minimum and maximum.
    NoExtremes,
    /// The teacher is the base model itself.
    NoWarmUp,
    /// D_j by Schulman's estimator.
    K3,
    /// D_j over the whole vocabulary: the paper's formula.
    FullKl,
    /// As that, weighed a third as much.
    FullKlThird,
    /// As that, weighed a tenth as much.
    FullKlTenth,
    /// The reward's student read half of the textbook.
    WeakerStudent,
    /// The reward's student is the larger model.
    StrongerStudent,
    /// Groups of a quarter of the size, of four times as many questions.
    SmallGroups,
    /// Groups of four times the size, of a quarter of the questions.
    LargeGroups,
    /// The reference model stays the teacher before RL.
    NoSync,
}

impl Variant {
    const REPORTED: [Self; 4] = [Self::Whole, Self::NoKl, Self::NoExtremes, Self::NoWarmUp];
    const ALL: [Self; 13] = [
        Self::Whole,
        Self::NoKl,
        Self::NoExtremes,
        Self::NoWarmUp,
        Self::K3,
        Self::FullKl,
        Self::FullKlThird,
        Self::FullKlTenth,
        Self::WeakerStudent,
        Self::StrongerStudent,
        Self::SmallGroups,
        Self::LargeGroups,
        Self::NoSync,
    ];

    /// In tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Whole => "the whole method",
            Self::NoKl => "lambda = 0: no r_KL",
            Self::NoExtremes => "alpha = 0: no min, no max",
            Self::NoWarmUp => "no SFT warm-up",
            Self::K3 => "D_j by k3",
            Self::FullKl => "D_j over the vocabulary",
            Self::FullKlThird => "D_j over the vocabulary, lambda = 1",
            Self::FullKlTenth => "D_j over the vocabulary, lambda = 0.3",
            Self::WeakerStudent => "weaker reward student",
            Self::StrongerStudent => "stronger reward student",
            Self::SmallGroups => "groups of a quarter",
            Self::LargeGroups => "groups four times as large",
            Self::NoSync => "reference never synced",
        }
    }

    fn name(self) -> &'static str {
        match self {
            // The stages that table 1 has, too.
            Self::Whole => "rlt",
            Self::NoKl => "no-kl",
            Self::NoExtremes => "no-extremes",
            Self::NoWarmUp => "no-warm-up",
            Self::K3 => "k3",
            Self::FullKl => "full-kl",
            Self::FullKlThird => "full-kl-third",
            Self::FullKlTenth => "full-kl-tenth",
            Self::WeakerStudent => "weaker-student",
            Self::StrongerStudent => "stronger-student",
            Self::SmallGroups => "small-groups",
            Self::LargeGroups => "large-groups",
            Self::NoSync => "no-sync",
        }
    }

    fn overrides(self, work: &SeedWork) -> Vec<String> {
        let (questions, group) = (work.scale.questions_per_step, work.scale.group_size);
        let grouped = |questions: usize, group: usize| {
            vec![format!("grpo.questions_per_step={questions}"), format!("grpo.group_size={group}")]
        };
        match self {
            Self::NoKl => vec!["reward.lambda=0".into()],
            Self::NoExtremes => vec!["reward.alpha=0".into()],
            Self::K3 => vec!["reward.kl=k3".into()],
            Self::FullKl => vec!["reward.kl=full".into()],
            Self::FullKlThird => vec!["reward.kl=full".into(), "reward.lambda=1".into()],
            Self::FullKlTenth => vec!["reward.kl=full".into(), "reward.lambda=0.3".into()],
            Self::SmallGroups => grouped(4 * questions, (group / 4).max(2)),
            Self::LargeGroups => grouped((questions / 4).max(1), 4 * group),
            Self::NoSync => vec!["grpo.reference_sync_every=0".into()],
            Self::Whole | Self::NoWarmUp | Self::WeakerStudent | Self::StrongerStudent => Vec::new(),
        }
    }
}

/// A teacher and its student under one seed.
#[derive(Debug, Clone)]
pub struct AblationTeacher {
    variant: Variant,
    answers: Answers,
    traces: Traces,
    /// At the end of RL; rewards of different definitions do not compare.
    reward: Option<f64>,
}

/// Every variant of one seed.
///
/// # Errors
/// What the stages report.
pub fn measure(work: &SeedWork) -> Result<Vec<AblationTeacher>> {
    let variants = if work.scale.every_variant { &Variant::ALL[..] } else { &Variant::REPORTED[..] };
    variants.iter().map(|&variant| row(work, variant)).collect()
}

fn row(work: &SeedWork, variant: Variant) -> Result<AblationTeacher> {
    let name = variant.name();
    let base = work.base(Start::Usual)?;
    let warmed = if variant == Variant::NoWarmUp { base.clone() } else { work.teacher(Start::Usual)? };
    let judge = match variant {
        Variant::WeakerStudent => work.base(Start::Scarce)?,
        Variant::StrongerStudent => work.larger_base()?,
        _ => base.clone(),
    };
    let run = if variant == Variant::Whole { "rlt".to_owned() } else { format!("rlt-{name}") };
    let teacher = work.rlt(&run, &warmed, &judge, &variant.overrides(work))?;
    let (rows, traces) = work.market_traces(&format!("traces-{name}"), &teacher)?;
    let limit = format!("data.max_rows={}", work.scale.explained);
    let path = work.market()?.questions_heldout;
    let held_out = Questions::new(World::Market, &path);
    // A teacher that finishes nothing has no student.
    let (_, answers) = work.distilled(name, ("base", &base), (&rows, traces.n), &[limit], &held_out)?;
    Ok(AblationTeacher {
        variant,
        answers,
        traces,
        reward: last(work, &run, rlt_method::metrics::REWARD.mean.name)?,
    })
}

/// The table, the figure and what holds.
pub fn section(seeds: &[(u64, Vec<AblationTeacher>)]) -> Section {
    let rows = seeds.first().map_or(&[][..], |(_, rows)| rows);
    let of = |i: usize| seeds.iter().filter_map(move |(_, rows)| rows.get(i));
    let average = |i: usize, value: &dyn Fn(&AblationTeacher) -> f64| {
        of(i).map(value).sum::<f64>() / seeds.len().max(1) as f64
    };
    let mut ours = Table::new(&[
        "teacher trained with",
        "student's accuracy (95 %)",
        "each seed",
        "complete",
        "tokens",
        "solution repeated",
        "unusable",
        "last reward",
    ]);
    let mut data = Table::new(&[
        "variant",
        "seed",
        "accuracy",
        "complete",
        "tokens",
        "solution_repeated",
        "unusable",
        "last_reward",
    ]);
    let mut figure = Vec::new();
    let mut measured = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let label = row.variant.label();
        let pooled = PooledAccuracy::of(of(i).map(|row| &row.answers));
        let unusable = |row: &AblationTeacher| {
            row.traces.left_out as f64 / (row.traces.n + row.traces.left_out).max(1) as f64
        };
        let numbers = [
            average(i, &|row| row.traces.complete()),
            average(i, &|row| row.traces.figures.tokens),
            average(i, &|row| row.traces.figures.solution_overlap),
        ];
        ours.push([
            label.to_owned(),
            pooled.text(),
            pooled.seeds_text(),
            percent(numbers[0]),
            format!("{:.0}", numbers[1]),
            percent(numbers[2]),
            percent(average(i, &unusable)),
            format!("{:.2}", average(i, &|row| row.reward.unwrap_or(f64::NAN))),
        ]);
        for (seed, rows) in seeds {
            let Some(row) = rows.get(i) else { continue };
            data.push([
                label.to_owned(),
                seed.to_string(),
                format!("{:.4}", row.answers.accuracy()),
                format!("{:.4}", row.traces.complete()),
                format!("{:.2}", row.traces.figures.tokens),
                format!("{:.4}", row.traces.figures.solution_overlap),
                format!("{:.4}", unusable(row)),
                row.reward.map_or_else(String::new, |reward| format!("{reward:.4}")),
            ]);
        }
        figure.push(FigureBar {
            label: label.into(),
            share: pooled.accuracy,
            low: pooled.interval.low,
            high: pooled.interval.high,
            emphasis: row.variant == Variant::Whole,
        });
        let repeated = of(i).map(|row| row.traces.figures.solution_overlap).collect();
        measured.push(Measured { variant: row.variant, student: pooled, tokens: numbers[1], repeated });
    }
    Section {
        name: "ablations",
        title: "Ablations: what each part is for",
        story: "The teacher is trained anew with one part of the method changed; everything else, the student's \
                training included, is as in table 1. \"Solution repeated\" is the longest run of the solution's \
                tokens that an explanation holds, as a share of the solution; \"unusable\" explanations do not end or \
                are empty. Rewards of different definitions do not compare."
            .into(),
        paper: paper(),
        tried: "Each row is one change with everything else as it is: lambda was tuned again for D_j over the vocabulary, the steps \
                were not for other groups. Explanations are one line a step here; where they can grow longer, see `padding`.",
        paper_note: "In words; the other rows here are ours.",
        figure: bars("Held-out accuracy of the student, by how its teacher was trained", &figure),
        caption: "Bars: mean over seeds. Whiskers: 95 % interval (seeds drawn, then questions within each).".into(),
        findings: findings(&measured),
        ours,
        data,
        seeds: seeds.iter().map(|(seed, _)| *seed).collect(),
    }
}

/// What the findings are about.
struct Measured {
    variant: Variant,
    student: PooledAccuracy,
    /// Mean length of an explanation.
    tokens: f64,
    /// Share of the solution that explanations repeat, seed by seed.
    repeated: Vec<f64>,
}

impl Measured {
    fn repeated_text(&self) -> String {
        let shares: Vec<String> = self.repeated.iter().map(|share| format!("{:.0}", 100.0 * share)).collect();
        shares.join(", ")
    }
}

fn findings(measured: &[Measured]) -> Vec<Finding> {
    let of = |variant: Variant| measured.iter().find(|known| known.variant == variant);
    let Some(whole) = of(Variant::Whole) else { return Vec::new() };
    let mut findings = Vec::new();
    if let Some(without) = of(Variant::NoKl) {
        let more: Vec<f64> = without.repeated.iter().zip(&whole.repeated).map(|(a, b)| a - b).collect();
        findings.push(Finding::new(
            "Without r_KL the teacher repeats the solution",
            Outcome::of(more.iter().all(|more| *more > 0.1), more.iter().sum::<f64>() > 0.0),
            format!(
                "{} % of it against {}, each seed; student {} against {}",
                without.repeated_text(),
                whole.repeated_text(),
                without.student.text(),
                whole.student.text()
            ),
        ));
    }
    if let Some(without) = of(Variant::NoExtremes) {
        let longer = without.tokens / whole.tokens;
        findings.push(Finding::new(
            "Without minimum and maximum the explanations grow longer",
            Outcome::of(longer > 1.1, longer > 1.02),
            format!(
                "{:.0} tokens against {:.0}; student {} against {}",
                without.tokens,
                whole.tokens,
                without.student.text(),
                whole.student.text()
            ),
        ));
    }
    for variant in [
        Variant::NoWarmUp,
        Variant::K3,
        Variant::FullKl,
        Variant::FullKlThird,
        Variant::FullKlTenth,
        Variant::WeakerStudent,
        Variant::StrongerStudent,
    ] {
        let Some(Measured { student, .. }) = of(variant) else { continue };
        findings.push(Finding::new(
            &format!("The whole method does better than with the change: {}", variant.label()),
            Outcome::of(whole.student.is_above(student), whole.student.accuracy > student.accuracy),
            format!("{} against {}", whole.student.text(), student.text()),
        ));
    }
    findings
}

fn paper() -> Table {
    let mut table = Table::new(&["without", "what happens"]);
    table.push(["r_KL".to_owned(), "the teacher repeats the solution".to_owned()]);
    table.push(["minimum and maximum".to_owned(), "the explanations grow longer".to_owned()]);
    table
}
