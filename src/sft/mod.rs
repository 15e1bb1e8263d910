//! Supervised fine-tuning.

mod evaluate;
pub mod objective;
mod train;

pub(crate) use train::examples;
pub use train::train;
