//! Log-probabilities of given text or ids under a model, one row at a time.

use std::path::Path;

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::ids::TokenIds;
use rlt_model::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dataset::Record;
use crate::error::{Error, Result};
use crate::in_order::in_order;
use crate::progress::Progress;
use crate::scorer::Scorer;

/// One sequence with the log-probability of each of its tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenLogprobs {
    /// The tokens.
    pub ids: Vec<u32>,
    /// log p(token | everything before it), nats. The first token has none: nothing predicts it.
    pub logprobs: Vec<Option<f32>>,
}

/// The token ids of each row: its `ids`, or its `text` encoded as it is, nothing added. The tokenizer of
/// `model_dir` is read only when a row has text. Every id is checked against the model.
///
/// # Errors
/// [`Error::Row`] for a row with neither or both columns, malformed ids, a token that the model does not
/// have and a sequence longer than its context; what the tokenizer reports.
pub fn row_ids(
    records: &[Record],
    model_dir: &Path,
    model: &ModelConfig,
    context: usize,
) -> Result<Vec<Vec<u32>>> {
    let mut tokenizer = None;
    let mut rows = Vec::with_capacity(records.len());
    for record in records {
        let of_row = |e: rlt_model::Error| record.error(e.to_string());
        let ids = match (record.columns.get("ids"), record.text("text")?) {
            (None | Some(Value::Null), None) => {
                let names = record.column_names();
                return Err(record.error(format!("no column `text` or `ids`; the row has {names}")));
            }
            (None | Some(Value::Null), Some(text)) => {
                if tokenizer.is_none() {
                    tokenizer = Some(Tokenizer::from_dir(model_dir)?);
                }
                let tokenizer = tokenizer.as_ref().expect("read above");
                tokenizer.encode(&text).map_err(of_row)?
            }
            (Some(ids), None) => Vec::<u32>::deserialize(ids)
                .map_err(|e| record.error(format!("column `ids` is not a list of token ids: {e}")))?,
            (Some(_), Some(_)) => {
                return Err(record.error("has both `text` and `ids`; keep the one to score"));
            }
        };
        model.check_ids(ids.iter().copied(), context).map_err(of_row)?;
        rows.push(ids);
    }
    Ok(rows)
}

/// Scores every sequence at `temperature` and hands each to `write`, in order. About `tokens_per_batch`
/// tokens are computed at a time.
///
/// # Errors
/// [`Error::NonFinite`] for a log-probability that is not finite, with the row (from 1) and the token;
/// what model and `write` report.
pub fn logprobs_each(
    model: &dyn Scorer,
    rows: &[Vec<u32>],
    temperature: f32,
    tokens_per_batch: usize,
    progress: &dyn Progress,
    mut write: impl FnMut(TokenLogprobs) -> Result<()>,
) -> Result<()> {
    progress.start("log-probabilities", rows.len() as u64, "rows");
    let mut rest = rows;
    let batches = std::iter::from_fn(|| {
        let mut tokens = 0;
        let fits = rest.iter().take_while(|ids| {
            tokens += ids.len();
            tokens <= tokens_per_batch
        });
        let (batch, later) = rest.split_at_checked(fits.count().max(1))?;
        rest = later;
        Some(Ok(batch))
    });
    let score = |batch| (batch, batch_logprobs(model, batch, temperature, tokens_per_batch));
    let mut n_written = 0;
    in_order(model.calls_at_once(), batches, score, |(batch, results): (&[Vec<u32>], _)| {
        for (ids, scored) in batch.iter().zip(results?) {
            n_written += 1;
            if let Some(at) = scored.iter().position(|logprob| !logprob.is_finite()) {
                let (value, token) = (scored[at], at + 2);
                return Err(Error::NonFinite(format!(
                    "row {n_written}, token {token} (id {}): the log-probability is {value}; the model's weights \
                     are damaged",
                    ids[at + 1]
                )));
            }
            let first_token = (!ids.is_empty()).then_some(None);
            let logprobs = first_token.into_iter().chain(scored.into_iter().map(Some)).collect();
            write(TokenLogprobs { ids: ids.clone(), logprobs })?;
        }
        progress.advance(batch.len() as u64, "");
        Ok(())
    })?;
    progress.finish("");
    Ok(())
}

/// Log-probabilities of every token after the first of each sequence; rows without one ask the model
/// nothing.
fn batch_logprobs(
    model: &dyn Scorer,
    rows: &[Vec<u32>],
    temperature: f32,
    tokens_per_batch: usize,
) -> Result<Vec<Vec<f32>>> {
    let group = |ids: &Vec<u32>| {
        let after_first = 1..ids.len();
        let continuation =
            Continuation { ids: ids.clone().into(), then: TokenIds::default(), scored: vec![after_first] };
        ScoringGroup { prefix: TokenIds::default(), continuations: vec![continuation] }
    };
    let groups: Vec<ScoringGroup> = rows.iter().filter(|ids| ids.len() >= 2).map(group).collect();
    let scored = if groups.is_empty() {
        Vec::new()
    } else {
        model.token_logprobs(&groups, temperature, tokens_per_batch)?
    };
    let mut scored = scored.into_iter();
    let of_row = |ids: &Vec<u32>| match ids.len() {
        0 | 1 => Vec::new(),
        _ => scored.next().and_then(|mut group| group.pop()).expect("one sequence a group"),
    };
    Ok(rows.iter().map(of_row).collect())
}
