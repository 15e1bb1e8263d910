//! What a run of GRPO works with from its first step to its last: questions, format, reward, held-out questions.

use std::path::PathBuf;

use rlt_model::chat_template::TemplateTime;
use rlt_model::config::ModelConfig;
use rlt_model::{Decoder, Stop};

use super::evaluate::HeldOut;
use super::questions::questions;
use super::reward::{Reward, StepContext};
use super::rewards;
use super::sample::Question;
use super::told::{Told, WORK};
use crate::config::Config;
use crate::error::Result;
use crate::model_files::{Deciding, ModelFiles};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle};
use crate::ranks::Ranks;
use crate::sampler::Sampler;
use crate::scorer::{Scorer, Stoppable};
use crate::training::inputs::Checksum;
use crate::training::{HeldOutScore, Inputs, RowsSum};

/// Everything that does not change while a run lasts.
pub(super) struct Setup<'a> {
    pub config: &'a Config,
    pub style: PromptStyle,
    /// The policy's text side.
    pub chat: ChatText,
    pub reward: Box<dyn Reward>,
    pub questions: Vec<Question>,
    pub held_out: Option<HeldOut>,
    /// What the run is called in its files.
    work: &'static str,
    time: TemplateTime,
}

impl<'a> Setup<'a> {
    /// Reads it; templates tell `time`. `told` is what a teacher is told, in distillation.
    ///
    /// # Errors
    /// What files and rows report.
    pub fn load(
        config: &'a Config,
        told: Option<&Told>,
        time: TemplateTime,
        ranks: &Ranks,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let style = PromptStyle::resolve(&config.prompts)?;
        let chat = ChatText::from_dir_at(&config.model.path, time)?.reading(config.data.special_tokens);
        let reward = rewards::load(config, &chat, time, &config.memory.holding_of_frozen(ranks))?;
        let students = reward.student().map_or(&chat, |student| &student.chat);
        if let Some(warning) = style.thought_in_thought(students) {
            progress.warn(&warning);
        }
        let model = ModelConfig::from_dir(&config.model.path)?;
        let all = questions(config, &model, &style, &chat, &*reward, told, progress)?;
        let held_out = match config.on_held_out_rows() {
            Some(config) => {
                let rows = questions(&config, &model, &style, &chat, &*reward, None, progress)?;
                Some(HeldOut::of(rows, config.eval.samples))
            }
            None => None,
        };
        let work = if told.is_some() { WORK } else { "grpo" };
        Ok(Self { config, style, chat, reward, questions: all, held_out, work, time })
    }

    /// The date that the run's prompts depend on, if they do.
    pub fn time_told(&self) -> Option<TemplateTime> {
        let of_student = self.reward.student().is_some_and(|student| student.chat.template.tells_time());
        (self.chat.template.tells_time() || of_student).then_some(self.time)
    }

    /// What the parts of a step are told.
    pub fn context<'s>(&'s self, step: u64, policy: &'s dyn Scorer, stop: Stop<'s>) -> StepContext<'s> {
        StepContext { step, config: self.config, style: &self.style, chat: &self.chat, policy, stop }
    }

    /// The evaluation after a step, of the held-out questions where there are any: `sampler` draws from `policy`.
    ///
    /// # Errors
    /// As [`HeldOut::evaluate`].
    pub fn evaluate(
        &self,
        step: u64,
        sampler: &dyn Sampler,
        policy: &Decoder,
        ranks: &Ranks,
        stop: Stop,
    ) -> Result<Option<HeldOutScore>> {
        let policy = Stoppable(policy, stop);
        let context = self.context(step, &policy, stop);
        self.held_out.as_ref().map(|rows| rows.evaluate(&context, sampler, &*self.reward, ranks)).transpose()
    }

    /// What the run must find unchanged to go on.
    ///
    /// # Errors
    /// What the files report.
    pub fn inputs(&self, given: &Config, progress: &dyn Progress) -> Result<Inputs> {
        let config = self.config;
        let of_path = Inputs::of(self.work, given, config, progress)?;
        let files = |folder: &PathBuf| match &of_path.model {
            Some(known) if *folder == config.model.path && !config.model.from_scratch => Ok(known.clone()),
            _ if folder.as_os_str().is_empty() => Ok(ModelFiles::default()),
            _ => ModelFiles::of(folder, Deciding::WithWeights, progress),
        };
        let student = match self.reward.student() {
            Some(student) if student.model.served().is_some() => {
                ModelFiles::of(&config.model.student, Deciding::WithoutWeights, progress)?
            }
            Some(_) => files(&config.model.student)?,
            None => ModelFiles::default(),
        };
        let mut answers = Checksum::default();
        for question in &self.questions {
            question.add_texts(&mut answers);
            if !question.told.is_empty() {
                answers.add_ids(&question.told);
            }
        }
        Ok(Inputs {
            rows: Some(RowsSum::of_ids(self.questions.iter().map(|question| &*question.prompt))),
            answers: Some(answers.finish()),
            held_out: Some(self.held_out.as_ref().map(HeldOut::fingerprint).unwrap_or_default()),
            student: Some(student),
            reference: Some(files(&config.model.reference)?),
            ..of_path
        })
    }
}
