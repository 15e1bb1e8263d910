//! Choosing among scored traces. A reward is `None` where a trace is unscorable; such traces are never
//! chosen. Every function returns indices of the rows it was given, in their order.

use std::collections::HashMap;
use std::hash::Hash;

/// The best trace of each question, by reward; the first of equals. `questions` names each trace's
/// question, `rewards` its reward.
///
/// # Panics
/// When the two differ in length.
pub fn best_of_each<Q: Hash + Eq + Copy>(questions: &[Q], rewards: &[Option<f64>]) -> Vec<usize> {
    assert_eq!(questions.len(), rewards.len());
    let mut best: HashMap<Q, (usize, f64)> = HashMap::new();
    for (i, (&question, reward)) in questions.iter().zip(rewards).enumerate() {
        let Some(reward) = *reward else { continue };
        let entry = best.entry(question).or_insert((i, reward));
        if reward > entry.1 {
            *entry = (i, reward);
        }
    }
    let mut chosen: Vec<usize> = best.into_values().map(|(i, _)| i).collect();
    chosen.sort_unstable();
    chosen
}

/// [`best_of_each`] where trace number `reserved` (from 1) of every question takes no part: it is chosen, whatever
/// its reward, for a question none of whose other traces can be.
///
/// # Panics
/// When the two differ in length.
pub fn best_or_reserved<Q: Hash + Eq + Copy>(
    questions: &[Q],
    rewards: &[Option<f64>],
    reserved: usize,
) -> Vec<usize> {
    let mut seen: HashMap<Q, usize> = HashMap::new();
    let mut fallback: HashMap<Q, usize> = HashMap::new();
    let mut competing = rewards.to_vec();
    for (i, &question) in questions.iter().enumerate() {
        let number = seen.entry(question).or_default();
        *number += 1;
        if *number == reserved {
            competing[i] = None;
            fallback.insert(question, i);
        }
    }
    let mut chosen = best_of_each(questions, &competing);
    for &i in &chosen {
        fallback.remove(&questions[i]);
    }
    chosen.extend(fallback.into_values());
    chosen.sort_unstable();
    chosen
}

/// The traces whose reward is at least `threshold`.
pub fn at_least(rewards: &[Option<f64>], threshold: f64) -> Vec<usize> {
    (0..rewards.len()).filter(|&i| rewards[i].is_some_and(|reward| reward >= threshold)).collect()
}

/// The best `fraction` (0 to 1) of the scored traces, rounded up to whole traces.
pub fn top_fraction(rewards: &[Option<f64>], fraction: f64) -> Vec<usize> {
    let mut ranked = ranked(rewards);
    let n = (ranked.len() as f64 * fraction.clamp(0.0, 1.0)).ceil() as usize;
    ranked.truncate(n);
    ranked.sort_unstable();
    ranked
}

/// The scored traces ranked by reward and cut into `k` groups of sizes that differ by one at most, best
/// group first (the paper's figure 4b ranks traces this way).
///
/// # Panics
/// When `k` is 0.
pub fn reward_groups(rewards: &[Option<f64>], k: usize) -> Vec<Vec<usize>> {
    assert!(k > 0, "at least one group");
    let ranked = ranked(rewards);
    (0..k)
        .map(|group| {
            let mut members = ranked[group * ranked.len() / k..(group + 1) * ranked.len() / k].to_vec();
            members.sort_unstable();
            members
        })
        .collect()
}

/// As [`reward_groups`], by relative reward: the scored traces of each question (`questions[i]` says which) are ranked among
/// themselves, and all traces by where they stand in their question's rank. With as many traces a question as groups, every
/// group holds every question once, so that none is made of easy questions; a question's only trace stands in the middle.
///
/// # Panics
/// When `k` is 0 or `questions` is not as long as `rewards`.
pub fn relative_groups<Q: Hash + Eq + Copy>(
    questions: &[Q],
    rewards: &[Option<f64>],
    k: usize,
) -> Vec<Vec<usize>> {
    assert_eq!(questions.len(), rewards.len(), "a question for every reward");
    let mut of_question: HashMap<Q, Vec<usize>> = HashMap::new();
    for i in ranked(rewards) {
        of_question.entry(questions[i]).or_default().push(i);
    }
    // From nearly 1, a question's best, to nearly 0.
    let mut standing = vec![None; rewards.len()];
    for ranked in of_question.values() {
        for (rank, &i) in ranked.iter().enumerate() {
            standing[i] = Some(1.0 - (rank as f64 + 0.5) / ranked.len() as f64);
        }
    }
    reward_groups(&standing, k)
}

/// Indices of the scored traces, best first, equals in their order.
fn ranked(rewards: &[Option<f64>]) -> Vec<usize> {
    let mut scored: Vec<(usize, f64)> =
        rewards.iter().enumerate().filter_map(|(i, reward)| Some((i, (*reward)?))).collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    scored.into_iter().map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REWARDS: [Option<f64>; 6] = [Some(-2.0), Some(-1.0), None, Some(-1.0), Some(0.5), Some(-9.0)];

    #[test]
    fn the_first_best_of_each_question() {
        assert_eq!(best_of_each(&["a", "a", "a", "a", "b", "b"], &REWARDS), [1, 4]);
        assert_eq!(best_of_each(&["c", "b"], &[None, Some(0.0)]), [1]);
    }

    #[test]
    fn a_reserved_trace_stands_in_and_never_competes() {
        let questions = ["a", "a", "a", "b", "b", "c"];
        let rewards = [Some(9.0), Some(-2.0), Some(-1.0), Some(5.0), None, None];
        // The first of each is reserved: `a` has others, `b`'s other has no reward, `c` has no other.
        assert_eq!(best_or_reserved(&questions, &rewards, 1), [2, 3, 5]);
        assert_eq!(best_or_reserved(&questions, &rewards, 2), [0, 3]);
        assert_eq!(best_or_reserved(&questions, &rewards, 9), best_of_each(&questions, &rewards));
    }

    #[test]
    fn thresholds_and_fractions() {
        assert_eq!(at_least(&REWARDS, -1.0), [1, 3, 4]);
        assert_eq!(top_fraction(&REWARDS, 0.4), [1, 4]);
        assert_eq!(top_fraction(&REWARDS, 0.41), [1, 3, 4]);
        assert_eq!(top_fraction(&REWARDS, 1.0), [0, 1, 3, 4, 5]);
        assert!(top_fraction(&REWARDS, 0.0).is_empty());
    }

    #[test]
    fn groups_are_even_and_ranked() {
        assert_eq!(reward_groups(&REWARDS, 2), [vec![1, 4], vec![0, 3, 5]]);
        assert_eq!(reward_groups(&REWARDS, 5).concat(), [4, 1, 3, 0, 5]);
        assert_eq!(reward_groups(&[None], 2), [vec![0; 0], vec![]]);
    }

    #[test]
    fn relative_groups_rank_each_question_s_own() {
        // The best of "b" is worse than all of "a".
        let (questions, rewards) =
            (["a", "b", "a", "b", "a", "b"], [1.0, -9.0, 3.0, -7.0, 2.0, -8.0].map(Some));
        assert_eq!(relative_groups(&questions, &rewards, 3), [vec![2, 3], vec![4, 5], vec![0, 1]]);
        // One question alone is ranked as it is.
        assert_eq!(relative_groups(&["a"; 6], &REWARDS, 5), reward_groups(&REWARDS, 5));
        // The only trace of "b" is in the middle, and no group is empty.
        let (questions, rewards) = (["a", "a", "b"], [-1.0, -2.0, -9.0].map(Some));
        assert_eq!(relative_groups(&questions, &rewards, 3), [[0], [2], [1]]);
        assert_eq!(relative_groups(&["a"], &[None], 2), [vec![0; 0], vec![]]);
    }
}
