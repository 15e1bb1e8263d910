//! Operations on elements, whatever the shape (`kernels/elements.cu`).

use crate::gpu::Gpu;
use crate::launch::{Arg, Threads, count, of};
use crate::memory::Memory;

impl Gpu {
    /// `x = value`, everywhere.
    pub fn fill(&self, x: &mut Memory, value: f32) {
        let n = x.len();
        self.launch("fill", Threads::over(n), vec![of(x, n), count(n), Arg::Float(value)]);
    }

    /// `x *= factor`.
    pub fn scale(&self, x: &mut Memory, factor: f32) {
        let n = x.len();
        self.launch("scale", Threads::over(n), vec![of(x, n), count(n), Arg::Float(factor)]);
    }

    /// `1 + x`.
    pub fn one_plus(&self, x: &Memory) -> Memory {
        let (n, out) = (x.len(), self.take(x.len()));
        self.launch("one_plus", Threads::over(n), vec![of(&out, n), of(x, n), count(n)]);
        out
    }

    /// `x += factor * y`.
    pub fn add_scaled(&self, x: &mut Memory, y: &Memory, factor: f32) {
        let n = x.len();
        let arguments = vec![of(x, n), of(y, n), count(n), Arg::Float(factor)];
        self.launch("add_scaled", Threads::over(n), arguments);
    }

    /// `x = mix * y + (1 - mix) * x`.
    pub fn mix_in(&self, x: &mut Memory, y: &Memory, mix: f32) {
        let n = x.len();
        self.launch("mix_in", Threads::over(n), vec![of(x, n), of(y, n), count(n), Arg::Float(mix)]);
    }
}
