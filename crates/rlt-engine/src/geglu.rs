//! The gated activation of Gemma's feed-forward layer: `gelu(gate) * up`, with the approximation of GELU by tanh
//! (Hendrycks and Gimpel, arXiv 1606.08415).

use crate::device::Device;
use crate::parallel::{for_row_blocks, for_row_blocks2};
use crate::simd;
use crate::tensor::Tensor;

/// sqrt(8 / pi): twice the factor inside tanh, as `(1 + tanh(z)) / 2 = sigmoid(2 z)`.
const SLOPE: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// GELU and its derivative at `x`.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    let square = x * x;
    let s = simd::sigmoid(SLOPE * x * (1.0 + CUBIC * square));
    let inner = SLOPE * (1.0 + 3.0 * CUBIC * square);
    (x * s, s + x * s * (1.0 - s) * inner)
}

/// `gate_up` holds gate and up side by side (M x 2F); the result is M x F.
pub fn geglu(gate_up: &Tensor) -> Tensor {
    let f = gate_up.cols() / 2;
    let mut out = gate_up.beside(gate_up.rows(), f);
    if let Device::Sizes(sizes) = gate_up.device() {
        sizes.did_rows(3 * out.len());
        return out;
    }
    for_row_blocks(out.data_mut(), f, |first, rows| {
        simd::vectorized(
            #[inline(always)]
            || {
                for (i, out) in rows.chunks_exact_mut(f).enumerate() {
                    let (gate, up) = gate_up.row(first + i).split_at(f);
                    for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                        *o = gelu(*g).0 * u;
                    }
                }
            },
        );
    });
    out
}

/// Backward pass of [`geglu`]: replaces `gate_up` by its gradient, given that of the output in `dout` (M x F), and
/// `dout` by the output, as [`crate::swiglu::swiglu_backward`] does.
pub fn geglu_backward(dout: &mut Tensor, gate_up: &mut Tensor) {
    let f = dout.cols();
    if let Device::Sizes(sizes) = dout.device() {
        return sizes.did_rows(6 * dout.len());
    }
    for_row_blocks2(gate_up.data_mut(), 2 * f, dout.data_mut(), f, |_, gate_up, dout| {
        simd::vectorized(
            #[inline(always)]
            || {
                for (gate_up, dout) in gate_up.chunks_exact_mut(2 * f).zip(dout.chunks_exact_mut(f)) {
                    let (gate, up) = gate_up.split_at_mut(f);
                    for ((gate, up), dout) in gate.iter_mut().zip(up).zip(dout) {
                        let (value, slope) = gelu(*gate);
                        let (u, d) = (*up, *dout);
                        *gate = d * u * slope;
                        *up = d * value;
                        *dout = value * u;
                    }
                }
            },
        );
    });
}
