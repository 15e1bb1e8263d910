//! The gated activation of the feed-forward layer: `silu(gate) * up`.

use crate::parallel::for_row_blocks;
use crate::simd;
use crate::tensor::Tensor;

/// `gate_up` holds gate and up side by side (M x 2F); the result is M x F.
pub fn swiglu(gate_up: &Tensor) -> Tensor {
    let f = gate_up.cols() / 2;
    let mut out = Tensor::scratch(gate_up.rows(), f);
    for_row_blocks(out.data_mut(), f, |first, rows| {
        simd::vectorized(
            #[inline(always)]
            || {
                for (i, out) in rows.chunks_exact_mut(f).enumerate() {
                    let (gate, up) = gate_up.row(first + i).split_at(f);
                    for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                        *o = g * simd::sigmoid(*g) * u;
                    }
                }
            },
        );
    });
    out
}

/// Backward pass of [`swiglu`]: replaces `gate_up` by its gradient, given `dout` (M x F).
///
/// With s = sigmoid(gate): `dgate = dout * up * s * (1 + gate * (1 - s))`, `dup = dout * gate * s`.
pub fn swiglu_backward(dout: &Tensor, gate_up: &mut Tensor) {
    let f = dout.cols();
    for_row_blocks(gate_up.data_mut(), 2 * f, |first, rows| {
        simd::vectorized(
            #[inline(always)]
            || {
                for (i, row) in rows.chunks_exact_mut(2 * f).enumerate() {
                    let (gate, up) = row.split_at_mut(f);
                    for ((g, u), d) in gate.iter_mut().zip(up).zip(dout.row(first + i)) {
                        let s = simd::sigmoid(*g);
                        let gs = *g * s;
                        let dg = d * *u * (s + gs * (1.0 - s));
                        *u = d * gs;
                        *g = dg;
                    }
                }
            },
        );
    });
}
