//! Stored keys and values, and attention of the newest tokens (`kernels/kv.cu`).

use crate::attention::AttentionShape;
use crate::gpu::Gpu;
use crate::launch::{Arg, Threads, of, size};
use crate::memory::Memory;
use crate::plans::Format;

/// Tokens of a page, as the kernels have it.
const PAGE_TOKENS: usize = 64;
const WARPS: usize = 4;

/// Where the key and value of a row go.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    /// A page: for each layer and key/value head `2 * width * 64` numbers ([`page_words`]), keys column by column, then values row
    /// by row.
    pub page: &'a Memory,
    /// Which of its tokens.
    pub token: usize,
    /// The row of queries, keys and values.
    pub row: usize,
}

/// A page that is read.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// As [`Slot::page`].
    pub numbers: &'a Memory,
    /// Position of its first token.
    pub first: usize,
    /// How many tokens are stored in it.
    pub count: usize,
}

/// Words of four bytes that a page has for a layer and key/value head of `width` columns.
pub fn page_words(width: usize, format: Format) -> usize {
    match format {
        Format::F32 => 2 * width * PAGE_TOKENS,
        Format::Bf16 => width * PAGE_TOKENS,
    }
}

/// An address and two numbers, as the kernels read them.
fn entry(
    memory: &Memory,
    layers: usize,
    (shape, format): (AttentionShape, Format),
    a: usize,
    b: usize,
) -> [u32; 4] {
    let address = memory.address(layers * shape.kv_heads * page_words(shape.width, format));
    [address as u32, (address >> 32) as u32, a as u32, b as u32]
}

impl Gpu {
    /// Stores keys and values of rows of `qkv`, rounded to the pages' format, in layer `layer` of pages, which are written to though
    /// others read them, too.
    ///
    /// # Panics
    /// If a page is smaller, or a row is not there.
    pub fn store_tokens(
        &self,
        slots: &[Slot],
        qkv: &Memory,
        layer: usize,
        shape: AttentionShape,
        format: Format,
    ) {
        let stride = (shape.heads + 2 * shape.kv_heads) * shape.width;
        let fits = |slot: &Slot| slot.token < PAGE_TOKENS && (slot.row + 1) * stride <= qkv.len();
        assert!(slots.iter().all(fits), "tokens of a page");
        let of_slot = |slot: &Slot| entry(slot.page, layer + 1, (shape, format), slot.token, slot.row);
        let list: Vec<u32> = slots.iter().flat_map(of_slot).collect();
        let on_device = self.upload(&list);
        let mut arguments = vec![of(&on_device, list.len()), of(qkv, qkv.len())];
        arguments.extend([shape.heads, shape.kv_heads, shape.width, layer].map(size));
        let threads = Threads { grid: (slots.len(), shape.kv_heads), block: 128, shared_bytes: 0 };
        let name = match format {
            Format::F32 => "store_tokens",
            Format::Bf16 => "store_tokens_bf16",
        };
        self.launch(name, threads, arguments);
    }

    /// Attention of the newest token of each of `sequences`, given by its pages in order: row `i` of `qkv` is that of sequence
    /// `i`, and the last token of its last page. Computed in f32, whatever the pages hold. Sequences x heads.
    ///
    /// # Panics
    /// If a sequence has no token, or a page is smaller.
    pub fn decode_attention(
        &self,
        qkv: &Memory,
        sequences: &[Vec<Page>],
        layer: usize,
        shape: AttentionShape,
        format: Format,
    ) -> Memory {
        assert!(shape.width <= 256, "heads of {} columns, where 256 are the most", shape.width);
        let n = sequences.len();
        let (mut list, mut starts) = (Vec::new(), vec![0_i32]);
        for pages in sequences {
            assert!(pages.last().is_some_and(|page| page.count > 0), "a sequence without tokens");
            assert!(pages.iter().all(|page| page.count <= PAGE_TOKENS), "tokens of a page");
            let of_page =
                |page: &Page| entry(page.numbers, layer + 1, (shape, format), page.first, page.count);
            list.extend(pages.iter().flat_map(of_page));
            starts.push((list.len() / 4) as i32);
        }
        let out = self.take(n * shape.heads * shape.width);
        let (on_pages, on_starts) = (self.upload(&list), self.upload(&starts));
        let rows = n * (shape.heads + 2 * shape.kv_heads) * shape.width;
        let mut arguments =
            vec![of(&out, out.len()), of(qkv, rows), of(&on_pages, list.len()), of(&on_starts, n + 1)];
        arguments.extend([shape.heads, shape.kv_heads, shape.width, shape.window, layer].map(size));
        arguments.push(Arg::Float(shape.scale));
        let shared = (WARPS + 1) * shape.width + WARPS * (PAGE_TOKENS + 2);
        let threads =
            Threads { grid: (n, shape.heads), block: 32 * WARPS as u32, shared_bytes: 4 * shared as u32 };
        let name = match format {
            Format::F32 => "decode_attention",
            Format::Bf16 => "decode_attention_bf16",
        };
        self.launch(name, threads, arguments);
        out
    }
}
