//! Table 1 over base models of different strength: where the order of RLT and conventional teachers turns.

use super::pooled::PooledAccuracy;
use super::section::{Finding, Outcome, Section};
use super::stages::{Answers, SCARCE_PARTS, TEXTBOOK_PARTS};
use super::table::Table;
use super::table1::{self, TraceSet, TraceSource};
use super::work::SeedWork;
use rlt_method::error::Result;
use rlt_report::figure::{FigureLine, lines};

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

/// The table, the figure and what holds.
pub fn section(seeds: &[(u64, Vec<OfBase>)]) -> Section {
    let bases: Vec<TraceSet> =
        seeds.first().map_or(&[][..], |(_, of)| of).iter().map(|(base, _)| *base).collect();
    let of = |base: usize, source: usize| {
        PooledAccuracy::of(seeds.iter().filter_map(move |(_, bases)| bases.get(base)?.1.get(source)))
    };
    let pooled: Vec<Vec<PooledAccuracy>> =
        (0..bases.len()).map(|base| (0..SOURCES.len()).map(|source| of(base, source)).collect()).collect();
    let at = |source: TraceSource| SOURCES.iter().position(|&other| other == source).unwrap_or(0);

    let mut ours = Table::new(&["base model has read", "students of", "right answers (95 %)", "each seed"]);
    let mut data = Table::new(&["parts", "students_of", "seed", "accuracy"]);
    for (b, base) in bases.iter().enumerate() {
        for (s, source) in SOURCES.iter().enumerate() {
            let read = format!("{} of 36 parts of the textbook", parts(*base));
            let of = &pooled[b][s];
            ours.push([read, source.label().to_owned(), of.text(), of.seeds_text()]);
            for (seed, bases) in seeds {
                let Some(answers) = bases.get(b).and_then(|(_, answers)| answers.get(s)) else { continue };
                let accuracy = format!("{:.4}", answers.accuracy());
                data.push([parts(*base).to_string(), source.label().to_owned(), seed.to_string(), accuracy]);
            }
        }
    }
    let base_accuracy = |b: usize| 100.0 * pooled[b][at(TraceSource::Nothing)].accuracy;
    let line = |source: TraceSource| {
        let points = (0..bases.len()).map(|b| (base_accuracy(b), pooled[b][at(source)].accuracy)).collect();
        FigureLine { label: source.label().to_owned(), points }
    };
    let drawn =
        [TraceSource::Rlt, TraceSource::ConventionalRight, TraceSource::Conventional, TraceSource::PreRl];
    let findings = (0..bases.len()).flat_map(|b| {
        let (rlt, of_base) = (&pooled[b][at(TraceSource::Rlt)], &pooled[b]);
        let others = [
            (TraceSource::PreRl, "those of the teacher before RL"),
            (TraceSource::ConventionalRight, "the post-processed ones of a conventional teacher"),
        ];
        let strength = base_accuracy(b);
        others.map(|(source, words)| {
            let other = &of_base[at(source)];
            Finding::new(
                &format!("RLT traces beat {words} (base model at {strength:.0} %)"),
                Outcome::of(rlt.is_above(other), rlt.accuracy > other.accuracy),
                format!("{} against {}", rlt.text(), other.text()),
            )
        })
    });
    Section {
        name: "bases",
        title: "Table 1 over base models: where the order of teachers turns",
        story: "Table 1's full set, from base models that have read more or less of the same textbook. Everything begins from \
                that base model: both teachers, the student that gives the reward and the students that learn."
            .into(),
        paper: paper(),
        tried: "Table 1 has the two ends of this figure.",
        paper_note: "The paper has one base model, Qwen2.5-7B-Instruct; mean over AIME24, MATH500 and GPQA, per cent.",
        figure: lines(
            "Students' accuracy, by the base model's own",
            "right answers of the base model, per cent",
            &drawn.map(line),
        ),
        caption: "Mean over seeds; every line's students begin from the base model below them.".into(),
        findings: findings.collect(),
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
