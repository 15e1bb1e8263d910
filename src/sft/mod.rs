//! Supervised fine-tuning.

mod evaluate;
mod train;

pub use train::train;
pub(crate) use train::{Row, examples, learn_again};
