//! Reward forensics: which tokens decide the reward's extremes, and whether the reward is being gamed.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::number::{compact, nats, percent};
use super::sample::Extremes;
use super::tokens::visible;
use super::trend::first_and_last;
use rlt_method::metrics::{self, Metric};

/// Tokens listed of each extreme.
const MOST_TOKENS: usize = 8;
/// A share that rises by more than this between the ends of a run is worth a warning.
const SHARE_DRIFT: f64 = 0.1;
/// A length that grows or shrinks by more than this factor is worth a warning.
const LENGTH_DRIFT: f64 = 1.5;

/// The section of the page.
#[derive(Debug, Serialize)]
pub(super) struct Forensics {
    warnings: Vec<String>,
    /// What was looked at where there is nothing to warn of.
    all_clear: String,
    tables: Vec<TokenTable>,
    /// "steps 1 to 20".
    early: String,
    late: String,
}

#[derive(Debug, Serialize)]
struct TokenTable {
    title: &'static str,
    column: &'static str,
    rows: Vec<TokenRow>,
}

#[derive(Debug, PartialEq, Serialize)]
struct TokenRow {
    token: String,
    early: String,
    late: String,
    mean: String,
}

/// `None` where the run has neither RLT metrics nor samples with a ledger.
pub(super) fn forensics(rows: &[Map<String, Value>], extremes: &[Extremes]) -> Option<Forensics> {
    let has_ledger = extremes.iter().any(|e| e.solution.is_some() || e.think.is_some());
    if !has_ledger && first_and_last(rows, &metrics::SOLUTION_OVERLAP_MEAN).is_none() {
        return None;
    }
    let steps = extremes.iter().map(|e| e.step);
    let (first, last) = (steps.clone().min().unwrap_or(0), steps.max().unwrap_or(0));
    let middle = first + (last - first) / 2;
    let span =
        |from: u64, to: u64| if from >= to { format!("step {to}") } else { format!("steps {from} to {to}") };
    let tables = [
        TokenTable {
            title: "Least likely solution token",
            column: "mean log-probability",
            rows: token_rows(extremes, middle, |e| e.solution.as_ref()),
        },
        TokenTable {
            title: "Think token with the largest D",
            column: "mean D",
            rows: token_rows(extremes, middle, |e| e.think.as_ref()),
        },
    ];
    let (warnings, looked_at) = warnings(rows);
    let all_clear = if warnings.is_empty() && !looked_at.is_empty() {
        format!("No sign that the reward is gamed: {}.", looked_at.join(", "))
    } else {
        String::new()
    };
    Some(Forensics {
        warnings,
        all_clear,
        tables: tables.into_iter().filter(|table| !table.rows.is_empty()).collect(),
        early: span(first, middle),
        late: if last > middle { span(middle + 1, last) } else { String::new() },
    })
}

/// The tokens that set an extreme most often, with how often in each half of the run.
fn token_rows(
    extremes: &[Extremes],
    middle: u64,
    of: impl Fn(&Extremes) -> Option<&(String, f64)>,
) -> Vec<TokenRow> {
    let mut counts: BTreeMap<&str, ([usize; 2], f64)> = BTreeMap::new();
    let mut totals = [0_usize; 2];
    for extreme in extremes {
        let Some((token, value)) = of(extreme) else { continue };
        let half = usize::from(extreme.step > middle);
        let entry = counts.entry(token).or_default();
        entry.0[half] += 1;
        entry.1 += value;
        totals[half] += 1;
    }
    let mut rows: Vec<_> = counts.into_iter().collect();
    rows.sort_by_key(|(_, (n, _))| std::cmp::Reverse(n[0] + n[1]));
    let share =
        |n: usize, total: usize| if total == 0 { String::new() } else { percent(n as f64 / total as f64) };
    rows.into_iter()
        .take(MOST_TOKENS)
        .map(|(token, (n, sum))| TokenRow {
            // A space at either end would not show.
            token: visible(token).replace(' ', "\u{2423}"),
            early: share(n[0], totals[0]),
            late: share(n[1], totals[1]),
            mean: nats(sum / (n[0] + n[1]) as f64),
        })
        .collect()
}

/// Signs of a gamed reward; and what was looked at, with its figures.
fn warnings(rows: &[Map<String, Value>]) -> (Vec<String>, Vec<String>) {
    let ends = |metric: Metric| first_and_last(rows, &metric).map(|(first, last, _)| (first, last));
    let (mut warnings, mut looked_at) = (Vec::new(), Vec::new());
    let shares = [
        (metrics::SOLUTION_OVERLAP_MEAN, "Solution overlap", "the teacher may be copying the solution"),
        (
            metrics::REPEATED_NGRAM_SHARE_MEAN,
            "Repeated n-grams",
            "explanations may be padded with repetition",
        ),
        (
            metrics::TRUNCATED_RATE,
            "Completions cut off",
            "explanations no longer end within the length limit",
        ),
    ];
    for (metric, name, meaning) in shares {
        let Some((first, last)) = ends(metric) else { continue };
        let figures = format!("{} \u{2192} {}", percent(first), percent(last));
        if last - first > SHARE_DRIFT {
            warnings.push(format!("{name}: {figures}; {meaning}."));
        } else {
            looked_at.push(format!("{} {figures}", name.to_lowercase()));
        }
    }
    if let Some((first, last)) = ends(metrics::THINK_TOKENS_MEAN) {
        let figures = format!("{} \u{2192} {} tokens", compact(first), compact(last));
        if last > first * LENGTH_DRIFT {
            warnings.push(format!(
                "Explanation length: {figures}; padding lowers the mean D without explaining more."
            ));
        } else if last * LENGTH_DRIFT < first {
            warnings.push(format!(
                "Explanation length: {figures}; short thoughts diverge little, steps may be left out."
            ));
        } else {
            looked_at.push(format!("length {figures}"));
        }
    }
    if let (Some(reward), Some(value)) = (ends(metrics::REWARD.mean), ends(metrics::EXPLANATION_VALUE_MEAN)) {
        let figures = format!("{} \u{2192} {} nats", nats(value.0), nats(value.1));
        if reward.1 > reward.0 && value.1 < value.0 - 0.1 * value.0.abs() {
            warnings.push(format!(
                "Worth of an explanation to the student: {figures}, while the reward rose; the gain is in r_KL \
                 alone."
            ));
        } else {
            looked_at.push(format!("worth of an explanation {figures}"));
        }
    }
    (warnings, looked_at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Sample;

    fn rows(metric: &str, values: [f64; 2]) -> Vec<Map<String, Value>> {
        (0..20)
            .map(|step| json!({ metric: values[usize::from(step >= 10)] }).as_object().unwrap().clone())
            .collect()
    }

    #[test]
    fn drifts_are_warned_of_and_steadiness_is_not() {
        let told = |metric, values| warnings(&rows(metric, values)).0;
        assert!(told("solution_overlap_mean", [0.1, 0.45])[0].starts_with("Solution overlap: "));
        assert!(told("repeated_ngram_share_mean", [0.0, 0.3])[0].contains("padded"));
        assert!(told("think_tokens_mean", [100.0, 200.0])[0].contains("padding"));
        assert!(told("think_tokens_mean", [100.0, 40.0])[0].contains("left out"));
        for (metric, values) in [
            ("solution_overlap_mean", [0.45, 0.5]),
            ("solution_overlap_mean", [0.6, 0.1]),
            ("think_tokens_mean", [100.0, 120.0]),
        ] {
            assert!(told(metric, values).is_empty(), "{metric} {values:?}");
        }
        let mut both = rows("reward_mean", [-2.0, -1.0]);
        for (row, value) in both.iter_mut().zip(rows("explanation_value_mean", [1.0, 0.5])) {
            row.extend(value);
        }
        assert!(warnings(&both).0[0].contains("r_KL alone"));
        let steady = forensics(&rows("solution_overlap_mean", [0.2, 0.2]), &[]).unwrap();
        assert!(steady.warnings.is_empty() && steady.all_clear.contains("solution overlap 20"), "{steady:?}");
        assert!(forensics(&rows("loss", [1.0, 0.5]), &[]).is_none());
    }

    #[test]
    fn tokens_are_counted_by_half_of_the_run() {
        let sample = |step, d_j: [f64; 2]| Sample {
            step,
            think_tokens: vec![" so".into(), "\n".into()],
            d_j: d_j.to_vec(),
            ..Sample::default()
        };
        let samples =
            [sample(1, [2.0, 1.0]), sample(1, [0.0, 4.0]), sample(9, [1.0, 3.0]), sample(9, [0.5, 2.0])];
        let extremes: Vec<Extremes> = samples.iter().map(Extremes::of).collect();
        assert_eq!(extremes[0].think, Some((" so".into(), 2.0)));
        assert_eq!(extremes[0].solution, None);
        let section = forensics(&[], &extremes).unwrap();
        assert_eq!((section.early.as_str(), section.late.as_str()), ("steps 1 to 5", "steps 6 to 9"));
        assert_eq!(section.tables.len(), 1);
        let rows = &section.tables[0].rows;
        assert_eq!((rows[0].token.as_str(), rows[0].mean.as_str()), ("\u{21b5}", nats(3.0).as_str()));
        assert_eq!((&rows[0].early, &rows[0].late), (&percent(0.5), &percent(1.0)));
        assert_eq!((rows[1].token.as_str(), &rows[1].late), ("\u{2423}so", &percent(0.0)));
    }
}
