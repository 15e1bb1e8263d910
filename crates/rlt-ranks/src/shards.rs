//! The collectives of arrays that are cut into shards, one a rank: summed into them, and gathered from them.

use std::ops::Range;
use std::sync::PoisonError;

use crate::error::Result;
use crate::fold::sum_in_pairs;
use crate::ranks::{Ranks, others};
use crate::transport::{AHEAD, Inflow, Kind};

/// Numbers of a piece, the same on every rank: with fewer, what a message costs shows; with more, pieces leave the
/// processor's caches before they are summed.
const PIECE: usize = 64 << 10;

impl Ranks {
    /// The sum over ranks of this rank's part of `full`: shard `r` belongs to rank `r`, and shards lie one after another
    /// and cover `full`, which is as long on every rank. The sum is folded in pairs of ranks ([`crate::fold_in_pairs`]).
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub fn reduce_shards(&self, full: &[f32], shards: &[Range<usize>]) -> Result<Vec<f32>> {
        self.check_shards(full.len(), shards);
        let mut sum = vec![0.0; shards[self.rank()].len()];
        self.reduce_shards_into(full, shards, &mut sum)?;
        Ok(sum)
    }

    /// As [`Self::reduce_shards`], into memory that is there, as long as this rank's shard.
    ///
    /// # Panics
    /// If it is not.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub fn reduce_shards_into(&self, full: &[f32], shards: &[Range<usize>], into: &mut [f32]) -> Result<()> {
        self.check_shards(full.len(), shards);
        let rank = self.rank();
        let own = &full[shards[rank].clone()];
        assert_eq!(into.len(), own.len(), "a sum is as long as its shard");
        let Some(transport) = self.transport().filter(|_| self.size() > 1) else {
            into.copy_from_slice(own);
            return Ok(());
        };
        let from: Vec<usize> = others(transport).collect();
        let outgoing = from.iter().map(|&to| (to, &full[shards[to].clone()]));
        let outgoing: Vec<(usize, &[f32])> = outgoing.filter(|(_, part)| !part.is_empty()).collect();
        // A short array needs no more than itself.
        let piece = PIECE.min(full.len().max(1));
        let mut room = self.room().lock().unwrap_or_else(PoisonError::into_inner);
        let needed = AHEAD * from.len() * piece;
        if room.len() < needed {
            room.resize(needed, 0.0);
        }
        let mut take = |range: Range<usize>, theirs: &[&[f32]]| {
            let mut parts = Vec::with_capacity(theirs.len() + 1);
            parts.extend_from_slice(&theirs[..rank]);
            parts.push(&own[range.clone()]);
            parts.extend_from_slice(&theirs[rank..]);
            sum_in_pairs(&parts, &mut into[range]);
        };
        let mut inflow = Inflow { from: &from, len: own.len(), piece, room: &mut room, take: &mut take };
        self.attend()?;
        self.timed(Kind::ReduceShards, &vec![full.len() as u64; self.size()], |call, _| {
            transport.stream(call, &outgoing, &mut inflow)
        })
    }

    /// Fills `full` from the shards of all ranks, of which this rank's lies in its place; see [`Self::reduce_shards`].
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub fn gather_shards(&self, full: &mut [f32], shards: &[Range<usize>]) -> Result<()> {
        self.check_shards(full.len(), shards);
        let Some(transport) = self.transport() else { return Ok(()) };
        let length = full.len() as u64;
        let (mut own, mut incoming): (&[f32], Vec<(usize, &mut [u8])>) = (&[], Vec::new());
        let mut rest = full;
        for (from, shard) in shards.iter().enumerate() {
            let (part, after) = rest.split_at_mut(shard.len());
            rest = after;
            if from == transport.rank() {
                own = part;
            } else if !part.is_empty() {
                incoming.push((from, bytemuck::cast_slice_mut(part)));
            }
        }
        let own: &[u8] = bytemuck::cast_slice(own);
        let outgoing: Vec<(usize, &[u8])> =
            others(transport).map(|to| (to, own)).filter(|(_, own)| !own.is_empty()).collect();
        self.attend()?;
        self.timed(Kind::GatherShards, &vec![length; self.size()], |call, _| {
            transport.exchange(call, &outgoing, &mut incoming)
        })
    }

    fn check_shards(&self, len: usize, shards: &[Range<usize>]) {
        let mut end = 0;
        for shard in shards {
            assert_eq!(shard.start, end, "shards lie one after another");
            end = shard.end;
        }
        assert_eq!((end, shards.len()), (len, self.size()), "shards cover all, one a rank");
    }
}
