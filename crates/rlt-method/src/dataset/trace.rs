//! Question rows with the explanation a teacher wrote for them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::question::question_of;
use super::{QuestionRow, Record, read_records};
use crate::config::DataConfig;
use crate::error::{Error, Lack, Result};
use crate::style::PromptStyle;

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model wrote a stop token.
    Stop,
    /// The longest completion allowed was reached.
    Length,
}

impl From<rlt_model::generate::Finish> for Finish {
    fn from(finish: rlt_model::generate::Finish) -> Self {
        match finish {
            rlt_model::generate::Finish::Stop => Self::Stop,
            rlt_model::generate::Finish::Length => Self::Length,
        }
    }
}

/// A question row and one completion of the teacher.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceRow {
    /// The question, its solution and the row's other columns.
    pub question: QuestionRow,
    /// The teacher's text after the explanation start tag and its padding, without the stop token.
    pub completion: String,
    /// The ids as sampled, the stop token included when `finish` is [`Finish::Stop`]; `None` for text
    /// from elsewhere.
    pub completion_ids: Option<Vec<u32>>,
    /// `completion` up to the explanation end tag (all of it when there is none).
    pub explanation: String,
    /// Why the completion ended.
    pub finish: Finish,
}

impl TraceRow {
    /// The row as it is written: the question row's columns, then the trace's own.
    pub fn to_columns(&self) -> Map<String, Value> {
        let mut columns = self.question.to_columns();
        columns.insert("completion".into(), Value::from(self.completion.as_str()));
        match &self.completion_ids {
            Some(ids) => columns.insert("completion_ids".into(), Value::from(ids.as_slice())),
            None => columns.shift_remove("completion_ids"),
        };
        columns.insert("explanation".into(), Value::from(self.explanation.as_str()));
        let finish = match self.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
        };
        columns.insert("finish".into(), Value::from(finish));
        columns
    }
}

/// Reads the trace rows that `data` names, the first `data.max_rows` of them.
///
/// The completion is column `completion`; without it, `explanation`, else the question row's reasoning
/// trace, is taken as a whole thought and closed with the style's end tag.
///
/// # Errors
/// As [`super::read_questions`], [`crate::Error::Gap`] also when there is no trace, and [`crate::Error::Row`] when one of its
/// columns is malformed.
pub fn read_traces(data: &DataConfig, style: &PromptStyle) -> Result<Vec<TraceRow>> {
    let mut traces = Vec::new();
    for record in read_records(&data.path, data.max_rows)? {
        traces.extend(traces_of(&record, data, style)?);
    }
    Ok(traces)
}

/// The traces of one row: one, or as many as its list `completions` has. Each of those is a row of its own, with
/// `completion` in place of the list and its place in it (from 1) as `sample`.
///
/// # Errors
/// As [`read_traces`].
pub fn traces_of(record: &Record, data: &DataConfig, style: &PromptStyle) -> Result<Vec<TraceRow>> {
    let Some(Value::Array(completions)) = record.columns.get("completions") else {
        return Ok(vec![trace_row(record, data, style)?]);
    };
    if completions.is_empty() {
        return Err(record.gap(Lack::Empty, "column `completions` is an empty list"));
    }
    let mut alone = record.clone();
    for name in ["completions", "completion_ids", "explanation"] {
        alone.columns.shift_remove(name);
    }
    let trace = |(i, completion): (usize, &Value)| {
        if !completion.is_string() {
            return Err(record.error(format!("completion {} of column `completions` is not text", i + 1)));
        }
        alone.columns.insert("completion".into(), completion.clone());
        alone.columns.insert("sample".into(), Value::from(i + 1));
        trace_row(&alone, data, style)
    };
    completions.iter().enumerate().map(trace).collect()
}

fn trace_row(record: &Record, data: &DataConfig, style: &PromptStyle) -> Result<TraceRow> {
    let question = question_of(record.clone(), data)?;
    // A list of turns is the question row's business.
    let is_turns = record.columns.get("completion").is_some_and(|completion| {
        completion.as_array().is_some_and(|turns| turns.iter().any(Value::is_object))
    });
    let text = if is_turns { None } else { record.text("completion")? };
    let completion = match text {
        Some(completion) => completion,
        None => match record.text("explanation")?.or_else(|| question.reasoning_trace.clone()) {
            Some(thought) => style.close_explanation(&thought),
            None => return Err(no_trace(record, data)),
        },
    };
    let completion_ids =
        match record.columns.get("completion_ids") {
            None | Some(Value::Null) => None,
            Some(ids) => Some(Vec::<u32>::deserialize(ids).map_err(|e| {
                record.error(format!("column `completion_ids` is not a list of token ids: {e}"))
            })?),
        };
    let (explanation, closed) = style.split_explanation(&completion);
    let finish = match record.text("finish")?.as_deref() {
        Some("stop") => Finish::Stop,
        Some("length") => Finish::Length,
        Some(other) => {
            return Err(record.error(format!("column `finish` is `{other}`; `stop` or `length` is expected")));
        }
        None if closed => Finish::Stop,
        None => Finish::Length,
    };
    let explanation = explanation.to_owned();
    Ok(TraceRow { question, completion, completion_ids, explanation, finish })
}

/// What is wrong with a row that holds no trace: its columns are null (a reasoning trace: or white space), or absent.
fn no_trace(record: &Record, data: &DataConfig) -> Error {
    let names = ["completion", "explanation", &data.reasoning_trace];
    if names.iter().any(|&name| record.columns.contains_key(name)) {
        return record.gap(Lack::Empty, "the explanation is empty (null)");
    }
    let what = format!(
        "no column `completion`, `explanation` or `{}`; the row has {}",
        data.reasoning_trace,
        record.column_names()
    );
    record.gap(Lack::Absent, what)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(row: &str) -> Result<TraceRow> {
        let dir = tempfile::tempdir().unwrap();
        let data = DataConfig { path: dir.path().join("traces.jsonl"), ..DataConfig::default() };
        fs::write(&data.path, row).unwrap();
        read_traces(&data, PromptStyle::stratos()).map(|mut rows| rows.remove(0))
    }

    #[test]
    fn a_completion_is_read_as_written_and_written_as_read() {
        let trace = read(r#"{"question":"q","solution":"s","completion":"so\n\n<|end_of_explanation|>x","completion_ids":[3,4],"finish":"length","id":1}"#).unwrap();
        assert_eq!(trace.explanation, "so\n\n");
        assert_eq!((trace.completion_ids.as_deref(), trace.finish), (Some(&[3, 4][..]), Finish::Length));
        let text = serde_json::to_string(&trace.to_columns()).unwrap();
        assert_eq!(read(&text).unwrap().to_columns(), trace.to_columns());
        assert_eq!(trace.to_columns()["id"], 1);
    }

    #[test]
    fn a_bare_thought_is_closed_with_the_style() {
        for row in [
            r#"{"question":"q","solution":"s","explanation":"so"}"#,
            r#"{"question":"q","solution":"s","reasoning_trace":"\n\nso\n\n"}"#,
            r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"<|begin_of_thought|>\n\nso\n\n<|end_of_thought|>\n\n<|begin_of_solution|>s<|end_of_solution|>"}]}"#,
        ] {
            let trace = read(row).unwrap();
            assert_eq!(trace.completion, "so\n\n<|end_of_explanation|>");
            assert_eq!((trace.explanation.as_str(), trace.finish), ("so\n\n", Finish::Stop));
        }
        let cut = read(r#"{"question":"q","solution":"s","completion":"so"}"#).unwrap();
        assert_eq!((cut.explanation.as_str(), cut.finish), ("so", Finish::Length));
    }

    #[test]
    fn a_list_of_completions_is_a_row_each() {
        let record = |row: &str| Record {
            path: std::path::Path::new("rows.jsonl").into(),
            row: 3,
            columns: serde_json::from_str(row).unwrap(),
        };
        let traces = |row: &str| traces_of(&record(row), &DataConfig::default(), PromptStyle::stratos());
        let row = r#"{"question":"q","solution":"s","completions":["a<|end_of_explanation|>","b"],"id":7}"#;
        let traces_of_row = traces(row).unwrap();
        let columns: Vec<String> =
            traces_of_row.iter().map(|t| serde_json::to_string(&t.to_columns()).unwrap()).collect();
        assert_eq!(
            columns,
            [
                r#"{"question":"q","solution":"s","id":7,"completion":"a<|end_of_explanation|>","sample":1,"explanation":"a","finish":"stop"}"#,
                r#"{"question":"q","solution":"s","id":7,"completion":"b","sample":2,"explanation":"b","finish":"length"}"#,
            ]
        );
        let error = |completions: &str| {
            traces(&format!(r#"{{"question":"q","solution":"s","completions":{completions}}}"#))
                .unwrap_err()
                .to_string()
        };
        assert!(error("[]").contains("row 3: column `completions` is an empty list"));
        assert!(error("[\"a\", 1]").contains("completion 2 of column `completions` is not text"));
    }

    #[test]
    fn wrong_columns_are_named() {
        let error = |row: &str| read(row).unwrap_err().to_string();
        assert!(error(r#"{"question":"q","solution":"s"}"#).contains("row 1: no column `completion`, `explanation` or `reasoning_trace`; the row has `question`, `solution`"));
        assert!(
            error(r#"{"question":"q","solution":"s","completion":"c","completion_ids":[-1]}"#)
                .contains("`completion_ids` is not a list of token ids")
        );
        assert!(
            error(r#"{"question":"q","solution":"s","completion":"c","finish":"eos"}"#)
                .contains("`finish` is `eos`")
        );
    }
}
