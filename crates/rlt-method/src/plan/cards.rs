//! NVIDIA cards by their published peaks, and the least time that work takes on one.
//!
//! A bound and not a forecast: every operation at the peak of what limits it, multiplications or memory, and nothing between them.
//! No card has run any of it.

use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::sizes::{Operation, Work};

/// A card. Peaks are those of its maker, without sparsity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card {
    /// What it is called.
    pub name: &'static str,
    /// Of products of bf16 factors with sums in f32, by tensor cores; floating-point operations a second, two a multiply-add.
    pub bf16_flops: f64,
    /// In f32, without tensor cores.
    pub f32_flops: f64,
    /// Of its memory, bytes a second.
    pub bandwidth: f64,
}

/// Cards that runs are planned for.
pub const CARDS: [Card; 4] = [
    // NVIDIA A100 Tensor Core GPU datasheet, the SXM form with 80 GB.
    Card { name: "A100 80GB", bf16_flops: 312e12, f32_flops: 19.5e12, bandwidth: 2.039e12 },
    // NVIDIA H100 Tensor Core GPU datasheet and architecture paper, the SXM5 form.
    Card { name: "H100", bf16_flops: 989.4e12, f32_flops: 66.9e12, bandwidth: 3.35e12 },
    // NVIDIA H200 Tensor Core GPU datasheet, the SXM form: an H100's processors with other memory.
    Card { name: "H200", bf16_flops: 989.4e12, f32_flops: 66.9e12, bandwidth: 4.8e12 },
    // NVIDIA Ada GPU architecture paper, appendix A: GeForce RTX 4090, with sums in f32.
    Card { name: "RTX 4090", bf16_flops: 165.2e12, f32_flops: 82.6e12, bandwidth: 1.008e12 },
];

impl Card {
    /// Seconds that `work` takes at least, with products in `arithmetic`.
    pub fn bound_s(&self, work: &[(Operation, Work)], arithmetic: Arithmetic) -> f64 {
        work.iter().map(|(operation, work)| self.bound_of(*operation, work, arithmetic)).sum()
    }

    fn bound_of(&self, operation: Operation, work: &Work, arithmetic: Arithmetic) -> f64 {
        let flops = match (operation, arithmetic) {
            // It is not this card that sends.
            (Operation::Sending, _) => return 0.0,
            (Operation::Rows, _) | (_, Arithmetic::F32) => self.f32_flops,
            (_, Arithmetic::Bf16) => self.bf16_flops,
        };
        (2.0 * work.multiply_adds / flops).max(work.bytes / self.bandwidth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_multiplications_and_memory_bounds_each_kind() {
        let card = Card { name: "a card", bf16_flops: 100.0, f32_flops: 10.0, bandwidth: 5.0 };
        let work = |multiply_adds, bytes| Work { calls: 1, multiply_adds, bytes };
        let all = [
            (Operation::Product, work(200.0, 10.0)),
            (Operation::FewRows, work(10.0, 50.0)),
            (Operation::Sending, work(0.0, 1e9)),
        ];
        assert_eq!(card.bound_s(&all, Arithmetic::Bf16), 4.0 + 10.0);
        assert_eq!(card.bound_s(&all, Arithmetic::F32), 40.0 + 10.0);
    }
}
