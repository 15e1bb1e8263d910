//! Matrix products, by cuBLASLt.
//!
//! Matrices lie row by row; the library counts by columns, so it is given the transposed product of the transposed factors.
//! For every shape its first choice of algorithm is asked for once and kept, with one workspace for all: the same call gives
//! the same bits. A row's bits may depend on how many rows there are, because the choice does.

use std::collections::HashMap;
use std::ffi::c_void;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use crate::gpu::Gpu;
use crate::memory::Memory;

/// Bytes that an algorithm may keep sums in.
const WORKSPACE_BYTES: usize = 32 << 20;

/// Which of the three products of a linear layer, with M rows (tokens), N output and K input features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// `out[M,N] = x[M,K] . w[N,K]^T`.
    Forward,
    /// `out[M,K] = dy[M,N] . w[N,K]`.
    InputGradient,
    /// `out[N,K] = dy[M,N]^T . x[M,K]`.
    WeightGradient,
}

/// A matrix as the library sees it: columns of `rows` numbers.
type Shape = (usize, usize);

impl Product {
    /// Shapes of its left and right factor and of the result, and which factors are transposed, of `[m, n, k]`.
    fn shapes(self, [m, n, k]: [usize; 3]) -> ([Shape; 3], [bool; 2]) {
        match self {
            // out^T = w x^T
            Self::Forward => ([(k, n), (k, m), (n, m)], [true, false]),
            // out^T = w^T dy^T
            Self::InputGradient => ([(k, n), (n, m), (k, m)], [false, false]),
            // out^T = x^T dy
            Self::WeightGradient => ([(k, m), (n, m), (k, n)], [false, true]),
        }
    }
}

/// What the library needs of a product.
struct Plan {
    operation: sys::cublasLtMatmulDesc_t,
    factors: [sys::cublasLtMatrixLayout_t; 2],
    result: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// The library, and a plan for every shape that was met.
pub(crate) struct Products {
    library: sys::cublasLtHandle_t,
    plans: HashMap<(Product, [usize; 3]), Plan>,
    workspace: Option<Workspace>,
}

/// Memory whose address the library is given with every product.
struct Workspace(Memory);

impl Products {
    /// Opens the library. The context must be current.
    ///
    /// # Errors
    /// What it reports.
    pub(crate) fn new() -> Result<Self, String> {
        let library = result::create_handle().map_err(|e| format!("cuBLASLt: {e}"))?;
        Ok(Self { library, plans: HashMap::new(), workspace: None })
    }
}

/// What is known of a product before its shape's first one.
fn plan(library: sys::cublasLtHandle_t, product: Product, sizes: [usize; 3]) -> Result<Plan, CublasError> {
    let (number, sums) = (sys::cudaDataType_t::CUDA_R_32F, sys::cublasComputeType_t::CUBLAS_COMPUTE_32F);
    let ([left, right, out], transposed) = product.shapes(sizes);
    let layout =
        |(rows, cols): Shape| result::create_matrix_layout(number, rows as u64, cols as u64, rows as i64);
    let (factors, out) = ([layout(left)?, layout(right)?], layout(out)?);
    let operation = result::create_matmul_desc(sums, number)?;
    let sides = [
        sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
        sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB,
    ];
    for (side, transposed) in sides.into_iter().zip(transposed) {
        let flag = i32::from(transposed);
        // SAFETY: the operation lives, and the library copies the flag of this size.
        unsafe {
            result::set_matmul_desc_attribute(operation, side, (&raw const flag).cast(), size_of::<i32>())?;
        }
    }
    let preference = result::create_matmul_pref()?;
    let most = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    // SAFETY: everything lives until the call returns; the library copies the size.
    let chosen = unsafe {
        let bytes = WORKSPACE_BYTES;
        result::set_matmul_pref_attribute(preference, most, (&raw const bytes).cast(), size_of::<usize>())
            .and_then(|()| {
                let [left, right] = factors;
                result::get_matmul_algo_heuristic(library, operation, left, right, out, out, preference)
            })
    };
    // SAFETY: it was made above and is used no more.
    unsafe { result::destroy_matmul_pref(preference)? };
    Ok(Plan { operation, factors, result: out, algorithm: chosen?.algo })
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
        x: &Memory,
        w: &Memory,
        out: &mut Memory,
        accumulates: bool,
    ) {
        let ([left, right, result_shape], _) = product.shapes(sizes);
        let elements = |(rows, cols): Shape| rows * cols;
        // The library's left factor is our right one.
        let (a, b) = (w.address(elements(left)), x.address(elements(right)));
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
        let plan = products.plans.entry((product, sizes)).or_insert_with(|| {
            plan(library, product, sizes)
                .unwrap_or_else(|e| self.fail(&format!("a product of {sizes:?}"), &e.to_string()))
        });
        let workspace = products.workspace.get_or_insert_with(|| Workspace(self.take(WORKSPACE_BYTES / 4)));
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
                workspace.0.address(WORKSPACE_BYTES / 4) as *mut c_void,
                WORKSPACE_BYTES,
                self.stream().cast(),
            )
        };
        done.unwrap_or_else(|e| self.fail(&format!("a product of {sizes:?}"), &e.to_string()));
    }
}
