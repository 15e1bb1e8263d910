//! Packed attention, forward and backward (`kernels/attention.cu`, `kernels/attention_backward.cu`).

use crate::gpu::Gpu;
use crate::launch::{Arg, Threads, of, size};
use crate::memory::Memory;

/// Queries of a tile of the forward pass.
const QUERIES: usize = 32;
/// Queries, and keys, of a tile of the backward pass.
const BACKWARD_ROWS: usize = 16;
/// What the lanes of a warp share out.
const LANES: usize = 32;
const THREADS: u32 = 128;

/// Heads of an attention layer, and what they see.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Columns of a head, up to 256.
    pub width: usize,
    /// Tokens that one sees, its own and those before it; 0: all of these.
    pub window: usize,
    /// What scores are multiplied by.
    pub scale: f32,
}

impl AttentionShape {
    fn stride(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.width
    }

    /// The kernel for heads of this width.
    fn of_width(&self, names: [&'static str; 3]) -> &'static str {
        assert!(self.width <= 256, "heads of {} columns, where 256 are the most", self.width);
        match self.width {
            ..=64 => names[0],
            65..=128 => names[1],
            _ => names[2],
        }
    }

    /// What kernels take last.
    pub(crate) fn arguments(&self) -> [Arg; 5] {
        let sizes = [self.heads, self.kv_heads, self.width, self.window].map(size);
        [sizes[0], sizes[1], sizes[2], sizes[3], Arg::Float(self.scale)]
    }

    /// Bytes of some rows that threads read together, some that each reads its own of, and some weights.
    fn shared_bytes(&self, together: usize, apart: usize, weights: usize) -> u32 {
        let columns = self.width.next_multiple_of(4);
        (4 * (together * columns + apart * (columns + 1) + weights)) as u32
    }
}

/// A run of rows of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First row.
    pub row: usize,
    /// Number of rows.
    pub len: usize,
}

fn numbers<const N: usize>(list: impl Iterator<Item = [usize; N]>) -> Vec<i32> {
    let number = |n| i32::try_from(n).expect("rows are counted in 32 bits");
    list.flatten().map(number).collect()
}

/// Tiles of `rows` tokens of a segment of `len`: first and number.
fn tiles(len: usize, rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).step_by(rows).map(move |first| (first, rows.min(len - first)))
}

impl Gpu {
    /// Tiles of the queries of `segments`, each with the segment before it, and how many. Those that see the most keys come first,
    /// so that no block is left alone with one at the end.
    pub(crate) fn query_tiles(&self, segments: &[(Span, Span)], rows: usize) -> (Memory, usize) {
        let of_segment = |(own, prefix): &(Span, Span)| {
            let (own, prefix) = (*own, *prefix);
            tiles(own.len, rows)
                .map(move |(first, n)| [own.row + first, n, first, own.row, prefix.row, prefix.len])
        };
        let mut list: Vec<_> = segments.iter().flat_map(of_segment).collect();
        list.sort_by_key(|&[_, n, first, _, _, before]| std::cmp::Reverse(before + first + n));
        (self.upload(&numbers(list.iter().copied())), list.len())
    }

    /// The products of the rows of `out` and of its gradient, a number for each row and head.
    pub fn attention_delta(&self, out: &Memory, dout: &Memory, width: usize) -> Memory {
        let vectors = out.len() / width;
        let delta = self.take(vectors);
        let arguments =
            vec![of(&delta, vectors), of(out, out.len()), of(dout, out.len()), size(vectors), size(width)];
        self.launch("attention_delta", Threads::a_warp_each(vectors), arguments);
        delta
    }

    /// Attends within `segments`, each with the one before it (empty without one), which has none itself: the output, rows x
    /// heads, and the log of the softmax denominator of every row and head.
    pub fn attention(
        &self,
        qkv: &Memory,
        segments: &[(Span, Span)],
        shape: AttentionShape,
    ) -> (Memory, Memory) {
        let rows = check(segments, qkv.len(), shape);
        let features = shape.heads * shape.width;
        let (out, log_sums) = (self.take(rows * features), self.take(rows * shape.heads));
        let (tiles, n) = self.query_tiles(segments, QUERIES);
        let mut arguments = vec![
            of(qkv, qkv.len()),
            of(&tiles, tiles.len()),
            of(&out, out.len()),
            of(&log_sums, log_sums.len()),
        ];
        arguments.extend(shape.arguments());
        let shared_bytes = shape.shared_bytes(QUERIES, LANES, QUERIES * LANES);
        let threads = Threads { grid: (n, shape.heads), block: THREADS, shared_bytes };
        let name = shape.of_width(["attention_64", "attention_128", "attention_256"]);
        self.launch(name, threads, arguments);
        (out, log_sums)
    }

    /// The gradient of `qkv`, given that of the output and what [`Self::attention`] returned; `delta` is
    /// [`Self::attention_delta`].
    pub fn attention_backward(
        &self,
        dout: &Memory,
        qkv: &Memory,
        (log_sums, delta): (&Memory, &Memory),
        segments: &[(Span, Span)],
        shape: AttentionShape,
    ) -> Memory {
        let rows = check(segments, qkv.len(), shape);
        let (vectors, features) = (rows * shape.heads, rows * shape.heads * shape.width);
        let dqkv = self.take(qkv.len());
        let inputs = [of(qkv, qkv.len()), of(dout, features), of(log_sums, vectors), of(delta, vectors)];

        let shared_bytes = shape.shared_bytes(2 * BACKWARD_ROWS, 2 * LANES, BACKWARD_ROWS * LANES);
        let (tiles, n) = self.query_tiles(segments, BACKWARD_ROWS);
        let mut arguments = inputs.to_vec();
        arguments.extend([of(&tiles, tiles.len()), of(&dqkv, dqkv.len())]);
        arguments.extend(shape.arguments());
        let threads = Threads { grid: (n, shape.heads), block: THREADS, shared_bytes };
        let name = ["attention_queries_64", "attention_queries_128", "attention_queries_256"];
        self.launch(shape.of_width(name), threads, arguments);

        let (tiles, n, children) = self.key_tiles(segments, BACKWARD_ROWS);
        let mut arguments = inputs.to_vec();
        arguments.extend([of(&tiles, tiles.len()), of(&children, children.len()), of(&dqkv, dqkv.len())]);
        arguments.extend(shape.arguments());
        let threads = Threads { grid: (n, shape.kv_heads), block: THREADS, shared_bytes };
        let name = ["attention_keys_64", "attention_keys_128", "attention_keys_256"];
        self.launch(shape.of_width(name), threads, arguments);
        dqkv
    }

    /// Tiles of the keys of `segments`, how many, and the segments that come after one, grouped by it.
    pub(crate) fn key_tiles(&self, segments: &[(Span, Span)], rows: usize) -> (Memory, usize, Memory) {
        let mut children: Vec<Vec<Span>> = vec![Vec::new(); segments.len()];
        for (own, prefix) in segments {
            if prefix.len > 0 {
                let parent = segments.iter().position(|(other, _)| other == prefix);
                children[parent.expect("a prefix is a segment")].push(*own);
            }
        }
        let mut first_child = 0;
        let mut list = Vec::new();
        for ((own, prefix), children) in segments.iter().zip(&children) {
            list.extend(tiles(own.len, rows).map(|(first, n)| {
                let place = [own.row + first, n, first, own.row, own.len, prefix.len];
                [place[0], place[1], place[2], place[3], place[4], place[5], first_child, children.len()]
            }));
            first_child += children.len();
        }
        let n = list.len();
        let spans = numbers(children.iter().flatten().map(|child| [child.row, child.len]));
        (self.upload(&numbers(list.into_iter())), n, self.upload(&spans))
    }
}

/// Rows of a batch of `numbers` queries, keys and values, whose segments lie within it.
pub(crate) fn check(segments: &[(Span, Span)], numbers: usize, shape: AttentionShape) -> usize {
    assert!(shape.heads.is_multiple_of(shape.kv_heads.max(1)), "query heads of a key head");
    let rows = numbers / shape.stride();
    let fits = |span: &Span| span.row + span.len <= rows;
    assert!(segments.iter().all(|(own, prefix)| fits(own) && fits(prefix)), "segments of {rows} rows");
    rows
}
