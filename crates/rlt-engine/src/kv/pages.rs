//! Pages of keys and values, and the sequences that hold them.

use std::ops::Range;
use std::sync::Arc;

use pulp::bytemuck;
use rlt_cuda::{Page, PageLayout, Slot, page_words};

use super::words::{PAGE_TOKENS, Words};
use crate::arithmetic::Arithmetic;
use crate::attention::AttentionShape;
use crate::device::Device;
use crate::tensor::Tensor;

/// Keys and values of a run of tokens, in all layers.
pub struct KvPages {
    n_layers: usize,
    shape: AttentionShape,
    arithmetic: Arithmetic,
    device: Device,
    /// Per page: per layer and head, keys (head_dim x 64) and values (64 x head_dim); in bf16, two of them in
    /// the bits of each element ([`Words`]).
    pages: Vec<Tensor>,
    len: usize,
}

impl KvPages {
    /// No tokens yet, on `device`.
    pub fn new(device: &Device, n_layers: usize, shape: AttentionShape, arithmetic: Arithmetic) -> Self {
        Self { n_layers, shape, arithmetic, device: device.clone(), pages: Vec::new(), len: 0 }
    }

    /// How pages lie on a GPU.
    pub(super) fn on_gpu(&self) -> PageLayout {
        PageLayout { layers: self.n_layers, shape: self.shape.on_gpu(), format: self.arithmetic.on_gpu() }
    }

    /// Number of tokens stored in every layer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is stored.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that there is room for.
    pub fn room(&self) -> usize {
        self.pages.len() * PAGE_TOKENS - self.len
    }

    /// Makes room for `n` more tokens.
    pub(super) fn reserve(&mut self, n: usize) {
        let head = match (&self.device, self.arithmetic) {
            (device, arithmetic) if device.works_as_gpu() => {
                page_words(self.shape.head_dim, arithmetic.on_gpu())
            }
            (_, Arithmetic::F32) => 2 * self.shape.head_dim * PAGE_TOKENS,
            (_, Arithmetic::Bf16) => Words::of(self.shape).page(),
        };
        while self.pages.len() * PAGE_TOKENS < self.len + n {
            // Stale values beyond the stored tokens are never read.
            let rows = self.n_layers * self.shape.n_kv_heads;
            self.pages.push(Tensor::scratch_on(&self.device, rows, head));
        }
    }

    /// Stores the keys and values of one layer for the tokens `self.len ..`, found in consecutive
    /// rows of `qkv` from `first_row`. [`Self::advance`] makes them count.
    pub fn store(&mut self, layer: usize, qkv: &Tensor, first_row: usize, n: usize) {
        self.reserve(n);
        if let Device::Sizes(sizes) = &self.device {
            return sizes.did_rows(2 * n * self.shape.n_kv_heads * 2 * self.shape.head_dim);
        }
        if let Device::Cuda(gpu) = &self.device {
            let slots: Vec<_> = (0..n).map(|i| self.slot(self.len + i, first_row + i)).collect();
            let table = gpu.slot_table(&slots, self.on_gpu());
            return gpu.store_tokens(&table, qkv.memory(), layer, self.shape.on_gpu());
        }
        let (hd, heads) = (self.shape.head_dim, self.shape.n_kv_heads);
        for i in 0..n {
            let (page, slot) = ((self.len + i) / PAGE_TOKENS, (self.len + i) % PAGE_TOKENS);
            let row = qkv.row(first_row + i);
            let cols = self.pages[page].cols();
            for head in 0..heads {
                let at = (layer * heads + head) * cols;
                let key = &row[self.shape.key_col(head)..][..hd];
                let value = &row[self.shape.value_col(head)..][..hd];
                let of_head = &mut self.pages[page].data_mut()[at..at + cols];
                if self.arithmetic == Arithmetic::Bf16 {
                    Words::of(self.shape).store(bytemuck::cast_slice_mut(of_head), slot, key, value);
                    continue;
                }
                let (keys, values) = of_head.split_at_mut(hd * PAGE_TOKENS);
                for (d, value) in key.iter().enumerate() {
                    keys[d * PAGE_TOKENS + slot] = *value;
                }
                values[slot * hd..(slot + 1) * hd].copy_from_slice(value);
            }
        }
    }

    /// Where the token at `position` goes on a GPU, from `row`.
    pub(super) fn slot(&self, position: usize, row: usize) -> Slot<'_> {
        let page = self.pages[position / PAGE_TOKENS].memory();
        Slot { page, token: position % PAGE_TOKENS, row }
    }

    /// The pages of the first `n` tokens on a GPU, of which `before` come before them.
    pub(super) fn pages_on_gpu(&self, n: usize, before: usize) -> Vec<Page<'_>> {
        let pages = (0..n).step_by(PAGE_TOKENS).zip(&self.pages).map(|(first, page)| Page {
            numbers: page.memory(),
            first: before + first,
            count: PAGE_TOKENS.min(n - first),
        });
        pages.collect()
    }

    /// Counts `n` tokens that were stored in every layer.
    pub fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// Keys and values of one page in one layer and head.
    pub(super) fn head(&self, page: usize, layer: usize, head: usize) -> Numbers<'_> {
        let row = self.pages[page].row(layer * self.shape.n_kv_heads + head);
        match self.arithmetic {
            Arithmetic::F32 => {
                let (keys, values) = row.split_at(self.shape.head_dim * PAGE_TOKENS);
                Numbers::F32 { keys, values }
            }
            Arithmetic::Bf16 => {
                let words: &[u32] = bytemuck::cast_slice(row);
                let (keys, values) = words.split_at(Words::of(self.shape).keys());
                Numbers::Bf16 { keys, values }
            }
        }
    }
}

/// Keys and values of one page of one head.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    /// head_dim x 64 and 64 x head_dim.
    F32 { keys: &'a [f32], values: &'a [f32] },
    /// The same in words.
    Bf16 { keys: &'a [u32], values: &'a [u32] },
}

/// A sequence that is being decoded: a shared prompt and its own tokens.
pub struct KvSequence {
    /// The prompt's keys and values.
    pub prefix: Arc<KvPages>,
    /// The sequence's own.
    pub own: KvPages,
}

impl KvSequence {
    /// A sequence that continues `prefix` and has no tokens of its own yet.
    pub fn after(prefix: Arc<KvPages>) -> Self {
        let own = KvPages::new(&prefix.device, prefix.n_layers, prefix.shape, prefix.arithmetic);
        Self { prefix, own }
    }

    /// Number of tokens, those of the prompt included.
    pub fn len(&self) -> usize {
        self.prefix.len() + self.own.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Sequences one after another that continue the same prompt, so many at most.
pub(super) fn runs(sequences: &[&KvSequence], most: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for i in 0..sequences.len() {
        match runs.last_mut() {
            Some(run)
                if run.len() < most && Arc::ptr_eq(&sequences[run.start].prefix, &sequences[i].prefix) =>
            {
                run.end = i + 1;
            }
            _ => runs.push(i..i + 1),
        }
    }
    runs
}
