//! AdamW with moments in the host's memory: they come to the GPU for their update, a chunk after another, and go back.
//!
//! While one chunk is updated the next is on its way here and the last on its way back, each way on a stream of its own:
//! the update takes what the slower of the two ways takes, and the host waits for nothing.

use crate::event::Event;
use crate::gpu::Gpu;
use crate::launch::of;
use crate::memory::Memory;
use crate::optimizer::{Part, RandomRounding, Step};
use crate::pinned::Pinned;

/// Chunks that are on the GPU at the same time: one comes, one is updated, one goes.
pub const CHUNKS_AT_ONCE: usize = 3;

/// Room for a chunk of both moments, and how far the work on it is.
struct Room {
    moments: [Memory; 2],
    arrived: Event,
    updated: Event,
    left: Event,
}

impl Gpu {
    /// As [`Self::adamw`], or with a rounding as [`Self::adamw_bf16`], to the same bits, of moments in the host's memory
    /// (f32, or two bf16 numbers a word), `numbers` at a time.
    ///
    /// # Panics
    /// If a moment has fewer numbers than the gradient, or chunks would cut a word.
    pub fn adamw_of_host(
        &self,
        value: &mut Memory,
        from: usize,
        gradient: &Memory,
        (first, second): (&mut Pinned, &mut Pinned),
        rounding: Option<RandomRounding>,
        gradient_scale: f32,
        step: Step,
        numbers: usize,
    ) {
        let numbers_a_word = if rounding.is_some() { 2 } else { 1 };
        assert!(numbers > 0 && numbers.is_multiple_of(numbers_a_word), "chunks of {numbers} numbers");
        let n = gradient.len();
        let words_of = |numbers: usize| numbers.div_ceil(numbers_a_word);
        let (stream, [coming, going]) = (self.stream(), self.copies());
        self.make_current();
        let rooms: Vec<Room> = (0..n.div_ceil(numbers).min(CHUNKS_AT_ONCE))
            .map(|_| Room {
                moments: [0; 2].map(|_| self.take(words_of(numbers.min(n)))),
                arrived: Event::new(self),
                updated: Event::new(self),
                left: Event::new(self),
            })
            .collect();
        // The rooms are free when the GPU has done what it was asked for before.
        let free = Event::new(self);
        free.mark(stream);
        free.is_awaited_by(coming);
        for (begin, room) in (0..n).step_by(numbers).zip(rooms.iter().cycle()) {
            let len = numbers.min(n - begin);
            let words = begin / numbers_a_word..begin / numbers_a_word + words_of(len);
            let [first_here, second_here] = &room.moments;
            room.left.is_awaited_by(coming);
            // SAFETY: the moments are borrowed until all copies are asked for; who reads, changes or drops them later waits
            // for the GPU's stream, which waits for the last copies below.
            unsafe {
                first.copy_to(&words, first_here, coming);
                second.copy_to(&words, second_here, coming);
            }
            room.arrived.mark(coming);
            room.arrived.is_awaited_by(stream);
            let rounding =
                rounding.map(|all| RandomRounding { counter: all.counter.wrapping_add(begin as u32), ..all });
            let part =
                Part { value_from: from + begin, gradient, gradient_from: begin, len, gradient_scale, step };
            self.adamw_part(
                value,
                part,
                [of(first_here, words.len()), of(second_here, words.len())],
                rounding,
            );
            room.updated.mark(stream);
            room.updated.is_awaited_by(going);
            // SAFETY: as above.
            unsafe {
                first.copy_from(&words, first_here, going);
                second.copy_from(&words, second_here, going);
            }
            room.left.mark(going);
        }
        for room in &rooms {
            room.left.is_awaited_by(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::waits_are_needed;

    /// Set in the processes of the test, which print what they computed.
    const INSIDE: &str = "RLT_TEST_VISITS";

    /// Sums of the bits of a value, its moments and some copies after three steps of 1,001 numbers, 64 at a time or all at once.
    fn bits(numbers: usize, rounding: Option<RandomRounding>) -> Vec<u64> {
        const N: usize = 1001;
        let gpu = Gpu::open(0).unwrap();
        let of_seed = |seed: u32| {
            (0..N as u32).map(|i| (i.wrapping_mul(seed) % 997) as f32 / 997.0 - 0.5).collect::<Vec<_>>()
        };
        let mut value = gpu.upload(&of_seed(31));
        let words = if rounding.is_some() { N.div_ceil(2) } else { N };
        let [mut first, mut second] = [0; 2].map(|_| gpu.pinned(words));
        let step =
            Step { b1: 0.9, b2: 0.99, a1: 0.1, a2: 0.01, step_size: 0.1, root2: 3.0, eps: 1e-8, keep: 0.99 };
        let mut copies = Vec::new();
        for seed in [37, 41, 47] {
            let gradient = gpu.upload(&of_seed(seed));
            let moments = (&mut first, &mut second);
            gpu.adamw_of_host(&mut value, 0, &gradient, moments, rounding, 0.5, step, numbers);
            // What has the rooms' memory between two steps.
            copies.push(gpu.upload(&gradient.to_host::<f32>()[..64]).copy());
        }
        let sum = |words: &[u32]| {
            words.iter().fold(0_u64, |sum, &word| sum.wrapping_mul(31).wrapping_add(u64::from(word)))
        };
        let of_copies = copies.iter().map(|copy| sum(&copy.to_host::<u32>())).collect::<Vec<_>>();
        [vec![sum(first.words()), sum(second.words()), sum(&value.to_host::<u32>())], of_copies].concat()
    }

    #[test]
    #[expect(
        clippy::print_stdout,
        reason = "a skipped test says so, and results are compared across processes"
    )]
    fn streams_wait_for_each_other() {
        if let Err(why) = rlt_cuda_emulator::load() {
            println!("skipped: {why}");
            return;
        }
        let rounding = Some(RandomRounding { counter: 5, keys: [7, 11] });
        if std::env::var_os(INSIDE).is_some() {
            println!("bits {:?}", [None, rounding].map(|rounding| bits(64, rounding)));
            return;
        }
        let expected = format!("{:?}", [None, rounding].map(|rounding| bits(2000, rounding)));
        // Each stream at once, or as late as it may be. Every wait is needed under one of them: the GPU's for what comes and for
        // what goes, theirs for the GPU, and for each other.
        let lateness = ["", "0", "1", "2", "01", "02", "12", "012"];
        let waits = ["0<1", "0<2", "1<0", "2<0", "1<2"];
        waits_are_needed(
            "visits::tests::streams_wait_for_each_other",
            (INSIDE, ""),
            &expected,
            &lateness,
            &waits,
        );
    }
}
