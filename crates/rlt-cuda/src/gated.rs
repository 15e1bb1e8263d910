//! Gated activations (`kernels/gated.cu`).

use crate::gpu::Gpu;
use crate::launch::{Threads, count, of, size};
use crate::memory::Memory;

/// The function of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `x sigmoid(x)`.
    Silu,
    /// GELU by tanh.
    Gelu,
}

impl Gpu {
    /// `gate(g) * u` of rows with g and u side by side, `width` each.
    pub fn gated(&self, gate: Gate, gate_up: &Memory, width: usize) -> Memory {
        let n = gate_up.len() / 2;
        let out = self.take(n);
        let name = if gate == Gate::Silu { "swiglu" } else { "geglu" };
        self.launch(name, Threads::over(n), vec![of(&out, n), of(gate_up, 2 * n), count(n), size(width)]);
        out
    }

    /// Turns the gradient `dout` of [`Self::gated`]'s output into that output, and `gate_up` into its gradient.
    pub fn gated_backward(&self, gate: Gate, dout: &mut Memory, gate_up: &mut Memory, width: usize) {
        let n = dout.len();
        let name = if gate == Gate::Silu { "swiglu_backward" } else { "geglu_backward" };
        self.launch(name, Threads::over(n), vec![of(dout, n), of(gate_up, 2 * n), count(n), size(width)]);
    }
}
