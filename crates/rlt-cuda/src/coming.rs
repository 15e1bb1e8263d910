//! Words of the host's memory on their way to the GPU's, while the GPU works on something else.
//!
//! Copies go on a stream of their own, and two waits keep them and the GPU's work apart: they begin when the GPU has done what it
//! was asked for before they were (the memory that they come to may have been in use until then), and what the GPU is asked
//! for once they are wanted begins when they are there. Whatever it is asked for in between goes on beside them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::event::Event;
use crate::gpu::Gpu;
use crate::memory::Memory;
use crate::pinned::Pinned;

/// Some words on their way.
pub struct Coming {
    gpu: Gpu,
    memory: Vec<Memory>,
    are_here: Event,
    /// Read until they are.
    _from: Arc<Pinned>,
}

impl Coming {
    /// Asks for copies of some parts of `from`.
    ///
    /// # Panics
    /// If it has no such words, or there is no memory for them.
    pub fn of(from: &Arc<Pinned>, parts: &[Range<usize>]) -> Self {
        let gpu = from.gpu().clone();
        let [coming, _] = gpu.copies();
        gpu.make_current();
        let memory: Vec<Memory> = parts.iter().map(|part| gpu.take(part.len())).collect();
        let (is_free, are_here) = (Event::new(&gpu), Event::new(&gpu));
        is_free.mark(gpu.stream());
        is_free.is_awaited_by(coming);
        for (part, to) in parts.iter().zip(&memory) {
            // SAFETY: this keeps the words, and nobody changes what is shared, until the GPU's stream waits for their copies (when
            // this is dropped); whoever drops them waits for that stream.
            unsafe { from.copy_to(part, to, coming) };
        }
        are_here.mark(coming);
        Self { gpu, memory, are_here, _from: from.clone() }
    }

    /// The words, part by part, for what the GPU is asked for from now on. The host does not wait.
    pub fn arrived(mut self) -> Vec<Memory> {
        std::mem::take(&mut self.memory)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        // Also where nobody wants them: what the GPU is asked for next may use their memory for something else.
        self.gpu.make_current();
        self.are_here.is_awaited_by(self.gpu.stream());
    }
}

impl fmt::Debug for Coming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Coming({:?})", self.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::waits_are_needed;

    /// Says in the processes of the test what they compute.
    const INSIDE: &str = "RLT_TEST_COMING";

    const N: usize = 1001;

    fn numbers(seed: u32) -> Vec<f32> {
        (0..N as u32).map(|i| (i.wrapping_mul(seed) % 997) as f32 / 997.0 - 0.5).collect()
    }

    fn pinned(gpu: &Gpu, numbers: &[f32]) -> Arc<Pinned> {
        let mut words = gpu.pinned(numbers.len());
        for (word, number) in words.words_mut().iter_mut().zip(numbers) {
            *word = number.to_bits();
        }
        Arc::new(words)
    }

    fn sum(numbers: &[f32]) -> u64 {
        numbers.iter().fold(0, |sum, x| u64::wrapping_mul(sum, 31).wrapping_add(u64::from(x.to_bits())))
    }

    /// As a pass over six blocks goes, each in two parts, the next of which comes while one is used; then one is changed, and
    /// the pass repeated.
    fn of_passes(gpu: &Gpu) -> Vec<u64> {
        let parts = [0..600, 600..N];
        let mut blocks: Vec<_> = [31, 37, 41, 43, 47, 53].map(|seed| pinned(gpu, &numbers(seed))).into();
        let mut sums = Vec::new();
        for _ in 0..2 {
            let mut x = parts.clone().map(|part| gpu.upload(&numbers(29)[part]));
            let mut next = Some(Coming::of(&blocks[0], &parts));
            for index in 0..blocks.len() {
                let block = next.take().unwrap().arrived();
                next = blocks.get(index + 1).map(|block| Coming::of(block, &parts));
                for (x, block) in x.iter_mut().zip(&block) {
                    gpu.add_scaled(x, block, 0.1 + index as f32);
                }
            }
            let changed = Arc::get_mut(&mut blocks[0]).expect("nobody reads it");
            parts.iter().zip(&x).for_each(|(part, x)| changed.set_from(part.start, x));
            sums.extend(x.iter().map(|x| sum(&x.to_host::<f32>())));
        }
        sums
    }

    /// The same passes, all on the host.
    fn of_passes_by_hand() -> Vec<u64> {
        let mut blocks: Vec<Vec<f32>> = [31, 37, 41, 43, 47, 53].map(numbers).into();
        let mut sums = Vec::new();
        for _ in 0..2 {
            let mut x = numbers(29);
            for (index, block) in blocks.iter().enumerate() {
                x.iter_mut().zip(block).for_each(|(x, y)| *x = (0.1 + index as f32).mul_add(*y, *x));
            }
            sums.extend([sum(&x[..600]), sum(&x[600..])]);
            blocks[0] = x;
        }
        sums
    }

    /// What has the memory of words that nobody wanted, read twice.
    fn of_unwanted(gpu: &Gpu) -> Vec<u64> {
        let words = pinned(gpu, &numbers(59));
        drop(Coming::of(&words, std::slice::from_ref(&(0..N))));
        let after = gpu.upload(&numbers(61));
        [0; 2].map(|_| sum(&after.to_host::<f32>())).into()
    }

    #[test]
    #[expect(
        clippy::print_stdout,
        reason = "a skipped test says so, and results are compared across processes"
    )]
    fn what_comes_and_the_gpu_wait_for_each_other() {
        if let Err(why) = rlt_cuda_emulator::load() {
            println!("skipped: {why}");
            return;
        }
        if let Ok(which) = std::env::var(INSIDE) {
            let gpu = Gpu::open(0).unwrap();
            let sums = if which == "passes" { of_passes(&gpu) } else { of_unwanted(&gpu) };
            println!("bits {sums:?}");
            return;
        }
        let unwanted = vec![sum(&numbers(61)); 2];
        for (which, expected, waits) in
            [("passes", of_passes_by_hand(), &["0<1", "1<0"][..]), ("unwanted", unwanted, &["0<1"])]
        {
            let (test, lateness) =
                ("coming::tests::what_comes_and_the_gpu_wait_for_each_other", ["", "0", "1", "01"]);
            waits_are_needed(test, (INSIDE, which), &format!("{expected:?}"), &lateness, waits);
        }
    }
}
