//! Scored samples on their way between ranks.

use rlt_reward::rlt::{RltParts, RltScore, Unscorable};

use super::{RltSample, ScoredSample};
use crate::prompts::StudentSequence;
use crate::ranks::{Wire, wire_fields};

wire_fields!(StudentSequence { prefix, thought, suffix, solution, n_boundary });
wire_fields!(RltSample { name, teacher_prefix, student, without_thought, has_end_tag, forged, is_blank });
wire_fields!(ScoredSample {
    score,
    teacher_logprobs,
    student_logprobs,
    solution_logprobs,
    solution_logprobs_without,
    explanation_value,
});
wire_fields!(RltParts {
    solution_logprob_mean,
    solution_logprob_min,
    solution_logprob_min_at,
    kl_mean,
    kl_max,
    kl_max_at,
    d_j,
    r_ss,
    r_kl,
    reward_no_entropy,
});

impl Wire for RltScore {
    fn put(&self, to: &mut Vec<u8>) {
        let Self { reward, format_penalty, parts } = self;
        (*reward, *format_penalty).put(to);
        parts.is_ok().put(to);
        match parts {
            Ok(parts) => parts.put(to),
            Err(reason) => reason.put(to),
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let (reward, format_penalty) = Wire::take(from)?;
        let parts = if bool::take(from)? { Ok(Wire::take(from)?) } else { Err(Wire::take(from)?) };
        Some(Self { reward, format_penalty, parts })
    }
}

/// Whose context may be too short.
const MODELS: [&str; 2] = ["teacher", "student"];

impl Wire for Unscorable {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::EmptyThought => 0_u8.put(to),
            Self::EmptySolution => 1_u8.put(to),
            Self::TooLong { model, tokens, context } => {
                2_u8.put(to);
                model.to_string().put(to);
                (*tokens, *context).put(to);
            }
            Self::Inconsistent(what) => {
                3_u8.put(to);
                what.put(to);
            }
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(match u8::take(from)? {
            0 => Self::EmptyThought,
            1 => Self::EmptySolution,
            2 => {
                let name = String::take(from)?;
                let model = MODELS.into_iter().find(|model| *model == name)?;
                let (tokens, context) = Wire::take(from)?;
                Self::TooLong { model, tokens, context }
            }
            3 => Self::Inconsistent(Wire::take(from)?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_arrive_as_they_were() {
        let parts = RltParts {
            solution_logprob_mean: -0.5,
            solution_logprob_min: -0.0,
            solution_logprob_min_at: 3,
            kl_mean: 0.25,
            kl_max: f32::INFINITY,
            kl_max_at: 9,
            d_j: vec![1.0, -2.0],
            r_ss: -0.75,
            r_kl: 0.1,
            reward_no_entropy: -3.0,
        };
        let reasons = [
            Unscorable::EmptyThought,
            Unscorable::EmptySolution,
            Unscorable::TooLong { model: "student", tokens: 9, context: 8 },
            Unscorable::TooLong { model: "teacher", tokens: 10, context: 8 },
            Unscorable::Inconsistent("why".into()),
        ];
        let of = |parts| RltScore { reward: -1.5, format_penalty: 0.0, parts };
        let scores: Vec<RltScore> =
            std::iter::once(of(Ok(parts))).chain(reasons.into_iter().map(|reason| of(Err(reason)))).collect();
        let mut bytes = Vec::new();
        scores.put(&mut bytes);
        let mut left = bytes.as_slice();
        assert_eq!(Vec::<RltScore>::take(&mut left), Some(scores));
        assert!(left.is_empty());
    }
}
