//! Questions with their solutions.

use serde_json::{Map, Value};

use super::conversation::exchange;
use super::{Record, read_records};
use crate::config::DataConfig;
use crate::error::Result;

/// Columns that may hold the question when the configuration names none.
const QUESTION_COLUMNS: [&str; 3] = ["question", "prompt", "problem"];

/// A question, its solution, and what else its row said.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionRow {
    /// The question, as written.
    pub question: String,
    /// The solution, as written, padding included. Never empty; it may be white space only.
    pub solution: String,
    /// An existing thought or explanation, padding included.
    pub reasoning_trace: Option<String>,
    /// A system prompt that replaces the student's (`data.system`).
    pub system: Option<String>,
    /// The whole row as it was read.
    pub columns: Map<String, Value>,
    /// Where the row is in its file, from 1.
    pub row: usize,
}

impl QuestionRow {
    /// The original columns, with `question` and `solution` added where the row had them under other
    /// names or inside a conversation.
    pub fn to_columns(&self) -> Map<String, Value> {
        let mut columns = self.columns.clone();
        for (name, text) in [("question", &self.question), ("solution", &self.solution)] {
            if columns.get(name).and_then(Value::as_str) != Some(text) {
                columns.insert(name.to_owned(), Value::from(text.as_str()));
            }
        }
        columns
    }
}

/// Reads the question rows that `data` names, the first `data.max_rows` of them.
///
/// # Errors
/// As [`read_records`], and [`crate::Error::Row`] for a missing column and an empty question or solution.
pub fn read_questions(data: &DataConfig) -> Result<Vec<QuestionRow>> {
    read_records(&data.path, data.max_rows)?.into_iter().map(|record| question_row(record, data)).collect()
}

/// Reads rows of plain text: column `text`, the first `data.max_rows` of them.
///
/// # Errors
/// As [`read_records`], and [`crate::Error::Row`] when `text` is absent or empty.
pub fn read_texts(data: &DataConfig) -> Result<Vec<String>> {
    read_records(&data.path, data.max_rows)?
        .iter()
        .map(|record| match record.text("text")? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(record.error("the text is empty")),
            None => Err(record.error(format!("no column `text`; the row has {}", record.column_names()))),
        })
        .collect()
}

pub(super) fn question_row(record: Record, data: &DataConfig) -> Result<QuestionRow> {
    let (question, solution, trace, mut system) = match plain(&record, data)? {
        Some((question, solution)) => (question, solution, record.text(&data.reasoning_trace)?, None),
        None => match exchange(&record)? {
            Some(parts) => (parts.question, parts.solution, parts.reasoning_trace, parts.system),
            None => return Err(missing_column(&record, data)),
        },
    };
    if question.trim().is_empty() {
        return Err(record.error("the question is empty"));
    }
    if solution.is_empty() {
        return Err(record.error("the solution is empty"));
    }
    if data.system.is_empty() {
        system = None;
    } else if let Some(text) = record.text(&data.system)? {
        system = Some(text);
    } else if system.is_none() {
        return Err(record.error(format!(
            "no column `{}` (data.system); the row has {}",
            data.system,
            record.column_names()
        )));
    }
    Ok(QuestionRow {
        question,
        solution,
        reasoning_trace: trace.filter(|trace| !trace.trim().is_empty()),
        system,
        row: record.row,
        columns: record.columns,
    })
}

/// Question and solution from their own columns; `None` when either is absent.
fn plain(record: &Record, data: &DataConfig) -> Result<Option<(String, String)>> {
    let Some(column) = question_column(record, data) else { return Ok(None) };
    // A chat under `prompt` or a list of solutions is an error only if nothing else can be read.
    match (record.text(column), record.text(&data.solution)) {
        (Ok(Some(question)), Ok(Some(solution))) => Ok(Some((question, solution))),
        (Err(_), _) | (_, Err(_)) if has_turns(record) => Ok(None),
        (Err(error), _) | (_, Err(error)) => Err(error),
        _ => Ok(None),
    }
}

fn has_turns(record: &Record) -> bool {
    ["conversations", "messages"].iter().any(|name| record.columns.get(*name).is_some_and(Value::is_array))
}

fn question_column<'a>(record: &Record, data: &'a DataConfig) -> Option<&'a str> {
    if !data.question.is_empty() {
        return record.columns.contains_key(&data.question).then_some(&data.question);
    }
    QUESTION_COLUMNS.into_iter().find(|name| record.columns.contains_key(*name))
}

fn missing_column(record: &Record, data: &DataConfig) -> crate::Error {
    let (name, key) = match question_column(record, data) {
        Some(_) => (data.solution.as_str(), "data.solution"),
        None if data.question.is_empty() => ("question", "data.question"),
        None => (data.question.as_str(), "data.question"),
    };
    record.error(format!("no column `{name}` ({key} names it); the row has {}", record.column_names()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(content: &str, change: impl FnOnce(&mut DataConfig)) -> Result<Vec<QuestionRow>> {
        let dir = tempfile::tempdir().unwrap();
        let mut data = DataConfig { path: dir.path().join("rows.jsonl"), ..DataConfig::default() };
        fs::write(&data.path, content).unwrap();
        change(&mut data);
        read_questions(&data)
    }

    fn message(content: &str, change: impl FnOnce(&mut DataConfig)) -> String {
        read(content, change).unwrap_err().to_string().split_once("rows.jsonl").unwrap().1.to_owned()
    }

    #[test]
    fn plain_rows_keep_everything() {
        let rows =
            read(r#"{"id": 7, "question": "q", "solution": "\n\n4\n", "reasoning_trace": "t"}"#, |_| ())
                .unwrap();
        assert_eq!(rows[0].solution, "\n\n4\n");
        assert_eq!(rows[0].reasoning_trace.as_deref(), Some("t"));
        assert_eq!((rows[0].row, rows[0].system.as_ref()), (1, None));
        assert_eq!(rows[0].to_columns(), rows[0].columns);
        assert_eq!(rows[0].columns["id"], 7);
    }

    #[test]
    fn columns_are_found_and_mapped() {
        let content = "{\"prompt\": \"p\", \"answer\": 27.5, \"sys\": \"S\"}\n{\"problem\": \"b\", \"answer\": \"x\", \"sys\": \"S\"}\n";
        let rows = read(content, |data| {
            data.solution = "answer".into();
            data.system = "sys".into();
        })
        .unwrap();
        assert_eq!((rows[0].question.as_str(), rows[0].solution.as_str()), ("p", "27.5"));
        assert_eq!((rows[1].question.as_str(), rows[1].system.as_deref()), ("b", Some("S")));
        let columns = rows[0].to_columns();
        assert_eq!((&columns["question"], &columns["solution"]), (&Value::from("p"), &Value::from("27.5")));
        assert_eq!(
            read(content, |data| {
                data.solution = "answer".into();
                data.max_rows = 1;
            })
            .unwrap()
            .len(),
            1
        );
    }

    #[test]
    fn conversations_are_used_when_there_is_no_plain_solution() {
        let row = r#"{"prompt": [{"role": "user", "content": "q"}], "solution": "s", "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;
        let rows = read(row, |data| data.system = "system".into()).unwrap();
        assert_eq!((rows[0].question.as_str(), rows[0].solution.as_str()), ("q", "a"));
        assert_eq!(rows[0].system.as_deref(), Some("S"));
        assert_eq!(rows[0].to_columns()["question"], "q");
    }

    #[test]
    fn wrong_rows_name_row_and_column() {
        assert_eq!(
            message(r#"{"q": "x", "solution": "s"}"#, |_| ()),
            ", row 1: no column `question` (data.question names it); the row has `q`, `solution`"
        );
        assert_eq!(
            message(r#"{"question": "x"}"#, |_| ()),
            ", row 1: no column `solution` (data.solution names it); the row has `question`"
        );
        assert_eq!(
            message(
                "{\"question\": \"x\", \"solution\": \"s\"}\n{\"question\": \" \", \"solution\": \"s\"}",
                |_| ()
            ),
            ", row 2: the question is empty"
        );
        assert_eq!(message(r#"{"question": "x", "solution": ""}"#, |_| ()), ", row 1: the solution is empty");
        assert_eq!(
            message(r#"{"question": "x", "solution": ["s", "t"]}"#, |_| ()),
            ", row 1: column `solution` is a list, not text"
        );
        assert_eq!(
            message(r#"{"question": "x", "solution": "s"}"#, |data| data.system = "sys".into()),
            ", row 1: no column `sys` (data.system); the row has `question`, `solution`"
        );
    }
}
