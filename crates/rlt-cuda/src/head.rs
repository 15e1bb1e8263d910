//! Log-probabilities and divergences from rows of logits (`kernels/head.cu`).

use crate::gpu::Gpu;
use crate::launch::{Arg, Threads, of, size};
use crate::memory::Memory;

impl Gpu {
    /// Of every row of `logits`: the log of the softmax denominator, the log-probability of its target and that of its most likely
    /// token, side by side.
    ///
    /// # Panics
    /// If a target is not in the vocabulary.
    pub fn target_logprobs(&self, logits: &Memory, vocabulary: usize, targets: &[u32], scale: f32) -> Memory {
        let rows = targets.len();
        assert!(
            targets.iter().all(|&target| (target as usize) < vocabulary),
            "a target beyond the vocabulary"
        );
        let (out, targets) = (self.take(3 * rows), self.upload(targets));
        let arguments = vec![
            of(&out, 3 * rows),
            of(logits, rows * vocabulary),
            of(&targets, rows),
            size(vocabulary),
            Arg::Float(scale),
        ];
        self.launch("target_logprobs", Threads::a_block_each(rows), arguments);
        out
    }

    /// Turns logits into the gradients of their targets' log-probabilities, each weighed by one of `weights`; `log_sums`
    /// are the logs of the rows' softmax denominators, as [`Self::target_logprobs`] found them.
    pub fn target_gradients(
        &self,
        logits: &mut Memory,
        vocabulary: usize,
        targets: &[u32],
        log_sums: &[f32],
        weights: &[f32],
        scale: f32,
    ) {
        let rows = targets.len();
        assert!(
            targets.iter().all(|&target| (target as usize) < vocabulary),
            "a target beyond the vocabulary"
        );
        let [log_sums, weights] = [log_sums, weights].map(|numbers| self.upload(numbers));
        let targets = self.upload(targets);
        let arguments = vec![
            of(logits, rows * vocabulary),
            of(&log_sums, rows),
            of(&targets, rows),
            of(&weights, rows),
            size(vocabulary),
            Arg::Float(scale),
        ];
        self.launch("target_gradients", Threads::a_block_each(rows), arguments);
    }

    /// KL(p || q) of every row, each under its scale.
    pub fn divergences(
        &self,
        (p, p_scale): (&Memory, f32),
        (q, q_scale): (&Memory, f32),
        vocabulary: usize,
    ) -> Memory {
        let rows = p.len() / vocabulary;
        let out = self.take(rows);
        let arguments = vec![
            of(&out, rows),
            of(p, rows * vocabulary),
            of(q, rows * vocabulary),
            size(vocabulary),
            Arg::Float(p_scale),
            Arg::Float(q_scale),
        ];
        self.launch("divergences", Threads::a_block_each(rows), arguments);
        out
    }

    /// Turns the logits of p into the gradients of `divergences` KL(p || q), each weighed by one of `weights`.
    pub fn reverse_gradients(
        &self,
        (p, p_scale): (&mut Memory, f32),
        (q, q_scale): (&Memory, f32),
        vocabulary: usize,
        divergences: &[f32],
        weights: &[f32],
    ) {
        let rows = weights.len();
        let (divergences, weights) = (self.upload(divergences), self.upload(weights));
        let arguments = vec![
            of(p, rows * vocabulary),
            of(q, rows * vocabulary),
            of(&divergences, rows),
            of(&weights, rows),
            size(vocabulary),
            Arg::Float(p_scale),
            Arg::Float(q_scale),
        ];
        self.launch("reverse_gradients", Threads::a_block_each(rows), arguments);
    }

    /// The same of KL(q || p).
    pub fn forward_gradients(
        &self,
        (p, p_scale): (&mut Memory, f32),
        (q, q_scale): (&Memory, f32),
        vocabulary: usize,
        weights: &[f32],
    ) {
        let rows = weights.len();
        let weights = self.upload(weights);
        let arguments = vec![
            of(p, rows * vocabulary),
            of(q, rows * vocabulary),
            of(&weights, rows),
            size(vocabulary),
            Arg::Float(p_scale),
            Arg::Float(q_scale),
        ];
        self.launch("forward_gradients", Threads::a_block_each(rows), arguments);
    }
}
