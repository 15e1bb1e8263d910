//! Supervised fine-tuning.

mod evaluate;
mod examples;
mod train;

pub(crate) use examples::{Row, examples};
pub(crate) use train::learn_again;
pub use train::train;
