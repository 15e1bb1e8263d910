//! Matrix products: in f32, and with both factors rounded to bf16.

pub(crate) mod bf16;
pub(crate) mod cuda;
pub(crate) mod f32;
