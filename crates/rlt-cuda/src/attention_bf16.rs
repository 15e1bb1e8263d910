//! Packed attention on tensor cores (`kernels/attention_bf16.cu`, `kernels/attention_bf16_backward.cu`).

use crate::attention::{AttentionShape, Span, check};
use crate::gpu::Gpu;
use crate::halves::Halves;
use crate::launch::{Threads, of};
use crate::memory::Memory;

/// Queries, or keys, that a block has.
const ROWS: usize = 64;
/// Keys of a tile that passes by a block of the forward pass.
const KEYS: usize = 32;
const THREADS: u32 = 128;

/// Columns that there are kernels for: heads are filled up to one of them.
const WIDTHS: [usize; 4] = [64, 96, 128, 256];

/// Rows of a tile that passes by a block of the backward pass.
fn tile_rows(columns: usize) -> usize {
    if columns <= 128 { 32 } else { 16 }
}

impl AttentionShape {
    /// Whether tensor cores can have heads of this width: of whole runs of 16 bytes.
    pub fn suits_tensor_cores(&self) -> bool {
        self.width > 0 && self.width.is_multiple_of(8) && self.width <= WIDTHS[WIDTHS.len() - 1]
    }

    /// Columns of the kernel for heads of this width, and which it is.
    fn columns(&self) -> (usize, usize) {
        assert!(self.suits_tensor_cores(), "heads of {} columns on tensor cores", self.width);
        let which = WIDTHS.partition_point(|&columns| columns < self.width);
        (WIDTHS[which], which)
    }
}

/// Bytes of `rows` rows in shared memory.
fn shared_bytes(rows: usize, columns: usize) -> u32 {
    (2 * rows * (columns + 8)) as u32
}

impl Gpu {
    /// As [`Self::attention`], of queries, keys and values in bf16; probabilities are rounded to it, sums are f32.
    ///
    /// # Panics
    /// As there, and if heads do not suit tensor cores.
    pub fn attention_bf16(
        &self,
        qkv: &Halves,
        segments: &[(Span, Span)],
        shape: AttentionShape,
    ) -> (Memory, Memory) {
        let rows = check(segments, qkv.len(), shape);
        let (columns, which) = shape.columns();
        let (out, log_sums) = (self.take(rows * shape.heads * shape.width), self.take(rows * shape.heads));
        let (tiles, n) = self.query_tiles(segments, ROWS);
        let mut arguments = vec![qkv.argument(qkv.len()), of(&tiles, tiles.len())];
        arguments.extend([of(&out, out.len()), of(&log_sums, log_sums.len())]);
        arguments.extend(shape.arguments());
        let shared_bytes = shared_bytes(ROWS + 4 * KEYS, columns);
        let threads = Threads { grid: (n, shape.heads), block: THREADS, shared_bytes };
        let names = ["attention_bf16_64", "attention_bf16_96", "attention_bf16_128", "attention_bf16_256"];
        self.launch(names[which], threads, arguments);
        (out, log_sums)
    }

    /// The gradient of `qkv`, given that of the output, also in bf16, and what [`Self::attention_bf16`] returned; `delta` is
    /// [`Self::attention_delta`].
    ///
    /// # Panics
    /// As there.
    pub fn attention_bf16_backward(
        &self,
        dout: &Halves,
        qkv: &Halves,
        (log_sums, delta): (&Memory, &Memory),
        segments: &[(Span, Span)],
        shape: AttentionShape,
    ) -> Memory {
        let rows = check(segments, qkv.len(), shape);
        let (columns, which) = shape.columns();
        let (vectors, features) = (rows * shape.heads, rows * shape.heads * shape.width);
        let dqkv = self.take(qkv.len());
        let inputs =
            [qkv.argument(qkv.len()), dout.argument(features), of(log_sums, vectors), of(delta, vectors)];
        let shared_bytes = shared_bytes(2 * ROWS + 4 * tile_rows(columns), columns);

        let (tiles, n) = self.query_tiles(segments, ROWS);
        let mut arguments = inputs.to_vec();
        arguments.extend([of(&tiles, tiles.len()), of(&dqkv, dqkv.len())]);
        arguments.extend(shape.arguments());
        let threads = Threads { grid: (n, shape.heads), block: THREADS, shared_bytes };
        let names = [
            "attention_bf16_queries_64",
            "attention_bf16_queries_96",
            "attention_bf16_queries_128",
            "attention_bf16_queries_256",
        ];
        self.launch(names[which], threads, arguments);

        let (tiles, n, children) = self.key_tiles(segments, ROWS);
        let mut arguments = inputs.to_vec();
        arguments.extend([of(&tiles, tiles.len()), of(&children, children.len()), of(&dqkv, dqkv.len())]);
        arguments.extend(shape.arguments());
        // Of the widest heads a block has half of the columns.
        let parts = if columns <= 128 { 1 } else { 2 };
        let threads = Threads { grid: (n, shape.kv_heads * parts), block: THREADS, shared_bytes };
        let names = [
            "attention_bf16_keys_64",
            "attention_bf16_keys_96",
            "attention_bf16_keys_128",
            "attention_bf16_keys_256",
        ];
        self.launch(names[which], threads, arguments);
        dqkv
    }
}
