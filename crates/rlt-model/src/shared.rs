//! Weights in shards: each of several processes holds a part of every tensor of a model, and a pass brings the whole of what
//! it is about to need (the embedding, a block, the output matrix) here and drops it again (ZeRO-3, arXiv 1910.02054). What
//! is trained is handed back the same way: a piece's gradient leaves as soon as it is complete.
//!
//! Nobody holds a whole model, so that one which is too large for a process is read and trained by several. A pass computes
//! what it computes with whole weights, to the bit. What carries shards from one process to another is a [`Carrier`]'s matter.

mod gradient;
mod handing_in;
mod layout;
mod weights;

pub use layout::{Carrier, Piece, Share, shards};
pub use weights::SharedParameters;
