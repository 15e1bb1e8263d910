//! NVIDIA GPUs, by pointers and launches: what a tensor library asks of one, and no tensor.
//!
//! A [`Gpu`] is opened by its number. It has one stream, on which everything happens in the order in which it was asked
//! for, and two more for copies beside it ([`Pinned`], [`Coming`]), which it waits for; [`Memory`] that is recycled; the kernels of
//! this crate (`kernels/*.cu`, whose PTX is part of the binary), a method each; and matrix products by cuBLASLt. Driver and cuBLASLt are opened while the program runs: where they are
//! missing, opening a GPU is an [`Error`] that says so in a line.
//!
//! # Determinism
//! No kernel adds up what blocks of threads hand in in any order: each number is written by one thread, its sum taken in an
//! order that depends on sizes alone. So the same calls give the same bits on the same GPU; those of another type of
//! processor differ in rounding.
//!
//! # Failures
//! Operations check their arguments, and panic where these do not fit. Where memory is used up, or the driver reports an
//! error, they panic with a [`Failure`].

mod attention;
mod attention_bf16;
mod catalogue;
mod columns;
mod coming;
mod elements;
mod error;
mod event;
mod failure;
mod gated;
mod gpu;
mod halves;
mod head;
mod heads;
mod kv;
mod launch;
mod memory;
mod norm;
mod optimizer;
mod pinned;
mod plans;
mod pool;
mod product;
mod rows;
mod sample;
mod visits;

pub use attention::{AttentionShape, Span};
pub use coming::Coming;
pub use error::Error;
pub use failure::Failure;
pub use gated::Gate;
pub use gpu::Gpu;
pub use halves::{Halves, packed, unpacked};
pub use heads::{Angles, Heads};
pub use kv::{Page, PageLayout, PageTable, Run, Slot, SlotTable, page_words, part_numbers};
pub use memory::{Memory, Number};
pub use optimizer::{RandomRounding, Step};
pub use pinned::Pinned;
pub use plans::{Format, Product, WORKSPACE_BYTES};
pub use pool::{Usage, block_bytes};
pub use product::Factors;
pub use visits::CHUNKS_AT_ONCE;
