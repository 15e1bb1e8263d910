//! AdamW with decoupled weight decay (arXiv 1711.05101) and global-norm clipping.

use rayon::prelude::*;
use rlt_cuda::{CHUNKS_AT_ONCE, Gpu, RandomRounding};

use crate::bf16::widen;
use crate::device::Device;
use crate::moment::{Moment, Numbers, random_bits, round_at_random};
use crate::simd;
use crate::sizes::Sizes;
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

/// Elements handled at a time; fixed, so sums have a fixed shape. Parts of a tensor that begin and end at its multiples are
/// updated, and their squares summed, as in the whole tensor.
pub const BLOCK: usize = 1 << 14;

/// Numbers of offloaded moments that visit a GPU together: long enough that nobody waits for a copy to begin, 16 MiB in f32.
const VISITING: usize = 1 << 22;

/// Sum of squares of all elements, in f64 over blocks in order; 0 without numbers.
pub fn sum_of_squares(x: &Tensor) -> f64 {
    squares_of_blocks(x).iter().sum()
}

/// The sums that [`sum_of_squares`] adds up: of every [`BLOCK`] elements, in order; none without numbers.
pub fn squares_of_blocks(x: &Tensor) -> Vec<f64> {
    if let Device::Sizes(sizes) = x.device() {
        sizes.did_rows(x.len());
        return Vec::new();
    }
    if let Some(gpu) = x.gpu() {
        let squares = gpu.squares_of_blocks(x.memory(), BLOCK).to_host::<f32>();
        return squares.into_iter().map(f64::from).collect();
    }
    x.data()
        .par_chunks(BLOCK)
        .map(|block| {
            f64::from(simd::vectorized(
                #[inline(always)]
                || simd::dot(block, block),
            ))
        })
        .collect()
}

/// A step's factors, in the precision of the arithmetic.
#[derive(Clone, Copy)]
struct Factors {
    b1: f32,
    b2: f32,
    a1: f32,
    a2: f32,
    step_size: f32,
    root2: f32,
    eps: f32,
    keep: f32,
}

impl Factors {
    /// One element: its value and moments after the gradient `g`.
    #[inline(always)]
    fn step(self, x: f32, m: f32, v: f32, g: f32) -> (f32, f32, f32) {
        let m = self.b1.mul_add(m, self.a1 * g);
        let v = self.b2.mul_add(v, self.a2 * g * g);
        let x = x.mul_add(self.keep, -self.step_size * m / v.sqrt().mul_add(self.root2, self.eps));
        (x, m, v)
    }
}

/// Updates the part of `value` from element `from` on, on a GPU; `counter` is that element's number in the whole tensor.
fn update_on_gpu(
    gpu: &Gpu,
    (from, counter): (usize, usize),
    value: &mut Tensor,
    gradient: &Tensor,
    first: &mut Moment,
    second: &mut Moment,
    gradient_scale: f32,
    factors: Factors,
    key: u32,
) {
    let Factors { b1, b2, a1, a2, step_size, root2, eps, keep } = factors;
    let step = rlt_cuda::Step { b1, b2, a1, a2, step_size, root2, eps, keep };
    let (value, gradient) = (value.memory_mut(), gradient.memory());
    match (first, second) {
        (Moment::F32(first), Moment::F32(second)) => {
            let moments = (first.memory_mut(), second.memory_mut());
            gpu.adamw(value, from, gradient, moments, gradient_scale, step);
        }
        (Moment::Bf16(first), Moment::Bf16(second)) => {
            let (Numbers::Cuda(first), Numbers::Cuda(second)) = (&mut first.numbers, &mut second.numbers)
            else {
                panic!("moments of another device")
            };
            let rounding = RandomRounding { counter: counter as u32, keys: [key, key ^ SECOND] };
            gpu.adamw_bf16(value, from, gradient, (first, second), rounding, gradient_scale, step);
        }
        (Moment::Offloaded(first), Moment::Offloaded(second)) if first.is_bf16 == second.is_bf16 => {
            let rounding = first
                .is_bf16
                .then_some(RandomRounding { counter: counter as u32, keys: [key, key ^ SECOND] });
            let words = first.words.as_mut().zip(second.words.as_mut());
            let moments = words.expect("a GPU's moments have numbers");
            gpu.adamw_of_host(value, from, gradient, moments, rounding, gradient_scale, step, VISITING);
        }
        _ => refuse_unequal_moments(),
    }
}

#[cold]
fn refuse_unequal_moments() -> ! {
    panic!("both moments are f32, or both bf16, and in the same place")
}

/// An update where nothing is computed.
fn count_update(sizes: &Sizes, gradient: &Tensor, first: &Moment) {
    // Value, moments and gradient are read, all but the last are written.
    sizes.did_rows(7 * gradient.len());
    if let Moment::Offloaded(moment) = first {
        let chunks = gradient.len().div_ceil(VISITING).min(CHUNKS_AT_ONCE);
        let words = moment.words_of(gradient.len().min(VISITING));
        let _rooms: Vec<Tensor> = (0..2 * chunks).map(|_| gradient.beside(1, words)).collect();
    }
}

/// Tells the random bits of the two moments apart.
const SECOND: u32 = 0x5bd1_e995;

/// The key of the random bits of a tensor at a step.
fn rounding_key(step: u64, index: usize) -> u32 {
    random_bits(step as u32, index as u32)
}

impl AdamW {
    fn factors(&self, step: u64, decay: bool) -> Factors {
        let correction1 = 1.0 - self.beta1.powi(step as i32);
        let correction2 = 1.0 - self.beta2.powi(step as i32);
        Factors {
            b1: self.beta1 as f32,
            b2: self.beta2 as f32,
            // Taken before rounding: in f32, 1 - 0.999 is off by 1.3e-5 of itself.
            a1: (1.0 - self.beta1) as f32,
            a2: (1.0 - self.beta2) as f32,
            step_size: (self.learning_rate / correction1) as f32,
            root2: (1.0 / correction2.sqrt()) as f32,
            eps: self.epsilon as f32,
            keep: if decay { (1.0 - self.learning_rate * self.weight_decay) as f32 } else { 1.0 },
        }
    }

    /// Updates `value` in place with `gradient * gradient_scale` at step `step` (from 1); `decay`
    /// says whether weight decay applies to this parameter, whose number `index` keys the rounding of bf16
    /// moments.
    ///
    /// `m = b1 m + (1-b1) g`, `v = b2 v + (1-b2) g^2`,
    /// `value -= lr * (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + wd * value)`.
    ///
    /// # Panics
    /// If one moment is bf16 and the other is not, or they lie in different places, or lengths differ.
    pub fn update(
        &self,
        value: &mut Tensor,
        gradient: &Tensor,
        first: &mut Moment,
        second: &mut Moment,
        gradient_scale: f32,
        step: u64,
        decay: bool,
        index: usize,
    ) {
        self.update_from(0, value, gradient, first, second, gradient_scale, step, decay, index);
    }

    /// As [`Self::update`], of the part of `value` that begins at its element `from`, a multiple of [`BLOCK`], and is as long
    /// as `gradient` and the moments: to the bit what it is when the whole is updated.
    ///
    /// # Panics
    /// As there.
    pub fn update_from(
        &self,
        from: usize,
        value: &mut Tensor,
        gradient: &Tensor,
        first: &mut Moment,
        second: &mut Moment,
        gradient_scale: f32,
        step: u64,
        decay: bool,
        index: usize,
    ) {
        if let Device::Sizes(sizes) = value.device() {
            return count_update(sizes, gradient, first);
        }
        if let Some(gpu) = value.gpu() {
            let (factors, key) = (self.factors(step, decay), rounding_key(step, index));
            let at = (from, from);
            return update_on_gpu(&gpu, at, value, gradient, first, second, gradient_scale, factors, key);
        }
        let part = &mut value.data_mut()[from..from + gradient.len()];
        self.update_numbers(from, part, gradient, first, second, gradient_scale, step, decay, index);
    }

    /// As [`Self::update_from`], where that part is all that is here of the value.
    ///
    /// # Panics
    /// As there.
    pub fn update_shard(
        &self,
        from: usize,
        shard: &mut Tensor,
        gradient: &Tensor,
        first: &mut Moment,
        second: &mut Moment,
        gradient_scale: f32,
        step: u64,
        decay: bool,
        index: usize,
    ) {
        if let Device::Sizes(sizes) = shard.device() {
            return count_update(sizes, gradient, first);
        }
        if let Some(gpu) = shard.gpu() {
            let (factors, key) = (self.factors(step, decay), rounding_key(step, index));
            let at = (0, from);
            return update_on_gpu(&gpu, at, shard, gradient, first, second, gradient_scale, factors, key);
        }
        let shard = shard.data_mut();
        self.update_numbers(from, shard, gradient, first, second, gradient_scale, step, decay, index);
    }

    fn update_numbers(
        &self,
        from: usize,
        part: &mut [f32],
        gradient: &Tensor,
        first: &mut Moment,
        second: &mut Moment,
        gradient_scale: f32,
        step: u64,
        decay: bool,
        index: usize,
    ) {
        let factors = self.factors(step, decay);
        let blocks = part.par_chunks_mut(BLOCK).zip(gradient.data().par_chunks(BLOCK));
        match (first, second) {
            (Moment::F32(first), Moment::F32(second)) => {
                let moments =
                    first.data_mut().par_chunks_mut(BLOCK).zip(second.data_mut().par_chunks_mut(BLOCK));
                blocks.zip(moments).for_each(|((value, gradient), (first, second))| {
                    simd::vectorized(
                        #[inline(always)]
                        || {
                            for (((x, g), m), v) in value.iter_mut().zip(gradient).zip(first).zip(second) {
                                (*x, *m, *v) = factors.step(*x, *m, *v, g * gradient_scale);
                            }
                        },
                    );
                });
            }
            (Moment::Bf16(first), Moment::Bf16(second)) => {
                let key = rounding_key(step, index);
                let (first, second) = (first.on_host(), second.on_host());
                let moments = first.par_chunks_mut(BLOCK).zip(second.par_chunks_mut(BLOCK));
                blocks.zip(moments).enumerate().for_each(|(block, ((value, gradient), (first, second)))| {
                    let start = (from + block * BLOCK) as u32;
                    simd::vectorized(
                        #[inline(always)]
                        || {
                            let elements = value.iter_mut().zip(gradient).zip(first).zip(second);
                            for (i, (((x, g), m), v)) in (start..).zip(elements) {
                                let (next, m_next, v_next) =
                                    factors.step(*x, widen(*m), widen(*v), g * gradient_scale);
                                *x = next;
                                *m = round_at_random(m_next, random_bits(key, i));
                                *v = round_at_random(v_next, random_bits(key ^ SECOND, i));
                            }
                        },
                    );
                });
            }
            _ => refuse_unequal_moments(),
        }
    }
}
