//! A completion as the token sequences that it is scored on, and what its score came from.

use rlt_reward::rlt::{RltScore, Unscorable};

use rlt_model::ids::TokenIds;

use crate::config::RewardConfig;
use crate::dataset::{QuestionRow, TraceRow};
use crate::error::Result;
use crate::prompts::{ChatText, PromptStyle, StudentSequence, Think};

/// The text side of both models and the format between them.
#[derive(Debug, Clone, Copy)]
pub struct Formats<'a> {
    /// Wording and tags.
    pub style: &'a PromptStyle,
    /// The teacher's tokenizer and chat template.
    pub teacher: &'a ChatText,
    /// The student's. It must share the teacher's vocabulary ([`ChatText::check_same_vocabulary`]).
    pub student: &'a ChatText,
}

/// One completion as the token sequences that it is scored on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RltSample {
    /// Names the sample in errors ("row 12").
    pub name: String,
    /// The teacher's tokens before the think tokens.
    pub teacher_prefix: TokenIds,
    /// The student's sequence; holds the think tokens.
    pub student: StudentSequence,
    /// The student's sequence with the explanation removed: what it is worth is measured against this.
    pub without_thought: StudentSequence,
    /// Whether the explanation's end tag was written, and no other tag of the format before it.
    pub has_end_tag: bool,
    /// A tag of the format, or a special token, that the explanation itself writes: it ends the thought, or the
    /// turn, where neither ends. Costs what a missing end tag costs.
    pub forged: Option<String>,
    /// Whether nothing but white space stands in the explanation: then there is nothing to score, whatever its tokens are.
    pub is_blank: bool,
}

impl RltSample {
    /// From sampled ids, stop token excluded, kept as they were sampled. `teacher_prefix` is what they
    /// were sampled after.
    ///
    /// # Errors
    /// What tokenizer and chat template report.
    pub fn from_sampled(
        formats: &Formats,
        row: &QuestionRow,
        teacher_prefix: TokenIds,
        ids: TokenIds,
        name: String,
    ) -> Result<Self> {
        let think = Think::from_sampled(&formats.teacher.tokenizer, &formats.style.end_of_explanation, ids);
        let text = formats.teacher.tokenizer.decode(&think.ids);
        Self::new(formats, row, teacher_prefix, &think, &format!("{text}{}", think.tail), name)
    }

    /// From a completion that is known as text only.
    ///
    /// # Errors
    /// What tokenizer and chat template report.
    pub fn from_text(formats: &Formats, row: &QuestionRow, completion: &str, name: String) -> Result<Self> {
        let prompt = formats.style.teacher_prompt_text(formats.teacher, row)?;
        let end_tag = &formats.style.end_of_explanation;
        let (teacher_prefix, think) = Think::from_text(formats.teacher, end_tag, &prompt, completion)?;
        let explanation = formats.style.split_explanation(completion).0;
        Self::new(formats, row, teacher_prefix.into(), &think, explanation, name)
    }

    fn new(
        formats: &Formats,
        row: &QuestionRow,
        teacher_prefix: TokenIds,
        think: &Think,
        explanation: &str,
        name: String,
    ) -> Result<Self> {
        let student = formats.style.student_sequence(formats.student, row, think)?;
        let without_thought = if think.lead.is_empty() && think.tail.is_empty() {
            student.without_thought()
        } else {
            formats.style.student_sequence(formats.student, row, &Think::empty())?
        };
        Ok(Self {
            name,
            teacher_prefix,
            student,
            without_thought,
            has_end_tag: think.closed,
            forged: forged(formats.style, formats.student, explanation),
            is_blank: is_blank(explanation),
        })
    }

    /// From a trace row: its ids where it has them, else its text. `Err` inside says why the row
    /// contradicts itself.
    ///
    /// # Errors
    /// What tokenizer and chat template report.
    pub fn from_trace(formats: &Formats, trace: &TraceRow) -> Result<std::result::Result<Self, Unscorable>> {
        let name = format!("row {}", trace.question.row);
        let Some(ids) = &trace.completion_ids else {
            return Self::from_text(formats, &trace.question, &trace.completion, name).map(Ok);
        };
        // The stop token is among the ids but not in the text.
        let tokenizer = &formats.teacher.tokenizer;
        let spells = |ids: &[u32]| tokenizer.decode(ids) == trace.completion;
        let without_stop = &ids[..ids.len().saturating_sub(1)];
        let spelled = [ids.as_slice(), without_stop].into_iter().find(|ids| spells(ids));
        let Some(ids) = spelled else {
            let what = "`completion_ids` do not spell `completion` with this tokenizer; drop that column";
            return Ok(Err(Unscorable::Inconsistent(what.into())));
        };
        let teacher_prefix = formats.style.teacher_prompt(formats.teacher, &trace.question)?;
        Self::from_sampled(formats, &trace.question, teacher_prefix.into(), ids.into(), name).map(Ok)
    }

    /// The think tokens.
    pub fn think_ids(&self) -> &[u32] {
        &self.student.thought
    }

    /// The tokens wholly inside the solution.
    pub fn solution_ids(&self) -> &[u32] {
        self.student.solution_ids()
    }

    /// Why no log-probabilities are asked for, if so.
    pub(super) fn unscorable(&self, teacher_context: usize, student_context: usize) -> Option<Unscorable> {
        let teacher_tokens = self.teacher_prefix.len() + self.student.thought.len();
        let student_tokens =
            self.student.prefix.len() + self.student.thought.len() + self.student.suffix.len();
        if self.is_blank || self.student.thought.is_empty() {
            Some(Unscorable::EmptyThought)
        } else if self.student.solution.is_empty() {
            Some(Unscorable::EmptySolution)
        } else if teacher_tokens > teacher_context {
            Some(Unscorable::TooLong { model: "teacher", tokens: teacher_tokens, context: teacher_context })
        } else if student_tokens > student_context {
            Some(Unscorable::TooLong { model: "student", tokens: student_tokens, context: student_context })
        } else {
            None
        }
    }
}

/// Whether an explanation is empty: nothing but white space stands in it. It has no reward of its own, and no student learns
/// from it.
pub fn is_blank(explanation: &str) -> bool {
    explanation.trim().is_empty()
}

/// What [`RltSample::forged`] names.
pub fn forged(style: &PromptStyle, chat: &ChatText, explanation: &str) -> Option<String> {
    let tag = style.tag_in(explanation).or_else(|| chat.special_in(explanation).next());
    tag.map(str::to_owned)
}

/// The reward of one sample with the log-probabilities (nats) that it came from; those are empty when the
/// sample is unscorable.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredSample {
    /// Reward and parts.
    pub score: RltScore,
    /// The teacher's, one per think token.
    pub teacher_logprobs: Vec<f32>,
    /// The student's, one per think token.
    pub student_logprobs: Vec<f32>,
    /// The student's, one per solution token.
    pub solution_logprobs: Vec<f32>,
    /// The student's without any thought, one per solution token.
    pub solution_logprobs_without: Vec<f32>,
    /// What the explanation is worth, nats ([`rlt_reward::rlt::explanation_value`]).
    pub explanation_value: Option<f32>,
}

impl ScoredSample {
    pub(super) fn unscorable(reason: Unscorable, reward: &RewardConfig) -> Self {
        Self {
            score: RltScore::unscorable(reason, &reward.settings()),
            teacher_logprobs: Vec::new(),
            student_logprobs: Vec::new(),
            solution_logprobs: Vec::new(),
            solution_logprobs_without: Vec::new(),
            explanation_value: None,
        }
    }
}
