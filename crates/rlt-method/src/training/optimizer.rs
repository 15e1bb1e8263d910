//! AdamW over what is trained of a model (all weights, or an adapter): moments, schedule, clipping.

use std::borrow::Cow;
use std::path::Path;

use rlt_engine::Device;
use rlt_engine::adamw::{AdamW, sum_of_squares};
use rlt_engine::moment::Moment;
use rlt_model::parameters::Slot;
use rlt_model::weights::{Dtype, Weights, write_each};
use rlt_model::{Decoder, Gradients};

use super::schedule::learning_rate;
use crate::config::{MomentDtype, OptimizerConfig};
use crate::error::{Error, Result};

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
    /// One a slot.
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

impl Optimizer {
    /// An optimizer of what is trained of `decoder`, at the beginning of a run of `total_steps` steps.
    pub fn new(decoder: &Decoder, settings: &OptimizerConfig, total_steps: u64) -> Self {
        let slots = decoder.trained_slots();
        let zeros: fn(&Device, usize, usize) -> Moment = match settings.moments {
            MomentDtype::F32 => Moment::zeros_f32,
            MomentDtype::Bf16 => Moment::zeros_bf16,
        };
        let zeros = || slots.iter().map(|slot| zeros(decoder.device(), slot.rows, slot.cols)).collect();
        let (first, second) = (zeros(), zeros());
        Self { settings: settings.clone(), total_steps, steps_done: 0, slots, first, second }
    }

    /// Updates done.
    pub fn updates_done(&self) -> u64 {
        self.steps_done
    }

    /// Updates what is trained of `decoder` with `gradients`, scaled down to the clipping norm. Weight
    /// decay applies to matrices only.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the step and the first weight whose gradient is not finite; nothing
    /// has changed then.
    pub fn update(&mut self, decoder: &mut Decoder, gradients: &Gradients) -> Result<OptimizerUpdate> {
        let step = self.steps_done + 1;
        let squares: Vec<f64> = gradients.tensors().into_iter().map(sum_of_squares).collect();
        if let Some(bad) = squares.iter().position(|square| !square.is_finite()) {
            return Err(Error::NonFinite(format!(
                "step {step}: the gradient of {} is not finite; a lower optimizer.learning_rate may help",
                self.slots[bad].parts[0].name
            )));
        }
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        let learning_rate = learning_rate(&self.settings, step, self.total_steps);
        let OptimizerConfig { beta1, beta2, epsilon, weight_decay, clip_norm, .. } = self.settings;
        let adamw = AdamW { learning_rate, beta1, beta2, epsilon, weight_decay };
        let scale = clip_scale(grad_norm, clip_norm) as f32;
        let moments = self.first.iter_mut().zip(&mut self.second);
        let weights = decoder.trained_tensors_mut();
        for (index, (((weight, gradient), (first, second)), slot)) in
            weights.into_iter().zip(gradients.tensors()).zip(moments).zip(&self.slots).enumerate()
        {
            adamw.update(weight, gradient, first, second, scale, step, slot.decay, index);
        }
        self.steps_done = step;
        Ok(OptimizerUpdate { learning_rate, grad_norm })
    }

    /// Writes the moments as one safetensors file: `first.NAME` and `second.NAME` for every weight.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
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
        Ok(write_each(path, &names, dtype, self.numbers())?)
    }

    /// The moments as the host sees them, one at a time: those kept in bf16 are widened for it.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = Cow<'_, [f32]>> {
        self.first.iter().chain(&self.second).map(Moment::to_host)
    }

    /// Continues after `steps_done` steps with the moments that [`Self::write`] wrote.
    ///
    /// # Errors
    /// The file is missing, damaged or of another model.
    pub fn restore(&mut self, path: &Path, steps_done: u64) -> Result<()> {
        let weights = Weights::open_file(path)?;
        for (name, moments) in MOMENTS.into_iter().zip([&mut self.first, &mut self.second]) {
            for (slot, moment) in self.slots.iter().zip(moments) {
                let mut data = Vec::with_capacity(slot.rows * slot.cols);
                for part in &slot.parts {
                    data.extend(weights.read_f32(&format!("{name}.{}", part.name), &part.shape)?);
                }
                moment.set(&data);
            }
        }
        self.steps_done = steps_done;
        Ok(())
    }
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
}
