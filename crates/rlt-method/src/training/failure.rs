//! When a step fails: what the run has left, and the batch for looking at it afterwards.

use std::path::{Path, PathBuf};

use rlt_files::{MOST_ROWS, write_atomic};
use rlt_model::batch::ScoringGroup;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointStore, Keep};
use crate::config::Config;
use crate::error::{Error, Result, io_error};

/// The file that `rlt replay` takes, in a folder that is a checkpoint besides.
pub const BATCH: &str = "batch.json";

/// What a step worked on when a number in it was not finite. Numbers that are not finite, or were not reached, are
/// absent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedBatch {
    /// `sft`, `grpo` or `distill`.
    pub work: String,
    /// The step, from 1; it changed nothing.
    pub step: u64,
    /// What went wrong.
    pub error: String,
    /// The configuration of the run, with all paths.
    pub config: Config,
    /// What was computed together: a row, or a question with its completions.
    pub groups: Vec<FailedGroup>,
}

/// A row, or a question with its completions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedGroup {
    /// What errors call it ("row 12").
    pub name: String,
    /// Its row in the data, from 1; 0 where that is not what it was made from.
    pub row: usize,
    /// Token ids that the continuations share.
    pub prefix: Vec<u32>,
    /// What a teacher that is told the solution reads in their place; empty outside distillation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<u32>,
    /// The row's tokens, or the completions.
    pub continuations: Vec<FailedContinuation>,
}

/// Tokens after a prefix.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedContinuation {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Positions that count in the loss, as first and last + 1.
    pub scored: Vec<(usize, usize)>,
    /// Log-probabilities recorded while sampling, nats; none where nothing was sampled.
    #[serde(default)]
    pub sampled_logprobs: Vec<Option<f32>>,
    /// `stop` or `length`; none where nothing was sampled.
    pub finish: Option<String>,
    /// Its reward.
    pub reward: Option<f32>,
    /// Its advantage.
    pub advantage: Option<f32>,
}

impl FailedGroup {
    /// A group without rewards.
    pub fn of(name: &str, row: usize, group: &ScoringGroup) -> Self {
        let continuations = group.continuations.iter().map(|continuation| FailedContinuation {
            ids: continuation.tokens().collect(),
            scored: continuation.scored.iter().map(|span| (span.start, span.end)).collect(),
            sampled_logprobs: Vec::new(),
            finish: None,
            reward: None,
            advantage: None,
        });
        Self {
            name: name.into(),
            row,
            prefix: group.prefix.to_vec(),
            told: Vec::new(),
            continuations: continuations.collect(),
        }
    }

    /// The group as models take it.
    pub fn to_scoring(&self) -> ScoringGroup {
        let continuations = self.continuations.iter().map(|continuation| rlt_model::batch::Continuation {
            ids: continuation.ids.clone().into(),
            then: rlt_model::ids::TokenIds::default(),
            scored: continuation.scored.iter().map(|&(start, end)| start..end).collect(),
        });
        ScoringGroup { prefix: self.prefix.clone().into(), continuations: continuations.collect() }
    }
}

impl FailedBatch {
    /// Writes the batch to `folder`, which already holds the weights.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(BATCH);
        let json =
            serde_json::to_vec(self).map_err(|e| Error::Failed(format!("{BATCH} cannot be written: {e}")))?;
        write_atomic(&path, &json)?;
        Ok(path)
    }

    /// Reads a batch.
    ///
    /// # Errors
    /// The file cannot be read, or is not one.
    pub fn read(path: &Path) -> Result<Self> {
        let json = rlt_files::read_bytes(path, MOST_ROWS).map_err(io_error(path))?;
        serde_json::from_slice(&json).map_err(|e| Error::File {
            path: path.to_owned(),
            what: format!("not the {BATCH} of a failed step: {e}"),
        })
    }
}

/// What a step found when a number in it was not finite: keeps the state before its update and
/// the batch in `RUN/failed/step-000012` (one such folder a run), and says so in the error. Any other error stays
/// as it is.
pub(super) fn keep_failed(
    run_dir: &Path,
    batch: impl FnOnce(String) -> FailedBatch,
    write_state: impl FnOnce(&Path) -> Result<()>,
    error: Error,
) -> Error {
    let Error::NonFinite(what) = error else { return error };
    let batch = batch(what.clone());
    let store = CheckpointStore::new(run_dir.join("failed"), Keep::last(1));
    let kept = store.save(batch.step, |folder| {
        write_state(folder)?;
        batch.write(folder).map(drop)
    });
    Error::NonFinite(match kept {
        Ok(folder) => format!("{what}; the batch is kept: rlt replay {}", folder.join(BATCH).display()),
        Err(e) => format!("{what}; and the batch could not be kept: {e}"),
    })
}

/// `error` of the run in `run_dir` with what it has left: the checkpoint that the same command continues from. A wrong
/// call and an interruption stay as they are.
pub fn with_what_is_left(error: Error, run_dir: &Path) -> Error {
    if matches!(error, Error::Usage(_) | Error::Interrupted(_)) {
        return error;
    }
    let store = CheckpointStore::new(run_dir.join("checkpoints"), Keep::last(0));
    let Some(checkpoint) = store.latest_good().ok().and_then(|latest| latest.checkpoint) else {
        return error;
    };
    let next = match error {
        // The same numbers would come again.
        Error::NonFinite(_) => "a run of another name can start from it (model.path)",
        _ => "once this is fixed, the same command continues from it",
    };
    let left = format!("the last checkpoint, {}, is whole: {next}", checkpoint.path.display());
    Error::Stopped { source: Box::new(error), left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_batch_is_read_back_and_what_is_not_finite_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let group = ScoringGroup::single(vec![3, 1, 4, 1], std::iter::once(2..4).collect());
        let mut failed = FailedGroup::of("row 7", 7, &group);
        failed.continuations[0].reward = Some(f32::NAN);
        let batch = FailedBatch {
            work: "grpo".into(),
            step: 4,
            error: "step 4, row 7".into(),
            config: Config::default(),
            groups: vec![failed],
        };
        let read = FailedBatch::read(&batch.write(dir.path()).unwrap()).unwrap();
        assert_eq!((read.step, &read.config), (4, &batch.config));
        assert_eq!(read.groups[0].to_scoring(), group);
        assert_eq!(read.groups[0].continuations[0].reward, None);
        let message = FailedBatch::read(&dir.path().join("absent.json")).unwrap_err().to_string();
        assert!(message.contains("absent.json"), "{message}");
    }

    #[test]
    fn a_failure_names_the_checkpoint_that_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let full = || Error::Failed("disk full".into());
        assert_eq!(with_what_is_left(full(), dir.path()).to_string(), "disk full");
        let store = CheckpointStore::new(dir.path().join("checkpoints"), Keep::last(0));
        store.save(6, |folder| Ok(write_atomic(&folder.join("state.json"), b"{}")?)).unwrap();
        let message = with_what_is_left(full(), dir.path()).to_string();
        assert!(message.starts_with("disk full; the last checkpoint, "), "{message}");
        assert!(
            message
                .ends_with("step-000006, is whole: once this is fixed, the same command continues from it")
        );
        let message = with_what_is_left(Error::NonFinite("step 7".into()), dir.path()).to_string();
        assert!(message.ends_with("a run of another name can start from it (model.path)"), "{message}");
        let usage = with_what_is_left(Error::Usage("unknown key".into()), dir.path());
        assert_eq!(usage.to_string(), "unknown key");
    }
}
