//! `rlt select`: the best of scored traces.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use clap::Args;
use rlt::dataset::{JsonlWriter, Record, RecordStream, check_can_be_read_again};
use rlt::traces::reasons::{OK, Reasons};
use rlt::traces::scoring::status;
use rlt::traces::select;
use rlt::{Error, Result};
use rlt_files::Inputs;
use serde_json::{Value, json};

use super::common::{Context, check_output, parse_positive};

/// Which traces to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Selection {
    Best,
    Threshold(f64),
    TopFraction(f64),
    Groups(usize),
    RelativeGroups(usize),
}

/// Keep the best of scored traces: best of n, threshold, top fraction, or k reward groups
#[derive(Debug, Args)]
pub struct SelectArgs {
    /// Scored traces, as `rlt score` writes them
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the kept rows go (.jsonl), unchanged and in their order
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What to keep: `best` (of each question), `threshold=R`, `top=SHARE`, `groups=K` (all, with a
    /// column `reward_group` from 1, the lowest rewards, to K), or `relative-groups=K` (as groups, each
    /// trace ranked among those of its question)
    #[arg(long, value_name = "RULE", value_parser = parse_selection)]
    by: Selection,
    /// Choose among traces of at most N think tokens (`parts.n_think`)
    #[arg(long, value_name = "N")]
    max_think: Option<u64>,
    /// With `--by best`: hold back the N-th trace of each question, from 1, and keep it only where no other
    /// can be chosen
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    reserve: Option<usize>,
}

/// What choosing needs to know of a row: little, since there may be many.
struct Entry {
    /// `None` for a trace that could not be scored.
    reward: Option<f64>,
    /// Whether it is short enough.
    short: bool,
    question: u128,
}

impl SelectArgs {
    /// Reads every row for its reward, chooses, then reads again and writes those that were chosen.
    pub fn run(&self, context: &Context) -> Result<()> {
        if self.reserve.is_some() && self.by != Selection::Best {
            return Err(Error::Usage("--reserve goes with --by best only".into()));
        }
        check_output(&Inputs::new().with("--data", &self.data), &self.out)?;
        check_can_be_read_again(&self.data)?;
        let mut unscored = Reasons::default();
        let entries = RecordStream::open(&self.data, 0)?
            .map(|record| self.entry(&record?, &mut unscored))
            .collect::<Result<Vec<Entry>>>()?;
        let rewards: Vec<Option<f64>> = entries.iter().map(|entry| entry.reward).collect();
        let eligible: Vec<Option<f64>> =
            entries.iter().map(|entry| entry.reward.filter(|_| entry.short)).collect();
        let questions: Vec<u128> = entries.iter().map(|entry| entry.question).collect();
        let n_eligible = eligible.iter().flatten().count();
        if let Selection::Groups(groups) | Selection::RelativeGroups(groups) = self.by
            && groups > n_eligible
        {
            return Err(Error::Usage(format!(
                "--by groups={groups}: {} has only {n_eligible} rows with a reward{}",
                self.data.display(),
                if self.max_think.is_some() { " within --max-think" } else { "" }
            )));
        }
        let kept = self.kept(&eligible, &questions);
        if kept.is_empty() {
            return Err(Error::Failed(format!(
                "{}: no row was kept; {}",
                self.data.display(),
                summary(&rewards, &unscored)
            )));
        }
        let mut out = JsonlWriter::create(&self.out)?;
        let mut next = kept.iter().peekable();
        for (index, record) in RecordStream::open(&self.data, 0)?.enumerate() {
            let mut columns = record?.columns;
            let Some((_, group)) = next.next_if(|&&(kept, _)| kept == index) else { continue };
            if let Some(group) = group {
                columns.insert("reward_group".into(), Value::from(*group));
            }
            out.write(&columns)?;
        }
        out.finish()?;

        let mean = |rewards: &mut dyn Iterator<Item = f64>| {
            let (sum, n) = rewards.fold((0.0, 0), |(sum, n), reward| (sum + reward, n + 1));
            if n == 0 { f64::NAN } else { sum / f64::from(n) }
        };
        let before = mean(&mut rewards.iter().flatten().copied());
        let after = mean(&mut kept.iter().filter_map(|&(index, _)| rewards[index]));
        let (n_rows, n_kept, n_unscored) = (entries.len(), kept.len(), unscored.total());
        let out = self.out.display();
        let passed_over = match n_unscored {
            0 => String::new(),
            n => format!(
                "\npassed over {n} rows without a reward, or whose parts.status is not ok: {unscored}"
            ),
        };
        context.answer(
            &format!(
                "kept {n_kept} of {n_rows} rows in {out}; mean reward {before:.4} -> {after:.4} nats{passed_over}"
            ),
            &json!({
                "rows": n_rows,
                "kept": n_kept,
                "unscored": n_unscored,
                "reasons": unscored,
                "reward_mean": before,
                "reward_mean_kept": after,
                "out": self.out,
            }),
        )
    }

    fn entry(&self, record: &Record, unscored: &mut Reasons) -> Result<Entry> {
        let reward = reward(record)?;
        let question = match question(record) {
            // What is never chosen needs no question of its own, and may lack it.
            Err(_) if reward.is_none() => String::new(),
            question => question?,
        };
        if reward.is_none() {
            unscored.count(
                status(&record.columns).filter(|&status| status != OK).unwrap_or("the reward is null"),
            );
        }
        let short = match self.max_think {
            None => true,
            Some(most) => {
                let parts = record.columns.get("parts");
                let n_think = parts.and_then(|parts| parts.get("n_think")).and_then(Value::as_u64);
                if n_think.is_none() && reward.is_some() {
                    return Err(record.error("no `parts.n_think` for --max-think; run `rlt score` first"));
                }
                n_think.is_some_and(|n_think| n_think <= most)
            }
        };
        Ok(Entry { reward, short, question: digest(&question) })
    }

    /// Index of each kept row, in the rows' order, and its reward group if there are groups.
    fn kept(&self, rewards: &[Option<f64>], questions: &[u128]) -> Vec<(usize, Option<usize>)> {
        let indices = match self.by {
            Selection::Best => match self.reserve {
                None => select::best_of_each(questions, rewards),
                Some(reserved) => select::best_or_reserved(questions, rewards, reserved),
            },
            Selection::Threshold(least) => select::at_least(rewards, least),
            Selection::TopFraction(share) => select::top_fraction(rewards, share),
            Selection::Groups(k) => return numbered(select::reward_groups(rewards, k)),
            Selection::RelativeGroups(k) => {
                return numbered(select::relative_groups(questions, rewards, k));
            }
        };
        indices.into_iter().map(|index| (index, None)).collect()
    }
}

/// The members of groups, given best first, in the rows' order; the best has the highest number.
fn numbered(groups: Vec<Vec<usize>>) -> Vec<(usize, Option<usize>)> {
    let k = groups.len();
    let best_first = groups.into_iter().enumerate();
    let mut kept: Vec<(usize, Option<usize>)> = best_first
        .flat_map(|(i, members)| members.into_iter().map(move |index| (index, Some(k - i))))
        .collect();
    kept.sort_unstable();
    kept
}

/// "rewards lie between -3 and 0.25".
fn summary(rewards: &[Option<f64>], unscored: &Reasons) -> String {
    let scored = || rewards.iter().flatten().copied();
    match scored().reduce(f64::max) {
        None => format!("none of them has a reward to go by ({unscored})"),
        Some(highest) => {
            let lowest = scored().fold(highest, f64::min);
            format!("the rewards lie between {lowest:.4} and {highest:.4}")
        }
    }
}

/// The row's reward; `None` for a trace that could not be scored, whatever stands in its `reward`.
fn reward(record: &Record) -> Result<Option<f64>> {
    if status(&record.columns).is_some_and(|status| status != OK) {
        return Ok(None);
    }
    match record.columns.get("reward") {
        Some(Value::Null) => Ok(None),
        Some(Value::Number(reward)) => Ok(reward.as_f64()),
        Some(other) => Err(record.error(format!("column `reward` is {other}, not a number"))),
        None => Err(record.error(format!(
            "no column `reward`; run `rlt score` first. The row has {}",
            record.column_names()
        ))),
    }
}

/// What tells one question from another: two rows ask the same when question and solution agree.
fn question(record: &Record) -> Result<String> {
    match record.text("question")? {
        Some(question) => Ok(format!("{question}\0{}", record.text("solution")?.unwrap_or_default())),
        None => Err(record.error(format!("no column `question`; the row has {}", record.column_names()))),
    }
}

/// 128 bits of a text: two questions that differ share them once in 10^38 pairs.
fn digest(text: &str) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, text).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(0) << 64) | half(1)
}

fn parse_selection(text: &str) -> std::result::Result<Selection, String> {
    let (rule, value) = text.split_once('=').unwrap_or((text, ""));
    let number = || value.parse::<f64>().ok().filter(|value| value.is_finite());
    match (rule, value) {
        ("best", "") => Ok(Selection::Best),
        ("threshold", _) => number()
            .map(Selection::Threshold)
            .ok_or_else(|| "threshold needs a reward, for example threshold=-0.5".into()),
        ("top", _) => number()
            .filter(|&share| share > 0.0 && share <= 1.0)
            .map(Selection::TopFraction)
            .ok_or_else(|| "top needs a share above 0 and at most 1, for example top=0.2".into()),
        ("groups" | "relative-groups", _) => value
            .parse()
            .ok()
            .filter(|&groups| groups >= 1)
            .map(if rule == "groups" { Selection::Groups } else { Selection::RelativeGroups })
            .ok_or_else(|| format!("{rule} needs a whole number from 1, for example {rule}=16")),
        _ => Err("best, threshold=R, top=SHARE, groups=K or relative-groups=K is expected".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_wrong_ones_refused() {
        assert_eq!(parse_selection("best"), Ok(Selection::Best));
        assert_eq!(parse_selection("threshold=-0.5"), Ok(Selection::Threshold(-0.5)));
        assert_eq!(parse_selection("top=0.2"), Ok(Selection::TopFraction(0.2)));
        assert_eq!(parse_selection("groups=16"), Ok(Selection::Groups(16)));
        assert_eq!(parse_selection("relative-groups=8"), Ok(Selection::RelativeGroups(8)));
        for wrong in
            ["", "best=2", "threshold", "threshold=nan", "top=0", "top=1.5", "groups=0", "groups=1.5", "x=1"]
        {
            assert!(parse_selection(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
