//! The number format in which matrix products are computed.

/// What the factors of a matrix product are rounded to before they are multiplied. Everything else (sums, norms,
/// softmax, the residual stream, gradients, weights between updates) is f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arithmetic {
    /// Nothing is rounded.
    #[default]
    F32,
    /// 8 significant bits: what mixed-precision training means, by the processor's own instructions where it has
    /// any (AMX, AVX-512 BF16; a GPU's tensor cores). Results depend on the kind of processor.
    Bf16,
}

impl Arithmetic {
    /// The format of its factors, as a GPU is told.
    pub(crate) fn on_gpu(self) -> rlt_cuda::Format {
        match self {
            Self::F32 => rlt_cuda::Format::F32,
            Self::Bf16 => rlt_cuda::Format::Bf16,
        }
    }
}
