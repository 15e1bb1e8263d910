//! Tensors, the fused operations that decoder-only transformers need, each with a hand-written
//! backward pass, the AdamW optimizer and counter-based random streams.
//!
//! This is not a general tensor library. It knows no text, no models and no rewards; it has the
//! couple of dozen operations that one job needs, and nothing else:
//!
//! - [`matmul`]: the three matrix products of a linear layer; [`arithmetic`]: the number format they are computed in.
//! - [`norm`], [`rope`], [`swiglu`], [`geglu`], [`embedding`]: the row-wise operations.
//! - [`attention`]: packed causal attention over (shared prefix + own) segments.
//! - [`head`]: log-probabilities of given tokens without ever holding rows x vocabulary.
//! - [`low_rank`]: what is learnt beside a frozen matrix.
//! - [`kv`] and [`packed`]: what decoding one token at a time needs.
//! - [`sample`], [`random`]: drawing tokens, reproducibly.
//! - [`adamw`], [`moment`]: the optimizer.
//! - [`offload`]: what of a GPU waits in the host's memory until it is needed.
//! - [`instructions`]: which vector instructions all of them use.
//!
//! # Determinism
//! Every reduction has a shape that depends on the data only, never on the number of threads, so
//! the same inputs give the same bits at 1, 2 or N threads. A row's forward result does not depend
//! on the other rows of its batch.

pub mod adamw;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
pub mod arithmetic;
pub mod attention;
mod bf16;
mod buffer;
pub mod device;
pub mod embedding;
mod even_parts;
mod four;
mod gated;
pub mod geglu;
pub mod head;
pub mod instructions;
pub mod kv;
pub mod low_rank;
#[cfg(test)]
mod made_up;
pub mod matmul;
pub mod moment;
pub mod norm;
pub mod offload;
mod output;
pub mod packed;
mod parallel;
mod pool;
mod product;
pub mod random;
mod recycling;
pub mod rope;
pub mod row_blocks;
pub mod sample;
mod simd;
pub mod sizes;
mod slab;
pub mod swiglu;
pub mod tensor;
mod tile;
mod transpose;

pub use device::Device;
pub use tensor::Tensor;
