//! An optimizer's moment, in f32 or in bf16.
//!
//! A second moment moves by a thousandth of its distance a step, and bf16 numbers lie 1/256 apart: rounded to
//! nearest, it would soon stand still. So it is rounded up or down at random, with the chances that make the mean
//! right (stochastic rounding). The random bits depend on the step, the tensor and the element alone.
//!
//! Where a GPU's memory is short its moments may wait in the host's: a step reads and writes each once.

use rlt_cuda::{Pinned, packed, unpacked};

use crate::bf16::widen;
use crate::device::{Device, Held, not_on_gpus};
use crate::tensor::Tensor;

/// One moment of one tensor, all zeros at first.
#[derive(Debug)]
pub enum Moment {
    /// 4 bytes a number.
    F32(Tensor),
    /// 2 bytes a number.
    Bf16(Halves),
    /// Of weights on a GPU, in the host's memory.
    Offloaded(Offloaded),
}

/// Numbers of a GPU's weights in the host's memory.
#[derive(Debug)]
pub struct Offloaded {
    /// Those in bf16 are two a word; none where the device has no numbers.
    pub(crate) words: Option<Pinned>,
    pub(crate) is_bf16: bool,
    len: usize,
}

impl Offloaded {
    /// Bytes of the host's memory.
    pub fn bytes(&self) -> u64 {
        4 * self.words_of(self.len) as u64
    }

    /// Words that so many of its numbers take.
    pub(crate) fn words_of(&self, numbers: usize) -> usize {
        if self.is_bf16 { numbers.div_ceil(2) } else { numbers }
    }

    fn to_host(&self) -> Vec<f32> {
        let words = self.words.as_ref().map_or(&[][..], Pinned::words);
        if self.is_bf16 {
            unpacked(words).map(widen).take(self.len).collect()
        } else {
            words.iter().map(|&word| f32::from_bits(word)).collect()
        }
    }

    fn set(&mut self, numbers: &[f32]) {
        assert_eq!(self.len, numbers.len(), "numbers of a moment");
        let Some(own) = &mut self.words else { return };
        let words: Vec<u32> = if self.is_bf16 {
            packed(&upper_halves(numbers)).collect()
        } else {
            numbers.iter().map(|number| number.to_bits()).collect()
        };
        own.words_mut().copy_from_slice(&words);
    }
}

/// The bits of bf16 numbers.
///
/// # Panics
/// If one is none.
fn upper_halves(numbers: &[f32]) -> Vec<u16> {
    let upper = |number: &f32| {
        assert!(number.to_bits() as u16 == 0, "{number} is no bf16 number");
        (number.to_bits() >> 16) as u16
    };
    numbers.iter().map(upper).collect()
}

/// The upper halves of f32 numbers.
#[derive(Debug)]
pub struct Halves {
    pub(crate) numbers: Numbers,
    len: usize,
    device: Device,
    _held: Held,
}

/// Where they lie.
#[derive(Debug)]
pub(crate) enum Numbers {
    /// None where the device has no numbers.
    Host(Vec<u16>),
    Cuda(rlt_cuda::Halves),
}

impl Halves {
    /// Those of the processor.
    pub(crate) fn on_host(&mut self) -> &mut [u16] {
        match &mut self.numbers {
            Numbers::Host(numbers) => numbers,
            Numbers::Cuda(_) => not_on_gpus(),
        }
    }
}

/// `value` in bf16, rounded up when the 16 lower bits of `random` and of the value carry, down otherwise: the mean
/// over all `random` is the value. For finite values.
#[inline(always)]
pub(crate) fn round_at_random(value: f32, random: u32) -> u16 {
    (value.to_bits().wrapping_add(random & 0xffff) >> 16) as u16
}

/// Bits that look random, from a key and a counter (the finaliser of MurmurHash3 over both).
#[inline(always)]
pub(crate) fn random_bits(key: u32, counter: u32) -> u32 {
    let mut h = key ^ counter.wrapping_mul(0x9e37_79b9);
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

impl Moment {
    /// Zeros in f32, on `device`.
    pub fn zeros_f32(device: &Device, rows: usize, cols: usize) -> Self {
        Self::F32(Tensor::zeros_on(device, rows, cols))
    }

    /// Zeros in bf16, on `device`.
    pub fn zeros_bf16(device: &Device, rows: usize, cols: usize) -> Self {
        let len = rows * cols;
        let numbers = match device {
            Device::Cpu => Numbers::Host(vec![0; len]),
            Device::Sizes(_) => Numbers::Host(Vec::new()),
            Device::Cuda(gpu) => Numbers::Cuda(gpu.upload_halves(&vec![0; len])),
        };
        let held = device.hold(2 * len as u64);
        Self::Bf16(Halves { numbers, len, device: device.clone(), _held: held })
    }

    /// Zeros in the host's memory, of weights on `device`, in bf16 or f32. On the processor that is where they are anyway.
    pub fn zeros_offloaded(device: &Device, is_bf16: bool, rows: usize, cols: usize) -> Self {
        let len = rows * cols;
        let words = match device {
            Device::Cuda(gpu) => Some(gpu.pinned(if is_bf16 { len.div_ceil(2) } else { len })),
            Device::Sizes(_) if device.works_as_gpu() => None,
            Device::Cpu | Device::Sizes(_) if is_bf16 => return Self::zeros_bf16(device, rows, cols),
            Device::Cpu | Device::Sizes(_) => return Self::zeros_f32(device, rows, cols),
        };
        Self::Offloaded(Offloaded { words, is_bf16, len })
    }

    /// The numbers, widened where they are bf16. As [`Tensor::to_host`] where there are none.
    pub fn to_host(&self) -> std::borrow::Cow<'_, [f32]> {
        match self {
            Self::F32(tensor) => tensor.to_host(),
            Self::Bf16(halves) => {
                drop(halves.device.hold_on_host(4 * halves.len as u64));
                match &halves.numbers {
                    Numbers::Host(numbers) => numbers.iter().map(|&number| widen(number)).collect(),
                    Numbers::Cuda(numbers) => numbers.to_host().into_iter().map(widen).collect(),
                }
            }
            Self::Offloaded(offloaded) => offloaded.to_host().into(),
        }
    }

    /// Replaces the numbers; those of a bf16 moment must be bf16 numbers.
    ///
    /// # Panics
    /// If there are more or fewer, or one is no bf16 number where it must be.
    pub fn set(&mut self, numbers: &[f32]) {
        match self {
            Self::F32(tensor) => tensor.change_on_host(|own| own.copy_from_slice(numbers)),
            Self::Bf16(own) => {
                let bits = upper_halves(numbers);
                match &mut own.numbers {
                    Numbers::Host(own) => {
                        assert_eq!(own.len(), bits.len(), "numbers of a moment");
                        own.copy_from_slice(&bits);
                    }
                    Numbers::Cuda(own) => own.set(&bits),
                }
            }
            Self::Offloaded(own) => own.set(numbers),
        }
    }
}
