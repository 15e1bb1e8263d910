//! Choosing among scored traces: pure functions over rewards.

use std::collections::HashMap;
use std::hash::Hash;

/// Which traces to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Selection {
    /// The trace with the highest reward of each question (best of n).
    Best,
    /// Every trace whose reward is at least this.
    Threshold(f64),
    /// This share of the scored traces, above 0 and at most 1, those with the highest rewards;
    /// rounded to the nearest whole trace, and never fewer than one.
    TopFraction(f64),
    /// All scored traces, ranked by reward and cut into this many groups whose sizes differ by at
    /// most one (Figure 4b of the paper cuts into 16).
    Groups(usize),
}

/// A trace that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its index among the traces.
    pub index: usize,
    /// With [`Selection::Groups`]: its group, from 1 (lowest rewards).
    pub group: Option<usize>,
}

/// The traces that `selection` keeps, in their original order.
///
/// `rewards` (nats) and `questions` (anything that tells one question from another) have one entry a
/// trace. A trace without a reward could not be scored and is never kept. Of equal rewards the
/// earlier trace counts as the higher one, so the answer does not depend on the sort.
pub fn select<Q: Eq + Hash>(rewards: &[Option<f64>], questions: &[Q], selection: Selection) -> Vec<Kept> {
    assert_eq!(rewards.len(), questions.len(), "one question a reward");
    let mut ranked: Vec<(usize, f64)> =
        rewards.iter().enumerate().filter_map(|(index, reward)| Some((index, (*reward)?))).collect();
    // Highest first; the sort is stable, so the earlier of equals stays ahead.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let n = ranked.len();

    let mut kept: Vec<Kept> = match selection {
        Selection::Best => {
            let mut best = HashMap::new();
            for &(index, _) in &ranked {
                best.entry(&questions[index]).or_insert(index);
            }
            best.into_values().map(ungrouped).collect()
        }
        Selection::Threshold(least) => ranked
            .iter()
            .filter(|&&(_, reward)| reward >= least)
            .map(|&(index, _)| ungrouped(index))
            .collect(),
        Selection::TopFraction(share) => {
            let count = ((share * n as f64).round() as usize).max(1);
            ranked.iter().take(count).map(|&(index, _)| ungrouped(index)).collect()
        }
        Selection::Groups(groups) => {
            let group_of = |rank: usize| groups - rank * groups / n;
            ranked
                .iter()
                .enumerate()
                .map(|(rank, &(index, _))| Kept { index, group: Some(group_of(rank)) })
                .collect()
        }
    };
    kept.sort_by_key(|kept| kept.index);
    kept
}

fn ungrouped(index: usize) -> Kept {
    Kept { index, group: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REWARDS: [Option<f64>; 6] = [Some(-1.0), Some(-0.5), None, Some(-0.5), Some(-3.0), Some(0.25)];
    const QUESTIONS: [&str; 6] = ["a", "a", "a", "b", "b", "c"];

    fn indices(selection: Selection) -> Vec<usize> {
        select(&REWARDS, &QUESTIONS, selection).iter().map(|kept| kept.index).collect()
    }

    #[test]
    fn best_keeps_one_trace_a_question() {
        assert_eq!(indices(Selection::Best), [1, 3, 5]);
        assert_eq!(select(&[Some(1.0), Some(1.0)], &["a", "a"], Selection::Best), [ungrouped(0)]);
    }

    #[test]
    fn threshold_includes_its_value() {
        assert_eq!(indices(Selection::Threshold(-0.5)), [1, 3, 5]);
        assert!(indices(Selection::Threshold(1.0)).is_empty());
    }

    #[test]
    fn top_fraction_counts_scored_traces_only() {
        assert_eq!(indices(Selection::TopFraction(0.4)), [1, 5]);
        assert_eq!(indices(Selection::TopFraction(1.0)), [0, 1, 3, 4, 5]);
        assert_eq!(indices(Selection::TopFraction(0.001)), [5]);
    }

    #[test]
    fn groups_rise_with_the_reward_and_have_equal_sizes() {
        let groups: Vec<(usize, Option<usize>)> = select(&REWARDS, &QUESTIONS, Selection::Groups(2))
            .iter()
            .map(|kept| (kept.index, kept.group))
            .collect();
        assert_eq!(groups, [(0, Some(1)), (1, Some(2)), (3, Some(2)), (4, Some(1)), (5, Some(2))]);

        let rewards: Vec<Option<f64>> = (0..37).map(|i| Some(f64::from(i))).collect();
        let kept = select(&rewards, &(0..37).collect::<Vec<_>>(), Selection::Groups(16));
        assert!(kept.is_sorted_by_key(|kept| kept.group), "rewards rise with the index here");
        for group in 1..=16 {
            let size = kept.iter().filter(|kept| kept.group == Some(group)).count();
            assert!((2..=3).contains(&size), "group {group} has {size} of 37");
        }
    }

    #[test]
    fn nothing_scored_keeps_nothing() {
        for selection in
            [Selection::Best, Selection::Threshold(0.0), Selection::TopFraction(0.5), Selection::Groups(3)]
        {
            assert!(select(&[None], &["a"], selection).is_empty());
        }
    }
}
