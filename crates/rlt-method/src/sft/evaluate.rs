//! The loss on held-out rows while training.

use std::time::Instant;

use rlt_model::batch::ScoringGroup;
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;
use rlt_model::{Decoder, Stop};
use serde_json::Map;

use super::examples::{examples, n_loss_tokens};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::{EVAL_LOSS, EVAL_S};
use crate::progress::Progress;
use crate::prompts::ChatText;
use crate::ranks::{Ranks, agree, dealt, gather};
use crate::training::inputs::Checksum;
use crate::training::{HeldOutScore, RowsSum};
use rlt_reward::supervised::loss;

/// The held-out rows in the format of training.
pub(crate) struct HeldOut {
    groups: Vec<ScoringGroup>,
    n_loss_tokens: usize,
    tokens_per_batch: usize,
}

impl HeldOut {
    /// The rows of `eval.data`; none when nothing is evaluated.
    pub fn load(
        config: &Config,
        tokenizer: &Tokenizer,
        chat: Option<&ChatText>,
        progress: &dyn Progress,
    ) -> Result<Option<Self>> {
        let Some(config) = config.on_held_out_rows() else { return Ok(None) };
        let model = ModelConfig::from_dir(&config.model.path)?;
        let rows = examples(&config, &model, tokenizer, chat, progress)?;
        Ok(Some(Self {
            n_loss_tokens: rows.iter().map(|row| n_loss_tokens(&row.example.loss)).sum(),
            groups: rows
                .into_iter()
                .map(|row| ScoringGroup::single(row.example.ids, row.example.loss))
                .collect(),
            tokens_per_batch: config.sft.tokens_per_microbatch,
        }))
    }

    /// What tells these rows from others.
    pub fn fingerprint(&self) -> RowsSum {
        let mut sum = Checksum::default();
        for continuation in self.groups.iter().flat_map(|group| &group.continuations) {
            sum.add_ids(&continuation.ids);
            for span in &continuation.scored {
                sum.add_span(span);
            }
        }
        RowsSum { n: self.groups.len(), checksum: sum.finish() }
    }

    /// `eval_loss`: the loss of training over all held-out tokens that count, nats; each rank asks for its rows.
    ///
    /// # Errors
    /// [`rlt_model::Error::Stopped`] when it was asked to stop, which it looks at before every micro-batch.
    pub fn evaluate(&self, decoder: &Decoder, ranks: &Ranks, stop: Stop) -> Result<HeldOutScore> {
        let started = Instant::now();
        let own = &self.groups[dealt(ranks, self.groups.len())];
        let logprobs = decoder.token_logprobs_unless(stop, own, 1.0, self.tokens_per_batch);
        let logprobs = agree(ranks, logprobs.map_err(Error::from))?;
        let logprobs: Vec<f32> = gather(ranks, logprobs.into_iter().flatten().flatten().collect())?;
        let sum: f64 = logprobs.iter().map(|&logprob| f64::from(logprob)).sum();
        let loss = loss(sum, self.n_loss_tokens);
        let mut metrics = Map::new();
        EVAL_LOSS.put(&mut metrics, loss);
        EVAL_S.put(&mut metrics, started.elapsed().as_secs_f64());
        Ok(HeldOutScore { metrics, score: -loss })
    }
}
