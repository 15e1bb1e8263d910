//! The choice among the ways to compute a block.

use std::sync::OnceLock;

use super::block::Block;
use super::portable;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::tile_size::TILE_ROWS;

/// A way to compute a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// AMX: 16 x 16 sums an instruction.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Tiles,
    /// AVX-512 BF16: 16 dot products of two an instruction.
    #[cfg(target_arch = "x86_64")]
    Dot,
    /// Widened in registers, multiplied and added in f32.
    Portable,
}

impl Kernel {
    /// Those that this processor has, the fastest first.
    pub(super) fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if super::tiles::is_available() {
            kernels.push(Self::Tiles);
        }
        #[cfg(target_arch = "x86_64")]
        if super::dot::is_available() {
            kernels.push(Self::Dot);
        }
        kernels.push(Self::Portable);
        kernels
    }

    /// The fastest.
    pub(crate) fn of_this_cpu() -> Self {
        static KERNEL: OnceLock<Kernel> = OnceLock::new();
        *KERNEL.get_or_init(|| Self::available()[0])
    }

    /// The number of which the rows of a block that is written in place are a multiple.
    pub(super) fn row_step(self) -> usize {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Tiles => TILE_ROWS,
            _ => 1,
        }
    }

    /// Runs `work`, which computes blocks on this thread.
    pub(crate) fn on(self, work: impl FnOnce()) {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Tiles => super::tiles::configured(work),
            _ => work(),
        }
    }

    /// Computes a block; call it inside [`Self::on`].
    ///
    /// # Safety
    /// The block's output must be writable, up to whole multiples of [`Self::row_step`] rows, and not aliased.
    pub(super) unsafe fn block(self, block: &Block) {
        block.check();
        // SAFETY: the kernel is available, factors were checked, the output is the caller's promise.
        unsafe {
            match self {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                Self::Tiles => super::tiles::block(block),
                #[cfg(target_arch = "x86_64")]
                Self::Dot => super::dot::block(block),
                Self::Portable => portable::block(block),
            }
        }
    }
}
