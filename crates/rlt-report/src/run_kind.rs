//! What a run was, as its files tell.

use serde::Serialize;

use super::run_files::RunFiles;
use rlt_method::metrics::{DIVERGENCE, Metric, R_SS, REWARD};

/// What the run was: decides the opening words.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunKind {
    Demo,
    Rlt,
    Correctness,
    Distillation,
    Sft,
    Evaluation,
}

impl RunKind {
    pub fn of(files: &RunFiles) -> Self {
        let logged = |metric: Metric| files.metrics.iter().any(|row| metric.is_in(row));
        if files.demo.is_some() {
            Self::Demo
        } else if logged(R_SS.mean) {
            Self::Rlt
        } else if logged(DIVERGENCE) {
            Self::Distillation
        } else if logged(REWARD.mean) {
            Self::Correctness
        } else if files.metrics.is_empty() {
            Self::Evaluation
        } else {
            Self::Sft
        }
    }
}
