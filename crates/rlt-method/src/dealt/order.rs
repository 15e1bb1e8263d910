//! How rank 0 orders, and how answers come together.

use rlt_ranks::Ranks;

use super::message::{Order, to_bytes};
use crate::error::Result;
use crate::ranks::agree;

/// Sends the other ranks home. Rank 0 calls it when the work is done; without it they take its end for a loss.
///
/// # Errors
/// Naming a rank that is gone.
pub fn dismiss(ranks: &Ranks) -> Result<()> {
    order(ranks, &Order::Dismissed)
}

/// Tells the others what rank 0 wants of them.
pub(super) fn order(ranks: &Ranks, order: &Order) -> Result<()> {
    ranks.broadcast(0, to_bytes(order))?;
    Ok(())
}

/// Every rank's answer to an order, on rank 0; on all ranks the error of the first that has one.
pub(super) fn collect(ranks: &Ranks, own: Result<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    Ok(ranks.gather_to_first(&agree(ranks, own)?)?)
}
