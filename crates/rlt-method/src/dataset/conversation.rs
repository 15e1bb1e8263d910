//! One question and its answer out of a list of chat turns.
//!
//! Names and layouts are those of published data sets: Bespoke-Stratos, LLaMA-Factory, TRL (`prompt` and `completion`
//! as lists of turns), verl (`prompt` as a list of turns, `reward_model.ground_truth`), and thoughts in
//! `reasoning_content` beside `content`.

use serde_json::Value;

use super::Record;
use crate::error::Result;
use crate::style::PromptStyle;

/// A one-exchange conversation, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exchange {
    pub system: Option<String>,
    pub question: String,
    pub reasoning_trace: Option<String>,
    pub solution: String,
}

/// Reads column `conversations` (`from`/`value` turns, the Bespoke-Stratos layout) or `messages`
/// (`role`/`content` turns), or `prompt` and `completion` where both are lists of turns. `None` when the row has none.
pub(super) fn exchange(record: &Record) -> Result<Option<Exchange>> {
    let list = |name: &str| record.columns.get(name)?.as_array();
    let found = ["conversations", "messages"].into_iter().find_map(|name| Some((name, list(name)?.clone())));
    let both = || Some(("prompt", [list("prompt")?.as_slice(), list("completion")?].concat()));
    let Some((column, turns)) = found.or_else(both) else { return Ok(None) };
    let Turns { system, question, answer } = Turns::read(record, column, &turns)?;
    let (Some(question), Some(answer)) = (question, answer) else {
        return Err(record.error(format!("`{column}` needs a user and an assistant turn")));
    };
    let (reasoning_trace, solution) = match answer.reasoning {
        Some(thought) => (Some(thought), answer.content),
        None => sections(&answer.content).map_err(|missing| {
            record.error(format!("the assistant turn of `{column}` has some section tags but no `{missing}`"))
        })?,
    };
    Ok(Some(Exchange { system, question, reasoning_trace, solution }))
}

/// System prompt and question of a column that is a list of turns; `None` where it is not.
pub(super) fn prompt_turns(record: &Record, column: &str) -> Result<Option<(Option<String>, String)>> {
    let turns = record.columns.get(column).and_then(Value::as_array);
    let is_turns = |turns: &&Vec<Value>| !turns.is_empty() && turns.iter().all(Value::is_object);
    let Some(turns) = turns.filter(is_turns) else { return Ok(None) };
    let Turns { system, question, answer } = Turns::read(record, column, turns)?;
    match (question, answer) {
        (Some(question), None) => Ok(Some((system, question))),
        (None, _) => Err(record.error(format!("`{column}` has no user turn"))),
        (_, Some(_)) => {
            Err(record.error(format!("`{column}` has an assistant turn; a question alone is expected")))
        }
    }
}

/// What an assistant wrote.
struct Answer {
    content: String,
    /// A thought that stands beside the content.
    reasoning: Option<String>,
}

/// At most one turn of each role.
struct Turns {
    system: Option<String>,
    question: Option<String>,
    answer: Option<Answer>,
}

impl Turns {
    fn read(record: &Record, column: &str, turns: &[Value]) -> Result<Self> {
        let (mut system, mut question, mut answer) = (None, None, None);
        let mut reasoning = None;
        for turn in turns {
            let field = |names: &[&str]| names.iter().find_map(|name| turn.get(*name)?.as_str());
            let (Some(role), Some(content)) = (field(&["role", "from"]), field(&["content", "value"])) else {
                return Err(
                    record.error(format!("a turn of `{column}` lacks `role`/`from` or `content`/`value`"))
                );
            };
            let slot = match role {
                "system" => &mut system,
                "user" | "human" => &mut question,
                "assistant" | "gpt" => {
                    let thought = field(&["reasoning_content", "reasoning", "thinking"]);
                    reasoning = thought.filter(|thought| !thought.trim().is_empty()).map(str::to_owned);
                    &mut answer
                }
                other => {
                    return Err(record.error(format!("a turn of `{column}` has the unknown role `{other}`")));
                }
            };
            if slot.replace(content.to_owned()).is_some() {
                return Err(record.error(format!(
                    "`{column}` has two {role} turns; one question and its answer are expected"
                )));
            }
        }
        let answer = answer.map(|content| Answer { content, reasoning });
        Ok(Self { system, question, answer })
    }
}

/// Thought and solution by the tags of whichever built-in style occurs in `answer`; where they tag no solution it is
/// what follows the thought, and a thought whose opening stood in the prompt begins with the answer. An answer without
/// any tag is all solution. `Err` names the tag that is missing.
fn sections(answer: &str) -> std::result::Result<(Option<String>, String), String> {
    let mut first_missing = None;
    for style in PromptStyle::built_in() {
        let tags = [
            &style.begin_of_thought,
            &style.end_of_thought,
            &style.begin_of_solution,
            &style.end_of_solution,
        ];
        if !tags.iter().any(|tag| !tag.is_empty() && answer.contains(tag.as_str())) {
            continue;
        }
        if style.begin_of_solution.is_empty() {
            if let Some(parts) = thought_and_rest(answer, style) {
                return Ok(parts);
            }
        } else {
            match by_all_tags(answer, tags) {
                Ok(parts) => return Ok(parts),
                Err(missing) => {
                    first_missing.get_or_insert(missing);
                }
            }
        }
    }
    first_missing.map_or_else(|| Ok((None, answer.to_owned())), Err)
}

fn by_all_tags(answer: &str, tags: [&String; 4]) -> std::result::Result<(Option<String>, String), String> {
    let (mut rest, mut parts) = (answer, Vec::new());
    for tag in tags {
        let (before, after) = rest.split_once(tag.as_str()).ok_or_else(|| tag.clone())?;
        parts.push(before);
        rest = after;
    }
    Ok((Some(parts[1].to_owned()), parts[3].to_owned()))
}

/// A thought, then a solution without tags. Not where solution tags of another style show that there is more.
fn thought_and_rest(answer: &str, style: &PromptStyle) -> Option<(Option<String>, String)> {
    let tagged = PromptStyle::built_in().any(|other| {
        let tags = [&other.begin_of_solution, &other.end_of_solution];
        tags.iter().any(|tag| !tag.is_empty() && answer.contains(tag.as_str()))
    });
    let (before, solution) = answer.split_once(&style.end_of_thought)?;
    let thought = before.split_once(&style.begin_of_thought).map_or(before, |(_, thought)| thought);
    (!tagged).then(|| (Some(thought.to_owned()), solution.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::json;

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
    fn thoughts_stand_in_a_field_or_before_an_untagged_solution() {
        let read = |turn: Value| {
            let row = record(json!({"messages": [{"role": "user", "content": "q"}, turn]}));
            let parts = exchange(&row).unwrap().unwrap();
            (parts.reasoning_trace.unwrap_or_default(), parts.solution)
        };
        let turn = |content: &str| json!({"role": "assistant", "content": content});
        let parts = |thought: &str, solution: &str| (thought.to_owned(), solution.to_owned());
        assert_eq!(read(turn("<think>\nhm\n</think>\n\n4\n")), parts("\nhm\n", "4"));
        // The opening tag stood in the prompt.
        assert_eq!(read(turn("hm\n</think>\n\n4")), parts("hm\n", "4"));
        for name in ["reasoning_content", "reasoning", "thinking"] {
            let beside = json!({"role": "assistant", "content": "4", name: "hm"});
            assert_eq!(read(beside), parts("hm", "4"), "{name}");
        }
        let empty = json!({"role": "assistant", "content": "4", "reasoning_content": null, "reasoning": ""});
        assert_eq!(read(empty), parts("", "4"));
    }

    #[test]
    fn a_prompt_and_a_completion_may_be_turns() {
        let row = record(json!({
            "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}],
            "completion": [{"role": "assistant", "content": "<think>\nhm\n</think>\n4"}],
        }));
        let parts = exchange(&row).unwrap().unwrap();
        assert_eq!((parts.question.as_str(), parts.system.as_deref()), ("q", Some("S")));
        assert_eq!((parts.reasoning_trace.as_deref(), parts.solution.as_str()), (Some("\nhm\n"), "4"));
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
            (json!([turn("user", "q"), turn("gpt", "<think>never closed")]), "no `</think>`"),
            (json!([turn("user", "q"), turn("gpt", "<think>t</think><solution>4")]), "no `</solution>`"),
        ];
        for (turns, expected) in cases {
            let error = exchange(&record(json!({"conversations": turns}))).unwrap_err().to_string();
            assert!(error.starts_with("d.jsonl, row 4: ") && error.contains(expected), "{error}");
        }
    }
}
