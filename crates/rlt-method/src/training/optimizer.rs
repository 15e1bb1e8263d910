//! AdamW over what is trained of a model (all weights, or an adapter): moments, schedule, clipping.
//!
//! Ranks share it: each has the moments of its shard of every weight, is handed the sum of all ranks' gradients of that shard,
//! updates it, and hands it to the others (ZeRO-2, arXiv 1910.02054). Shards end at multiples of [`BLOCK`] elements, so that
//! all bits are those of one rank.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use rlt_engine::adamw::{AdamW, BLOCK, squares_of_blocks};
use rlt_engine::moment::Moment;
use rlt_engine::{Device, Tensor};
use rlt_model::parameters::Slot;
use rlt_model::shared::{SharedParameters, shards};
use rlt_model::weights::{Dtype, Weights, write_each};
use rlt_model::{Decoder, Gradients};
use rlt_ranks::Ranks;

use super::fault::{self, Stage};
use super::lanes::trained_shares;
use super::schedule::learning_rate;
use crate::config::{Config, MomentDtype, OptimizerConfig};
use crate::error::{Error, Result};
use crate::ranks::gather;

/// Names of the two moments in `optimizer.safetensors`, before the weight's own name.
const MOMENTS: [&str; 2] = ["first", "second"];

/// The optimizer's settings and state.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerConfig,
    total_steps: u64,
    steps_done: u64,
    /// What is trained, by name and shape.
    slots: Vec<Slot>,
    device: Device,
    ranks: Ranks,
    /// Which of the shards are this rank's.
    rank: usize,
    /// Of each slot, one a rank.
    shards: Vec<Vec<Range<usize>>>,
    /// Of this rank's shard, one a slot.
    first: Vec<Moment>,
    second: Vec<Moment>,
}

/// What one update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerUpdate {
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
}

/// What a step does with its gradients.
struct Settled {
    adamw: AdamW,
    /// What gradients are multiplied by.
    scale: f32,
    update: OptimizerUpdate,
}

impl Optimizer {
    /// An optimizer of what is trained of `decoder`, at the beginning of a run of `total_steps` steps, on one rank.
    pub fn new(decoder: &Decoder, settings: &OptimizerConfig, total_steps: u64) -> Self {
        let config = Config { optimizer: settings.clone(), ..Config::default() };
        Self::shared(decoder, &config, total_steps, &Ranks::alone())
    }

    /// As [`Self::new`], of a run of `config`, shared by `ranks`. All of them call the same functions of it, in the same order.
    pub fn shared(decoder: &Decoder, config: &Config, total_steps: u64, ranks: &Ranks) -> Self {
        let slots = decoder.trained_slots();
        let shards = shards_of(&slots, ranks.size());
        Self::with_shards(decoder, config, total_steps, ranks.clone(), ranks.rank(), shards)
    }

    /// That of the rank with the most moments of `ranks` ranks, on a device of sizes, where no others are met.
    pub(crate) fn planned(decoder: &Decoder, config: &Config, ranks: usize) -> Self {
        let shards = shards_of(&decoder.trained_slots(), ranks);
        let moments = |rank: &usize| shards.iter().map(|shards| shards[*rank].len()).sum::<usize>();
        let fullest = (0..ranks).max_by_key(moments).unwrap_or(0);
        Self::with_shards(decoder, config, 1, Ranks::alone(), fullest, shards)
    }

    fn with_shards(
        decoder: &Decoder,
        config: &Config,
        total_steps: u64,
        ranks: Ranks,
        rank: usize,
        shards: Vec<Vec<Range<usize>>>,
    ) -> Self {
        let slots = decoder.trained_slots();
        let is_bf16 = config.optimizer.moments == MomentDtype::Bf16;
        let zeros = |device: &Device, rows, cols| {
            if config.memory.offload.of_moments() {
                return Moment::zeros_offloaded(device, is_bf16, rows, cols);
            }
            if is_bf16 {
                Moment::zeros_bf16(device, rows, cols)
            } else {
                Moment::zeros_f32(device, rows, cols)
            }
        };
        let own = |shards: &Vec<Range<usize>>| zeros(decoder.device(), 1, shards[rank].len());
        let zeros = || shards.iter().map(own).collect();
        let (first, second) = (zeros(), zeros());
        let (settings, device) = (config.optimizer.clone(), decoder.device().clone());
        Self { settings, total_steps, steps_done: 0, slots, device, ranks, rank, shards, first, second }
    }

    /// How many ranks share it, met or only planned for.
    fn n_ranks(&self) -> usize {
        self.shards.first().map_or(1, Vec::len)
    }

    /// Bytes of the host's memory that a GPU's moments wait in.
    pub(crate) fn offloaded_bytes(&self) -> u64 {
        let bytes = |moment: &Moment| if let Moment::Offloaded(moment) = moment { moment.bytes() } else { 0 };
        self.first.iter().chain(&self.second).map(bytes).sum()
    }

    /// Updates done.
    pub fn updates_done(&self) -> u64 {
        self.steps_done
    }

    /// Updates what is trained of `decoder` with `gradients`, summed over ranks and scaled down to the clipping norm. Weight
    /// decay applies to matrices only.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the step and the first weight whose gradient is not finite, and the rank that it comes
    /// from; nothing has changed then. That a rank is gone.
    pub fn update(&mut self, decoder: &mut Decoder, gradients: &Gradients) -> Result<OptimizerUpdate> {
        if let Some(shared) = trained_shares(decoder) {
            return self.update_shares(&shared.clone());
        }
        let step = self.steps_done + 1;
        let of_shard = self.summed(gradients)?;
        let own: Vec<Vec<f64>> = of_shard.iter().map(|gradient| squares_of_blocks(gradient)).collect();
        let squares = self.squares(&own)?;
        if let Some(bad) = squares.iter().position(|square| !square.is_finite()) {
            let from = self.rank_of_not_finite(gradients.tensors()[bad])?;
            return Err(self.not_finite(bad, &from));
        }
        let Settled { adamw, scale, update } = self.settled(&squares);
        let moments = self.first.iter_mut().zip(&mut self.second);
        let weights = decoder.trained_tensors_mut();
        for (index, (((weight, gradient), (first, second)), slot)) in
            weights.into_iter().zip(&of_shard).zip(moments).zip(&self.slots).enumerate()
        {
            let (shards, start) = (&self.shards[index], self.shards[index][self.rank].start);
            adamw.update_from(start, weight, gradient, first, second, scale, step, slot.decay, index);
            if shards.len() == 1 {
                continue;
            }
            if weight.device().has_numbers() {
                let own = shards[self.rank].clone();
                weight.complete_on_host(own, |numbers| self.ranks.gather_shards(numbers, shards))?;
            }
        }
        self.steps_done = step;
        Ok(update)
    }

    /// As [`Self::update`], of weights that ranks share: each has the gradient of its shards already, and no other needs to
    /// hear what becomes of them.
    fn update_shares(&mut self, shared: &SharedParameters) -> Result<OptimizerUpdate> {
        let mut own = Vec::with_capacity(self.slots.len());
        shared.update(|_, _, gradient| {
            own.push(squares_of_blocks(gradient));
            Ok::<_, Error>(())
        })?;
        let squares = self.squares(&own)?;
        if let Some(bad) = squares.iter().position(|square| !square.is_finite()) {
            return Err(self.not_finite(bad, ""));
        }
        let (step, Settled { adamw, scale, update }) = (self.steps_done + 1, self.settled(&squares));
        let Self { first, second, slots, shards, rank, .. } = self;
        shared.update(|index, weight, gradient| {
            let from = shards[index][*rank].start;
            let (first, second, decay) = (&mut first[index], &mut second[index], slots[index].decay);
            adamw.update_shard(from, weight, gradient, first, second, scale, step, decay, index);
            Ok::<_, Error>(())
        })?;
        self.steps_done = step;
        Ok(update)
    }

    /// What a step does with gradients of these sums of squares, one a slot.
    fn settled(&self, squares: &[f64]) -> Settled {
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        let learning_rate = learning_rate(&self.settings, self.steps_done + 1, self.total_steps);
        let OptimizerConfig { beta1, beta2, epsilon, weight_decay, clip_norm, .. } = self.settings;
        let adamw = AdamW { learning_rate, beta1, beta2, epsilon, weight_decay };
        let scale = clip_scale(grad_norm, clip_norm) as f32;
        Settled { adamw, scale, update: OptimizerUpdate { learning_rate, grad_norm } }
    }

    /// The error of a step whose gradient of slot `bad` is not finite.
    fn not_finite(&self, bad: usize, from: &str) -> Error {
        Error::NonFinite(format!(
            "step {}: the gradient of {} is not finite{from}; a lower optimizer.learning_rate may help",
            self.steps_done + 1,
            self.slots[bad].parts[0].name
        ))
    }

    /// The gradients of this rank's shards, summed over ranks, a slot at a time: no rank holds a second copy of all.
    fn summed<'g>(&self, gradients: &'g Gradients) -> Result<Vec<Cow<'g, Tensor>>> {
        let tensors = gradients.tensors().into_iter();
        if self.n_ranks() == 1 {
            return Ok(tensors.map(Cow::Borrowed).collect());
        }
        let sum = |(gradient, shards): (&Tensor, &Vec<Range<usize>>)| {
            let (device, own) = (gradient.device(), shards[self.rank].len());
            // Every rank's part of it, until they are summed.
            let _parts = device.hold_on_host((4 * (shards.len() - 1) * own) as u64);
            let mut sum = Tensor::scratch_on(device, 1, own);
            if device.has_numbers() {
                let full = gradient.to_host();
                sum.complete_on_host(0..0, |sum| self.ranks.reduce_shards_into(&full, shards, sum))?;
            }
            Ok(Cow::Owned(sum))
        };
        tensors.zip(&self.shards).map(sum).collect()
    }

    /// The sum of squares of every slot's gradient, of which this rank has its `own` shard's, block by block: blocks are added
    /// up in their order, whoever has them.
    fn squares(&self, own: &[Vec<f64>]) -> Result<Vec<f64>> {
        fault::point(&self.ranks, Stage::Optimizer, self.steps_done + 1)?;
        if self.ranks.size() == 1 {
            return Ok(own.iter().map(|blocks| blocks.iter().sum()).collect());
        }
        // One list a rank, a slot's blocks after another's.
        let of_ranks: Vec<Vec<f64>> = gather(&self.ranks, vec![own.concat()])?;
        let mut of_ranks: Vec<_> = of_ranks.into_iter().map(Vec::into_iter).collect();
        let of_slot = |shards: &Vec<Range<usize>>| {
            let blocks = shards.iter().zip(&mut of_ranks);
            blocks.flat_map(|(shard, blocks)| blocks.take(shard.len().div_ceil(BLOCK))).sum()
        };
        Ok(self.shards.iter().map(of_slot).collect())
    }

    /// The place of the first rank whose own gradient is not finite, in words; nothing on one rank, or where only the sum is
    /// not.
    fn rank_of_not_finite(&self, own: &Tensor) -> Result<String> {
        if self.ranks.size() == 1 {
            return Ok(String::new());
        }
        let place = (!own.is_finite()).then(|| format!(" ({})", self.ranks.place()));
        Ok(self.ranks.first_error(place)?.map(|(_, place)| place).unwrap_or_default())
    }

    /// The moments as one safetensors file: `first.NAME` and `second.NAME` for every weight. `moments` brings them here from
    /// all ranks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, path: &Path, moments: &mut WholeMoments) -> Result<()> {
        let mut names = Vec::new();
        for moment in MOMENTS {
            let parts = self.slots.iter().flat_map(|slot| &slot.parts);
            names.extend(parts.map(|part| (format!("{moment}.{}", part.name), part.shape.as_slice())));
        }
        let names: Vec<_> = names.iter().map(|(name, shape)| (name.as_str(), *shape)).collect();
        let dtype = match self.settings.moments {
            MomentDtype::F32 => Dtype::F32,
            MomentDtype::Bf16 => Dtype::Bf16,
        };
        let written = write_each(path, &names, dtype, &mut *moments);
        // A rank that is gone leaves the moments incomplete.
        match moments.failure.clone() {
            Some(failure) => Err(failure.into()),
            None => Ok(written?),
        }
    }

    /// The moments, whole, as the host of the first rank sees them.
    pub(crate) fn whole_moments(&self) -> WholeMoments<'_> {
        WholeMoments { optimizer: self, next: 0, failure: None }
    }

    /// Continues after `steps_done` steps with the moments of a checkpoint; each rank reads its shards.
    ///
    /// # Errors
    /// The file is missing, damaged or of another model.
    pub fn restore(&mut self, path: &Path, steps_done: u64) -> Result<()> {
        let weights = Weights::open_file(path)?;
        for (name, moments) in MOMENTS.into_iter().zip([&mut self.first, &mut self.second]) {
            for ((slot, shards), moment) in self.slots.iter().zip(&self.shards).zip(moments) {
                let mut data = Vec::with_capacity(slot.rows * slot.cols);
                for part in &slot.parts {
                    data.extend(weights.read_f32(&format!("{name}.{}", part.name), &part.shape)?);
                }
                moment.set(&data[shards[self.rank].clone()]);
            }
        }
        self.steps_done = steps_done;
        Ok(())
    }
}

/// The moments of an optimizer one after another, the first moment of every slot, then the second: whole on the first rank,
/// nothing on the others, which have to ask for each all the same. Those kept in bf16 are widened.
pub(crate) struct WholeMoments<'a> {
    optimizer: &'a Optimizer,
    /// How many were asked for.
    next: usize,
    failure: Option<rlt_ranks::Error>,
}

impl<'a> Iterator for WholeMoments<'a> {
    type Item = Cow<'a, [f32]>;

    fn next(&mut self) -> Option<Self::Item> {
        let Optimizer { ranks, slots, first, second, .. } = self.optimizer;
        let slot = &slots[self.next % slots.len().max(1)];
        let own = first.iter().chain(second).nth(self.next).filter(|_| self.failure.is_none())?.to_host();
        self.next += 1;
        if self.optimizer.n_ranks() == 1 {
            return Some(own);
        }
        // Two copies of the whole on their way into the file, as bytes and as numbers.
        let device = &self.optimizer.device;
        let _whole = device.hold_on_host((8 * slot.rows * slot.cols) as u64);
        if !device.has_numbers() {
            return Some(own);
        }
        let own: Vec<u8> = own.iter().flat_map(|number| number.to_le_bytes()).collect();
        let nothing: &[u8] = &[];
        let mut parts = vec![nothing; ranks.size()];
        parts[0] = &own;
        match ranks.all_to_all(&parts) {
            Ok(of_ranks) => {
                let bytes = of_ranks.iter().flat_map(|bytes| bytes.as_chunks::<4>().0);
                Some(bytes.map(|number| f32::from_le_bytes(*number)).collect())
            }
            Err(failure) => {
                self.failure = Some(failure);
                None
            }
        }
    }
}

impl WholeMoments<'_> {
    /// Asks for those that nobody asked for, so that ranks stay together whatever became of a file.
    ///
    /// # Errors
    /// That a rank is gone, now or before.
    pub fn end(mut self) -> Result<()> {
        self.by_ref().for_each(drop);
        self.failure.map_or(Ok(()), |failure| Err(failure.into()))
    }
}

/// The shards of every slot.
fn shards_of(slots: &[Slot], ranks: usize) -> Vec<Vec<Range<usize>>> {
    slots.iter().map(|slot| shards(slot.rows * slot.cols, ranks)).collect()
}

/// What gradients of global norm `norm` are multiplied by, so that the norm is at most `limit`; a limit
/// of 0 is none.
fn clip_scale(norm: f64, limit: f64) -> f64 {
    if limit > 0.0 && norm > limit { limit / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use rlt_engine::Tensor;

    use rlt_model::parameters::BlockWeight;

    use super::*;
    use crate::training::run::tests::tiny_model;

    #[test]
    fn gradients_are_scaled_down_and_never_up() {
        assert_eq!(clip_scale(4.0, 1.0), 0.25);
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert_eq!(clip_scale(4.0, 0.0), 1.0);
    }

    #[test]
    fn the_first_step_moves_by_the_learning_rate_and_decays_matrices_only() {
        let mut decoder = tiny_model(1);
        let before = decoder.parameters().clone();
        let settings = OptimizerConfig {
            learning_rate: 0.1,
            weight_decay: 0.5,
            epsilon: 1e-12,
            clip_norm: 0.0,
            ..OptimizerConfig::default()
        };
        let mut gradients = Gradients::zeros(&decoder);
        for tensor in gradients.tensors_mut() {
            *tensor = Tensor::full(tensor.rows(), tensor.cols(), -2.0);
        }
        let update = Optimizer::new(&decoder, &settings, 5).update(&mut decoder, &gradients).unwrap();
        assert!((update.grad_norm - 2.0 * (before.len() as f64).sqrt()).abs() < 1e-3);
        // At step 1 the two corrected moments are g and g^2: the weight moves by the learning rate.
        let moved = |before: &Tensor, after: &Tensor, keep: f32| {
            let (before, after) = (before.to_host(), after.to_host());
            for (b, a) in before.iter().zip(after.iter()) {
                assert!((a - (keep * b + 0.1)).abs() < 1e-6, "{b} became {a}");
            }
        };
        let after = decoder.parameters();
        moved(&before.final_norm, &after.final_norm, 1.0);
        moved(&before.blocks[0][BlockWeight::Down], &after.blocks[0][BlockWeight::Down], 0.95);
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let mut decoder = tiny_model(1);
        let before = decoder.parameters().final_norm.to_host().into_owned();
        let mut gradients = Gradients::zeros(&decoder);
        let down = decoder
            .trained_slots()
            .iter()
            .position(|slot| slot.parts[0].name == "model.layers.1.mlp.down_proj.weight");
        gradients.tensors_mut().remove(down.unwrap()).mix_in(&Tensor::full(16, 32, f32::NAN), 1.0);
        let mut optimizer = Optimizer::new(&decoder, &OptimizerConfig::default(), 5);
        let message = optimizer.update(&mut decoder, &gradients).unwrap_err().to_string();
        assert!(
            message.starts_with("step 1: the gradient of model.layers.1.mlp.down_proj.weight is not finite"),
            "{message}"
        );
        assert_eq!(decoder.parameters().final_norm.to_host(), before);
    }

    #[test]
    fn a_gradient_that_is_not_finite_on_one_rank_is_an_error_on_all() {
        let messages = rlt_ranks::on_threads(3, |ranks| {
            let mut decoder = tiny_model(1);
            let before = decoder.parameters().final_norm.to_host().into_owned();
            let mut gradients = Gradients::zeros(&decoder);
            if ranks.rank() == 1 {
                let last = gradients.tensors_mut().pop().unwrap();
                *last = Tensor::full(last.rows(), last.cols(), f32::INFINITY);
            }
            let mut optimizer = Optimizer::shared(&decoder, &Config::default(), 5, &ranks);
            let message = optimizer.update(&mut decoder, &gradients).unwrap_err().to_string();
            assert_eq!(
                (optimizer.updates_done(), &*decoder.parameters().final_norm.to_host()),
                (0, &*before)
            );
            message
        });
        for message in messages {
            assert!(message.contains(" is not finite (rank 1 of 3 on "), "{message}");
        }
    }

    #[test]
    fn shards_end_at_blocks_and_are_as_even_as_blocks_allow() {
        assert_eq!(shards(10, 3), [0..0, 0..0, 0..10]);
        assert_eq!(shards(4 * BLOCK + 7, 2), [0..2 * BLOCK, 2 * BLOCK..4 * BLOCK + 7]);
        assert_eq!(shards(4 * BLOCK, 4), [0, 1, 2, 3].map(|i| i * BLOCK..(i + 1) * BLOCK));
        assert_eq!(shards(5, 1), std::iter::once(0..5).collect::<Vec<_>>());
    }
}
