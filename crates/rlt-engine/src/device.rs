//! Where numbers live and operations are computed.
//!
//! Whatever holds numbers (a [`crate::Tensor`], packed weights, pages of keys and values) knows its device, and every
//! operation looks at it once, at its entry. What an operation asks of memory it asks in one place, whatever the device.

use crate::pool;
use crate::recycling::Usage;
use crate::sizes::Sizes;
use rlt_cuda::Gpu;

pub use crate::recycling::Usage as MemoryUsage;
pub use rlt_cuda::{Failure as GpuFailure, WORKSPACE_BYTES as GPU_WORKSPACE_BYTES};

/// A device.
#[derive(Debug, Clone, Default)]
pub enum Device {
    /// This process's memory and threads.
    #[default]
    Cpu,
    /// Sizes alone: nothing is computed.
    Sizes(Sizes),
    /// An NVIDIA GPU: its memory, and its threads.
    Cuda(Gpu),
}

/// Ends an operation of the processor that met numbers of a GPU.
#[cold]
pub(crate) fn not_on_gpus() -> ! {
    panic!("numbers of a GPU, in an operation that is not built for GPUs")
}

/// Ends an operation of a GPU that met numbers of the processor.
#[cold]
pub(crate) fn not_on_cpus() -> ! {
    panic!("numbers of the processor, where only a GPU's wait in the host's memory")
}

/// What a tensor without a device of its own lies on.
pub(crate) static CPU: Device = Device::Cpu;

impl Device {
    /// A new device that holds sizes alone.
    pub fn sizes() -> Self {
        Self::Sizes(Sizes::default())
    }

    /// As [`Self::sizes`], where operations ask for memory as they do on a GPU: of so many bytes, where that is known.
    pub fn sizes_of_gpu(memory: Option<u64>) -> Self {
        Self::Sizes(Sizes::of_gpu(memory))
    }

    /// The NVIDIA GPU of this number, from 0.
    ///
    /// # Errors
    /// There is none, or it cannot be used, and why.
    pub fn cuda(ordinal: usize) -> Result<Self, rlt_cuda::Error> {
        Gpu::open(ordinal).map(Self::Cuda)
    }

    /// How many NVIDIA GPUs there are.
    ///
    /// # Errors
    /// There is no driver, or it is too old.
    pub fn cuda_count() -> Result<usize, rlt_cuda::Error> {
        Gpu::count()
    }

    /// Whether operations go as on a GPU, there or counted: each on all its rows, one after another, on weights as they lie.
    pub fn works_as_gpu(&self) -> bool {
        match self {
            Self::Cpu => false,
            Self::Sizes(sizes) => sizes.is_of_gpu(),
            Self::Cuda(_) => true,
        }
    }

    /// Whether there are numbers to read.
    pub fn has_numbers(&self) -> bool {
        !matches!(self, Self::Sizes(_))
    }

    /// Bytes that there are of a GPU's memory, where its driver tells.
    pub fn memory_bytes(&self) -> Option<u64> {
        match self {
            Self::Cuda(gpu) => gpu.memory_bytes(),
            Self::Cpu | Self::Sizes(_) => None,
        }
    }

    /// Bytes that this device holds.
    pub fn usage(&self) -> Usage {
        if let Self::Cuda(gpu) = self {
            let rlt_cuda::Usage { in_use, held, peak } = gpu.usage();
            return Usage { in_use, held, peak };
        }
        self.count(|usage| *usage)
    }

    /// The most bytes held since the last call.
    pub fn take_peak(&self) -> u64 {
        match self {
            Self::Cuda(gpu) => gpu.take_peak(),
            Self::Cpu | Self::Sizes(_) => self.count(Usage::take_peak),
        }
    }

    /// Waits for everything that was asked for: a GPU is still at work when an operation has returned.
    pub fn wait(&self) {
        if let Self::Cuda(gpu) = self {
            gpu.wait();
        }
    }

    /// Returns recycled memory to where it came from.
    pub fn release_memory(&self) {
        match self {
            Self::Cpu => pool::release_all(),
            Self::Sizes(sizes) => sizes.release_all(),
            Self::Cuda(gpu) => gpu.release_memory(),
        }
    }

    /// Counts `bytes` of memory that is not recycled for as long as the result lives.
    pub fn hold(&self, bytes: u64) -> Held {
        self.count(|usage| usage.add(bytes));
        Held { device: self.clone(), bytes }
    }

    /// As [`Self::hold`], of the host's memory, which a GPU's is no part of.
    pub fn hold_on_host(&self, bytes: u64) -> Held {
        if self.works_as_gpu() { Held::default() } else { self.hold(bytes) }
    }

    /// Counts bytes that leave for other processes, where nothing is computed.
    pub fn sends(&self, bytes: usize) {
        if let Self::Sizes(sizes) = self {
            sizes.sent(bytes / 4);
        }
    }

    /// Does `work` on all items at the same time; without numbers, one after another, counted as if at the same time. A GPU
    /// works on one after another, with all its threads.
    pub fn at_once<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Sync + Send) {
        use rayon::prelude::*;
        match self {
            Self::Cpu => items.par_iter_mut().for_each(work),
            Self::Sizes(sizes) => sizes.in_lanes(items, work),
            Self::Cuda(_) => items.iter_mut().for_each(work),
        }
    }

    /// How many tasks are done at the same time.
    pub fn tasks_at_once(&self) -> usize {
        if self.works_as_gpu() { 1 } else { rayon::current_num_threads() }
    }

    /// Does `work`, which stands for `times` times the same: without numbers it counts as often.
    ///
    /// # Panics
    /// If there are numbers and it is not once.
    pub fn counted<R>(&self, times: usize, work: impl FnOnce() -> R) -> R {
        match self {
            Self::Cpu | Self::Cuda(_) => {
                assert_eq!(times, 1, "what is computed is computed once");
                work()
            }
            Self::Sizes(sizes) => sizes.counted(times, work),
        }
    }

    fn count<R>(&self, change: impl FnOnce(&mut Usage) -> R) -> R {
        match self {
            Self::Cpu => pool::count(change),
            Self::Sizes(sizes) => sizes.count(change),
            // What is asked for beside a GPU's own memory is the host's.
            Self::Cuda(_) => change(&mut Usage::default()),
        }
    }
}

/// Memory beside what is recycled, counted while this lives.
#[derive(Debug, Default)]
pub struct Held {
    device: Device,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.device.count(|usage| usage.subtract(self.bytes));
        }
    }
}
