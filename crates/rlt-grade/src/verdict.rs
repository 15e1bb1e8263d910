//! What a grader says.

use crate::equivalence::Judgement;

/// What a grader says about one completion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The answer that was found, as it was compared.
    pub extracted: Option<String>,
    /// Whether it is the right one.
    pub correct: bool,
    /// Whether the answer has the form that was asked for: thought and solution closed and in order, each once;
    /// or, where no sections are asked for, a closed box.
    pub formatted: bool,
    /// Why, in one line.
    pub reason: String,
}

impl Verdict {
    /// A completion without the sections.
    pub fn unformatted() -> Self {
        Self { reason: "no thought and solution, closed and in order".into(), ..Self::default() }
    }

    pub(crate) fn judged(extracted: &str, formatted: bool, judgement: Judgement) -> Self {
        let Judgement { equal, reason } = judgement;
        Self { extracted: Some(extracted.to_owned()), correct: equal, formatted, reason }
    }
}
