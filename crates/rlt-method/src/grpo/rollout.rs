//! The completions of a step: which groups are learnt from, and which are drawn in place of others.

use super::sample::Group;

/// Everything a step sampled, in the order in which its questions were drawn.
#[derive(Default)]
pub(super) struct Rollout<'q> {
    pub groups: Vec<Group<'q>>,
    rounds: usize,
}

impl<'q> Rollout<'q> {
    /// How many questions to draw next, so that `wanted` groups have something to teach: dynamic sampling
    /// (arXiv 2503.14476, section 3.2), at most `resample_rounds` times after the first.
    pub fn missing(&self, wanted: usize, resample_rounds: usize) -> usize {
        match self.rounds {
            0 => wanted,
            rounds if rounds <= resample_rounds => wanted - self.with_variance().count(),
            _ => 0,
        }
    }

    /// Adds a round.
    pub fn add(&mut self, groups: Vec<Group<'q>>) {
        self.groups.extend(groups);
        self.rounds += 1;
    }

    /// Tokens of all completions.
    pub fn n_tokens(&self) -> usize {
        let samples = self.groups.iter().flat_map(|group| &group.samples);
        samples.map(|sample| sample.completion.ids.len()).sum()
    }

    fn with_variance(&self) -> impl Iterator<Item = &Group<'q>> {
        self.groups.iter().filter(|group| !group.has_zero_variance())
    }

    /// The groups to learn from: those with something to teach, and the first of the others where they are fewer
    /// than `wanted`.
    pub fn chosen(&self, wanted: usize) -> Vec<&Group<'q>> {
        let mut room_for_even = wanted - self.with_variance().count().min(wanted);
        let chosen = self.groups.iter().filter(|group| {
            let even = group.has_zero_variance();
            let takes = !even || room_for_even > 0;
            room_for_even -= usize::from(even && takes);
            takes
        });
        chosen.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpo::sample::Question;
    use crate::grpo::sample::tests::{question, sample};

    fn group(question: &Question, rewards: [f32; 2]) -> Group<'_> {
        Group { question, samples: rewards.map(|reward| sample(&[1, 2], reward)).into() }
    }

    fn rollout_of(question: &Question, rounds: &[&[[f32; 2]]]) -> Vec<usize> {
        // Which groups are chosen when each round draws what is missing of 3.
        let mut rollout = Rollout::default();
        let mut rounds = rounds.iter();
        loop {
            let missing = rollout.missing(3, 2);
            if missing == 0 {
                break;
            }
            let rewards = rounds.next().unwrap();
            assert_eq!(rewards.len(), missing);
            rollout.add(rewards.iter().map(|&rewards| group(question, rewards)).collect());
        }
        assert!(rounds.next().is_none(), "a round was not drawn");
        let place =
            |chosen: &Group| rollout.groups.iter().position(|group| std::ptr::eq(group, chosen)).unwrap();
        rollout.chosen(3).into_iter().map(place).collect()
    }

    #[test]
    fn groups_of_equal_rewards_are_replaced_as_often_as_allowed() {
        let question = question();
        let (even, uneven) = ([1.0, 1.0], [0.0, 1.0]);
        assert_eq!(rollout_of(&question, &[&[uneven; 3]]), [0, 1, 2]);
        assert_eq!(rollout_of(&question, &[&[even, uneven, even], &[uneven, uneven]]), [1, 3, 4]);
        // After the last round the first of the others fill the batch.
        let rounds: &[&[[f32; 2]]] = &[&[even, uneven, even], &[even, even], &[uneven, even]];
        assert_eq!(rollout_of(&question, rounds), [0, 1, 5]);
    }

    #[test]
    fn without_resampling_all_groups_are_learnt_from_in_their_order() {
        let question = question();
        let mut rollout = Rollout::default();
        assert_eq!(rollout.missing(2, 0), 2);
        rollout.add(vec![group(&question, [1.0, 1.0]), group(&question, [0.0, 1.0])]);
        assert_eq!((rollout.missing(2, 0), rollout.n_tokens()), (0, 8));
        let chosen = rollout.chosen(2);
        assert_eq!(chosen.iter().map(|group| group.has_zero_variance()).collect::<Vec<_>>(), [true, false]);
    }
}
