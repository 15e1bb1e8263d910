//! Rewards, advantages and objectives of reinforcement learning teachers (arXiv 2506.08388), as pure functions: arrays of
//! log-probabilities in, numbers out. No input or output, no model, no tokenizer, so that any trainer can use them.
//!
//! A teacher is told a question and its solution and writes an explanation. Its reward is how likely the solution then
//! is to a student, less how surprising the explanation is to that student:
//!
//! ```
//! use rlt_reward::advantage::group_advantages;
//! use rlt_reward::rlt::{RltInputs, rlt_reward};
//! use rlt_reward::settings::RltSettings;
//!
//! // Log-probabilities in nats: three solution tokens, two tokens of the explanation under both models.
//! let inputs = RltInputs {
//!     sample: "row 1",
//!     solution_logprobs: &[-1.0, -3.0, -2.0],
//!     student_think_logprobs: &[-1.0, -4.0],
//!     teacher_think_logprobs: &[-2.0, -1.0],
//!     full_divergence: &[],
//!     has_end_tag: true,
//! };
//! let score = rlt_reward(&inputs, &RltSettings::default()).unwrap();
//! // r_SS = -2 - 0.01 * 3; r_KL = (-1 + 3) / 2 + 0.01 * 3; r = r_SS - 3 r_KL.
//! assert!((score.reward - (-2.03 - 3.0 * 1.03)).abs() < 1e-6);
//!
//! let advantages = group_advantages(&[score.reward, -2.0]);
//! assert!(advantages[0] < 0.0 && advantages[0] == -advantages[1]);
//! ```
//!
//! - [`rlt`] the paper's dense reward, [`settings`] what it can be told; [`correctness`] the conventional one; [`pedagogy`] that of
//!   Pedagogical RL;
//! - [`overlong`], [`sum`] what can be added to either; [`diagnostics`] what a report says of a text whatever its reward;
//! - [`advantage`] rewards to advantages; [`objective`] what a token or a completion adds to the loss, with its derivative;
//!   [`choice`] which objective;
//! - [`supervised`] the loss of fine-tuning.

pub mod advantage;
pub mod choice;
pub mod correctness;
pub mod diagnostics;
pub mod objective;
pub mod overlong;
pub mod pedagogy;
pub mod rlt;
pub mod settings;
pub mod sum;
pub mod supervised;
