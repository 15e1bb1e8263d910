//! How a batch's gradient is summed: in lanes, whose partial sums are added up in a fixed tree.
//!
//! Rounding makes a sum depend on its order. So the order is a matter of the data and of one setting: the groups of a batch go
//! to K lanes by their place in it, each lane's gradient starts from zero, and lanes are added in pairs, pairs of pairs ..: lane
//! `i` takes `i + 1`, then `i + 2`, `i + 4` .. Ranks that share the lanes in equal blocks of 1, 2, 4 .. have whole subtrees of
//! that tree each, so that the number of ranks changes no bit.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rlt_model::shared::SharedParameters;
use rlt_model::{Decoder, Gradients};
use rlt_ranks::{Ranks, fold_in_pairs, lanes_of};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ranks::{Wire, agree, block, gather};

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
    dealing: Dealing,
}

/// Which lanes are whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dealing {
    /// Neighbouring lanes: a rank sums its own before ranks are summed.
    Blocks,
    /// One lane a rank and wave: what ranks hand in is summed at once.
    Waves,
}

impl From<Lanes> for SharedLanes {
    /// All lanes on one rank.
    fn from(lanes: Lanes) -> Self {
        Self { lanes, ranks: Ranks::alone(), dealing: Dealing::Blocks }
    }
}

impl SharedLanes {
    /// Lanes that these ranks can share, as [`Lanes::choose`] makes sure.
    ///
    /// # Panics
    /// If they cannot.
    pub fn new(lanes: Lanes, ranks: &Ranks) -> Self {
        assert!(lanes_of(0, ranks.size(), lanes.count()).is_some(), "lanes that ranks can share");
        Self { lanes, ranks: ranks.clone(), dealing: Dealing::Blocks }
    }

    /// As they are dealt for the training of `decoder`: in waves where it changes weights that ranks share.
    ///
    /// # Errors
    /// [`Error::Usage`] where the waves of so many ranks are no subtrees.
    pub fn of(self, decoder: &Decoder) -> Result<Self> {
        let (lanes, ranks) = (self.count(), self.ranks.size());
        if trained_shares(decoder).is_none() {
            return Ok(self);
        }
        if ranks.is_power_of_two() || ranks == lanes {
            return Ok(Self { dealing: Dealing::Waves, ..self });
        }
        Err(Error::Usage(format!(
            "the run has {lanes} lanes, and {ranks} ranks cannot share them with memory.weights=sharded: start it on 1, 2, 4, \
             8 .. ranks, or on {lanes}"
        )))
    }

    /// How many there are in all.
    pub fn count(&self) -> usize {
        self.lanes.count()
    }

    /// How many each rank has.
    pub fn n_own(&self) -> usize {
        self.count() / self.ranks.size()
    }

    /// Those of this rank.
    pub fn own(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, ranks, n_own) = (self.ranks.rank(), self.ranks.size(), self.n_own());
        let dealing = self.dealing;
        (0..n_own).map(move |index| match dealing {
            Dealing::Blocks => rank * n_own + index,
            Dealing::Waves => index * ranks + rank,
        })
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
        if self.dealing == Dealing::Waves {
            of_lanes = by_wave(of_lanes, self.ranks.size());
        }
        fold_in_pairs(&mut of_lanes, add);
        Ok(of_lanes.swap_remove(0))
    }
}

/// The parts of ranks, rank after rank, wave by wave.
fn by_wave<T>(of_ranks: Vec<T>, ranks: usize) -> Vec<T> {
    let waves = of_ranks.len() / ranks;
    let mut placed: Vec<(usize, T)> =
        of_ranks.into_iter().enumerate().map(|(i, part)| (i % waves * ranks + i / waves, part)).collect();
    placed.sort_by_key(|(lane, _)| *lane);
    placed.into_iter().map(|(_, part)| part).collect()
}

/// The shares that training changes, where ranks share what it changes.
pub(crate) fn trained_shares(decoder: &Decoder) -> Option<&Arc<SharedParameters>> {
    decoder.shared().filter(|_| decoder.adapter().is_none())
}

/// What the lanes of a batch compute.
pub trait LaneWork {
    /// What a lane comes to besides its gradient.
    type Sum: Default;

    /// How many micro-batches a lane has.
    fn n_parts(&self, lane: usize) -> usize;

    /// Adds the gradient of micro-batch `part` of a lane to `gradients`, and what else it came to to `sum`. A lane's parts are
    /// asked for in their order.
    ///
    /// # Errors
    /// A number that is not finite, or that it was asked to stop; the gradient is incomplete then.
    fn add_part(
        &self,
        lane: usize,
        part: usize,
        gradients: &mut Gradients,
        sum: &mut Self::Sum,
    ) -> Result<()>;
}

/// Where the gradients of lanes are summed.
///
/// Weights that are whole on every rank: each lane's micro-batches one after another into a buffer of its own, lanes in their
/// tree. What is complete is added up at once, so that no more buffers are held than the tree has levels; ranks are added
/// by the optimizer.
///
/// Weights that ranks share ([`rlt_model::shared`]): lanes in their tree for one micro-batch of each, and these sums one after
/// another, since nobody has the memory for a whole lane's. It is the same sum in another order.
#[derive(Debug)]
pub struct GradientSum(Summed);

#[derive(Debug)]
enum Summed {
    /// Sums of neighbouring subtrees, the largest first.
    Whole(Vec<Gradients>),
    /// Shares of the sum, and what passes hand in.
    Shares(Arc<SharedParameters>, Box<Gradients>),
}

impl GradientSum {
    /// A sum of what is trained of `decoder`, of at most `n_lanes` lanes on this rank.
    pub fn new(decoder: &Decoder, n_lanes: usize) -> Self {
        if let Some(shared) = trained_shares(decoder) {
            shared.begin_gradient(n_lanes);
            return Self(Summed::Shares(shared.clone(), Gradients::zeros(decoder).into()));
        }
        // Of the lanes before it, a lane finds a complete subtree for every one in its number's binary digits.
        let levels = (0..n_lanes).map(|lane| lane.count_ones() as usize + 1).max().unwrap_or(1);
        Self(Summed::Whole((0..levels).map(|_| Gradients::zeros(decoder)).collect()))
    }

    /// Sums the gradients of this rank's lanes, and those of the others where ranks share weights; what each of its lanes came
    /// to besides. A lane without a gradient counts as zeros.
    ///
    /// # Panics
    /// If there are more lanes than it was made for.
    ///
    /// # Errors
    /// On all ranks that of the first which has one; the sum is incomplete then.
    pub fn of_lanes<W: LaneWork>(&mut self, lanes: &SharedLanes, work: &W) -> Result<Vec<W::Sum>> {
        match &mut self.0 {
            Summed::Whole(buffers) => agree(lanes.ranks(), whole_lanes(buffers, lanes.own(), work)),
            Summed::Shares(shared, passing) => lanes_in_waves(shared, passing, lanes, work),
        }
    }

    /// What [`Self::of_lanes`] came to.
    pub fn total(&self) -> &Gradients {
        match &self.0 {
            Summed::Whole(buffers) => &buffers[0],
            Summed::Shares(_, passing) => passing,
        }
    }
}

fn whole_lanes<W: LaneWork>(
    buffers: &mut [Gradients],
    lanes: impl Iterator<Item = usize>,
    work: &W,
) -> Result<Vec<W::Sum>> {
    // The number of lanes in each buffer's subtree.
    let mut sizes: Vec<usize> = Vec::new();
    let mut sums = Vec::new();
    for lane in lanes {
        let buffer = &mut buffers[sizes.len()];
        buffer.fill_zero();
        let mut sum = W::Sum::default();
        (0..work.n_parts(lane)).try_for_each(|part| work.add_part(lane, part, buffer, &mut sum))?;
        sums.push(sum);
        sizes.push(1);
        while let [.., a, b] = sizes[..]
            && a == b
        {
            add_last(buffers, &mut sizes);
        }
    }
    while sizes.len() > 1 {
        add_last(buffers, &mut sizes);
    }
    Ok(sums)
}

/// Adds the last subtree's sum to the one before it.
fn add_last(buffers: &mut [Gradients], sizes: &mut Vec<usize>) {
    let last = sizes.len() - 1;
    let (before, after) = buffers.split_at_mut(last);
    before[last - 1].add(&after[0]);
    sizes[last - 1] += sizes[last];
    sizes.pop();
}

/// A round is one micro-batch of every lane, a wave one of a rank's in each: all ranks go through a wave together, whether they
/// have work in it or not.
fn lanes_in_waves<W: LaneWork>(
    shared: &SharedParameters,
    passing: &mut Gradients,
    lanes: &SharedLanes,
    work: &W,
) -> Result<Vec<W::Sum>> {
    let rounds = (0..lanes.count()).map(|lane| work.n_parts(lane)).max().unwrap_or(0);
    let own: Vec<usize> = lanes.own().collect();
    let mut sums: Vec<W::Sum> = own.iter().map(|_| W::Sum::default()).collect();
    shared.begin_gradient(own.len());
    for round in 0..rounds {
        for (wave, (&lane, sum)) in own.iter().zip(&mut sums).enumerate() {
            passing.fill_zero();
            let has_part = round < work.n_parts(lane);
            let done = if has_part { work.add_part(lane, round, passing, sum) } else { Ok(()) };
            // Nobody leaves a wave before all are through with it.
            agree(lanes.ranks(), done)?;
            shared.end_wave(wave + 1 == own.len());
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::run::tests::tiny_model;

    /// Lanes of two parts: the gradient of the first is a number of the lane everywhere, the second's is none.
    struct Constant<F>(F);

    impl<F: Fn(usize) -> f32> LaneWork for Constant<F> {
        type Sum = usize;

        fn n_parts(&self, _lane: usize) -> usize {
            2
        }

        fn add_part(
            &self,
            lane: usize,
            part: usize,
            gradients: &mut Gradients,
            sum: &mut usize,
        ) -> Result<()> {
            *sum = lane;
            for tensor in gradients.tensors_mut().into_iter().filter(|_| part == 0) {
                assert!(tensor.to_host().iter().all(|&x| x == 0.0));
                tensor.add(&rlt_engine::Tensor::full(tensor.rows(), tensor.cols(), (self.0)(lane)));
            }
            Ok(())
        }
    }

    #[test]
    fn what_ranks_came_to_wave_by_wave_is_put_in_the_order_of_lanes() {
        assert_eq!(by_wave(vec![0, 2, 4, 1, 3, 5], 2), [0, 1, 2, 3, 4, 5]);
        assert_eq!(by_wave(vec![0, 1, 2], 1), [0, 1, 2]);
    }

    #[test]
    fn gradients_are_summed_in_the_tree() {
        let decoder = tiny_model(1);
        let value = |lane: usize| 1.0 + 0.37 * (lane as f32).powi(7);
        for (lanes, n_buffers) in [(0..1, 1), (0..8, 4), (0..6, 3), (4..8, 3), (0..3, 2)] {
            let mut sum = GradientSum::new(&decoder, lanes.len());
            let Summed::Whole(buffers) = &mut sum.0 else { panic!("whole weights") };
            assert_eq!(
                whole_lanes(buffers, lanes.clone(), &Constant(value)).unwrap(),
                lanes.clone().collect::<Vec<_>>()
            );
            assert_eq!(buffers.len(), n_buffers);
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
