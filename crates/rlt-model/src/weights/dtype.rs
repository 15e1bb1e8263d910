//! The number formats of stored weights.

use rayon::prelude::*;

/// Number formats of stored weights. In memory they are f32, or bf16 where the file's are and the model is
/// only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision, 4 bytes.
    F32,
    /// Brain float: the upper half of an f32, 2 bytes.
    Bf16,
    /// IEEE half precision, 2 bytes.
    F16,
}

impl Dtype {
    pub(super) fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        match dtype {
            safetensors::Dtype::F32 => Some(Self::F32),
            safetensors::Dtype::BF16 => Some(Self::Bf16),
            safetensors::Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }

    pub(super) fn to_safetensors(self) -> safetensors::Dtype {
        match self {
            Self::F32 => safetensors::Dtype::F32,
            Self::Bf16 => safetensors::Dtype::BF16,
            Self::F16 => safetensors::Dtype::F16,
        }
    }

    /// As `dtype` of `config.json` spells it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// Little-endian numbers of this format as f32.
    pub(super) fn widened(self, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / self.size()];
        match self {
            Self::F32 => convert(bytes, &mut values, |b: [u8; 4]| f32::from_le_bytes(b)),
            Self::Bf16 => convert(bytes, &mut values, |b: [u8; 2]| half::bf16::from_le_bytes(b).to_f32()),
            Self::F16 => convert(bytes, &mut values, |b: [u8; 2]| half::f16::from_le_bytes(b).to_f32()),
        }
        values
    }

    /// Bytes of one number.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// Numbers of one work item: large enough to outweigh its scheduling.
pub(super) const CHUNK: usize = 1 << 16;

/// Little-endian numbers of `N` bytes each (at any alignment) to f32, on all threads.
pub(super) fn convert<const N: usize>(
    bytes: &[u8],
    values: &mut [f32],
    to_f32: impl Fn([u8; N]) -> f32 + Sync,
) {
    let (numbers, _) = bytes.as_chunks::<N>();
    values.par_chunks_mut(CHUNK).zip(numbers.par_chunks(CHUNK)).for_each(|(values, numbers)| {
        for (value, &number) in values.iter_mut().zip(numbers) {
            *value = to_f32(number);
        }
    });
}
