//! Sequences to score, batched: by equal prefix and by a budget of tokens.

use std::collections::HashMap;
use std::ops::Range;

use rlt_model::ScoredStates;
use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::ids::TokenIds;

use super::RltSample;
use crate::config::RewardConfig;
use crate::error::Result;
use crate::progress::Progress;
use crate::prompts::StudentSequence;
use crate::scorer::Scorer;
use crate::whole_vocabulary::check_rows;

/// One sequence and the positions of its continuation that are wanted.
pub(super) struct Job<'a> {
    prefix: &'a TokenIds,
    continuation: Continuation,
}

impl<'a> Job<'a> {
    pub(super) fn teacher(sample: &'a RltSample) -> Self {
        Self {
            prefix: &sample.teacher_prefix,
            continuation: Continuation::whole(sample.student.thought.clone()),
        }
    }

    pub(super) fn student(sequence: &'a StudentSequence) -> Self {
        let StudentSequence { prefix, thought, suffix, solution, .. } = sequence;
        Self {
            prefix,
            continuation: Continuation {
                ids: thought.clone(),
                // Nothing after the solution is needed.
                then: suffix.part(0..solution.end - thought.len()),
                scored: vec![sequence.think(), solution.clone()],
            },
        }
    }

    /// The student's at the solution without a thought.
    fn baseline(sequence: &'a StudentSequence) -> Self {
        let mut job = Self::student(sequence);
        job.continuation.scored.remove(0);
        job
    }
}

/// The student's jobs of `samples`, then one for each distinct solution without a thought; and for every sample
/// the index of the latter.
pub(super) fn with_baselines<'a>(
    samples: impl Iterator<Item = &'a RltSample> + Clone,
) -> (Vec<Job<'a>>, Vec<usize>) {
    let mut jobs: Vec<Job> = samples.clone().map(|sample| Job::student(&sample.student)).collect();
    let mut known: HashMap<(&[u32], &[u32]), usize> = HashMap::new();
    let alone = samples.map(|sample| {
        let sequence = &sample.without_thought;
        *known.entry((&sequence.prefix, &sequence.suffix[..sequence.solution.end])).or_insert_with(|| {
            jobs.push(Job::baseline(sequence));
            jobs.len() - 1
        })
    });
    let alone = alone.collect();
    (jobs, alone)
}

/// Log-probabilities of each job's scored positions, in the order of `jobs`.
pub(super) fn job_logprobs(
    jobs: &[Job],
    scorer: &dyn Scorer,
    temperature: f32,
    tokens_per_batch: usize,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f32>>> {
    let mut logprobs = vec![Vec::new(); jobs.len()];
    for batch in batches(jobs, scorer.tokens_at_once(tokens_per_batch)) {
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

/// In the memory of the jobs.
fn scoring_group(jobs: &[Job], members: &[usize]) -> ScoringGroup {
    ScoringGroup {
        prefix: jobs[members[0]].prefix.clone(),
        continuations: members.iter().map(|&job| jobs[job].continuation.clone()).collect(),
    }
}

/// Indices by equal prefix, in the order of first appearance.
fn by_prefix<'a>(prefixes: impl Iterator<Item = &'a [u32]>) -> Vec<Vec<usize>> {
    let mut known: HashMap<&[u32], usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, prefix) in prefixes.enumerate() {
        let group = *known.entry(prefix).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(i);
    }
    groups
}

/// Jobs by equal prefix, in the order of first appearance, and as many such groups to a batch as fit
/// `tokens_per_batch` (one at least).
pub(super) fn batches(jobs: &[Job], tokens_per_batch: usize) -> Vec<Vec<Vec<usize>>> {
    let groups = by_prefix(jobs.iter().map(|job| &**job.prefix));
    let mut batches: Vec<Vec<Vec<usize>>> = Vec::new();
    let mut used = 0;
    for group in groups {
        let tokens = jobs[group[0]].prefix.len()
            + group.iter().map(|&job| jobs[job].continuation.n_tokens()).sum::<usize>();
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

/// Log-probabilities and divergences, each `[job][scored token]`, nats.
pub(super) struct FullScores {
    pub teacher: Vec<Vec<f32>>,
    pub student: Vec<Vec<f32>>,
    /// KL(pi_T || pi_S) over the vocabulary, one per scored token of the teacher's job.
    pub divergence: Vec<Vec<f32>>,
}

/// One forward pass of each model for log-probabilities and divergences. `teacher_jobs[i]` scores the think
/// tokens of sample i, `student_jobs[i]` the same tokens and more after them.
pub(super) fn full_scores(
    teacher_jobs: &[Job],
    student_jobs: &[Job],
    teacher: &dyn Scorer,
    student: &dyn Scorer,
    reward: &RewardConfig,
    tokens_per_batch: usize,
    progress: &dyn Progress,
) -> Result<FullScores> {
    let empty = || vec![Vec::new(); teacher_jobs.len()];
    let mut scores = FullScores { teacher: empty(), student: empty(), divergence: empty() };
    let (of_teacher, of_student) = (reward.teacher_temperature, reward.student_temperature);
    for batch in batches(student_jobs, tokens_per_batch) {
        let members: Vec<usize> = batch.into_iter().flatten().collect();
        // A group beyond the budget is held in parts: the states of all its tokens might not fit.
        for members in within_budget(&members, student_jobs, tokens_per_batch) {
            let (p, p_rows) = states(members, teacher_jobs, teacher, tokens_per_batch)?;
            let (q, q_rows) = states(members, student_jobs, student, tokens_per_batch)?;
            check_rows(
                [p.vocabulary(), q.vocabulary()],
                "reward.kl = \"full\"",
                "choose another reward.kl, or another student",
            )?;
            let think: Vec<Range<usize>> =
                p_rows.iter().zip(&q_rows).map(|(p, q)| q.start..q.start + p.len()).collect();
            let divergence = p.divergence(&p_rows, of_teacher, &q, &think, of_student);
            let (p, q) = (p.logprobs(of_teacher), q.logprobs(of_student));
            let mut done = 0;
            for (i, &job) in members.iter().enumerate() {
                scores.teacher[job] = p[p_rows[i].clone()].to_vec();
                scores.student[job] = q[q_rows[i].clone()].to_vec();
                scores.divergence[job] = divergence[done..done + p_rows[i].len()].to_vec();
                done += p_rows[i].len();
            }
            progress.advance(members.len() as u64, "");
        }
    }
    Ok(scores)
}

/// Cuts `members` where their scored tokens pass the budget (one at least in each part).
fn within_budget<'a>(members: &'a [usize], jobs: &[Job], tokens: usize) -> Vec<&'a [usize]> {
    let (mut parts, mut first, mut used) = (Vec::new(), 0, 0);
    for (i, &job) in members.iter().enumerate() {
        let need = jobs[job].continuation.n_tokens();
        if i > first && used + need > tokens {
            parts.push(&members[first..i]);
            (first, used) = (i, 0);
        }
        used += need;
    }
    parts.push(&members[first..]);
    parts
}

/// States of the jobs `members`, and where each job's lie among them.
fn states<'s>(
    members: &[usize],
    jobs: &[Job],
    scorer: &'s dyn Scorer,
    tokens_per_batch: usize,
) -> Result<(ScoredStates<'s>, Vec<Range<usize>>)> {
    let (groups, order): (Vec<ScoringGroup>, Vec<usize>) = {
        let own: Vec<&Job> = members.iter().map(|&job| &jobs[job]).collect();
        let by_prefix = by_prefix(own.iter().map(|job| &**job.prefix));
        let order = by_prefix.iter().flatten().copied().collect();
        let group = |group: &Vec<usize>| {
            let members: Vec<usize> = group.iter().map(|&i| members[i]).collect();
            scoring_group(jobs, &members)
        };
        (by_prefix.iter().map(group).collect(), order)
    };
    let states = scorer.scored_states(&groups, tokens_per_batch)?;
    let (mut rows, mut done) = (vec![0..0; members.len()], 0);
    for i in order {
        let n = jobs[members[i]].continuation.n_scored();
        rows[i] = done..done + n;
        done += n;
    }
    Ok((states, rows))
}
