//! Rows of worked questions from files of several shapes, and the rows that are scored.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::kinds::{ExplanationVariant, WorkedQuestion, explanation};
use rlt_method::dataset::{Record, read_records};
use rlt_method::error::{Error, Result};

/// Rationales longer than this are left out, characters: what keeps the study short.
pub const LONGEST_RATIONALE: usize = 1000;

/// What is drawn is keyed by this.
const SEED: u64 = 1;

/// Questions of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionFile {
    /// The file's name without its ending.
    pub name: String,
    /// The first rows of it of which all six kinds can be made.
    pub rows: Vec<WorkedQuestion>,
}

/// The first `n` usable questions of each file.
///
/// # Errors
/// A file cannot be read, a row has neither shape, or a file has no usable question.
pub fn read(files: &[PathBuf], n: usize) -> Result<Vec<QuestionFile>> {
    files.iter().map(|path| read_one(path, n)).collect()
}

fn read_one(path: &Path, n: usize) -> Result<QuestionFile> {
    let mut all = Vec::new();
    for record in read_records(path, 0)? {
        all.push(worked(&record)?);
    }
    all.retain(|row| {
        // A drawing's program is no sentence.
        row.rationale.chars().count() <= LONGEST_RATIONALE && !row.rationale.contains("[asy]")
    });
    let usable: Vec<WorkedQuestion> = (0..all.len())
        .filter(|&index| {
            ExplanationVariant::ALL.iter().all(|kind| explanation(*kind, &all, index, SEED).is_some())
        })
        .take(n)
        .map(|index| all[index].clone())
        .collect();
    if usable.len() < 2 {
        let what = format!(
            "has {} questions with a rationale of two sentences or more, with numbers, of up to {LONGEST_RATIONALE} \
             characters; at least 2 are needed",
            usable.len()
        );
        return Err(Error::File { path: path.to_owned(), what });
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(QuestionFile { name, rows: usable })
}

/// A row as GSM8K has it (`answer` ends in `#### solution`), as MATH does (`solution` is the rationale, `answer` the
/// solution), or as rlt writes it (`reasoning_trace` and `solution`).
fn worked(record: &Record) -> Result<WorkedQuestion> {
    let text = |name: &str| -> Result<Option<String>> {
        Ok(record.text(name)?.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
    };
    let mut question = None;
    for name in ["question", "problem", "prompt"] {
        question = question.or(text(name)?);
    }
    let question = question.ok_or_else(|| record.error("has none of `question`, `problem`, `prompt`"))?;
    let (answer, solution) = (text("answer")?, text("solution")?);
    let gsm8k = answer.as_deref().and_then(|answer| answer.rsplit_once("####"));
    let (rationale, solution) = match (gsm8k, text("reasoning_trace")?, solution, &answer) {
        (Some((rationale, solution)), ..) => (without_calculator(rationale), solution.trim().to_owned()),
        (None, Some(rationale), Some(solution), _) => (rationale, solution),
        (None, None, Some(rationale), Some(answer)) => (rationale, answer.clone()),
        _ => {
            return Err(record.error(
                "has no rationale beside its solution: `answer` with `####`, `solution` and `answer`, or \
                 `reasoning_trace` and `solution`",
            ));
        }
    };
    Ok(WorkedQuestion { question, rationale, solution })
}

/// Without GSM8K's notes to a calculator, `<<2*3=6>>`.
fn without_calculator(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.trim();
    while let Some((before, after)) = rest.split_once("<<") {
        out.push_str(before);
        rest = after.split_once(">>").map_or("", |(_, after)| after);
    }
    out + rest
}

/// Six rows a question as JSON Lines, the kinds of a question beside each other.
pub fn to_lines(sources: &[QuestionFile]) -> String {
    let mut lines = String::new();
    for source in sources {
        for (index, row) in source.rows.iter().enumerate() {
            for kind in ExplanationVariant::ALL {
                let Some(explanation) = explanation(kind, &source.rows, index, SEED) else { continue };
                let line = json!({
                    "source": source.name,
                    "index": index,
                    "kind": kind.name(),
                    "question": row.question,
                    "solution": row.solution,
                    "explanation": explanation,
                });
                lines.push_str(&line.to_string());
                lines.push('\n');
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, n: usize) -> Result<Vec<QuestionFile>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&[path], n)
    }

    #[test]
    fn three_shapes_of_rows() {
        let rows = [
            r#"{"question":"q1","answer":"She has 2*3=<<2*3=6>>6.\nThen 6+1=<<6+1=7>>7.\n#### 7"}"#,
            r#"{"problem":"q2","solution":"First 1. Then $\\boxed{2}$.","answer":"2"}"#,
            r#"{"prompt":"q3","reasoning_trace":"A 1.\nB 2.","solution":"s"}"#,
            r#"{"question":"one sentence","reasoning_trace":"A 1.","solution":"s"}"#,
        ];
        let sources = read_text(&rows.join("\n"), 9).unwrap();
        assert_eq!((sources.len(), sources[0].name.as_str()), (1, "rows"));
        let row = |i: usize| (&*sources[0].rows[i].rationale, &*sources[0].rows[i].solution);
        assert_eq!(row(0), ("She has 2*3=6.\nThen 6+1=7.", "7"));
        assert_eq!(row(1), ("First 1. Then $\\boxed{2}$.", "2"));
        assert_eq!(row(2), ("A 1.\nB 2.", "s"));
        assert_eq!(sources[0].rows.len(), 3, "a single sentence cannot be shuffled or cut");
        assert_eq!(read_text(&rows.join("\n"), 2).unwrap()[0].rows.len(), 2);
        let message = read_text(r#"{"question":"q","answer":"7"}"#, 9).unwrap_err().to_string();
        assert!(message.contains("row 1: has no rationale beside its solution"), "{message}");
        let message = read_text(rows[3], 9).unwrap_err().to_string();
        assert!(message.contains("has 0 questions with a rationale"), "{message}");
    }
}
