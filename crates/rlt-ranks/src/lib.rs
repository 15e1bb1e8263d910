//! Several processes that work as one job, each of them a rank: they agree on flags, hand each other bytes, and sum arrays
//! in an order that does not depend on how many they are.
//!
//! [`Ranks`] is what a program holds: this process's place among all, and the collectives. What carries the bytes is chosen
//! when the job is launched: nothing ([`Ranks::alone`]), threads of one process ([`on_threads`]), TCP as `torchrun` and
//! Kubernetes set it up, or MPI, whose library is loaded while the program runs, so that a program without MPI is the same
//! program ([`Launch`]).
//!
//! ```
//! // Two ranks share an array of four numbers; each gets its half of the sum.
//! let shards = [0..2, 2..4];
//! let sums = rlt_ranks::on_threads(2, |ranks| {
//!     let mine = [1.0, 2.0, 3.0, 4.0].map(|number: f32| number * (1 + ranks.rank()) as f32);
//!     ranks.reduce_shards(&mine, &shards).unwrap()
//! });
//! assert_eq!(sums, [[3.0, 6.0], [9.0, 12.0]]);
//! ```
//!
//! Every collective is called by all ranks in the same order and waits for all of them; a rank that has gone, that does
//! something else, or that lets the others wait too long is an [`Error`] that names it.

mod error;
mod fold;
mod launch;
mod lender;
mod lending;
mod mpi;
mod ranks;
mod settings;
mod shards;
mod tcp;
mod threads;
mod transport;

pub use error::{Error, Result};
pub use fold::{fold_in_pairs, lanes_of};
pub use launch::Launch;
pub use lender::Lender;
pub use lending::Lent;
pub use ranks::Ranks;
pub use settings::{OnLoss, Settings};
pub use threads::{on_threads, on_threads_with};
