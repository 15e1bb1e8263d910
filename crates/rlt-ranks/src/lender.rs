//! What is lent.

use std::fmt::Debug;

/// What a rank has for the others: items by number, a share of each on every rank.
pub trait Lender: Send + Sync + Debug {
    /// This rank's share of an item.
    fn share(&self, item: usize) -> Vec<u8>;

    /// What ranks handed in for this rank's share of an item at the same time, by rank; none from who handed in nothing.
    fn take(&self, item: usize, parts: Vec<Option<Vec<u8>>>);
}
