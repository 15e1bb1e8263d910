//! The RLT reward of completions, from text or ids to parts.
//!
//! A [`RltSample`] holds both sequences of one completion; [`score_samples`] asks teacher and student for
//! the log-probabilities and hands them to [`rlt_reward::rlt`]. Training and `rlt score` share this.

pub(crate) mod added;
mod columns;
mod jobs;
mod sample;
mod wire;

use rayon::prelude::*;

use crate::config::{KlEstimator, RewardConfig};
use crate::dataset::TraceRow;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::prompts::ChatText;
use crate::scorer::Scorer;
use jobs::{Job, full_scores, job_logprobs};
use rlt_reward::rlt::{RltInputs, Unscorable, check_finite, explanation_value, rlt_reward};

pub(crate) use added::PartName;
pub(crate) use columns::number;
pub use columns::{NGRAM_TOKENS, ledger_columns, score_columns};
pub use sample::{Formats, RltSample, ScoredSample, forged, is_blank};

/// Where the teacher's log-probabilities at the think tokens come from.
#[derive(Clone, Copy)]
pub enum Teacher<'a> {
    /// A model computes them at [`RewardConfig::teacher_temperature`].
    Model(&'a dyn Scorer),
    /// They were recorded while sampling, at that temperature and without truncation (top-k and the
    /// like): `[sample][completion token]`, nats. Those of the think tokens come first.
    Recorded(&'a [&'a [f32]]),
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
    student: &dyn Scorer,
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
                scorable.iter().map(|&i| recorded[i][..samples[i].student.thought.len()].to_vec()).collect()
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
        let (student, solution) = student_logprobs[job].split_at(sample.student.thought.len());
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
    teacher: &dyn Scorer,
    student: &dyn Scorer,
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
