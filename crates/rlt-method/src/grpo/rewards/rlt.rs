//! The dense reward of the paper, from a frozen student's log-probabilities.

use rlt_model::chat_template::TemplateTime;

use crate::config::{Config, KlEstimator, RewardConfig};
use crate::dataset::QuestionRow;
use crate::error::Result;
use crate::grpo::reward::{Answered, Reward, StepContext, Student};
use crate::grpo::sample::{Verdict, text_ids};
use crate::located::LocatedModel;
use crate::progress::Silent;
use crate::prompts::{ChatText, PromptStyle};
use crate::ranks::Holding;
use crate::score::{Formats, RltSample, ScoredSample, Teacher, score_samples};
use crate::server::Wanted;

/// r_SS - lambda r_KL of explanations.
pub(super) struct Rlt(Student);

impl Rlt {
    pub fn load(
        config: &Config,
        policy_chat: &ChatText,
        time: TemplateTime,
        holding: &Holding,
    ) -> Result<Self> {
        Ok(Self(student(config, policy_chat, time, holding)?))
    }
}

/// The student of `model.student`, who must share the vocabulary of `policy_chat`.
///
/// # Errors
/// What its folder reports.
pub(super) fn student(
    config: &Config,
    policy_chat: &ChatText,
    time: TemplateTime,
    holding: &Holding,
) -> Result<Student> {
    let chat = ChatText::from_dir_at(&config.model.student, time)?.reading(config.data.special_tokens);
    ChatText::check_same_vocabulary(policy_chat, &chat)?;
    let (server, folder) = (config.server_of_student(), &config.model.student);
    let model = LocatedModel::find(server, &config.model, folder, holding, &Silent)?;
    model.check(&chat.tokenizer, &Wanted { scoring: true, ..Wanted::default() }, &Silent)?;
    Ok(Student { model, chat })
}

impl Reward for Rlt {
    fn name(&self) -> &'static str {
        "rlt"
    }

    fn prompt(&self, style: &PromptStyle, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>> {
        style.teacher_prompt(chat, row)
    }

    fn student(&self) -> Option<&Student> {
        Some(&self.0)
    }

    fn verdicts(&self, context: &StepContext, groups: &[Answered]) -> Result<Vec<Verdict>> {
        let verdict = |(sample, scored): (RltSample, ScoredSample)| Verdict {
            reward: scored.score.reward,
            is_formatted: sample.has_end_tag,
            scored: Some(Box::new((sample, scored))),
            ..Verdict::default()
        };
        let scored = score_explanations(&self.0, &context.config.reward, context, groups)?;
        Ok(scored.into_iter().map(verdict).collect())
    }
}

/// Every completion as an explanation: its sequences, and what teacher and student say of them. Scoring looks at the
/// context's stop before every micro-batch.
///
/// # Errors
/// As [`score_samples`].
pub(super) fn score_explanations(
    student: &Student,
    reward: &RewardConfig,
    context: &StepContext,
    groups: &[Answered],
) -> Result<Vec<(RltSample, ScoredSample)>> {
    let StepContext { step, config, style, chat, policy, stop } = *context;
    let formats = Formats { style, teacher: chat, student: &student.chat };
    let completions = || groups.iter().flat_map(|group| group.iter());
    let samples = completions()
        .map(|(question, place, completion)| {
            let name = format!("step {step}, {}, sample {}", question.name(), place + 1);
            let prompt = question.prompt.clone();
            RltSample::from_sampled(&formats, &question.row, prompt, text_ids(completion), name)
        })
        .collect::<Result<Vec<_>>>()?;
    let recorded: Vec<&[f32]> = completions().map(|(_, _, c)| &*c.logprobs).collect();
    let teacher = if teacher_was_recorded(reward, config.sampling.temperature) {
        Teacher::Recorded(&recorded)
    } else {
        Teacher::Model(policy)
    };
    let student = student.model.scorer(stop, &Silent);
    let tokens_per_batch = config.grpo.tokens_per_microbatch;
    let scored = score_samples(&samples, teacher, &*student, reward, tokens_per_batch, &Silent)?;
    Ok(samples.into_iter().zip(scored).collect())
}

/// Whether the log-probabilities recorded while sampling are those that r_KL asks for.
pub(crate) fn teacher_was_recorded(reward: &RewardConfig, sampling_temperature: f32) -> bool {
    reward.kl != KlEstimator::Full && reward.teacher_temperature == sampling_temperature
}
