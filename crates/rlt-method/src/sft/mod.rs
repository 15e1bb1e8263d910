//! Supervised fine-tuning.

mod evaluate;
mod examples;
mod train;

pub(crate) use evaluate::HeldOut;
pub(crate) use examples::{Row, examples};
pub use train::train;
pub(crate) use train::{BatchPass, batch_gradient, learn_again};
