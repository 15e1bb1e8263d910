//! How a model is cut into shards, what is brought here at once, and by whom.

use std::ops::Range;

use rlt_engine::adamw::BLOCK;

use crate::config::{ModelConfig, Place, Slot, slots};

/// What passes bring here at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The token embedding.
    Embedding,
    /// A block.
    Block(usize),
    /// The norm after the last block.
    FinalNorm,
    /// The output matrix, where it is not the embedding.
    Head,
}

impl Piece {
    fn of(place: Place) -> Self {
        match place {
            Place::Embedding => Self::Embedding,
            Place::Block(layer, _) => Self::Block(layer),
            Place::FinalNorm => Self::FinalNorm,
            Place::Head => Self::Head,
            Place::Term(..) => unreachable!("no weight of the decoder"),
        }
    }

    /// Its number, as it is asked for.
    pub(super) fn item(self, config: &ModelConfig) -> usize {
        match self {
            Self::Embedding => 0,
            Self::Block(layer) => 1 + layer,
            Self::FinalNorm => 1 + config.n_layers,
            Self::Head => 2 + config.n_layers,
        }
    }
}

/// Which share of a model a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which of the processes it is, from 0.
    pub rank: usize,
    /// How many hold the model.
    pub ranks: usize,
}

impl Share {
    /// That of the process that holds most of a model.
    pub fn largest(config: &ModelConfig, ranks: usize) -> Self {
        let sizes: Vec<usize> = slots(config).iter().map(|slot| slot.rows * slot.cols).collect();
        let held = |rank: &usize| sizes.iter().map(|&len| shards(len, ranks)[*rank].len()).sum::<usize>();
        Self { rank: (0..ranks).max_by_key(held).unwrap_or(0), ranks }
    }
}

/// Carries shards between the processes that hold a model. What failed is for it to remember: passes have no use for an
/// error in the middle of a block, and what they compute after one is not looked at.
pub trait Carrier: std::fmt::Debug + Send + Sync {
    /// Every process's share of an item, by rank; none where they are lost.
    fn shares_of(&self, item: usize) -> Option<Vec<Vec<u8>>>;

    /// Part `p` of an item's gradient goes to process `p`.
    fn hand_in(&self, item: usize, parts: &[&[u8]]);
}

/// One shard a process of `len` elements that lie one after another: as many whole blocks of the optimizer
/// ([`rlt_engine::adamw::BLOCK`]) as can be.
pub fn shards(len: usize, ranks: usize) -> Vec<Range<usize>> {
    let blocks = len.div_ceil(BLOCK);
    let end = |rank: usize| (rank * blocks / ranks * BLOCK).min(len);
    (0..ranks).map(|rank| end(rank)..end(rank + 1)).collect()
}

/// The slots of every item, in order.
pub(super) fn items(slots: &[Slot]) -> Vec<Range<usize>> {
    let mut items: Vec<Range<usize>> = Vec::new();
    for (index, slot) in slots.iter().enumerate() {
        match items.last_mut() {
            Some(item) if Piece::of(slots[item.start].place) == Piece::of(slot.place) => item.end = index + 1,
            _ => items.push(index..index + 1),
        }
    }
    items
}
