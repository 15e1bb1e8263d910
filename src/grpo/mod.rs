//! Group relative policy optimisation (GRPO) and its relatives with the RLT or the correctness reward.
//!
//! The equations are `rlt-reward`'s.
//!
//! - [`train`]: the loop, top to bottom; `rollout`: which groups a step learns from; `judge`: completions to rewards;
//! - `update`: what a batch does to the weights; `gradient`: the gradient of one optimizer step; `reference`: the
//!   reference model;
//! - `metrics`: what a step says about itself.

mod evaluate;
mod gradient;
mod judge;
mod metrics;
mod questions;
mod reference;
mod replay;
mod rollout;
#[cfg(test)]
mod tests;
mod train;
mod update;

pub(crate) use reference::{begin_reference, settle_reference, sync_reference};
pub(crate) use replay::{learn_again, rewards_again};
pub use train::train;
pub(crate) use update::{Learner, sample_group};
