//! Memory of a GPU.

use std::fmt;

use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;

use crate::gpu::Gpu;
use crate::pool::Block;

/// What is copied to and from a GPU: numbers of four bytes.
pub trait Number: Copy + Default + private::Sealed {}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
    impl Sealed for i32 {}
}

impl Number for f32 {}
impl Number for u32 {}
impl Number for i32 {}

const NUMBER_BYTES: usize = 4;

/// Some numbers of four bytes in a GPU's memory, which goes back for the next that asks when this is dropped.
pub struct Memory {
    gpu: Gpu,
    block: Block,
    address: CUdeviceptr,
    len: usize,
}

impl Gpu {
    /// Memory for `len` numbers, of unspecified contents.
    ///
    /// # Panics
    /// If there is no more.
    pub fn take(&self, len: usize) -> Memory {
        let bytes = len
            .checked_mul(NUMBER_BYTES)
            .unwrap_or_else(|| panic!("{len} numbers are more than an address can count"));
        self.make_current();
        let block = self.block(bytes);
        // At the block's end where mistakes are looked for: an emulated device notices what is touched beyond it.
        let at_end = if cfg!(debug_assertions) { block.bytes - bytes.next_multiple_of(16) } else { 0 };
        let address = block.address + at_end as CUdeviceptr;
        Memory { gpu: self.clone(), block, address, len }
    }

    /// A copy of the host's numbers.
    pub fn upload<T: Number>(&self, numbers: &[T]) -> Memory {
        let mut memory = self.take(numbers.len());
        memory.set(numbers);
        memory
    }
}

impl Memory {
    /// The GPU that it is of.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces all numbers by the host's.
    ///
    /// # Panics
    /// If they are more or fewer.
    pub fn set<T: Number>(&mut self, numbers: &[T]) {
        assert_eq!(numbers.len(), self.len, "numbers for a GPU's memory");
        if numbers.is_empty() {
            return;
        }
        self.gpu.make_current();
        // SAFETY: this memory holds as many, and nothing else has it. The call returns when `numbers` were read, as they lie
        // in memory that may be paged.
        let copied = unsafe { result::memcpy_htod_async(self.address, numbers, self.gpu.stream()) };
        self.gpu.expect("copying to it", copied);
    }

    /// A copy on the host, when all that was asked for before is done.
    pub fn to_host<T: Number>(&self) -> Vec<T> {
        let mut numbers = vec![T::default(); self.len];
        self.part_to_host(0, &mut numbers);
        numbers
    }

    /// Copies numbers from the one at `from` on to the host, as many as there is room for, when all that was asked for before is
    /// done.
    ///
    /// # Panics
    /// If it holds fewer.
    pub fn part_to_host<T: Number>(&self, from: usize, room: &mut [T]) {
        let begin = self.address(from + room.len()) + (NUMBER_BYTES * from) as CUdeviceptr;
        if room.is_empty() {
            return;
        }
        self.gpu.make_current();
        // SAFETY: this memory holds as many numbers of any bits, and they are waited for below.
        let copied = unsafe { result::memcpy_dtoh_async(room, begin, self.gpu.stream()) };
        self.gpu.expect("copying from it", copied);
        self.gpu.wait();
    }

    /// A copy beside it.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = self.gpu.take(self.len);
        if self.len > 0 {
            // SAFETY: both hold as many bytes.
            let copied = unsafe {
                let bytes = NUMBER_BYTES * self.len;
                result::memcpy_dtod_async(copy.address, self.address, bytes, self.gpu.stream())
            };
            self.gpu.expect("copying on it", copied);
        }
        copy
    }

    /// Its address, where a kernel may touch `len` numbers.
    ///
    /// # Panics
    /// If it holds fewer.
    pub(crate) fn address(&self, len: usize) -> CUdeviceptr {
        assert!(len <= self.len, "{len} numbers are asked of memory that holds {}", self.len);
        self.address
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.gpu.pool().give(self.block);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} numbers)", self.len)
    }
}
