//! Questions with their solutions.

use serde_json::{Map, Value};

use super::conversation::{exchange, prompt_turns};
use super::{Record, read_records};
use crate::config::DataConfig;
use crate::error::{Error, Lack, Result};

/// Columns that may hold the question when the configuration names none.
const QUESTION_COLUMNS: [&str; 3] = ["question", "prompt", "problem"];

/// A question, its solution, and what else its row said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuestionRow {
    /// The question, as written.
    pub question: String,
    /// The solution, as written, padding included. Never white space only.
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
/// As [`read_records`], and [`Error::Gap`] for a question or a solution that is empty or has no column.
pub fn read_questions(data: &DataConfig) -> Result<Vec<QuestionRow>> {
    read_records(&data.path, data.max_rows)?.into_iter().map(|record| question_of(record, data)).collect()
}

/// Question rows, and the rows among them that lack their question or their solution.
#[derive(Debug)]
pub struct UsableQuestions {
    /// The rows to work on, in order; at least one.
    pub rows: Vec<QuestionRow>,
    /// Those that lack something.
    pub gaps: Vec<GapRow>,
}

/// A row that lacks its question or its solution.
#[derive(Debug)]
pub struct GapRow {
    /// The row as it was read.
    pub record: Record,
    /// What it lacks.
    pub reason: String,
    /// How many rows that lack nothing stand before it.
    pub position: usize,
}

impl UsableQuestions {
    /// Names the rows that lack something, the first of them by their numbers; `None` when there are none.
    pub fn warning(&self) -> Option<String> {
        const MOST_NAMED: usize = 10;
        let (n, all) = (self.gaps.len(), self.gaps.len() + self.rows.len());
        let first = self.gaps.first()?;
        let mut named: Vec<String> = self
            .gaps
            .iter()
            .take(MOST_NAMED)
            .map(|gap| format!("row {}: {}", gap.record.row, gap.reason))
            .collect();
        if n > MOST_NAMED {
            named.push(format!("and {} more", n - MOST_NAMED));
        }
        Some(format!("{}: left out {n} of {all} rows ({})", first.record.path.display(), named.join("; ")))
    }
}

/// As [`read_questions`], for work that goes on without the rows that lack their question or their solution.
///
/// # Errors
/// As [`read_questions`], but [`Error::Gap`] only when every row lacks something.
pub fn read_usable_questions(data: &DataConfig) -> Result<UsableQuestions> {
    let mut read = UsableQuestions { rows: Vec::new(), gaps: Vec::new() };
    let mut first = None;
    for record in read_records(&data.path, data.max_rows)? {
        match question_of(record.clone(), data) {
            Ok(row) => read.rows.push(row),
            Err(Error::Gap { path, row, what, lack }) => {
                read.gaps.push(GapRow { record, reason: what.clone(), position: read.rows.len() });
                first.get_or_insert(Error::Gap { path, row, what, lack });
            }
            Err(error) => return Err(error),
        }
    }
    match first.filter(|_| read.rows.is_empty()) {
        Some(error) => Err(error),
        None => Ok(read),
    }
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

/// The question that a row is.
///
/// # Errors
/// [`Error::Gap`] for a question or a solution that is empty or has no column; [`Error::Row`] for a column that holds something
/// else.
pub fn question_of(record: Record, data: &DataConfig) -> Result<QuestionRow> {
    let (question, solution, trace, mut system) = match plain(&record, data)? {
        Some((question, solution, system)) => {
            (question, solution, record.text(&data.reasoning_trace)?, system)
        }
        None => match exchange(&record)? {
            Some(parts) => (parts.question, parts.solution, parts.reasoning_trace, parts.system),
            None => return Err(missing_column(&record, data)),
        },
    };
    if question.trim().is_empty() {
        return Err(record.gap(Lack::Empty, "the question is empty"));
    }
    if solution.trim().is_empty() {
        return Err(record.gap(Lack::Empty, "the solution is empty"));
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

/// Question, solution and the question's own system prompt from their own columns; `None` when one of the first two
/// is absent. A question that is a list of turns is read where no whole conversation can be.
fn plain(record: &Record, data: &DataConfig) -> Result<Option<(String, String, Option<String>)>> {
    let Some(column) = question_column(record, data) else { return Ok(None) };
    if !has_turns(record)
        && let Some((system, question)) = prompt_turns(record, column)?
    {
        return Ok(solution(record, data)?.map(|solution| (question, solution, system)));
    }
    // A chat under `prompt` or a list of solutions is an error only if nothing else can be read.
    match (record.text(column), solution(record, data)) {
        (Ok(Some(question)), Ok(Some(solution))) => Ok(Some((question, solution, None))),
        (Err(_), _) | (_, Err(_)) if has_turns(record) => Ok(None),
        (Err(error), _) | (_, Err(error)) => Err(error),
        _ => Ok(None),
    }
}

/// The column of the solution, or where verl keeps it.
fn solution(record: &Record, data: &DataConfig) -> Result<Option<String>> {
    let of_verl = record.columns.get("reward_model").and_then(|reward| reward.get("ground_truth"));
    match (record.columns.get(&data.solution), of_verl) {
        (None | Some(Value::Null), Some(Value::String(solution))) => Ok(Some(solution.clone())),
        _ => record.text(&data.solution),
    }
}

fn has_turns(record: &Record) -> bool {
    let is_list = |name: &str| record.columns.get(name).is_some_and(Value::is_array);
    is_list("conversations") || is_list("messages") || (is_list("prompt") && is_list("completion"))
}

fn question_column<'a>(record: &Record, data: &'a DataConfig) -> Option<&'a str> {
    if !data.question.is_empty() {
        return record.columns.contains_key(&data.question).then_some(&data.question);
    }
    // Rows of several sources have each other's columns, null.
    let has_value = |name: &&str| record.columns.get(*name).is_some_and(|value| !value.is_null());
    let mut present = QUESTION_COLUMNS.into_iter().filter(|name| record.columns.contains_key(*name));
    QUESTION_COLUMNS.into_iter().find(has_value).or_else(|| present.next())
}

/// What is wrong with a row that holds no question with its solution: a column is null, or absent.
fn missing_column(record: &Record, data: &DataConfig) -> Error {
    let is_null = |name: &str| record.columns.get(name).is_some_and(Value::is_null);
    match question_column(record, data) {
        Some(column) if is_null(column) => return record.gap(Lack::Empty, "the question is empty (null)"),
        Some(_) if is_null(&data.solution) => return record.gap(Lack::Empty, "the solution is empty (null)"),
        _ => {}
    }
    let (name, key) = match question_column(record, data) {
        Some(_) => (data.solution.as_str(), "data.solution"),
        None if data.question.is_empty() => ("question", "data.question"),
        None => (data.question.as_str(), "data.question"),
    };
    let what = format!("no column `{name}` ({key} names it); the row has {}", record.column_names());
    record.gap(Lack::Absent, what)
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
    fn rows_with_gaps_are_left_out_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataConfig { path: dir.path().join("rows.jsonl"), ..DataConfig::default() };
        let read = |content: &str| {
            fs::write(&data.path, content).unwrap();
            read_usable_questions(&data)
        };
        let whole = r#"{"question": null, "prompt": "x", "solution": "s"}"#;
        let (null, empty) =
            (r#"{"question": "x", "solution": null}"#, r#"{"question": " ", "solution": "s"}"#);
        let rows = read(&format!("{null}\n{whole}\n{whole}\n{empty}\n")).unwrap();
        assert_eq!(rows.rows.iter().map(|row| row.row).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(rows.rows[0].question, "x");
        assert_eq!(rows.gaps.iter().map(|gap| gap.position).collect::<Vec<_>>(), [0, 2]);
        let warning = rows.warning().unwrap();
        assert!(
            warning.ends_with(
                "left out 2 of 4 rows (row 1: the solution is empty (null); row 4: the question is empty)"
            ),
            "{warning}"
        );
        let many = read(&format!("{whole}\n{}", format!("{null}\n").repeat(100))).unwrap();
        assert!(many.warning().unwrap().ends_with("row 11: the solution is empty (null); and 90 more)"));
        assert_eq!(read(whole).unwrap().warning(), None);
        assert!(matches!(read(empty), Err(Error::Gap { row: 1, .. })));
        // A column that one row does not have is as one that is null there.
        let absent = r#"{"question": "x"}"#;
        let rows = read(&format!("{whole}\n{absent}")).unwrap();
        assert!(rows.gaps[0].reason.starts_with("no column `solution`"), "{:?}", rows.gaps);
        assert!(matches!(read(absent), Err(Error::Gap { row: 1, lack: Lack::Absent, .. })));
    }

    #[test]
    fn a_question_may_be_a_list_of_turns() {
        let row = |more: &str| {
            format!(
                r#"{{"prompt": [{{"role": "system", "content": "S"}}, {{"role": "user", "content": "q"}}], {more}}}"#
            )
        };
        for solution in [
            r#""solution": "4""#,
            r#""reward_model": {"style": "rule", "ground_truth": "4"}, "solution": null"#,
        ] {
            let rows = read(&row(solution), |data| data.system = "system".into()).unwrap();
            assert_eq!((rows[0].question.as_str(), rows[0].solution.as_str()), ("q", "4"));
            assert_eq!(rows[0].system.as_deref(), Some("S"));
            assert_eq!(rows[0].to_columns()["question"], "q");
        }
        let two = r#"{"prompt": [{"role": "user", "content": "q"}, {"role": "user", "content": "r"}], "solution": "4"}"#;
        assert!(message(two, |_| ()).contains("two user turns"));
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
        for empty in ["", " ", "\\n\\t\\u00a0"] {
            let row = format!(r#"{{"question": "x", "solution": "{empty}"}}"#);
            assert_eq!(message(&row, |_| ()), ", row 1: the solution is empty");
        }
        let null = ", row 1: the question is empty (null)";
        assert_eq!(message(r#"{"question": null, "solution": "s"}"#, |_| ()), null);
        assert_eq!(message(r#"{"q": null, "solution": "s"}"#, |data| data.question = "q".into()), null);
        let null = ", row 1: the solution is empty (null)";
        assert_eq!(message(r#"{"question": "x", "solution": null}"#, |_| ()), null);
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
