//! How a batch's gradient is summed: in lanes, whose partial sums are added up in a fixed tree.
//!
//! Rounding makes a sum depend on its order. So the order is a matter of the data and of one setting: the groups of a batch go
//! to K lanes by their place in it, each lane's gradient starts from zero, and lanes are added in pairs, pairs of pairs ..: lane
//! `i` takes `i + 1`, then `i + 2`, `i + 4` .. Ranks that share the lanes in equal blocks of 1, 2, 4 .. have whole subtrees of
//! that tree each, so that the number of ranks changes no bit.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;

use rlt_model::{Decoder, Gradients};
use rlt_ranks::{Ranks, fold_in_pairs, lanes_of};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ranks::{Wire, block, gather};

/// The number of lanes of a run (`train.lanes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lanes(NonZeroUsize);

impl Default for Lanes {
    /// One: what runs had before there were lanes.
    fn default() -> Self {
        Self(NonZeroUsize::MIN)
    }
}

impl Lanes {
    /// `n` lanes; one where that is 0.
    pub fn new(n: usize) -> Self {
        NonZeroUsize::new(n).map_or_else(Self::default, Self)
    }

    /// The lanes of a run on `ranks` ranks: those of its checkpoint in the folder `from`, else those that are `asked` for,
    /// else one a rank.
    ///
    /// # Errors
    /// [`Error::Usage`] where the checkpoint has others than are asked for, or the ranks cannot share them.
    pub fn choose(asked: Option<usize>, from: Option<(Self, &Path)>, ranks: usize) -> Result<Self> {
        let lanes = match (asked.map(Self::new), from) {
            (Some(asked), Some((lanes, checkpoint))) if asked != lanes => {
                return Err(Error::Usage(format!(
                    "{}: belongs to a run of train.lanes={}, not {}; leave train.lanes out, or give this run another \
                     name or run_dir",
                    checkpoint.display(),
                    lanes.count(),
                    asked.count()
                )));
            }
            (_, Some((lanes, _))) => lanes,
            (Some(asked), None) => asked,
            (None, None) => Self::new(ranks),
        };
        let n = lanes.count();
        if lanes_of(0, ranks, n).is_none() {
            let of = if from.is_some() { "the run has" } else { "train.lanes is" };
            return Err(Error::Usage(format!(
                "{of} {n}, and {ranks} ranks cannot share so many lanes: each takes 1, 2, 4, 8 .. of them; start it on \
                 another number of ranks"
            )));
        }
        Ok(lanes)
    }

    /// How many.
    pub fn count(self) -> usize {
        self.0.get()
    }
}

/// The lanes of a run, and the ranks that share them.
#[derive(Debug, Clone)]
pub struct SharedLanes {
    lanes: Lanes,
    ranks: Ranks,
    own: Range<usize>,
}

impl From<Lanes> for SharedLanes {
    /// All lanes on one rank.
    fn from(lanes: Lanes) -> Self {
        Self { lanes, ranks: Ranks::alone(), own: 0..lanes.count() }
    }
}

impl SharedLanes {
    /// Lanes that these ranks can share, as [`Lanes::choose`] makes sure.
    ///
    /// # Panics
    /// If they cannot.
    pub fn new(lanes: Lanes, ranks: &Ranks) -> Self {
        let own = lanes_of(ranks.rank(), ranks.size(), lanes.count()).expect("lanes that ranks can share");
        Self { lanes, ranks: ranks.clone(), own }
    }

    /// How many there are in all.
    pub fn count(&self) -> usize {
        self.lanes.count()
    }

    /// Those of this rank.
    pub fn own(&self) -> Range<usize> {
        self.own.clone()
    }

    /// Which of `n` items in order belong to `lane`: blocks of equal size, but for one item.
    pub fn part(&self, lane: usize, n: usize) -> Range<usize> {
        block(lane, self.count(), n)
    }

    /// Who shares them.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// The sum, in the lanes' tree, of what the lanes of all ranks came to; `own` is what this rank's did.
    ///
    /// # Errors
    /// As [`gather`].
    pub(crate) fn fold<T: Wire>(&self, own: Vec<T>, add: impl FnMut(&mut T, &T)) -> Result<T> {
        let mut of_lanes = gather(&self.ranks, own)?;
        fold_in_pairs(&mut of_lanes, add);
        Ok(of_lanes.swap_remove(0))
    }
}

/// Where the gradients of lanes are summed, in their tree. What is complete is added up at once, so that no more
/// buffers are held than the tree has levels.
#[derive(Debug)]
pub struct GradientSum {
    /// Sums of neighbouring subtrees, the largest first.
    buffers: Vec<Gradients>,
}

impl GradientSum {
    /// A sum of what is trained of `decoder`, of at most `n_lanes` lanes.
    pub fn new(decoder: &Decoder, n_lanes: usize) -> Self {
        // Of the lanes before it, a lane finds a complete subtree for every one in its number's binary digits.
        let levels = (0..n_lanes).map(|lane| lane.count_ones() as usize + 1).max().unwrap_or(1);
        Self { buffers: (0..levels).map(|_| Gradients::zeros(decoder)).collect() }
    }

    /// The sum over `lanes` of the gradients that `add` adds to zeros, and what it returns for each. A lane without a
    /// gradient counts as zeros.
    ///
    /// # Panics
    /// If there are more lanes than it was made for.
    ///
    /// # Errors
    /// The first of `add`; the sum is incomplete then.
    pub fn of_lanes<T>(
        &mut self,
        lanes: Range<usize>,
        mut add: impl FnMut(usize, &mut Gradients) -> Result<T>,
    ) -> Result<Vec<T>> {
        // The number of lanes in each buffer's subtree.
        let mut sizes: Vec<usize> = Vec::new();
        let mut returned = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let free = sizes.len();
            self.buffers[free].fill_zero();
            returned.push(add(lane, &mut self.buffers[free])?);
            sizes.push(1);
            while let [.., a, b] = sizes[..]
                && a == b
            {
                self.add_last(&mut sizes);
            }
        }
        while sizes.len() > 1 {
            self.add_last(&mut sizes);
        }
        Ok(returned)
    }

    /// Adds the last subtree's sum to the one before it.
    fn add_last(&mut self, sizes: &mut Vec<usize>) {
        let last = sizes.len() - 1;
        let (before, after) = self.buffers.split_at_mut(last);
        before[last - 1].add(&after[0]);
        sizes[last - 1] += sizes[last];
        sizes.pop();
    }

    /// What [`Self::of_lanes`] came to.
    pub fn total(&self) -> &Gradients {
        &self.buffers[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::run::tests::tiny_model;

    #[test]
    fn gradients_are_summed_in_the_tree() {
        let decoder = tiny_model(1);
        let value = |lane: usize| 1.0 + 0.37 * (lane as f32).powi(7);
        for (lanes, n_buffers) in [(0..1, 1), (0..8, 4), (0..6, 3), (4..8, 3), (0..3, 2)] {
            let mut sum = GradientSum::new(&decoder, lanes.len());
            let lane = |lane: usize, gradients: &mut Gradients| {
                for tensor in gradients.tensors_mut() {
                    assert!(tensor.to_host().iter().all(|&x| x == 0.0));
                    tensor.add(&rlt_engine::Tensor::full(tensor.rows(), tensor.cols(), value(lane)));
                }
                Ok(lane)
            };
            assert!(sum.of_lanes(lanes.clone(), lane).unwrap().into_iter().eq(lanes.clone()));
            assert_eq!(sum.buffers.len(), n_buffers);
            let mut values: Vec<f32> = lanes.map(value).collect();
            fold_in_pairs(&mut values, |a, b| *a += b);
            let expected = values[0];
            for tensor in sum.total().tensors() {
                assert!(tensor.to_host().iter().all(|&x| x == expected));
            }
        }
    }

    #[test]
    fn ranks_share_lanes_in_powers_of_two_and_a_checkpoint_keeps_its_own() {
        let choose = |asked, recorded: Option<usize>, ranks| {
            let recorded = recorded.map(|lanes| (Lanes::new(lanes), Path::new("step-000002")));
            Lanes::choose(asked, recorded, ranks).map(Lanes::count).map_err(|error| error.to_string())
        };
        assert_eq!(choose(None, None, 1), Ok(1));
        assert_eq!(choose(None, None, 3), Ok(3));
        assert_eq!(choose(Some(8), None, 2), Ok(8));
        assert_eq!(choose(Some(6), None, 1), Ok(6));
        assert_eq!(choose(None, Some(4), 1), Ok(4));
        assert_eq!(choose(Some(4), Some(4), 2), Ok(4));
        let refused = |asked, recorded, ranks| choose(asked, recorded, ranks).unwrap_err();
        assert!(refused(Some(6), None, 4).starts_with("train.lanes is 6, and 4 ranks cannot share"));
        assert!(refused(Some(6), None, 1 << 20).starts_with("train.lanes is 6, and"));
        assert!(refused(Some(12), None, 2).ends_with("start it on another number of ranks"));
        assert!(refused(None, Some(1), 2).starts_with("the run has 1, and 2 ranks"));
        let message = refused(Some(8), Some(4), 4);
        assert!(message.starts_with("step-000002: belongs to a run of train.lanes=4, not 8;"), "{message}");
    }
}
