//! What one of several ranks has of a run, and what it sends the others.

use rlt_ranks::lanes_of;

use super::record::Named;
use crate::config::{Config, HeldWeights};
use crate::error::Result;
use crate::ranks::{Holding, block};
use crate::training::Lanes;

/// A completion's token on its way to another rank, bytes: its id and log-probability.
const COMPLETION_BYTES: usize = 8;

/// What a student said of it besides: the id again, both models' log-probabilities, and D_j.
const SCORED_BYTES: usize = 16;

/// The share of the rank that has most to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    /// How many ranks there are.
    pub ranks: usize,
    /// Lanes of each.
    own_lanes: usize,
}

impl Share {
    /// Of a run of `config` on `ranks` ranks.
    ///
    /// # Errors
    /// As [`Lanes::choose`].
    pub fn of(config: &Config, ranks: usize) -> Result<Self> {
        let lanes = Lanes::choose(config.train.lanes, None, ranks)?.count();
        Ok(Self { ranks, own_lanes: lanes_of(0, ranks, lanes).map_or(lanes, |own| own.len()) })
    }

    /// The lanes of one rank, as if there were no others.
    pub fn lanes(self) -> Lanes {
        Lanes::new(self.own_lanes)
    }

    /// How the rank holds the models of a run of `config`.
    pub fn holding(self, config: &Config) -> Holding {
        match config.memory.weights {
            HeldWeights::Whole => Holding::Whole,
            HeldWeights::Sharded => Holding::Planned(self.ranks),
        }
    }

    /// How it holds those that are only read to score with them.
    pub fn holding_of_frozen(self, config: &Config) -> Holding {
        match self.holding(config) {
            Holding::Whole if config.memory.offload.of_frozen() => Holding::Offloaded,
            other => other,
        }
    }

    /// The heaviest of the blocks in which items are dealt.
    pub fn heaviest<T>(self, items: &[T], weight: impl Fn(&T) -> usize) -> &[T] {
        let blocks = (0..self.ranks).map(|rank| &items[block(rank, self.ranks, items.len())]);
        blocks.max_by_key(|items| items.iter().map(&weight).sum::<usize>()).unwrap_or(&[])
    }

    /// Bytes that a rank sends in a step: of the gradients and the weights of `trained` numbers in each of `updates`, and of
    /// `tokens` tokens of completions, which others hear of, `scored` where a student has.
    pub fn sent(self, trained: usize, updates: usize, tokens: usize, scored: bool) -> Vec<Named<u64>> {
        let others = self.ranks as u64 - 1;
        // What is not its own goes out as a gradient; what is, to every other as weights.
        let of_update = 4 * trained as u64 * others / self.ranks as u64;
        let of_token = COMPLETION_BYTES + if scored { SCORED_BYTES } else { 0 };
        let all = [
            ("gradients", updates as u64 * of_update),
            ("weights", updates as u64 * of_update),
            ("completions", others * (tokens * of_token) as u64),
        ];
        all.into_iter().filter(|(_, bytes)| *bytes > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_block_and_what_is_sent() {
        let mut config = Config::default();
        config.train.lanes = Some(8);
        let share = Share::of(&config, 4).unwrap();
        assert_eq!(share.lanes().count(), 2);
        assert_eq!(share.heaviest(&[1, 2, 9, 1, 4, 4, 0], |&weight| weight), [2, 9]);
        // A million numbers on four ranks: three quarters leave as gradients, a quarter goes to three others.
        let sent = share.sent(1_000_000, 2, 10, true);
        assert_eq!(sent, [("gradients", 6_000_000), ("weights", 6_000_000), ("completions", 720)]);
        let alone = Share::of(&config, 1).unwrap();
        assert_eq!((alone.lanes().count(), alone.sent(1_000_000, 1, 10, true)), (8, vec![]));
        assert!(Share::of(&config, 3).is_err());
    }
}
