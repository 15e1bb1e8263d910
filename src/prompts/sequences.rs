//! What the teacher is asked, and what the student is scored on.

use std::ops::Range;

use super::think::tokens_inside;
use super::{ChatText, PromptStyle, Think};
use crate::dataset::QuestionRow;
use crate::error::Result;

/// A student's sequence: `prefix` then `continuation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudentSequence {
    /// The prompt up to and including the thought start tag and its padding: the same for every thought
    /// about a question.
    pub prefix: Vec<u32>,
    /// Think tokens, then the end of the thought, the tagged solution and the end of the turn.
    pub continuation: Vec<u32>,
    /// The think tokens, as positions in `continuation`.
    pub think: Range<usize>,
    /// The tokens wholly inside the solution, as positions in `continuation`.
    pub solution: Range<usize>,
    /// Tokens that straddled the think text's borders.
    pub n_boundary: usize,
}

impl StudentSequence {
    /// The same without its think tokens. Right only where all of the think text lies in them.
    pub(crate) fn without_thought(&self) -> Self {
        let n_think = self.think.len();
        Self {
            prefix: self.prefix.clone(),
            continuation: self.continuation[n_think..].to_vec(),
            think: 0..0,
            solution: self.solution.start - n_think..self.solution.end - n_think,
            n_boundary: 0,
        }
    }
}

impl PromptStyle {
    /// The teacher's text up to and including the explanation start tag and its padding.
    ///
    /// # Errors
    /// What the chat template reports.
    pub fn teacher_prompt_text(&self, chat: &ChatText, row: &QuestionRow) -> Result<String> {
        let prompt = chat.prompt(&self.teacher_system, &row.question)?;
        let Self { begin_of_solution, end_of_solution, delimiter, begin_of_explanation, padding, .. } = self;
        let solution = &row.solution;
        Ok(format!(
            "{prompt}{begin_of_solution}{solution}{end_of_solution}{delimiter}{begin_of_explanation}{padding}"
        ))
    }

    /// Ids of [`Self::teacher_prompt_text`]: what a completion is sampled after.
    ///
    /// # Errors
    /// What the chat template and the tokenizer report.
    pub fn teacher_prompt(&self, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>> {
        Ok(chat.tokenizer.encode(&self.teacher_prompt_text(chat, row)?)?)
    }

    /// The student's system prompt for `row`: its own, if it has one.
    pub fn student_system_for<'a>(&'a self, row: &'a QuestionRow) -> &'a str {
        row.system.as_deref().unwrap_or(&self.student_system)
    }

    /// The student's text up to where it begins to write.
    ///
    /// # Errors
    /// What the chat template reports.
    pub fn student_question_text(&self, chat: &ChatText, row: &QuestionRow) -> Result<String> {
        chat.prompt(self.student_system_for(row), &row.question)
    }

    /// Ids of [`Self::student_question_text`]: what an answer is sampled after in evaluation and in
    /// training on correctness.
    ///
    /// # Errors
    /// What the chat template and the tokenizer report.
    pub fn student_question_prompt(&self, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>> {
        Ok(chat.tokenizer.encode(&self.student_question_text(chat, row)?)?)
    }

    /// The student's sequence for one thought: the think tokens as they are, the text on either side
    /// encoded as one text each.
    ///
    /// # Errors
    /// What the chat template and the tokenizer report.
    pub fn student_sequence(
        &self,
        chat: &ChatText,
        row: &QuestionRow,
        think: &Think,
    ) -> Result<StudentSequence> {
        let prompt = self.student_question_text(chat, row)?;
        let prefix = format!("{prompt}{}{}{}", self.begin_of_thought, self.padding, think.lead);
        let before_solution =
            format!("{}{}{}{}", think.tail, self.end_of_thought, self.delimiter, self.begin_of_solution);
        let content = before_solution.len()..before_solution.len() + row.solution.len();
        let suffix = format!("{before_solution}{}{}{}", row.solution, self.end_of_solution, chat.turn_end());

        let suffix = chat.tokenizer.encode_inside(&suffix)?;
        let solution = tokens_inside(&suffix.offsets, &content);
        let n_think = think.ids.len();
        let mut continuation = think.ids.clone();
        continuation.extend(suffix.ids);
        Ok(StudentSequence {
            prefix: chat.tokenizer.encode(&prefix)?,
            continuation,
            think: 0..n_think,
            solution: n_think + solution.start..n_think + solution.end,
            n_boundary: think.n_boundary,
        })
    }
}
