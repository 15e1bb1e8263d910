//! The files of a world: textbook, teacher warm-up, training and held-out questions, model folder.
//!
//! The mixtures decide whether the method can be seen. The base model reads short stories with
//! honest explanations, some of them with gaps: it can take single steps but loses its way in
//! longer stories. It never sees an answer restated in place of a thought, so a student finds that
//! improbable. The teacher's warm-up rows explain longer stories with every quality, mostly poor.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use rlt_files::write_atomic;
use serde_json::{Value, json};

use super::explanation::ExplanationKind;
use super::lexicon::{ModelShape, student_text, write_model_folder};
use super::story::{Side, Story};
use rlt_method::Result;
use rlt_method::dataset::QuestionRow;
use rlt_method::random::Stream;

/// A distribution over stories and explanations: items with integer weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixture {
    /// Number of operations.
    pub operations: Vec<(usize, u32)>,
    /// Quality of the explanation.
    pub kinds: Vec<(ExplanationKind, u32)>,
}

impl Mixture {
    /// What the base model learns from.
    pub fn textbook() -> Self {
        Self {
            operations: vec![(1, 15), (2, 20), (3, 25), (4, 18), (5, 12), (6, 6), (7, 4)],
            kinds: vec![
                (ExplanationKind::Full, 60),
                (ExplanationKind::Skipping, 22),
                (ExplanationKind::Rambling, 18),
            ],
        }
    }

    /// What the teacher's warm-up shows: every quality, one in seven complete.
    pub fn teacher_sft() -> Self {
        Self {
            operations: QUESTION_OPERATIONS.to_vec(),
            kinds: vec![
                (ExplanationKind::Full, 15),
                (ExplanationKind::Skipping, 25),
                (ExplanationKind::Wrong, 20),
                (ExplanationKind::Restatement, 25),
                (ExplanationKind::Rambling, 15),
            ],
        }
    }

    /// Questions with perfect explanations.
    pub fn questions() -> Self {
        Self { operations: QUESTION_OPERATIONS.to_vec(), kinds: vec![(ExplanationKind::Full, 1)] }
    }
}

/// Numbers of operations in the questions that teacher and students work on.
const QUESTION_OPERATIONS: [(usize, u32); 4] = [(4, 1), (5, 1), (6, 1), (7, 1)];

/// A file of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFile {
    /// `textbook.jsonl`.
    Textbook,
    /// `teacher_sft.jsonl`.
    TeacherSft,
    /// `questions_train.jsonl`.
    QuestionsTrain,
    /// `questions_heldout.jsonl`.
    QuestionsHeldout,
}

impl RowFile {
    /// Every set.
    pub const ALL: [Self; 4] =
        [Self::Textbook, Self::TeacherSft, Self::QuestionsTrain, Self::QuestionsHeldout];

    /// The file's stem. It keys the set's random stream.
    pub fn name(self) -> &'static str {
        match self {
            Self::Textbook => "textbook",
            Self::TeacherSft => "teacher_sft",
            Self::QuestionsTrain => "questions_train",
            Self::QuestionsHeldout => "questions_heldout",
        }
    }
}

/// Rows per file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of `textbook.jsonl`.
    pub textbook: usize,
    /// Rows of `teacher_sft.jsonl`.
    pub teacher_sft: usize,
    /// Rows of `questions_train.jsonl`.
    pub questions_train: usize,
    /// Rows of `questions_heldout.jsonl`.
    pub questions_heldout: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { textbook: 36_000, teacher_sft: 12_000, questions_train: 2_000, questions_heldout: 500 }
    }
}

/// Where [`write_dataset`] put things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetFiles {
    /// Student-format rows for the base model, also as whole texts (column `text`).
    pub textbook: PathBuf,
    /// Rows for the teacher's warm-up.
    pub teacher_sft: PathBuf,
    /// Questions for training; `reasoning_trace` is the perfect explanation.
    pub questions_train: PathBuf,
    /// Questions for evaluation, none of which any other file can hold.
    pub questions_heldout: PathBuf,
    /// A model folder without weights: `config.json`, tokenizer, chat template.
    pub model: PathBuf,
}

impl DatasetFiles {
    /// The files of a world's folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            textbook: folder.join("textbook.jsonl"),
            teacher_sft: folder.join("teacher_sft.jsonl"),
            questions_train: folder.join("questions_train.jsonl"),
            questions_heldout: folder.join("questions_heldout.jsonl"),
            model: folder.join("model"),
        }
    }
}

/// Row `index` (from 0) of the data set `name` under `seed`: a story and an explanation of it.
pub fn sample_row(
    mixture: &Mixture,
    side: Side,
    seed: u64,
    name: &str,
    index: u64,
) -> (Story, ExplanationKind, String) {
    let mut stream = Stream::new(seed, name, index);
    let n_operations = stream.pick_weighted(&mixture.operations);
    let story = Story::sample(n_operations, side, &mut stream);
    let mut kind = stream.pick_weighted(&mixture.kinds);
    if kind == ExplanationKind::Skipping && n_operations == 1 {
        kind = ExplanationKind::Full;
    }
    let explanation = kind.write(&story, &mut stream);
    (story, kind, explanation)
}

/// A question row with the columns that reports and graders use.
fn question_row(story: &Story, kind: ExplanationKind, explanation: &str) -> Value {
    json!({
        "question": story.question(),
        "solution": story.solution(),
        "reasoning_trace": explanation,
        "kind": kind,
        "n_operations": story.operations.len(),
        "answer": story.answer()
    })
}

/// The first `n` rows of `questions_heldout.jsonl` under `seed`, without the file.
pub fn heldout_questions(seed: u64, n: usize) -> Vec<QuestionRow> {
    question_rows((0..n).map(|index| market_row(RowFile::QuestionsHeldout, seed, index as u64)))
}

/// Written rows as they are read back.
pub(super) fn question_rows(rows: impl Iterator<Item = Value>) -> Vec<QuestionRow> {
    let row = |(index, row): (usize, Value)| {
        let text = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
        let (question, solution) = (text("question"), text("solution"));
        let reasoning_trace = Some(text("reasoning_trace"));
        let Value::Object(columns) = row else { unreachable!("a row is an object") };
        QuestionRow { question, solution, reasoning_trace, system: None, columns, row: index + 1 }
    };
    rows.enumerate().map(row).collect()
}

fn market_row(set: RowFile, seed: u64, index: u64) -> Value {
    let (mixture, side) = match set {
        RowFile::Textbook => (Mixture::textbook(), Side::Train),
        RowFile::TeacherSft => (Mixture::teacher_sft(), Side::Train),
        RowFile::QuestionsTrain => (Mixture::questions(), Side::Train),
        RowFile::QuestionsHeldout => (Mixture::questions(), Side::HeldOut),
    };
    let (story, kind, explanation) = sample_row(&mixture, side, seed, set.name(), index);
    question_row(&story, kind, &explanation)
}

/// Writes the world's files into `folder` (made when missing). The same seed and sizes give the
/// same bytes; a larger file begins with the rows of a smaller one.
///
/// # Errors
/// When a folder or file cannot be written.
pub fn write_dataset(folder: &Path, seed: u64, sizes: &Sizes, shape: &ModelShape) -> Result<DatasetFiles> {
    write_sets(folder, sizes, shape, |set, index| market_row(set, seed, index))
}

/// Writes the files of a world whose rows are `row`'s, and its model folder.
pub(super) fn write_sets(
    folder: &Path,
    sizes: &Sizes,
    shape: &ModelShape,
    row: impl Fn(RowFile, u64) -> Value,
) -> Result<DatasetFiles> {
    let files = DatasetFiles::new(folder);
    for set in RowFile::ALL {
        let (path, n_rows) = match set {
            RowFile::Textbook => (&files.textbook, sizes.textbook),
            RowFile::TeacherSft => (&files.teacher_sft, sizes.teacher_sft),
            RowFile::QuestionsTrain => (&files.questions_train, sizes.questions_train),
            RowFile::QuestionsHeldout => (&files.questions_heldout, sizes.questions_heldout),
        };
        let mut lines = Vec::new();
        for index in 0..n_rows as u64 {
            let mut row = row(set, index);
            if set == RowFile::Textbook {
                let text = |column: &str| row[column].as_str().unwrap_or_default();
                let text = student_text(text("question"), text("reasoning_trace"), text("solution"));
                row["text"] = text.into();
            }
            writeln!(lines, "{row}").expect("memory takes every line");
        }
        write_atomic(path, &lines)?;
    }
    write_model_folder(&files.model, shape)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::fs;

    use super::super::explanation::classify;
    use super::*;
    use rlt_method::config::DataConfig;
    use rlt_method::dataset::read_questions;

    fn rows(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).expect("the file was written");
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    const SMALL: Sizes =
        Sizes { textbook: 300, teacher_sft: 400, questions_train: 50, questions_heldout: 50 };

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_sizes_only_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, seed, sizes: &Sizes| {
            write_dataset(&folder.path().join(name), seed, sizes, &ModelShape::default()).expect("written")
        };
        let (a, b, other) = (write("a", 1, &SMALL), write("b", 1, &SMALL), write("other", 2, &SMALL));
        let longer = write("longer", 1, &Sizes { textbook: 310, ..SMALL });
        let read = |path: &Path| fs::read(path).expect("the file was written");
        assert_eq!(read(&a.textbook), read(&b.textbook));
        assert_eq!(read(&a.teacher_sft), read(&b.teacher_sft));
        assert_ne!(read(&a.textbook), read(&other.textbook));
        assert!(read(&longer.textbook).starts_with(&read(&a.textbook)));
        assert_eq!(read(&a.model.join("tokenizer.json")), read(&other.model.join("tokenizer.json")));
        assert_eq!(rows(&a.textbook).len(), 300);
    }

    #[test]
    fn rows_hold_what_their_columns_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = write_dataset(folder.path(), 7, &SMALL, &ModelShape::default()).expect("written");
        let mut counts: HashMap<ExplanationKind, usize> = HashMap::new();
        for row in rows(&files.teacher_sft).iter().chain(&rows(&files.textbook)) {
            let text = |column: &str| row[column].as_str().expect("a text column");
            let story = Story::parse(text("question")).expect("a story");
            assert_eq!(story.solution(), text("solution"));
            assert_eq!(row["answer"], story.answer());
            assert_eq!(row["n_operations"], story.operations.len());
            let kind = classify(&story, text("reasoning_trace"));
            assert_eq!(row["kind"], kind.name());
            *counts.entry(kind).or_default() += 1;
        }
        for kind in ExplanationKind::ALL {
            assert_eq!(counts.contains_key(&kind), kind != ExplanationKind::Other, "{kind:?}");
        }
        for row in rows(&files.textbook) {
            assert!(!matches!(row["kind"].as_str(), Some("wrong" | "restatement")));
        }
    }

    #[test]
    fn no_file_holds_a_held_out_question() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = write_dataset(folder.path(), 7, &SMALL, &ModelShape::default()).expect("written");
        let questions = |path: &Path| -> HashSet<String> {
            rows(path).iter().map(|row| row["question"].as_str().expect("text").to_owned()).collect()
        };
        let held_out = questions(&files.questions_heldout);
        for path in [&files.textbook, &files.teacher_sft, &files.questions_train] {
            assert!(held_out.is_disjoint(&questions(path)));
        }
        assert!(held_out.iter().all(|text| Story::parse(text).expect("a story").side() == Side::HeldOut));
    }

    #[test]
    fn held_out_questions_are_those_of_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = write_dataset(folder.path(), 7, &SMALL, &ModelShape::default()).expect("written");
        let data = DataConfig { path: files.questions_heldout, ..DataConfig::default() };
        assert_eq!(heldout_questions(7, SMALL.questions_heldout), read_questions(&data).expect("read"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let blocked = folder.path().join("file");
        fs::write(&blocked, "").expect("written");
        let error =
            write_dataset(&blocked, 7, &SMALL, &ModelShape::default()).expect_err("a file is in the way");
        assert!(error.to_string().contains("textbook.jsonl"), "{error}");
    }
}
