//! GGUF files (versions 2 and 3, little-endian), read through a memory map: metadata, tensors and their
//! values as f32.
//!
//! ```no_run
//! # fn main() -> rlt_gguf::Result<()> {
//! let file = rlt_gguf::Gguf::open("model.gguf".as_ref())?;
//! println!("{}", file.text("general.architecture")?.unwrap_or("no architecture"));
//! for tensor in file.tensors() {
//!     let mut values = vec![0.0; tensor.len()];
//!     file.read_rows(tensor, 0, &mut values)?;
//!     println!("{} {:?} {:?} begins with {}", tensor.name, tensor.shape, tensor.kind, values[0]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Gguf`]: the file, its header checked whole when it is opened; metadata by key.
//! - [`Kind`]: the number formats: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K. Any other is
//!   refused by name.
//! - Values are those of the `gguf` Python package's `dequantize`, bit for bit.
//!
//! # What is trusted
//! Nothing. A count, a length or an offset is compared with what is left of the file before anything is allocated or
//! read, so a file cannot ask for more memory than its own size; names are at most [`MAX_NAME`] bytes, dimensions at
//! most [`MAX_DIMENSIONS`], metadata keys at most [`MAX_KEYS`], tensors at most [`MAX_TENSORS`]; tensors lie inside
//! the file and do not overlap. Only the map itself is taken on trust: a file that another program cuts short while it
//! is read ends the process, as with any memory map.
//!
//! # Why not a library
//! Of those on crates.io, `ggml-quants` has no K formats (`todo!()`), `ggus` panics on what the
//! file says, and `candle-core` reads all of it but brings a tensor library along. The format is small; this crate is
//! a leaf and knows no model.

mod blocks;
mod cursor;
mod error;
mod file;
mod metadata;

pub use blocks::Kind;
pub use error::{Error, Result};
pub use file::{Gguf, MAX_DIMENSIONS, MAX_KEYS, MAX_NAME, MAX_TENSORS, Tensor};
