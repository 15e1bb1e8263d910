//! The gated activation of a feed-forward layer, forward and backward, whatever the function of the gate.

use std::array::from_mut;

use crate::device::Device;
use crate::parallel::{for_row_blocks, for_row_blocks2};
use crate::simd::{self, LANES};
use crate::tensor::Tensor;

/// The function of a gate.
pub(crate) trait Gate {
    /// Its name on a GPU.
    const ON_GPU: rlt_cuda::Gate;

    /// Its value and its derivative at `x`.
    fn at(x: f32) -> (f32, f32);
}

/// `gate_up` holds gate and up side by side (M x 2F); the result, `G(gate) * up`, is M x F.
pub(crate) fn forward<G: Gate>(gate_up: &Tensor) -> Tensor {
    let f = gate_up.cols() / 2;
    if let Some(gpu) = gate_up.gpu() {
        let out = gpu.gated(G::ON_GPU, gate_up.memory(), f);
        return Tensor::of_memory(out, gate_up.rows(), f);
    }
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
                        *o = G::at(*g).0 * u;
                    }
                }
            },
        );
    });
    out
}

/// Backward pass of [`forward`]: replaces `gate_up` by its gradient, given that of the output in `dout` (M x F), and
/// `dout` by the output, which the matrix that follows wants for its own gradient: one pass over memory.
pub(crate) fn backward<G: Gate>(dout: &mut Tensor, gate_up: &mut Tensor) {
    let f = dout.cols();
    if let Device::Sizes(sizes) = dout.device() {
        return sizes.did_rows(6 * dout.len());
    }
    if let Some(gpu) = dout.gpu() {
        return gpu.gated_backward(G::ON_GPU, dout.memory_mut(), gate_up.memory_mut(), f);
    }
    for_row_blocks2(gate_up.data_mut(), 2 * f, dout.data_mut(), f, |_, gate_up, dout| {
        simd::vectorized(
            #[inline(always)]
            || {
                for (gate_up, dout) in gate_up.chunks_exact_mut(2 * f).zip(dout.chunks_exact_mut(f)) {
                    let (gate, up) = gate_up.split_at_mut(f);
                    let ((gates, gate), (ups, up)) = (gate.as_chunks_mut(), up.as_chunks_mut());
                    let (douts, dout) = dout.as_chunks_mut();
                    for ((gate, up), dout) in gates.iter_mut().zip(ups).zip(douts) {
                        backward_block::<G, LANES>(gate, up, dout);
                    }
                    for ((gate, up), dout) in gate.iter_mut().zip(up).zip(dout) {
                        backward_block::<G, 1>(from_mut(gate), from_mut(up), from_mut(dout));
                    }
                }
            },
        );
    });
}

/// Some elements of [`backward`]. In arrays, which the compiler knows to be apart.
#[inline(always)]
fn backward_block<G: Gate, const N: usize>(gate: &mut [f32; N], up: &mut [f32; N], dout: &mut [f32; N]) {
    let (g, u, d) = (*gate, *up, *dout);
    for i in 0..N {
        let (value, slope) = G::at(g[i]);
        gate[i] = d[i] * u[i] * slope;
        up[i] = d[i] * value;
        dout[i] = value * u[i];
    }
}
