//! Figure 4a: a teacher that was trained on one world explains another, unchanged.

use std::path::{Path, PathBuf};

use rlt_files::{MOST_ROWS, write_atomic};

use super::curve::{curve, sum, tokens_sampled};
use super::pooled::{PooledAccuracy, percent};
use super::section::{Finding, Outcome, Section};
use super::stages::{Answers, Questions};
use super::table::Table;
use super::traces::Traces;
use super::work::{SeedWork, StageKind};
use crate::worlds::countdown::dataset::sum_row;
use crate::worlds::{DatasetFiles, World, WorldContent};
use rlt_method::error::{Error, Result};
use rlt_report::figure::{FigureLine, lines};

/// Who learns Countdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Student {
    /// A base model that knows the market world and sums, and has never seen a Countdown problem: as new to it as the paper's
    /// student is.
    New,
    /// The teacher's own base model, which has read tens of thousands of such problems.
    WellRead,
}

impl Student {
    const ALL: [Self; 2] = [Self::New, Self::WellRead];

    /// The stage of its base model.
    fn base(self) -> &'static str {
        match self {
            Self::New => "sums-base",
            Self::WellRead => "both-base",
        }
    }

    /// The name of a stage of this student.
    fn named(self, stage: &str) -> String {
        match self {
            Self::New => format!("sums-{stage}"),
            Self::WellRead => format!("both-{stage}"),
        }
    }

    /// In tables.
    fn condition(self) -> &'static str {
        match self {
            Self::New => "",
            Self::WellRead => " (student that has read Countdown)",
        }
    }

    /// In the legend of the figure.
    fn in_short(self) -> &'static str {
        match self {
            Self::New => "",
            Self::WellRead => " (has read Countdown)",
        }
    }
}

/// One student's ways to Countdown.
#[derive(Debug, Clone, Default)]
struct Ways {
    base: Answers,
    of_pre_rl: Answers,
    of_rlt: Answers,
    direct: Answers,
    /// Tokens written and learnt from on the way of distillation, on Countdown.
    distillation_tokens: f64,
    /// Tokens written and learnt from, and held-out accuracy, in direct RL.
    curve: Vec<(f64, f64)>,
}

/// One seed's figures.
#[derive(Debug, Clone, Default)]
pub struct Fig4aFigures {
    /// Of [`Student::ALL`].
    ways: Vec<Ways>,
    traces_pre_rl: Traces,
    traces_rlt: Traces,
    /// Tokens written and learnt from in the teacher's RL on the other world.
    teacher_tokens: f64,
}

/// The whole comparison under one seed.
///
/// # Errors
/// What the stages report.
pub fn measure(work: &SeedWork) -> Result<Fig4aFigures> {
    let numbers = work.numbers()?;
    let (textbook, warm_up) = work.both_worlds()?;
    let both = work.base_model(Student::WellRead.base(), &work.scale.shape, &textbook, &[])?;
    let sums = work.base_model(Student::New.base(), &work.scale.shape, &work.market_and_sums()?, &[])?;
    let teacher = work.warm_up("both-teacher", &both, &warm_up)?;
    let rlt = work.rlt("both-rlt", &teacher, &both, &[])?;
    let explain = |name: &str, teacher: &Path| {
        let (questions, n) = (&numbers.questions_train, work.scale.explained);
        work.explain(&format!("traces-{name}"), World::Numbers, teacher, questions, n, &[])
    };
    let (pre_rl_rows, traces_pre_rl) = explain("both-pre-rl", &teacher)?;
    let (rlt_rows, traces_rlt) = explain("both-rlt-countdown", &rlt)?;

    let asked = Questions::new(World::Numbers, &numbers.questions_heldout);
    let completions = work.scale.questions_per_step * work.scale.group_size;
    // Each token that RL samples is also learnt from.
    let twice = |points: Vec<(f64, f64)>| points.into_iter().map(|(step, tokens)| (step, 2.0 * tokens));
    let ways = |student: Student, base: &Path| -> Result<Ways> {
        let own = (student.base(), base);
        let distil = |name: &str, rows: &Path, n: usize| -> Result<Answers> {
            Ok(work.distilled(&student.named(name), own, (rows, n), &[], &asked)?.1)
        };
        let of_pre_rl = distil("pre-rl", &pre_rl_rows, traces_pre_rl.n)?;
        let of_rlt = distil("rlt-countdown", &rlt_rows, traces_rlt.n)?;
        let (run, steps) = (student.named("direct"), work.scale.rl_steps);
        let direct = work.correctness_rl(&run, base, World::Numbers, &numbers, steps, &[])?;
        let spent: Vec<(f64, f64)> = twice(tokens_sampled(work, &run, completions)?).collect();
        let at_step = |step: f64| spent.iter().find(|(at, _)| *at == step).map_or(0.0, |(_, tokens)| *tokens);
        let base = work.answers(own.0, base, &asked)?;
        let mut points = vec![(0.0, base.accuracy())];
        points.extend(curve(work, &run)?.into_iter().map(|(step, share)| (at_step(step), share)));
        let learning = format!("student-{}", student.named("rlt-countdown"));
        Ok(Ways {
            distillation_tokens: traces_rlt.tokens + sum(work, &learning, "tokens")?,
            base,
            of_pre_rl,
            of_rlt,
            direct: work.answers(&run, &direct, &asked)?,
            curve: points,
        })
    };
    let of_teacher = twice(tokens_sampled(work, "both-rlt", completions)?).next_back();
    Ok(Fig4aFigures {
        ways: vec![ways(Student::New, &sums)?, ways(Student::WellRead, &both)?],
        teacher_tokens: of_teacher.map_or(0.0, |(_, tokens)| tokens),
        traces_pre_rl,
        traces_rlt,
    })
}

impl Ways {
    /// Direct RL's accuracy at the first look after as many tokens as distillation took; the last look where it
    /// never came to that.
    fn direct_at_equal_tokens(&self) -> f64 {
        let reached = self.curve.iter().find(|(tokens, _)| *tokens >= self.distillation_tokens);
        reached.or(self.curve.last()).map_or(0.0, |(_, share)| *share)
    }
}

/// One student's ways over seeds.
struct Pooled {
    base: PooledAccuracy,
    pre_rl: PooledAccuracy,
    rlt: PooledAccuracy,
    direct: PooledAccuracy,
    /// Direct RL at equal tokens: the mean, and under each seed.
    equal: f64,
    equals: Vec<f64>,
    /// Thousand tokens of distillation, and of direct RL to its end.
    distillation: f64,
    all: f64,
    /// Direct RL on its way, over thousand tokens.
    curve: Vec<(f64, f64)>,
}

impl Pooled {
    fn of(ways: &[&Ways]) -> Self {
        let over = |answers: fn(&Ways) -> &Answers| PooledAccuracy::of(ways.iter().map(|w| answers(w)));
        let average = |value: &dyn Fn(&Ways) -> f64| {
            ways.iter().map(|w| value(w)).sum::<f64>() / ways.len().max(1) as f64
        };
        let n_points = ways.first().map_or(0, |w| w.curve.len());
        let point = |k: usize| {
            let at = |w: &Ways| w.curve.get(k).copied().unwrap_or_default();
            (average(&|w| at(w).0) / 1000.0, average(&|w| at(w).1))
        };
        Self {
            base: over(|w| &w.base),
            pre_rl: over(|w| &w.of_pre_rl),
            rlt: over(|w| &w.of_rlt),
            direct: over(|w| &w.direct),
            equal: average(&Ways::direct_at_equal_tokens),
            equals: ways.iter().map(|w| w.direct_at_equal_tokens()).collect(),
            distillation: average(&|w| w.distillation_tokens) / 1000.0,
            all: average(&|w| w.curve.last().map_or(0.0, |(tokens, _)| *tokens)) / 1000.0,
            curve: (0..n_points).map(point).collect(),
        }
    }

    fn rows(&self, student: Student, table: &mut Table) {
        let name = |name: &str| format!("{name}{}", student.condition());
        let thousands = |tokens: f64| format!("{tokens:.0}");
        let mut row = |what: &str, tokens: f64, pooled: &PooledAccuracy| {
            table.push([name(what), thousands(tokens), pooled.text(), pooled.seeds_text()]);
        };
        row("base model", 0.0, &self.base);
        row("student of the teacher before RL", self.distillation, &self.pre_rl);
        row("student of the RLT teacher of the other world", self.distillation, &self.rlt);
        row("direct RL on Countdown, to its end", self.all, &self.direct);
        let each =
            self.equals.iter().map(|share| format!("{:.0}", 100.0 * share)).collect::<Vec<_>>().join(", ");
        let at_equal = name("direct RL on Countdown, at equal tokens");
        table.push([at_equal, thousands(self.distillation), percent(self.equal), each]);
    }

    fn findings(&self, student: Student, teacher: f64, complete: &str) -> [Finding; 3] {
        // As well as somebody who has learnt nothing is no success.
        let learnt = self.rlt.is_above(&self.base);
        let finding = |claim: &str, holds: bool, leans: bool, numbers: String| {
            Finding::new(&format!("{claim}{}", student.condition()), Outcome::of(holds, leans), numbers)
        };
        let (rlt, direct, pre_rl) = (&self.rlt, &self.direct, &self.pre_rl);
        let leans = rlt.accuracy > self.base.accuracy;
        [
            finding(
                "Traces of the unchanged teacher do as well as direct RL, at equal tokens, or better",
                learnt && rlt.interval.high >= self.equal,
                leans,
                format!("{} against {}", rlt.text(), percent(self.equal)),
            ),
            finding(
                "They do as well as direct RL to its end, or better",
                learnt && rlt.interval.high >= direct.interval.low,
                leans,
                format!(
                    "{} against {}, which took {:.0} thousand tokens; distillation took {:.0}, and {:.0} with the \
                     teacher's own RL",
                    rlt.text(),
                    direct.text(),
                    self.all,
                    self.distillation,
                    self.distillation + teacher
                ),
            ),
            finding(
                "What RL taught on one world carries over to the other",
                rlt.is_above(pre_rl),
                rlt.accuracy > pre_rl.accuracy,
                format!("{} against {} of the teacher before RL; {complete}", rlt.text(), pre_rl.text()),
            ),
        ]
    }
}

/// The table, the figure and what holds.
pub fn section(seeds: &[(u64, Fig4aFigures)]) -> Section {
    let average = |value: &dyn Fn(&Fig4aFigures) -> f64| {
        seeds.iter().map(|(_, m)| value(m)).sum::<f64>() / seeds.len().max(1) as f64
    };
    let teacher = average(&|m| m.teacher_tokens) / 1000.0;
    let complete = format!(
        "complete explanations of Countdown: {} before RL, {} after RL on the other world",
        percent(average(&|m| m.traces_pre_rl.complete())),
        percent(average(&|m| m.traces_rlt.complete()))
    );
    let students = Student::ALL.into_iter().enumerate().map(|(i, student)| {
        let ways: Vec<&Ways> = seeds.iter().filter_map(|(_, m)| m.ways.get(i)).collect();
        (student, Pooled::of(&ways))
    });
    let students: Vec<(Student, Pooled)> = students.collect();

    let mut ours =
        Table::new(&["Countdown by", "thousand tokens on Countdown", "right answers (95 %)", "each seed"]);
    let (mut findings, mut figure) = (Vec::new(), Vec::new());
    for (student, pooled) in &students {
        pooled.rows(*student, &mut ours);
        findings.extend(pooled.findings(*student, teacher, &complete));
        let mut line = |label: &str, points: Vec<(f64, f64)>| {
            figure.push(FigureLine { label: format!("{label}{}", student.in_short()), points });
        };
        let way = |pooled_end: &PooledAccuracy| {
            vec![(0.0, pooled.base.accuracy), (pooled.distillation, pooled_end.accuracy)]
        };
        line("direct RL on Countdown", pooled.curve.clone());
        line("student of the RLT teacher", way(&pooled.rlt));
        if *student == Student::New {
            line("student of the teacher before RL", way(&pooled.pre_rl));
        }
    }

    let mut data = Table::new(&["seed", "student", "what", "tokens", "accuracy"]);
    for (seed, m) in seeds {
        for (student, ways) in Student::ALL.iter().zip(&m.ways) {
            let mut line = |what: &str, tokens: f64, share: f64| {
                let (seed, student) = (seed.to_string(), student.base().to_owned());
                data.push([seed, student, what.to_owned(), format!("{tokens:.0}"), format!("{share:.4}")]);
            };
            line("base model", 0.0, ways.base.accuracy());
            line("student of the teacher before RL", ways.distillation_tokens, ways.of_pre_rl.accuracy());
            line("student of the RLT teacher", ways.distillation_tokens, ways.of_rlt.accuracy());
            ways.curve.iter().for_each(|&(tokens, share)| line("direct RL", tokens, share));
            let end = ways.curve.last().map_or(0.0, |p| p.0);
            line("direct RL, all held-out questions", end, ways.direct.accuracy());
        }
        for (what, traces) in [("before", &m.traces_pre_rl), ("after", &m.traces_rlt)] {
            let what = format!("complete explanations {what} RL");
            data.push([
                seed.to_string(),
                String::new(),
                what,
                "0".into(),
                format!("{:.4}", traces.complete()),
            ]);
        }
    }
    Section {
        name: "fig4a",
        title: "Figure 4a: a world that the teacher's RL never saw",
        story: "The teacher's base model and warm-up know two worlds, stories and Countdown; RL trains it on stories only. \
                It then explains Countdown solutions unchanged, and a student learns from that; direct RL trains the \
                student's base model on Countdown answers. The student knows stories and sums, and is new to Countdown, as the \
                paper's is; beside it stands one that has read as much of it as the teacher. Tokens count what is sampled and \
                what is learnt from."
            .into(),
        paper: paper(),
        tried: "Tried before: numbers to 12, a third of the questions of four numbers, half of the rows; \
                nobody learnt the sums. Numbers to 9, three of them, twice the rows and no plain sums \
                mended that. Then a student that had read as much of Countdown as its teacher, which had little left to learn: \
                its rows are still here.",
        paper_note: "Countdown, per cent right; the teacher was not trained on it.",
        figure: lines("Countdown: accuracy against tokens", "thousand tokens, sampled and learnt from", &figure),
        caption: "Mean over seeds. Distillation is one line from the base model to its student.".into(),
        findings,
        ours,
        data,
        seeds: seeds.iter().map(|(seed, _)| *seed).collect(),
    }
}

fn paper() -> Table {
    let mut table = Table::new(&["Countdown by", "right answers"]);
    table.push(["RLT traces, teacher unchanged".to_owned(), "55.7 %".to_owned()]);
    table.push(["direct RL on Countdown".to_owned(), "50.8 %".to_owned()]);
    table
}

impl SeedWork<'_> {
    /// The Countdown world's files.
    fn numbers(&self) -> Result<DatasetFiles> {
        let settings = format!("{:?} {:?}", self.scale.numbers, self.scale.shape);
        self.stage(StageKind::Rows, "numbers", &settings, |folder| {
            let (seed, scale) = (self.miniature.seed, self.scale);
            World::Numbers.write_dataset(folder, seed, &scale.numbers, &scale.shape).map(drop)
        })?;
        Ok(DatasetFiles::new(&self.at("numbers")))
    }

    /// Textbook and warm-up rows of both worlds: those of the Countdown world, and half as many of the market's,
    /// which are twice as long.
    fn both_worlds(&self) -> Result<(PathBuf, PathBuf)> {
        let (market, numbers) = (self.market()?, self.numbers()?);
        let sizes = self.scale.numbers;
        self.stage(StageKind::Rows, "both", &format!("{sizes:?}"), |folder| {
            let sets = [
                ("textbook.jsonl", &numbers.textbook, &market.textbook, sizes.textbook),
                ("teacher_sft.jsonl", &numbers.teacher_sft, &market.teacher_sft, sizes.teacher_sft),
            ];
            for (name, numbers, market, n) in sets {
                let mut rows = String::new();
                for (file, n) in [(numbers, n), (market, n / 2)] {
                    rows.push_str(&first_rows(file, n)?);
                }
                write_atomic(&folder.join(name), rows.as_bytes())?;
            }
            Ok(())
        })?;
        let folder = self.at("both");
        Ok((folder.join("textbook.jsonl"), folder.join("teacher_sft.jsonl")))
    }

    /// As many of the market's textbook rows as [`Self::both_worlds`] has, and as many sums.
    fn market_and_sums(&self) -> Result<PathBuf> {
        let (market, n) = (self.market()?, self.scale.numbers.textbook / 2);
        let seed = self.miniature.seed;
        self.stage(StageKind::Rows, "sums", &format!("{n} rows"), |folder| {
            let mut rows = first_rows(&market.textbook, n)?;
            for index in 0..n as u64 {
                rows.extend([&*sum_row(seed, index).to_string(), "\n"]);
            }
            Ok(write_atomic(&folder.join("textbook.jsonl"), rows.as_bytes())?)
        })?;
        Ok(self.at("sums").join("textbook.jsonl"))
    }
}

/// The first `n` lines of a file.
fn first_rows(file: &Path, n: usize) -> Result<String> {
    let text = rlt_files::read_text(file, MOST_ROWS);
    let text = text.map_err(|source| Error::Io { path: file.to_owned(), source })?;
    Ok(text.split_inclusive('\n').take(n).collect())
}
