//! Tensors of a GPU that wait in the host's memory until they are needed, and come while the GPU works on something else.

use std::ops::Range;
use std::sync::Arc;

use rlt_cuda::{Coming, Halves, Memory, Pinned};

use crate::device::{Device, not_on_cpus};
use crate::tensor::Tensor;

/// Some tensors of a GPU, in the host's memory: each in the format that it has on the GPU, to the bit.
#[derive(Debug)]
pub struct OffloadedTensors {
    device: Device,
    outlines: Vec<Outline>,
    /// Those of all tensors, one after another; none where the device has no numbers.
    words: Option<Arc<Pinned>>,
}

/// What there is to know of a tensor but its numbers.
#[derive(Debug, Clone)]
struct Outline {
    rows: usize,
    cols: usize,
    is_bf16: bool,
    /// Where a device without numbers was told so ([`Tensor::known_to_fit_bf16`]).
    fits_bf16: bool,
    words: Range<usize>,
}

/// Some tensors on their way to the GPU.
#[derive(Debug)]
pub struct ComingTensors(Way);

#[derive(Debug)]
enum Way {
    /// In room that is counted.
    Counted(Vec<Tensor>),
    Cuda(Coming, Vec<Outline>),
}

impl OffloadedTensors {
    /// Copies of `tensors` of `device`.
    ///
    /// # Panics
    /// If that is the processor, in whose memory they are.
    pub fn of(device: &Device, tensors: &[&Tensor]) -> Self {
        let mut begin = 0;
        let outlines = tensors.iter().map(|tensor| {
            let end = begin + if tensor.is_bf16() { tensor.len().div_ceil(2) } else { tensor.len() };
            let words = std::mem::replace(&mut begin, end)..end;
            let (is_bf16, fits_bf16) = (tensor.is_bf16(), tensor.is_known_to_fit_bf16());
            Outline { rows: tensor.rows(), cols: tensor.cols(), is_bf16, fits_bf16, words }
        });
        let outlines = outlines.collect();
        let words = match device {
            Device::Cuda(gpu) => Some(Arc::new(gpu.pinned(begin))),
            Device::Sizes(_) if device.works_as_gpu() => None,
            Device::Cpu | Device::Sizes(_) => not_on_cpus(),
        };
        let mut copies = Self { device: device.clone(), outlines, words };
        copies.set(tensors);
        copies
    }

    /// Replaces them by copies of others like them.
    ///
    /// # Panics
    /// If these have other shapes or formats.
    pub fn set(&mut self, tensors: &[&Tensor]) {
        assert_eq!(tensors.len(), self.outlines.len(), "tensors in the host's memory");
        for (tensor, outline) in tensors.iter().zip(&self.outlines) {
            let alike = (tensor.rows(), tensor.cols(), tensor.is_bf16());
            assert_eq!(alike, (outline.rows, outline.cols, outline.is_bf16), "a tensor in the host's memory");
        }
        let (Some(words), Device::Cuda(gpu)) = (&mut self.words, &self.device) else { return };
        if Arc::get_mut(words).is_none() {
            // They are on their way as they are.
            *words = Arc::new(gpu.pinned(words.len()));
        }
        let words = Arc::get_mut(words).expect("nobody else has them");
        for (tensor, outline) in tensors.iter().zip(&self.outlines) {
            words.set_from(
                outline.words.start,
                tensor.halves().map_or_else(|| tensor.memory(), Halves::words),
            );
        }
    }

    /// Asks for all of them. They come beside what the GPU is asked for until they are wanted.
    pub fn bring(&self) -> ComingTensors {
        ComingTensors(match &self.words {
            Some(words) => {
                let parts: Vec<_> = self.outlines.iter().map(|outline| outline.words.clone()).collect();
                Way::Cuda(Coming::of(words, &parts), self.outlines.clone())
            }
            None => Way::Counted(self.outlines.iter().map(|outline| outline.room(&self.device)).collect()),
        })
    }

    /// How many numbers they are.
    pub fn len(&self) -> usize {
        self.outlines.iter().map(|outline| outline.rows * outline.cols).sum()
    }

    /// Whether they are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the host's memory.
    pub fn bytes(&self) -> u64 {
        4 * self.outlines.last().map_or(0, |last| last.words.end) as u64
    }
}

impl Clone for OffloadedTensors {
    fn clone(&self) -> Self {
        let tensors = self.bring().arrived();
        Self::of(&self.device, &tensors.iter().collect::<Vec<_>>())
    }
}

impl ComingTensors {
    /// The tensors, in order, for what the GPU is asked for from now on. The host does not wait.
    pub fn arrived(self) -> Vec<Tensor> {
        match self.0 {
            Way::Counted(tensors) => tensors,
            Way::Cuda(coming, outlines) => {
                outlines.iter().zip(coming.arrived()).map(|(outline, words)| outline.tensor(words)).collect()
            }
        }
    }
}

impl Outline {
    fn tensor(&self, words: Memory) -> Tensor {
        let (rows, cols) = (self.rows, self.cols);
        if self.is_bf16 {
            return Tensor::of_halves(Halves::of_words(words, rows * cols), rows, cols);
        }
        Tensor::of_memory(words, rows, cols)
    }

    /// Room on a device without numbers.
    fn room(&self, device: &Device) -> Tensor {
        if self.is_bf16 {
            return Tensor::from_bf16_rows_on(device, self.rows, self.cols, |_| &[]);
        }
        let room = Tensor::scratch_on(device, self.rows, self.cols);
        if self.fits_bf16 { room.known_to_fit_bf16() } else { room }
    }
}
