//! Supervised fine-tuning.

mod evaluate;
pub mod objective;
mod train;

pub(crate) use train::learn_again;
pub use train::train;
