//! The recipes on a pretrained base model (`--base`): its folder in the place of the model that reads the textbook from random
//! weights, and settings that fit a model of its size.
//!
//! The worlds' texts are plain English, so the base brings its own tokenizer and chat template and reads them as any text.

use std::path::PathBuf;

use rlt_method::config::Config;
use rlt_method::error::{Error, Result};
use rlt_method::prompts::ChatText;
use rlt_model::config::ModelConfig;

/// A question with its solution, an explanation and an answer of the worlds, tokens, under a vocabulary of any size.
const LEAST_CONTEXT: usize = 640;
/// Longest completion: a general vocabulary cuts the worlds' words and tags into more tokens than the miniature's own.
const MAX_NEW_TOKENS: usize = 320;
/// Sequences that are written at once, and tokens that are learnt from at once: a real model's take more memory each.
const MAX_RUNNING: usize = 32;
const TOKENS_PER_MICROBATCH: usize = 2048;
/// What the rates of the miniature's configurations, made for a model of half a million random weights, are multiplied by.
const RATE_OF_ALL_WEIGHTS: f64 = 0.1;
const RATE_OF_ADAPTERS: f64 = 0.3;

/// A pretrained base and how much is done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pretrained {
    /// Its model folder.
    pub base: PathBuf,
    /// Rows of each kind: of the warm-up, explained, learnt from.
    pub rows: usize,
    /// Steps of RL.
    pub steps: usize,
    /// Rank of the adapters that are trained (LoRA); 0 trains all weights.
    pub lora_rank: usize,
}

impl Pretrained {
    /// Questions of a step of RL, and completions of each.
    pub const QUESTIONS_PER_STEP: usize = 4;
    /// See there.
    pub const GROUP_SIZE: usize = 4;

    /// Refuses, before anything is written, a folder that cannot be the base.
    ///
    /// # Errors
    /// [`Error::Usage`] for a context that is too short; what `config.json`, tokenizer and chat template report.
    pub fn check(&self) -> Result<()> {
        let model = ModelConfig::from_dir(&self.base)?;
        ChatText::from_dir(&self.base)?;
        if model.context() < LEAST_CONTEXT {
            return Err(Error::Usage(format!(
                "--base {}: a context of {} tokens; questions, explanations and answers take up to {LEAST_CONTEXT}",
                self.base.display(),
                model.context()
            )));
        }
        Ok(())
    }

    /// A stage's configuration, for a model of that size.
    pub fn fit(&self, config: &mut Config) {
        let is_adapted = self.lora_rank > 0;
        config.lora.rank = self.lora_rank;
        config.optimizer.learning_rate *= if is_adapted { RATE_OF_ADAPTERS } else { RATE_OF_ALL_WEIGHTS };
        if is_adapted {
            // The base model under the adapter is the reference, and does not move.
            config.grpo.reference_sync_every = None;
        }
        config.sampling.max_new_tokens = config.sampling.max_new_tokens.max(MAX_NEW_TOKENS);
        config.sampling.max_running = MAX_RUNNING;
        config.sft.tokens_per_microbatch = TOKENS_PER_MICROBATCH;
        config.grpo.tokens_per_microbatch = TOKENS_PER_MICROBATCH;
        config.grpo.questions_per_step = Self::QUESTIONS_PER_STEP;
        config.grpo.group_size = Self::GROUP_SIZE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_made_to_fit() {
        let stage = |lora_rank| {
            let mut config = Config::load(
                None,
                &["optimizer.learning_rate=1e-3", "grpo.reference_sync_every=32"].map(String::from),
            )
            .unwrap();
            Pretrained { base: "m".into(), rows: 8, steps: 2, lora_rank }.fit(&mut config);
            config
        };
        let (adapted, whole) = (stage(16), stage(0));
        assert!((adapted.optimizer.learning_rate - 3e-4).abs() < 1e-12);
        assert!((whole.optimizer.learning_rate - 1e-4).abs() < 1e-12);
        assert_eq!((adapted.lora.rank, adapted.reference_sync_every()), (16, 0));
        assert_eq!((whole.lora.rank, whole.reference_sync_every()), (0, 32));
    }
}
