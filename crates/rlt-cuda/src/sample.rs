//! The next token of every sequence (`kernels/sample.cu`).

use crate::gpu::Gpu;
use crate::launch::{Arg, Threads, of, size};
use crate::memory::Memory;

/// Threads that share a row: a warp goes through the run of the vocabulary that holds the token alone.
const THREADS_A_ROW: u32 = 1024;

/// Numbers up to which the kernels count tokens without rounding.
const MOST_TOKENS: usize = 1 << 24;

impl Gpu {
    /// A token of every row of `logits` with its log-probability: drawn with the row's number of `uniforms`, each in
    /// [0, 1), from the whole vocabulary at `temperature`.
    ///
    /// # Panics
    /// If there are fewer rows than numbers.
    pub fn draw_tokens(
        &self,
        logits: &Memory,
        vocabulary: usize,
        uniforms: &[f64],
        temperature: f32,
    ) -> Vec<(u32, f32)> {
        let rows = uniforms.len();
        let words = uniforms.iter().flat_map(|number| {
            let bits = number.to_bits();
            [bits as u32, (bits >> 32) as u32]
        });
        let (out, uniforms) = (self.take(2 * rows), self.upload(&words.collect::<Vec<_>>()));
        let arguments = vec![
            of(&out, 2 * rows),
            of(logits, rows * vocabulary),
            of(&uniforms, 2 * rows),
            size(vocabulary),
            Arg::Float(1.0 / temperature),
        ];
        let shared_bytes = THREADS_A_ROW / 32 * 8;
        self.launch(
            "draw_tokens",
            Threads { grid: (rows, 1), block: THREADS_A_ROW, shared_bytes },
            arguments,
        );
        told(&out)
    }

    /// The most likely token of each of `rows` rows of `logits` (the first of equals), with its log-probability at
    /// temperature 1.
    ///
    /// # Panics
    /// If there are fewer rows, or more tokens than 16 million.
    pub fn most_likely_tokens(&self, logits: &Memory, vocabulary: usize, rows: usize) -> Vec<(u32, f32)> {
        assert!(vocabulary <= MOST_TOKENS, "a vocabulary of {vocabulary} tokens");
        let out = self.take(2 * rows);
        let arguments = vec![of(&out, 2 * rows), of(logits, rows * vocabulary), size(vocabulary)];
        self.launch("most_likely_tokens", Threads::a_block_each(rows), arguments);
        told(&out)
    }
}

/// Tokens and log-probabilities, side by side.
fn told(out: &Memory) -> Vec<(u32, f32)> {
    let words = out.to_host::<u32>();
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().map(|&[token, logprob]| (token, f32::from_bits(logprob))).collect()
}
