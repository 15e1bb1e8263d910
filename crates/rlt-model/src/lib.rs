//! Decoder-only language models in the Hugging Face layout: text to ids and back, weights, the
//! forward and backward passes, batched generation and token log-probabilities.
//!
//! This crate knows no rewards and no data sets. Generation sees token ids only.

pub mod chat_template;
pub mod config;
pub mod error;
mod files;
#[cfg(test)]
mod shared_data;
pub mod token_logprobs;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};
