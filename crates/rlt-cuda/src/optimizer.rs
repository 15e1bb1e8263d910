//! AdamW, and sums of squares (`kernels/optimizer.cu`).

use crate::gpu::Gpu;
use crate::halves::Halves;
use crate::launch::{Arg, THREADS, Threads, count, of, size};
use crate::memory::Memory;

/// Factors of a step of AdamW: `m = b1 m + a1 g`, `v = b2 v + a2 g^2`, `x = keep x - step_size m / (root2 sqrt(v) + eps)`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the equation above says what each is")]
pub struct Step {
    pub b1: f32,
    pub b2: f32,
    pub a1: f32,
    pub a2: f32,
    pub step_size: f32,
    pub root2: f32,
    pub eps: f32,
    pub keep: f32,
}

/// What decides the rounding of moments in bf16: the counter of the first element, and a key for each moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named above")]
pub struct RandomRounding {
    pub counter: u32,
    pub keys: [u32; 2],
}

impl Step {
    /// As the kernels take them, after the gradient's.
    fn arguments(self, gradient_scale: f32) -> [Arg; 9] {
        let Self { b1, b2, a1, a2, step_size, root2, eps, keep } = self;
        [gradient_scale, b1, b2, a1, a2, step_size, root2, eps, keep].map(Arg::Float)
    }
}

impl Gpu {
    /// Updates the numbers of `value` from `from` on, as many as the gradient has, and their moments by
    /// `gradient * gradient_scale`.
    pub fn adamw(
        &self,
        value: &mut Memory,
        from: usize,
        gradient: &Memory,
        (first, second): (&mut Memory, &mut Memory),
        gradient_scale: f32,
        step: Step,
    ) {
        let n = gradient.len();
        let mut arguments = vec![of(value, from + n), count(from)];
        arguments.extend([of(gradient, n), of(first, n), of(second, n), count(n)]);
        arguments.extend(step.arguments(gradient_scale));
        self.launch("adamw", Threads::over(n), arguments);
    }

    /// As [`Self::adamw`], with moments in bf16, rounded at random.
    pub fn adamw_bf16(
        &self,
        value: &mut Memory,
        from: usize,
        gradient: &Memory,
        (first, second): (&mut Halves, &mut Halves),
        rounding: RandomRounding,
        gradient_scale: f32,
        step: Step,
    ) {
        let n = gradient.len();
        let mut arguments = vec![of(value, from + n), count(from), of(gradient, n)];
        arguments.extend([first.argument(n), second.argument(n), count(n)]);
        let [first_key, second_key] = rounding.keys;
        arguments.extend([rounding.counter, first_key, second_key].map(|bits| Arg::Int(bits.cast_signed())));
        arguments.extend(step.arguments(gradient_scale));
        self.launch("adamw_bf16", Threads::over(n), arguments);
    }

    /// Sums of the squares of every `elements` numbers.
    pub fn squares_of_blocks(&self, x: &Memory, elements: usize) -> Memory {
        let (n, blocks) = (x.len(), x.len().div_ceil(elements));
        let out = self.take(blocks);
        let arguments = vec![of(&out, blocks), of(x, n), count(n), size(elements)];
        let threads = Threads { grid: (blocks, 1), block: THREADS, shared_bytes: THREADS / 32 * 4 };
        self.launch("squares_of_blocks", threads, arguments);
        out
    }
}
