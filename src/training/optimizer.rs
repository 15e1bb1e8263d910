//! AdamW over all weights of a model: moments, schedule, clipping.

use std::path::Path;

use rlt_engine::Tensor;
use rlt_engine::adamw::{AdamW, sum_of_squares};
use rlt_model::Decoder;
use rlt_model::config::ModelConfig;
use rlt_model::parameters::{Parameters, slots};
use rlt_model::weights::{Dtype, TensorView, Weights, write_safetensors};

use super::schedule::learning_rate;
use crate::config::OptimizerConfig;
use crate::error::{Error, Result};

/// Names of the two moments in `optimizer.safetensors`, before the weight's own name.
const MOMENTS: [&str; 2] = ["first", "second"];

/// The optimizer's settings and state.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerConfig,
    total_steps: u64,
    steps_done: u64,
    first: Parameters,
    second: Parameters,
}

/// What one update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
}

impl Optimizer {
    /// An optimizer at the beginning of a run of `total_steps` steps.
    pub fn new(model: &ModelConfig, settings: &OptimizerConfig, total_steps: u64) -> Self {
        let (first, second) = (Parameters::zeros(model), Parameters::zeros(model));
        Self { settings: settings.clone(), total_steps, steps_done: 0, first, second }
    }

    /// Updates done.
    pub fn updates_done(&self) -> u64 {
        self.steps_done
    }

    /// Updates the weights of `decoder` with `gradients`, scaled down to the clipping norm. Weight
    /// decay applies to matrices only.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the step and the first weight whose gradient is not finite; nothing
    /// has changed then.
    pub fn update(&mut self, decoder: &mut Decoder, gradients: &Parameters) -> Result<Update> {
        let step = self.steps_done + 1;
        let slots = slots(decoder.config());
        let squares: Vec<f64> = gradients.tensors().into_iter().map(sum_of_squares).collect();
        if let Some(bad) = squares.iter().position(|square| !square.is_finite()) {
            return Err(Error::NonFinite(format!(
                "step {step}: the gradient of {} is not finite; a lower optimizer.learning_rate may help",
                slots[bad].parts[0].name
            )));
        }
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        let learning_rate = learning_rate(&self.settings, step, self.total_steps);
        let OptimizerConfig { beta1, beta2, epsilon, weight_decay, clip_norm, .. } = self.settings;
        let adamw = AdamW { learning_rate, beta1, beta2, epsilon, weight_decay };
        let scale = clip_scale(grad_norm, clip_norm) as f32;
        let moments = self.first.tensors_mut().into_iter().zip(self.second.tensors_mut());
        let weights = decoder.parameters_mut().tensors_mut();
        for (((weight, gradient), (first, second)), slot) in
            weights.into_iter().zip(gradients.tensors()).zip(moments).zip(&slots)
        {
            adamw.update(weight, gradient, first, second, scale, step, slot.decay);
        }
        self.steps_done = step;
        Ok(Update { learning_rate, grad_norm })
    }

    /// Writes the moments as one safetensors file: `first.NAME` and `second.NAME` for every weight.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, model: &ModelConfig, path: &Path) -> Result<()> {
        let slots = slots(model);
        let moments = [&self.first, &self.second];
        let tensors: Vec<_> = moments.iter().flat_map(|moment| moment.tensors()).collect();
        let hosts: Vec<_> = tensors.iter().map(|tensor| tensor.to_host()).collect();
        let mut parts = Vec::new();
        for ((moment, slot), data) in
            MOMENTS.iter().flat_map(|moment| slots.iter().map(move |slot| (moment, slot))).zip(&hosts)
        {
            let mut rest: &[f32] = data;
            for part in &slot.parts {
                let (own, after) = rest.split_at(part.shape.iter().product());
                rest = after;
                parts.push((format!("{moment}.{}", part.name), &part.shape, own));
            }
        }
        let views: Vec<TensorView> =
            parts.iter().map(|(name, shape, data)| TensorView { name, shape, data }).collect();
        Ok(write_safetensors(path, &views, Dtype::F32)?)
    }

    /// Continues after `steps_done` steps with the moments that [`Self::write`] wrote.
    ///
    /// # Errors
    /// The file is missing, damaged or of another model.
    pub fn restore(&mut self, model: &ModelConfig, path: &Path, steps_done: u64) -> Result<()> {
        let weights = Weights::open_file(path)?;
        let [first, second] = MOMENTS.map(|moment| {
            Parameters::build(model, |slot| {
                let mut data = Vec::with_capacity(slot.rows * slot.cols);
                for part in &slot.parts {
                    data.extend(weights.read_f32(&format!("{moment}.{}", part.name), &part.shape)?);
                }
                Ok::<_, Error>(Tensor::from_vec(slot.rows, slot.cols, data))
            })
        });
        (self.first, self.second, self.steps_done) = (first?, second?, steps_done);
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
        let mut gradients = Parameters::zeros(decoder.config());
        for tensor in gradients.tensors_mut() {
            *tensor = Tensor::full(tensor.rows(), tensor.cols(), -2.0);
        }
        let update = Optimizer::new(decoder.config(), &settings, 5).update(&mut decoder, &gradients).unwrap();
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
        moved(&before.blocks[0].down, &after.blocks[0].down, 0.95);
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let mut decoder = tiny_model(1);
        let before = decoder.parameters().final_norm.to_host().into_owned();
        let mut gradients = Parameters::zeros(decoder.config());
        gradients.blocks[1].down =
            Tensor::full(gradients.blocks[1].down.rows(), gradients.blocks[1].down.cols(), f32::NAN);
        let mut optimizer = Optimizer::new(decoder.config(), &OptimizerConfig::default(), 5);
        let message = optimizer.update(&mut decoder, &gradients).unwrap_err().to_string();
        assert!(
            message.starts_with("step 1: the gradient of model.layers.1.mlp.down_proj.weight is not finite"),
            "{message}"
        );
        assert_eq!(decoder.parameters().final_norm.to_host(), before);
    }
}
