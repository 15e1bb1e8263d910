//! The way of gradients: from a pass to the processes whose shards they are of, and there into their sums.

use rlt_engine::Tensor;

use super::layout::Piece;
use super::weights::SharedParameters;
use crate::parameters::BlockParameters;

impl SharedParameters {
    /// Begins a gradient of zeros, of rounds of so many waves.
    pub fn begin_gradient(&self, waves_a_round: usize) {
        let zeros = |index| Tensor::zeros_on(self.device(), 1, self.own_len(index));
        let items = (0..self.n_items()).map(|item| self.slots_of(item)).collect();
        self.gradients().begin(items, waves_a_round, zeros);
    }

    /// The present wave is complete, and with it perhaps the round.
    pub fn end_wave(&self, ends_round: bool) {
        self.gradients().end_wave(ends_round);
    }

    /// Takes the sum, over the lanes of the present wave, of an item's gradients of this process's shards: shard after shard.
    ///
    /// # Panics
    /// When it has not as many numbers.
    pub fn take(&self, item: usize, sum: &[f32]) {
        let mut rest = sum;
        let shard = |index: usize| {
            let (own, after) = rest.split_at(self.own_len(index));
            rest = after;
            Tensor::made_on(self.device(), 1, own.len(), || own.to_vec())
        };
        let tensors: Vec<Tensor> = self.slots_of(item).map(shard).collect();
        self.gradients().take(item, tensors);
    }

    /// Bytes of the numbers that an item's share has, at four each: what is summed for it from one process.
    pub fn share_bytes(&self, item: usize) -> usize {
        4 * self.slots_of(item).map(|index| self.own_len(index)).sum::<usize>()
    }

    /// Hands in the gradients of a piece's tensors, in the order of its slots.
    pub(crate) fn hand_in(&self, piece: Piece, tensors: &[&Tensor]) {
        let item = self.item(piece);
        let ranks = self.share().ranks;
        let bytes = self.share_bytes(item) as u64;
        // All parts on their way out, and everyone's of this process's shard, with their sum.
        let _parts = self.device().hold(if ranks == 1 { 0 } else { (2 * ranks as u64 + 1) * bytes });
        let whole: usize = tensors.iter().map(|tensor| 4 * tensor.len()).sum();
        self.device().sends(whole - bytes as usize);
        let Some(carrier) = self.carrier() else {
            // No others: whoever computes nothing has shards of sizes.
            let own = self.slots_of(item).zip(tensors).map(|(index, tensor)| {
                let shard = self.shards_of(index)[self.share().rank].clone();
                Tensor::made_on(self.device(), 1, shard.len(), || tensor.to_host()[shard].to_vec())
            });
            let own = own.collect();
            return self.gradients().take(item, own);
        };
        let hosts: Vec<_> = tensors.iter().map(|tensor| tensor.to_host()).collect();
        let part = |rank: usize| -> Vec<u8> {
            let of_slots = self.slots_of(item).zip(&hosts);
            let numbers = of_slots.flat_map(|(index, host)| &host[self.shards_of(index)[rank].clone()]);
            numbers.flat_map(|number| number.to_le_bytes()).collect()
        };
        let parts: Vec<Vec<u8>> = (0..ranks).map(part).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        carrier.hand_in(item, &parts);
    }

    /// Zeros of a block's shapes.
    pub(crate) fn zero_block(&self, layer: usize) -> BlockParameters {
        let slots = self.slots_of(self.item(Piece::Block(layer))).map(|index| self.slot(index));
        BlockParameters::of(
            slots.map(|slot| (slot.place, Tensor::zeros_on(self.device(), slot.rows, slot.cols))),
        )
    }
}
