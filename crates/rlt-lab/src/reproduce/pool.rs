//! A pool of traces with their rewards, cut into groups (figure 4b).

use std::path::Path;

use super::fig4b::TraceGroup;
use super::work::SeedWork;
use crate::miniature::{TeacherTraces, write_student_rows};
use crate::worlds::{World, WorldContent};
use rlt_method::config::Config;
use rlt_method::error::Result;
use rlt_method::evaluate::metrics::mean;
use rlt_method::prompts::ChatText;
use rlt_method::score::{Formats, score_traces};
use rlt_method::traces::flaw;
use rlt_method::traces::select::relative_groups;
use rlt_method::training::run::frozen_model;

/// Tokens that are scored at once.
const TOKENS_PER_BATCH: usize = 16_384;

/// Traces and what they earn.
pub struct TracePool {
    explained: TeacherTraces,
    /// None for a trace that no student can learn from.
    rewards: Vec<Option<f64>>,
    /// Think tokens.
    lengths: Vec<f64>,
}

impl SeedWork<'_> {
    /// `n` traces of each row of `config.data` by the teacher in `config.model.path`, with the reward that
    /// `student` gives.
    ///
    /// # Errors
    /// What explaining and scoring report.
    pub fn scored_pool(&self, config: &Config, student: &Path, n: usize) -> Result<TracePool> {
        let explained = self.miniature.explain(config, n)?;
        let TeacherTraces { traces, style, chat } = &explained;
        let student_chat = ChatText::from_dir(student)?;
        let formats = Formats { style, teacher: chat, student: &student_chat };
        let teacher = frozen_model(&config.model, &config.model.path)?;
        let student = frozen_model(&config.model, student)?;
        let progress = self.miniature.progress;
        let scored =
            score_traces(traces, &formats, &teacher, &student, &config.reward, TOKENS_PER_BATCH, progress)?;
        let rewards = traces
            .iter()
            .zip(&scored)
            .map(|(trace, (_, scored))| {
                let usable = scored.score.parts.is_ok() && flaw(trace, style, chat).is_none();
                usable.then_some(f64::from(scored.score.reward))
            })
            .collect();
        let length = |sample: &Option<rlt_method::score::RltSample>| {
            sample.as_ref().map_or(0.0, |sample| sample.think_ids().len() as f64)
        };
        let lengths = scored.iter().map(|(sample, _)| length(sample)).collect();
        Ok(TracePool { explained, rewards, lengths })
    }
}

impl TracePool {
    /// Writes `k` groups by relative reward ([`relative_groups`]), best first, as `group-01.jsonl` and so on, and describes them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_groups(&self, folder: &Path, k: usize) -> Result<Vec<TraceGroup>> {
        let TeacherTraces { traces, style, chat } = &self.explained;
        let questions: Vec<&str> = traces.iter().map(|trace| trace.question.question.as_str()).collect();
        let groups = relative_groups(&questions, &self.rewards, k);
        let describe = |(index, members): (usize, &Vec<usize>)| {
            let rows: Vec<_> = members.iter().map(|&i| traces[i].clone()).collect();
            write_student_rows(&folder.join(format!("group-{:02}.jsonl", index + 1)), &rows, style, chat)?;
            let over = |value: &dyn Fn(usize) -> f64| {
                mean(members.iter().map(|&i| value(i)).collect::<Vec<_>>().into_iter())
            };
            let right_steps = |i: usize| {
                let trace = &traces[i];
                World::Market.right_steps(&trace.question.question, &trace.explanation).unwrap_or(0.0)
            };
            Ok(TraceGroup {
                reward: over(&|i| self.rewards[i].unwrap_or(0.0)),
                tokens: over(&|i| self.lengths[i]),
                right_steps: over(&right_steps),
                n: members.len(),
            })
        };
        groups.iter().enumerate().map(describe).collect()
    }
}
