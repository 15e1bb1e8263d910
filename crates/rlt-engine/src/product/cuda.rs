//! Matrix products on a GPU.

use rlt_cuda::{Factors, Product};

use crate::arithmetic::Arithmetic;
use crate::device::Device;
use crate::output::Output;
use crate::sizes::{Operation, Sizes};
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
    let [x, w] = match arithmetic {
        Arithmetic::F32 => [x, w].map(Tensor::widened_on_gpu),
        Arithmetic::Bf16 => [x, w].map(Tensor::rounded_on_gpu),
    };
    if let Device::Sizes(counted) = out.device() {
        return count(counted, arithmetic, product, sizes);
    }
    let out = out.memory_mut();
    let (gpu, adds) = (out.gpu().clone(), mode == Output::Accumulate);
    let factors = match arithmetic {
        Arithmetic::F32 => Factors::F32(x.memory(), w.memory()),
        Arithmetic::Bf16 => {
            let [x, w] = [&x, &w].map(|factor| factor.halves().expect("it is rounded"));
            Factors::Bf16(x, w)
        }
    };
    gpu.product(product, sizes, factors, out, adds);
}

/// Counts a product without computing it.
fn count(counted: &Sizes, arithmetic: Arithmetic, product: Product, [m, n, k]: [usize; 3]) {
    let (factors, result) = match product {
        Product::Forward => (m * k + n * k, m * n),
        Product::InputGradient => (m * n + n * k, m * k),
        Product::WeightGradient => (m * n + m * k, n * k),
    };
    let factors = if arithmetic == Arithmetic::Bf16 { factors.div_ceil(2) } else { factors };
    counted.did(Operation::Product, m as f64 * n as f64 * k as f64, factors + result);
}
