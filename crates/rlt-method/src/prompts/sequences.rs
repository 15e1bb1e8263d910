//! What the teacher is asked, and what the student is scored on.

use std::borrow::Cow;
use std::ops::Range;

use rlt_model::ids::TokenIds;

use super::think::tokens_inside;
use super::{ChatText, PromptStyle, Think};
use crate::dataset::QuestionRow;
use crate::error::Result;

/// A student's sequence: `prefix`, then its continuation, `thought` and `suffix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudentSequence {
    /// The prompt up to and including the thought start tag and its padding: the same for every thought
    /// about a question.
    pub prefix: TokenIds,
    /// The think tokens, in the memory of the completion that they are of.
    pub thought: TokenIds,
    /// What follows them: the end of the thought, the tagged solution and the end of the turn.
    pub suffix: TokenIds,
    /// The tokens wholly inside the solution, as positions in the continuation: thought and suffix.
    pub solution: Range<usize>,
    /// Tokens that straddled the think text's borders.
    pub n_boundary: usize,
}

impl StudentSequence {
    /// Thought and suffix as one, copied: for whoever looks at them.
    pub fn continuation(&self) -> Vec<u32> {
        [&self.thought[..], &self.suffix].concat()
    }

    /// The think tokens, as positions in the continuation.
    pub fn think(&self) -> Range<usize> {
        0..self.thought.len()
    }

    /// The tokens wholly inside the solution.
    pub fn solution_ids(&self) -> &[u32] {
        let n_think = self.thought.len();
        &self.suffix[self.solution.start - n_think..self.solution.end - n_think]
    }

    /// The same without its think tokens. Right only where all of the think text lies in them.
    pub(crate) fn without_thought(&self) -> Self {
        let n_think = self.thought.len();
        Self {
            prefix: self.prefix.clone(),
            thought: TokenIds::default(),
            suffix: self.suffix.clone(),
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
        // The solution must not come to stand inside a thought that the template opens.
        let prompt = chat.prompt(&self.teacher_system, &chat.row_text(&row.question))?;
        let prompt = chat.without_opened_thought(&prompt, &self.begin_of_thought);
        let Self { begin_of_solution, end_of_solution, delimiter, begin_of_explanation, padding, .. } = self;
        let solution = chat.row_text(&row.solution);
        Ok(format!(
            "{prompt}{begin_of_solution}{solution}{end_of_solution}{delimiter}{begin_of_explanation}{padding}"
        ))
    }

    /// Ids of [`Self::teacher_prompt_text`]: what a completion is sampled after.
    ///
    /// # Errors
    /// What the chat template and the tokenizer report.
    pub fn teacher_prompt(&self, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>> {
        chat.encode(&self.teacher_prompt_text(chat, row)?)
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
        self.student_text(chat, row, &chat.row_text(&row.question))
    }

    /// The same with another text than the question in the user's turn.
    pub(crate) fn student_text(&self, chat: &ChatText, row: &QuestionRow, user: &str) -> Result<String> {
        let system = match &row.system {
            Some(own) => chat.row_text(own),
            None => Cow::Borrowed(self.student_system.as_str()),
        };
        chat.prompt(&system, user)
    }

    /// What the student writes to open its thought: the tag and the padding, or what the template left of them.
    pub fn open_thought(&self, chat: &ChatText) -> String {
        let Self { begin_of_thought, padding, .. } = self;
        match chat.opened_by_template(begin_of_thought) {
            "" => format!("{begin_of_thought}{padding}"),
            opened if opened == begin_of_thought => padding.clone(),
            _ => String::new(),
        }
    }

    /// A warning, where the template opens a thought with a tag that is not this style's.
    pub fn thought_in_thought(&self, chat: &ChatText) -> Option<String> {
        let opened = chat.opens_another_thought(&self.begin_of_thought)?;
        Some(format!(
            "the student's chat template opens a thought itself (`{opened}`), and the style opens another inside it \
             (`{}`); prompts.style = \"r1\" or \"think\", or tags that fit, make it one",
            self.begin_of_thought
        ))
    }

    /// Ids of [`Self::student_question_text`]: what an answer is sampled after in evaluation and in
    /// training on correctness.
    ///
    /// # Errors
    /// What the chat template and the tokenizer report.
    pub fn student_question_prompt(&self, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>> {
        chat.encode(&self.student_question_text(chat, row)?)
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
        let prefix = format!("{prompt}{}{}", self.open_thought(chat), think.lead);
        let before_solution =
            format!("{}{}{}{}", think.tail, self.end_of_thought, self.delimiter, self.begin_of_solution);
        let solution = chat.row_text(&row.solution);
        let content = before_solution.len()..before_solution.len() + solution.len();
        let suffix = format!("{before_solution}{solution}{}{}", self.end_of_solution, chat.turn_end());

        let suffix = chat.encode_inside(&suffix)?;
        let solution = tokens_inside(&suffix.offsets, &content);
        let n_think = think.ids.len();
        Ok(StudentSequence {
            prefix: chat.encode(&prefix)?.into(),
            thought: think.ids.clone(),
            suffix: suffix.ids.into(),
            solution: n_think + solution.start..n_think + solution.end,
            n_boundary: think.n_boundary,
        })
    }
}
