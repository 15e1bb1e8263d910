//! Sums of the gradients of this process's shards.
//!
//! Work goes in rounds, a round in waves. In a wave every process computes a part of at most one lane, and what they hand in
//! is summed over the lanes of the wave; waves are added in pairs, pairs of pairs .. to the sum of their round, and rounds
//! one after another to the total.

use std::ops::Range;

use rlt_engine::Tensor;

/// Sums of gradients of this process's shards.
#[derive(Debug, Default)]
pub struct ShardGradients {
    /// One a slot, 1 x its shard's length.
    totals: Vec<Tensor>,
    /// Waves of the round, or sums of neighbouring ones, the largest first; none where it is the round's only one.
    sums: Vec<Sum>,
    waves_a_round: usize,
    /// The slots of every item.
    items: Vec<Range<usize>>,
    /// What the present wave came to, by item.
    wave: Vec<Option<Vec<Tensor>>>,
}

/// Of so many waves, by item; none of an item that nobody handed in.
#[derive(Debug)]
struct Sum {
    waves: usize,
    items: Vec<Option<Vec<Tensor>>>,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.waves += other.waves;
        for (own, other) in self.items.iter_mut().zip(other.items) {
            match (own.as_mut(), other) {
                (Some(own), Some(other)) => {
                    own.iter_mut().zip(&other).for_each(|(own, other)| own.add(other));
                }
                (None, other) => *own = other,
                (Some(_), None) => {}
            }
        }
    }
}

impl ShardGradients {
    /// Begins again at zero: of these items, by their slots, in rounds of so many waves. `zeros` makes those of a slot.
    pub(super) fn begin(
        &mut self,
        items: Vec<Range<usize>>,
        waves_a_round: usize,
        zeros: impl FnMut(usize) -> Tensor,
    ) {
        if self.totals.is_empty() {
            self.totals = items.iter().flat_map(Clone::clone).map(zeros).collect();
        } else {
            self.totals.iter_mut().for_each(Tensor::fill_zero);
        }
        self.sums.clear();
        self.waves_a_round = waves_a_round;
        self.wave = items.iter().map(|_| None).collect();
        self.items = items;
    }

    /// What [`Self::take`] took since [`Self::begin`], one a slot.
    pub(super) fn totals(&self) -> &[Tensor] {
        &self.totals
    }

    /// Takes the sum of the present wave's gradients of an item's shards.
    pub(super) fn take(&mut self, item: usize, tensors: Vec<Tensor>) {
        if self.waves_a_round != 1 {
            self.wave[item] = Some(tensors);
            return;
        }
        // The only wave of the round: nothing has to wait.
        self.add_to_totals(item, &tensors);
    }

    /// The present wave is complete, and with it perhaps the round.
    pub(super) fn end_wave(&mut self, ends_round: bool) {
        let items = self.wave.iter_mut().map(Option::take).collect();
        self.sums.push(Sum { waves: 1, items });
        while let [.., a, b] = &self.sums[..]
            && (ends_round || a.waves == b.waves)
        {
            let last = self.sums.pop().expect("two of them");
            self.sums.last_mut().expect("one of them").add(last);
        }
        if !ends_round {
            return;
        }
        let round = self.sums.pop().into_iter().flat_map(|round| round.items);
        for (item, tensors) in round.enumerate() {
            self.add_to_totals(item, &tensors.unwrap_or_default());
        }
    }

    fn add_to_totals(&mut self, item: usize, tensors: &[Tensor]) {
        for (index, tensor) in self.items[item].clone().zip(tensors) {
            self.totals[index].add(tensor);
        }
    }
}
