//! The questions of a run.

use rayon::prelude::*;
use rlt_model::config::ModelConfig;

use super::reward::Reward;
use super::sample::Question;
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
    progress: &dyn Progress,
) -> Result<Vec<Question>> {
    let read = read_usable_questions(&config.data)?;
    read.warning().iter().for_each(|warning| progress.warn(warning));
    TypedCheck::of_rows(chat, &read.rows, progress)?;
    let n_read = read.rows.len();
    let mut questions = read
        .rows
        .into_par_iter()
        .map(|row| Ok(Question { prompt: reward.prompt(style, chat, &row)?.into(), row }))
        .collect::<Result<Vec<_>>>()?;
    let limit = longest_prompt(config, model.context());
    questions.retain(|question| question.prompt.len() <= limit);
    let dropped = n_read - questions.len();
    if questions.is_empty() {
        return Err(Error::Failed(format!(
            "{}: all {n_read} prompts are longer than {limit} tokens; raise data.max_prompt_tokens or use a \
             model with a longer context",
            config.data.path.display()
        )));
    }
    if dropped > 0 {
        progress.note(&format!("dropped {dropped} of {n_read} questions: prompts above {limit} tokens"));
    }
    Ok(questions)
}

/// The longest prompt that a run takes, tokens: one that leaves room in a context of so many.
pub(crate) fn longest_prompt(config: &Config, context: usize) -> usize {
    let room = context - 1;
    if config.data.max_prompt_tokens == 0 { room } else { config.data.max_prompt_tokens.min(room) }
}
