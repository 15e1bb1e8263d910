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

/// The update of some numbers: those of the value from `value_from` on by those of the gradient from `gradient_from` on.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub value_from: usize,
    pub gradient: &'a Memory,
    pub gradient_from: usize,
    pub len: usize,
    pub gradient_scale: f32,
    pub step: Step,
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
        let len = gradient.len();
        let part = Part { value_from: from, gradient, gradient_from: 0, len, gradient_scale, step };
        self.adamw_part(value, part, [of(first, len), of(second, len)], None);
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
        let len = gradient.len();
        let part = Part { value_from: from, gradient, gradient_from: 0, len, gradient_scale, step };
        self.adamw_part(value, part, [first.argument(len), second.argument(len)], Some(rounding));
    }

    /// Updates a part, whose moments are f32, or bf16 where they are rounded.
    pub(crate) fn adamw_part(
        &self,
        value: &mut Memory,
        part: Part,
        moments: [Arg; 2],
        rounding: Option<RandomRounding>,
    ) {
        let Part { value_from, gradient, gradient_from, len, gradient_scale, step } = part;
        // Looks whether as many are there.
        let _all = gradient.address(gradient_from + len);
        let gradient = Arg::Wide(gradient.address(gradient_from) + 4 * gradient_from as u64);
        let mut arguments = vec![of(value, value_from + len), count(value_from), gradient];
        arguments.extend(moments);
        arguments.push(count(len));
        let name = match rounding {
            None => "adamw",
            Some(RandomRounding { counter, keys: [first, second] }) => {
                arguments.extend([counter, first, second].map(|bits| Arg::Int(bits.cast_signed())));
                "adamw_bf16"
            }
        };
        arguments.extend(step.arguments(gradient_scale));
        self.launch(name, Threads::over(len), arguments);
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
