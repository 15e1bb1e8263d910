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
use crate::worlds::{DatasetFiles, World, WorldContent};
use rlt_method::error::{Error, Result};
use rlt_report::figure::{FigureLine, lines};

/// One seed's figures.
#[derive(Debug, Clone, Default)]
pub struct Fig4aFigures {
    base: Answers,
    of_pre_rl: Answers,
    of_rlt: Answers,
    direct: Answers,
    traces_pre_rl: Traces,
    traces_rlt: Traces,
    /// Tokens written and learnt from on the way of distillation, on Countdown.
    distillation_tokens: f64,
    /// The same of the teacher's RL on the other world.
    teacher_tokens: f64,
    /// Tokens written and learnt from, and held-out accuracy, in direct RL.
    curve: Vec<(f64, f64)>,
}

/// The whole comparison under one seed.
///
/// # Errors
/// What the stages report.
pub fn measure(work: &SeedWork) -> Result<Fig4aFigures> {
    let numbers = work.numbers()?;
    let (textbook, warm_up) = work.both_worlds()?;
    let base = work.base_model("both-base", &work.scale.shape, &textbook, &[])?;
    let teacher = work.warm_up("both-teacher", &base, &warm_up)?;
    let rlt = work.rlt("both-rlt", &teacher, &base, &[])?;
    let n = work.scale.explained;
    let asked = Questions { world: World::Numbers, path: &numbers.questions_heldout };
    let distil = |name: &str, teacher: &Path| -> Result<(Answers, Traces)> {
        let explained = format!("traces-{name}");
        let (rows, traces) =
            work.explain(&explained, World::Numbers, teacher, &numbers.questions_train, n)?;
        let (_, answers) = work.distilled(name, ("both-base", &base), (&rows, traces.n), &[], &asked)?;
        Ok((answers, traces))
    };
    let (of_pre_rl, traces_pre_rl) = distil("both-pre-rl", &teacher)?;
    let (of_rlt, traces_rlt) = distil("both-rlt-countdown", &rlt)?;
    let direct = work.correctness_rl("both-direct", &base, World::Numbers, &numbers, work.scale.rl_steps)?;
    let completions = work.scale.questions_per_step * work.scale.group_size;
    // Each token that RL samples is also learnt from.
    let twice = |points: Vec<(f64, f64)>| points.into_iter().map(|(step, tokens)| (step, 2.0 * tokens));
    let spent: Vec<(f64, f64)> = twice(tokens_sampled(work, "both-direct", completions)?).collect();
    let at_step = |step: f64| spent.iter().find(|(at, _)| *at == step).map_or(0.0, |(_, tokens)| *tokens);
    let base_answers = work.answers("both-base", &base, &asked)?;
    let mut points = vec![(0.0, base_answers.accuracy())];
    points.extend(curve(work, "both-direct")?.into_iter().map(|(step, share)| (at_step(step), share)));
    let of_teacher = twice(tokens_sampled(work, "both-rlt", completions)?).next_back();
    Ok(Fig4aFigures {
        distillation_tokens: traces_rlt.tokens + sum(work, "student-both-rlt-countdown", "tokens")?,
        teacher_tokens: of_teacher.map_or(0.0, |(_, tokens)| tokens),
        base: base_answers,
        of_pre_rl,
        of_rlt,
        direct: work.answers("both-direct", &direct, &asked)?,
        traces_pre_rl,
        traces_rlt,
        curve: points,
    })
}

impl Fig4aFigures {
    /// Direct RL's accuracy at the first look after as many tokens as distillation took; the last look where it
    /// never came to that.
    fn direct_at_equal_tokens(&self) -> f64 {
        let reached = self.curve.iter().find(|(tokens, _)| *tokens >= self.distillation_tokens);
        reached.or(self.curve.last()).map_or(0.0, |(_, share)| *share)
    }
}

/// The table, the figure and what holds.
pub fn section(seeds: &[(u64, Fig4aFigures)]) -> Section {
    let over =
        |answers: fn(&Fig4aFigures) -> &Answers| PooledAccuracy::of(seeds.iter().map(|(_, m)| answers(m)));
    let average = |value: &dyn Fn(&Fig4aFigures) -> f64| {
        seeds.iter().map(|(_, m)| value(m)).sum::<f64>() / seeds.len().max(1) as f64
    };
    let (base, pre_rl) = (over(|m| &m.base), over(|m| &m.of_pre_rl));
    let (rlt, direct) = (over(|m| &m.of_rlt), over(|m| &m.direct));
    let equal = average(&Fig4aFigures::direct_at_equal_tokens);
    let distillation = average(&|m| m.distillation_tokens);
    let teacher = average(&|m| m.teacher_tokens);
    let all = average(&|m| m.curve.last().map_or(0.0, |(tokens, _)| *tokens));
    let thousands = |tokens: f64| format!("{:.0}", tokens / 1000.0);
    let mut ours =
        Table::new(&["Countdown by", "thousand tokens on Countdown", "right answers (95 %)", "each seed"]);
    let mut row = |name: &str, tokens: String, pooled: &PooledAccuracy| {
        ours.push([name.to_owned(), tokens, pooled.text(), pooled.seeds_text()]);
    };
    row("base model", "0".into(), &base);
    row("student of the teacher before RL", thousands(distillation), &pre_rl);
    row("student of the RLT teacher of the other world", thousands(distillation), &rlt);
    row("direct RL on Countdown, to its end", thousands(all), &direct);
    let equals = |m: &(u64, Fig4aFigures)| format!("{:.0}", 100.0 * m.1.direct_at_equal_tokens());
    let each = seeds.iter().map(equals).collect::<Vec<_>>().join(", ");
    let at_equal =
        ["direct RL on Countdown, at equal tokens".to_owned(), thousands(distillation), percent(equal), each];
    ours.push(at_equal);

    let mut data = Table::new(&["seed", "what", "tokens", "accuracy"]);
    for (seed, m) in seeds {
        let mut line = |what: &str, tokens: f64, share: f64| {
            data.push([seed.to_string(), what.to_owned(), format!("{tokens:.0}"), format!("{share:.4}")]);
        };
        line("base model", 0.0, m.base.accuracy());
        line("student of the teacher before RL", m.distillation_tokens, m.of_pre_rl.accuracy());
        line("student of the RLT teacher", m.distillation_tokens, m.of_rlt.accuracy());
        m.curve.iter().for_each(|&(tokens, share)| line("direct RL", tokens, share));
        line("direct RL, all held-out questions", m.curve.last().map_or(0.0, |p| p.0), m.direct.accuracy());
        line("complete explanations before RL", 0.0, m.traces_pre_rl.complete());
        line("complete explanations after RL", 0.0, m.traces_rlt.complete());
    }
    let n_points = seeds.first().map_or(0, |(_, m)| m.curve.len());
    let mean_point = |k: usize| {
        let at = |m: &Fig4aFigures| m.curve.get(k).copied().unwrap_or_default();
        (average(&|m| at(m).0) / 1000.0, average(&|m| at(m).1))
    };
    let figure = [
        FigureLine {
            label: "direct RL on Countdown".into(),
            points: (0..n_points).map(mean_point).collect(),
        },
        FigureLine {
            label: "student of the RLT teacher of the other world".into(),
            points: vec![(0.0, base.accuracy), (distillation / 1000.0, rlt.accuracy)],
        },
        FigureLine {
            label: "student of the teacher before RL".into(),
            points: vec![(0.0, base.accuracy), (distillation / 1000.0, pre_rl.accuracy)],
        },
    ];
    let complete = format!(
        "complete explanations of Countdown: {} before RL, {} after RL on the other world",
        percent(average(&|m| m.traces_pre_rl.complete())),
        percent(average(&|m| m.traces_rlt.complete()))
    );
    // As well as somebody who has learnt nothing is no success.
    let learnt = rlt.is_above(&base);
    let findings = vec![
        Finding::new(
            "Traces of the unchanged teacher do as well as direct RL, at equal tokens, or better",
            Outcome::of(learnt && rlt.interval.high >= equal, rlt.accuracy > base.accuracy),
            format!("{} against {}", rlt.text(), percent(equal)),
        ),
        Finding::new(
            "They do as well as direct RL to its end, or better",
            Outcome::of(learnt && rlt.interval.high >= direct.interval.low, rlt.accuracy > base.accuracy),
            format!(
                "{} against {}, which took {} thousand tokens; distillation took {}, and {} with the teacher's own RL",
                rlt.text(),
                direct.text(),
                thousands(all),
                thousands(distillation),
                thousands(distillation + teacher)
            ),
        ),
        Finding::new(
            "What RL taught on one world carries over to the other",
            Outcome::of(rlt.is_above(&pre_rl), rlt.accuracy > pre_rl.accuracy),
            format!("{} against {} of the teacher before RL; {complete}", rlt.text(), pre_rl.text()),
        ),
    ];
    Section {
        name: "fig4a",
        title: "Figure 4a: a world that the teacher's RL never saw",
        story: "Base model and warm-up know two worlds, stories and Countdown. RL trains the teacher on stories only. \
                It then explains Countdown solutions unchanged, and a student learns from that; direct RL trains the \
                same base model on Countdown answers. Tokens count what is sampled and what is learnt from."
            .into(),
        paper: paper(),
        tried: "Tried before: numbers to 12, a third of the questions of four numbers, half of the rows; \
                nobody learnt the sums. Numbers to 9, three of them, twice the rows and no plain sums \
                mended that. A base model that is new to such explanations, as the paper's student is, \
                was not tried.",
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
                    let text = rlt_files::read_text(file, MOST_ROWS)
                        .map_err(|source| Error::Io { path: file.clone(), source })?;
                    text.split_inclusive('\n').take(n).for_each(|line| rows.push_str(line));
                }
                write_atomic(&folder.join(name), rows.as_bytes())?;
            }
            Ok(())
        })?;
        let folder = self.at("both");
        Ok((folder.join("textbook.jsonl"), folder.join("teacher_sft.jsonl")))
    }
}
