//! Supervised fine-tuning.

pub mod objective;
mod train;

pub use train::train;
