//! What a step is about: questions, and the completions of each on their way from the sampler to the update.

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::generate::{Completion, Finish};
use rlt_model::ids::TokenIds;
use rlt_reward::advantage::has_zero_variance;
use rlt_reward::rlt::Unscorable;

use crate::dataset::QuestionRow;
use crate::ranks::wire_fields;
use crate::score::{PartName, RltSample, ScoredSample};
use crate::training::failure::FailedGroup;
use crate::training::inputs::Checksum;

/// A question in training.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub row: QuestionRow,
    /// What completions are sampled after.
    pub prompt: TokenIds,
    /// What a teacher reads them behind that is told the solution; empty outside distillation.
    pub told: TokenIds,
}

impl Question {
    /// What errors call it.
    pub fn name(&self) -> String {
        format!("row {}", self.row.row)
    }

    /// Adds the texts that a reward is made from beside the prompt: what the student is asked, and the gold answer.
    pub fn add_texts(&self, sum: &mut Checksum) {
        let QuestionRow { question, solution, system, .. } = &self.row;
        for text in [question.as_str(), solution, system.as_deref().unwrap_or_default()] {
            sum.add_text(text);
        }
    }
}

/// One completion of a step: as it was sampled, and what it earned. Its ids stand in memory once; sequences to score and
/// batches to learn from share them.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// As the sampler handed it over; where others draw, with the policy's own log-probabilities.
    pub completion: Completion,
    /// The sampler's log-probabilities, nats, where they are not the policy's own; else empty.
    pub behaviour: Vec<f32>,
    pub verdict: Verdict,
}

impl Sample {
    /// Gives it the policy's own log-probabilities in the place of the sampler's, which are kept apart.
    pub fn take_own(&mut self, own: Vec<f32>) {
        self.behaviour = std::mem::replace(&mut self.completion.logprobs, own);
    }

    /// Whether it was cut at the length limit.
    pub fn is_truncated(&self) -> bool {
        self.completion.finish == Finish::Length
    }
}

/// What a completion earned, and what from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    pub reward: f32,
    /// What the reward is the weighted sum of, by name: that of `reward.kind` first. Empty where that is all.
    pub parts: Vec<(PartName, f32)>,
    /// Whether the completion has the asked sections: the explanation's end tag, or thought and solution.
    pub is_formatted: bool,
    /// Whether its answer is right, where an answer was graded.
    pub is_correct: Option<bool>,
    /// The sequences that models were asked about with their log-probabilities, where the reward is made from these.
    pub scored: Option<Box<(RltSample, ScoredSample)>>,
    /// What a student said of the whole completion, where the reward is made from that.
    pub reading: Option<Box<Reading>>,
}

wire_fields!(Verdict { reward, parts, is_formatted, is_correct, scored, reading });

/// A completion as a student reads it that was told nothing but the question.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Its log-probabilities, one a token, nats.
    pub logprobs: Vec<f32>,
    /// How far its favourites are ahead, one a token, nats ([`rlt_reward::pedagogy::surprise_gap`]).
    pub gaps: Vec<f32>,
    /// How learnable that makes the completion, 0 to 1.
    pub learnability: f32,
    /// Why there is none of this.
    pub unscorable: Option<Unscorable>,
}

wire_fields!(Reading { logprobs, gaps, learnability, unscorable });

/// The ids of a completion's text, in its own memory: all but the stop token that ended it.
pub(super) fn text_ids(completion: &Completion) -> TokenIds {
    let n = crate::traces::text_ids(&completion.ids, completion.finish.into()).len();
    completion.ids.part(0..n)
}

/// The completions of one question.
#[derive(Debug, Clone)]
pub(crate) struct Group<'q> {
    pub question: &'q Question,
    pub samples: Vec<Sample>,
}

impl Group<'_> {
    /// Whether all its rewards are equal: it has nothing to teach beside a baseline of its own.
    pub fn has_zero_variance(&self) -> bool {
        has_zero_variance(&self.samples.iter().map(|sample| sample.verdict.reward).collect::<Vec<_>>())
    }

    /// Prompt and completions as models take them, every completion token scored, of the samples that `counts` takes; none
    /// where it takes none.
    pub fn to_score(&self, counts: impl Fn(&Sample) -> bool) -> Option<ScoringGroup> {
        let counted = self.samples.iter().filter(|&sample| counts(sample));
        let continuations: Vec<Continuation> =
            counted.map(|sample| Continuation::whole(sample.completion.ids.clone())).collect();
        (!continuations.is_empty())
            .then(|| ScoringGroup { prefix: self.question.prompt.clone(), continuations })
    }

    /// The group in the form in which the batch of a failed step is kept.
    pub fn to_keep(&self) -> FailedGroup {
        let mut kept = failed_group(self.question, self.samples.iter().map(|sample| &sample.completion));
        for (kept, sample) in kept.continuations.iter_mut().zip(&self.samples) {
            kept.reward = Some(sample.verdict.reward);
        }
        kept
    }
}

/// Completions with what they earned, question by question. `verdicts` are in one list.
pub(super) fn groups<'q>(
    questions: &[&'q Question],
    completions: Vec<Vec<Completion>>,
    verdicts: Vec<Verdict>,
) -> Vec<Group<'q>> {
    let mut verdicts = verdicts.into_iter();
    let group = |(&question, completions): (&&'q Question, Vec<Completion>)| Group {
        question,
        samples: completions
            .into_iter()
            .zip(verdicts.by_ref())
            .map(|(completion, verdict)| Sample { completion, behaviour: Vec::new(), verdict })
            .collect(),
    };
    questions.iter().zip(completions).map(group).collect()
}

/// `n` completions that are all `ids`, as certain as can be.
pub(crate) fn certain_group(question: &Question, ids: TokenIds, n: usize) -> Group<'_> {
    let (logprobs, finish) = (vec![0.0; ids.len()], Finish::Length);
    let completion = Completion { ids, logprobs, finish, version: 0 };
    Group {
        question,
        samples: vec![Sample { completion, behaviour: Vec::new(), verdict: Verdict::default() }; n],
    }
}

/// A question with its completions, in the form in which the batch of a failed step is kept: before any reward.
pub(super) fn failed_group<'a>(
    question: &Question,
    completions: impl Iterator<Item = &'a Completion> + Clone,
) -> FailedGroup {
    let continuations = completions.clone().map(|completion| Continuation::whole(completion.ids.clone()));
    let group = ScoringGroup { prefix: question.prompt.clone(), continuations: continuations.collect() };
    let mut failed = FailedGroup::of(&question.name(), question.row.row, &group);
    failed.told = question.told.to_vec();
    for (kept, completion) in failed.continuations.iter_mut().zip(completions) {
        let finite = |&logprob: &f32| logprob.is_finite().then_some(logprob);
        kept.sampled_logprobs = completion.logprobs.iter().map(finite).collect();
        kept.finish = Some(if completion.finish == Finish::Stop { "stop" } else { "length" }.into());
    }
    failed
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A completion of these ids with the reward of a right answer, a wrong one or no answer.
    pub(in crate::grpo) fn sample(ids: &[u32], reward: f32) -> Sample {
        let completion =
            Completion { logprobs: vec![-0.5; ids.len()], ids: ids.into(), finish: Finish::Stop, version: 0 };
        let (is_formatted, is_correct) = (reward > -1.0, Some(reward > 0.0));
        Sample {
            completion,
            behaviour: Vec::new(),
            verdict: Verdict { reward, is_formatted, is_correct, ..Verdict::default() },
        }
    }

    /// The question of row 1.
    pub(in crate::grpo) fn question() -> Question {
        Question { row: row("What is 2 + 2?", "4"), prompt: [5, 6].into(), told: TokenIds::default() }
    }

    /// A row 1.
    pub(in crate::grpo) fn row(question: &str, solution: &str) -> QuestionRow {
        QuestionRow {
            question: question.into(),
            solution: solution.into(),
            reasoning_trace: None,
            system: None,
            columns: serde_json::Map::new(),
            row: 1,
        }
    }

    #[test]
    fn a_completions_ids_stand_in_memory_once() {
        let question = question();
        let group = Group { question: &question, samples: vec![sample(&[1, 2, 0], 1.0), sample(&[7], 0.0)] };
        let to_learn = group.to_score(|_| true).unwrap();
        assert!(to_learn.prefix.shares_memory_with(&question.prompt));
        for (sample, continuation) in group.samples.iter().zip(&to_learn.continuations) {
            assert!(continuation.ids.shares_memory_with(&sample.completion.ids));
            assert!(text_ids(&sample.completion).shares_memory_with(&sample.completion.ids));
        }
        assert_eq!(text_ids(&group.samples[0].completion), [1, 2]);
        assert!(group.to_score(Sample::is_truncated).is_none());
    }
}
