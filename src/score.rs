//! The RLT reward of completions, from text or ids to parts.
//!
//! A [`RltSample`] holds both sequences of one completion; [`score_samples`] asks teacher and student for
//! the log-probabilities and hands them to [`rlt_reward::rlt`]. Training and `rlt score` share this.

pub(crate) mod added;
mod columns;
mod jobs;

use rayon::prelude::*;

use crate::config::{KlEstimator, RewardConfig};
use crate::dataset::{QuestionRow, TraceRow};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle, StudentSequence, Think};
use crate::scorer::TokenScorer;
use jobs::{Job, full_scores, job_logprobs};
use rlt_reward::rlt::{RltInputs, RltScore, Unscorable, check_finite, explanation_value, rlt_reward};

pub(crate) use columns::number;
pub use columns::{NGRAM_TOKENS, ledger_columns, score_columns};

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
    pub teacher_prefix: Vec<u32>,
    /// The student's sequence; holds the think tokens.
    pub student: StudentSequence,
    /// The student's sequence with the explanation removed: what it is worth is measured against this.
    pub without_thought: StudentSequence,
    /// Whether the explanation's end tag was written, and no other tag of the format before it.
    pub has_end_tag: bool,
    /// A tag of the format, or a special token, that the explanation itself writes: it ends the thought, or the
    /// turn, where neither ends. Costs what a missing end tag costs.
    pub forged: Option<String>,
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
        teacher_prefix: Vec<u32>,
        ids: &[u32],
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
        Self::new(formats, row, teacher_prefix, &think, explanation, name)
    }

    fn new(
        formats: &Formats,
        row: &QuestionRow,
        teacher_prefix: Vec<u32>,
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
        let forged = forged(formats.style, formats.student, explanation);
        Ok(Self { name, teacher_prefix, student, without_thought, has_end_tag: think.closed, forged })
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
        Self::from_sampled(formats, &trace.question, teacher_prefix, ids, name).map(Ok)
    }

    /// The think tokens.
    pub fn think_ids(&self) -> &[u32] {
        &self.student.continuation[self.student.think.clone()]
    }

    /// The tokens wholly inside the solution.
    pub fn solution_ids(&self) -> &[u32] {
        &self.student.continuation[self.student.solution.clone()]
    }

    /// Why no log-probabilities are asked for, if so.
    fn unscorable(&self, teacher_context: usize, student_context: usize) -> Option<Unscorable> {
        let teacher_tokens = self.teacher_prefix.len() + self.student.think.len();
        let student_tokens = self.student.prefix.len() + self.student.continuation.len();
        if self.student.think.is_empty() {
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
    /// What the explanation is worth, nats ([`explanation_value`]).
    pub explanation_value: Option<f32>,
}

impl ScoredSample {
    fn unscorable(reason: Unscorable, reward: &RewardConfig) -> Self {
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

/// Where the teacher's log-probabilities at the think tokens come from.
#[derive(Clone, Copy)]
pub enum Teacher<'a> {
    /// A model computes them at [`RewardConfig::teacher_temperature`].
    Model(&'a dyn TokenScorer),
    /// They were recorded while sampling, at that temperature and without truncation (top-k and the
    /// like): `[sample][completion token]`, nats. Those of the think tokens come first.
    Recorded(&'a [Vec<f32>]),
}

/// Scores `samples`: the teacher's log-probabilities at the think tokens, the student's at think and
/// solution tokens (and at the solution without any thought, once a question), then the reward. Samples with
/// equal prefixes share their computation.
///
/// # Errors
/// What the scorers report; [`Error::NonFinite`] for a number that is not finite; [`Error::Usage`] when whole
/// distributions are asked for and the teacher's log-probabilities were only recorded.
///
/// # Panics
/// When recorded log-probabilities are fewer than the samples or their think tokens.
pub fn score_samples(
    samples: &[RltSample],
    teacher: Teacher,
    student: &dyn TokenScorer,
    reward: &RewardConfig,
    tokens_per_batch: usize,
    progress: &dyn Progress,
) -> Result<Vec<ScoredSample>> {
    let teacher_context = match teacher {
        Teacher::Model(model) => model.context_tokens(),
        Teacher::Recorded(_) => usize::MAX,
    };
    let reasons: Vec<Option<Unscorable>> =
        samples.iter().map(|sample| sample.unscorable(teacher_context, student.context_tokens())).collect();
    let scorable: Vec<usize> = (0..samples.len()).filter(|&i| reasons[i].is_none()).collect();
    let of_teacher = || scorable.iter().map(|&i| Job::teacher(&samples[i])).collect::<Vec<_>>();
    // First the samples, then each distinct solution without a thought.
    let (mut of_student, alone) = jobs::with_baselines(scorable.iter().map(|&i| &samples[i]));

    let (teacher_logprobs, student_logprobs, divergence) = if reward.kl == KlEstimator::Full {
        let Teacher::Model(model) = teacher else {
            let what =
                "reward.kl = \"full\" needs the teacher itself, not log-probabilities that were recorded";
            return Err(Error::Usage(what.into()));
        };
        progress.start("full divergence", scorable.len() as u64, "completions");
        let baselines = of_student.split_off(scorable.len());
        let scores =
            full_scores(&of_teacher(), &of_student, model, student, reward, tokens_per_batch, progress)?;
        let temperature = reward.student_temperature;
        let mut student_logprobs = scores.student;
        student_logprobs.extend(job_logprobs(&baselines, student, temperature, tokens_per_batch, progress)?);
        progress.finish("");
        (scores.teacher, student_logprobs, scores.divergence)
    } else {
        let teacher_logprobs = match teacher {
            Teacher::Recorded(recorded) => {
                scorable.iter().map(|&i| recorded[i][..samples[i].student.think.len()].to_vec()).collect()
            }
            Teacher::Model(model) => {
                progress.start("teacher log-probabilities", scorable.len() as u64, "completions");
                let temperature = reward.teacher_temperature;
                let logprobs = job_logprobs(&of_teacher(), model, temperature, tokens_per_batch, progress)?;
                progress.finish("");
                logprobs
            }
        };
        progress.start("student log-probabilities", of_student.len() as u64, "sequences");
        let temperature = reward.student_temperature;
        let student_logprobs = job_logprobs(&of_student, student, temperature, tokens_per_batch, progress)?;
        progress.finish("");
        (teacher_logprobs, student_logprobs, vec![Vec::new(); scorable.len()])
    };

    let settings = reward.settings();
    let mut next = 0;
    let scored = samples.iter().zip(reasons).map(|(sample, reason)| {
        if let Some(reason) = reason {
            return Ok(ScoredSample::unscorable(reason, reward));
        }
        let job = next;
        next += 1;
        let (student, solution) = student_logprobs[job].split_at(sample.student.think.len());
        let without = student_logprobs[alone[job]].clone();
        check_finite(&sample.name, "student's solution log-probability without the explanation", &without)?;
        let score = rlt_reward(
            &RltInputs {
                sample: &sample.name,
                solution_logprobs: solution,
                student_think_logprobs: student,
                teacher_think_logprobs: &teacher_logprobs[job],
                full_divergence: &divergence[job],
                has_end_tag: sample.has_end_tag,
            },
            &settings,
        )?;
        Ok(ScoredSample {
            score,
            explanation_value: Some(explanation_value(solution, &without, &settings)),
            teacher_logprobs: teacher_logprobs[job].clone(),
            student_logprobs: student.to_vec(),
            solution_logprobs: solution.to_vec(),
            solution_logprobs_without: without,
        })
    });
    scored.collect()
}

/// Scores trace rows; the sample is absent where a row contradicts itself.
///
/// # Errors
/// As [`score_samples`], and [`crate::Error::Usage`] when teacher and student do not share a vocabulary.
pub fn score_traces(
    traces: &[TraceRow],
    formats: &Formats,
    teacher: &dyn TokenScorer,
    student: &dyn TokenScorer,
    reward: &RewardConfig,
    tokens_per_batch: usize,
    progress: &dyn Progress,
) -> Result<Vec<(Option<RltSample>, ScoredSample)>> {
    ChatText::check_same_vocabulary(formats.teacher, formats.student)?;
    let built =
        traces.par_iter().map(|trace| RltSample::from_trace(formats, trace)).collect::<Result<Vec<_>>>()?;
    let samples: Vec<RltSample> = built.iter().filter_map(|sample| sample.as_ref().ok().cloned()).collect();
    let mut scored =
        score_samples(&samples, Teacher::Model(teacher), student, reward, tokens_per_batch, progress)?
            .into_iter();
    let results = built.into_iter().map(|sample| match sample {
        Ok(sample) => (Some(sample), scored.next().expect("one result per sample")),
        Err(reason) => (None, ScoredSample::unscorable(reason, reward)),
    });
    Ok(results.collect())
}

#[cfg(test)]
mod tests;
