//! Models that other programs serve: a sampler and a scorer behind vLLM, SGLang, `rlt serve` and what answers like them.
//!
//! Token ids go out and come in, never text that is encoded again; and nothing that comes in is taken on trust.
//!
//! - `connect`: who is there; `check`: whether it does what it is wanted for, asked before work begins;
//! - `request`, `answer` (`sglang`): what is said, and what of an answer is believed;
//! - `journal`: answers that are in no row yet;
//! - `wire`: one request; `fault`: why it failed; `retry`, `pool`, `threads`: how often and how many at a time;
//! - `sampler`, `scorer`: the two seams;
//! - `policy`: a policy in training that servers draw from; `weights`: how they get them; `probe`: whether they have them;
//! - `doctor`: what a server can do, for a person.

mod answer;
mod check;
mod connect;
pub mod doctor;
mod fault;
mod journal;
mod policy;
mod pool;
mod probe;
mod request;
mod retry;
mod sampler;
mod scorer;
mod sglang;
#[cfg(test)]
mod tests;
mod threads;
mod weights;
mod wire;

pub use check::Wanted;
pub use connect::Served;
pub use policy::ServedPolicy;
pub use probe::Agreement;
pub use sampler::ServerSampler;
pub use scorer::ServerScorer;
