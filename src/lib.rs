//! Reinforcement Learning Teachers of Test Time Scaling (arXiv 2506.08388) as one Rust system.
//!
//! A teacher language model sees a question and its solution and writes the explanation; GRPO
//! trains it on a dense reward that a student model's log-probabilities give; its explanations
//! distil students, and everything is evaluated and reported. `ARCHITECTURE.md` is the map.
//!
//! This crate is the command line, and the others under one name.

pub use rlt_lab::{demo, miniature, pretrained, reproduce, start, worlds};
pub use rlt_method::{Error, Result};
pub use rlt_method::{
    checkpoint, config, dataset, dealt, error, evaluate, explain, grading, grpo, import, inspect, located,
    logprobs, metrics, model_files, plan, progress, prompts, random, ranks, replay, run_dir, run_log,
    sampler, sampling, score, scorer, server, sft, style, tensorboard, traces, training,
};
pub use rlt_report as report;
