//! The gated activation of Gemma's feed-forward layer: `gelu(gate) * up`, with the approximation of GELU by tanh
//! (Hendrycks and Gimpel, arXiv 1606.08415).

use crate::gated::{self, Gate};
use crate::simd;
use crate::tensor::Tensor;

/// sqrt(8 / pi): twice the factor inside tanh, as `(1 + tanh(z)) / 2 = sigmoid(2 z)`.
const SLOPE: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// GELU by tanh.
struct Gelu;

impl Gate for Gelu {
    const ON_GPU: rlt_cuda::Gate = rlt_cuda::Gate::Gelu;

    #[inline(always)]
    fn at(x: f32) -> (f32, f32) {
        let square = x * x;
        let s = simd::sigmoid(SLOPE * x * (1.0 + CUBIC * square));
        let inner = SLOPE * (1.0 + 3.0 * CUBIC * square);
        (x * s, s + x * s * (1.0 - s) * inner)
    }
}

/// `gate_up` holds gate and up side by side (M x 2F); the result is M x F.
pub fn geglu(gate_up: &Tensor) -> Tensor {
    gated::forward::<Gelu>(gate_up)
}

/// Backward pass of [`geglu`]: replaces `gate_up` by its gradient, given that of the output in `dout` (M x F), and
/// `dout` by the output, as [`crate::swiglu::swiglu_backward`] does.
pub fn geglu_backward(dout: &mut Tensor, gate_up: &mut Tensor) {
    gated::backward::<Gelu>(dout, gate_up);
}
