//! The files of the `numbers` world: the same mixtures of kinds as `market`'s, over two or three numbers.

use std::path::Path;

use serde_json::{Value, json};

use super::super::dataset::{DatasetFiles, Mixture, RowFile, Sizes, question_rows, write_sets};
use super::super::explanation::ExplanationKind;
use super::super::lexicon::ModelShape;
use super::super::story::Side;
use super::{SolvedProblem, explanation};
use rlt_method::Result;
use rlt_method::dataset::QuestionRow;
use rlt_method::random::Stream;

/// Numbers given in the questions that teacher and students work on.
const QUESTION_NUMBERS: [(usize, u32); 1] = [(3, 1)];
/// Numbers given in the textbook.
const TEXTBOOK_NUMBERS: [(usize, u32); 2] = [(2, 3), (3, 7)];

/// Row `index` (from 0) of a set under `seed`: a solved problem and an explanation of it.
pub fn sample_row(set: RowFile, seed: u64, index: u64) -> (SolvedProblem, ExplanationKind, String) {
    let (kinds, numbers) = match set {
        RowFile::Textbook => (Mixture::textbook().kinds, &TEXTBOOK_NUMBERS[..]),
        RowFile::TeacherSft => (Mixture::teacher_sft().kinds, &QUESTION_NUMBERS[..]),
        RowFile::QuestionsTrain | RowFile::QuestionsHeldout => {
            (Mixture::questions().kinds, &QUESTION_NUMBERS[..])
        }
    };
    let side = if set == RowFile::QuestionsHeldout { Side::HeldOut } else { Side::Train };
    let mut stream = Stream::new(seed, &format!("countdown {}", set.name()), index);
    let n_numbers = stream.pick_weighted(numbers);
    let solved = SolvedProblem::sample(n_numbers, side, &mut stream);
    let mut kind = stream.pick_weighted(&kinds);
    if kind == ExplanationKind::Skipping && n_numbers == 2 {
        kind = ExplanationKind::Full;
    }
    let text = explanation::write(kind, &solved, &mut stream);
    (solved, kind, text)
}

fn row(set: RowFile, seed: u64, index: u64) -> Value {
    question_row(sample_row(set, seed, index))
}

fn question_row((solved, kind, explanation): (SolvedProblem, ExplanationKind, String)) -> Value {
    json!({
        "question": solved.problem.question(),
        "solution": solved.solution(),
        "reasoning_trace": explanation,
        "kind": kind,
        "nums": solved.problem.numbers,
        "target": solved.problem.target
    })
}

/// Row `index` (from 0) of a textbook of sums under `seed`: the arithmetic of the world in its own words, but no problem of it.
pub fn sum_row(seed: u64, index: u64) -> Value {
    let mut stream = Stream::new(seed, "countdown sums", index);
    let solved = SolvedProblem::sum(&mut stream);
    let text = explanation::write(ExplanationKind::Full, &solved, &mut stream);
    question_row((solved, ExplanationKind::Full, text))
}

/// The first `n` rows of `questions_heldout.jsonl` under `seed`, without the file.
pub fn heldout_questions(seed: u64, n: usize) -> Vec<QuestionRow> {
    question_rows((0..n).map(|index| row(RowFile::QuestionsHeldout, seed, index as u64)))
}

/// As [`super::super::dataset::write_dataset`], of this world.
///
/// # Errors
/// When a folder or file cannot be written.
pub fn write_dataset(folder: &Path, seed: u64, sizes: &Sizes, shape: &ModelShape) -> Result<DatasetFiles> {
    write_sets(folder, sizes, shape, |set, index| row(set, seed, index))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::Problem;
    use super::*;
    use rlt_method::config::DataConfig;
    use rlt_method::dataset::read_questions;

    const SMALL: Sizes =
        Sizes { textbook: 400, teacher_sft: 400, questions_train: 200, questions_heldout: 60 };

    fn questions(path: &Path) -> Vec<QuestionRow> {
        let data = DataConfig { path: path.to_owned(), ..DataConfig::default() };
        read_questions(&data).expect("rows")
    }

    #[test]
    fn no_file_holds_a_held_out_problem_in_any_order_under_any_seed() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |row: &QuestionRow| {
            let mut problem = Problem::parse(&row.question).expect("a problem");
            problem.numbers.sort_unstable();
            (problem.numbers, problem.target)
        };
        let mut held_out = HashSet::new();
        let mut train = HashSet::new();
        for seed in [1, 2] {
            let folder = folder.path().join(seed.to_string());
            let files = write_dataset(&folder, seed, &SMALL, &ModelShape::default()).expect("written");
            held_out.extend(questions(&files.questions_heldout).iter().map(key));
            for path in [&files.textbook, &files.teacher_sft, &files.questions_train] {
                train.extend(questions(path).iter().map(key));
            }
            assert_eq!(questions(&files.questions_heldout), heldout_questions(seed, SMALL.questions_heldout));
        }
        assert!(held_out.is_disjoint(&train));
    }

    #[test]
    fn a_textbook_of_sums_has_every_sign_and_no_problem_of_three_numbers() {
        let mut signs = HashSet::new();
        for index in 0..500 {
            let row = sum_row(3, index);
            let problem = Problem::parse(row["question"].as_str().expect("a question")).expect("a problem");
            let text = row["reasoning_trace"].as_str().expect("an explanation");
            assert_eq!(problem.numbers.len(), 2);
            assert!(problem.judge(row["solution"].as_str().expect("a solution")).equal, "{row}");
            assert_eq!(explanation::classify(&problem, text), ExplanationKind::Full, "{row}");
            signs.insert(text.split(' ').nth(1).expect("a sign").to_owned());
        }
        assert_eq!(signs.len(), 4);
    }

    #[test]
    fn the_columns_are_those_of_the_paper_s_countdown() {
        let row = row(RowFile::QuestionsHeldout, 1, 0);
        assert!(row["nums"].as_array().is_some_and(|numbers| numbers.len() == 3));
        assert!(row["target"].is_u64());
    }
}
