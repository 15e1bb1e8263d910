//! Benchmarks as data: a TOML file says which columns make the question, which the answer, and who judges.
//!
//! Those of configs/tasks are built in by name; `rlt eval --task mine.toml` takes any other. The rows themselves
//! come from a file of the user's (`--data`, or `data` in the TOML file).

use std::path::{Path, PathBuf};

use rlt_files::{MOST_SETTINGS, is_plain_name, is_plain_path};
use rlt_grade::ThoughtRule;
use serde::Deserialize;
use serde_json::Value;

use super::task::{Grader, Task};
use crate::config::AnswerRule;
use crate::dataset::{QuestionRow, Record, read_records};
use crate::random::Stream;
use crate::{Error, Result};

/// The built-in benchmarks, by name.
const BUILT_IN: [(&str, &str); 9] = [
    ("aime24", include_str!("../../../../configs/tasks/aime24.toml")),
    ("aime25", include_str!("../../../../configs/tasks/aime25.toml")),
    ("amc23", include_str!("../../../../configs/tasks/amc23.toml")),
    ("countdown", include_str!("../../../../configs/tasks/countdown.toml")),
    ("gpqa_diamond", include_str!("../../../../configs/tasks/gpqa_diamond.toml")),
    ("gsm8k", include_str!("../../../../configs/tasks/gsm8k.toml")),
    ("math500", include_str!("../../../../configs/tasks/math500.toml")),
    ("minerva", include_str!("../../../../configs/tasks/minerva.toml")),
    ("olympiadbench", include_str!("../../../../configs/tasks/olympiadbench.toml")),
];

/// Names of the built-in benchmarks.
pub fn built_in_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// Who judges the answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BenchmarkGrader {
    /// The answer anywhere in the generation, by mathematical equivalence.
    #[default]
    Math,
    /// The solution section, which must say what the gold solution says.
    Solution,
    /// The letter of a choice.
    Choice,
    /// An expression of given numbers that makes a target.
    Countdown,
}

/// [`ThoughtRule`] as a task's file writes it.
#[derive(Deserialize)]
#[serde(remote = "ThoughtRule", rename_all = "snake_case")]
enum WrittenThoughtRule {
    Keep,
    Remove,
}

/// A benchmark's TOML file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// The name in tables and files.
    pub name: String,
    /// Who judges.
    #[serde(default)]
    pub grader: BenchmarkGrader,
    /// The user turn, with `{column}` where a column's text goes, and `{choice A}` for a shuffled choice.
    pub template: String,
    /// The system prompt; without it the style's for students.
    pub system: Option<String>,
    /// Column of the right answer (not for countdown or shuffled choices).
    #[serde(default = "answer_column")]
    pub answer: String,
    /// Columns of the choices, the right one first; they are shuffled by the row's number.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Countdown: column of the numbers.
    #[serde(default)]
    pub numbers: String,
    /// Countdown: column of the target.
    #[serde(default)]
    pub target: String,
    /// Whether the answer may stand in the thought.
    #[serde(default, with = "WrittenThoughtRule")]
    pub thought: ThoughtRule,
    /// The rows, relative to the TOML file.
    pub data: Option<PathBuf>,
}

fn answer_column() -> String {
    "answer".into()
}

impl Benchmark {
    /// The built-in benchmark of that name, or the one a TOML file describes; `None` when `name` is neither.
    ///
    /// # Errors
    /// [`Error::Usage`] when the file cannot be read or is not a benchmark.
    pub fn find(name: &str) -> Result<Option<Self>> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text).map(Some);
        }
        let path = Path::new(name);
        if path.extension().is_none_or(|extension| extension != "toml") {
            return Ok(None);
        }
        let text = rlt_files::read_text(path, MOST_SETTINGS)
            .map_err(|e| Error::Usage(format!("{name}: cannot read the task: {e}")))?;
        let mut benchmark = Self::parse(name, &text)?;
        if let (Some(data), Some(folder)) = (&benchmark.data, path.parent()) {
            benchmark.data = Some(folder.join(data));
        }
        Ok(Some(benchmark))
    }

    fn parse(origin: &str, text: &str) -> Result<Self> {
        let what =
            |what: String| Error::Usage(format!("{origin}: {}", what.lines().collect::<Vec<_>>().join(" ")));
        let benchmark: Self = toml::from_str(text).map_err(|e| what(e.message().to_owned()))?;
        if !is_plain_name(&benchmark.name) {
            return Err(what(format!(
                "`name` is {:?}, but files are called by it; no / or ..",
                benchmark.name
            )));
        }
        if let Some(data) = benchmark.data.as_ref().filter(|data| !is_plain_path(data)) {
            return Err(what(format!(
                "`data` is {}, which leads out of the task's folder; give it as --data",
                data.display()
            )));
        }
        if benchmark.grader == BenchmarkGrader::Countdown
            && (benchmark.numbers.is_empty() || benchmark.target.is_empty())
        {
            return Err(what("a countdown task names the columns `numbers` and `target`".into()));
        }
        if !benchmark.choices.is_empty()
            && (benchmark.choices.len() > 26 || benchmark.grader != BenchmarkGrader::Choice)
        {
            return Err(what("`choices` are for grader = \"choice\", at most 26 of them".into()));
        }
        Ok(benchmark)
    }

    /// Its questions from `data`, or from its own file.
    ///
    /// # Errors
    /// [`Error::Usage`] without a file, [`Error::Row`] when a row lacks a column; as [`read_records`].
    pub fn task(&self, data: Option<&Path>, max_rows: usize) -> Result<Task> {
        let path = data.or(self.data.as_deref()).ok_or_else(|| {
            Error::Usage(format!(
                "the task {} has no rows of its own; give your copy with --data FILE",
                self.name
            ))
        })?;
        let records = read_records(path, max_rows)?;
        let rows = records.into_iter().map(|record| self.row(record)).collect::<Result<Vec<_>>>()?;
        let grader = match self.grader {
            BenchmarkGrader::Math => Grader::Math(self.thought),
            BenchmarkGrader::Solution => Grader::Section(AnswerRule::Solution),
            BenchmarkGrader::Choice => Grader::Choice(self.thought),
            BenchmarkGrader::Countdown => Grader::Countdown(self.thought),
        };
        let split = path.file_stem().map_or_else(|| "all".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Task { name: self.name.clone(), split, grader, rows })
    }

    fn row(&self, record: Record) -> Result<QuestionRow> {
        let order = shuffled(self.choices.len(), record.row);
        let question = self.question(&record, &order)?;
        let solution = match self.grader {
            BenchmarkGrader::Countdown => {
                format!("{} from {}", column(&record, &self.target)?, column(&record, &self.numbers)?)
            }
            _ if !order.is_empty() => {
                letter(order.iter().position(|&choice| choice == 0).unwrap_or(0)).to_string()
            }
            _ => column(&record, &self.answer)?,
        };
        if solution.trim().is_empty() {
            return Err(record.error(format!("column `{}`: the answer is empty", self.answer)));
        }
        Ok(QuestionRow {
            question,
            solution,
            reasoning_trace: None,
            system: self.system.clone(),
            row: record.row,
            columns: record.columns,
        })
    }

    fn question(&self, record: &Record, order: &[usize]) -> Result<String> {
        let mut text = String::new();
        let mut rest = self.template.trim();
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let Some((name, behind)) = after.split_once('}') else {
                text.push('{');
                rest = after;
                continue;
            };
            let choice = name.strip_prefix("choice ").and_then(|name| name.chars().next());
            match choice.and_then(|letter| order.get((letter as usize).checked_sub('A' as usize)?)) {
                Some(&choice) => text.push_str(column(record, &self.choices[choice])?.trim()),
                // `\boxed{}`
                None if name.is_empty() => text.push_str("{}"),
                None => text.push_str(&column(record, name)?),
            }
            rest = behind;
        }
        text.push_str(rest);
        Ok(text)
    }
}

fn letter(index: usize) -> char {
    (b'A' + index as u8) as char
}

/// The order in which the `n` choices of row `row` are listed.
fn shuffled(n: usize, row: usize) -> Vec<usize> {
    let mut stream = Stream::new(0, "choices", row as u64);
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last, stream.below(last + 1));
    }
    order
}

/// A column as text; lists are written out, their texts without dollar signs.
fn column(record: &Record, name: &str) -> Result<String> {
    match record.columns.get(name) {
        None | Some(Value::Null) => {
            Err(record.error(format!("no column `{name}`; the row has {}", record.column_names())))
        }
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            let texts = items.iter().filter_map(Value::as_str).map(|text| text.trim().trim_matches('$'));
            Ok(texts.collect::<Vec<_>>().join(", "))
        }
        Some(Value::Array(items)) => {
            Ok(format!("[{}]", items.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")))
        }
        Some(_) => Ok(record.text(name)?.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(toml: &str, rows: &str) -> Result<Task> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
        let path = dir.path().join("mine.toml");
        std::fs::write(&path, toml).unwrap();
        Benchmark::find(path.to_str().unwrap())?.unwrap().task(Some(&dir.path().join("rows.jsonl")), 0)
    }

    #[test]
    fn every_built_in_benchmark_is_read() {
        for name in built_in_names() {
            let benchmark = Benchmark::find(name).unwrap().unwrap();
            assert_eq!(benchmark.name, name);
            assert!(benchmark.template.contains("\\boxed{}"), "{name}: {}", benchmark.template);
        }
        assert!(Benchmark::find("market").unwrap().is_none());
    }

    #[test]
    fn columns_fill_the_template() {
        let made = task(
            "name = \"t\"\ntemplate = \"In \\\\boxed{}: {q} ({unit})\"\nanswer = \"a\"",
            "{\"q\": \"1+1?\", \"unit\": \"m\", \"a\": [\"$2$\", \"$3$\"]}",
        )
        .unwrap();
        assert_eq!(made.rows[0].question, "In \\boxed{}: 1+1? (m)");
        assert_eq!(made.rows[0].solution, "2, 3");
        let error = task("name = \"t\"\ntemplate = \"{missing}\"", "{\"answer\": 1}").unwrap_err();
        assert!(error.to_string().contains("no column `missing`"), "{error}");
    }

    #[test]
    fn choices_are_shuffled_the_same_way_every_time() {
        let toml = "name = \"t\"\ngrader = \"choice\"\ntemplate = \"{choice A} {choice B} {choice C} {choice D}\"\n\
                    choices = [\"r\", \"w1\", \"w2\", \"w3\"]";
        let row = "{\"r\":\"right\",\"w1\":\"x\",\"w2\":\"y\",\"w3\":\"z\"}\n";
        let made = task(toml, &row.repeat(40)).unwrap();
        assert_eq!(made, task(toml, &row.repeat(40)).unwrap());
        let mut letters = std::collections::BTreeSet::new();
        for row in &made.rows {
            let index = (row.solution.as_bytes()[0] - b'A') as usize;
            assert_eq!(row.question.split(' ').nth(index), Some("right"));
            letters.insert(row.solution.clone());
        }
        assert_eq!(letters.len(), 4);
    }
}
