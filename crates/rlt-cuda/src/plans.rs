//! What cuBLASLt is told of products, and which algorithm it chose for each.

use std::collections::HashMap;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use crate::pool::Block;

/// Bytes that an algorithm may keep sums in.
pub const WORKSPACE_BYTES: usize = 32 << 20;

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

/// A number format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4 bytes.
    F32,
    /// Its upper 2 bytes.
    Bf16,
}

/// A matrix as the library sees it: columns of `rows` numbers.
pub(crate) type Shape = (usize, usize);

impl Product {
    /// Shapes of its left and right factor and of the result, and which factors are transposed, of `[m, n, k]`.
    pub(crate) fn shapes(self, [m, n, k]: [usize; 3]) -> ([Shape; 3], [bool; 2]) {
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
pub(crate) struct Plan {
    pub operation: sys::cublasLtMatmulDesc_t,
    pub factors: [sys::cublasLtMatrixLayout_t; 2],
    pub result: sys::cublasLtMatrixLayout_t,
    pub algorithm: sys::cublasLtMatmulAlgo_t,
}

/// The library, and a plan for every shape that was met.
pub(crate) struct Products {
    pub library: sys::cublasLtHandle_t,
    pub plans: HashMap<(Product, Format, [usize; 3]), Plan>,
    /// Of [`WORKSPACE_BYTES`], from the first product on.
    pub workspace: Option<Block>,
}

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

/// What is known of a product before its shape's first one: of factors in `format`, with sums and result in f32.
pub(crate) fn plan(
    library: sys::cublasLtHandle_t,
    product: Product,
    format: Format,
    sizes: [usize; 3],
) -> Result<Plan, CublasError> {
    let (number, sums) = (sys::cudaDataType_t::CUDA_R_32F, sys::cublasComputeType_t::CUBLAS_COMPUTE_32F);
    let factor = match format {
        Format::F32 => number,
        Format::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    };
    let ([left, right, out], transposed) = product.shapes(sizes);
    let layout = |number, (rows, cols): Shape| {
        result::create_matrix_layout(number, rows as u64, cols as u64, rows as i64)
    };
    let (factors, out) = ([layout(factor, left)?, layout(factor, right)?], layout(number, out)?);
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
