//! The gated activation of most families' feed-forward layer: `silu(gate) * up`.

use crate::gated::{self, Gate};
use crate::simd;
use crate::tensor::Tensor;

/// `x sigmoid(x)`.
struct Silu;

impl Gate for Silu {
    const ON_GPU: rlt_cuda::Gate = rlt_cuda::Gate::Silu;

    /// With s = sigmoid(x), the derivative is `s (1 + x (1 - s))`.
    #[inline(always)]
    fn at(x: f32) -> (f32, f32) {
        let s = simd::sigmoid(x);
        let value = x * s;
        (value, s + value * (1.0 - s))
    }
}

/// `gate_up` holds gate and up side by side (M x 2F); the result is M x F.
pub fn swiglu(gate_up: &Tensor) -> Tensor {
    gated::forward::<Silu>(gate_up)
}

/// Backward pass of [`swiglu`]: replaces `gate_up` by its gradient, given that of the output in `dout` (M x F), and
/// `dout` by the output, which the matrix that follows wants for its own gradient.
pub fn swiglu_backward(dout: &mut Tensor, gate_up: &mut Tensor) {
    gated::backward::<Silu>(dout, gate_up);
}
