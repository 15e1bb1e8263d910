//! Rotary position embedding, in the half-rotation layout of Hugging Face models: element `i` of a
//! head is paired with element `i + head_dim / 2`.

use std::sync::{Arc, OnceLock};

use rlt_cuda::{Angles, Gpu};

use crate::device::Device;
use crate::norm::HeadColumns;
use crate::parallel::for_row_blocks;
use crate::simd;
use crate::tensor::Tensor;

/// Cosines and sines per position, already multiplied by the attention factor (YaRN).
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// `positions x head_dim/2`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    /// The same on a GPU, from its first use there on.
    on_gpu: OnceLock<Arc<Angles>>,
}

/// Which way to rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Forward pass.
    Forward,
    /// Gradient: the transposed rotation.
    Backward,
}

impl RopeTable {
    /// Tables for positions `0..positions`, from inverse frequencies (`head_dim / 2` of them).
    ///
    /// The angle is rounded to f32 before the cosine, as Hugging Face's code does.
    pub fn new(inverse_frequencies: &[f32], attention_factor: f32, positions: usize) -> Self {
        let half = inverse_frequencies.len();
        let mut cos = Vec::with_capacity(positions * half);
        let mut sin = Vec::with_capacity(positions * half);
        for position in 0..positions {
            for f in inverse_frequencies {
                let (s, c) = f64::from(position as f32 * f).sin_cos();
                cos.push(c as f32 * attention_factor);
                sin.push(s as f32 * attention_factor);
            }
        }
        Self { cos, sin, half, on_gpu: OnceLock::new() }
    }

    fn on_gpu(&self, gpu: &Gpu) -> Arc<Angles> {
        let uploaded = || Arc::new(Angles { cosines: gpu.upload(&self.cos), sines: gpu.upload(&self.sin) });
        let angles = self.on_gpu.get_or_init(uploaded);
        if angles.cosines.gpu().ordinal() == gpu.ordinal() { angles.clone() } else { uploaded() }
    }

    /// Number of positions the table covers.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half
    }
}

/// Rotates the heads of every row of `x` in place; row `i` stands at `positions[i]`.
///
/// # Panics
/// If a position lies beyond the table.
pub fn rotate(x: &mut Tensor, heads: HeadColumns, positions: &[u32], table: &RopeTable, way: Rotation) {
    assert_eq!(positions.len(), x.rows(), "one position a row");
    assert_eq!(heads.head_dim, table.half * 2, "head width of the rotary table");
    if let Device::Sizes(sizes) = x.device() {
        return sizes.did_rows(2 * x.rows() * heads.n_heads * heads.head_dim);
    }
    if let Some(gpu) = x.gpu() {
        let (heads, backward) = (heads.on_gpu(x.cols()), way == Rotation::Backward);
        return gpu.rotate(x.memory_mut(), heads, positions, &table.on_gpu(&gpu), backward);
    }
    let cols = x.cols();
    let sign = if way == Rotation::Forward { 1.0 } else { -1.0 };
    for_row_blocks(x.data_mut(), cols, |first, rows| {
        simd::vectorized(
            #[inline(always)]
            || {
                for (i, row) in rows.chunks_exact_mut(cols).enumerate() {
                    let at = positions[first + i] as usize * table.half;
                    let (cos, sin) = (&table.cos[at..at + table.half], &table.sin[at..at + table.half]);
                    let row = &mut row[heads.first_col..heads.first_col + heads.n_heads * heads.head_dim];
                    for head in row.chunks_exact_mut(heads.head_dim) {
                        let (a, b) = head.split_at_mut(table.half);
                        for (((a, b), c), s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                            let s = s * sign;
                            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                        }
                    }
                }
            },
        );
    });
}
