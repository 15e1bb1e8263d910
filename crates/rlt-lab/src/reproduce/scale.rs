//! How much of everything: the recipes are the same at every scale.

use crate::pretrained::Pretrained;
use crate::worlds::{ModelShape, Sizes};

/// Rows, steps, questions and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// The name in tables and on the page.
    pub name: &'static str,
    /// Rows of the market world.
    pub market: Sizes,
    /// Rows of the Countdown world. Figure 4a's base model and warm-up read half as many rows of the market world
    /// beside them.
    pub numbers: Sizes,
    /// The models, teachers and students alike.
    pub shape: ModelShape,
    /// The student that is larger than its teacher.
    pub larger: ModelShape,
    /// Steps of a teacher's RL, of either kind.
    pub rl_steps: usize,
    /// Questions a step of RL.
    pub questions_per_step: usize,
    /// Completions a question.
    pub group_size: usize,
    /// Questions whose explanations a student learns from: the full set.
    pub explained: usize,
    /// The small set.
    pub explained_small: usize,
    /// Held-out questions that each model answers.
    pub eval_questions: usize,
    /// Answers to each.
    pub eval_samples: usize,
    /// Steps of RL after a cold start.
    pub cold_steps: usize,
    /// Held-out questions during RL.
    pub watched_questions: usize,
    /// Steps between two looks at them.
    pub watched_every: usize,
    /// Questions of the trace pool of figure 4b.
    pub pool_questions: usize,
    /// Traces of each.
    pub pool_samples: usize,
    /// Groups the pool is cut into.
    pub groups: usize,
    /// Base models between table 1's weak one and its usual one, by how many of the textbook's 36 parts they have read.
    pub base_parts: &'static [usize],
    /// Every ablation and every cousin, or those that are enough for a first look.
    pub every_variant: bool,
    /// Whether table 1 has what begins from a base model of another size or strength.
    pub with_other_bases: bool,
    /// Whether table 1 has a larger student.
    pub with_larger: bool,
    /// The base model, where it is a pretrained one.
    pub pretrained: Option<Pretrained>,
}

impl Scale {
    /// What `rlt reproduce` runs: about an hour a seed on two cores.
    pub fn full() -> Self {
        Self {
            name: "full",
            market: Sizes::default(),
            numbers: Sizes {
                textbook: 40_000,
                teacher_sft: 10_000,
                questions_train: 2_000,
                questions_heldout: 500,
            },
            shape: ModelShape::default(),
            larger: ModelShape {
                hidden_size: 192,
                intermediate_size: 384,
                n_heads: 6,
                ..ModelShape::default()
            },
            rl_steps: 40,
            questions_per_step: 16,
            group_size: 16,
            explained: 1500,
            explained_small: 150,
            eval_questions: 300,
            eval_samples: 2,
            cold_steps: 20,
            watched_questions: 200,
            watched_every: 5,
            pool_questions: 250,
            pool_samples: 16,
            groups: 16,
            base_parts: &[20, 22, 24],
            every_variant: true,
            with_other_bases: true,
            with_larger: true,
            pretrained: None,
        }
    }

    /// What `--base` runs: the recipes that one base model is enough for, as much of them as it says.
    pub fn pretrained(pretrained: Pretrained) -> Self {
        let Pretrained { rows, steps, .. } = pretrained;
        let tenth = (rows / 10).max(1);
        let sizes = Sizes {
            textbook: rows,
            teacher_sft: rows,
            questions_train: rows.max(steps * Pretrained::QUESTIONS_PER_STEP),
            questions_heldout: 100,
        };
        Self {
            name: "on a pretrained base",
            market: sizes,
            numbers: sizes,
            rl_steps: steps,
            questions_per_step: Pretrained::QUESTIONS_PER_STEP,
            group_size: Pretrained::GROUP_SIZE,
            explained: rows,
            explained_small: tenth,
            eval_questions: 50,
            eval_samples: 1,
            cold_steps: steps,
            watched_questions: 20,
            pool_questions: tenth,
            pool_samples: 8,
            groups: 8,
            every_variant: false,
            with_other_bases: false,
            with_larger: false,
            pretrained: Some(pretrained),
            ..Self::full()
        }
    }

    /// What `--quick` runs: the same base model and teachers, fewer questions, steps and groups.
    pub fn quick() -> Self {
        Self {
            name: "quick",
            numbers: Sizes { textbook: 36_000, teacher_sft: 8_000, ..Self::full().numbers },
            explained: 1000,
            eval_questions: 200,
            eval_samples: 1,
            cold_steps: 10,
            watched_questions: 100,
            pool_questions: 150,
            pool_samples: 8,
            groups: 8,
            base_parts: &[22],
            every_variant: false,
            with_larger: false,
            ..Self::full()
        }
    }

    /// Every stage in seconds, for tests: the numbers mean nothing.
    pub fn tiny() -> Self {
        let sizes = Sizes { textbook: 48, teacher_sft: 32, questions_train: 24, questions_heldout: 12 };
        let shape = ModelShape {
            hidden_size: 32,
            intermediate_size: 64,
            n_layers: 1,
            n_heads: 2,
            ..ModelShape::default()
        };
        Self {
            name: "tiny",
            market: sizes,
            numbers: sizes,
            shape,
            larger: shape,
            rl_steps: 2,
            questions_per_step: 2,
            group_size: 2,
            explained: 12,
            explained_small: 6,
            eval_questions: 6,
            eval_samples: 2,
            cold_steps: 2,
            watched_questions: 4,
            watched_every: 1,
            pool_questions: 4,
            pool_samples: 24,
            groups: 4,
            base_parts: &[22],
            every_variant: false,
            with_other_bases: true,
            with_larger: false,
            pretrained: None,
        }
    }
}
