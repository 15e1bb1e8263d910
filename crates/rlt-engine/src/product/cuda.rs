//! Matrix products on a GPU.

use rlt_cuda::{Factors, Product};

use crate::arithmetic::Arithmetic;
use crate::output::Output;
use crate::tensor::Tensor;

/// Computes `product` of `[m, n, k]` by the GPU of `out`. Factors that are kept in the format of the arithmetic are read as they
/// are, others are rounded or widened first.
pub(crate) fn product(
    arithmetic: Arithmetic,
    product: Product,
    sizes: [usize; 3],
    [x, w]: [&Tensor; 2],
    out: &mut Tensor,
    mode: Output,
) {
    let out = out.memory_mut();
    let (gpu, adds) = (out.gpu().clone(), mode == Output::Accumulate);
    match arithmetic {
        Arithmetic::F32 => {
            let (x, w) = (x.widened_on_gpu(), w.widened_on_gpu());
            gpu.product(product, sizes, Factors::F32(x.memory(), w.memory()), out, adds);
        }
        Arithmetic::Bf16 => {
            let (x, w) = (x.rounded_on_gpu(), w.rounded_on_gpu());
            let [x, w] = [&x, &w].map(|factor| factor.halves().expect("it is rounded"));
            gpu.product(product, sizes, Factors::Bf16(x, w), out, adds);
        }
    }
}
