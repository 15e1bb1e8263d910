//! Rows as they are trained on.

use std::ops::Range;

use rayon::prelude::*;
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;

use crate::config::{Config, SftFormat};
use crate::dataset::{read_texts, read_usable_questions};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle, SftExample, TypedCheck, text_example};

/// A row as it is trained on.
pub(crate) struct Row {
    /// Names the row in errors.
    pub name: String,
    pub example: SftExample,
}

/// The rows in the configured format, without those that do not fit; how many were dropped is noted. Without `chat` they
/// are plain text.
pub(crate) fn examples(
    config: &Config,
    model: &ModelConfig,
    tokenizer: &Tokenizer,
    chat: Option<&ChatText>,
    progress: &dyn Progress,
) -> Result<Vec<Row>> {
    let rows: Vec<Row> = match chat {
        None => read_texts(&config.data)?
            .par_iter()
            .enumerate()
            .map(|(index, text)| {
                Ok(Row { name: format!("text {}", index + 1), example: text_example(tokenizer, text)? })
            })
            .collect::<Result<_>>()?,
        Some(chat) => {
            let style = PromptStyle::resolve(&config.prompts)?;
            if let (SftFormat::Student, Some(warning)) = (config.sft.format, style.thought_in_thought(chat)) {
                progress.warn(&warning);
            }
            let read = read_usable_questions(&config.data)?;
            read.warning().iter().for_each(|warning| progress.warn(warning));
            TypedCheck::of_rows(chat, &read.rows, progress)?;
            read.rows
                .par_iter()
                .map(|row| {
                    let example = match config.sft.format {
                        SftFormat::Teacher => style.teacher_example(chat, row)?,
                        SftFormat::Student | SftFormat::Text => style.student_example(chat, row)?,
                    };
                    Ok(Row { name: format!("row {}", row.row), example })
                })
                .collect::<Result<_>>()?
        }
    };
    let unless_zero = |limit: usize, otherwise: usize| if limit == 0 { otherwise } else { limit };
    let context = model.context();
    let max_tokens = unless_zero(config.sft.max_tokens, context).min(context);
    let max_prompt = unless_zero(config.data.max_prompt_tokens, context);
    let n_read = rows.len();
    let fits = |SftExample { ids, loss }: &SftExample| {
        ids.len() <= max_tokens
            && n_loss_tokens(loss) > 0
            && loss.first().is_none_or(|first| first.start <= max_prompt)
    };
    let kept: Vec<Row> = rows.into_iter().filter(|row| fits(&row.example)).collect();
    let dropped = n_read - kept.len();
    let limits = format!("more than {max_tokens} tokens, or {max_prompt} in the prompt");
    if kept.is_empty() {
        return Err(Error::Failed(format!(
            "{}: none of the {n_read} rows can be learnt from ({limits}); raise sft.max_tokens or use a model \
             with a longer context",
            config.data.path.display()
        )));
    }
    if dropped > 0 {
        progress.note(&format!("dropped {dropped} of {n_read} rows: {limits}"));
    }
    Ok(kept)
}

pub(super) fn n_loss_tokens(loss: &[Range<usize>]) -> usize {
    loss.iter().map(ExactSizeIterator::len).sum()
}
