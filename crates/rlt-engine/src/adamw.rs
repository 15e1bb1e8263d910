//! AdamW with decoupled weight decay (arXiv 1711.05101) and global-norm clipping.

use rayon::prelude::*;

use crate::simd;
use crate::tensor::Tensor;

/// Hyper-parameters of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, applied where a parameter asks for it.
    pub weight_decay: f64,
}

/// Elements handled at a time; fixed, so sums have a fixed shape.
const BLOCK: usize = 1 << 14;

/// Sum of squares of all elements, in f64 over blocks in order.
pub fn sum_of_squares(x: &Tensor) -> f64 {
    let blocks: Vec<f64> = x
        .data()
        .par_chunks(BLOCK)
        .map(|block| {
            f64::from(simd::vectorized(
                #[inline(always)]
                || simd::dot(block, block),
            ))
        })
        .collect();
    blocks.iter().sum()
}

impl AdamW {
    /// Updates `value` in place with `gradient * gradient_scale` at step `step` (from 1); `decay`
    /// says whether weight decay applies to this parameter.
    ///
    /// `m = b1 m + (1-b1) g`, `v = b2 v + (1-b2) g^2`,
    /// `value -= lr * (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + wd * value)`.
    pub fn update(
        &self,
        value: &mut Tensor,
        gradient: &Tensor,
        first: &mut Tensor,
        second: &mut Tensor,
        gradient_scale: f32,
        step: u64,
        decay: bool,
    ) {
        let correction1 = 1.0 - self.beta1.powi(step as i32);
        let correction2 = 1.0 - self.beta2.powi(step as i32);
        let (b1, b2) = (self.beta1 as f32, self.beta2 as f32);
        // Taken before rounding: in f32, 1 - 0.999 is off by 1.3e-5 of itself.
        let (a1, a2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let step_size = (self.learning_rate / correction1) as f32;
        let root2 = (1.0 / correction2.sqrt()) as f32;
        let eps = self.epsilon as f32;
        let keep = if decay { (1.0 - self.learning_rate * self.weight_decay) as f32 } else { 1.0 };
        value
            .data_mut()
            .par_chunks_mut(BLOCK)
            .zip(gradient.data().par_chunks(BLOCK))
            .zip(first.data_mut().par_chunks_mut(BLOCK))
            .zip(second.data_mut().par_chunks_mut(BLOCK))
            .for_each(|(((value, gradient), first), second)| {
                simd::vectorized(
                    #[inline(always)]
                    || {
                        for (((x, g), m), v) in value.iter_mut().zip(gradient).zip(first).zip(second) {
                            let g = g * gradient_scale;
                            *m = b1.mul_add(*m, a1 * g);
                            *v = b2.mul_add(*v, a2 * g * g);
                            *x = x.mul_add(keep, -step_size * *m / v.sqrt().mul_add(root2, eps));
                        }
                    },
                );
            });
    }
}
