//! Matrix products in f32, `out[M,N] (+)= left[M,D] . right[D,N]`: which part of which matrix is in which cache when.
//!
//! The right factor comes in panels of 32 columns, the inner dimension in chunks of 256. A chunk's sums run in
//! the order of k and are added to the output chunk after chunk, so the bits of an element depend neither on the
//! other rows and columns, nor on their number, nor on how they are cut into tasks.

mod cut;
mod factors;
mod part;
mod read_ahead;
mod strips;
#[cfg(test)]
mod tests;

pub(crate) use cut::multiply;
pub(crate) use factors::{Right, View};
