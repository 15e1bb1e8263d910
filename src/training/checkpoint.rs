//! The whole state of a training run as a checkpoint folder.
//!
//! Row order and sampling depend on the seed and the step alone, so weights, moments, the reference
//! model and the step are all there is to keep.

use std::fs;
use std::path::Path;

use rlt_files::{checksum, write_atomic};
use rlt_model::Decoder;
use rlt_model::adapter_folder::ADAPTER_CONFIG;
use rlt_model::parameters::Parameters;
use rlt_model::tokenizer::Tokenizer;
use rlt_model::weights::{Dtype, Weights};
use serde::{Deserialize, Serialize};

use super::{Optimizer, Standing};
use crate::config::ModelPaths;
use crate::error::{Error, Result, io_error};

const OPTIMIZER: &str = "optimizer.safetensors";
const REFERENCE: &str = "reference.safetensors";
const STATE: &str = "state.json";

/// `state.json`: where a run stands, and what it must find unchanged to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// `sft` or `grpo`.
    pub work: String,
    /// Steps done; also the last row of `metrics.jsonl` and what keys the sampler.
    pub step: u64,
    /// Optimizer updates done: several a step where a batch is learnt from more than once.
    pub updates: u64,
    /// Seed of every random stream.
    pub seed: u64,
    /// Position in the epochs of rows: how many were drawn.
    pub rows_drawn: u64,
    /// Rows in use.
    pub n_rows: usize,
    /// CRC-32C over the rows' token ids.
    pub data_checksum: String,
    /// CRC-32C over the files of the models that are read anew whenever the run goes on: the reward's student, an
    /// adapter's base, a reference of its own that never moves.
    #[serde(default)]
    pub models_checksum: String,
    /// The evaluations so far.
    #[serde(default)]
    pub evaluation: Standing,
}

/// CRC-32C over token sequences and their lengths, eight hexadecimal digits.
pub fn data_checksum<'a>(sequences: impl Iterator<Item = &'a [u32]>) -> String {
    let crc = sequences.fold(0, |crc, ids| {
        let crc = crc32c::crc32c_append(crc, &(ids.len() as u64).to_le_bytes());
        ids.iter().fold(crc, |crc, id| crc32c::crc32c_append(crc, &id.to_le_bytes()))
    });
    format!("{crc:08x}")
}

/// CRC-32C over `config.json` and the weights of model folders, eight hexadecimal digits.
///
/// # Errors
/// A folder or a file cannot be read.
pub fn models_checksum(folders: &[&Path]) -> Result<String> {
    let mut crc = 0;
    for folder in folders {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(io_error(folder))? {
            let path = entry.map_err(io_error(folder))?.path();
            let is_weights = path.extension().is_some_and(|extension| extension == "safetensors");
            if is_weights || path.ends_with("config.json") {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            let sum = checksum(&path).map_err(io_error(&path))?;
            crc = crc32c::crc32c_append(crc, format!("{} {}", sum.bytes, sum.crc32c).as_bytes());
        }
    }
    Ok(format!("{crc:08x}"))
}

/// Everything that a checkpoint holds.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// Where the run stands.
    pub state: &'a State,
    /// The model in training.
    pub decoder: &'a Decoder,
    /// Its tokenizer, so that a checkpoint is a model folder.
    pub tokenizer: &'a Tokenizer,
    /// The folder of the model that training began from: the base of an adapter.
    pub base: &'a Path,
    /// The moments.
    pub optimizer: &'a Optimizer,
    /// The reference model's weights, if there is one that moves.
    pub reference: Option<&'a Parameters>,
}

impl Snapshot<'_> {
    /// Writes all files into `folder`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let model = self.decoder.config();
        match self.decoder.adapter() {
            Some(adapter) => adapter.save(folder, model, self.base)?,
            None => self.decoder.save(folder)?,
        }
        self.tokenizer.save(folder)?;
        self.optimizer.write(&folder.join(OPTIMIZER))?;
        if let Some(reference) = self.reference {
            reference.write(model, &folder.join(REFERENCE), Dtype::F32)?;
        }
        let state = serde_json::to_vec_pretty(self.state)
            .map_err(|e| Error::Failed(format!("{STATE} cannot be written: {e}")))?;
        Ok(write_atomic(&folder.join(STATE), &state)?)
    }
}

/// What a run goes on with.
#[derive(Debug)]
pub struct Restored {
    /// Where it stood.
    pub state: State,
    /// The model in training.
    pub decoder: Decoder,
    /// The reference model's weights, if there is one.
    pub reference: Option<Parameters>,
}

impl Restored {
    /// Reads a checkpoint folder; the moments go into `optimizer` by [`Self::restore_optimizer`]. `model` is what
    /// training began from, which an adapter stands beside.
    ///
    /// # Errors
    /// A file is missing or not what it should be.
    pub fn read(folder: &Path, model: &ModelPaths) -> Result<Self> {
        let path = folder.join(STATE);
        let json = fs::read(&path).map_err(io_error(&path))?;
        let state = serde_json::from_slice(&json).map_err(|e| Error::File { path, what: e.to_string() })?;
        let decoder = if folder.join(ADAPTER_CONFIG).exists() {
            Decoder::load_with_adapter(&model.path, folder)?
        } else {
            Decoder::load(folder)?
        };
        let decoder = decoder.in_arithmetic(model.arithmetic.into());
        let path = folder.join(REFERENCE);
        let reference = if path.exists() {
            Some(Parameters::read(decoder.config(), &Weights::open_file(&path)?)?)
        } else {
            None
        };
        Ok(Self { state, decoder, reference })
    }

    /// Gives `optimizer` the moments in the checkpoint `folder`.
    ///
    /// # Errors
    /// The file is missing or not of this model.
    pub fn restore_optimizer(&self, folder: &Path, optimizer: &mut Optimizer) -> Result<()> {
        optimizer.restore(&folder.join(OPTIMIZER), self.state.updates)
    }

    /// Refuses to go on with other rows or models than the run began with; `begun` is what a new run would start with.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check_same_run(&self, folder: &Path, begun: &State) -> Result<()> {
        let was = &self.state;
        let what = if was.work != begun.work {
            format!("belongs to a run of {}, not {}", was.work, begun.work)
        } else if was.n_rows != begun.n_rows || was.data_checksum != begun.data_checksum {
            format!("was made with other rows ({} then, {} now, or other text)", was.n_rows, begun.n_rows)
        } else if was.models_checksum != begun.models_checksum {
            "was made with another model.student or model.reference, or another model.path under its adapter: their \
             files changed"
                .into()
        } else {
            return Ok(());
        };
        Err(Error::Usage(format!(
            "{}: {what}; give this run another name or run_dir, or restore what it began with",
            folder.display()
        )))
    }
}
