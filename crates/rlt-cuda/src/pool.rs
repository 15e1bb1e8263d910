//! Which memory of a GPU serves again: asking the driver for some takes longer than many a kernel, and waits for all of them.

use std::collections::BTreeMap;

use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;

/// Blocks begin at multiples of this many bytes, so that threads that read side by side meet as few lines as they can.
pub(crate) const ALIGNMENT: usize = 256;

/// A run of a GPU's memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub address: CUdeviceptr,
    /// A [`block_bytes`].
    pub bytes: usize,
}

/// Bytes that are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// What is in use now.
    pub in_use: u64,
    /// That, and what waits for its next use.
    pub held: u64,
    /// The most that was held since it was last asked for.
    pub peak: u64,
}

impl Usage {
    pub(crate) fn take_peak(&mut self) -> u64 {
        std::mem::replace(&mut self.peak, self.held)
    }
}

/// Free blocks by their bytes.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: BTreeMap<usize, Vec<CUdeviceptr>>,
    pub usage: Usage,
}

/// Bytes of the block that `bytes` are put in: one of eight sizes for each power of two.
pub fn block_bytes(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 16).max(ALIGNMENT);
    bytes.max(1).next_multiple_of(step)
}

impl Pool {
    /// A block of at least `bytes`. The context must be current.
    ///
    /// # Errors
    /// The driver's: there is no more.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Block, result::DriverError> {
        let wanted = block_bytes(bytes);
        // A free one that is a little larger serves, too: sizes differ from step to step.
        if let Some((&bytes, blocks)) = self.free.range_mut(wanted..=wanted + wanted / 4).next() {
            let address = blocks.pop().expect("no list of free blocks is empty");
            if blocks.is_empty() {
                self.free.remove(&bytes);
            }
            self.usage.in_use += bytes as u64;
            return Ok(Block { address, bytes });
        }
        // SAFETY: the context is current.
        let address = unsafe { result::malloc_sync(wanted) }.or_else(|_| {
            self.release_all();
            // SAFETY: as above.
            unsafe { result::malloc_sync(wanted) }
        })?;
        self.usage.in_use += wanted as u64;
        self.usage.held += wanted as u64;
        self.usage.peak = self.usage.peak.max(self.usage.held);
        Ok(Block { address, bytes: wanted })
    }

    /// Takes a block back for the next that asks: on one stream nothing overtakes what still uses it.
    pub(crate) fn give(&mut self, block: Block) {
        self.usage.in_use -= block.bytes as u64;
        self.free.entry(block.bytes).or_default().push(block.address);
    }

    /// Returns free blocks to the driver, which waits for what uses them.
    pub(crate) fn release_all(&mut self) {
        for (bytes, addresses) in std::mem::take(&mut self.free) {
            for address in addresses {
                self.usage.held -= bytes as u64;
                // SAFETY: the driver gave it, and nobody has it now. An error would mean that the context is gone, and
                // its memory with it.
                let _ = unsafe { result::free_sync(address) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_waste_at_most_an_eighth_beyond_their_alignment() {
        for bytes in [0, 1, 256, 257, 5_000, 1_000_001, 123_456_789] {
            let block = block_bytes(bytes);
            assert!(block >= bytes.max(1) && block <= bytes + bytes / 8 + ALIGNMENT, "{bytes} -> {block}");
            assert_eq!((block % ALIGNMENT, block_bytes(block)), (0, block));
        }
    }
}
