//! Counter-based random streams: a number depends on what it is for, never on when it is drawn.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A source of random numbers keyed by a seed and a purpose ("sample", "init", "order").
///
/// Numbers at an index (for example step, question, sample, position) are the same whatever the
/// batch order, the scheduling or the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomStream {
    seed: u64,
    purpose: u64,
}

/// FNV-1a, 64 bits: turns a purpose into a key.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

impl RandomStream {
    /// The stream of `purpose` under `seed`.
    pub fn new(seed: u64, purpose: &str) -> Self {
        Self { seed, purpose: hash(purpose) }
    }

    fn generator(&self, index: [u64; 3]) -> ChaCha8Rng {
        let mut key = [0_u8; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([self.seed, self.purpose, index[0], index[1]]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(index[2]);
        rng
    }

    /// One number in [0, 1) with 53 random bits, at the index `(a, b, c)` and `position`.
    pub fn uniform(&self, index: [u64; 3], position: u64) -> f64 {
        let mut rng = self.generator(index);
        rng.set_word_pos(u128::from(position) * 2);
        (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `n` numbers from a normal distribution (mean 0, standard deviation 1), by Box and Muller.
    pub fn normals(&self, index: [u64; 3], n: usize) -> Vec<f32> {
        let mut rng = self.generator(index);
        let mut unit = || ((rng.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let mut out = Vec::with_capacity(n + 1);
        while out.len() < n {
            let (radius, angle) = ((-2.0 * unit().ln()).sqrt(), std::f64::consts::TAU * unit());
            out.push((radius * angle.cos()) as f32);
            out.push((radius * angle.sin()) as f32);
        }
        out.truncate(n);
        out
    }

    /// The numbers `0..n` in random order.
    pub fn permutation(&self, index: [u64; 3], n: usize) -> Vec<usize> {
        let mut rng = self.generator(index);
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            // The bias of a 64-bit remainder is below n / 2^64.
            order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_their_index_only() {
        let s = RandomStream::new(7, "sample");
        let a = s.uniform([1, 2, 3], 4);
        let _ = s.uniform([9, 9, 9], 9);
        assert_eq!(a.to_bits(), s.uniform([1, 2, 3], 4).to_bits());
        let others = [
            s.uniform([1, 2, 3], 5),
            s.uniform([1, 2, 4], 4),
            s.uniform([1, 3, 3], 4),
            s.uniform([2, 2, 3], 4),
            RandomStream::new(8, "sample").uniform([1, 2, 3], 4),
            RandomStream::new(7, "order").uniform([1, 2, 3], 4),
        ];
        assert!(others.iter().all(|b| *b != a));
    }

    #[test]
    fn distributions_are_what_they_say() {
        let s = RandomStream::new(1, "test");
        let n = 20_000;
        let mean = (0..n).map(|i| s.uniform([0, 0, 0], i)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let z = s.normals([0, 0, 1], n as usize);
        let mean = z.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
        let var = z.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.03, "{mean} {var}");
        let mut p = s.permutation([0, 0, 2], 100);
        assert_ne!(p, (0..100).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..100).collect::<Vec<_>>());
    }
}
