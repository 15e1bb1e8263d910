//! The method: rows, prompts, scores, GRPO, fine-tuning, evaluation, and the runs that they write.
//!
//! It knows the worlds that a run can make by name alone, and draws no page of a run: who starts one brings both
//! ([`training::Host`]).

pub mod checkpoint;
pub mod config;
pub mod dataset;
pub mod dealt;
pub mod error;
pub mod evaluate;
pub mod explain;
pub mod grading;
pub mod grpo;
pub mod import;
mod in_order;
pub mod inspect;
pub mod located;
pub mod logprobs;
pub mod metrics;
pub mod model_files;
pub mod plan;
pub mod progress;
pub mod prompts;
pub mod random;
pub mod ranks;
pub mod replay;
pub mod run_dir;
pub mod run_log;
pub mod sampler;
pub mod sampling;
pub mod score;
pub mod scorer;
pub mod server;
pub mod sft;
pub mod style;
pub mod tensorboard;
pub mod traces;
pub mod training;
mod whole_vocabulary;

pub use error::{Error, Result};
