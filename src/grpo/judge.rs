//! Completions to rewards.

use rlt_model::chat_template::TemplateTime;
use rlt_model::generate::Completion;
use rlt_model::ids::TokenIds;
use rlt_model::{Decoder, Stop};

use crate::config::{AnswerRule, Config, KlEstimator, RewardConfig, RewardKind};
use crate::dataset::QuestionRow;
use crate::error::Result;
use crate::progress::Silent;
use crate::prompts::{ChatText, PromptStyle};
use crate::score::added::{Adding, Sum, Written, answer_rule, is_right};
use crate::score::{Formats, RltSample, ScoredSample, Teacher, score_samples};
use crate::scorer::Stoppable;
use crate::traces;
use crate::training::inputs::Checksum;
use crate::training::run::frozen_model;
use rlt_reward::correctness::correctness_reward;

/// A question in training.
pub(super) struct Question {
    pub row: QuestionRow,
    /// What completions are sampled after.
    pub prompt: TokenIds,
}

impl Question {
    /// Adds the texts that a reward is made from beside the prompt: what the student is asked, and the gold answer.
    pub fn add_texts(&self, sum: &mut Checksum) {
        let QuestionRow { question, solution, system, .. } = &self.row;
        for text in [question.as_str(), solution, system.as_deref().unwrap_or_default()] {
            sum.add_text(text);
        }
    }
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
    /// Format and final answer, right by this rule.
    Correctness(AnswerRule),
}

impl Judge {
    /// The judge of `reward.kind`; the student must share the vocabulary of `policy_chat`, and its template tells `time`.
    pub fn load(config: &Config, policy_chat: &ChatText, time: TemplateTime) -> Result<Self> {
        match config.reward.kind {
            RewardKind::Correctness => Ok(Self::Correctness(answer_rule(config))),
            RewardKind::Rlt => {
                let chat =
                    ChatText::from_dir_at(&config.model.student, time)?.reading(config.data.special_tokens);
                ChatText::check_same_vocabulary(policy_chat, &chat)?;
                let student = frozen_model(&config.model, &config.model.student)?;
                Ok(Self::Rlt { student: Box::new(student), chat: Box::new(chat) })
            }
        }
    }

    /// Whether its prompts depend on the date.
    pub fn tells_time(&self) -> bool {
        match self {
            Self::Rlt { chat, .. } => chat.template.tells_time(),
            Self::Correctness(_) => false,
        }
    }

    /// The student of the RLT reward.
    pub fn student(&self) -> Option<&Decoder> {
        match self {
            Self::Rlt { student, .. } => Some(student),
            Self::Correctness(_) => None,
        }
    }

    /// The text side of whoever answers in the student's format: the RLT reward's student, or the policy.
    pub fn student_chat<'a>(&'a self, policy: &'a ChatText) -> &'a ChatText {
        match self {
            Self::Rlt { chat, .. } => chat,
            Self::Correctness(_) => policy,
        }
    }

    /// What a completion of `row` is sampled after.
    pub fn prompt(&self, style: &PromptStyle, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>> {
        match self {
            Self::Rlt { .. } => style.teacher_prompt(chat, row),
            Self::Correctness(_) => style.student_question_prompt(chat, row),
        }
    }

    /// Rewards `groups[i]`, the completions of `questions[i]`; all in one list, group by group. Scoring looks at `stop`
    /// before every micro-batch.
    pub fn rewards(
        &self,
        step: u64,
        questions: &[&Question],
        groups: &[Vec<Completion>],
        style: &PromptStyle,
        policy_chat: &ChatText,
        policy: &Decoder,
        config: &Config,
        stop: Stop,
    ) -> Result<Vec<Judged>> {
        let completions = || {
            questions.iter().zip(groups).flat_map(|(question, group)| {
                group.iter().enumerate().map(move |(sample, completion)| (*question, sample, completion))
            })
        };
        let adding = Adding::of(config, style);
        let with_added = |(judged, (question, _, completion)): (Judged, (&Question, usize, &Completion))| {
            let Some(adding) = &adding else { return judged };
            let text = policy_chat.tokenizer.decode(text_ids(completion));
            add_rewards(judged, adding, style, &question.row, completion, &text)
        };
        let (student, chat) = match self {
            Self::Rlt { student, chat } => (student, chat),
            Self::Correctness(rule) => {
                let judged = completions().map(|(question, _, completion)| {
                    // The whole turn, with what the template has written of it.
                    let opened = policy_chat.opened_by_template(&style.begin_of_thought);
                    let text = format!("{opened}{}", policy_chat.tokenizer.decode(text_ids(completion)));
                    judge_answer(style, *rule, &question.row, &text)
                });
                return Ok(judged.zip(completions()).map(with_added).collect());
            }
        };
        let formats = Formats { style, teacher: policy_chat, student: chat };
        let samples = completions()
            .map(|(question, sample, completion)| {
                let name = format!("step {step}, row {}, sample {}", question.row.row, sample + 1);
                let prompt = question.prompt.clone();
                RltSample::from_sampled(&formats, &question.row, prompt, shared_text_ids(completion), name)
            })
            .collect::<Result<Vec<_>>>()?;
        let recorded: Vec<Vec<f32>> = completions().map(|(_, _, c)| c.logprobs.clone()).collect();
        let policy = Stoppable(policy, stop);
        let teacher = if teacher_was_recorded(&config.reward, config.sampling.temperature) {
            Teacher::Recorded(&recorded)
        } else {
            Teacher::Model(&policy)
        };
        let tokens_per_batch = config.grpo.tokens_per_microbatch;
        let student = Stoppable(student, stop);
        let scored = score_samples(&samples, teacher, &student, &config.reward, tokens_per_batch, &Silent)?;
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
    adding: &Adding,
    style: &PromptStyle,
    row: &QuestionRow,
    completion: &Completion,
    text: &str,
) -> Judged {
    let (name, tokens, explanation) = match &judged.basis {
        Basis::Correctness(_) => ("correctness", text_ids(completion), None),
        Basis::Rlt(of) => ("rlt", of.0.think_ids(), Some((style.split_explanation(text).0, &of.0))),
    };
    let written = Written { row, tokens, n_tokens: completion.ids.len(), explanation };
    let Sum { reward, parts } = adding.sum(name, judged.reward, &written);
    Judged { reward, parts, ..judged }
}

/// Whether the log-probabilities recorded while sampling are those that r_KL asks for.
fn teacher_was_recorded(reward: &RewardConfig, sampling_temperature: f32) -> bool {
    reward.kl != KlEstimator::Full && reward.teacher_temperature == sampling_temperature
}

/// [`text_ids`] in the completion's own memory.
fn shared_text_ids(completion: &Completion) -> TokenIds {
    completion.ids.part(0..text_ids(completion).len())
}

/// The completion's ids without the stop token that ended it.
pub(super) fn text_ids(completion: &Completion) -> &[u32] {
    traces::text_ids(&completion.ids, completion.finish.into())
}

fn judge_answer(style: &PromptStyle, rule: AnswerRule, row: &QuestionRow, completion: &str) -> Judged {
    let section = style.split_answer(completion).map(|(_, solution)| solution);
    let mut correct = false;
    let reward = correctness_reward(section, |_| {
        correct = is_right(style, rule, row, completion);
        correct
    });
    Judged { reward, parts: Vec::new(), formatted: section.is_some(), basis: Basis::Correctness(correct) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A completion with the reward of a right answer, a wrong one or no answer.
    pub(in crate::grpo) fn judged(reward: f32) -> Judged {
        let basis = Basis::Correctness(reward > 0.0);
        Judged { reward, parts: Vec::new(), formatted: reward > -1.0, basis }
    }

    /// The question of row 1.
    pub(in crate::grpo) fn question() -> Question {
        Question { row: row("What is 2 + 2?", "4"), prompt: [5, 6].into() }
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

    fn reward(rule: AnswerRule, solution: &str, thought_and_answer: Option<(&str, &str)>) -> (f32, bool) {
        let style = PromptStyle::stratos();
        let completion = thought_and_answer
            .map_or("no sections".into(), |(thought, answer)| style.student_answer(thought, answer));
        let judged = judge_answer(style, rule, &row("What is 2 + 2?", solution), &completion);
        (judged.reward, judged.formatted)
    }

    #[test]
    fn an_answer_is_compared_without_its_white_space() {
        let reward = |solution, answer| reward(AnswerRule::Solution, solution, answer);
        assert_eq!(reward("\n4 apples\n", Some(("t", "4  apples"))), (1.0, true));
        assert_eq!(reward("4 apples", Some(("t", "5 apples"))), (-0.5, true));
        assert_eq!(reward("4 apples", None), (-1.0, false));
    }

    #[test]
    fn a_rule_about_numbers_reads_the_last_one() {
        let reward = |solution, answer| reward(AnswerRule::Integer, solution, answer);
        assert_eq!(reward("Tom has 25 eggs.", Some(("t", "It is 25."))), (1.0, true));
        assert_eq!(reward("Tom has 25 eggs.", Some(("t", "Tom has 52 eggs."))), (-0.5, true));
    }
}
