//! Why there is no GPU to work on.

use cudarc::driver::result::DriverError;

/// What opening a GPU can report; each a line that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No libcuda.
    #[error("no NVIDIA driver is installed here (libcuda.so.1 is not found)")]
    NoDriver,
    /// A driver that does not read the kernels.
    #[error("the NVIDIA driver is of CUDA {0}.{1}, and 12.4 or later is needed: update it to 550 or later")]
    OldDriver(i32, i32),
    /// No libcublasLt.
    #[error(
        "libcublasLt of CUDA 12 or 13 is not found: install it (it is part of the CUDA toolkit, and of the PyPI package \
         nvidia-cublas) and name its folder in LD_LIBRARY_PATH"
    )]
    NoProducts,
    /// A number that no GPU has.
    #[error("there is no GPU {asked}: the driver finds {found}")]
    NoSuchGpu {
        /// The number asked for.
        asked: usize,
        /// How many there are.
        found: usize,
    },
    /// A GPU from before the kernels' instructions.
    #[error("GPU {0} ({1}) is of compute capability {2}.{3}, and 8.0 (Ampere) or later is needed")]
    OldGpu(usize, String, i32, i32),
    /// What driver or cuBLASLt report.
    #[error("GPU {0}: {1}")]
    Failed(usize, String),
}

/// What the driver calls an error.
pub(crate) fn describe(error: DriverError) -> String {
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    text.unwrap_or_else(|_| format!("error {:?} of the driver", error.0))
}
