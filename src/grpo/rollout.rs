//! The completions of a step: which groups are learnt from, and which are drawn in place of others.

use rlt_model::generate::{Completion, Finish};

use super::judge::{Judged, Question};
use super::replay::failed_group;
use super::update::{Sample, SampleGroup};
use crate::training::failure::FailedGroup;
use rlt_reward::advantage::has_zero_variance;

/// The completions of one question with their rewards.
pub(super) struct Group<'q> {
    pub question: &'q Question,
    pub completions: Vec<Completion>,
    /// One a completion.
    pub judged: Vec<Judged>,
}

impl Group<'_> {
    /// Whether all its rewards are equal: it has nothing to teach beside a baseline of its own.
    pub fn has_zero_variance(&self) -> bool {
        has_zero_variance(&self.judged.iter().map(|judged| judged.reward).collect::<Vec<_>>())
    }

    /// It as a failed step keeps it.
    pub fn to_keep(&self) -> FailedGroup {
        failed_group(self.question, &self.completions, &self.judged)
    }

    /// What the update sees of it.
    pub fn to_learn(&self) -> SampleGroup {
        let sample = |(completion, judged): (&Completion, &Judged)| Sample {
            ids: completion.ids.clone(),
            logprobs: completion.logprobs.clone(),
            reward: judged.reward,
            truncated: completion.finish == Finish::Length,
        };
        SampleGroup {
            name: format!("row {}", self.question.row.row),
            prompt: self.question.prompt.clone(),
            samples: self.completions.iter().zip(&self.judged).map(sample).collect(),
        }
    }
}

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
    pub fn add(
        &mut self,
        questions: Vec<&'q Question>,
        completions: Vec<Vec<Completion>>,
        judged: Vec<Judged>,
    ) {
        let mut judged = judged.into_iter();
        let groups = questions.into_iter().zip(completions).map(|(question, completions)| {
            let judged = judged.by_ref().take(completions.len()).collect();
            Group { question, completions, judged }
        });
        self.groups.extend(groups);
        self.rounds += 1;
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
    use crate::grpo::judge::tests::judged;
    use crate::grpo::judge::tests::question;

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
            let completion =
                Completion { ids: [1].into(), logprobs: vec![0.0], finish: Finish::Stop, version: 0 };
            let completions = vec![vec![completion.clone(), completion]; missing];
            let judged = rewards.iter().flatten().map(|&reward| judged(reward)).collect();
            rollout.add(vec![question; missing], completions, judged);
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
        let completion =
            Completion { ids: [1, 2].into(), logprobs: vec![-0.5, -1.0], finish: Finish::Length, version: 0 };
        let rewards = [1.0, 1.0, 0.0, 1.0].map(judged).into();
        rollout.add(vec![&question; 2], vec![vec![completion.clone(), completion]; 2], rewards);
        assert_eq!(rollout.missing(2, 0), 0);
        let chosen = rollout.chosen(2);
        assert_eq!(chosen.iter().map(|group| group.has_zero_variance()).collect::<Vec<_>>(), [true, false]);
        let learnt = chosen[1].to_learn();
        assert_eq!(learnt.name, "row 1");
        assert_eq!(learnt.samples[1].logprobs, [-0.5, -1.0]);
        assert!(learnt.samples[0].truncated);
        assert_eq!(learnt.samples.iter().map(|sample| sample.reward).collect::<Vec<_>>(), [0.0, 1.0]);
    }
}
