//! Norms and rotations of heads in rows of packed queries, keys and values (`kernels/heads.cu`).

use crate::gpu::Gpu;
use crate::launch::{Arg, Threads, of, size};
use crate::memory::Memory;

/// Heads side by side in rows of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Numbers of a row.
    pub stride: usize,
    /// First column of the first head.
    pub first: usize,
    /// How many heads.
    pub n: usize,
    /// Columns of one.
    pub width: usize,
}

impl Heads {
    /// Rows of `x`.
    fn rows(&self, x: &Memory) -> usize {
        assert!(self.first + self.n * self.width <= self.stride, "heads of a row");
        x.len() / self.stride
    }

    /// What kernels take last of a matrix of `rows`.
    fn arguments(&self, rows: usize) -> [Arg; 5] {
        [size(rows), size(self.n), size(self.width), size(self.stride), size(self.first)]
    }
}

/// Cosines and sines of every position, half a head's width each.
#[derive(Debug)]
pub struct Angles {
    /// Positions x half a head.
    pub cosines: Memory,
    /// The same of the sines.
    pub sines: Memory,
}

impl Gpu {
    /// Normalises every head in place.
    pub fn head_norm(&self, x: &mut Memory, heads: Heads, weight: &Memory, eps: f32) {
        let rows = heads.rows(x);
        let mut arguments = vec![of(x, x.len()), of(weight, heads.width)];
        arguments.extend(heads.arguments(rows));
        arguments.push(Arg::Float(eps));
        self.launch("head_norm", Threads::a_warp_each(rows * heads.n), arguments);
    }

    /// Turns the gradient of [`Self::head_norm`]'s output, in the heads' columns of `dx`, into that of its input `x`; adds the
    /// weight's to `dweight` where it is wanted.
    pub fn head_norm_backward(
        &self,
        dx: &mut Memory,
        x: &Memory,
        heads: Heads,
        weight: &Memory,
        eps: f32,
        dweight: Option<&mut Memory>,
    ) {
        let rows = heads.rows(x);
        let vectors = rows * heads.n;
        let inverse = self.take(vectors);
        let mut arguments = vec![of(&inverse, vectors), of(x, x.len())];
        arguments.extend(heads.arguments(rows));
        arguments.push(Arg::Float(eps));
        self.launch("head_inverses", Threads::a_warp_each(vectors), arguments);
        if let Some(dweight) = dweight {
            let place = (vectors, heads.n, heads.stride, heads.first);
            self.add_norm_weight_gradient(dweight, dx, x, &inverse, place);
        }
        let mut arguments =
            vec![of(dx, x.len()), of(x, x.len()), of(weight, heads.width), of(&inverse, vectors)];
        arguments.extend(heads.arguments(rows));
        self.launch("head_norm_backward", Threads::a_warp_each(vectors), arguments);
    }

    /// Rotates every head in place by the angles of its row's position, or back.
    ///
    /// # Panics
    /// If a position has no angles.
    pub fn rotate(&self, x: &mut Memory, heads: Heads, positions: &[u32], angles: &Angles, backward: bool) {
        let (rows, half) = (heads.rows(x), heads.width / 2);
        assert_eq!(rows, positions.len(), "one position a row");
        let needed = positions.iter().max().map_or(0, |&position| (position as usize + 1) * half);
        let on_device = self.upload(positions);
        let mut arguments = vec![
            of(x, x.len()),
            of(&on_device, rows),
            of(&angles.cosines, needed),
            of(&angles.sines, needed),
        ];
        arguments.extend(heads.arguments(rows));
        arguments.push(Arg::Float(if backward { -1.0 } else { 1.0 }));
        self.launch("rotate", Threads::a_warp_each(rows * heads.n), arguments);
    }
}
