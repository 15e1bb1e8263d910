//! Supervised fine-tuning.

mod evaluate;
pub mod objective;
mod train;

pub use train::train;
pub(crate) use train::{Row, examples, learn_again};
