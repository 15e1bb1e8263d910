//! The sequences that a run will work on: the rows' own tokens, and completions as long as they may become.

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;

use super::shape::MicroBatch;
use crate::config::{Config, RewardKind, SftFormat};
use crate::dataset::read_usable_questions;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle, Think};
use crate::training::EpochOrder;

/// Steps that are looked at: those with the most tokens among all, and the first ones.
const MOST_STEPS: usize = 12;

/// What one step, or one evaluation, works on. The ids stand for nothing but their number.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Rounds of sampling: one, and those in place of groups whose rewards are all equal.
    pub rounds: Vec<Round>,
    /// What is learnt from.
    pub learn: Vec<ScoringGroup>,
    /// What the model itself scores, in an evaluation.
    pub held_out: Vec<ScoringGroup>,
}

/// Completions that are sampled and rewarded together.
#[derive(Debug, Clone)]
pub struct Round {
    /// Tokens of the prompts that completions are sampled after.
    pub prompts: Vec<usize>,
    /// Completions of each.
    pub n: usize,
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
    /// An evaluation on the held-out rows, where there is any.
    pub evaluation: Option<Step>,
    /// Tokens of a completion.
    pub new_tokens: usize,
}

/// The work of `rlt sft`.
///
/// # Errors
/// What rows and tokenizer report.
pub fn of_sft(config: &Config, model: &ModelConfig, progress: &dyn Progress) -> Result<Work> {
    let tokenizer = Tokenizer::from_dir(&config.model.path)?;
    let is_text = config.sft.format == SftFormat::Text;
    let chat = (!is_text).then(|| ChatText::from_dir(&config.model.path)).transpose()?;
    let rows = crate::sft::examples(config, model, &tokenizer, chat.as_ref(), progress)?;
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
    let evaluation = match config.on_held_out_rows() {
        None => None,
        Some(held_out) => {
            let rows = crate::sft::examples(&held_out, model, &tokenizer, chat.as_ref(), progress)?;
            let rows = rows.into_iter();
            let group = |row: crate::sft::Row| ScoringGroup::single(row.example.ids, row.example.loss);
            Some(Step { held_out: rows.map(group).collect(), ..Step::default() })
        }
    };
    Ok(Work { steps, total_steps, evaluation, new_tokens: 0 })
}

/// Tokens of a question's prompt, and of the student's sequence before and after the thought.
#[derive(Clone, Copy)]
struct Lengths {
    prompt: usize,
    before: usize,
    after: usize,
}

/// The work of `rlt train`, every completion as long as `sampling.max_new_tokens` allows, and as few groups with equal
/// rewards as leave half of them in each round of resampling.
///
/// # Errors
/// What rows and tokenizers report.
pub fn of_grpo(config: &Config, model: &ModelConfig, progress: &dyn Progress) -> Result<Work> {
    let context = model.context();
    let rows = lengths(config, context)?;
    progress.note("completions count as long as sampling.max_new_tokens allows");
    let (grpo, sampling) = (&config.grpo, &config.sampling);
    let (per_step, group_size) = (grpo.questions_per_step, grpo.group_size);
    let scored = config.reward.kind == RewardKind::Rlt;
    // The context is a limit, too.
    let completion_tokens =
        |question: Lengths| sampling.max_new_tokens.min(context.saturating_sub(question.prompt)).max(1);
    let round = |questions: &[Lengths], n: usize| Round {
        prompts: questions.iter().map(|question| question.prompt).collect(),
        n,
        score: questions
            .iter()
            .filter(|_| scored)
            .map(|question| to_score(*question, n, completion_tokens(*question)))
            .collect(),
    };
    let resample_rounds = grpo.objective_settings().resample_rounds;
    let mut order = EpochOrder::new(config.seed, rows.len());
    let steps = chosen(grpo.steps as u64, |step| {
        let positions = step * per_step as u64..(step + 1) * per_step as u64;
        let questions: Vec<Lengths> = order.rows(positions).into_iter().map(|row| rows[row]).collect();
        let learn = questions.iter().map(|question| {
            let completion = vec![0; completion_tokens(*question)];
            ScoringGroup {
                prefix: vec![0; question.prompt].into(),
                continuations: vec![Continuation::whole(completion); group_size],
            }
        });
        let rounds = (0..=resample_rounds).map(|halvings| per_step >> halvings).take_while(|&n| n > 0);
        Step {
            rounds: rounds.map(|n| round(&questions[..n], group_size)).collect(),
            learn: learn.collect(),
            ..Step::default()
        }
    });
    let evaluation = match config.on_held_out_rows() {
        None => None,
        Some(held_out) => {
            let round = round(&lengths(&held_out, context)?, config.eval.samples);
            Some(Step { rounds: vec![round], ..Step::default() })
        }
    };
    let total_steps = grpo.steps as u64;
    Ok(Work { steps, total_steps, evaluation, new_tokens: sampling.max_new_tokens.min(context) })
}

/// The questions of `config.data` whose prompts leave room in the context.
fn lengths(config: &Config, context: usize) -> Result<Vec<Lengths>> {
    let style = PromptStyle::resolve(&config.prompts)?;
    let chat = ChatText::from_dir(&config.model.path)?;
    let scored = config.reward.kind == RewardKind::Rlt;
    let student = if scored { Some(ChatText::from_dir(&config.model.student)?) } else { None };
    let mut limit = context - 1;
    if config.data.max_prompt_tokens > 0 {
        limit = limit.min(config.data.max_prompt_tokens);
    }
    let mut rows = Vec::new();
    for row in read_usable_questions(&config.data)?.rows {
        let row = if let Some(student) = &student {
            let sequence = style.student_sequence(student, &row, &Think::empty())?;
            let (before, after) = (sequence.prefix.len(), sequence.solution.end);
            Lengths { prompt: style.teacher_prompt(&chat, &row)?.len(), before, after }
        } else {
            let prompt = style.student_question_prompt(&chat, &row)?.len();
            Lengths { prompt, before: 0, after: 0 }
        };
        if row.prompt <= limit {
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
    Ok(rows)
}

/// The student's sequences of a question: `n` with a thought of `think` tokens, one without.
fn to_score(question: Lengths, n: usize, think: usize) -> ScoringGroup {
    let mut continuations = vec![Continuation::whole(vec![0; think + question.after]); n];
    continuations.push(Continuation::whole(vec![0; question.after]));
    ScoringGroup { prefix: vec![0; question.before].into(), continuations }
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
    rlt_model::batch::micro_batches(groups, max_rows).iter().map(|part| MicroBatch::of(part)).collect()
}

/// The micro-batches of what the student scores: whole questions as long as they fit together (`score::jobs`), each lot
/// of them cut.
pub fn score_batches(groups: &[ScoringGroup], max_rows: usize) -> Vec<MicroBatch> {
    let mut lots: Vec<Vec<ScoringGroup>> = Vec::new();
    let mut used = usize::MAX;
    for group in groups {
        let own: usize = group.continuations.iter().map(|continuation| continuation.ids.len()).sum();
        let tokens = group.prefix.len() + own;
        used = used.saturating_add(tokens);
        match lots.last_mut() {
            Some(lot) if used <= max_rows => lot.push(group.clone()),
            _ => {
                used = tokens;
                lots.push(vec![group.clone()]);
            }
        }
    }
    lots.iter().flat_map(|lot| micro_batches(lot, max_rows)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_scored_whole_where_they_fit_together() {
        let question = Lengths { prompt: 0, before: 10, after: 3 };
        // 10 + 2 * (7 + 3) + 3 tokens; the row of a sequence's last token is not computed.
        let groups = vec![to_score(question, 2, 7); 3];
        let rows = |max_rows| -> Vec<usize> {
            score_batches(&groups, max_rows).iter().map(|batch| batch.rows).collect()
        };
        assert_eq!(rows(100), [90]);
        assert_eq!(rows(98), [60, 30]);
        assert_eq!(rows(65), [30, 30, 30]);
        // Micro-batches alone would fill up with parts of a question.
        let filled: Vec<usize> = micro_batches(&groups, 65).iter().map(|batch| batch.rows).collect();
        assert_eq!(filled, [60, 30]);
    }
}
