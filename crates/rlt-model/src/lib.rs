//! Decoder-only language models in the Hugging Face layout: text to ids and back, weights, the
//! forward and backward passes, batched generation and token log-probabilities.
//!
//! This crate knows no rewards and no data sets. Generation sees token ids only.

pub mod adapter;
pub mod adapter_folder;
mod adapter_settings;
pub mod batch;
pub mod chat_template;
pub mod config;
mod decode;
pub mod decoder;
pub mod error;
mod files;
pub mod folder;
pub mod generate;
pub mod gradients;
pub mod guarded;
pub mod ids;
mod inference;
mod logprobs;
pub mod offloaded;
mod packed_block;
pub mod parameters;
mod projection;
mod scored;
pub mod shared;
#[cfg(test)]
mod shared_data;
pub mod sizes;
mod stop;
pub mod tokenizer;
pub mod training_pass;
pub mod weights;

pub use decoder::Decoder;
pub use error::{Error, Result};
pub use gradients::Gradients;
pub use scored::ScoredStates;
pub use stop::Stop;
