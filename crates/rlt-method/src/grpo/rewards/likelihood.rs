//! How much an explanation improves the likelihood of the solution: a reward without a verifier and without r_KL.
//!
//! `I = 1 - PPL(s | q, t) / PPL(s | q)`, the perplexities of the solution's tokens under the frozen student, after the
//! explanation and without any: 0 where it changes nothing, 1 where it makes the solution certain. It is the completion
//! likelihood improvement of VR-CLI (Gurung and Lapata, arXiv 2503.22828), as a share in the place of per cent. They pay it in
//! four steps; here it is paid as it is, and an explanation that doubles the perplexity, or does worse, costs no more than 1, so
//! that one bad explanation does not outweigh its group.
//!
//! Missing end tags and what cannot be scored cost what they cost under the reward of the paper.

use rlt_model::chat_template::TemplateTime;

use super::rlt::{score_explanations, student};
use crate::config::{Config, KlEstimator, RewardConfig};
use crate::dataset::QuestionRow;
use crate::error::Result;
use crate::grpo::reward::{Answered, Reward, StepContext, Student};
use crate::grpo::sample::Verdict;
use crate::prompts::{ChatText, PromptStyle};
use crate::ranks::Holding;
use crate::score::{RltSample, ScoredSample};

/// Of explanations, from the likelihood of the solution alone.
pub(super) struct Likelihood(Student);

impl Likelihood {
    pub fn load(
        config: &Config,
        policy_chat: &ChatText,
        time: TemplateTime,
        holding: &Holding,
    ) -> Result<Self> {
        Ok(Self(student(config, policy_chat, time, holding)?))
    }
}

impl Reward for Likelihood {
    fn name(&self) -> &'static str {
        "likelihood"
    }

    fn prompt(&self, style: &PromptStyle, chat: &ChatText, row: &QuestionRow) -> Result<Vec<u32>> {
        style.teacher_prompt(chat, row)
    }

    fn student(&self) -> Option<&Student> {
        Some(&self.0)
    }

    fn verdicts(&self, context: &StepContext, groups: &[Answered]) -> Result<Vec<Verdict>> {
        // D_j is measured on the way and paid for by nobody: its cheapest estimator will do.
        let measured = RewardConfig { kl: KlEstimator::Sampled, ..context.config.reward.clone() };
        let verdict = |(sample, scored): (RltSample, ScoredSample)| Verdict {
            reward: reward(&scored),
            is_formatted: sample.has_end_tag,
            scored: Some(Box::new((sample, scored))),
            ..Verdict::default()
        };
        Ok(score_explanations(&self.0, &measured, context, groups)?.into_iter().map(verdict).collect())
    }
}

fn reward(scored: &ScoredSample) -> f32 {
    match scored.score.parts {
        Ok(_) => {
            improvement(&scored.solution_logprobs, &scored.solution_logprobs_without)
                + scored.score.format_penalty
        }
        Err(_) => scored.score.reward,
    }
}

/// `1 - PPL(s | q, t) / PPL(s | q)`, no less than -1, from the log-probabilities (nats) of the solution's tokens `with` the
/// explanation and `without`.
fn improvement(with: &[f32], without: &[f32]) -> f32 {
    let mean = |logprobs: &[f32]| {
        logprobs.iter().map(|&logprob| f64::from(logprob)).sum::<f64>() / logprobs.len() as f64
    };
    (1.0 - (mean(without) - mean(with)).exp()).max(-1.0) as f32
}

#[cfg(test)]
mod tests {
    use rlt_reward::rlt::{RltScore, Unscorable};
    use rlt_reward::settings::RltSettings;

    use super::*;

    /// Log-probabilities of these probabilities.
    fn ln<const N: usize>(probabilities: [f32; N]) -> [f32; N] {
        probabilities.map(f32::ln)
    }

    #[test]
    fn an_improvement_by_hand() {
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        // Perplexity 4 without, 2 with it: half of it is gone.
        near(improvement(&ln([0.5, 0.5]), &ln([0.25, 0.25])), 0.5);
        // Geometric means: sqrt(0.8 * 0.2) = 0.4 and sqrt(0.1 * 0.4) = 0.2, whatever the order.
        near(improvement(&ln([0.8, 0.2]), &ln([0.1, 0.4])), 0.5);
        near(improvement(&ln([0.3]), &ln([0.3])), 0.0);
        near(improvement(&ln([1.0, 1.0]), &ln([0.5, 0.02])), 0.9);
        // From 2 to 3: half as much again; from 2 to 100 is no worse than to 4.
        near(improvement(&ln([1.0 / 3.0]), &ln([0.5])), -0.5);
        near(improvement(&ln([0.01]), &ln([0.5])), -1.0);
    }

    #[test]
    fn what_cannot_be_scored_costs_what_it_costs_under_the_papers_reward() {
        let settings = RltSettings { unscorable_reward: -2.5, ..RltSettings::default() };
        let scored = ScoredSample {
            score: RltScore::unscorable(Unscorable::EmptyThought, &settings),
            teacher_logprobs: Vec::new(),
            student_logprobs: Vec::new(),
            solution_logprobs: Vec::new(),
            solution_logprobs_without: Vec::new(),
            explanation_value: None,
        };
        assert_eq!(reward(&scored), -2.5);
    }
}
