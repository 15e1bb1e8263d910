//! What the study found, as Markdown, CSV and a figure.

use std::fmt::Write;

use super::effects::{Effects, Estimate, LAMBDAS, Parts, RewardWeights, TERMS};
use super::kinds::ExplanationVariant;
use crate::reproduce::table::Table;
use rlt_report::figure::{FigureBar, bars};

/// `table.md`: all questions, then each source.
pub fn markdown(effects: &Effects) -> String {
    let n = effects.questions.len();
    let mut text = format!(
        "# Six kinds of explanation of real questions\n\n{n} questions ({}), {} dropped because a kind could not be \
         scored. Intervals are 95 %, over questions.\n",
        effects
            .sources()
            .iter()
            .map(|source| format!("{source}: {}", effects.of(Some(source)).questions.len()))
            .collect::<Vec<_>>()
            .join(", "),
        effects.dropped
    );
    let sources: Vec<Option<&str>> = match effects.sources().as_slice() {
        [_] => vec![None],
        several => std::iter::once(None).chain(several.iter().copied().map(Some)).collect(),
    };
    for source in sources {
        let of_source = effects.of(source);
        let _ = write!(
            text,
            "\n## {}\n\nReward and parts at lambda 3, alpha 0.01 (nats):\n\n{}\nHow often the full rationale is rewarded \
             higher:\n\n{}\nWhat each term adds to its lead over the others, at lambda 3, alpha 0.01 (nats):\n\n{}",
            source.unwrap_or("All questions"),
            parts_table(&of_source).to_markdown(),
            wins_table(&of_source).to_markdown(),
            lead_table(&of_source).to_markdown(),
        );
    }
    text
}

/// Reward and parts of every kind.
pub fn parts_table(effects: &Effects) -> Table {
    let mut table = Table::new(&[
        "explanation",
        "reward",
        "mean of the solution",
        "its minimum",
        "mean D_j",
        "its maximum",
        "tokens",
    ]);
    for kind in ExplanationVariant::ALL {
        let cell = |value: fn(&Parts) -> f64| number(effects.estimate(kind, value));
        table.push([
            kind.words().to_owned(),
            number(effects.estimate(kind, |parts| parts.reward(RewardWeights::PAPER))),
            cell(|parts| parts.solution_mean),
            cell(|parts| parts.solution_min),
            cell(|parts| parts.kl_mean),
            cell(|parts| parts.kl_max),
            format!("{:.0}", effects.estimate(kind, |parts| parts.tokens).mean),
        ]);
    }
    table
}

/// Win rates of the full rationale under every setting.
fn wins_table(effects: &Effects) -> Table {
    let others = &ExplanationVariant::ALL[1..];
    let columns: Vec<&str> =
        ["lambda", "alpha"].into_iter().chain(others.iter().map(|kind| kind.words())).collect();
    let mut table = Table::new(&columns);
    for weights in RewardWeights::all() {
        let settings = [weights.lambda.to_string(), weights.alpha.to_string()];
        table.push(settings.into_iter().chain(others.iter().map(|kind| share(effects.wins(*kind, weights)))));
    }
    table
}

/// The lead of the full rationale, term by term.
fn lead_table(effects: &Effects) -> Table {
    let columns: Vec<&str> =
        ["against", "reward"].into_iter().chain(TERMS.iter().map(|(name, _)| *name)).collect();
    let mut table = Table::new(&columns);
    for kind in &ExplanationVariant::ALL[1..] {
        let whole = effects.lead(*kind, |parts| parts.reward(RewardWeights::PAPER));
        let terms =
            TERMS.map(|(_, term)| number(effects.lead(*kind, |parts| term(parts, RewardWeights::PAPER))));
        table.push([kind.words().to_owned(), number(whole)].into_iter().chain(terms));
    }
    table
}

/// `table.csv`: source, kind and setting, with mean reward, win rate and the terms of the lead.
pub fn csv(effects: &Effects) -> String {
    let mut table = Table::new(&[
        "source",
        "kind",
        "lambda",
        "alpha",
        "questions",
        "reward",
        "reward_low",
        "reward_high",
        "full_wins",
        "full_wins_low",
        "full_wins_high",
        "lead",
        "lead_low",
        "lead_high",
    ]);
    let sources = effects.sources();
    for source in std::iter::once(None).chain(sources.into_iter().map(Some)) {
        let of_source = effects.of(source);
        for kind in ExplanationVariant::ALL {
            for weights in RewardWeights::all() {
                let reward = of_source.estimate(kind, |parts| parts.reward(weights));
                let lead = of_source.lead(kind, |parts| parts.reward(weights));
                let numbers = [reward, of_source.wins(kind, weights), lead];
                let cells = numbers.iter().flat_map(|e| [e.mean, e.interval.low, e.interval.high]);
                let settings = [weights.lambda.to_string(), weights.alpha.to_string()];
                table.push(
                    [source.unwrap_or("all").to_owned(), kind.name().to_owned()]
                        .into_iter()
                        .chain(settings)
                        .chain([of_source.questions.len().to_string()])
                        .chain(cells.map(|x| format!("{x:.4}"))),
                );
            }
        }
    }
    table.to_csv()
}

/// Win rates over lambda, kind by kind, at the paper's alpha.
pub fn figure(effects: &Effects) -> String {
    let mut all = Vec::new();
    for kind in &ExplanationVariant::ALL[1..] {
        for lambda in LAMBDAS {
            let Estimate { mean, interval } =
                effects.wins(*kind, RewardWeights { lambda, ..RewardWeights::PAPER });
            all.push(FigureBar {
                label: format!("{}, lambda {lambda}", kind.words()),
                share: mean,
                low: interval.low,
                high: interval.high,
                emphasis: lambda == RewardWeights::PAPER.lambda,
            });
        }
    }
    bars("How often the full rationale is rewarded higher than ..", &all)
}

fn number(estimate: Estimate) -> String {
    let Estimate { mean, interval } = estimate;
    format!("{mean:.2} ({:.2} to {:.2})", interval.low, interval.high)
}

fn share(estimate: Estimate) -> String {
    let Estimate { mean, interval } = estimate;
    format!("{:.0} % ({:.0} to {:.0})", 100.0 * mean, 100.0 * interval.low, 100.0 * interval.high)
}

#[cfg(test)]
mod tests {
    use super::super::effects::QuestionParts;
    use super::*;

    #[test]
    fn tables_have_every_kind_and_setting() {
        let parts = |i: usize| Parts {
            solution_mean: -(i as f64),
            solution_min: -2.0 * i as f64,
            kl_mean: 0.1,
            kl_max: 1.0,
            tokens: 10.0,
        };
        let question =
            |source: &str| QuestionParts { source: source.into(), kinds: std::array::from_fn(parts) };
        let effects = Effects { questions: vec![question("a"), question("b")], dropped: 1 };
        let text = markdown(&effects);
        assert!(text.contains("2 questions (a: 1, b: 1), 1 dropped"), "{text}");
        assert_eq!(text.matches("| bare restatement of the solution | -5.43 (").count(), 3);
        assert_eq!(text.matches("\n## ").count(), 3);
        // All lead by their place: 1, 2 .. 5 nats of the mean, and as much of the minimum times 0.02.
        assert!(text.contains("| last step left out | 4.08"), "{text}");
        assert_eq!(csv(&effects).lines().count(), 1 + 3 * 6 * 12);
        assert_eq!(figure(&effects).matches("<rect class=\"bar").count(), 20);
    }
}
