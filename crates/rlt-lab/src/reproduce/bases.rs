//! Table 1 over base models of different strength: where the order of RLT and conventional teachers turns.

use super::pooled::PooledAccuracy;
use super::section::{Finding, Outcome, Section};
use super::stages::{Answers, SCARCE_PARTS, TEXTBOOK_PARTS};
use super::table::Table;
use super::table1::{self, TraceSet, TraceSource};
use super::work::SeedWork;
use rlt_method::error::Result;
use rlt_report::figure::{FigureLine, clouds};

/// Students of each.
const SOURCES: [TraceSource; 5] = [
    TraceSource::Nothing,
    TraceSource::PreRl,
    TraceSource::Conventional,
    TraceSource::ConventionalRight,
    TraceSource::Rlt,
];

/// How many of the textbook's 36 parts a base model has read.
fn parts(base: TraceSet) -> usize {
    match base {
        TraceSet::Scarce => SCARCE_PARTS,
        TraceSet::Parts(n) => n,
        TraceSet::Full | TraceSet::Small | TraceSet::Larger => TEXTBOOK_PARTS,
    }
}

/// A base model, and the answers of its students: of nobody, of the teacher before RL, of the conventional one (raw, post-processed), of
/// the RLT teacher.
pub type OfBase = (TraceSet, Vec<Answers>);

/// Every student of one seed, the weakest base model's first. The first and the last base model are those of table 1.
///
/// # Errors
/// What the stages report.
pub fn measure(work: &SeedWork) -> Result<Vec<OfBase>> {
    let answers = |base, source| Ok(table1::student(work, source, base)?.2.into_answers());
    let between = work.scale.base_parts.iter().map(|&n| TraceSet::Parts(n));
    let bases = [TraceSet::Scarce].into_iter().chain(between).chain([TraceSet::Full]);
    let of_base =
        |base| Ok((base, SOURCES.iter().map(|&source| answers(base, source)).collect::<Result<_>>()?));
    bases.map(of_base).collect()
}

/// Bands of a base model's own accuracy, per cent; each begins where the one before ends.
const BANDS: [(&str, f64); 3] = [("below 15 %", 15.0), ("15 to 40 %", 40.0), ("above 40 %", f64::INFINITY)];

/// A base model under one seed, with its students.
struct BaseModel<'a> {
    read: usize,
    seed: u64,
    answers: &'a [Answers],
}

impl BaseModel<'_> {
    fn of(&self, source: TraceSource) -> Option<&Answers> {
        self.answers.get(SOURCES.iter().position(|&other| other == source)?)
    }

    /// Its own right answers, per cent.
    fn strength(&self) -> f64 {
        self.of(TraceSource::Nothing).map_or(0.0, |answers| 100.0 * answers.accuracy())
    }

    fn band(&self) -> usize {
        BANDS.iter().position(|(_, end)| self.strength() < *end).unwrap_or(0)
    }
}

/// The table, the figure and what holds. What a part of the textbook makes of a base model differs much from seed to seed, so base
/// models are ordered by what they can do, not by what they have read.
pub fn section(seeds: &[(u64, Vec<OfBase>)]) -> Section {
    let mut models: Vec<BaseModel> = seeds
        .iter()
        .flat_map(|(seed, bases)| {
            bases.iter().map(|(base, answers)| BaseModel { read: parts(*base), seed: *seed, answers })
        })
        .collect();
    models.sort_by(|a, b| a.strength().total_cmp(&b.strength()));

    let mut ours = Table::new(&["base model", "models", "students of", "right answers (95 %)", "each model"]);
    let mut data = Table::new(&["parts", "seed", "base_accuracy", "students_of", "accuracy"]);
    let mut findings = Vec::new();
    for (band, (name, _)) in BANDS.iter().enumerate() {
        let of_band: Vec<&BaseModel> = models.iter().filter(|model| model.band() == band).collect();
        if of_band.is_empty() {
            continue;
        }
        let pooled = |source| PooledAccuracy::of(of_band.iter().filter_map(|model| model.of(source)));
        for source in SOURCES {
            let of = pooled(source);
            ours.push([
                format!("{name} right"),
                of_band.len().to_string(),
                source.label().to_owned(),
                of.text(),
                of.seeds_text(),
            ]);
        }
        let rlt = pooled(TraceSource::Rlt);
        for (source, words) in [
            (TraceSource::PreRl, "those of the teacher before RL"),
            (TraceSource::Conventional, "the raw ones of a conventional teacher"),
            (TraceSource::ConventionalRight, "the post-processed ones of a conventional teacher"),
        ] {
            let other = pooled(source);
            findings.push(Finding::new(
                &format!("RLT traces beat {words} (base models {name} right)"),
                Outcome::of(rlt.is_above(&other), rlt.accuracy > other.accuracy),
                format!("{} against {}", rlt.text(), other.text()),
            ));
        }
    }
    for model in &models {
        for source in SOURCES {
            let Some(answers) = model.of(source) else { continue };
            data.push([
                model.read.to_string(),
                model.seed.to_string(),
                format!("{:.4}", model.strength() / 100.0),
                source.label().to_owned(),
                format!("{:.4}", answers.accuracy()),
            ]);
        }
    }
    let line = |source: TraceSource| FigureLine {
        label: source.label().to_owned(),
        points: models
            .iter()
            .filter_map(|model| Some((model.strength(), model.of(source)?.accuracy())))
            .collect(),
    };
    let drawn =
        [TraceSource::Rlt, TraceSource::ConventionalRight, TraceSource::Conventional, TraceSource::PreRl];
    Section {
        name: "bases",
        title: "Table 1 over base models: where the order of teachers turns",
        story: "Table 1's full set, from base models that have read more or less of the same textbook. Everything begins from \
                that base model: both teachers, the student that gives the reward and the students that learn. How much a part of the book \
                teaches differs much from seed to seed, so base models are ordered by their own right answers."
            .into(),
        paper: paper(),
        tried: "Table 1 has the two ends of this figure, by what was read.",
        paper_note: "The paper has one base model, Qwen2.5-7B-Instruct; mean over AIME24, MATH500 and GPQA, per cent.",
        figure: clouds(
            "Students' accuracy, by the base model's own",
            "right answers of the base model, per cent",
            &drawn.map(line),
        ),
        caption: "Every point is one base model under one seed; its students begin from it. Lines of least squares. Intervals of the table: base models are drawn, then \
                  questions within each."
            .into(),
        findings,
        ours,
        data,
        seeds: seeds.iter().map(|(seed, _)| *seed).collect(),
    }
}

fn paper() -> Table {
    let mut table = Table::new(&["students of", "mean"]);
    for (name, number) in [("nothing (base model)", "39.2"), ("Bespoke, full", "46.6"), ("RLT, full", "49.5")]
    {
        table.push([name, number].map(str::to_owned));
    }
    table
}
