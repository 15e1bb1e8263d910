//! Packed causal attention over segments.
//!
//! A batch is a list of [`Segment`]s laid end to end, without padding. A segment's tokens attend
//! to the whole of its prefix segment, where it has one, and causally to themselves. So the G
//! completions of one question are G segments that share one prompt segment: the prompt's keys and
//! values are computed once, forward and backward.
//!
//! Scores are computed in tiles and never held as a whole: memory is linear in length. The forward
//! pass keeps one number a row and head (the log of the softmax denominator), from which the
//! backward pass computes the tiles again (as in FlashAttention, arXiv 2205.14135).

mod backward;
mod backward_bf16;
mod backward_f32;
mod backward_tile;
mod forward;
mod forward_bf16;
mod key_gradients;
mod key_panels;
mod key_runs;
mod key_tiles;
mod layout;
mod query_tile;

pub use backward::attention_backward;
pub use forward::attention;
pub use layout::{AttentionShape, Layout, Segment};
