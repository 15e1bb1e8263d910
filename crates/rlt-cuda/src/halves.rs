//! Numbers in bf16, and the ways between them and f32 (`kernels/halves.cu`).

use std::fmt;

use cudarc::driver::sys::CUdeviceptr;

use crate::gpu::Gpu;
use crate::launch::{Arg, Threads, count, of, size};
use crate::memory::Memory;
use crate::rows;

/// Some numbers in bf16 in a GPU's memory, by their bits: the upper halves of f32.
pub struct Halves {
    /// Two numbers a word.
    words: Memory,
    len: usize,
}

/// The words of some numbers, two a word; the last one may have a word of its own.
pub fn packed(bits: &[u16]) -> impl Iterator<Item = u32> {
    let (pairs, rest) = bits.as_chunks::<2>();
    let pairs = pairs.iter().map(|&[first, second]| u32::from(first) | u32::from(second) << 16);
    pairs.chain(rest.iter().map(|&last| u32::from(last)))
}

/// The numbers of [`packed`] words, two of each.
pub fn unpacked(words: &[u32]) -> impl Iterator<Item = u16> {
    words.iter().flat_map(|&word| [word as u16, (word >> 16) as u16])
}

impl Gpu {
    /// Room for `len` numbers, of unspecified contents.
    ///
    /// # Panics
    /// If there is none.
    pub fn take_halves(&self, len: usize) -> Halves {
        Halves { words: self.take(len.div_ceil(2)), len }
    }

    /// A copy of the host's numbers.
    pub fn upload_halves(&self, bits: &[u16]) -> Halves {
        let mut halves = self.take_halves(bits.len());
        halves.set(bits);
        halves
    }

    /// `x` rounded to the nearest, ties to even.
    pub fn rounded(&self, x: &Memory) -> Halves {
        let (n, out) = (x.len(), self.take_halves(x.len()));
        let arguments = vec![of(&out.words, out.words.len()), of(x, n), count(n)];
        self.launch("round_numbers", Threads::over(n.div_ceil(2)), arguments);
        out
    }

    /// `x` in f32.
    pub fn widened(&self, x: &Halves) -> Memory {
        let out = self.take(x.len);
        self.launch(
            "widen_numbers",
            Threads::over(x.len),
            vec![of(&out, x.len), x.argument(x.len), count(x.len)],
        );
        out
    }

    /// Rows `picked` of `table`, whose rows are of `cols`, in f32.
    ///
    /// # Panics
    /// If one is not there.
    pub fn gather_widened_rows(&self, table: &Halves, cols: usize, picked: &[u32]) -> Memory {
        rows::check(table.len, cols, picked);
        let (out, numbers) = (self.take(picked.len() * cols), self.upload(picked));
        let arguments =
            vec![of(&out, out.len()), table.argument(table.len), of(&numbers, picked.len()), size(cols)];
        self.launch("gather_widened_rows", Threads::a_block_each(picked.len()), arguments);
        out
    }
}

impl Halves {
    /// The numbers of [`packed`] words.
    ///
    /// # Panics
    /// If these are not as many words as `len` numbers take.
    pub fn of_words(words: Memory, len: usize) -> Self {
        assert_eq!(words.len(), len.div_ceil(2), "words of {len} numbers");
        Self { words, len }
    }

    /// Their words, as [`packed`] gives them.
    pub fn words(&self) -> &Memory {
        &self.words
    }

    /// The GPU that it is of.
    pub fn gpu(&self) -> &Gpu {
        self.words.gpu()
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
    pub fn set(&mut self, bits: &[u16]) {
        assert_eq!(bits.len(), self.len, "numbers for a GPU's memory");
        self.words.set(&packed(bits).collect::<Vec<_>>());
    }

    /// A copy on the host, when all that was asked for before is done.
    pub fn to_host(&self) -> Vec<u16> {
        unpacked(&self.words.to_host::<u32>()).take(self.len).collect()
    }

    /// Its address, where a kernel may touch `len` numbers.
    ///
    /// # Panics
    /// If it holds fewer.
    pub(crate) fn address(&self, len: usize) -> CUdeviceptr {
        assert!(len <= self.len, "{len} numbers are asked of memory that holds {}", self.len);
        self.words.address(len.div_ceil(2))
    }

    /// As [`Self::address`], for a launch.
    pub(crate) fn argument(&self, len: usize) -> Arg {
        Arg::Wide(self.address(len))
    }
}

impl fmt::Debug for Halves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Halves({} numbers)", self.len)
    }
}
