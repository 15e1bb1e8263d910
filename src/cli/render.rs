//! `rlt render`: messages through a model's chat template, to text and token ids.

use std::path::PathBuf;

use clap::Args;
use rlt::Result;
use rlt::dataset::{JsonlWriter, Record, read_records};
use rlt::progress::Progress;
use rlt_files::Inputs;
use rlt_model::chat_template::ChatTemplate;
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use super::common::{Context, check_output, model_folder};

/// Render messages with a model's chat template, to text and token ids
///
/// A row's columns `tools` and `documents` go to the template, as do the variables in `chat_template_kwargs`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// Model folder; only its tokenizer and chat template are read
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Rows with `messages` (or `prompt`): a list of {"role", "content"}
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the rows {"text", "ids"} go (.jsonl), one for each row of the data
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// End with what opens the assistant's next turn
    #[arg(long)]
    add_generation_prompt: bool,
}

impl RenderArgs {
    /// Renders every row in order.
    pub fn run(&self, context: &Context) -> Result<()> {
        let model = model_folder(&self.model)?;
        check_output(&Inputs::new().with("--model", model).with("--data", &self.data), &self.out)?;
        let tokenizer = Tokenizer::from_dir(model)?;
        let template = ChatTemplate::from_dir(model)?;
        let records = read_records(&self.data, 0)?;
        let mut out = JsonlWriter::create(&self.out)?;
        let mut tokens = 0;
        context.progress.start("render", records.len() as u64, "rows");
        for record in &records {
            let of_row = |e: rlt_model::Error| record.error(e.to_string());
            let text = template
                .render_json(messages(record)?, self.add_generation_prompt, &variables(record)?)
                .map_err(of_row)?;
            let ids = tokenizer.encode(&text).map_err(of_row)?;
            tokens += ids.len();
            out.write(&json!({ "text": text, "ids": ids }))?;
            context.progress.advance(1, "");
        }
        out.finish()?;
        context.progress.finish("");
        let rows = records.len();
        context.answer(
            &format!("rendered {rows} rows ({tokens} tokens) to {}", self.out.display()),
            &json!({ "rows": rows, "tokens": tokens, "out": self.out }),
        )
    }
}

/// The row's messages as they are, so that a template sees every field (`tool_calls`, ..). What most
/// templates would silently render as nothing is refused.
fn messages(record: &Record) -> Result<&Value> {
    let found = ["messages", "prompt"].into_iter().find_map(|name| Some((name, record.columns.get(name)?)));
    let Some((column, messages)) = found else {
        return Err(record.error(format!("no column `messages`; the row has {}", record.column_names())));
    };
    let Some(turns) = messages.as_array() else {
        return Err(record.error(format!("column `{column}` is not a list of {{\"role\", \"content\"}}")));
    };
    for (i, turn) in turns.iter().enumerate() {
        let has_text = |key: &str| turn.get(key).is_some_and(Value::is_string);
        let missing = if !has_text("role") {
            "role"
        } else if !has_text("content") && turn.get("tool_calls").is_none_or(Value::is_null) {
            "content"
        } else {
            continue;
        };
        return Err(record.error(format!("message {} has no text under `{missing}`", i + 1)));
    }
    Ok(messages)
}

/// What the row gives the template beside messages. Data sets without a type for a list or an object hold it as
/// JSON text.
fn variables(record: &Record) -> Result<Map<String, Value>> {
    let column = |name: &str| -> Result<Option<Value>> {
        match record.columns.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text)
                .map(Some)
                .map_err(|e| record.error(format!("column `{name}` is a text that is not JSON: {e}"))),
            Some(value) => Ok(Some(value.clone())),
        }
    };
    let mut variables = match column("chat_template_kwargs")? {
        None => Map::new(),
        Some(Value::Object(variables)) => variables,
        Some(_) => return Err(record.error("column `chat_template_kwargs` is not an object")),
    };
    for name in ["messages", "add_generation_prompt"] {
        if variables.contains_key(name) {
            return Err(record.error(format!("column `chat_template_kwargs` cannot hold `{name}`")));
        }
    }
    for name in ["tools", "documents"] {
        match column(name)? {
            None => {}
            Some(list) if list.as_array().is_some_and(|items| items.iter().all(Value::is_object)) => {
                variables.insert(name.to_owned(), list);
            }
            Some(_) => return Err(record.error(format!("column `{name}` is not a list of objects"))),
        }
    }
    Ok(variables)
}
