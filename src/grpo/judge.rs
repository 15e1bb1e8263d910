//! Completions to rewards.

use rlt_model::Decoder;
use rlt_model::generate::Completion;

use crate::config::{AddedRewards, Config, KlEstimator, RewardConfig, RewardKind};
use crate::dataset::QuestionRow;
use crate::error::Result;
use crate::evaluate::grading::{SolutionTags, grade_solution};
use crate::progress::Silent;
use crate::prompts::{ChatText, PromptStyle};
use crate::reward::correctness::correctness_reward;
use crate::reward::diagnostics::{repeated_ngram_share, solution_overlap};
use crate::reward::sum::weighted_sum;
use crate::score::{Formats, NGRAM_TOKENS, RltSample, ScoredSample, Teacher, score_samples};
use crate::traces;
use crate::worlds::World;

/// A question in training.
pub(super) struct Question {
    pub row: QuestionRow,
    /// What completions are sampled after.
    pub prompt: Vec<u32>,
}

/// A completion with its reward.
pub(super) struct Judged {
    pub reward: f32,
    /// What it is the weighted sum of, by name: the reward of `reward.kind` first. Empty where that is all.
    pub parts: Vec<(&'static str, f32)>,
    /// Whether it has the asked sections: the explanation's end tag, or thought and solution.
    pub formatted: bool,
    pub basis: Basis,
}

/// What a reward was made from.
pub(super) enum Basis {
    /// Both models' log-probabilities.
    Rlt(Box<(RltSample, ScoredSample)>),
    /// Whether the answer is right.
    Correctness(bool),
}

/// What gives the reward.
pub(super) enum Judge {
    /// A frozen student's log-probabilities.
    Rlt { student: Box<Decoder>, chat: Box<ChatText> },
    /// Format and final answer.
    Correctness,
}

impl Judge {
    /// The judge of `reward.kind`; the student must share the vocabulary of `policy_chat`.
    pub fn load(config: &Config, policy_chat: &ChatText) -> Result<Self> {
        match config.reward.kind {
            RewardKind::Correctness => Ok(Self::Correctness),
            RewardKind::Rlt => {
                let chat = ChatText::from_dir(&config.model.student)?;
                ChatText::check_same_vocabulary(policy_chat, &chat)?;
                let student = Decoder::load_frozen(&config.model.student)?;
                let student = student.in_arithmetic(config.model.arithmetic.into());
                Ok(Self::Rlt { student: Box::new(student), chat: Box::new(chat) })
            }
        }
    }

    /// The student of the RLT reward.
    pub fn student(&self) -> Option<&Decoder> {
        match self {
            Self::Rlt { student, .. } => Some(student),
            Self::Correctness => None,
        }
    }

    /// What a completion of `row` is sampled after.
    pub fn prompt(&self, style: &PromptStyle, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>> {
        match self {
            Self::Rlt { .. } => style.teacher_prompt(chat, row),
            Self::Correctness => style.student_question_prompt(chat, row),
        }
    }

    /// Rewards `groups[i]`, the completions of `questions[i]`; all in one list, group by group.
    pub fn rewards(
        &self,
        step: u64,
        questions: &[&Question],
        groups: &[Vec<Completion>],
        style: &PromptStyle,
        policy_chat: &ChatText,
        policy: &Decoder,
        config: &Config,
    ) -> Result<Vec<Judged>> {
        let completions = || {
            questions.iter().zip(groups).flat_map(|(question, group)| {
                group.iter().enumerate().map(move |(sample, completion)| (*question, sample, completion))
            })
        };
        let nothing_added = config.reward.add == AddedRewards::default();
        let with_added = |(judged, (question, _, completion)): (Judged, (&Question, usize, &Completion))| {
            if nothing_added {
                return judged;
            }
            let text = policy_chat.tokenizer.decode(text_ids(completion));
            add_rewards(judged, style, &question.row, completion, &text, config)
        };
        let Self::Rlt { student, chat } = self else {
            let judged = completions().map(|(question, _, completion)| {
                let text = policy_chat.tokenizer.decode(text_ids(completion));
                judge_answer(style, &question.row, &text)
            });
            return Ok(judged.zip(completions()).map(with_added).collect());
        };
        let formats = Formats { style, teacher: policy_chat, student: chat };
        let samples = completions()
            .map(|(question, sample, completion)| {
                let name = format!("step {step}, row {}, sample {}", question.row.row, sample + 1);
                let prompt = question.prompt.clone();
                RltSample::from_sampled(&formats, &question.row, prompt, text_ids(completion), name)
            })
            .collect::<Result<Vec<_>>>()?;
        let recorded: Vec<Vec<f32>> = completions().map(|(_, _, c)| c.logprobs.clone()).collect();
        let teacher = if teacher_was_recorded(&config.reward, config.sampling.temperature) {
            Teacher::Recorded(&recorded)
        } else {
            Teacher::Model(policy)
        };
        let tokens_per_batch = config.grpo.tokens_per_microbatch;
        let scored = score_samples(&samples, teacher, &**student, &config.reward, tokens_per_batch, &Silent)?;
        let judged = samples.into_iter().zip(scored).map(|(sample, scored)| Judged {
            reward: scored.score.reward,
            parts: Vec::new(),
            formatted: sample.has_end_tag,
            basis: Basis::Rlt(Box::new((sample, scored))),
        });
        Ok(judged.zip(completions()).map(with_added).collect())
    }
}

/// Adds what `[reward.add]` asks for to the reward of a completion that decodes to `text`.
fn add_rewards(
    judged: Judged,
    style: &PromptStyle,
    row: &QuestionRow,
    completion: &Completion,
    text: &str,
    config: &Config,
) -> Judged {
    let add = &config.reward.add;
    let is_added = |weight: f32| weight != 0.0;
    let mut added = Vec::new();
    let (main, tokens) = match &judged.basis {
        Basis::Correctness(_) => ("correctness", text_ids(completion)),
        Basis::Rlt(of) => {
            let sample = &of.0;
            if is_added(add.correctness) {
                let explanation = style.split_explanation(text).0;
                let right = is_right(style, row, &style.student_answer("", explanation));
                added.push(("correctness", add.correctness, f32::from(u8::from(right))));
            }
            if is_added(add.overlap) {
                let overlap = solution_overlap(sample.think_ids(), sample.solution_ids());
                added.push(("overlap", add.overlap, overlap));
            }
            ("rlt", sample.think_ids())
        }
    };
    if is_added(add.repetition) {
        added.push(("repetition", add.repetition, repeated_ngram_share(tokens, NGRAM_TOKENS)));
    }
    if is_added(add.length) {
        let share = completion.ids.len() as f32 / config.sampling.max_new_tokens as f32;
        added.push(("length", add.length, share));
    }
    let weighted: Vec<(f32, f32)> = added.iter().map(|&(_, weight, value)| (weight, value)).collect();
    let values = added.into_iter().map(|(name, _, value)| (name, value));
    let parts = std::iter::once((main, judged.reward)).chain(values).collect();
    Judged { reward: weighted_sum(judged.reward, &weighted), parts, ..judged }
}

/// Whether the log-probabilities recorded while sampling are those that r_KL asks for.
fn teacher_was_recorded(reward: &RewardConfig, sampling_temperature: f32) -> bool {
    reward.kl != KlEstimator::Full && reward.teacher_temperature == sampling_temperature
}

/// The completion's ids without the stop token that ended it.
pub(super) fn text_ids(completion: &Completion) -> &[u32] {
    traces::text_ids(&completion.ids, completion.finish.into())
}

fn judge_answer(style: &PromptStyle, row: &QuestionRow, completion: &str) -> Judged {
    let section = style.split_answer(completion).map(|(_, solution)| solution);
    let mut correct = false;
    let reward = correctness_reward(section, |_| {
        correct = is_right(style, row, completion);
        correct
    });
    Judged { reward, parts: Vec::new(), formatted: section.is_some(), basis: Basis::Correctness(correct) }
}

/// A question of a synthetic world is graded as that world does; any other as `rlt eval` does a file's rows.
fn is_right(style: &PromptStyle, row: &QuestionRow, completion: &str) -> bool {
    let tags = SolutionTags {
        end_of_thought: &style.end_of_thought,
        begin_of_solution: &style.begin_of_solution,
        end_of_solution: &style.end_of_solution,
    };
    let verdict = match World::ALL.into_iter().find(|world| world.classify(&row.question, "").is_some()) {
        Some(world) => world.grade(completion, &row.solution, &tags),
        None => grade_solution(completion, &row.solution, &tags),
    };
    verdict.correct
}

#[cfg(test)]
pub(super) mod tests {
    use rlt_model::generate::Finish;

    use super::*;

    /// A completion with the reward of a right answer, a wrong one or no answer.
    pub(in crate::grpo) fn judged(reward: f32) -> Judged {
        let basis = Basis::Correctness(reward > 0.0);
        Judged { reward, parts: Vec::new(), formatted: reward > -1.0, basis }
    }

    /// The question of row 1.
    pub(in crate::grpo) fn question() -> Question {
        Question { row: row("What is 2 + 2?", "4"), prompt: vec![5, 6] }
    }

    fn row(question: &str, solution: &str) -> QuestionRow {
        QuestionRow {
            question: question.into(),
            solution: solution.into(),
            reasoning_trace: None,
            system: None,
            columns: serde_json::Map::new(),
            row: 1,
        }
    }

    fn reward(question: &str, solution: &str, thought_and_answer: Option<(&str, &str)>) -> (f32, bool) {
        let style = PromptStyle::stratos();
        let completion = thought_and_answer
            .map_or("no sections".into(), |(thought, answer)| style.student_answer(thought, answer));
        let judged = judge_answer(style, &row(question, solution), &completion);
        (judged.reward, judged.formatted)
    }

    #[test]
    fn what_is_added_is_weighted_and_kept_apart() {
        let mut config = Config::default();
        config.sampling.max_new_tokens = 8;
        config.reward.add.length = -2.0;
        let completion = Completion { ids: vec![1, 2], logprobs: vec![0.0; 2], finish: Finish::Length };
        let row = row("What is 2 + 2?", "4");
        // 2 of 8 tokens.
        let with_length = add_rewards(judged(1.0), PromptStyle::stratos(), &row, &completion, "4", &config);
        assert_eq!(with_length.reward, 0.5);
        assert_eq!(with_length.parts, [("correctness", 1.0), ("length", 0.25)]);
    }

    #[test]
    fn an_answer_is_compared_without_its_white_space() {
        let question = "What is 2 + 2?";
        assert_eq!(reward(question, "\n4 apples\n", Some(("t", "4  apples"))), (1.0, true));
        assert_eq!(reward(question, "4 apples", Some(("t", "5 apples"))), (-0.5, true));
        assert_eq!(reward(question, "4 apples", None), (-1.0, false));
    }

    #[test]
    fn a_world_s_question_is_graded_by_its_number() {
        let question = "Tom has 20 eggs. He finds 5. How many eggs does he have?";
        assert_eq!(reward(question, "Tom has 25 eggs.", Some(("t", "It is 25."))), (1.0, true));
        assert_eq!(reward(question, "Tom has 25 eggs.", Some(("t", "Tom has 52 eggs."))), (-0.5, true));
    }
}
