//! The sequences that a run will work on: the rows' own tokens, and completions as long as they may become.

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;

use super::shape::MicroBatch;
use crate::config::{Config, RewardKind};
use crate::dataset::read_questions;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle, Think};
use crate::training::EpochOrder;

/// Steps that are looked at: those with the most tokens among all, and the first ones.
const MOST_STEPS: usize = 12;

/// What one step works on. The ids stand for nothing but their number.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Tokens of the prompts that completions are sampled after.
    pub prompts: Vec<usize>,
    /// What is learnt from.
    pub learn: Vec<ScoringGroup>,
    /// What the student scores.
    pub score: Vec<ScoringGroup>,
}

/// What a run works on.
#[derive(Debug, Clone)]
pub struct Work {
    /// Some of its steps, with the largest among them.
    pub steps: Vec<Step>,
    /// All of its steps.
    pub total_steps: u64,
    /// Tokens of a completion.
    pub new_tokens: usize,
}

/// The work of `rlt sft`.
///
/// # Errors
/// What rows and tokenizer report.
pub fn of_sft(config: &Config, model: &ModelConfig, progress: &dyn Progress) -> Result<Work> {
    let tokenizer = Tokenizer::from_dir(&config.model.path)?;
    let rows = crate::sft::examples(config, model, &tokenizer, progress)?;
    let total_rows = ((config.sft.epochs * rows.len() as f64).round() as u64).max(1);
    let batch_rows = config.sft.batch_rows as u64;
    let mut order = EpochOrder::new(config.seed, rows.len());
    let total_steps = total_rows.div_ceil(batch_rows);
    let steps = chosen(total_steps, |step| {
        let positions = step * batch_rows..((step + 1) * batch_rows).min(total_rows);
        let of_step = order.rows(positions).into_iter().map(|row| &rows[row].example);
        let learn = of_step.map(|example| ScoringGroup::single(example.ids.clone(), example.loss.clone()));
        Step { learn: learn.collect(), ..Step::default() }
    });
    Ok(Work { steps, total_steps, new_tokens: 0 })
}

/// The work of `rlt train`, every completion as long as `sampling.max_new_tokens` allows.
///
/// # Errors
/// What rows and tokenizers report.
pub fn of_grpo(config: &Config, model: &ModelConfig, progress: &dyn Progress) -> Result<Work> {
    let style = PromptStyle::resolve(&config.prompts)?;
    let chat = ChatText::from_dir(&config.model.path)?;
    let scored = config.reward.kind == RewardKind::Rlt;
    let student = if scored { Some(ChatText::from_dir(&config.model.student)?) } else { None };
    let context = model.max_position_embeddings;
    let mut limit = context - 1;
    if config.data.max_prompt_tokens > 0 {
        limit = limit.min(config.data.max_prompt_tokens);
    }
    // Tokens of the prompt, and of the student's sequence before and after the thought.
    let mut rows = Vec::new();
    for row in read_questions(&config.data)? {
        let row = match &student {
            Some(student) => {
                let sequence = style.student_sequence(student, &row, &Think::empty())?;
                let prompt = style.teacher_prompt(&chat, &row)?.len();
                (prompt, sequence.prefix.len(), sequence.continuation.len())
            }
            None => (style.student_question_prompt(&chat, &row)?.len(), 0, 0),
        };
        if row.0 <= limit {
            rows.push(row);
        }
    }
    if rows.is_empty() {
        let path = config.data.path.display();
        return Err(Error::Failed(format!(
            "{path}: all prompts are longer than {limit} tokens; raise data.max_prompt_tokens or use a model with a \
             longer context"
        )));
    }
    progress.note("completions count as long as sampling.max_new_tokens allows");
    let grpo = &config.grpo;
    let (per_step, group_size) = (grpo.questions_per_step as u64, grpo.group_size);
    let new_tokens = config.sampling.max_new_tokens;
    let mut order = EpochOrder::new(config.seed, rows.len());
    let steps = chosen(grpo.steps as u64, |step| {
        let of_step = order.rows(step * per_step..(step + 1) * per_step).into_iter().map(|row| rows[row]);
        let of_step: Vec<(usize, usize, usize)> = of_step.collect();
        let learn = of_step.iter().map(|&(prompt, ..)| {
            let completion = vec![0; new_tokens.min(context - prompt).max(1)];
            ScoringGroup {
                prefix: vec![0; prompt],
                continuations: vec![Continuation::whole(completion); group_size],
            }
        });
        let score = of_step.iter().filter(|_| scored).map(|&(_, before, after)| {
            let mut continuations = vec![Continuation::whole(vec![0; new_tokens + after]); group_size];
            continuations.push(Continuation::whole(vec![0; after]));
            ScoringGroup { prefix: vec![0; before], continuations }
        });
        Step {
            prompts: of_step.iter().map(|row| row.0).collect(),
            learn: learn.collect(),
            score: score.collect(),
        }
    });
    Ok(Work { steps, total_steps: grpo.steps as u64, new_tokens })
}

/// The first steps of `total`, and the ones with the most rows.
fn chosen(total: u64, mut step: impl FnMut(u64) -> Step) -> Vec<Step> {
    let rows = |step: &Step| -> usize { step.learn.iter().map(ScoringGroup::n_rows).sum() };
    let mut steps: Vec<Step> = Vec::new();
    for index in 0..total.min(1000) {
        let next = step(index);
        if steps.len() < MOST_STEPS {
            steps.push(next);
        } else if let Some(last) = steps[MOST_STEPS / 2..].iter_mut().min_by_key(|kept| rows(kept))
            && rows(last) < rows(&next)
        {
            *last = next;
        }
    }
    steps
}

/// The micro-batches of `groups`.
pub fn micro_batches(groups: &[ScoringGroup], max_rows: usize) -> Vec<MicroBatch> {
    let of_part = |part: Vec<ScoringGroup>| {
        let mut batch = MicroBatch { rows: 0, targets: 0, keys: 0 };
        for group in &part {
            batch.rows += group.n_rows();
            let prefix = group.prefix.len();
            batch.keys += triangle(prefix);
            for continuation in &group.continuations {
                batch.targets += continuation.n_scored();
                let n = continuation.n_rows();
                batch.keys += (prefix * n) as u64 + triangle(n);
            }
        }
        batch
    };
    rlt_model::batch::micro_batches(groups, max_rows).into_iter().map(of_part).collect()
}

/// `1 + 2 + .. + n`.
fn triangle(n: usize) -> u64 {
    (n * (n + 1) / 2) as u64
}
