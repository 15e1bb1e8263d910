//! Memory of the host that a GPU copies from and to by itself, while it works.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;

use cudarc::driver::result;
use cudarc::driver::sys::{CUresult, CUstream};

use crate::failure::Failure;
use crate::gpu::Gpu;
use crate::memory::Memory;

/// Some words of four bytes in the host's memory, which is never paged out.
pub struct Pinned {
    gpu: Gpu,
    words: NonNull<u32>,
    len: usize,
}

// SAFETY: it owns its memory, which any thread may read and write.
unsafe impl Send for Pinned {}
// SAFETY: as above; what is shared is only read.
unsafe impl Sync for Pinned {}

impl Gpu {
    /// `len` words of zeros.
    ///
    /// # Panics
    /// With a [`crate::Failure`] if there is no more.
    pub fn pinned(&self, len: usize) -> Pinned {
        let bytes = len.checked_mul(4).unwrap_or_else(|| panic!("{len} words are more than memory can hold"));
        self.make_current();
        // SAFETY: the context is current.
        let memory = unsafe { result::malloc_host(bytes.max(4), 0) };
        let memory = memory.unwrap_or_else(|e| {
            if e.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                Failure::Host { gpu: self.called(), asked: bytes as u64 }.end()
            }
            Failure::of(self.called(), "asking for the host's memory", e).end()
        });
        let words = NonNull::new(memory.cast::<u32>()).expect("memory has an address");
        // SAFETY: as many bytes are there, and nobody else has them.
        unsafe { words.write_bytes(0, len) };
        Pinned { gpu: self.clone(), words, len }
    }
}

impl Pinned {
    /// How many words it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The words, when all that the GPU was asked for before is done.
    pub fn words(&self) -> &[u32] {
        self.gpu.wait();
        // SAFETY: as many are there; what the GPU copies here it was asked for before, and is waited for above.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len) }
    }

    /// As [`Self::words`], to be changed.
    pub fn words_mut(&mut self) -> &mut [u32] {
        self.gpu.wait();
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_ptr(), self.len) }
    }

    /// Replaces the words from `begin` on by those of `from`, when all that the GPU was asked for before is done.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn set_from(&mut self, begin: usize, from: &Memory) {
        self.gpu.make_current();
        let stream = self.gpu.stream();
        // SAFETY: who reads, changes or drops this later waits for the GPU's stream, and so does whoever copies from it.
        unsafe { self.copy_from(&(begin..begin + from.len()), from, stream) };
    }

    /// The GPU that copies.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Asks for a copy of some words to the beginning of `to`.
    ///
    /// # Safety
    /// This lives, and stays as it is, until [`Gpu::wait`] waits for the copy.
    pub(crate) unsafe fn copy_to(&self, words: &Range<usize>, to: &Memory, stream: CUstream) {
        assert!(words.end <= self.len, "{words:?} of {} words", self.len);
        // SAFETY: the words are there; that they stay is the caller's to see to.
        let copied = unsafe {
            let from = std::slice::from_raw_parts(self.words.as_ptr().add(words.start), words.len());
            result::memcpy_htod_async(to.address(words.len()), from, stream)
        };
        self.gpu.expect("copying to it", copied);
    }

    /// Asks for a copy of the beginning of `from` to some words.
    ///
    /// # Safety
    /// As [`Self::copy_to`].
    pub(crate) unsafe fn copy_from(&mut self, words: &Range<usize>, from: &Memory, stream: CUstream) {
        assert!(words.end <= self.len, "{words:?} of {} words", self.len);
        // SAFETY: as there.
        let copied = unsafe {
            let to = std::slice::from_raw_parts_mut(self.words.as_ptr().add(words.start), words.len());
            result::memcpy_dtoh_async(to, from.address(words.len()), stream)
        };
        self.gpu.expect("copying from it", copied);
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Copies may be under way: a GPU that failed does not wait for them, and ends its process.
        self.gpu.make_current();
        // SAFETY: the driver gave it, and nobody has it now; the stream lives.
        let _ = unsafe {
            result::stream::synchronize(self.gpu.stream())
                .and_then(|()| result::free_host(self.words.as_ptr().cast()))
        };
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({} words)", self.len)
    }
}
