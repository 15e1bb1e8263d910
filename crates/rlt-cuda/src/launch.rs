//! Launches of kernels, with arguments that are checked.

use std::ffi::c_void;

use cudarc::driver::{result, sys};

use crate::catalogue::Kind;
use crate::gpu::Gpu;
use crate::memory::Memory;

/// Threads of a block of most kernels.
pub(crate) const THREADS: u32 = 256;

/// Blocks of a loop over elements: enough for any GPU.
const MOST_BLOCKS: usize = 4096;

/// Shared memory that every block may have without being asked for.
const PLAIN_SHARED_BYTES: u32 = 48 << 10;

/// One argument.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg {
    Wide(u64),
    Int(i32),
    Float(f32),
}

impl Arg {
    fn kind(self) -> Kind {
        match self {
            Self::Wide(_) => Kind::Wide,
            Self::Int(_) => Kind::Int,
            Self::Float(_) => Kind::Float,
        }
    }
}

/// Memory of which a kernel reads or writes the first `len` numbers.
///
/// # Panics
/// If it holds fewer.
pub(crate) fn of(memory: &Memory, len: usize) -> Arg {
    Arg::Wide(memory.address(len))
}

/// A count of elements.
pub(crate) fn count(n: usize) -> Arg {
    Arg::Wide(n as u64)
}

/// A size, which kernels count in 32 bits.
///
/// # Panics
/// If it is more than that.
pub(crate) fn size(n: usize) -> Arg {
    Arg::Int(i32::try_from(n).unwrap_or_else(|_| panic!("{n} is more than a kernel counts")))
}

/// How many threads run a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threads {
    pub grid: (usize, usize),
    pub block: u32,
    /// Of a block.
    pub shared_bytes: u32,
}

impl Threads {
    /// For a loop over `n` elements.
    pub(crate) fn over(n: usize) -> Self {
        let blocks = n.div_ceil(THREADS as usize).min(MOST_BLOCKS);
        Self { grid: (blocks, 1), block: THREADS, shared_bytes: 0 }
    }

    /// A block for each of `n` rows, with a shared number a warp.
    pub(crate) fn a_block_each(n: usize) -> Self {
        Self { grid: (n, 1), block: THREADS, shared_bytes: THREADS / 32 * 4 }
    }

    /// A warp for each of `n` vectors.
    pub(crate) fn a_warp_each(n: usize) -> Self {
        Self { grid: (n.div_ceil(THREADS as usize / 32), 1), block: THREADS, shared_bytes: 0 }
    }

    /// A thread for each of `columns`, in each of `chunks`.
    pub(crate) fn a_thread_each(columns: usize, chunks: usize) -> Self {
        Self { grid: (columns.div_ceil(THREADS as usize), chunks), block: THREADS, shared_bytes: 0 }
    }
}

impl Gpu {
    /// Asks for a kernel to be run. Nothing is run for a grid without blocks.
    ///
    /// # Panics
    /// If it takes other arguments, or the driver refuses.
    pub(crate) fn launch(&self, name: &'static str, threads: Threads, mut arguments: Vec<Arg>) {
        let kernel = self.kernels().get(name);
        let given = arguments.iter().map(|argument| argument.kind());
        assert!(given.eq(kernel.takes.iter().copied()), "{name} takes {:?}", kernel.takes);
        let (x, y) = threads.grid;
        if x == 0 || y == 0 {
            return;
        }
        self.make_current();
        if threads.shared_bytes > PLAIN_SHARED_BYTES {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: a function of a module that is kept.
            let asked = unsafe {
                result::function::set_function_attribute(kernel.function, most, threads.shared_bytes as i32)
            };
            self.expect(name, asked);
        }
        let mut pointers: Vec<*mut c_void> = arguments
            .iter_mut()
            .map(|argument| match argument {
                Arg::Wide(value) => (&raw mut *value).cast(),
                Arg::Int(value) => (&raw mut *value).cast(),
                Arg::Float(value) => (&raw mut *value).cast(),
            })
            .collect();
        let [x, y] = [x, y].map(|blocks| u32::try_from(blocks).expect("blocks of a grid"));
        let grid = (x, y, 1);
        let (block, shared, stream) = ((threads.block, 1, 1), threads.shared_bytes, self.stream());
        // SAFETY: the arguments are of the kinds that the kernel takes, and addresses are of memory that its caller checked
        // for all that it touches; the driver copies them before it returns.
        let launched =
            unsafe { result::launch_kernel(kernel.function, grid, block, shared, stream, &mut pointers) };
        self.expect(name, launched);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Touches numbers beyond memory, in a process of its own: what reads or writes them.
    const BEYOND: &str = "RLT_TEST_BEYOND";

    #[test]
    #[expect(clippy::print_stdout, reason = "a skipped test says so")]
    fn what_lies_beyond_memory_cannot_be_touched() {
        if let Err(why) = rlt_cuda_emulator::load() {
            println!("skipped: {why}");
            return;
        }
        if let Ok(which) = std::env::var(BEYOND) {
            let gpu = Gpu::open(0).unwrap();
            let (small, large) = (gpu.upload(&[0.5_f32; 300]), gpu.upload(&[0.5_f32; 600]));
            let (to, from) = if which == "write" { (&small, &large) } else { (&large, &small) };
            // As a kernel would whose caller checked too little.
            let n = if which == "neither" { 300 } else { 600 };
            let arguments = vec![of(to, 300), of(from, 300), count(n), Arg::Float(1.0)];
            gpu.launch("add_scaled", Threads::over(n), arguments);
            return;
        }
        for (which, passes) in [("neither", true), ("read", false), ("write", false)] {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "launch::tests::what_lies_beyond_memory_cannot_be_touched"])
                .env(BEYOND, which)
                .output()
                .unwrap()
                .status;
            assert_eq!((status.success(), status.code().is_some()), (passes, passes), "{which}: {status}");
        }
    }
}
