//! Table 1: students of different traces of the same questions.

use std::path::PathBuf;

use super::pooled::PooledAccuracy;
use super::section::{Finding, Outcome, Section};
use super::stages::{Answers, Questions, Start, Told};
use super::table::Table;
use super::work::SeedWork;
use crate::worlds::World;
use rlt_method::error::Result;
use rlt_report::figure::{FigureBar, bars};

/// Whose traces a student learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceSource {
    /// None: the base model itself.
    Nothing,
    /// Honest explanations of the textbook's mixture: what a data set that somebody curated is like.
    Textbook,
    /// The teacher before RL.
    PreRl,
    /// The conventional teacher, as it answers.
    Conventional,
    /// Its right answers only.
    ConventionalRight,
    /// The RLT teacher.
    Rlt,
    /// Nothing but complete explanations: what no teacher can beat.
    Perfect,
    /// No traces, but a part of the textbook again, two thirds of it with something told: where on-policy distillation begins.
    Readable,
    /// The same model, told so much when it answers: what there is to distil.
    Told(Told),
    /// No traces: its own answers, by what it would have said if it were told so much.
    OnPolicy(Told),
    /// Right answers of itself, told the solution and trained to write what it could have written untold.
    Pedagogical,
}

impl TraceSource {
    /// In tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing (base model)",
            Self::Textbook => "textbook's own traces",
            Self::PreRl => "teacher before RL",
            Self::Conventional => "conventional teacher, raw",
            Self::ConventionalRight => "conventional teacher, right ones",
            Self::Rlt => "RLT teacher",
            Self::Perfect => "complete explanations (bound)",
            Self::Readable => "nothing (base that can read what it is told)",
            Self::Told(Told::Solution) => "nothing; told the solution as it answers",
            Self::Told(Told::Trace) => "nothing; told an explanation as it answers",
            Self::OnPolicy(Told::Solution) => "itself, told the solution (on-policy distillation)",
            Self::OnPolicy(Told::Trace) => "itself, told an explanation (on-policy distillation)",
            Self::Pedagogical => "itself, told the solution (Pedagogical RL)",
        }
    }

    /// In the names of stages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "base",
            Self::Textbook => "textbook",
            Self::PreRl => "pre-rl",
            Self::Conventional => "conventional",
            Self::ConventionalRight => "conventional-right",
            Self::Rlt => "rlt",
            Self::Perfect => "perfect",
            Self::Readable => "told-base",
            Self::Told(Told::Solution) => "told-solution",
            Self::Told(Told::Trace) => "told-trace",
            Self::OnPolicy(Told::Solution) => "on-policy-solution",
            Self::OnPolicy(Told::Trace) => "on-policy-trace",
            Self::Pedagogical => "pedagogical",
        }
    }
}

/// Which student, of how many traces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TraceSet {
    /// All questions.
    #[default]
    Full,
    /// A tenth of them.
    Small,
    /// All questions, and a student larger than its teacher.
    Larger,
    /// All questions, and everything from a base model that is hardly ever right.
    Scarce,
    /// All questions, and everything from a base model that has read so many of the textbook's 36 parts.
    Parts(usize),
}

impl TraceSet {
    /// In tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full set",
            Self::Small => "small set",
            Self::Larger => "full set, larger student",
            Self::Scarce => "full set, weak base model",
            Self::Parts(_) => "full set, base model of a part of the textbook",
        }
    }

    fn sources(self) -> &'static [TraceSource] {
        use TraceSource::{
            Conventional, ConventionalRight, Nothing, OnPolicy, Pedagogical, Perfect, PreRl, Readable, Rlt,
            Textbook,
        };
        match self {
            Self::Full => &[
                Nothing,
                Textbook,
                PreRl,
                Conventional,
                ConventionalRight,
                Rlt,
                Perfect,
                Readable,
                TraceSource::Told(Told::Solution),
                TraceSource::Told(Told::Trace),
                OnPolicy(Told::Solution),
                OnPolicy(Told::Trace),
                Pedagogical,
            ],
            Self::Small => &[Textbook, PreRl, Conventional, ConventionalRight, Rlt],
            Self::Larger => &[Nothing, PreRl, Conventional, ConventionalRight, Rlt],
            Self::Scarce | Self::Parts(_) => &[Nothing, PreRl, Conventional, ConventionalRight, Rlt, Perfect],
        }
    }
}

/// One student's figures under one seed.
#[derive(Debug, Clone)]
pub struct Table1Student {
    set: TraceSet,
    source: TraceSource,
    answers: Answers,
    /// Traces it learnt from; its own completions where it learnt on-policy.
    n_traces: usize,
    /// Share of them that show every step and are right; none where there are no traces.
    complete: Option<f64>,
}

impl Table1Student {
    /// The student's answers.
    pub fn into_answers(self) -> Answers {
        self.answers
    }
}

/// The student of `source`: its model, its name in the names of stages, and its row.
///
/// # Errors
/// What the stages report.
pub fn student(
    work: &SeedWork,
    source: TraceSource,
    set: TraceSet,
) -> Result<(PathBuf, String, Table1Student)> {
    let files = work.market()?;
    let start = match set {
        TraceSet::Full | TraceSet::Small | TraceSet::Larger => Start::Usual,
        TraceSet::Scarce => Start::Scarce,
        TraceSet::Parts(n) => Start::Parts(n),
    };
    let base = if set == TraceSet::Larger { work.larger_base()? } else { work.base(start)? };
    let own = if set == TraceSet::Larger { "larger".into() } else { start.named("base") };
    if source == TraceSource::Nothing {
        let answers = work.market_answers(&own, &base)?;
        return Ok((base, own, Table1Student { set, source, answers, n_traces: 0, complete: None }));
    }
    let without_traces = |model: PathBuf, answers, n_traces| {
        (model, source.name().into(), Table1Student { set, source, answers, n_traces, complete: None })
    };
    match source {
        TraceSource::Readable => {
            let model = work.told_base()?;
            let answers = work.market_answers(source.name(), &model)?;
            return Ok(without_traces(model, answers, 0));
        }
        TraceSource::Told(told) => {
            return Ok(without_traces(work.told_base()?, work.told_answers(told)?, 0));
        }
        TraceSource::OnPolicy(told) => {
            let (scale, model) = (work.scale, work.distilled_on_policy(told)?);
            let answers = work.market_answers(source.name(), &model)?;
            let n_answers = scale.rl_steps * scale.questions_per_step * scale.group_size;
            return Ok(without_traces(model, answers, n_answers));
        }
        _ => {}
    }
    let (rows, traces) = match source {
        TraceSource::Pedagogical => {
            work.told_answers_as_traces("traces-pedagogical", &work.pedagogical_teacher()?)?
        }
        TraceSource::Nothing
        | TraceSource::Readable
        | TraceSource::Told(_)
        | TraceSource::OnPolicy(_)
        | TraceSource::Perfect => (files.questions_train.clone(), work.perfect_traces()),
        TraceSource::Textbook => work.textbook_traces()?,
        TraceSource::PreRl => work.market_traces(&start.named("traces-pre-rl"), &work.teacher(start)?)?,
        TraceSource::Rlt => work.market_traces(&start.named("traces-rlt"), &work.rlt_teacher(start)?)?,
        TraceSource::Conventional | TraceSource::ConventionalRight => {
            let teacher = work.conventional_teacher(start)?;
            let name = start.named("traces-conventional");
            let [raw, right] = work.answers_as_traces(&name, &teacher, &files.questions_train)?;
            if source == TraceSource::Conventional { raw } else { right }
        }
    };
    let (name, limit) = match set {
        TraceSet::Full => (source.name().to_owned(), work.scale.explained),
        TraceSet::Small => (format!("{}-small", source.name()), work.scale.explained_small),
        TraceSet::Larger => (format!("{}-larger", source.name()), work.scale.explained),
        TraceSet::Scarce | TraceSet::Parts(_) => (start.named(source.name()), work.scale.explained),
    };
    let mut overrides = vec![format!("data.max_rows={limit}")];
    // As many passes as the paper's small set has.
    overrides.extend((set == TraceSet::Small).then(|| "sft.epochs=5".to_owned()));
    // Surprisal-gated imitation, by the model that the teacher was to write for.
    let is_pedagogical = source == TraceSource::Pedagogical;
    overrides.extend(is_pedagogical.then(|| "sft.gate_kappa=2".to_owned()));
    let (base, own) = if is_pedagogical { (work.told_base()?, "told-base".into()) } else { (base, own) };
    let held_out = Questions::new(World::Market, &files.questions_heldout);
    let (model, answers) = work.distilled(&name, (&own, &base), (&rows, traces.n), &overrides, &held_out)?;
    let complete = traces.complete();
    let row = Table1Student { set, source, answers, n_traces: traces.n.min(limit), complete: Some(complete) };
    Ok((model, name, row))
}

/// Every student of one seed.
///
/// # Errors
/// What the stages report.
pub fn measure(work: &SeedWork) -> Result<Vec<Table1Student>> {
    let sets = [TraceSet::Full, TraceSet::Small, TraceSet::Scarce, TraceSet::Larger];
    let sets = sets.into_iter().filter(|set| match set {
        TraceSet::Full | TraceSet::Small | TraceSet::Parts(_) => true,
        TraceSet::Scarce => work.scale.with_other_bases,
        TraceSet::Larger => work.scale.with_larger,
    });
    // Being told the solution alone gives nothing to distil: once is enough to see that.
    let is_measured = |source: &TraceSource| {
        work.scale.every_variant
            || !matches!(source, TraceSource::Told(Told::Solution) | TraceSource::OnPolicy(Told::Solution))
    };
    sets.flat_map(|set| set.sources().iter().map(move |source| (set, *source)))
        .filter(|(_, source)| is_measured(source))
        .map(|(set, source)| Ok(student(work, source, set)?.2))
        .collect()
}

/// The table, the figure and what holds.
pub fn section(seeds: &[(u64, Vec<Table1Student>)]) -> Section {
    let rows = seeds.first().map_or(&[][..], |(_, rows)| rows);
    let pooled: Vec<(TraceSet, TraceSource, PooledAccuracy)> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| {
            (
                row.set,
                row.source,
                PooledAccuracy::of(seeds.iter().filter_map(|(_, rows)| Some(&rows.get(i)?.answers))),
            )
        })
        .collect();
    let mean_over_seeds = |i: usize, value: &dyn Fn(&Table1Student) -> f64| {
        seeds.iter().filter_map(|(_, rows)| rows.get(i)).map(value).sum::<f64>() / seeds.len().max(1) as f64
    };
    let mut ours = Table::new(&["students of", "traces", "complete", "right answers (95 %)", "each seed"]);
    let mut data =
        Table::new(&["set", "traces_of", "seed", "accuracy", "low", "high", "questions", "traces"]);
    for (i, (set, source, pooled)) in pooled.iter().enumerate() {
        let complete = rows[i].complete.map(|_| mean_over_seeds(i, &|row| row.complete.unwrap_or(0.0)));
        ours.push([
            format!("{}, {}", source.label(), set.label()),
            format!("{:.0}", mean_over_seeds(i, &|row| row.n_traces as f64)),
            complete.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share)),
            pooled.text(),
            pooled.seeds_text(),
        ]);
        let line = |seed: String, accuracy: f64, low: String, high: String, n: usize, traces: f64| {
            let (set, source) = (set.label().to_owned(), source.label().to_owned());
            let accuracy = format!("{accuracy:.4}");
            [set, source, seed, accuracy, low, high, n.to_string(), format!("{traces:.0}")]
        };
        for (seed, rows) in seeds {
            let Some(row) = rows.get(i) else { continue };
            let one = PooledAccuracy::of([&row.answers]);
            let (low, high) = (one.interval.low, one.interval.high);
            let n = one.n_questions;
            data.push(line(
                seed.to_string(),
                one.accuracy,
                format!("{low:.4}"),
                format!("{high:.4}"),
                n,
                row.n_traces as f64,
            ));
        }
        let (low, high) = (pooled.interval.low, pooled.interval.high);
        let traces = mean_over_seeds(i, &|row| row.n_traces as f64);
        data.push(line(
            "all".into(),
            pooled.accuracy,
            format!("{low:.4}"),
            format!("{high:.4}"),
            pooled.n_questions,
            traces,
        ));
    }
    let bar = |(set, source, pooled): &(TraceSet, TraceSource, PooledAccuracy)| FigureBar {
        label: match set {
            TraceSet::Full => source.label().to_owned(),
            TraceSet::Small => format!("{} (small)", source.label()),
            TraceSet::Larger => format!("{} (larger)", source.label()),
            TraceSet::Scarce | TraceSet::Parts(_) => format!("{} (weak base)", source.label()),
        },
        share: pooled.accuracy,
        low: pooled.interval.low,
        high: pooled.interval.high,
        emphasis: *source == TraceSource::Rlt,
    };
    Section {
        name: "table1",
        title: "Table 1: whose traces make the best students",
        story: "The same training questions are explained by different sources; a student of each starts from the \
                same base model and answers held-out questions. The conventional teacher was trained, in as many \
                steps of as many completions as the RLT teacher, to answer rightly; its traces are its own answers, \
                raw or without the wrong ones. On-policy distillation has no traces: a base model that has learnt to read what it \
                is told answers the questions itself, in as many steps of as many completions, and learns at every token \
                what it would have said if it were told the solution, or a complete explanation, too. Pedagogical RL trains that model, told the solutions, in as many steps of \
                as many completions, to answer rightly and as the one that is not told could have; the latter then learns from \
                its right answers. \"Complete\" is the share of traces that show every step, all right."
            .into(),
        paper: paper(),
        tried: "The first version had the usual base model only, which answers half of its questions and \
                so gives RL on right answers plenty to reward. Tried since: a weak base model, which has \
                read half of the textbook, and others (`bases`).",
        paper_note: "Qwen2.5-7B students, per cent. 1K is the small set; the 32B student is larger than the 7B \
                     teacher. The traces of Bespoke are DeepSeek-R1's after post-processing.",
        figure: bars("Held-out accuracy of students, by the source of their traces", &pooled.iter().map(bar).collect::<Vec<_>>()),
        caption: "Bars: mean over seeds. Whiskers: 95 % interval (seeds drawn, then questions within each).".into(),
        findings: findings(&pooled),
        ours,
        data,
        seeds: seeds.iter().map(|(seed, _)| *seed).collect(),
    }
}

fn findings(pooled: &[(TraceSet, TraceSource, PooledAccuracy)]) -> Vec<Finding> {
    let of = |set: TraceSet, source: TraceSource| {
        pooled.iter().find(|(s, from, _)| (*s, *from) == (set, source)).map(|(.., pooled)| pooled)
    };
    let mut findings = Vec::new();
    for set in [TraceSet::Full, TraceSet::Small, TraceSet::Scarce, TraceSet::Larger] {
        let Some(rlt) = of(set, TraceSource::Rlt) else { continue };
        for (source, claim) in [
            (TraceSource::PreRl, "RLT traces beat those of the teacher before RL"),
            (TraceSource::Conventional, "RLT traces beat the raw ones of a conventional teacher"),
            (
                TraceSource::ConventionalRight,
                "RLT traces beat the post-processed ones of a conventional teacher",
            ),
            (TraceSource::Textbook, "RLT traces beat curated ones"),
            (
                TraceSource::OnPolicy(Told::Solution),
                "RLT traces beat on-policy distillation of as many completions from the solution",
            ),
            (
                TraceSource::OnPolicy(Told::Trace),
                "RLT traces beat on-policy distillation of as many completions from complete explanations",
            ),
            (TraceSource::Pedagogical, "RLT traces beat those of Pedagogical RL of as many completions"),
        ] {
            let Some(other) = of(set, source) else { continue };
            findings.push(Finding::new(
                &format!("{claim} ({})", set.label()),
                Outcome::of(rlt.is_above(other), rlt.accuracy > other.accuracy),
                format!("{} against {}", rlt.text(), other.text()),
            ));
        }
    }
    findings
}

fn paper() -> Table {
    let mut table = Table::new(&["students of", "AIME24", "MATH500", "GPQA", "mean"]);
    for (name, numbers) in [
        ("nothing (Qwen2.5-7B-Instruct)", ["10.0", "74.2", "33.3", "39.2"]),
        ("Bespoke, 1K", ["13.3", "80.0", "33.8", "42.4"]),
        ("RLT, 1K", ["20.0", "80.4", "41.9", "47.4"]),
        ("Bespoke, full", ["20.0", "82.0", "37.8", "46.6"]),
        ("RLT, full", ["23.3", "82.8", "42.4", "49.5"]),
        ("Bespoke, full, 32B student", ["63.3", "93.0", "58.1", "71.5"]),
        ("RLT, full, 32B student", ["66.7", "93.4", "59.6", "73.2"]),
    ] {
        table.push(std::iter::once(name).chain(numbers).map(str::to_owned));
    }
    table
}
