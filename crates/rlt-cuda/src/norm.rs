//! Root mean square norms of rows (`kernels/norm.cu`).

use crate::gpu::Gpu;
use crate::launch::{Arg, Threads, of, size};
use crate::memory::Memory;

impl Gpu {
    /// Rows of `x`, normalised and multiplied by `weight`, and the inverse root mean squares.
    pub fn rms_norm(&self, x: &Memory, weight: &Memory, eps: f32) -> (Memory, Memory) {
        let (n, cols) = (x.len(), weight.len());
        let rows = n / cols;
        let (y, inverse) = (self.take(n), self.take(rows));
        let arguments =
            vec![of(&y, n), of(&inverse, rows), of(x, n), of(weight, cols), size(cols), Arg::Float(eps)];
        self.launch("rms_norm", Threads::a_block_each(rows), arguments);
        (y, inverse)
    }

    /// The first of these again, from the second.
    pub fn rms_norm_again(&self, x: &Memory, weight: &Memory, inverse: &Memory) -> Memory {
        let (n, cols) = (x.len(), weight.len());
        let y = self.take(n);
        let arguments = vec![of(&y, n), of(inverse, n / cols), of(x, n), of(weight, cols), size(cols)];
        self.launch("rms_norm_again", Threads::a_block_each(n / cols), arguments);
        y
    }

    /// Adds the rows of `y`, normalised and multiplied by `weight`, to those of `x`; the inverse root mean squares.
    pub fn add_rms_norm(&self, x: &mut Memory, y: &Memory, weight: &Memory, eps: f32) -> Memory {
        let (n, cols) = (y.len(), weight.len());
        let inverse = self.take(n / cols);
        let arguments =
            vec![of(x, n), of(&inverse, n / cols), of(y, n), of(weight, cols), size(cols), Arg::Float(eps)];
        self.launch("add_rms_norm", Threads::a_block_each(n / cols), arguments);
        inverse
    }

    /// Adds the gradient of a norm's input to `dx` and, where it is wanted, that of its weight to `dweight`.
    pub fn rms_norm_backward(
        &self,
        dy: &Memory,
        x: &Memory,
        weight: &Memory,
        inverse: &Memory,
        dx: &mut Memory,
        dweight: Option<&mut Memory>,
    ) {
        let (n, cols) = (x.len(), weight.len());
        let rows = n / cols;
        let arguments = vec![of(dx, n), of(dy, n), of(x, n), of(weight, cols), of(inverse, rows), size(cols)];
        self.launch("rms_norm_backward", Threads::a_block_each(rows), arguments);
        if let Some(dweight) = dweight {
            self.add_norm_weight_gradient(dweight, dy, x, inverse, (rows, 1, cols, 0));
        }
    }
}
