//! Both sequences of one row, taken apart: what `rlt inspect` shows.

use std::ops::Range;

use rlt_model::ids::TokenIds;
use serde_json::{Value, json};

use crate::dataset::{QuestionRow, TraceRow};
use crate::error::{Error, Result};
use crate::prompts::{ChatText, PromptStyle, StudentSequence, Think};
use crate::traces::text_ids;

/// A token sequence and its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// `teacher` or `student`.
    pub name: &'static str,
    /// The whole sequence.
    pub ids: Vec<u32>,
    /// The parts, in order: together they are the sequence. None is empty.
    pub spans: Vec<Span>,
    /// Tokens on the borders of the think text, which count as neither side.
    pub n_boundary: usize,
}

/// A named run of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What the tokens are: `prompt`, `think`, `tags`, `solution` or `end`.
    pub name: &'static str,
    /// Positions in [`Inspection::ids`].
    pub tokens: Range<usize>,
}

impl Inspection {
    fn new(name: &'static str, ids: Vec<u32>, parts: &[(&'static str, usize)], n_boundary: usize) -> Self {
        let mut start = 0;
        let mut spans = Vec::new();
        for &(name, end) in parts {
            if end > start {
                spans.push(Span { name, tokens: start..end });
                start = end;
            }
        }
        Self { name, ids, spans, n_boundary }
    }

    /// Spans with their ids and text, as the command's JSON answer has them.
    pub fn to_json(&self, chat: &ChatText) -> Value {
        let spans = self.spans.iter().map(|span| {
            let ids = &self.ids[span.tokens.clone()];
            json!({
                "name": span.name, "start": span.tokens.start, "end": span.tokens.end,
                "text": chat.tokenizer.decode(ids), "ids": ids,
            })
        });
        json!({"sequence": self.name, "tokens": self.ids.len(), "n_boundary": self.n_boundary,
               "spans": spans.collect::<Vec<_>>()})
    }
}

/// The teacher's and the student's sequence of a trace, as `rlt score` makes them.
///
/// # Errors
/// [`Error::Failed`] when the row's `completion_ids` do not spell its completion; what tokenizer and chat
/// template report.
pub fn inspect_trace(
    style: &PromptStyle,
    teacher: &ChatText,
    student: &ChatText,
    trace: &TraceRow,
) -> Result<[Inspection; 2]> {
    let (row, end_tag) = (&trace.question, &style.end_of_explanation);
    let tokenizer = &teacher.tokenizer;
    let (prefix, think, ids) = if let Some(sampled) = &trace.completion_ids {
        let ids = [sampled.as_slice(), text_ids(sampled, trace.finish)]
            .into_iter()
            .find(|ids| tokenizer.decode(ids) == trace.completion)
            .ok_or_else(|| {
                Error::Failed(format!(
                    "row {}: `completion_ids` do not spell `completion` with this tokenizer; drop that column",
                    row.row
                ))
            })?;
        let prefix = style.teacher_prompt(teacher, row)?;
        let whole = [prefix.as_slice(), sampled].concat();
        (prefix, Think::from_sampled(tokenizer, end_tag, ids), whole)
    } else {
        let prompt = style.teacher_prompt_text(teacher, row)?;
        let (prefix, think) = Think::from_text(teacher, end_tag, &prompt, &trace.completion)?;
        // As `Think::from_text` reads it: an unclosed thought is closed.
        let end = if think.closed { "" } else { end_tag };
        let (thought, rest) =
            trace.completion.split_at(trace.completion.find(end_tag).unwrap_or(trace.completion.len()));
        let whole = teacher.encode(&format!("{prompt}{}{rest}{end}", teacher.row_text(thought)))?;
        (prefix, think, whole)
    };
    let think_end = prefix.len() + think.ids.len();
    let parts = [("prompt", prefix.len()), ("think", think_end), ("end", ids.len())];
    let of_student = student_inspection(&style.student_sequence(student, row, &think)?);
    Ok([Inspection::new("teacher", ids, &parts, think.n_boundary), of_student])
}

/// The same of a question without a trace: what the teacher is asked, and the student's sequence with an
/// empty thought.
///
/// # Errors
/// What tokenizer and chat template report.
pub fn inspect_question(
    style: &PromptStyle,
    teacher: &ChatText,
    student: &ChatText,
    row: &QuestionRow,
) -> Result<[Inspection; 2]> {
    let ids = style.teacher_prompt(teacher, row)?;
    let parts = [("prompt", ids.len())];
    let think = Think {
        lead: String::new(),
        ids: TokenIds::default(),
        tail: String::new(),
        n_boundary: 0,
        closed: false,
    };
    let of_student = student_inspection(&style.student_sequence(student, row, &think)?);
    Ok([Inspection::new("teacher", ids, &parts, 0), of_student])
}

fn student_inspection(sequence: &StudentSequence) -> Inspection {
    let ids = [&sequence.prefix[..], &sequence.thought, &sequence.suffix].concat();
    let at = |position: usize| sequence.prefix.len() + position;
    let parts = [
        ("prompt", at(0)),
        ("think", at(sequence.thought.len())),
        ("tags", at(sequence.solution.start)),
        ("solution", at(sequence.solution.end)),
        ("end", ids.len()),
    ];
    Inspection::new("student", ids, &parts, sequence.n_boundary)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::dataset::Finish;
    use crate::prompts::test_chat::test_chat;

    fn row() -> QuestionRow {
        QuestionRow {
            question: "q".into(),
            solution: "4".into(),
            reasoning_trace: None,
            system: None,
            columns: Map::new(),
            row: 1,
        }
    }

    fn texts(chat: &ChatText, inspection: &Inspection) -> Vec<(&'static str, String)> {
        let decode = |span: &Span| chat.tokenizer.decode(&inspection.ids[span.tokens.clone()]);
        inspection.spans.iter().map(|span| (span.name, decode(span))).collect()
    }

    #[test]
    fn spans_partition_both_sequences() {
        let (chat, style) = (test_chat(), PromptStyle::stratos());
        let completion = style.close_explanation("why");
        let trace = TraceRow {
            question: row(),
            explanation: style.split_explanation(&completion).0.to_owned(),
            completion,
            completion_ids: None,
            finish: Finish::Stop,
        };
        let [teacher, student] = inspect_trace(style, &chat, &chat, &trace).unwrap();
        for inspection in [&teacher, &student] {
            assert_eq!(inspection.spans[0].tokens.start, 0);
            assert!(inspection.spans.windows(2).all(|pair| pair[0].tokens.end == pair[1].tokens.start));
            assert_eq!(inspection.spans.last().unwrap().tokens.end, inspection.ids.len());
        }
        let teacher = texts(&chat, &teacher);
        assert_eq!(teacher[0].1, style.teacher_prompt_text(&chat, &row()).unwrap());
        assert!(teacher[1].0 == "think" && teacher[1].1.starts_with("why"));
        let student = texts(&chat, &student);
        assert_eq!(student[1], ("think", teacher[1].1.clone()));
        assert_eq!(student[3], ("solution", "4".into()));

        let sampled = chat.tokenizer.encode(&trace.completion).unwrap();
        let with_ids = TraceRow { completion_ids: Some(sampled.clone()), ..trace.clone() };
        let [teacher, _] = inspect_trace(style, &chat, &chat, &with_ids).unwrap();
        assert!(teacher.ids.ends_with(&sampled));
        let wrong = TraceRow { completion_ids: Some(vec![5]), ..trace };
        assert!(inspect_trace(style, &chat, &chat, &wrong).unwrap_err().to_string().contains("do not spell"));
    }

    #[test]
    fn a_question_alone_has_an_empty_thought() {
        let (chat, style) = (test_chat(), PromptStyle::stratos());
        let [teacher, student] = inspect_question(style, &chat, &chat, &row()).unwrap();
        assert_eq!(teacher.spans.len(), 1);
        assert_eq!(
            student.spans.iter().map(|s| s.name).collect::<Vec<_>>(),
            ["prompt", "tags", "solution", "end"]
        );
    }
}
