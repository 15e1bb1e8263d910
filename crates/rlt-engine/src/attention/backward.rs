//! Backward pass of packed attention: its tasks.

use rayon::prelude::*;

use super::backward_bf16::FamilyHead;
use super::backward_f32::{self, Queries};
use super::backward_tile::{Inputs, Scratch};
use super::forward::on_tensor_cores;
use super::layout::{AttentionShape, Layout};
use crate::arithmetic::Arithmetic;
use crate::buffer;
use crate::device::Device;
use crate::parallel::on_this_thread;
use crate::sizes::{Operation, Sizes};
use crate::tensor::Tensor;

/// Gradient of the packed query/key/value matrix, given the gradient `dout` of the output and what
/// [`super::attention`] read (`qkv`) and returned (`out`, `log_sums`).
///
/// A task is one key/value head of one family (a prefix and the segments that share it): it alone
/// adds to the keys and values of that family, in a fixed order, so the sums do not depend on the
/// number of threads.
///
/// # Panics
/// If shapes do not fit.
pub fn attention_backward(
    dout: &Tensor,
    qkv: &Tensor,
    out: &Tensor,
    log_sums: &Tensor,
    layout: &Layout,
    shape: AttentionShape,
    arithmetic: Arithmetic,
) -> Tensor {
    assert_eq!((dout.rows(), dout.cols()), (out.rows(), out.cols()), "attention gradient shape");
    if let Some(gpu) = qkv.gpu() {
        let (dout, matrix, segments) = (dout.memory(), qkv.memory(), layout.on_gpu());
        let shape = shape.on_gpu();
        let delta = gpu.attention_delta(out.memory(), dout, shape.width);
        let sums = (log_sums.memory(), &delta);
        let dqkv = match arithmetic {
            Arithmetic::Bf16 if shape.suits_tensor_cores() => {
                let (dout, matrix) = (gpu.rounded(dout), gpu.rounded(matrix));
                gpu.attention_bf16_backward(&dout, &matrix, sums, &segments, shape)
            }
            Arithmetic::F32 | Arithmetic::Bf16 => {
                gpu.attention_backward(dout, matrix, sums, &segments, shape)
            }
        };
        return Tensor::of_memory(dqkv, qkv.rows(), qkv.cols());
    }
    if let Device::Sizes(sizes) = qkv.device()
        && sizes.is_of_gpu()
    {
        count(sizes, &Inputs { dout, qkv, out, log_sums, layout, shape });
        let rounded = || [dout, qkv].map(Tensor::rounded_on_gpu);
        let _rounded = on_tensor_cores(arithmetic, shape).then(rounded);
        // Beside the gradient, what a row's probabilities are taken from.
        let (dqkv, _delta) =
            (qkv.beside(qkv.rows(), qkv.cols()), qkv.beside(log_sums.rows(), log_sums.cols()));
        return dqkv;
    }
    // In f32 every element is written once; in bf16, whose products are quicker than copies, sums are taken in place.
    let mut dqkv = match arithmetic {
        Arithmetic::F32 => qkv.beside(qkv.rows(), qkv.cols()),
        Arithmetic::Bf16 => Tensor::zeros_on(qkv.device(), qkv.rows(), qkv.cols()),
    };
    let dqkv_ptr = dqkv.shared_mut();
    let mut tasks: Vec<(Vec<usize>, usize)> = layout
        .families()
        .into_iter()
        .flat_map(|family| (0..shape.n_kv_heads).map(move |kv_head| (family.clone(), kv_head)))
        .collect();
    // The longest first, so that no thread is left alone with one at the end.
    let work = |family: &[usize]| -> usize {
        family.iter().map(|&s| layout.segments()[s]).map(|s| s.len * (s.len + 256)).sum()
    };
    tasks.sort_by_cached_key(|(family, _)| std::cmp::Reverse(work(family)));
    let inputs = Inputs { dout, qkv, out, log_sums, layout, shape };
    if let Device::Sizes(sizes) = qkv.device() {
        count(sizes, &inputs);
        sizes.in_lanes(&tasks, |(family, kv_head)| match arithmetic {
            Arithmetic::F32 => {
                let scratch = (Scratch::new(qkv.device()), Queries::new(&inputs));
                drop((backward_f32::FamilyHead::new(&inputs, family, *kv_head), scratch));
            }
            Arithmetic::Bf16 => {
                let scratch = Scratch::new(qkv.device());
                let head = FamilyHead::new(&inputs, family, *kv_head);
                buffer::give(head.factors());
                drop((head, scratch));
            }
        });
        return dqkv;
    }
    match arithmetic {
        Arithmetic::F32 => tasks.par_iter().for_each_init(
            || (Scratch::new(qkv.device()), Queries::new(&inputs)),
            |(scratch, queries), (family, kv_head)| {
                on_this_thread(|| {
                    let head = backward_f32::FamilyHead::new(&inputs, family, *kv_head);
                    // SAFETY: this task alone touches this family's rows of these heads.
                    unsafe { head.write_gradients(scratch, queries, dqkv_ptr) };
                });
            },
        ),
        Arithmetic::Bf16 => tasks.par_iter().for_each_init(
            || Scratch::new(qkv.device()),
            |scratch, (family, kv_head)| {
                // SAFETY: this task alone touches this family's rows of these heads.
                unsafe { FamilyHead::new(&inputs, family, *kv_head).add_gradients(scratch, dqkv_ptr) };
            },
        ),
    }
    dqkv
}

/// Counts the backward pass without computing it: the scores again, and the gradients of probabilities, queries, keys
/// and values.
fn count(sizes: &Sizes, inputs: &Inputs) {
    let (layout, shape) = (inputs.layout, inputs.shape);
    let (keys, features) = (layout.keys_seen(shape), shape.n_heads * shape.head_dim);
    let elements = layout.rows() * (2 * shape.qkv_cols() + 2 * features);
    sizes.did(Operation::Attention, 5.0 * keys * features as f64, elements);
}
