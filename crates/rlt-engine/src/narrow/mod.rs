//! Matrix products in bf16 arithmetic: both factors are rounded to bf16 (nearest, ties to even), products are
//! added up in f32.
//!
//! Half the bytes and, where the processor has instructions for it, several times the speed of f32. An element's
//! bits depend on its row, its column and the kind of processor, never on the batch around it or on the threads.
//!
//! - `operand`: the two factors, rounded and laid out as the kernels read them.
//! - `product`: how a product is cut into tasks and blocks.
//! - `kernel` chooses among three ways to compute a block: `tiles` (AMX), `dot` (AVX-512 BF16) and `portable`.

#[cfg(target_arch = "x86_64")]
mod dot;
mod kernel;
mod operand;
mod portable;
mod product;
mod rounding;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;
mod transpose;
mod view;

pub(crate) use kernel::Kernel;
pub(crate) use operand::{Left, Pairs, left_row_mut};
pub(crate) use product::{LaidOut, product, small_product};
pub(crate) use rounding::{WithRounding, vectorized_with_rounding};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use tiles::amx_is_available;
pub(crate) use view::View;

#[cfg(test)]
mod tests;

/// Words of a tile row: 64 bytes, 32 numbers.
pub(crate) const TILE_WORDS: usize = 16;

/// Rows of a tile of the left factor.
const TILE_ROWS: usize = 16;
