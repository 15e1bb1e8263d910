//! Matrix products, by cuBLASLt.
//!
//! Matrices lie row by row; the library counts by columns, so it is given the transposed product of the transposed factors.
//! For every shape its first choice of algorithm is asked for once and kept, with one workspace for all: the same call gives
//! the same bits. A row's bits may depend on how many rows there are, because the choice does.

use std::ffi::c_void;

use cudarc::cublaslt::result::{self, CublasError};

use crate::failure::Failure;
use crate::gpu::Gpu;
use crate::halves::Halves;
use crate::memory::Memory;
use crate::plans::{Format, Product, Shape, WORKSPACE_BYTES, plan};

/// The two factors of a product, in the order of its equation.
#[derive(Debug, Clone, Copy)]
pub enum Factors<'a> {
    /// In f32, multiplied as they are.
    F32(&'a Memory, &'a Memory),
    /// In bf16; sums and result are f32.
    Bf16(&'a Halves, &'a Halves),
}

impl Factors<'_> {
    fn format(self) -> Format {
        match self {
            Self::F32(..) => Format::F32,
            Self::Bf16(..) => Format::Bf16,
        }
    }
}

impl Gpu {
    /// Computes `product` of `[m, n, k]` into `out`, or adds it to what `out` holds.
    ///
    /// # Panics
    /// If a matrix is smaller than that, or the library reports an error.
    pub fn product(
        &self,
        product: Product,
        sizes: [usize; 3],
        factors: Factors,
        out: &mut Memory,
        accumulates: bool,
    ) {
        let ([left, right, result_shape], _) = product.shapes(sizes);
        let elements = |(rows, cols): Shape| rows * cols;
        // The library's left factor is our right one.
        let (a, b) = match factors {
            Factors::F32(x, w) => (w.address(elements(left)), x.address(elements(right))),
            Factors::Bf16(x, w) => (w.address(elements(left)), x.address(elements(right))),
        };
        let c = out.address(elements(result_shape));
        if elements(result_shape) == 0 {
            return;
        }
        if elements(left) == 0 || elements(right) == 0 {
            if !accumulates {
                self.fill(out, 0.0);
            }
            return;
        }
        self.make_current();
        let products = &mut *self.products();
        let library = products.library;
        let format = factors.format();
        let plan = products.plans.entry((product, format, sizes)).or_insert_with(|| {
            plan(library, product, format, sizes).unwrap_or_else(|e| self.product_failed(sizes, e))
        });
        let workspace = products.workspace.get_or_insert_with(|| self.block(WORKSPACE_BYTES));
        let (alpha, beta) = (1.0_f32, if accumulates { 1.0_f32 } else { 0.0 });
        // SAFETY: the layouts are of memory that is as large, checked above; the workspace is used by one product after
        // another, as all are asked for on one stream.
        let done = unsafe {
            result::matmul(
                library,
                plan.operation,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                a as *const c_void,
                plan.factors[0],
                b as *const c_void,
                plan.factors[1],
                c as *const c_void,
                plan.result,
                c as *mut c_void,
                plan.result,
                &raw const plan.algorithm,
                workspace.address as *mut c_void,
                WORKSPACE_BYTES,
                self.stream().cast(),
            )
        };
        done.unwrap_or_else(|e| self.product_failed(sizes, e));
    }

    fn product_failed(&self, sizes: [usize; 3], error: CublasError) -> ! {
        let what = format!("a product of {sizes:?}");
        Failure::Work { gpu: self.called(), what, why: error.to_string() }.end()
    }
}
