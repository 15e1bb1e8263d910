//! Choosing among scored traces. A reward is `None` where a trace is unscorable; such traces are never
//! chosen. Every function returns indices of the rows it was given, in their order.

use std::collections::HashMap;

/// The best trace of each question, by reward; the first of equals. `questions` names each trace's
/// question, `rewards` its reward.
///
/// # Panics
/// When the two differ in length.
pub fn best_of_each(questions: &[&str], rewards: &[Option<f64>]) -> Vec<usize> {
    assert_eq!(questions.len(), rewards.len());
    let mut best: HashMap<&str, (usize, f64)> = HashMap::new();
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
}
