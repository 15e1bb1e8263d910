//! The questions of a run.

use rayon::prelude::*;
use rlt_model::config::ModelConfig;

use super::reward::Reward;
use super::sample::Question;
use super::told::Told;
use crate::config::Config;
use crate::dataset::read_usable_questions;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle, TypedCheck};

/// The questions with their prompts, without those that leave no room; how many were dropped is noted.
pub(super) fn questions(
    config: &Config,
    model: &ModelConfig,
    style: &PromptStyle,
    chat: &ChatText,
    reward: &dyn Reward,
    told: Option<&Told>,
    progress: &dyn Progress,
) -> Result<Vec<Question>> {
    let read = read_usable_questions(&config.data)?;
    read.warning().iter().for_each(|warning| progress.warn(warning));
    TypedCheck::of_rows(chat, &read.rows, progress)?;
    let n_read = read.rows.len();
    let mut questions = read
        .rows
        .into_par_iter()
        .map(|row| {
            let told = told.map(|told| told.prompt(style, chat, &row)).transpose()?.unwrap_or_default();
            Ok(Question { prompt: reward.prompt(style, chat, &row)?.into(), told, row })
        })
        .collect::<Result<Vec<_>>>()?;
    let limit = longest_prompt(config, model.context());
    // A teacher reads completions of any length behind a prompt of its own, which the sampler knows nothing of.
    let room_for_told = (model.context() - 1).saturating_sub(config.sampling.max_new_tokens);
    questions.retain(|question| question.prompt.len() <= limit && question.told.len() <= room_for_told);
    let dropped = n_read - questions.len();
    if questions.is_empty() {
        return Err(Error::Failed(format!(
            "{}: all {n_read} prompts are longer than {limit} tokens{}; raise data.max_prompt_tokens or use a \
             model with a longer context",
            config.data.path.display(),
            too_long_when_told(told.is_some(), room_for_told)
        )));
    }
    if dropped > 0 {
        progress.note(&format!(
            "dropped {dropped} of {n_read} questions: prompts above {limit} tokens{}",
            too_long_when_told(told.is_some(), room_for_told)
        ));
    }
    Ok(questions)
}

/// Of what is dropped in distillation besides.
fn too_long_when_told(is_told: bool, room: usize) -> String {
    if is_told { format!(", or above {room} with what the teacher is told") } else { String::new() }
}

/// The longest prompt that a run takes, tokens: one that leaves room in a context of so many.
pub(crate) fn longest_prompt(config: &Config, context: usize) -> usize {
    let room = context - 1;
    if config.data.max_prompt_tokens == 0 { room } else { config.data.max_prompt_tokens.min(room) }
}
