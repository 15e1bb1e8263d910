//! The shards of a model's weights, and the pieces that are put together from everyone's.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use rlt_engine::device::Held;
use rlt_engine::{Device, Tensor};

use super::gradient::ShardGradients;
use super::layout::{Carrier, Piece, Share, items, shards};
use crate::config::{ModelConfig, Slot, slots};
use crate::parameters::BlockParameters;

/// The weights of a decoder, of which this process holds one shard of every tensor.
#[derive(Debug)]
pub struct SharedParameters {
    config: ModelConfig,
    device: Device,
    share: Share,
    slots: Vec<Slot>,
    /// The slots of every item.
    items: Vec<Range<usize>>,
    /// Of every slot, one a process.
    shards: Vec<Vec<Range<usize>>>,
    /// This process's, one a slot.
    own: RwLock<Vec<Shard>>,
    gradients: Mutex<ShardGradients>,
    carrier: OnceLock<Box<dyn Carrier>>,
}

/// A part of a tensor.
#[derive(Debug, Clone)]
enum Shard {
    /// 1 x its length.
    F32(Tensor),
    /// Of a matrix that is only read.
    Bf16 { numbers: Vec<u16>, _held: std::sync::Arc<Held> },
}

impl Shard {
    fn of(tensor: Tensor, own: &Range<usize>, device: &Device) -> Self {
        if tensor.is_bf16() {
            let held = device.hold(2 * own.len() as u64).into();
            let whole = tensor.to_host();
            let numbers = whole.get(own.clone()).unwrap_or_default().iter();
            return Self::Bf16 {
                numbers: numbers.map(|n| (n.to_bits() >> 16) as u16).collect(),
                _held: held,
            };
        }
        if own.len() == tensor.len() && tensor.rows() == 1 {
            return Self::F32(tensor);
        }
        Self::F32(Tensor::made_on(device, 1, own.len(), || tensor.to_host()[own.clone()].to_vec()))
    }

    fn element_bytes(&self) -> usize {
        match self {
            Self::F32(_) => 4,
            Self::Bf16 { .. } => 2,
        }
    }

    fn add_to(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::F32(numbers) => {
                bytes.extend(numbers.to_host().iter().flat_map(|number| number.to_le_bytes()));
            }
            Self::Bf16 { numbers, .. } => {
                bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
        }
    }
}

impl SharedParameters {
    /// This process's `share` of the tensors that `make` makes, one a slot; no two of them are held at the same time.
    ///
    /// # Errors
    /// What `make` returns.
    pub fn build<E>(
        device: &Device,
        config: &ModelConfig,
        share: Share,
        mut make: impl FnMut(&Slot) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let slots = slots(config);
        let shards: Vec<_> = slots.iter().map(|slot| shards(slot.rows * slot.cols, share.ranks)).collect();
        let mut own = Vec::with_capacity(slots.len());
        for (slot, shards) in slots.iter().zip(&shards) {
            own.push(Shard::of(make(slot)?, &shards[share.rank], device));
        }
        let items = items(&slots);
        let gradients = ShardGradients::default().into();
        let (config, device, own) = (config.clone(), device.clone(), own.into());
        Ok(Self { config, device, share, slots, items, shards, own, gradients, carrier: OnceLock::new() })
    }

    /// Who carries shards to and from the other processes. Without a carrier there are none, or nothing is computed.
    ///
    /// # Panics
    /// When there is one.
    pub fn carried_by(&self, carrier: Box<dyn Carrier>) {
        assert!(self.carrier.set(carrier).is_ok(), "shards have one carrier");
    }

    /// The same weights once more, without a carrier or gradients.
    pub(crate) fn copy(&self) -> Self {
        Self {
            config: self.config.clone(),
            device: self.device.clone(),
            share: self.share,
            slots: self.slots.clone(),
            items: self.items.clone(),
            shards: self.shards.clone(),
            own: self.own().clone().into(),
            gradients: Mutex::default(),
            carrier: OnceLock::new(),
        }
    }

    /// As [`crate::Decoder::mix_in`].
    pub(crate) fn mix_in(&self, other: &Self, mix: f32) {
        let (mut own, other) = (self.own.write().unwrap_or_else(PoisonError::into_inner), other.own());
        for (own, other) in own.iter_mut().zip(&*other) {
            match (own, other) {
                (Shard::F32(own), Shard::F32(other)) => own.mix_in(other, mix),
                _ => panic!("what is only read is not updated"),
            }
        }
    }

    /// Whose shards these are.
    pub fn share(&self) -> Share {
        self.share
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Number of parameters of the whole model.
    pub fn len(&self) -> usize {
        self.slots.iter().map(|slot| slot.rows * slot.cols).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn own(&self) -> RwLockReadGuard<'_, Vec<Shard>> {
        self.own.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn gradients(&self) -> MutexGuard<'_, ShardGradients> {
        self.gradients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn carrier(&self) -> Option<&dyn Carrier> {
        self.carrier.get().map(Box::as_ref)
    }

    pub(super) fn item(&self, piece: Piece) -> usize {
        piece.item(&self.config)
    }

    /// The slots of an item.
    pub(super) fn slots_of(&self, item: usize) -> Range<usize> {
        self.items[item].clone()
    }

    pub(super) fn slot(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    pub(super) fn n_items(&self) -> usize {
        self.items.len()
    }

    /// Of slot `index`, one a process.
    pub(super) fn shards_of(&self, index: usize) -> &[Range<usize>] {
        &self.shards[index]
    }

    /// Elements of this process's shard of slot `index`.
    pub(super) fn own_len(&self, index: usize) -> usize {
        self.shards[index][self.share.rank].len()
    }

    /// This process's share of an item, as the others are sent it: shard after shard, little-endian.
    pub fn share_of(&self, item: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(slots) = self.items.get(item) {
            self.own()[slots.clone()].iter().for_each(|shard| shard.add_to(&mut bytes));
        }
        bytes
    }

    /// The tensors of a piece, whole, in the order of [`slots`]. Zeros where the other processes are lost.
    pub(crate) fn piece(&self, piece: Piece) -> Vec<Tensor> {
        self.whole(self.item(piece))
    }

    fn whole(&self, item: usize) -> Vec<Tensor> {
        let slots = self.slots_of(item);
        // Bytes of an element of each.
        let sizes: Vec<usize> = self.own()[slots.clone()].iter().map(Shard::element_bytes).collect();
        let bytes: usize = slots
            .clone()
            .zip(&sizes)
            .map(|(index, size)| self.slots[index].rows * self.slots[index].cols * size)
            .sum();
        // Every process's share, and this one's as it is sent, until the tensors are put together.
        let others = self.share.ranks > 1;
        let _shares = self.device.hold(if others { (bytes + bytes / self.share.ranks) as u64 } else { 0 });
        self.device.sends(bytes - bytes / self.share.ranks);
        let shares = match self.carrier() {
            Some(carrier) => {
                carrier.shares_of(item).inspect(|shares| self.check_shares(item, &sizes, shares))
            }
            None => self.device.has_numbers().then(|| vec![self.share_of(item)]),
        };
        let mut rests: Vec<&[u8]> = shares.iter().flatten().map(Vec::as_slice).collect();
        let tensors = slots.zip(sizes).map(|(index, size)| {
            let parts = rests.iter_mut().zip(&self.shards[index]).map(|(rest, shard)| {
                let (part, after) = rest.split_at(size * shard.len());
                *rest = after;
                part
            });
            put_together(&self.device, &self.slots[index], &parts.collect::<Vec<_>>(), size)
        });
        tensors.collect()
    }

    /// Panics where a share is not as long as it must be: nothing is computed with weights that are not the model's.
    /// `sizes` are the bytes of an element of each slot.
    fn check_shares(&self, item: usize, sizes: &[usize], shares: &[Vec<u8>]) {
        assert_eq!(shares.len(), self.share.ranks, "a share of every process");
        for (rank, share) in shares.iter().enumerate() {
            let of_slots = self.slots_of(item).zip(sizes);
            let expected: usize = of_slots.map(|(index, size)| self.shards[index][rank].len() * size).sum();
            assert_eq!(
                share.len(),
                expected,
                "bytes of rank {rank}'s share of part {item} of a model: do all ranks read the same files?"
            );
        }
    }

    /// A block, whole.
    pub(crate) fn block(&self, layer: usize) -> BlockParameters {
        let piece = Piece::Block(layer);
        let (tensors, slots) = (self.piece(piece), self.slots_of(self.item(piece)));
        BlockParameters::of(slots.map(|index| self.slots[index].place).zip(tensors))
    }

    /// All tensors, whole, in the order of [`slots`], a piece at a time.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor> {
        (0..self.items.len()).flat_map(|item| self.whole(item))
    }

    /// Calls `change(slot, shard, gradient)` for this process's shard of every slot (1 x its length each), to update it.
    ///
    /// # Errors
    /// What `change` returns.
    ///
    /// # Panics
    /// When these are weights that are only read.
    pub fn update<E>(
        &self,
        mut change: impl FnMut(usize, &mut Tensor, &Tensor) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
        let gradients = self.gradients();
        for (index, (shard, gradient)) in own.iter_mut().zip(gradients.totals()).enumerate() {
            let Shard::F32(weight) = shard else { panic!("what is only read is not updated") };
            change(index, weight, gradient)?;
        }
        Ok(())
    }
}

/// A tensor from the parts of all processes, of `size` bytes an element; zeros without parts.
fn put_together(device: &Device, slot: &Slot, parts: &[&[u8]], size: usize) -> Tensor {
    let (rows, cols) = (slot.rows, slot.cols);
    if size == 2 {
        let whole: Vec<u8> =
            if parts.is_empty() && device.has_numbers() { vec![0; 2 * rows * cols] } else { parts.concat() };
        return Tensor::from_bf16_rows_on(device, rows, cols, |row| {
            &whole[2 * row * cols..2 * (row + 1) * cols]
        });
    }
    if parts.is_empty() {
        return Tensor::zeros_on(device, rows, cols);
    }
    let filled = Tensor::filled_on(device, rows, cols, |numbers| {
        let bytes = parts.iter().flat_map(|part| part.as_chunks::<4>().0);
        for (number, bytes) in numbers.iter_mut().zip(bytes) {
            *number = f32::from_le_bytes(*bytes);
        }
        Ok::<_, std::convert::Infallible>(())
    });
    match filled {
        Ok(tensor) => tensor,
        Err(never) => match never {},
    }
}
