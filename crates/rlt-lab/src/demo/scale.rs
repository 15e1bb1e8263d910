//! How much of everything a demo does.

use crate::pretrained::Pretrained;
use crate::worlds::{ModelShape, Sizes};

/// How large a demo is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DemoScale {
    /// Two minutes on two cores: students that differ, figures worth reading.
    #[default]
    Full,
    /// Twenty seconds: every stage, too little of each to show what the method is worth.
    Tiny,
}

/// What a scale comes to.
pub(super) struct Amounts {
    pub sizes: Sizes,
    pub shape: ModelShape,
    /// Steps of RL; none for those of the configuration.
    pub rl_steps: Option<usize>,
    /// Held-out questions that base model and students answer, and answers to each.
    pub eval_questions: usize,
    pub eval_samples: usize,
    /// Training questions that both teachers explain, for the students.
    pub explained_questions: usize,
    /// Held-out questions that both teachers explain, for the report.
    pub shown_questions: usize,
    /// Seconds of each stage, on a machine that takes [`super::forecast::PROBE_SECONDS`] for the probe.
    pub stage_seconds: [f64; 9],
}

impl Amounts {
    /// As much as is asked for of a pretrained base.
    pub fn of_pretrained(pretrained: &Pretrained) -> Self {
        let &Pretrained { rows, steps, .. } = pretrained;
        Self {
            sizes: Sizes {
                textbook: 0,
                teacher_sft: rows,
                questions_train: rows.max(steps * Pretrained::QUESTIONS_PER_STEP),
                questions_heldout: 100,
            },
            rl_steps: Some(steps),
            eval_questions: 100,
            eval_samples: 1,
            explained_questions: rows,
            ..DemoScale::Full.amounts()
        }
    }
}

impl DemoScale {
    /// The folder under `runs/` where a demo of this scale writes if none is named.
    pub fn default_name(self) -> &'static str {
        match self {
            Self::Full => "demo",
            Self::Tiny => "demo-tiny",
        }
    }

    pub(super) fn amounts(self) -> Amounts {
        match self {
            Self::Full => Amounts {
                sizes: Sizes::default(),
                shape: ModelShape::default(),
                rl_steps: None,
                eval_questions: 300,
                eval_samples: 2,
                explained_questions: 1500,
                shown_questions: 6,
                stage_seconds: [0.2, 52.3, 18.3, 31.0, 4.4, 4.8, 5.4, 2.0, 0.1],
            },
            Self::Tiny => Amounts {
                sizes: Sizes {
                    textbook: 5000,
                    teacher_sft: 2000,
                    questions_train: 200,
                    questions_heldout: 100,
                },
                shape: ModelShape::default(),
                rl_steps: Some(4),
                eval_questions: 100,
                eval_samples: 1,
                explained_questions: 200,
                shown_questions: 6,
                stage_seconds: [0.1, 7.3, 3.1, 3.1, 0.6, 0.7, 0.7, 0.4, 0.1],
            },
        }
    }
}
