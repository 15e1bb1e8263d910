//! Group relative policy optimisation (GRPO) with the RLT or the correctness reward.
//!
//! - [`objective`]: the equations, as pure functions;
//! - [`train`]: the loop, top to bottom;
//! - `update`: the gradient of a step; `reference`: the reference model;
//! - `judge`: completions to rewards; `metrics`: what a step says about itself.

mod evaluate;
mod judge;
mod metrics;
pub mod objective;
mod reference;
mod train;
mod update;

pub use train::train;
