//! The rewards that there are: `reward.kind` names one, `[reward.add]` adds to it.

mod correctness;
mod likelihood;
mod pedagogical;
mod rlt;

use rlt_model::chat_template::TemplateTime;

pub(crate) use self::rlt::teacher_was_recorded;

use super::reward::{Answered, Reward, StepContext};
use super::sample::{Verdict, text_ids};
use crate::config::{Config, RewardKind};
use crate::error::Result;
use crate::prompts::ChatText;
use crate::ranks::Holding;
use crate::score::added::{Adding, Sum, Written};

/// The reward of `reward.kind`; a model that it asks must share the vocabulary of `policy_chat`, and its template tells
/// `time`.
///
/// # Errors
/// What the model's folder reports.
pub(super) fn load(
    config: &Config,
    policy_chat: &ChatText,
    time: TemplateTime,
    holding: &Holding,
) -> Result<Box<dyn Reward>> {
    Ok(match config.reward.kind {
        RewardKind::Rlt => Box::new(rlt::Rlt::load(config, policy_chat, time, holding)?),
        RewardKind::Likelihood => Box::new(likelihood::Likelihood::load(config, policy_chat, time, holding)?),
        RewardKind::Pedagogical => {
            Box::new(pedagogical::Pedagogical::load(config, policy_chat, time, holding)?)
        }
        RewardKind::Correctness => Box::new(correctness::Correctness::of(config)),
    })
}

/// A verdict for every completion, group by group in one list: the reward's own, and what `[reward.add]` adds to it.
///
/// # Errors
/// As [`Reward::verdicts`].
pub(super) fn verdicts(
    reward: &dyn Reward,
    context: &StepContext,
    groups: &[Answered],
) -> Result<Vec<Verdict>> {
    let mut verdicts = reward.verdicts(context, groups)?;
    let Some(adding) = Adding::of(context.config, context.style) else { return Ok(verdicts) };
    let completions = groups.iter().flat_map(|group| group.iter());
    for (verdict, (question, _, completion)) in verdicts.iter_mut().zip(completions) {
        let ids = text_ids(completion);
        let text = context.chat.tokenizer.decode(&ids);
        let (tokens, explanation) = match &verdict.scored {
            None => (&*ids, None),
            Some(of) => (of.0.think_ids(), Some((context.style.split_explanation(&text).0, &of.0))),
        };
        let written = Written { row: &question.row, tokens, n_tokens: completion.ids.len(), explanation };
        let Sum { reward: sum, parts } = adding.sum(reward.name(), verdict.reward, &written);
        (verdict.reward, verdict.parts) = (sum, parts);
    }
    Ok(verdicts)
}
