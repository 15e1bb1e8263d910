//! Group relative policy optimisation (GRPO) and its relatives, with a reward of one's choice.
//!
//! The equations are `rlt-reward`'s.
//!
//! - [`train()`]: the loop; `step`: a step, top to bottom; `setup`: what it works with;
//! - `sample`: a completion on its way through a step; `rollout`: which groups a step learns from;
//! - `reward`: what a reward is; `rewards/`: those that there are, a file each;
//! - `told`: what the teacher of a distillation is asked; `distill`: its gradient;
//! - `update`: what a batch does to the weights; `gradient`: the gradient of one optimizer step; `reference`: the
//!   reference model;
//! - `evaluate`: the reward on held-out questions; `metrics`: what a step says about itself; `mismatch`: how far
//!   whoever draws is from the policy; `replay`: a failed step again.

mod distill;
mod evaluate;
mod gradient;
mod metrics;
mod mismatch;
mod questions;
mod reference;
mod replay;
mod reward;
mod rewards;
mod rollout;
mod sample;
mod setup;
mod step;
#[cfg(test)]
mod tests;
mod told;
mod train;
mod update;

pub(crate) use questions::longest_prompt;
pub(crate) use reference::{begin_reference, settle_reference, sync_reference};
pub(crate) use replay::{learn_again, rewards_again};
pub(crate) use rewards::teacher_was_recorded;
pub(crate) use sample::{Group, Question, certain_group};
pub(crate) use told::Told;
pub use train::{distill, train};
pub(crate) use update::Learner;
