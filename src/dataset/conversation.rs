//! One question and its answer out of a list of chat turns.

use super::Record;
use crate::error::Result;
use crate::prompts::PromptStyle;

/// A one-exchange conversation, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exchange {
    pub system: Option<String>,
    pub question: String,
    pub reasoning_trace: Option<String>,
    pub solution: String,
}

/// Reads column `conversations` (`from`/`value` turns, the Bespoke-Stratos layout) or `messages`
/// (`role`/`content` turns). `None` when the row has neither.
pub(super) fn exchange(record: &Record) -> Result<Option<Exchange>> {
    let Some((column, turns)) = ["conversations", "messages"]
        .into_iter()
        .find_map(|name| Some((name, record.columns.get(name)?.as_array()?)))
    else {
        return Ok(None);
    };
    let (mut system, mut question, mut answer) = (None, None, None);
    for turn in turns {
        let field = |names: [&str; 2]| names.iter().find_map(|name| turn.get(name)?.as_str());
        let (Some(role), Some(content)) = (field(["role", "from"]), field(["content", "value"])) else {
            return Err(
                record.error(format!("a turn of `{column}` lacks `role`/`from` or `content`/`value`"))
            );
        };
        let slot = match role {
            "system" => &mut system,
            "user" | "human" => &mut question,
            "assistant" | "gpt" => &mut answer,
            other => return Err(record.error(format!("a turn of `{column}` has the unknown role `{other}`"))),
        };
        if slot.replace(content.to_owned()).is_some() {
            return Err(record.error(format!(
                "`{column}` has two {role} turns; one question and its answer are expected"
            )));
        }
    }
    let (Some(question), Some(answer)) = (question, answer) else {
        return Err(record.error(format!("`{column}` needs a user and an assistant turn")));
    };
    let (reasoning_trace, solution) = sections(&answer).map_err(|missing| {
        record.error(format!("the assistant turn of `{column}` has some section tags but no `{missing}`"))
    })?;
    Ok(Some(Exchange { system, question, reasoning_trace, solution }))
}

/// Thought and solution by the tags of whichever built-in style occurs in `answer`; an answer without any
/// tag is all solution. `Err` names the tag that is missing.
fn sections(answer: &str) -> std::result::Result<(Option<String>, String), String> {
    for style in PromptStyle::built_in() {
        let tags = [
            &style.begin_of_thought,
            &style.end_of_thought,
            &style.begin_of_solution,
            &style.end_of_solution,
        ];
        if !tags.iter().any(|tag| answer.contains(tag.as_str())) {
            continue;
        }
        let (mut rest, mut parts) = (answer, Vec::new());
        for tag in tags {
            let (before, after) = rest.split_once(tag.as_str()).ok_or_else(|| tag.clone())?;
            parts.push(before);
            rest = after;
        }
        return Ok((Some(parts[1].to_owned()), parts[3].to_owned()));
    }
    Ok((None, answer.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn record(columns: Value) -> Record {
        let Value::Object(columns) = columns else { panic!("an object") };
        Record { path: Arc::from(Path::new("d.jsonl")), row: 4, columns }
    }

    const STRATOS: &str = "<|begin_of_thought|>\n\nthink\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n4\n\n<|end_of_solution|>";

    #[test]
    fn stratos_conversations_are_taken_apart_by_their_tags() {
        let row = record(
            json!({"conversations": [{"from": "user", "value": "2+2?"}, {"from": "assistant", "value": STRATOS}]}),
        );
        let exchange = exchange(&row).unwrap().unwrap();
        assert_eq!(exchange.question, "2+2?");
        assert_eq!(exchange.reasoning_trace.as_deref(), Some("\n\nthink\n\n"));
        assert_eq!(exchange.solution, "\n\n4\n\n");
        assert_eq!(exchange.system, None);
    }

    #[test]
    fn r1_messages_and_plain_messages() {
        let r1 = "<think>\nhm\n</think>\n\n<solution>4</solution>";
        let row = record(
            json!({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": r1}]}),
        );
        let parts = exchange(&row).unwrap().unwrap();
        assert_eq!((parts.system.as_deref(), parts.reasoning_trace.as_deref()), (Some("S"), Some("\nhm\n")));
        assert_eq!(parts.solution, "4");
        let plain = record(
            json!({"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}),
        );
        let parts = exchange(&plain).unwrap().unwrap();
        assert_eq!((parts.reasoning_trace, parts.solution.as_str()), (None, "4"));
        assert_eq!(exchange(&record(json!({"question": "x"}))).unwrap(), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let turn = |role: &str, text: &str| json!({"from": role, "value": text});
        let cases = [
            (json!([turn("user", "q")]), "needs a user and an assistant turn"),
            (json!([turn("user", "q"), turn("user", "r")]), "has two user turns"),
            (json!([turn("tool", "q")]), "unknown role `tool`"),
            (json!([{"from": "user"}]), "lacks `role`/`from`"),
            (
                json!([turn("user", "q"), turn("gpt", "<|begin_of_thought|> never closed")]),
                "no `<|end_of_thought|>`",
            ),
        ];
        for (turns, expected) in cases {
            let error = exchange(&record(json!({"conversations": turns}))).unwrap_err().to_string();
            assert!(error.starts_with("d.jsonl, row 4: ") && error.contains(expected), "{error}");
        }
    }
}
