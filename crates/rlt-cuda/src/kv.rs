//! Stored keys and values, and attention of the newest tokens (`kernels/kv.cu`).

use std::marker::PhantomData;

use crate::attention::AttentionShape;
use crate::gpu::Gpu;
use crate::launch::{Arg, Threads, of, size};
use crate::memory::Memory;
use crate::plans::Format;

/// Tokens of a page, as the kernels have it.
const PAGE_TOKENS: usize = 64;
const WARPS: usize = 4;
/// Queries of a unit of work, as the kernels have it.
const QUERIES: usize = 8;

/// Pages of a part: so few that one long sequence keeps a GPU busy, so many that the parts are little beside them. Which pages
/// go together depends on this and on a sequence's own length, and so do its bits.
const PART_PAGES: usize = 4;

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

/// Sequences one after another that continue the same prompt: its pages are read once for all of them.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// The prompt's pages, in order.
    pub prompt: Vec<Page<'a>>,
    /// Each sequence's own, in order; the newest token is the last of the last one.
    pub own: Vec<Vec<Page<'a>>>,
}

/// Where the newest tokens of some sequences go, on a GPU, for all layers.
pub struct SlotTable<'a> {
    /// Four numbers each.
    slots: Memory,
    layout: PageLayout,
    /// Rows that are read.
    rows: usize,
    pages: PhantomData<&'a Memory>,
}

/// What the newest tokens of some sequences attend to, on a GPU, for all layers.
pub struct PageTable<'a> {
    /// Four numbers each.
    pages: Memory,
    /// Six numbers each.
    units: Memory,
    /// Two numbers each, and one more.
    sequences: Memory,
    parts: usize,
    layout: PageLayout,
    held: PhantomData<&'a Memory>,
}

/// How pages lie.
#[derive(Debug, Clone, Copy)]
pub struct PageLayout {
    /// Layers whose keys and values they hold.
    pub layers: usize,
    /// Heads, and their width; of a window nothing is asked.
    pub shape: AttentionShape,
    /// How they hold numbers.
    pub format: Format,
}

impl PageLayout {
    /// An address and two numbers, as the kernels read them.
    fn entry(self, memory: &Memory, a: usize, b: usize) -> [u32; 4] {
        let head = page_words(self.shape.width, self.format);
        let address = memory.address(self.layers * self.shape.kv_heads * head);
        [address as u32, (address >> 32) as u32, a as u32, b as u32]
    }

    /// Panics unless layer `layer` of `shape` lies in pages like these.
    fn holds(&self, layer: usize, shape: AttentionShape) {
        let of = |shape: AttentionShape| (shape.heads, shape.kv_heads, shape.width);
        assert!(layer < self.layers && of(shape) == of(self.shape), "pages of other layers");
    }
}

/// Parts of `pages` pages of a prompt or of a sequence's own.
fn parts_of(pages: usize) -> usize {
    pages.div_ceil(PART_PAGES)
}

/// Numbers of the scratch memory that [`Gpu::decode_attention`] takes for sequences of so many tokens, of a prompt and of their own:
/// weighted values, the largest score and the sum of weights, of each part and head.
pub fn part_numbers(tokens: impl Iterator<Item = (usize, usize)>, heads: usize, width: usize) -> usize {
    let parts = |tokens: usize| parts_of(tokens.div_ceil(PAGE_TOKENS));
    tokens.map(|(prompt, own)| parts(prompt) + parts(own)).sum::<usize>() * heads * (width + 2)
}

impl Gpu {
    /// Uploads where tokens go. Pages of different slots may be the same one.
    ///
    /// # Panics
    /// If a page is smaller.
    pub fn slot_table<'a>(&self, slots: &[Slot<'a>], layout: PageLayout) -> SlotTable<'a> {
        assert!(slots.iter().all(|slot| slot.token < PAGE_TOKENS), "tokens of a page");
        let list: Vec<u32> =
            slots.iter().flat_map(|slot| layout.entry(slot.page, slot.token, slot.row)).collect();
        let rows = slots.iter().map(|slot| slot.row + 1).max().unwrap_or(0);
        SlotTable { slots: self.upload(&list), layout, rows, pages: PhantomData }
    }

    /// Stores keys and values of rows of `qkv`, rounded to the pages' format, in layer `layer` of pages, which are written to though
    /// others read them, too.
    ///
    /// # Panics
    /// If a row is not there, or pages have no such layer.
    pub fn store_tokens(&self, table: &SlotTable, qkv: &Memory, layer: usize, shape: AttentionShape) {
        table.layout.holds(layer, shape);
        let numbers = table.rows * (shape.heads + 2 * shape.kv_heads) * shape.width;
        let mut arguments = vec![of(&table.slots, table.slots.len()), of(qkv, numbers)];
        arguments.extend([shape.heads, shape.kv_heads, shape.width, layer].map(size));
        let threads = Threads { grid: (table.slots.len() / 4, shape.kv_heads), block: 128, shared_bytes: 0 };
        let name = match table.layout.format {
            Format::F32 => "store_tokens",
            Format::Bf16 => "store_tokens_bf16",
        };
        self.launch(name, threads, arguments);
    }

    /// Uploads what the newest tokens of sequences attend to, and cuts it into units of work: as many queries as one warp takes, and the
    /// pages of one part. Units of the same pages come one after another.
    ///
    /// # Panics
    /// If a sequence has no token of its own, or a page is smaller.
    pub fn page_table<'a>(&self, runs: &[Run<'a>], layout: PageLayout) -> PageTable<'a> {
        let per_kv = layout.shape.heads / layout.shape.kv_heads;
        let (mut pages, mut units, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        let mut parts = 0;
        // The units of some pages, which `n` sequences from `sequence` on have as their parts from `chunk` on.
        let mut read = |list: &[Page<'a>], sequence: usize, n: usize, chunk: usize| {
            for (i, part) in list.chunks(PART_PAGES).enumerate() {
                for first in (0..n * per_kv).step_by(QUERIES) {
                    let queries = QUERIES.min(n * per_kv - first);
                    let unit = [pages.len() / 4, part.len(), sequence, first, queries, chunk + i];
                    units.extend(unit.map(|number| number as u32));
                }
                assert!(part.iter().all(|page| page.count <= PAGE_TOKENS), "tokens of a page");
                pages.extend(part.iter().flat_map(|page| layout.entry(page.numbers, page.first, page.count)));
            }
        };
        for run in runs {
            let first = sequences.len() / 2;
            let of_prompt = parts_of(run.prompt.len());
            read(&run.prompt, first, run.own.len(), 0);
            for own in &run.own {
                let newest = own.last().filter(|page| page.count > 0).expect("a token of its own");
                read(own, sequences.len() / 2, 1, of_prompt);
                sequences.extend([newest.first + newest.count - 1, parts].map(|number| number as u32));
                parts += of_prompt + parts_of(own.len());
            }
        }
        sequences.extend([0, parts as u32]);
        PageTable {
            pages: self.upload(&pages),
            units: self.upload(&units),
            sequences: self.upload(&sequences),
            parts,
            layout,
            held: PhantomData,
        }
    }

    /// Attention of the newest token of each sequence of a table: row `i` of `qkv` is that of sequence `i`. Computed in f32, whatever the
    /// pages hold. Sequences x heads.
    ///
    /// # Panics
    /// If a row is not there, or pages have no such layer.
    pub fn decode_attention(
        &self,
        qkv: &Memory,
        table: &PageTable,
        layer: usize,
        shape: AttentionShape,
    ) -> Memory {
        assert!(shape.width <= 256, "heads of {} columns, where 256 are the most", shape.width);
        table.layout.holds(layer, shape);
        let (n, n_units) = (table.sequences.len() / 2 - 1, table.units.len() / 6);
        let sequences = of(&table.sequences, table.sequences.len());
        let numbers = table.parts * shape.heads * (shape.width + 2);
        let (parts, out) = (self.take(numbers), self.take(n * shape.heads * shape.width));
        let rows = n * (shape.heads + 2 * shape.kv_heads) * shape.width;
        let mut arguments = vec![
            of(&parts, numbers),
            of(qkv, rows),
            of(&table.units, table.units.len()),
            of(&table.pages, table.pages.len()),
            sequences,
            size(n_units),
        ];
        arguments.extend([shape.heads, shape.kv_heads, shape.width, shape.window, layer].map(size));
        arguments.push(Arg::Float(shape.scale));
        let grid = (n_units.div_ceil(WARPS), shape.kv_heads);
        let shared = 4 * WARPS * QUERIES * (shape.width + PAGE_TOKENS);
        let threads = Threads { grid, block: 32 * WARPS as u32, shared_bytes: shared as u32 };
        let name = match (table.layout.format, shape.width) {
            (Format::F32, ..=128) => "decode_attention_128",
            (Format::F32, _) => "decode_attention_256",
            (Format::Bf16, ..=128) => "decode_attention_bf16_128",
            (Format::Bf16, _) => "decode_attention_bf16_256",
        };
        self.launch(name, threads, arguments);
        let mut arguments = vec![of(&out, out.len()), of(&parts, numbers), sequences];
        arguments.extend([shape.heads, shape.width].map(size));
        let threads = Threads { grid: (n, shape.heads), block: 32 * WARPS as u32, shared_bytes: 0 };
        self.launch("join_parts", threads, arguments);
        out
    }
}
