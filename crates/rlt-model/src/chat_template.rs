//! Chat templates: the Jinja text of a model folder that turns messages into the model's prompt.
//!
//! Rendered as by transformers' `apply_chat_template(tokenize=False)`: same block trimming, same
//! extra functions and filters, Python's string methods, Python's spelling of values. Not there, and
//! refused with an error: `'%s' % x`, `varargs` in macros, `cycler`, the test `callable` and the
//! filters `wordcount`, `truncate`, `urlencode` and `xmlattr`. A template comes from anywhere: what it may cost is
//! bounded (`bounds.rs`).

mod bounds;
mod environment;
mod json;
mod messages;
mod methods;
mod python;
mod source;
mod time;

use std::path::Path;
use std::sync::Arc;

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::files::{parse_json, read_text_if_present};
use crate::tokenizer::SpecialTokens;
use crate::{Error, Result};

pub use time::TemplateTime;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or whatever else the template knows.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

/// A parsed template with the special tokens it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    /// `bos_token`, `eos_token` and the like, as strings.
    special_tokens: Map<String, Json>,
    tells_time: bool,
    source: String,
}

/// The name under which messages about a template speak of it.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Reads `chat_template.jinja`, else `chat_template` in `tokenizer_config.json` (a text, or a
    /// list of named ones of which `default` is taken), and the special tokens that the folder's files name.
    ///
    /// # Errors
    /// The folder has no template, or it is not one that can be parsed.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let config_path = dir.join("tokenizer_config.json");
        let config = match read_text_if_present(&config_path)? {
            Some(text) => parse_json(&text, &config_path)?,
            None => Json::Null,
        };
        let missing = |what: &str| Error::ModelFile { path: config_path.clone(), what: what.into() };
        let jinja_path = dir.join("chat_template.jinja");
        let (path, source) = match read_text_if_present(&jinja_path)? {
            Some(source) => (jinja_path, source),
            None => (
                config_path.clone(),
                match &config["chat_template"] {
                    Json::String(source) => source.clone(),
                    Json::Array(named) => named
                        .iter()
                        .find(|template| template["name"] == "default")
                        .and_then(|template| template["template"].as_str())
                        .ok_or_else(|| missing("chat_template is a list without one named \"default\""))?
                        .to_owned(),
                    _ => {
                        return Err(missing(
                            "has no chat_template, and the folder has no chat_template.jinja: add one (base models \
                         often come without)",
                        ));
                    }
                },
            ),
        };
        let special_tokens = SpecialTokens::from_dir(dir)?.variables();
        Self::from_source(&source, special_tokens).map_err(|e| Error::ModelFile { path, what: e.to_string() })
    }

    /// A template from its text; `special_tokens` are the variables `bos_token`, `eos_token`, ..
    ///
    /// # Errors
    /// The text is not a template, or breaks one of the bounds; the message names the line.
    pub fn from_source(source: &str, special_tokens: Map<String, Json>) -> Result<Self> {
        let tells_time = source.contains("strftime_now");
        let prepared = source::prepare(source).map_err(Error::Template)?;
        let environment = bounds::on_known_stack(move || -> Result<_> {
            let mut environment = environment::hugging_face(TemplateTime::now().datetime());
            environment.add_template_owned(NAME, prepared).map_err(template_error)?;
            Ok(environment)
        })
        .map_err(Error::Template)??;
        Ok(Self { environment: Arc::new(environment), special_tokens, tells_time, source: source.to_owned() })
    }

    /// Sets what the template's `strftime_now` tells; without this it is the local time at which the template was
    /// read.
    #[must_use]
    pub fn at(mut self, time: TemplateTime) -> Self {
        environment::set_time(Arc::make_mut(&mut self.environment), time.datetime());
        self
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template asks for the date or the time, so that its prompts depend on it.
    pub fn tells_time(&self) -> bool {
        self.tells_time
    }

    /// The prompt text of a conversation; with `add_generation_prompt` it ends where the
    /// assistant's next turn begins.
    ///
    /// # Errors
    /// The template raised an exception (roles that do not alternate, a system message it does not
    /// know, ..), uses something that is not there, or breaks one of the bounds.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_values(Value::from(Serde(messages)), add_generation_prompt, &Map::new())
    }

    /// As [`ChatTemplate::render`], for messages with further fields (`tool_calls`,
    /// `reasoning_content`, ..) as a JSON list, and with further `variables` for the template
    /// (`tools`, `enable_thinking`, ..), which come before special tokens. As in transformers, fields of a message
    /// that are null are not there, and `reasoning` and `thinking` are `reasoning_content`.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_json(
        &self,
        messages: &Json,
        add_generation_prompt: bool,
        variables: &Map<String, Json>,
    ) -> Result<String> {
        let messages = Value::from(Serde(messages::normalized(messages)));
        self.render_values(messages, add_generation_prompt, variables)
    }

    fn render_values(
        &self,
        messages: Value,
        add_generation_prompt: bool,
        variables: &Map<String, Json>,
    ) -> Result<String> {
        if messages.len() == Some(0) {
            return Err(Error::Template("the conversation has no messages".into()));
        }
        let fixed = [
            ("messages".to_owned(), messages),
            ("tools".to_owned(), Value::from(())),
            ("documents".to_owned(), Value::from(())),
            ("add_generation_prompt".to_owned(), Value::from(add_generation_prompt)),
        ];
        let given = self.special_tokens.iter().chain(variables);
        let context = Value::from_pairs(
            fixed.into_iter().chain(given.map(|(k, v)| (k.clone(), Value::from(Serde(v))))),
        );
        let environment = self.environment.clone();
        bounds::on_kept_stack(move || {
            environment.get_template(NAME).and_then(|template| template.render(context))
        })
        .map_err(Error::Template)?
        .map_err(template_error)
    }
}

/// What went wrong and on which line.
#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn template_error(error: minijinja::Error) -> Error {
    let what = match error.kind() {
        ErrorKind::OutOfFuel => bounds::OUT_OF_FUEL.to_owned(),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    Error::Template(match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    })
}

#[cfg(test)]
mod tests;
