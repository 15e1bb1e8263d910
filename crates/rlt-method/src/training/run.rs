//! How a training run begins, saves and ends.

use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rlt_engine::Device;
use rlt_files::replace_folder;
use rlt_model::Decoder;
use rlt_model::adapter::Adapter;
use rlt_model::chat_template::TemplateTime;
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Map, Value};

use super::checkpoint::{CHECKPOINTS, written_reference};
use super::evaluation::{self, HeldOutScore};
use super::failure::{self, FailedBatch, FailedGroup};
use super::fault::{self, Stage};
use super::live_report::LiveReport;
use super::spikes::SpikeWatch;
use super::{Ending, Host, Inputs, Lanes, Optimizer, RestoredRun, SharedLanes, Snapshot, State};
use crate::checkpoint::{Checkpoint, CheckpointStore, Keep};
use crate::config::{Config, EvalConfig, LoraConfig, ModelPaths};
use crate::error::{Error, Result};
use crate::metrics;
use crate::progress::Progress;
use crate::ranks::{Holding, Ranks, agree, on_first};
use crate::run_log::RunLog;

/// What a finished run leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trained {
    /// Steps done.
    pub steps: u64,
    /// Folder of the final model.
    pub model: PathBuf,
    /// Folder of the best model by evaluation, where there was one.
    pub best: Option<PathBuf>,
    /// The report; empty on ranks that did not write it.
    pub report: PathBuf,
}

/// The model that training starts from: the weights in `model.path` (frozen, with a new adapter beside them,
/// where `lora` asks for one), or random ones of its shape; on `device`.
///
/// # Errors
/// What the folder's files report.
pub fn initial_model(
    device: &Device,
    holding: &Holding,
    model: &ModelPaths,
    lora: &LoraConfig,
    seed: u64,
) -> Result<Decoder> {
    let decoder = if let Some(settings) = lora.settings() {
        let decoder = holding.load_frozen(device, &model.path)?;
        let adapter = Adapter::random_on(device, decoder.config(), &settings, seed);
        decoder.with_adapter(adapter)
    } else if model.from_scratch {
        holding.random(device, &model.path, seed)?
    } else {
        holding.load(device, &model.path)?
    };
    Ok(decoder.in_arithmetic(model.arithmetic.into()))
}

/// A model that a run or a command only reads, with products as `model.arithmetic` says, on `model.device`.
///
/// # Errors
/// What the folder's files report.
pub fn frozen_model(model: &ModelPaths, folder: &Path) -> Result<Decoder> {
    frozen_model_on(&model.device.open()?, &Holding::Whole, model, folder)
}

/// As [`frozen_model`], on `device` and held as `holding` says.
///
/// # Errors
/// As there.
pub fn frozen_model_on(
    device: &Device,
    holding: &Holding,
    model: &ModelPaths,
    folder: &Path,
) -> Result<Decoder> {
    Ok(holding.load_frozen(device, folder)?.in_arithmetic(model.arithmetic.into()))
}

/// What an earlier call left of a run.
#[derive(Debug)]
pub struct Earlier {
    checkpoint: Option<(Checkpoint, State)>,
    template_time: TemplateTime,
}

impl Earlier {
    /// Looks for the newest good checkpoint in `run_dir`; damaged ones are noted. The first rank looks, and all go on from
    /// what it finds.
    ///
    /// # Errors
    /// The checkpoints cannot be read.
    pub fn find(run_dir: &Path, host: &Host) -> Result<Self> {
        let Host { progress, ranks, .. } = host;
        let found = ranks.is_first().then(|| Self::find_here(run_dir, *progress)).transpose();
        let found = agree(ranks, found)?;
        if ranks.size() == 1 {
            return Ok(found.expect("the first rank looked"));
        }
        let told = found.map(|Self { checkpoint, template_time }| {
            (checkpoint.map(|(checkpoint, state)| (checkpoint.step, state)), template_time)
        });
        let json = serde_json::to_vec(&told).map_err(|e| Error::Failed(e.to_string()))?;
        let json = ranks.broadcast(0, json)?;
        let told: Option<(Option<(u64, State)>, TemplateTime)> =
            serde_json::from_slice(&json).map_err(|e| Error::Failed(format!("rank 0 sent no state: {e}")))?;
        let (checkpoint, template_time) = told.ok_or_else(|| Error::Failed("rank 0 sent no state".into()))?;
        let store = CheckpointStore::new(run_dir.join(CHECKPOINTS), Keep::last(0));
        let here = |(step, state)| (Checkpoint { step, path: store.path_of(step) }, state);
        Ok(Self { checkpoint: checkpoint.map(here), template_time })
    }

    fn find_here(run_dir: &Path, progress: &dyn Progress) -> Result<Self> {
        let latest = CheckpointStore::new(run_dir.join(CHECKPOINTS), Keep::last(0)).latest_good()?;
        for warning in &latest.warnings {
            progress.warn(warning);
        }
        let with_state =
            |checkpoint: Checkpoint| State::read(&checkpoint.path).map(|state| (checkpoint, state));
        let checkpoint = latest.checkpoint.map(with_state).transpose()?;
        let recorded = checkpoint.as_ref().and_then(|(_, state)| state.template_time);
        Ok(Self { checkpoint, template_time: recorded.unwrap_or_else(TemplateTime::of_this_process) })
    }

    /// The date and time that the run's templates tell: of its beginning, however often it has gone on since.
    pub fn template_time(&self) -> TemplateTime {
        self.template_time
    }
}

/// A training run: its records, its checkpoints and where it stands.
pub struct Run<'a> {
    config: &'a Config,
    dir: &'a Path,
    tokenizer: &'a Tokenizer,
    ending: Ending,
    /// Save every this many steps; 0 only at the end.
    save_every: u64,
    model: ModelPaths,
    store: CheckpointStore,
    /// The step of the newest checkpoint that nothing is missing from.
    saved_step: Option<u64>,
    evaluation: EvalConfig,
    /// The best model so far.
    best: CheckpointStore,
    /// On the first rank.
    log: Option<RunLog>,
    spikes: SpikeWatch,
    progress: &'a dyn Progress,
    /// Whether this rank is asked to stop.
    stop: &'a AtomicBool,
    write_report: fn(&Path) -> Result<PathBuf>,
    live_report: LiveReport,
    state: State,
    ranks: Ranks,
    lanes: SharedLanes,
    /// Time in collectives until the last row.
    in_collectives: Duration,
    total_steps: u64,
    started: Instant,
}

/// The parts of a run that training changes.
pub struct Weights {
    /// The model in training.
    pub decoder: Decoder,
    /// Moments and schedule.
    pub optimizer: Optimizer,
    /// The reference model; the caller makes it at the beginning of a run that needs one.
    pub reference: Option<Decoder>,
}

impl<'a> Run<'a> {
    /// Begins a run of `total_steps` steps of `updates_per_step` optimizer updates in `run_dir`, or goes on from the
    /// checkpoint that an `earlier` call left. `inputs` is what a run begins with now; `template_time` what its templates
    /// tell, where they ask.
    ///
    /// # Errors
    /// What checkpoint, model folder and records report; [`Error::Usage`] when the run began with other inputs.
    pub fn begin(
        config: &'a Config,
        run_dir: &'a Path,
        tokenizer: &'a Tokenizer,
        ending: Ending,
        earlier: Earlier,
        inputs: Inputs,
        template_time: Option<TemplateTime>,
        total_steps: u64,
        updates_per_step: u64,
        host: &Host<'a>,
    ) -> Result<(Self, Weights)> {
        let &Host { progress, stop, write_report, ref ranks, .. } = host;
        inputs.check_same_on(ranks)?;
        let keep = Keep { last: config.checkpoint.keep, every: config.checkpoint.keep_every as u64 };
        let store = CheckpointStore::new(run_dir.join(CHECKPOINTS), keep);
        let total_updates = total_steps * updates_per_step;
        let saved = earlier.checkpoint.as_ref().map(|(checkpoint, state)| (checkpoint.step, state.clone()));
        let begun = Self::first_state(config, run_dir, earlier, inputs, template_time, total_updates, host);
        let (state, mut weights) = agree(ranks, begun)?;
        weights.decoder = ending.given_to(weights.decoder);
        let saved_step =
            saved.as_ref().filter(|(_, state)| state.unevaluated.is_none()).map(|(step, _)| *step);
        let best = CheckpointStore::new(run_dir.join("best"), Keep::last(1));
        let mut log = None;
        on_first(ranks, || {
            store.tidy(state.step)?;
            best.tidy(state.evaluation.best.map_or(0, |best| best.step))?;
            log = Some(RunLog::open(run_dir, state.rows_logged(), state.step)?);
            Ok(())
        })?;
        let mut spikes = SpikeWatch::default();
        log.iter().flat_map(RunLog::kept).for_each(|row| drop(spikes.look(row)));
        let run = Self {
            config,
            dir: run_dir,
            tokenizer,
            ending,
            save_every: config.checkpoint.every as u64,
            model: config.model.clone(),
            store,
            saved_step,
            evaluation: config.eval.clone(),
            best,
            log,
            spikes,
            progress,
            stop,
            write_report,
            live_report: LiveReport::new(Instant::now()),
            lanes: SharedLanes::new(state.lanes, ranks).of(&weights.decoder)?,
            ranks: ranks.clone(),
            in_collectives: ranks.time_in_collectives(),
            state,
            total_steps,
            started: Instant::now(),
        };
        Ok((run, weights))
    }

    /// Where a run begins, or goes on, and what it works with.
    fn first_state(
        config: &Config,
        run_dir: &Path,
        earlier: Earlier,
        inputs: Inputs,
        template_time: Option<TemplateTime>,
        total_updates: u64,
        host: &Host,
    ) -> Result<(State, Weights)> {
        let Host { progress, ranks, .. } = host;
        let Some((checkpoint, state)) = earlier.checkpoint else {
            let lanes = Lanes::choose(config.train.lanes, None, ranks.size())?;
            let (device, model) = (&config.model.device.open()?, &config.model);
            let decoder =
                initial_model(device, &config.memory.holding(ranks), model, &config.lora, config.seed)?;
            let optimizer = Optimizer::shared(&decoder, config, total_updates, ranks);
            let state = State { template_time, lanes, began_with: inputs, ..State::default() };
            return Ok((state, Weights { decoder, optimizer, reference: None }));
        };
        state.began_with.check(&inputs, &checkpoint.path)?;
        Lanes::choose(config.train.lanes, Some((state.lanes, &checkpoint.path)), ranks.size())?;
        let not_recorded = state.began_with.not_recorded();
        if !not_recorded.is_empty() {
            progress.warn(&format!(
                "{} is of an earlier version, which did not record {}: whether they changed is not known",
                checkpoint.path.display(),
                not_recorded.join(", ")
            ));
        }
        if ranks.is_first() {
            RunLog::check_rows(run_dir, state.rows_logged())?;
        }
        let (holding, of_frozen) = (config.memory.holding(ranks), config.memory.holding_of_frozen(ranks));
        let restored = RestoredRun::read(&checkpoint.path, &config.model, &holding, &of_frozen)?;
        let mut optimizer = Optimizer::shared(&restored.decoder, config, total_updates, ranks);
        restored.restore_optimizer(&checkpoint.path, &mut optimizer)?;
        progress.note(&format!("going on from {}", checkpoint.path.display()));
        let RestoredRun { mut state, decoder, reference } = restored;
        // What was not recorded is from here on.
        state.began_with = inputs;
        state.template_time = template_time;
        Ok((state, Weights { decoder, optimizer, reference }))
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.state.step
    }

    /// In how many partial sums gradients are added up.
    pub fn lanes(&self) -> &SharedLanes {
        &self.lanes
    }

    /// How many rows were drawn: the next position in their order.
    pub fn rows_drawn(&self) -> u64 {
        self.state.rows_drawn
    }

    /// The steps that are left, from 1; none after an early end.
    pub fn steps_left(&self) -> RangeInclusive<u64> {
        let last = if self.state.evaluation.ended_early { self.state.step } else { self.total_steps };
        self.state.step + 1..=last
    }

    /// Writes the samples of a step, which the first rank makes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_samples(&mut self, step: u64, rows: impl FnOnce() -> Vec<Value>) -> Result<()> {
        let Self { log, ranks, .. } = self;
        on_first(ranks, || log.as_mut().map_or(Ok(()), |log| log.samples(step, &rows())))
    }

    /// Stops the run where it is asked to on any rank, with the state after the last whole step saved. A step that has not
    /// changed the weights yet may be left at any moment: its draws are keyed by its number, so the run goes on
    /// with the same ones.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after the state was saved; what the files report.
    pub fn stop_if_asked(&mut self, weights: &Weights) -> Result<()> {
        if !self.ranks.any(self.stop.load(Ordering::SeqCst))? {
            return Ok(());
        }
        Err(self.stop(weights)?)
    }

    /// Saves the state after the last whole step, if there is one; the interruption that says so.
    fn stop(&mut self, weights: &Weights) -> Result<Error> {
        if self.state.step == 0 {
            let who = self.who_asked()?;
            return Ok(Error::Interrupted(format!(
                "{who}before the first step was done; the same command begins again"
            )));
        }
        self.interrupted(weights, "")
    }

    /// The first rank that was asked to stop, in words; nothing on one rank.
    fn who_asked(&self) -> Result<String> {
        if self.ranks.size() == 1 {
            return Ok(String::new());
        }
        let asked = self.stop.load(Ordering::SeqCst).then(|| self.ranks.place());
        Ok(self
            .ranks
            .first_error(asked)?
            .map(|(_, place)| format!("{place} was asked to stop; "))
            .unwrap_or_default())
    }

    /// Saves the state after the last whole step; the interruption that says so.
    fn interrupted(&mut self, weights: &Weights, how_far: &str) -> Result<Error> {
        let (step, total) = (self.state.step, self.total_steps);
        let who = self.who_asked()?;
        self.save(weights)?;
        let saved = self.store.path_of(step);
        Ok(Error::Interrupted(format!(
            "{who}saved after step {step} of {total}{how_far} in {}; the same command continues from there",
            saved.display()
        )))
    }

    /// The error of a step in hand, which all ranks have agreed on: where it was only asked to stop, which leaves the weights
    /// as they were, that of [`Self::stop_if_asked`].
    pub fn stopped(&mut self, weights: &Weights, error: Error) -> Error {
        match error {
            Error::Model(rlt_model::Error::Stopped) => self.stop(weights).unwrap_or_else(|error| error),
            other => other,
        }
    }

    /// Ends a step after which `rows_drawn` rows were drawn in all: its metrics go into a row, and the rest is
    /// `evaluate_and_record`.
    ///
    /// # Errors
    /// As `evaluate_and_record`.
    pub fn end_step(
        &mut self,
        weights: &Weights,
        rows_drawn: u64,
        metrics: Map<String, Value>,
        evaluate: impl FnOnce(u64) -> Result<Option<HeldOutScore>>,
    ) -> Result<ControlFlow<()>> {
        self.state.step += 1;
        self.state.updates = weights.optimizer.updates_done();
        self.state.rows_drawn = rows_drawn;
        self.evaluate_and_record(weights, metrics, evaluate)
    }

    /// Makes up for the evaluation during which an earlier call was asked to stop, where there is one: the step before it
    /// is done, its row is not written. Breaks as [`Self::end_step`].
    ///
    /// # Errors
    /// As `evaluate_and_record`.
    pub fn end_unevaluated_step(
        &mut self,
        weights: &Weights,
        evaluate: impl FnOnce(u64) -> Result<Option<HeldOutScore>>,
    ) -> Result<ControlFlow<()>> {
        match self.state.unevaluated.take() {
            Some(metrics) => self.evaluate_and_record(weights, metrics, evaluate),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// Evaluates the model of the step that is done, if that is due; keeps it if it is the best; writes the row (`wall_s`
    /// first) and saves a checkpoint where one is due. Breaks when evaluations end the run early.
    ///
    /// # Errors
    /// What `evaluate` and the files report; [`Error::Interrupted`] where it was asked to stop in the evaluation, after the
    /// state was saved with the row so far.
    fn evaluate_and_record(
        &mut self,
        weights: &Weights,
        mut metrics: Map<String, Value>,
        evaluate: impl FnOnce(u64) -> Result<Option<HeldOutScore>>,
    ) -> Result<ControlFlow<()>> {
        let step = self.state.step;
        let is_due = evaluation::is_due(&self.evaluation, step, self.total_steps);
        let evaluated = match if is_due { evaluate(step) } else { Ok(None) } {
            Err(Error::Model(rlt_model::Error::Stopped)) => {
                self.state.unevaluated = Some(metrics);
                return Err(self.interrupted(weights, ", before its evaluation")?);
            }
            evaluated => evaluated?,
        };
        if let Some(HeldOutScore { metrics: more, score }) = evaluated {
            metrics.extend(more);
            if self.state.evaluation.take(step, score, &self.evaluation) {
                on_first(&self.ranks, || {
                    self.best.save(step, |folder| self.save_model(&weights.decoder, folder)).map(drop)
                })?;
            }
        }
        let logged = self.log_row(step, metrics);
        agree(&self.ranks, logged)?;
        let ended_early = self.state.evaluation.ended_early;
        let due = self.save_every > 0 && step.is_multiple_of(self.save_every);
        if due || ended_early || step >= self.total_steps {
            self.save(weights)?;
        }
        if !ended_early {
            return Ok(ControlFlow::Continue(()));
        }
        let n = self.state.evaluation.without_gain;
        self.progress
            .note(&format!("step {step}: no gain in {n} evaluations (eval.patience); the run ends here"));
        Ok(ControlFlow::Break(()))
    }

    /// Writes the step's row, on the first rank.
    fn log_row(&mut self, step: u64, metrics: Map<String, Value>) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut row = Map::new();
        metrics::WALL_S.put(&mut row, log.wall_s() + self.started.elapsed().as_secs_f64());
        row.extend(metrics);
        if self.ranks.size() > 1 {
            let so_far = self.ranks.time_in_collectives();
            metrics::RANKS_S.put(&mut row, so_far.saturating_sub(self.in_collectives).as_secs_f64());
            self.in_collectives = so_far;
        }
        self.tell_spikes(step, &mut row);
        self.log.as_mut().map_or(Ok(()), |log| log.log(step, &row))?;
        if step < self.total_steps {
            self.live_report.after_step(self.dir, self.write_report, self.progress, Instant::now());
        }
        Ok(())
    }

    /// Names what jumped in the row, and to whoever watches.
    fn tell_spikes(&mut self, step: u64, row: &mut Map<String, Value>) {
        let spikes = self.spikes.look(row);
        if spikes.is_empty() {
            return;
        }
        for spike in &spikes {
            self.progress.note(&format!(
                "step {step}: {} is {:.4}, far from the steps before (median {:.4})",
                spike.metric, spike.value, spike.median
            ));
        }
        let names: Vec<&str> = spikes.iter().map(|spike| spike.metric).collect();
        metrics::SPIKES.put(row, names);
    }

    /// The error of the step in hand, which all ranks have agreed on, after its batch was kept for `rlt replay` when a number
    /// was not finite.
    pub fn keep_failed(
        &self,
        weights: &Weights,
        error: Error,
        groups: impl FnOnce() -> Vec<FailedGroup>,
    ) -> Error {
        if !matches!(error, Error::NonFinite(_)) {
            return error;
        }
        let mut moments = weights.optimizer.whole_moments();
        let kept = if self.ranks.is_first() {
            let (work, step) = (self.state.began_with.work.clone(), self.state.step + 1);
            let batch =
                |error| FailedBatch { work, step, error, config: self.config.clone(), groups: groups() };
            let write_state = |folder: &Path| self.snapshot(weights).write(folder, &mut moments);
            failure::keep_failed(self.dir, batch, write_state, error)
        } else {
            error
        };
        moments.end().err().unwrap_or(kept)
    }

    /// Saves the state after the last whole step, unless that is saved already.
    fn save(&mut self, weights: &Weights) -> Result<()> {
        let step = self.state.step;
        if self.saved_step == Some(step) {
            return Ok(());
        }
        let mut moments = weights.optimizer.whole_moments();
        // No checkpoint outlives the rows it stands on.
        let synced = self.log.as_mut().map(RunLog::sync).transpose();
        let saved = synced.and_then(|on_first| match on_first {
            Some(()) => {
                let write = |folder: &Path| {
                    self.snapshot(weights).write(folder, &mut moments)?;
                    fault::point(&self.ranks, Stage::Checkpoint, step)
                };
                self.store.save(step, write).map(drop)
            }
            None => fault::point(&self.ranks, Stage::Checkpoint, step),
        });
        let ended = moments.end();
        agree(&self.ranks, saved.and(ended))?;
        self.saved_step = self.state.unevaluated.is_none().then_some(step);
        Ok(())
    }

    fn snapshot<'s>(&'s self, weights: &'s Weights) -> Snapshot<'s> {
        let Weights { decoder, optimizer, reference } = weights;
        let reference = written_reference(decoder, reference.as_ref(), self.config);
        let (state, tokenizer, base) = (&self.state, self.tokenizer, self.model.path.as_path());
        Snapshot { state, decoder, tokenizer, ending: &self.ending, base, optimizer, reference }
    }

    /// Ends the run: the final model in `model/` (an adapter merged into it, and in `adapter/` on its own), then
    /// the report.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(self, decoder: &Decoder) -> Result<Trained> {
        // Merged or widened matrices need memory that training has done with.
        decoder.device().release_memory();
        let model = self.dir.join("model");
        let mut report = PathBuf::new();
        on_first(&self.ranks, || {
            replace_folder(&model, |folder| self.save_model(decoder, folder))?;
            if let Some(adapter) = decoder.adapter() {
                replace_folder(&self.dir.join("adapter"), |folder| -> Result<()> {
                    adapter.save(folder, decoder.config(), &self.config.model.path)?;
                    self.save_text_side(folder)
                })?;
            }
            report = (self.write_report)(self.dir)?;
            Ok(())
        })?;
        let best = self.state.evaluation.best.map(|best| self.best.path_of(best.step));
        Ok(Trained { steps: self.state.step, model, best, report })
    }

    /// The model as it is used afterwards.
    fn save_model(&self, decoder: &Decoder, folder: &Path) -> Result<()> {
        decoder.save_as(folder, self.model.save_dtype.into())?;
        self.save_text_side(folder)
    }

    /// What a model's folder holds beside its weights.
    fn save_text_side(&self, folder: &Path) -> Result<()> {
        self.tokenizer.save(folder)?;
        self.ending.save(folder)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rlt_model::Gradients;

    use crate::config::MomentDtype;

    use super::*;

    /// `config.json` of two blocks of width 16 over 40 tokens.
    pub(crate) fn tiny_config() -> Value {
        serde_json::json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 40,
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "max_position_embeddings": 64, "rope_theta": 10000.0,
            "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": 0
        })
    }

    /// Such a model of random weights.
    pub(crate) fn tiny_model(seed: u64) -> Decoder {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), tiny_config().to_string()).unwrap();
        Decoder::random(&rlt_model::config::ModelConfig::from_dir(dir.path()).unwrap(), seed)
    }

    #[test]
    fn moments_come_back_bit_for_bit() {
        for moments in [MomentDtype::F32, MomentDtype::Bf16] {
            check_moments_come_back(moments);
        }
    }

    fn check_moments_come_back(moments: MomentDtype) {
        let dir = tempfile::tempdir().unwrap();
        let mut decoder = tiny_model(1);
        let settings =
            crate::config::OptimizerConfig { moments, ..crate::config::OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(&decoder, &settings, 9);
        let gradients = Gradients::Weights(tiny_model(2).parameters().clone());
        for _ in 0..3 {
            optimizer.update(&mut decoder, &gradients).unwrap();
        }
        let path = dir.path().join("optimizer.safetensors");
        optimizer.write(&path, &mut optimizer.whole_moments()).unwrap();
        let mut again = Optimizer::new(&decoder, &settings, 9);
        again.restore(&path, 3).unwrap();
        let mut copy = decoder.with_weights(decoder.parameters().clone());
        let update = optimizer.update(&mut decoder, &gradients).unwrap();
        assert_eq!(update, again.update(&mut copy, &gradients).unwrap());
        for (a, b) in decoder.parameters().tensors().iter().zip(copy.parameters().tensors()) {
            assert_eq!(a.to_host(), b.to_host());
        }
    }
}
