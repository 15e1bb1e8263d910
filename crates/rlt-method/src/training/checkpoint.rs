//! The whole state of a training run as a checkpoint folder.
//!
//! Row order and sampling depend on the seed and the step alone, so weights, moments, the reference
//! model and the step are all there is to keep.

use std::borrow::Cow;
use std::path::Path;

use rlt_engine::Tensor;
use rlt_files::{MOST_ROWS, write_atomic};
use rlt_model::Decoder;
use rlt_model::adapter_folder::ADAPTER_CONFIG;
use rlt_model::chat_template::TemplateTime;
use rlt_model::tokenizer::Tokenizer;
use rlt_model::weights::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ending::Ending;
use super::inputs::{Inputs, RowsSum};
use super::optimizer::WholeMoments;
use super::{EvaluationState, Lanes, Optimizer};
use crate::checkpoint::{CheckpointStore, Keep};
use crate::config::{Config, ModelPaths};
use crate::error::{Error, Result, io_error};
use crate::ranks::Holding;

/// The folder of a run's checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
const OPTIMIZER: &str = "optimizer.safetensors";
const REFERENCE: &str = "reference.safetensors";
const STATE: &str = "state.json";

/// `state.json`: where a run stands, and what it must find unchanged to go on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps done; also the last row of `metrics.jsonl` (but see [`Self::unevaluated`]) and what keys the sampler.
    pub step: u64,
    /// Optimizer updates done: several a step where a batch is learnt from more than once.
    pub updates: u64,
    /// Position in the epochs of rows: how many were drawn.
    pub rows_drawn: u64,
    /// The evaluations so far.
    #[serde(default)]
    pub evaluation: EvaluationState,
    /// The metrics of the last step where the run was asked to stop during the evaluation after it: that is made again, and
    /// the row is written then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unevaluated: Option<Map<String, Value>>,
    /// What templates told as the date when the run began; none where no template asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_time: Option<TemplateTime>,
    /// Into how many partial sums its gradients are cut; 1 before this was recorded.
    #[serde(default)]
    pub lanes: Lanes,
    /// What it began with.
    pub began_with: Inputs,
}

impl State {
    /// The last step whose row is written.
    pub fn rows_logged(&self) -> u64 {
        self.step - u64::from(self.unevaluated.is_some())
    }

    /// Reads `state.json` in a checkpoint's folder.
    ///
    /// # Errors
    /// The file cannot be read, or is not one.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE);
        let json = rlt_files::read_bytes(&path, MOST_ROWS).map_err(io_error(&path))?;
        let is_earlier = |state: &Value| state.get("began_with").is_none();
        let state = match serde_json::from_slice::<Value>(&json) {
            Ok(state) if is_earlier(&state) => serde_json::from_value(state).map(EarlierState::into_state),
            _ => serde_json::from_slice(&json),
        };
        state.map_err(|e| Error::File { path, what: e.to_string() })
    }
}

/// `state.json` as version 0.1 wrote it, which recorded less of what a run began with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EarlierState {
    work: String,
    step: u64,
    updates: u64,
    seed: u64,
    rows_drawn: u64,
    n_rows: usize,
    data_checksum: String,
    /// One sum over several models: it cannot be compared with a sum a file.
    #[serde(default, rename = "models_checksum")]
    _models_checksum: String,
    #[serde(default)]
    evaluation: EvaluationState,
}

impl EarlierState {
    fn into_state(self) -> State {
        let Self { work, step, updates, seed, rows_drawn, n_rows, data_checksum, evaluation, .. } = self;
        let rows = Some(RowsSum { n: n_rows, checksum: data_checksum });
        let began_with = Inputs { work, seed, rows, ..Inputs::default() };
        State { step, updates, rows_drawn, evaluation, began_with, ..State::default() }
    }
}

/// The configuration that the newest checkpoint of a run was made with, where one can be read that recorded it.
pub fn recorded_config(run_dir: &Path) -> Option<Config> {
    let store = CheckpointStore::new(run_dir.join(CHECKPOINTS), Keep::last(0));
    let states = store.newest_first().ok()?.into_iter().filter_map(|folder| State::read(&folder).ok());
    states.into_iter().find_map(|state| state.began_with.config).map(|config| *config)
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
    /// What ends a text that it writes.
    pub ending: &'a Ending,
    /// The folder of the model that training began from: the base of an adapter.
    pub base: &'a Path,
    /// The moments.
    pub optimizer: &'a Optimizer,
    /// The reference model's weights, if there is one that moves.
    pub reference: Option<&'a Decoder>,
}

impl Snapshot<'_> {
    /// Writes all files into `folder`; `moments` are the optimizer's.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn write(&self, folder: &Path, moments: &mut WholeMoments) -> Result<()> {
        let model = self.decoder.config();
        match self.decoder.adapter() {
            Some(adapter) => adapter.save(folder, model, self.base)?,
            None => self.decoder.save(folder)?,
        }
        self.tokenizer.save(folder)?;
        self.ending.save(folder)?;
        self.optimizer.write(&folder.join(OPTIMIZER), moments)?;
        if let Some(reference) = self.reference {
            reference.write_weights(&folder.join(REFERENCE), Dtype::F32)?;
        }
        let state = serde_json::to_vec_pretty(self.state)
            .map_err(|e| Error::Failed(format!("{STATE} cannot be written: {e}")))?;
        Ok(write_atomic(&folder.join(STATE), &state)?)
    }
}

/// Brings to the host, one tensor at a time, what a checkpoint of a run of `config` writes.
pub(crate) fn numbers<'a>(
    decoder: &'a Decoder,
    optimizer: &'a Optimizer,
    reference: Option<&'a Decoder>,
    config: &Config,
) -> impl Iterator<Item = Cow<'a, [f32]>> {
    let reference = written_reference(decoder, reference, config);
    let trained: Box<dyn Iterator<Item = Cow<[f32]>>> = match decoder.adapter() {
        Some(adapter) => Box::new(adapter.tensors().into_iter().map(Tensor::to_host)),
        None => decoder.numbers_to_save(),
    };
    trained.chain(optimizer.whole_moments()).chain(reference.into_iter().flat_map(Decoder::numbers_to_save))
}

/// The weights of a reference model that a checkpoint holds. That of an adapter is its base model, which is never written;
/// nor is one that is read anew.
pub(super) fn written_reference<'a>(
    decoder: &Decoder,
    reference: Option<&'a Decoder>,
    config: &Config,
) -> Option<&'a Decoder> {
    let in_folder = decoder.adapter().is_some() || config.fixed_reference().is_some();
    reference.filter(|_| !in_folder)
}

/// What a run goes on with.
#[derive(Debug)]
pub struct RestoredRun {
    /// Where it stood.
    pub state: State,
    /// The model in training.
    pub decoder: Decoder,
    /// The reference model, if the checkpoint has one.
    pub reference: Option<Decoder>,
}

impl RestoredRun {
    /// Reads a checkpoint folder; the moments go into `optimizer` by [`Self::restore_optimizer`]. `model` is what
    /// training began from, which an adapter stands beside; `holding` and `of_frozen` how the two are held.
    ///
    /// # Errors
    /// A file is missing or not what it should be.
    pub fn read(folder: &Path, model: &ModelPaths, holding: &Holding, of_frozen: &Holding) -> Result<Self> {
        let (state, device) = (State::read(folder)?, model.device.open()?);
        let decoder = if folder.join(ADAPTER_CONFIG).exists() {
            holding.load_with_adapter(&device, &model.path, folder)?
        } else {
            holding.load(&device, folder)?
        };
        let decoder = decoder.in_arithmetic(model.arithmetic.into());
        let path = folder.join(REFERENCE);
        let reference = if path.exists() { Some(of_frozen.read(&decoder, &path)?) } else { None };
        Ok(Self { state, decoder, reference })
    }

    /// Gives `optimizer` the moments in the checkpoint `folder`.
    ///
    /// # Errors
    /// The file is missing or not of this model.
    pub fn restore_optimizer(&self, folder: &Path, optimizer: &mut Optimizer) -> Result<()> {
        optimizer.restore(&folder.join(OPTIMIZER), self.state.updates)
    }
}
