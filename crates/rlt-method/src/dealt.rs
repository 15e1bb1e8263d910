//! Work that is dealt to the ranks of a job, behind the two seams to models.
//!
//! Rank 0 reads rows, writes files and decides; it samples through a [`DealtSampler`] and scores through a [`DealtScorer`], which
//! send every other rank its share and put the answers together in the order of one rank. The other ranks load the same models
//! and answer, nothing else ([`serve_first_rank`]). So whatever is built on the seams (`rlt explain`, `score`, `eval`) runs on
//! several ranks unchanged, and its output has the bytes of one rank: draws are keyed by request and sample, and a token's
//! log-probability does not depend on what is computed beside it.

mod message;
mod order;
mod same;
mod sampler;
mod scorer;
mod share;
mod work;

pub use order::dismiss;
pub use same::{agree_on_work, first_ranks};
pub use sampler::DealtSampler;
pub use scorer::{DealtScorer, Whose};
pub use work::{Answering, serve_first_rank};
