//! Random streams for made rows, shuffled choices and resampling: SplitMix64, keyed by what is being drawn.
//!
//! Row 17 of a data set depends on the seed, the data set's name and the number 17 alone, so the
//! first thousand rows of a large set are the rows of a small one. SplitMix64 (Steele, Lea and
//! Flood, 2014) is a counter: the n-th output is a fixed mix of `key + n * GOLDEN`.

/// The odd constant nearest to 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finalising mix of SplitMix64: a bijection of 64-bit words.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A 64-bit hash of bytes: FNV-1a, then mixed so that every bit depends on every byte.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, &byte| (hash ^ byte as u64).wrapping_mul(0x0100_0000_01B3));
    mix(fnv)
}

/// One stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// The stream of item `index` of `purpose` under `seed`.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        let key = mix(seed.wrapping_add(GOLDEN)) ^ hash_bytes(purpose.as_bytes());
        Self { state: mix(key.wrapping_add(index.wrapping_mul(GOLDEN))) }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// A number in `0..n`; `n` is at least 1. The bias of the multiply-and-shift is below
    /// `n / 2^64`.
    pub fn below(&mut self, n: usize) -> usize {
        debug_assert!(n > 0, "a number below zero was asked for");
        ((self.next_u64() as u128 * n as u128) >> 64) as usize
    }

    /// One of `items`, each as likely as the others.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// One of `items` in proportion to its weight.
    pub fn pick_weighted<T: Copy>(&mut self, items: &[(T, u32)]) -> T {
        let total: u32 = items.iter().map(|(_, weight)| weight).sum();
        let mut ticket = self.below(total as usize) as u32;
        for &(item, weight) in items {
            if ticket < weight {
                return item;
            }
            ticket -= weight;
        }
        unreachable!("the ticket is below the sum of the weights")
    }

    /// Puts `items` into a random order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_every_part_of_their_key() {
        let draw = |seed, purpose, index| Stream::new(seed, purpose, index).next_u64();
        let first = draw(1, "a", 0);
        assert_eq!(first, draw(1, "a", 0));
        assert_ne!(first, draw(2, "a", 0));
        assert_ne!(first, draw(1, "b", 0));
        assert_ne!(first, draw(1, "a", 1));
    }

    #[test]
    fn splitmix64_gives_the_published_outputs() {
        // First outputs for the state 1234567, as listed with the reference C program.
        let mut stream = Stream { state: 1_234_567 };
        assert_eq!(stream.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(stream.next_u64(), 3_203_168_211_198_807_973);
        assert_eq!(stream.next_u64(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn weights_are_kept() {
        let mut stream = Stream::new(3, "weights", 0);
        let n = 20_000;
        let heavy = (0..n).filter(|_| stream.pick_weighted(&[(true, 3), (false, 1)])).count();
        let share = heavy as f64 / n as f64;
        // Four standard errors of a share of 3/4 over 20,000 draws.
        assert!((share - 0.75).abs() < 0.0123, "{share}");
    }

    #[test]
    fn a_shuffle_keeps_its_items() {
        let mut items: Vec<usize> = (0..20).collect();
        Stream::new(5, "shuffle", 0).shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
