//! From completions to trace rows, and from trace rows to what students are distilled on.

pub mod in_memory;
pub mod reasons;
pub mod scoring;
pub mod select;

use rlt_model::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::dataset::{Finish, QuestionRow, TraceRow};
use crate::prompts::{ChatText, PromptStyle};
use crate::score::{forged, is_blank};

/// The ids of a completion's text: `ids` without the stop token that ended it.
pub fn text_ids(ids: &[u32], finish: Finish) -> &[u32] {
    match (finish, ids) {
        (Finish::Stop, [text @ .., _stop]) => text,
        _ => ids,
    }
}

/// The trace row of a sampled completion (`ids` with its stop token when `finish` is [`Finish::Stop`]).
pub fn sampled_trace(
    question: QuestionRow,
    style: &PromptStyle,
    tokenizer: &Tokenizer,
    ids: Vec<u32>,
    finish: Finish,
) -> TraceRow {
    let completion = tokenizer.decode(text_ids(&ids, finish));
    let explanation = style.split_explanation(&completion).0.to_owned();
    TraceRow { question, completion, completion_ids: Some(ids), explanation, finish }
}

/// A trace as a row to distil a student on: `question`, `solution`, `reasoning_trace` for `rlt sft` in
/// student format, and the same as `messages` for other tools. Columns of the original row that none of
/// these replaces are kept; the completion's own are not.
pub fn distillation_columns(trace: &TraceRow, style: &PromptStyle) -> Map<String, Value> {
    let row = &trace.question;
    let mut columns = row.to_columns();
    for name in ["completion", "completion_ids", "explanation", "finish", "conversations"] {
        columns.shift_remove(name);
    }
    let mut messages = Vec::with_capacity(3);
    let mut push = |role: &str, content: &str| messages.push(json!({"role": role, "content": content}));
    let system = style.student_system_for(row);
    if !system.is_empty() {
        push("system", system);
    }
    push("user", &row.question);
    push("assistant", &style.student_answer(&trace.explanation, &row.solution));
    columns.insert("reasoning_trace".into(), Value::from(trace.explanation.trim()));
    columns.insert("messages".into(), Value::from(messages));
    columns
}

/// [`distillation_columns`] in the layout of Bespoke-Stratos: `system` (empty for none) and
/// `conversations` of `from` and `value` in place of `messages`.
pub fn conversation_columns(trace: &TraceRow, style: &PromptStyle) -> Map<String, Value> {
    let mut columns = distillation_columns(trace, style);
    columns.shift_remove("messages");
    let row = &trace.question;
    let turn = |from: &str, value: &str| json!({"from": from, "value": value});
    let answer = style.student_answer(&trace.explanation, &row.solution);
    columns.insert("system".into(), Value::from(style.student_system_for(row)));
    columns.insert("conversations".into(), json!([turn("user", &row.question), turn("assistant", &answer)]));
    columns
}

/// Why a student cannot learn from a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// The completion reached the length limit before the explanation's end tag.
    Truncated,
    /// The completion ended by itself without the explanation's end tag.
    Unclosed,
    /// The explanation is closed, but nothing stands in it, or white space only.
    Empty,
    /// The explanation writes a tag of the format, or a special token, itself.
    Forged,
}

impl Flaw {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "cut at the length limit",
            Self::Unclosed => "ended without the end tag",
            Self::Empty => "closed but empty",
            Self::Forged => "with a tag of the format or a special token inside",
        }
    }
}

/// Why no student can learn from `trace`; `None` for an explanation that is closed with its end tag, not empty, and
/// plain text for the tokenizer of `chat`.
pub fn flaw(trace: &TraceRow, style: &PromptStyle, chat: &ChatText) -> Option<Flaw> {
    let closed = style.split_explanation(&trace.completion).1;
    match (closed, trace.finish) {
        (true, _) if is_blank(&trace.explanation) => Some(Flaw::Empty),
        (true, _) => forged(style, chat, &trace.explanation).map(|_| Flaw::Forged),
        (false, Finish::Length) => Some(Flaw::Truncated),
        (false, Finish::Stop) => Some(Flaw::Unclosed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::test_chat::test_chat;

    fn question() -> QuestionRow {
        let Value::Object(columns) = json!({"id": 3, "prompt": "q", "solution": "4", "finish": "old"}) else {
            unreachable!("an object")
        };
        QuestionRow {
            question: "q".into(),
            solution: "4".into(),
            reasoning_trace: None,
            system: None,
            columns,
            row: 1,
        }
    }

    #[test]
    fn a_sampled_trace_keeps_ids_and_loses_the_stop_token_in_text() {
        let (chat, style) = (test_chat(), PromptStyle::stratos());
        let mut ids = chat.tokenizer.encode("why\n\n<|end_of_explanation|>").unwrap();
        let cut = sampled_trace(question(), style, &chat.tokenizer, ids[..4].to_vec(), Finish::Length);
        assert_eq!((cut.completion.as_str(), cut.explanation.as_str()), ("why\n\n", "why\n\n"));
        ids.push(301);
        let trace = sampled_trace(question(), style, &chat.tokenizer, ids.clone(), Finish::Stop);
        assert_eq!(trace.completion, "why\n\n<|end_of_explanation|>");
        assert_eq!((trace.explanation.as_str(), trace.completion_ids), ("why\n\n", Some(ids)));
        assert_eq!(text_ids(&[], Finish::Stop), &[] as &[u32]);
    }

    #[test]
    fn a_distillation_row_says_the_same_twice() {
        let (chat, style) = (test_chat(), PromptStyle::stratos());
        let ids = chat.tokenizer.encode("why\n\n<|end_of_explanation|>").unwrap();
        let columns = distillation_columns(
            &sampled_trace(question(), style, &chat.tokenizer, ids, Finish::Length),
            style,
        );
        assert_eq!(columns["reasoning_trace"], "why");
        assert_eq!((&columns["question"], &columns["id"]), (&json!("q"), &json!(3)));
        assert!(!columns.contains_key("finish"));
        let messages = columns["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 3);
        let answer = messages[2]["content"].as_str().unwrap();
        assert_eq!(style.split_answer(answer), Some(("\n\nwhy\n\n", "4")));
    }
    #[test]
    fn a_conversation_row_reads_back_as_its_question() {
        let (chat, style) = (test_chat(), PromptStyle::stratos());
        let trace = |text: &str| {
            let ids = chat.tokenizer.encode(text).unwrap();
            sampled_trace(question(), style, &chat.tokenizer, ids, Finish::Length)
        };
        let whole = trace("why\n\n<|end_of_explanation|>");
        let columns = conversation_columns(&whole, style);
        assert_eq!(columns["system"], style.student_system);
        assert_eq!(columns["conversations"][0], json!({"from": "user", "value": "q"}));
        assert_eq!(
            columns["conversations"][1]["value"],
            distillation_columns(&whole, style)["messages"][2]["content"]
        );
        assert!(!columns.contains_key("messages"));
        assert_eq!(flaw(&whole, style, &chat), None);
        let cut = trace("why\n\n");
        assert_eq!(flaw(&cut, style, &chat), Some(Flaw::Truncated));
        assert_eq!(flaw(&TraceRow { finish: Finish::Stop, ..cut }, style, &chat), Some(Flaw::Unclosed));
        assert_eq!(flaw(&trace("\n\n<|end_of_explanation|>"), style, &chat), Some(Flaw::Empty));
        for inside in ["a<|end_of_thought|>", "<|begin_of_solution|>4", "a<|im_end|>"] {
            let forging = trace(&format!("{inside}<|end_of_explanation|>"));
            assert_eq!(flaw(&forging, style, &chat), Some(Flaw::Forged), "{inside}");
        }
    }
}
