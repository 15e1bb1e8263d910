//! Work that ranks share: whose part is whose, what all agree on, what only the first does.
//!
//! Ranks must meet at every collective. So what may fail on one of them (a file, a number that is not finite, a request to
//! stop) is agreed on before the next one: [`agree`] gives all ranks the error of the first that has one.

mod agreement;
mod holding;
pub(crate) mod wire;

use std::ops::Range;

pub use agreement::{agree, on_first};
pub use holding::Holding;
pub use rlt_ranks::Ranks;
pub(crate) use wire::{Wire, gather, wire_fields};

/// Block `index` of `n` items in order that are cut into `blocks` blocks as evenly as it can be.
pub fn block(index: usize, blocks: usize, n: usize) -> Range<usize> {
    index * n / blocks..(index + 1) * n / blocks
}

/// Which of `n` items in order are this rank's to work on.
pub fn dealt(ranks: &Ranks, n: usize) -> Range<usize> {
    block(ranks.rank(), ranks.size(), n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_dealt_once_in_order_and_evenly() {
        for n in [0, 1, 5, 8, 13] {
            for blocks in 1..=9 {
                let all: Vec<Range<usize>> = (0..blocks).map(|index| block(index, blocks, n)).collect();
                assert!(all.iter().flat_map(Clone::clone).eq(0..n));
                assert!(
                    all.iter().all(|block| block.len() == n / blocks || block.len() == n.div_ceil(blocks))
                );
            }
        }
    }
}
