//! Keys and values of sequences that are being decoded, and attention of their newest tokens.
//!
//! A sequence's keys and values live in pages of 64 tokens, taken as the sequence grows and given
//! back when it ends. The pages of a prompt are shared by all completions of it. Within a page and
//! head, keys are stored column by column (so 64 scores are computed side by side) and values row
//! by row. Models whose products are bf16 keep them in bf16, half the bytes; attention widens them in registers
//! and computes in f32 either way.

mod attend;
mod newest;
mod pages;
mod tables;
mod words;

pub use attend::decode_attention;
pub use newest::Newest;
pub use pages::{KvPages, KvSequence};
pub use words::PAGE_TOKENS;
