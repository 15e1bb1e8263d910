//! The loop of supervised fine-tuning.
//!
//! Where it differs from the paper's recipe (its Table of hyper-parameters, trained with TRL):
//! - weights and moments are f32, not bf16;
//! - the loss is the mean over the tokens of the whole batch, as TRL's, however the batch is cut;
//! - epochs follow each other without a partial batch between them: a batch may end one epoch and begin
//!   the next, only the last batch of the run can be smaller;
//! - rows that do not fit are dropped and counted, not cut.

use std::path::Path;
use std::time::Instant;

use rlt_model::batch::{GroupPart, PackedBatch, ScoringGroup, micro_batches};
use rlt_model::chat_template::TemplateTime;
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Gradients, Stop};
use serde_json::Map;

use super::evaluate::HeldOut;
use super::examples::{Row, examples, n_loss_tokens};
use crate::config::{Config, SftFormat};
use crate::error::{Error, Result};
use crate::metrics;
use crate::prompts::{ChatText, SftExample};
use crate::ranks::agree;
use crate::sampling::turn_end_token;
use crate::training::failure::{FailedBatch, FailedGroup};
use crate::training::inputs::Checksum;
use crate::training::run::Weights;
use crate::training::{
    Earlier, Ending, EpochOrder, GradientSum, Host, Inputs, LaneWork, Lanes, RowsSum, Run, SharedLanes,
    Trained, WorldRows,
};
use rlt_reward::supervised::{derivative, loss, surprisal_gate};

/// Fine-tunes `given.model.path` on the rows of `given.data`, writing to `run_dir`. Goes on where an
/// earlier call in the same directory ended. Once `host.stop` is true, saves and ends. All of `host.ranks` call it alike, each
/// with its own progress and flag, and see the same files under the same names.
///
/// # Errors
/// [`Error::Usage`] for a configuration that lacks something, what files and rows report,
/// [`Error::NonFinite`] naming step and row, [`Error::Interrupted`] after it.
pub fn train(given: &Config, run_dir: &Path, host: &Host) -> Result<Trained> {
    given.validate_for_sft()?;
    let host = &host.of_rank();
    let &Host { progress, stop, ref ranks, .. } = host;
    let config = &host.supply(given, run_dir, WorldRows::Textbook)?;
    let earlier = Earlier::find(run_dir, host)?;
    let tokenizer = Tokenizer::from_dir(&config.model.path)?;
    let text = TextSide::load(config, earlier.template_time())?;
    let model = ModelConfig::from_dir(&config.model.path)?;
    let examples = agree(ranks, examples(config, &model, &tokenizer, text.chat.as_ref(), progress))?;
    let batch_rows = config.sft.batch_rows as u64;
    let total_rows = ((config.sft.epochs * examples.len() as f64).round() as u64).max(1);
    let total_steps = total_rows.div_ceil(batch_rows);
    let held_out = agree(ranks, HeldOut::load(config, &tokenizer, text.chat.as_ref(), progress))?;

    let mut counted = Checksum::default();
    for span in examples.iter().flat_map(|row| &row.example.loss) {
        counted.add_span(span);
    }
    let inputs = Inputs {
        rows: Some(RowsSum::of_ids(examples.iter().map(|row| row.example.ids.as_slice()))),
        answers: Some(counted.finish()),
        held_out: Some(held_out.as_ref().map(HeldOut::fingerprint).unwrap_or_default()),
        ..agree(ranks, Inputs::of("sft", given, config, progress))?
    };
    let (mut run, mut weights) = Run::begin(
        config,
        run_dir,
        &tokenizer,
        Ending::of(&config.model.path, text.turn_end()?)?,
        earlier,
        inputs,
        text.time(),
        total_steps,
        1,
        host,
    )?;
    let evaluate = |decoder: &Decoder| {
        held_out.as_ref().map(|rows| rows.evaluate(decoder, ranks, Stop::when(stop))).transpose()
    };
    let mut order = EpochOrder::new(config.seed, examples.len());
    let lanes = run.lanes().clone();
    let mut gradients = GradientSum::new(&weights.decoder, lanes.n_own());
    let mut last_loss = String::new();
    progress.start("sft", total_steps - run.steps_done(), "steps");
    let _ = run.end_unevaluated_step(&weights, |_| evaluate(&weights.decoder))?;

    for step in run.steps_left() {
        run.stop_if_asked(&weights)?;
        let started = Instant::now();
        let positions = (step - 1) * batch_rows..(step * batch_rows).min(total_rows);
        let rows: Vec<&Row> = order.rows(positions.clone()).into_iter().map(|row| &examples[row]).collect();
        let pass = BatchPass::new(config, step, &lanes, Stop::when(stop));
        let batch = batch_gradient(&weights.decoder, &rows, &pass, &mut gradients).map_err(|error| {
            let kept = run.keep_failed(&weights, error, || failed_groups(&rows));
            run.stopped(&weights, kept)
        })?;
        let update = weights
            .optimizer
            .update(&mut weights.decoder, gradients.total())
            .map_err(|error| run.keep_failed(&weights, error, || failed_groups(&rows)))?;
        config.end_stage();

        let tokens_per_s = batch.n_tokens as f64 / started.elapsed().as_secs_f64();
        let mut row = Map::new();
        metrics::LOSS.put(&mut row, batch.loss);
        metrics::LEARNING_RATE.put(&mut row, update.learning_rate);
        metrics::GRAD_NORM.put(&mut row, update.grad_norm);
        if config.sft.gate_kappa > 0.0 {
            metrics::GATE_MEAN.put(&mut row, batch.gate);
        }
        metrics::TOKENS.put(&mut row, batch.n_tokens);
        metrics::TOKENS_PER_S.put(&mut row, tokens_per_s);
        metrics::EPOCH.put(&mut row, positions.end as f64 / examples.len() as f64);
        last_loss = format!("loss {:.4}", batch.loss);
        let ended = run.end_step(&weights, positions.end, row, |_| evaluate(&weights.decoder))?;
        config.end_stage();
        progress.advance(1, &format!("{last_loss}, {tokens_per_s:.0} tokens/s"));
        if ended.is_break() {
            break;
        }
    }
    progress.finish(&last_loss);
    run.finish(&weights.decoder)
}

/// The chat template that `sft.format` writes rows with; none for plain text.
struct TextSide {
    chat: Option<ChatText>,
    time: TemplateTime,
}

impl TextSide {
    fn load(config: &Config, time: TemplateTime) -> Result<Self> {
        let chat = match config.sft.format {
            SftFormat::Text => None,
            SftFormat::Teacher | SftFormat::Student => {
                let chat = ChatText::from_dir_at(&config.model.path, time)?;
                Some(chat.reading(config.data.special_tokens))
            }
        };
        Ok(Self { chat, time })
    }

    /// What the template was told, where it asks.
    fn time(&self) -> Option<TemplateTime> {
        self.chat.as_ref().filter(|chat| chat.template.tells_time()).map(|_| self.time)
    }

    /// The token that every row teaches to end a turn with.
    fn turn_end(&self) -> Result<Option<u32>> {
        self.chat.as_ref().map_or(Ok(None), turn_end_token)
    }
}

/// The rows, in the form in which the batch of a failed step is kept.
fn failed_groups(rows: &[&Row]) -> Vec<FailedGroup> {
    let group = |row: &&Row| {
        let group = ScoringGroup::single(row.example.ids.clone(), row.example.loss.clone());
        FailedGroup::of(&row.name, 0, &group)
    };
    rows.iter().map(group).collect()
}

/// Learns from a kept batch as the step would have, and returns the gradient's norm.
///
/// # Errors
/// As the step that it was kept from.
pub(crate) fn learn_again(weights: &mut Weights, batch: &FailedBatch, lanes: Lanes) -> Result<f64> {
    let rows = batch.groups.iter().flat_map(|group| {
        group.to_scoring().continuations.into_iter().map(|continuation| Row {
            name: group.name.clone(),
            example: SftExample { ids: continuation.ids.to_vec(), loss: continuation.scored },
        })
    });
    let rows: Vec<Row> = rows.collect();
    let rows: Vec<&Row> = rows.iter().collect();
    let lanes = SharedLanes::from(lanes);
    let pass = BatchPass::new(&batch.config, batch.step, &lanes, Stop::never());
    let mut gradients = GradientSum::new(&weights.decoder, lanes.count());
    batch_gradient(&weights.decoder, &rows, &pass, &mut gradients)?;
    Ok(weights.optimizer.update(&mut weights.decoder, gradients.total())?.grad_norm)
}

/// What a batch came to.
pub(crate) struct BatchLoss {
    /// Mean negative log-probability of the tokens that count, nats.
    loss: f64,
    /// Mean weight of these tokens.
    gate: f64,
    /// Tokens in all rows.
    n_tokens: usize,
}

/// How the gradient of a batch is computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchPass<'a> {
    /// From 1.
    pub step: u64,
    pub tokens_per_microbatch: usize,
    pub gate: Gate,
    /// What to keep between the passes of a micro-batch.
    pub keep: Keep,
    /// In which partial sums it is added up.
    pub lanes: &'a SharedLanes,
    pub stop: Stop<'a>,
}

impl<'a> BatchPass<'a> {
    pub fn new(config: &Config, step: u64, lanes: &'a SharedLanes, stop: Stop<'a>) -> Self {
        let (tokens_per_microbatch, keep) =
            (config.sft.tokens_per_microbatch, config.memory.recompute.into());
        let gate = Gate { kappa: config.sft.gate_kappa, gamma: config.sft.gate_gamma };
        Self { step, tokens_per_microbatch, gate, keep, lanes, stop }
    }
}

/// What a token counts ([`surprisal_gate`]).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gate {
    kappa: f32,
    gamma: f32,
}

impl Gate {
    fn of(self, logprob: f32) -> f32 {
        surprisal_gate(logprob, self.kappa, self.gamma)
    }
}

/// The gradient of this rank's lanes of a batch into `sum`, lane by lane, micro-batch by micro-batch, unless it is asked to
/// stop between two of them; and what the whole batch came to.
pub(crate) fn batch_gradient(
    decoder: &Decoder,
    rows: &[&Row],
    pass: &BatchPass,
    sum: &mut GradientSum,
) -> Result<BatchLoss> {
    let n_loss: usize = rows.iter().map(|row| n_loss_tokens(&row.example.loss)).sum();
    let groups: Vec<ScoringGroup> = rows
        .iter()
        .map(|row| ScoringGroup::single(row.example.ids.clone(), row.example.loss.clone()))
        .collect();
    decoder.check_groups(&groups)?;
    let lanes = (0..pass.lanes.count()).map(|lane| {
        let of_lane = pass.lanes.part(lane, rows.len());
        let parts = micro_batches(&groups[of_lane.clone()], pass.tokens_per_microbatch);
        RowsOfLane { rows: &rows[of_lane], parts }
    });
    let work = BatchInLanes { decoder, lanes: lanes.collect(), derivative: derivative(n_loss), pass };
    let of_lanes = sum.of_lanes(pass.lanes, &work)?.into_iter();
    let of_lanes = of_lanes.map(|of_lane| (of_lane.logprobs, of_lane.gates)).collect();
    let (logprobs, gates) = pass.lanes.fold(of_lanes, |sum: &mut (f64, f64), other| {
        sum.0 += other.0;
        sum.1 += other.1;
    })?;
    let n_tokens = rows.iter().map(|row| row.example.ids.len()).sum();
    Ok(BatchLoss { loss: loss(logprobs, n_loss), gate: gates / n_loss as f64, n_tokens })
}

/// The rows of a batch, lane by lane.
struct BatchInLanes<'a> {
    decoder: &'a Decoder,
    lanes: Vec<RowsOfLane<'a>>,
    /// Of the loss by each log-probability.
    derivative: f32,
    pass: &'a BatchPass<'a>,
}

struct RowsOfLane<'a> {
    rows: &'a [&'a Row],
    /// Micro-batches of them.
    parts: Vec<Vec<GroupPart<'a>>>,
}

/// How far a lane is.
#[derive(Debug, Default)]
struct LaneSum {
    /// Loss tokens that are done.
    tokens: usize,
    /// The sum of their log-probabilities.
    logprobs: f64,
    /// That of their weights.
    gates: f64,
}

impl LaneWork for BatchInLanes<'_> {
    type Sum = LaneSum;

    fn n_parts(&self, lane: usize) -> usize {
        self.lanes[lane].parts.len()
    }

    fn add_part(&self, lane: usize, part: usize, gradients: &mut Gradients, sum: &mut LaneSum) -> Result<()> {
        let (RowsOfLane { rows, parts }, pass) = (&self.lanes[lane], self.pass);
        pass.stop.check()?;
        let batch = PackedBatch::new(&parts[part]);
        let logprobs =
            self.decoder.train_micro_batch(&batch, 1.0, pass.keep, gradients, |first, logprobs| {
                if let Some(bad) = logprobs.iter().position(|logprob| !logprob.is_finite()) {
                    let (step, row) = (pass.step, row_of_token(rows, sum.tokens + first + bad));
                    return Err(Error::NonFinite(format!(
                        "step {step}, {row}: a token's log-probability is not finite; a lower \
                         optimizer.learning_rate may help"
                    )));
                }
                Ok(logprobs.iter().map(|&logprob| self.derivative * pass.gate.of(logprob)).collect())
            })?;
        sum.tokens += logprobs.len();
        sum.gates += logprobs.iter().map(|&logprob| f64::from(pass.gate.of(logprob))).sum::<f64>();
        sum.logprobs += logprobs.iter().map(|&logprob| f64::from(logprob)).sum::<f64>();
        Ok(())
    }
}

/// The name of the row that the batch's loss token `index` belongs to.
fn row_of_token<'a>(rows: &[&'a Row], index: usize) -> &'a str {
    let mut end = 0;
    let row = rows.iter().find(|row| {
        end += n_loss_tokens(&row.example.loss);
        index < end
    });
    row.map_or("", |row| &row.name)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::training::run::tests::tiny_model;

    fn rows() -> Vec<Row> {
        [(3_u32, 9_usize, 4_usize), (5, 14, 1), (7, 6, 5), (11, 21, 8)]
            .iter()
            .map(|&(factor, n, first)| {
                let ids = (0..n as u32).map(|i| (i * factor + 1) % 40).collect();
                let counted = first..n;
                Row { name: format!("row {factor}"), example: SftExample { ids, loss: vec![counted] } }
            })
            .collect()
    }

    /// The first step, in one piece.
    fn pass() -> BatchPass<'static> {
        static ONE: LazyLock<SharedLanes> = LazyLock::new(|| Lanes::default().into());
        let (keep, stop) = (Keep::Activations, Stop::never());
        let gate = Gate { kappa: 0.0, gamma: -3.5 };
        BatchPass { step: 1, tokens_per_microbatch: 1000, gate, keep, lanes: &ONE, stop }
    }

    /// The loss that a gate has where the weights are those of `at`: a constant to the gradient.
    fn gated_loss(decoder: &Decoder, at: &Decoder, rows: &[&Row], gate: Gate) -> f64 {
        let groups: Vec<ScoringGroup> = rows
            .iter()
            .map(|row| ScoringGroup::single(row.example.ids.clone(), row.example.loss.clone()))
            .collect();
        let of = |model: &Decoder| {
            model
                .token_logprobs(&groups, 1.0, 1000)
                .unwrap()
                .into_iter()
                .flatten()
                .flatten()
                .collect::<Vec<f32>>()
        };
        let (logprobs, weights) = (of(decoder), of(at));
        let terms = logprobs.iter().zip(&weights).map(|(&lp, &at)| f64::from(lp) * f64::from(gate.of(at)));
        -terms.sum::<f64>() / logprobs.len() as f64
    }

    #[test]
    fn a_gated_gradient_is_that_of_the_weighted_loss() {
        let (decoder, rows) = (tiny_model(3), rows());
        let rows: Vec<&Row> = rows.iter().collect();
        // Weights between 0.1 and 0.9 for a model that has learnt nothing.
        let gate = Gate { kappa: 2.0, gamma: -3.7 };
        let lanes = Lanes::new(3).into();
        let pass = BatchPass { gate, tokens_per_microbatch: 16, lanes: &lanes, ..pass() };
        let mut sum = GradientSum::new(&decoder, 3);
        let batch = batch_gradient(&decoder, &rows, &pass, &mut sum).unwrap();
        assert!(batch.gate > 0.1 && batch.gate < 0.9, "{}", batch.gate);
        // Along the gradient itself the loss changes by its squared length.
        let gradient = sum.total().tensors()[0].to_host().into_owned();
        let squares: f64 = gradient.iter().map(|&g| f64::from(g).powi(2)).sum();
        let moved = |by: f32| {
            let mut moved = tiny_model(3);
            let embedding = &mut moved.parameters_mut().embedding;
            let data = embedding.to_host().iter().zip(&gradient).map(|(x, g)| x + by * g).collect();
            *embedding = rlt_engine::Tensor::from_vec(embedding.rows(), embedding.cols(), data);
            gated_loss(&moved, &decoder, &rows, gate)
        };
        let step = 3e-2;
        let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
        assert!((numeric - squares).abs() < 2e-3 * squares, "{numeric} {squares}");
    }

    #[test]
    fn micro_batches_and_lanes_give_the_gradient_of_the_batch() {
        let (decoder, rows) = (tiny_model(3), rows());
        let rows: Vec<&Row> = rows.iter().collect();
        let mut whole = GradientSum::new(&decoder, 1);
        let loss = batch_gradient(&decoder, &rows, &pass(), &mut whole).unwrap().loss;
        for (tokens_per_microbatch, n_lanes) in [(1, 1), (16, 1), (30, 1), (1000, 2), (16, 3), (30, 8)] {
            let mut parts = GradientSum::new(&decoder, n_lanes);
            let (keep, lanes) = (Keep::BlockInputs, Lanes::new(n_lanes).into());
            let pass = BatchPass { tokens_per_microbatch, keep, lanes: &lanes, ..pass() };
            let cut = batch_gradient(&decoder, &rows, &pass, &mut parts).unwrap();
            assert!((cut.loss - loss).abs() < 1e-6);
            assert_eq!(cut.n_tokens, 50);
            for (a, b) in whole.total().tensors().iter().zip(parts.total().tensors()) {
                for (a, b) in a.to_host().iter().zip(b.to_host().iter()) {
                    assert!((a - b).abs() < 1e-5, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn a_loss_that_is_not_finite_names_step_and_row() {
        let mut decoder = tiny_model(3);
        // Only the last row has token 39.
        let mut rows = rows();
        for row in &mut rows[..3] {
            row.example.ids.iter_mut().for_each(|id| *id %= 39);
        }
        rows[3].example.ids[2] = 39;
        let width = decoder.config().hidden_size;
        let embedding = &decoder.parameters().embedding;
        let mut data = embedding.to_host().into_owned();
        data[39 * width] = f32::INFINITY;
        decoder.parameters_mut().embedding = rlt_engine::Tensor::from_vec(data.len() / width, width, data);
        let rows: Vec<&Row> = rows.iter().collect();
        let mut gradients = GradientSum::new(&decoder, 1);
        let pass = BatchPass { step: 7, ..pass() };
        let error = batch_gradient(&decoder, &rows[3..], &pass, &mut gradients).err().unwrap();
        assert!(error.to_string().starts_with("step 7, row 11: "), "{error}");
    }

    #[test]
    fn a_loss_token_belongs_to_its_row() {
        let rows = rows();
        let rows: Vec<&Row> = rows.iter().collect();
        let names: Vec<&str> = [0, 4, 5, 17, 18, 19].map(|index| row_of_token(&rows, index)).to_vec();
        assert_eq!(names, ["row 3", "row 3", "row 5", "row 5", "row 7", "row 11"]);
    }
}
