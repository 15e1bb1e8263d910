//! Reinforcement Learning Teachers of Test Time Scaling (arXiv 2506.08388) as one Rust system.
//!
//! A teacher language model sees a question and its solution and writes the explanation; GRPO
//! trains it on a dense reward that a student model's log-probabilities give; its explanations
//! distil students, and everything is evaluated and reported. `ARCHITECTURE.md` is the map.

pub mod checkpoint;
pub mod config;
pub mod dataset;
pub mod demo;
pub mod error;
pub mod evaluate;
pub mod explain;
pub mod grading;
pub mod grpo;
pub mod import;
pub mod inspect;
pub mod logprobs;
pub mod metrics;
pub mod miniature;
pub mod model_files;
pub mod plan;
pub mod progress;
pub mod prompts;
pub mod random;
pub mod replay;
pub mod report;
pub mod reproduce;
pub mod run_dir;
pub mod run_log;
pub mod sampler;
pub mod sampling;
pub mod score;
pub mod scorer;
pub mod sft;
pub mod start;
pub mod style;
pub mod tensorboard;
pub mod traces;
pub mod training;
pub mod worlds;

pub use error::{Error, Result};
