//! Vectors that belong to columns, and runs of columns (`kernels/columns.cu`).

use crate::gpu::Gpu;
use crate::launch::{Arg, Threads, count, of, size};
use crate::memory::Memory;

/// Rows of a partial sum, as the kernels have it.
const SUMMED_ROWS: usize = 64;

impl Gpu {
    /// Adds `bias` to every row of `y`.
    pub fn add_bias(&self, y: &mut Memory, bias: &Memory) {
        let (n, cols) = (y.len(), bias.len());
        let arguments = vec![of(y, n), of(bias, cols), count(n), size(cols)];
        self.launch("add_bias", Threads::over(n), arguments);
    }

    /// `y[:, first..first + width] += factor * term`, of rows of `cols`.
    pub fn add_columns(
        &self,
        y: &mut Memory,
        cols: usize,
        first: usize,
        term: &Memory,
        width: usize,
        factor: f32,
    ) {
        let n = term.len();
        assert!(first + width <= cols && n / width.max(1) * cols <= y.len(), "columns of a term");
        let arguments = vec![
            of(y, y.len()),
            of(term, n),
            count(n),
            size(cols),
            size(first),
            size(width),
            Arg::Float(factor),
        ];
        self.launch("add_columns", Threads::over(n), arguments);
    }

    /// `factor * y[:, first..first + width]`, of rows of `cols`.
    pub fn scaled_columns(&self, y: &Memory, cols: usize, first: usize, width: usize, factor: f32) -> Memory {
        assert!(first + width <= cols, "columns of a matrix");
        let n = y.len() / cols * width;
        let out = self.take(n);
        let arguments = vec![
            of(&out, n),
            of(y, y.len()),
            count(n),
            size(cols),
            size(first),
            size(width),
            Arg::Float(factor),
        ];
        self.launch("scaled_columns", Threads::over(n), arguments);
        out
    }

    /// Adds the sums of the columns of `y` to `sums`.
    pub fn add_column_sums(&self, sums: &mut Memory, y: &Memory) {
        let cols = sums.len();
        let rows = y.len() / cols;
        let chunks = rows.div_ceil(SUMMED_ROWS);
        let partial = self.take(chunks * cols);
        let arguments = vec![of(&partial, chunks * cols), of(y, rows * cols), size(rows), size(cols)];
        self.launch("column_partials", Threads::a_thread_each(cols, chunks), arguments);
        self.add_partials(sums, &partial, chunks);
    }

    /// Adds to `sums` the gradient of the weight of a norm of `vectors`, `per_row` of them in each row of `stride` numbers from
    /// column `first` on.
    pub(crate) fn add_norm_weight_gradient(
        &self,
        sums: &mut Memory,
        dy: &Memory,
        x: &Memory,
        inverse: &Memory,
        (vectors, per_row, stride, first): (usize, usize, usize, usize),
    ) {
        let width = sums.len();
        assert!(first + per_row * width <= stride, "vectors of a row");
        let chunks = vectors.div_ceil(SUMMED_ROWS);
        let (partial, numbers) = (self.take(chunks * width), vectors / per_row * stride);
        let arguments = vec![
            of(&partial, chunks * width),
            of(dy, numbers),
            of(x, numbers),
            of(inverse, vectors),
            size(vectors),
            size(width),
            size(per_row),
            size(stride),
            size(first),
        ];
        self.launch("norm_weight_partials", Threads::a_thread_each(width, chunks), arguments);
        self.add_partials(sums, &partial, chunks);
    }

    fn add_partials(&self, sums: &mut Memory, partial: &Memory, chunks: usize) {
        let cols = sums.len();
        let arguments = vec![of(sums, cols), of(partial, chunks * cols), size(chunks), size(cols)];
        self.launch("add_partials", Threads::a_thread_each(cols, 1), arguments);
    }
}
