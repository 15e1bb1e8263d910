//! The RLT reward of completions, from text or ids to parts.
//!
//! A [`RltSample`] holds both sequences of one completion; [`score_samples`] asks teacher and student for
//! the log-probabilities and hands them to [`crate::reward::rlt`]. Training and `rlt score` share this.

use std::collections::HashMap;
use std::ops::Range;

use rlt_model::batch::{Continuation, ScoringGroup};
use serde_json::{Map, Value, json};

use crate::config::RewardConfig;
use crate::dataset::{QuestionRow, TraceRow};
use crate::error::Result;
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle, StudentSequence, Think};
use crate::reward::rlt::{RltInputs, RltScore, Unscorable, rlt_reward};
use crate::scorer::TokenScorer;

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
    /// Whether the explanation's end tag was written.
    pub has_end_tag: bool,
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
        let student = formats.style.student_sequence(formats.student, row, &think)?;
        Ok(Self { name, teacher_prefix, student, has_end_tag: think.closed })
    }

    /// From a completion that is known as text only.
    ///
    /// # Errors
    /// What tokenizer and chat template report.
    pub fn from_text(formats: &Formats, row: &QuestionRow, completion: &str, name: String) -> Result<Self> {
        let prompt = formats.style.teacher_prompt_text(formats.teacher, row)?;
        let end_tag = &formats.style.end_of_explanation;
        let (teacher_prefix, think) =
            Think::from_text(&formats.teacher.tokenizer, end_tag, &prompt, completion)?;
        let student = formats.style.student_sequence(formats.student, row, &think)?;
        Ok(Self { name, teacher_prefix, student, has_end_tag: think.closed })
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
}

impl ScoredSample {
    fn unscorable(reason: Unscorable, reward: &RewardConfig) -> Self {
        Self {
            score: RltScore::unscorable(reason, reward),
            teacher_logprobs: Vec::new(),
            student_logprobs: Vec::new(),
            solution_logprobs: Vec::new(),
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
/// solution tokens, then the reward. Samples with equal prefixes share their computation.
///
/// # Errors
/// What the scorers report; [`crate::Error::NonFinite`] for a number that is not finite.
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

    let teacher_logprobs = match teacher {
        Teacher::Recorded(recorded) => {
            scorable.iter().map(|&i| recorded[i][..samples[i].student.think.len()].to_vec()).collect()
        }
        Teacher::Model(model) => {
            let jobs: Vec<Job> = scorable.iter().map(|&i| Job::teacher(&samples[i])).collect();
            progress.start("teacher log-probabilities", jobs.len() as u64, "completions");
            let logprobs =
                job_logprobs(&jobs, model, reward.teacher_temperature, tokens_per_batch, progress)?;
            progress.finish("");
            logprobs
        }
    };
    let jobs: Vec<Job> = scorable.iter().map(|&i| Job::student(&samples[i])).collect();
    progress.start("student log-probabilities", jobs.len() as u64, "completions");
    let student_logprobs =
        job_logprobs(&jobs, student, reward.student_temperature, tokens_per_batch, progress)?;
    progress.finish("");

    let mut logprobs = teacher_logprobs.into_iter().zip(student_logprobs);
    let scored = samples.iter().zip(reasons).map(|(sample, reason)| {
        if let Some(reason) = reason {
            return Ok(ScoredSample::unscorable(reason, reward));
        }
        let (teacher_logprobs, mut student_logprobs) = logprobs.next().expect("one job per scorable sample");
        let solution_logprobs = student_logprobs.split_off(sample.student.think.len());
        let score = rlt_reward(
            &RltInputs {
                sample: &sample.name,
                solution_logprobs: &solution_logprobs,
                student_think_logprobs: &student_logprobs,
                teacher_think_logprobs: &teacher_logprobs,
                has_end_tag: sample.has_end_tag,
            },
            reward,
        )?;
        Ok(ScoredSample { score, teacher_logprobs, student_logprobs, solution_logprobs })
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
        traces.iter().map(|trace| RltSample::from_trace(formats, trace)).collect::<Result<Vec<_>>>()?;
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

/// Columns `reward` and `parts` of a scored row; parts that cannot be known are null.
pub fn score_columns(sample: Option<&RltSample>, scored: &ScoredSample) -> Map<String, Value> {
    let parts = scored.score.parts.as_ref().ok();
    let part = |value: fn(&crate::reward::rlt::RltParts) -> f32| parts.map(|parts| number(value(parts)));
    let count = |value: fn(&StudentSequence) -> usize| sample.map(|sample| value(&sample.student));
    let parts = json!({
        "solution_logprob_mean": part(|p| p.solution_logprob_mean),
        "solution_logprob_min": part(|p| p.solution_logprob_min),
        "kl_mean": part(|p| p.kl_mean),
        "kl_max": part(|p| p.kl_max),
        "format_penalty": number(scored.score.format_penalty),
        "r_ss": part(|p| p.r_ss),
        "r_kl": part(|p| p.r_kl),
        "reward_no_entropy": part(|p| p.reward_no_entropy),
        "n_think": count(|s| s.think.len()),
        "n_solution": count(|s| s.solution.len()),
        "n_boundary": count(|s| s.n_boundary),
        "status": scored.score.status(),
    });
    Map::from_iter([("reward".to_owned(), number(scored.score.reward)), ("parts".to_owned(), parts)])
}

/// The per-token columns: token texts and log-probabilities (nats) of thought and solution, and D_j.
pub fn ledger_columns(sample: &RltSample, scored: &ScoredSample, chat: &ChatText) -> Map<String, Value> {
    let texts =
        |ids: &[u32]| ids.iter().map(|&id| Value::from(chat.tokenizer.decode(&[id]))).collect::<Value>();
    let numbers = |values: &[f32]| values.iter().copied().map(number).collect::<Value>();
    let d_j = scored.score.parts.as_ref().map_or(&[][..], |parts| &parts.d_j);
    Map::from_iter([
        ("think_tokens".to_owned(), texts(sample.think_ids())),
        ("d_j".to_owned(), numbers(d_j)),
        ("teacher_logprobs".to_owned(), numbers(&scored.teacher_logprobs)),
        ("student_logprobs".to_owned(), numbers(&scored.student_logprobs)),
        ("solution_tokens".to_owned(), texts(sample.solution_ids())),
        ("solution_logprobs".to_owned(), numbers(&scored.solution_logprobs)),
    ])
}

/// An `f32` as its own shortest decimal, not as that of the nearest `f64`.
fn number(value: f32) -> Value {
    Value::from(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
}

/// One sequence and the positions of its continuation that are wanted.
struct Job<'a> {
    prefix: &'a [u32],
    continuation: &'a [u32],
    scored: Vec<Range<usize>>,
}

impl<'a> Job<'a> {
    fn teacher(sample: &'a RltSample) -> Self {
        let think = sample.think_ids();
        Self {
            prefix: &sample.teacher_prefix,
            continuation: think,
            scored: vec![sample.student.think.clone()],
        }
    }

    fn student(sample: &'a RltSample) -> Self {
        let StudentSequence { prefix, continuation, think, solution, .. } = &sample.student;
        // Nothing after the solution is needed.
        Self {
            prefix,
            continuation: &continuation[..solution.end],
            scored: vec![think.clone(), solution.clone()],
        }
    }
}

/// Log-probabilities of each job's scored positions, in the order of `jobs`.
fn job_logprobs(
    jobs: &[Job],
    scorer: &dyn TokenScorer,
    temperature: f32,
    tokens_per_batch: usize,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f32>>> {
    let mut logprobs = vec![Vec::new(); jobs.len()];
    for batch in batches(jobs, tokens_per_batch) {
        let groups: Vec<ScoringGroup> = batch.iter().map(|members| scoring_group(jobs, members)).collect();
        let results = scorer.token_logprobs(&groups, temperature, tokens_per_batch)?;
        for (members, group) in batch.iter().zip(results) {
            for (&job, values) in members.iter().zip(group) {
                logprobs[job] = values;
            }
        }
        progress.advance(batch.iter().map(Vec::len).sum::<usize>() as u64, "");
    }
    Ok(logprobs)
}

fn scoring_group(jobs: &[Job], members: &[usize]) -> ScoringGroup {
    ScoringGroup {
        prefix: jobs[members[0]].prefix.to_vec(),
        continuations: members
            .iter()
            .map(|&job| Continuation {
                ids: jobs[job].continuation.to_vec(),
                scored: jobs[job].scored.clone(),
            })
            .collect(),
    }
}

/// Jobs by equal prefix, in the order of first appearance, and as many such groups to a batch as fit
/// `tokens_per_batch` (one at least).
fn batches(jobs: &[Job], tokens_per_batch: usize) -> Vec<Vec<Vec<usize>>> {
    let mut by_prefix: HashMap<&[u32], usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, job) in jobs.iter().enumerate() {
        let group = *by_prefix.entry(job.prefix).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(i);
    }
    let mut batches: Vec<Vec<Vec<usize>>> = Vec::new();
    let mut used = 0;
    for group in groups {
        let tokens = jobs[group[0]].prefix.len()
            + group.iter().map(|&job| jobs[job].continuation.len()).sum::<usize>();
        match batches.last_mut() {
            Some(batch) if used + tokens <= tokens_per_batch => {
                used += tokens;
                batch.push(group);
            }
            _ => {
                used = tokens;
                batches.push(vec![group]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests;
