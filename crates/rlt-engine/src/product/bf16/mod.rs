//! Matrix products in bf16 arithmetic: both factors are rounded to bf16 (nearest, ties to even), products are
//! added up in f32.
//!
//! Half the bytes and, where the processor has instructions for it, several times the speed of f32. An element's
//! bits depend on its row, its column and the kind of processor, never on the batch around it or on the threads.
//!
//! - `operand`: the two factors, rounded and laid out as the kernels read them.
//! - `product`: how a product is cut into tasks and blocks.
//! - `kernel` chooses among three ways to compute a block: `tiles` (AMX), `dot` (AVX-512 BF16) and `portable`.

mod block;
#[cfg(target_arch = "x86_64")]
mod dot;
mod kernel;
mod laid_out;
mod numbers;
mod operand;
mod portable;
mod product;
mod rounding;
mod tile_size;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;
mod view;

pub(crate) use kernel::Kernel;
pub(crate) use laid_out::LaidOut;
pub(crate) use numbers::WithRounding;
pub(crate) use operand::{Left, Pairs, left_row_mut};
pub(crate) use product::{product, small_product};
pub(crate) use rounding::vectorized_with_rounding;
pub(crate) use tile_size::TILE_WORDS;
pub(crate) use view::View;

#[cfg(test)]
mod tests;
