//! The number formats: how many numbers a block holds, in how many bytes, and which f32 they stand for.
//!
//! A block has one or two scales in half precision and small whole numbers; the formulas and the order of the f32
//! operations are those of the `gguf` Python package (`quants.py`), so the bits are, too.

use half::{bf16, f16};

/// A number format of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names that GGUF files and their users have for them")]
pub enum Kind {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// 32 numbers of 4 bits about 8, one scale.
    Q4_0,
    /// 32 numbers of 4 bits, a scale and a minimum.
    Q4_1,
    /// 32 numbers of 5 bits about 16, one scale.
    Q5_0,
    /// 32 numbers of 5 bits, a scale and a minimum.
    Q5_1,
    /// 32 numbers of 8 bits, one scale.
    Q8_0,
    /// 256 numbers of 4 bits; eight scales and minima of 6 bits.
    Q4_K,
    /// 256 numbers of 5 bits; eight scales and minima of 6 bits.
    Q5_K,
    /// 256 numbers of 6 bits about 32; sixteen scales of 8 bits.
    Q6_K,
}

/// Numbers of a K block.
const K: usize = 256;

impl Kind {
    /// Every format.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    pub(crate) fn from_code(code: u32) -> Result<Self, String> {
        Ok(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            other => {
                let name = other_name(other).map_or_else(|| format!("number {other}"), str::to_owned);
                return Err(format!(
                    "its number format {name} is not read (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and \
                     Q6_K are): use a file of another quantisation"
                ));
            }
        })
    }

    /// Numbers of a block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => K,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 4 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 4 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q4_K => 4 + 12 + K / 2,
            Self::Q5_K => 4 + 12 + K / 8 + K / 2,
            Self::Q6_K => K / 2 + K / 4 + K / 16 + 2,
        }
    }

    /// Bytes of `n` numbers, a whole number of blocks.
    pub(crate) const fn bytes_of(self, n: usize) -> usize {
        n / self.block_len() * self.block_bytes()
    }

    /// The numbers of whole blocks. `bytes` and `values` fit each other.
    pub(crate) fn dequantise(self, bytes: &[u8], values: &mut [f32]) {
        debug_assert_eq!(self.bytes_of(values.len()), bytes.len());
        match self {
            Self::F32 => each(bytes, values, |b: &[u8; 4], out: &mut [f32; 1]| {
                out[0] = f32::from_le_bytes(*b);
            }),
            Self::F16 => each(bytes, values, |b: &[u8; 2], out: &mut [f32; 1]| {
                out[0] = half(*b);
            }),
            Self::BF16 => each(bytes, values, |b: &[u8; 2], out: &mut [f32; 1]| {
                out[0] = bf16::from_le_bytes(*b).to_f32();
            }),
            Self::Q4_0 => each(bytes, values, q4_0),
            Self::Q4_1 => each(bytes, values, q4_1),
            Self::Q5_0 => each(bytes, values, q5_0),
            Self::Q5_1 => each(bytes, values, q5_1),
            Self::Q8_0 => each(bytes, values, q8_0),
            Self::Q4_K => each(bytes, values, q4_k),
            Self::Q5_K => each(bytes, values, q5_k),
            Self::Q6_K => each(bytes, values, q6_k),
        }
    }
}

/// Formats that exist and are not read, by ggml's names.
fn other_name(code: u32) -> Option<&'static str> {
    Some(match code {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        _ => return None,
    })
}

/// Applies `block` to every block of `B` bytes and `N` numbers.
fn each<const B: usize, const N: usize>(
    bytes: &[u8],
    values: &mut [f32],
    block: impl Fn(&[u8; B], &mut [f32; N]),
) {
    for (bytes, values) in bytes.as_chunks::<B>().0.iter().zip(values.as_chunks_mut::<N>().0) {
        block(bytes, values);
    }
}

fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// The half-precision number at byte `at`.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    half([bytes[at], bytes[at + 1]])
}

fn q4_0(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for i in 0..16 {
        out[i] = d * (f32::from(b[2 + i] & 0x0F) - 8.0);
        out[16 + i] = d * (f32::from(b[2 + i] >> 4) - 8.0);
    }
}

fn q4_1(b: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    for i in 0..16 {
        out[i] = d * f32::from(b[4 + i] & 0x0F) + m;
        out[16 + i] = d * f32::from(b[4 + i] >> 4) + m;
    }
}

/// The 32 numbers of 5 bits: four in `low` (two a byte), the fifth in `high` (eight a byte).
fn five_bits(high: &[u8], low: &[u8]) -> [u8; 32] {
    let bit = |i: usize| (high[i / 8] >> (i % 8)) & 1;
    std::array::from_fn(|i| {
        let four = if i < 16 { low[i] & 0x0F } else { low[i - 16] >> 4 };
        four | (bit(i) << 4)
    })
}

fn q5_0(b: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for (out, q) in out.iter_mut().zip(five_bits(&b[2..6], &b[6..])) {
        *out = d * (f32::from(q) - 16.0);
    }
}

fn q5_1(b: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    for (out, q) in out.iter_mut().zip(five_bits(&b[4..8], &b[8..])) {
        *out = d * f32::from(q) + m;
    }
}

fn q8_0(b: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for (out, &q) in out.iter_mut().zip(&b[2..]) {
        *out = f32::from(q as i8) * d;
    }
}

/// The eight scales and minima of 6 bits in the 12 bytes of a K block: the first four of each lie in the lower six
/// bits of bytes 0 to 3 and 4 to 7; of the others, four bits lie in bytes 8 to 11 and two atop those bytes.
fn scales_and_minima(s: &[u8]) -> [(f32, f32); 8] {
    std::array::from_fn(|i| {
        let (scale, minimum) = if i < 4 {
            (s[i] & 0x3F, s[4 + i] & 0x3F)
        } else {
            ((s[4 + i] & 0x0F) | ((s[i - 4] >> 2) & 0x30), (s[4 + i] >> 4) | ((s[i] >> 2) & 0x30))
        };
        (f32::from(scale), f32::from(minimum))
    })
}

fn q4_k(b: &[u8; 144], out: &mut [f32; K]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    let qs = &b[16..];
    for (i, (scale, minimum)) in scales_and_minima(&b[4..16]).into_iter().enumerate() {
        let (scale, minimum) = (d * scale, dmin * minimum);
        // 32 bytes hold two groups: the lower halves, then the upper ones.
        let (bytes, shift) = (&qs[i / 2 * 32..], i % 2 * 4);
        for j in 0..32 {
            out[32 * i + j] = scale * f32::from((bytes[j] >> shift) & 0x0F) - minimum;
        }
    }
}

fn q5_k(b: &[u8; 176], out: &mut [f32; K]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    let (high, qs) = (&b[16..48], &b[48..]);
    for (i, (scale, minimum)) in scales_and_minima(&b[4..16]).into_iter().enumerate() {
        let (scale, minimum) = (d * scale, dmin * minimum);
        let (bytes, shift) = (&qs[i / 2 * 32..], i % 2 * 4);
        for j in 0..32 {
            let q = ((bytes[j] >> shift) & 0x0F) | (((high[j] >> i) & 1) << 4);
            out[32 * i + j] = scale * f32::from(q) - minimum;
        }
    }
}

fn q6_k(b: &[u8; 210], out: &mut [f32; K]) {
    let (low, high, scales) = (&b[..128], &b[128..192], &b[192..208]);
    let d = half_at(b, 208);
    // Halves of 128 numbers: 64 bytes of lower bits, in which 32 numbers lie beside the 32 that come 64 later, and 32
    // bytes with the upper two bits of four groups of 32.
    for i in 0..8 {
        let (half, group) = (i / 4, i % 4);
        for j in 0..32 {
            let lower = low[64 * half + group % 2 * 32 + j] >> (group / 2 * 4) & 0x0F;
            let upper = (high[32 * half + j] >> (2 * group)) & 0x03;
            let at = 32 * i + j;
            let scale = d * f32::from(scales[at / 16] as i8);
            out[at] = scale * (f32::from(lower | (upper << 4)) - 32.0);
        }
    }
}
