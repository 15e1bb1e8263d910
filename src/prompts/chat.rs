//! A model's text side: its tokenizer and its chat template.

use std::path::Path;

use rlt_model::chat_template::{ChatTemplate, Message, TemplateTime};
use rlt_model::tokenizer::Tokenizer;

use crate::error::{Error, Result};

/// Stands for the assistant's content where only the text around it is wanted. Plain letters, so that no
/// template trims or escapes it.
const CONTENT: &str = "rltAssistantContent";

/// Tokenizer and chat template of one model.
#[derive(Debug)]
pub struct ChatText {
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Turns to text.
    pub template: ChatTemplate,
    turn_end: String,
}

impl ChatText {
    /// Reads both from a model folder in the Hugging Face layout. A template that asks for the date is told the same one
    /// as every other template that this process reads.
    ///
    /// # Errors
    /// What the tokenizer and the template report, and as [`Self::new`].
    pub fn from_dir(dir: &Path) -> Result<Self> {
        Self::from_dir_at(dir, TemplateTime::of_this_process())
    }

    /// As [`Self::from_dir`], with the date and time that work began with which now goes on.
    ///
    /// # Errors
    /// As [`Self::from_dir`].
    pub fn from_dir_at(dir: &Path, time: TemplateTime) -> Result<Self> {
        Self::new(Tokenizer::from_dir(dir)?, ChatTemplate::from_dir(dir)?.at(time))
    }

    /// Puts the two together and learns from the template what ends an assistant turn.
    ///
    /// # Errors
    /// [`Error::Usage`] when the template does not render the assistant's content.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate) -> Result<Self> {
        let turns = [message("user", "rltUserContent"), message("assistant", CONTENT)];
        let text = template.render(&turns, false)?;
        let (_, turn_end) = text.rsplit_once(CONTENT).ok_or_else(|| {
            Error::Usage(
                "the chat template does not render the assistant's content; use one that does".into(),
            )
        })?;
        Ok(Self { turn_end: turn_end.to_owned(), tokenizer, template })
    }

    /// What the template puts after an assistant's content (`<|im_end|>` and a newline in ChatML).
    pub fn turn_end(&self) -> &str {
        &self.turn_end
    }

    /// The text of a system turn (none when `system` is empty) and a user turn, up to where the assistant
    /// begins to write.
    ///
    /// # Errors
    /// What the template reports.
    pub fn prompt(&self, system: &str, user: &str) -> Result<String> {
        let mut turns = Vec::with_capacity(2);
        if !system.is_empty() {
            turns.push(message("system", system));
        }
        turns.push(message("user", user));
        Ok(self.template.render(&turns, true)?)
    }

    /// Refuses a teacher and a student whose token ids mean different texts.
    ///
    /// # Errors
    /// [`Error::Usage`] when the vocabularies differ.
    pub fn check_same_vocabulary(teacher: &Self, student: &Self) -> Result<()> {
        if teacher.tokenizer.vocabulary_hash() == student.tokenizer.vocabulary_hash() {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "teacher and student must share one tokenizer, but their vocabularies differ ({} and {} tokens); \
             choose models of one family",
            teacher.tokenizer.vocab_size(),
            student.tokenizer.vocab_size()
        )))
    }
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}
