//! What a run was, as its files tell.

use serde::Serialize;

use super::run_files::RunFiles;

/// What the run was: decides the opening words.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunKind {
    Demo,
    Rlt,
    Correctness,
    Sft,
    Evaluation,
}

impl RunKind {
    pub fn of(files: &RunFiles) -> Self {
        let logged = |metric: &str| files.metrics.iter().any(|row| row.contains_key(metric));
        if files.demo.is_some() {
            Self::Demo
        } else if logged("r_ss_mean") {
            Self::Rlt
        } else if logged("reward_mean") {
            Self::Correctness
        } else if files.metrics.is_empty() {
            Self::Evaluation
        } else {
            Self::Sft
        }
    }
}
