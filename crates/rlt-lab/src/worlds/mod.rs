//! Synthetic reasoning worlds: small enough for a laptop, hard enough that explanations matter.
//!
//! `market`: short stories about a pile of things that grows, shrinks, doubles and halves. A single step is
//! easy for a tiny model, the final answer cannot be guessed without the steps, and explanations come in every
//! quality, so a teacher has something to learn. `numbers`: Countdown in the words of `market`, the world out of
//! which nothing is trained (the paper's figure 4a). docs/WORLDS.md describes both with their measurements.
//!
//! - [`countdown`]: problems, explanations and files of `numbers`;
//! - [`story`]: questions, their text and structure, and the split into train and held-out;
//! - [`explanation`]: texts of every [`explanation::ExplanationKind`] and the judge that names the kind;
//! - [`lexicon`]: tokenizer, chat template and `config.json`;
//! - [`dataset`]: mixtures and files; [`supply`]: those of a run that makes its own;
//! - [`task`]: what `rlt eval` finds by a name.

pub mod countdown;
pub mod dataset;
pub mod explanation;
pub mod lexicon;
pub mod story;
pub mod supply;
pub mod task;

use std::path::Path;

pub use countdown::Problem;
pub use dataset::{DatasetFiles, Sizes};
pub use explanation::ExplanationKind;
pub use lexicon::ModelShape;
pub use story::Story;

pub use rlt_method::config::World;
use rlt_method::dataset::QuestionRow;
use rlt_method::error::Result;

/// What a [`World`] is made of: its rows, its questions, and the judge of explanations.
pub trait WorldContent: Sized {
    /// Writes textbook, teacher warm-up rows, training and held-out questions and a model folder
    /// without weights into `folder`.
    ///
    /// # Errors
    /// When a folder or file cannot be written.
    fn write_dataset(
        self,
        folder: &Path,
        seed: u64,
        sizes: &Sizes,
        shape: &ModelShape,
    ) -> Result<DatasetFiles>;

    /// The first `n` held-out questions under `seed`: those of the held-out file.
    fn heldout_questions(self, seed: u64, n: usize) -> Vec<QuestionRow>;

    /// The kind of an explanation; `None` when the question is not of this world.
    fn classify(self, question: &str, explanation: &str) -> Option<ExplanationKind>;

    /// Share of the question's steps, 0 to 1, that an explanation takes rightly; `None` when the question is
    /// not of this world.
    fn right_steps(self, question: &str, explanation: &str) -> Option<f64>;
}

impl WorldContent for World {
    fn write_dataset(
        self,
        folder: &Path,
        seed: u64,
        sizes: &Sizes,
        shape: &ModelShape,
    ) -> Result<DatasetFiles> {
        match self {
            Self::Market => dataset::write_dataset(folder, seed, sizes, shape),
            Self::Numbers => countdown::dataset::write_dataset(folder, seed, sizes, shape),
        }
    }

    fn heldout_questions(self, seed: u64, n: usize) -> Vec<QuestionRow> {
        match self {
            Self::Market => dataset::heldout_questions(seed, n),
            Self::Numbers => countdown::dataset::heldout_questions(seed, n),
        }
    }

    fn classify(self, question: &str, explanation: &str) -> Option<ExplanationKind> {
        match self {
            Self::Market => Story::parse(question).map(|story| explanation::classify(&story, explanation)),
            Self::Numbers => Problem::parse(question)
                .map(|problem| countdown::explanation::classify(&problem, explanation)),
        }
    }

    fn right_steps(self, question: &str, explanation: &str) -> Option<f64> {
        match self {
            Self::Market => Story::parse(question).map(|story| explanation::right_steps(&story, explanation)),
            Self::Numbers => Problem::parse(question)
                .map(|problem| countdown::explanation::right_steps(&problem, explanation)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rlt_grade::{SolutionTags, grade_integer};

    use super::*;

    #[test]
    fn the_student_text_of_every_row_is_graded_as_right() {
        for index in 0..500 {
            let (story, _, explanation) =
                dataset::sample_row(&dataset::Mixture::textbook(), story::Side::Train, 5, "textbook", index);
            let text = lexicon::student_text(&story.question(), &explanation, &story.solution());
            let (_, completion) = text.split_once("<|begin_of_thought|>").expect("a thought");
            let verdict = grade_integer(completion, &story.solution(), &SolutionTags::default());
            assert!(verdict.correct && verdict.formatted, "{text}");
        }
    }

    #[test]
    fn the_examples_in_the_documentation_are_questions() {
        let page = include_str!("../../../../docs/WORLDS.md");
        // Each run of quoted lines is one question.
        let quotes: Vec<String> = page
            .lines()
            .map(|line| line.strip_prefix("> "))
            .collect::<Vec<_>>()
            .split(Option::is_none)
            .map(|lines| lines.iter().flatten().copied().collect::<Vec<_>>().join(" "))
            .filter(|quote| !quote.is_empty())
            .collect();
        let story = Story::parse(&quotes[0]).expect("a story");
        assert!(page.replace('\n', " ").contains(&story.solution()), "{}", story.solution());
        let problem = Problem::parse(&quotes[1]).expect("a problem");
        assert!(page.contains("`(3 + 7) x 8 = 80.`") && problem.judge("(3 + 7) x 8 = 80.").equal);
    }

    #[test]
    fn only_questions_of_the_world_are_judged() {
        assert_eq!(World::Market.classify("What is 2 + 2?", "4"), None);
        let question = "Tom has 20 eggs. He finds 5. How many eggs does he have?";
        assert_eq!(World::Market.classify(question, "He finds 5: 20 + 5 = 25."), Some(ExplanationKind::Full));
    }
}
