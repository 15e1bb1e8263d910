//! A model's text side: its tokenizer and its chat template.

use std::path::Path;

use rlt_model::chat_template::{ChatTemplate, Message, TemplateTime};
use rlt_model::tokenizer::Tokenizer;

use crate::config::TypedTokens;
use crate::error::{Error, Result};

/// Stands for the assistant's content where only the text around it is wanted. Plain letters, so that no
/// template trims or escapes it.
const CONTENT: &str = "rltAssistantContent";

/// The same for the user's.
const QUESTION: &str = "rltUserContent";

/// Tokenizer and chat template of one model.
#[derive(Debug)]
pub struct ChatText {
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Turns to text.
    pub template: ChatTemplate,
    turn_end: String,
    /// What the template writes where the assistant's turn begins.
    opening: String,
    /// Special tokens, and added ones that the template writes.
    pub(super) special: Vec<String>,
    /// What special tokens in the text of rows are.
    pub(super) typed: TypedTokens,
}

/// What opens a thought in templates that open it themselves.
const THOUGHT_TAGS: [&str; 5] = ["<think>", "<thinking>", "<thought>", "<reasoning>", "<|begin_of_thought|>"];

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

    /// Sets the date and time that the template tells.
    #[must_use]
    pub fn at(mut self, time: TemplateTime) -> Self {
        self.template = self.template.at(time);
        self
    }

    /// Puts the two together and learns from the template what ends an assistant turn.
    ///
    /// # Errors
    /// [`Error::Usage`] when the template does not render the assistant's content.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate) -> Result<Self> {
        let turns = [message("user", QUESTION), message("assistant", CONTENT)];
        let text = template.render(&turns, false)?;
        let (_, turn_end) = text.rsplit_once(CONTENT).ok_or_else(|| {
            Error::Usage(
                "the chat template does not render the assistant's content; use one that does".into(),
            )
        })?;
        let prompt = template.render(&turns[..1], true).unwrap_or_default();
        // A template may have no such prompt; then nothing is opened.
        let without = template.render(&turns[..1], false).unwrap_or_default();
        let opening = match prompt.strip_prefix(&without) {
            Some(opening) if !without.is_empty() => opening,
            _ => prompt.rsplit_once(QUESTION).map_or("", |(_, after)| after),
        };
        let special = tokenizer.special_texts(|token| template.source().contains(token));
        Ok(Self {
            turn_end: turn_end.to_owned(),
            opening: opening.to_owned(),
            special,
            typed: TypedTokens::Allow,
            tokenizer,
            template,
        })
    }

    /// Sets what special tokens in the text of rows are.
    #[must_use]
    pub fn reading(mut self, typed: TypedTokens) -> Self {
        self.typed = typed;
        self
    }

    /// What special tokens in the text of rows are.
    pub fn typed(&self) -> TypedTokens {
        self.typed
    }

    /// What the template has written of a thought that `tag` opens, at the end of every prompt: the tag and white
    /// space after it; nothing in most templates.
    pub fn opened_by_template(&self, tag: &str) -> &str {
        let written = self.opening.trim_end();
        if written.ends_with(tag) { &self.opening[written.len() - tag.len()..] } else { "" }
    }

    /// The tag of another thought than `tag`'s that the template opens, so that `tag` would come to stand inside it.
    pub fn opens_another_thought(&self, tag: &str) -> Option<&'static str> {
        THOUGHT_TAGS.into_iter().find(|&known| known != tag && !self.opened_by_template(known).is_empty())
    }

    /// A prompt without the thought that the template opens at its end, by `tag` or any other that is known.
    pub fn without_opened_thought<'p>(&self, prompt: &'p str, tag: &str) -> &'p str {
        let opened = [tag].into_iter().chain(THOUGHT_TAGS).map(|tag| self.opened_by_template(tag));
        opened
            .filter(|opened| !opened.is_empty())
            .find_map(|opened| prompt.strip_suffix(opened))
            .unwrap_or(prompt)
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
