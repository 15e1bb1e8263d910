//! Examples for supervised fine-tuning: ids, and which of them count in the loss.

use std::ops::Range;

use rlt_model::tokenizer::Tokenizer;

use super::{ChatText, PromptStyle};
use crate::dataset::QuestionRow;
use crate::error::{Error, Result};

/// One training sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SftExample {
    /// The whole sequence.
    pub ids: Vec<u32>,
    /// Positions in `ids` of the tokens whose prediction counts (a position `p` is predicted from the
    /// tokens before it, so 0 is never among them). Never empty ranges.
    pub loss: Vec<Range<usize>>,
}

impl PromptStyle {
    /// Teacher format: question and solution are given; everything after the explanation start tag and
    /// its padding counts, through the end tag and the end of the turn.
    ///
    /// # Errors
    /// [`Error::Failed`] when the row has no reasoning trace; what the chat template and the tokenizer report.
    pub fn teacher_example(&self, chat: &ChatText, row: &QuestionRow) -> Result<SftExample> {
        let prompt = self.teacher_prompt_text(chat, row)?;
        let thought = chat.row_text(thought(row)?);
        let answer = format!("{}{}{}", self.padded(&thought), self.end_of_explanation, chat.turn_end());
        example(chat, &prompt, &answer)
    }

    /// Student format: the question is given; the assistant's turn counts, through its end.
    ///
    /// # Errors
    /// As [`Self::teacher_example`].
    pub fn student_example(&self, chat: &ChatText, row: &QuestionRow) -> Result<SftExample> {
        let prompt = self.student_question_text(chat, row)?;
        let (thought, solution) = (chat.row_text(thought(row)?), chat.row_text(&row.solution));
        let answer = format!(
            "{}{}{}",
            self.open_thought(chat),
            self.after_opening(&thought, &solution),
            chat.turn_end()
        );
        example(chat, &prompt, &answer)
    }

    /// The assistant's turn in student format: thought and solution in their tags.
    pub fn student_answer(&self, thought: &str, solution: &str) -> String {
        format!("{}{}{}", self.begin_of_thought, self.padding, self.after_opening(thought, solution))
    }

    /// The turn after the tag that opens the thought, and its padding.
    fn after_opening(&self, thought: &str, solution: &str) -> String {
        let Self { end_of_thought, delimiter, begin_of_solution, end_of_solution, .. } = self;
        let body = self.padded(thought);
        format!("{body}{end_of_thought}{delimiter}{begin_of_solution}{solution}{end_of_solution}")
    }

    /// The thought and the padding after it; the padding around a thought in a data set is replaced, so
    /// that every example has the style's.
    fn padded(&self, thought: &str) -> String {
        format!("{}{}", thought.trim(), self.padding)
    }
}

/// Plain text, encoded as it is: every token after the first counts.
///
/// # Errors
/// [`Error::Failed`] when the text has fewer than two tokens; what the tokenizer reports.
pub fn text_example(tokenizer: &Tokenizer, text: &str) -> Result<SftExample> {
    let ids = tokenizer.encode(text)?;
    if ids.len() < 2 {
        return Err(Error::Failed(format!(
            "text {text:?} has {} tokens; two are needed to learn",
            ids.len()
        )));
    }
    let targets = 1..ids.len();
    Ok(SftExample { ids, loss: vec![targets] })
}

fn thought(row: &QuestionRow) -> Result<&str> {
    row.reasoning_trace.as_deref().ok_or_else(|| {
        Error::Failed(format!(
            "row {}: no reasoning trace to learn from (data.reasoning_trace names its column)",
            row.row
        ))
    })
}

/// `prompt` and `answer` encoded as one text; the tokens that begin in the answer count.
fn example(chat: &ChatText, prompt: &str, answer: &str) -> Result<SftExample> {
    let encoding = chat.encode_with_offsets(&format!("{prompt}{answer}"))?;
    let first = encoding.offsets.partition_point(|&(start, _)| start < prompt.len()).max(1);
    let targets = first..encoding.ids.len();
    Ok(SftExample { ids: encoding.ids, loss: vec![targets] })
}
