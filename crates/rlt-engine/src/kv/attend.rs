//! Attention of the newest tokens of sequences that are being decoded.

use std::ops::{Deref, Range};

use pulp::{Simd, WithSimd, bytemuck};
use rayon::prelude::*;

use super::pages::{KvPages, KvSequence, Numbers, runs};
use super::tables::page_table;
use super::words::{PAGE_TOKENS, Words};
use crate::attention::AttentionShape;
use crate::bf16::tile_bf16;
use crate::device::Device;
use crate::parallel::SharedMut;
use crate::simd::{self, Vectors};
use crate::sizes::{Operation, Sizes};
use crate::tensor::Tensor;
use crate::tile::{Ahead, PANEL, left_rows, tile};

/// Attention of one new token per sequence, in one layer. Row `i` of `qkv` is the new token of
/// `sequences[i]`, whose key and value have been stored but not counted yet.
///
/// Returns rows x `n_heads * head_dim`. A row's bits depend on its own sequence only.
pub fn decode_attention(
    qkv: &Tensor,
    sequences: &[impl Deref<Target = KvSequence> + Sync],
    layer: usize,
    shape: AttentionShape,
) -> Tensor {
    attention_of(qkv, &sequences.iter().map(Deref::deref).collect::<Vec<_>>(), layer, shape)
}

/// The work: compiled here, however the caller is compiled.
fn attention_of(qkv: &Tensor, sequences: &[&KvSequence], layer: usize, shape: AttentionShape) -> Tensor {
    let features = shape.n_heads * shape.head_dim;
    if let Device::Cuda(gpu) = qkv.device() {
        let out = match sequences.first() {
            Some(first) => {
                let table = page_table(gpu, sequences, first.own.on_gpu());
                gpu.decode_attention(qkv.memory(), &table, layer, shape.on_gpu())
            }
            None => gpu.take(0),
        };
        return Tensor::of_memory(out, qkv.rows(), features);
    }
    let mut out = qkv.beside(qkv.rows(), features);
    if let Device::Sizes(sizes) = qkv.device() {
        count(sizes, sequences, shape);
        return out;
    }
    let base = out.shared_mut();
    // A task is a run of sequences with the same prompt, so that a page of the prompt is read once
    // for all of them; where there are few runs, it is one key/value head of one.
    let runs = runs(sequences, RUN_SEQUENCES);
    let all_heads = runs.len() >= 4 * rayon::current_num_threads();
    let heads_per_task = if all_heads { shape.n_kv_heads } else { 1 };
    let vectors = Vectors::in_use();
    let work = |(run, head): (&Range<usize>, usize)| {
        let (run, kv_heads) = (run.clone(), head..head + heads_per_task);
        vectors.run(HeadRun { qkv, sequences, run, kv_heads, layer, shape, out: base });
    };
    let heads = || (0..shape.n_kv_heads).step_by(heads_per_task);
    let tasks: Vec<_> = runs.iter().flat_map(|run| heads().map(move |head| (run, head))).collect();
    if sequences.len() < 4 {
        tasks.into_iter().for_each(work);
    } else {
        tasks.into_par_iter().for_each(work);
    }
    out
}

/// Counts the work without doing it: a GPU's, or a processor's.
fn count(sizes: &Sizes, sequences: &[&KvSequence], shape: AttentionShape) {
    let (heads, kv_heads) = (shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim);
    let seen = |sequence: &KvSequence| sequence.len() + 1 - shape.first_seen(sequence.len());
    let keys: usize = sequences.iter().map(|sequence| seen(sequence)).sum();
    // A prompt's are read once for all sequences of a run, by the first of them: of a window, others may see a little less.
    let of_prompt =
        |sequence: &KvSequence| sequence.prefix.len().saturating_sub(shape.first_seen(sequence.len()));
    let most = if sizes.is_of_gpu() { usize::MAX } else { RUN_SEQUENCES };
    let again =
        |run: Range<usize>| sequences[run].iter().skip(1).map(|sequence| of_prompt(sequence)).sum::<usize>();
    let read = keys - runs(sequences, most).into_iter().map(again).sum::<usize>();
    // Keys and values; a GPU's pages hold them as they are counted here.
    let format = sequences.first().map(|first| first.own.on_gpu().format);
    let is_halved = sizes.is_of_gpu() && format == Some(rlt_cuda::Format::Bf16);
    let words = if is_halved { read * kv_heads } else { 2 * read * kv_heads };
    sizes.did(Operation::Decode, 2.0 * keys as f64 * heads as f64, words);
    if sizes.is_of_gpu() {
        let tokens = sequences.iter().map(|sequence| (sequence.prefix.len(), sequence.own.len() + 1));
        let parts = rlt_cuda::part_numbers(tokens, shape.n_heads, shape.head_dim);
        drop(Tensor::scratch_on(&Device::Sizes(sizes.clone()), 1, parts));
    }
}

/// Sequences of a task: enough to reuse a page, few enough to leave work for every thread.
const RUN_SEQUENCES: usize = 8;

/// Some key/value heads of a run of sequences.
struct HeadRun<'a> {
    qkv: &'a Tensor,
    sequences: &'a [&'a KvSequence],
    run: Range<usize>,
    kv_heads: Range<usize>,
    layer: usize,
    shape: AttentionShape,
    out: SharedMut,
}

/// One page of one key/value head, and the queries of the task that attend to it.
struct PageHead<'a> {
    numbers: Numbers<'a>,
    /// Position of its first token.
    first: usize,
    /// Tokens that are stored.
    count: usize,
    queries: Range<usize>,
}

/// Running maximum, sum and weighted values of each query of a task (online softmax).
struct Running {
    /// The first position that each sees.
    first_seen: Vec<usize>,
    max: Vec<f32>,
    sum: Vec<f32>,
    /// Queries x head_dim.
    values: Vec<f32>,
}

impl<'a> HeadRun<'a> {
    /// The queries in the order of the task: by key/value head, sequence, query head of that head.
    fn queries(&self) -> Vec<(usize, usize)> {
        let per_kv = self.shape.queries_per_kv();
        let of_head = |kv_head: usize| {
            let heads = kv_head * per_kv..(kv_head + 1) * per_kv;
            self.run.clone().flat_map(move |sequence| heads.clone().map(move |head| (sequence, head)))
        };
        self.kv_heads.clone().flat_map(of_head).collect()
    }

    /// Everything to attend to, in the order of memory.
    fn page_heads(&self) -> Vec<PageHead<'a>> {
        let per_kv = self.shape.queries_per_kv();
        let per_head = self.run.len() * per_kv;
        let prefix = &self.sequences[self.run.start].prefix;
        let own = |sequence: usize| &self.sequences[sequence].own;
        let tokens = self.run.clone().map(|sequence| own(sequence).len() + 1).chain([prefix.len()]);
        let pages: usize = tokens.map(|n| n.div_ceil(PAGE_TOKENS)).sum();
        let mut all = Vec::with_capacity(pages * self.kv_heads.len());
        // `before`: tokens before the first page; `seen`: the first position that any of these queries sees.
        let mut add = |pages: &'a KvPages, n: usize, before: usize, seen: usize, queries: Range<usize>| {
            for page in seen.saturating_sub(before) / PAGE_TOKENS..n.div_ceil(PAGE_TOKENS) {
                let first = before + page * PAGE_TOKENS;
                for (i, head) in self.kv_heads.clone().enumerate() {
                    let numbers = pages.head(page, self.layer, head);
                    let count = PAGE_TOKENS.min(n - page * PAGE_TOKENS);
                    let queries = i * per_head + queries.start..i * per_head + queries.end;
                    all.push(PageHead { numbers, first, count, queries });
                }
            }
        };
        let first_seen = |sequence: usize| self.shape.first_seen(self.sequences[sequence].len());
        add(prefix, prefix.len(), 0, self.run.clone().map(first_seen).min().unwrap_or(0), 0..per_head);
        for (i, sequence) in self.run.clone().enumerate() {
            let own = own(sequence);
            add(own, own.len() + 1, prefix.len(), first_seen(sequence), i * per_kv..(i + 1) * per_kv);
        }
        all
    }
}

impl WithSimd for HeadRun<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hd = self.shape.head_dim;
        let owners = self.queries();
        let queries: Vec<&[f32]> =
            owners.iter().map(|&(sequence, head)| &self.qkv.row(sequence)[head * hd..][..hd]).collect();
        let n = queries.len();
        let seen = owners.iter().map(|&(sequence, _)| self.shape.first_seen(self.sequences[sequence].len()));
        let mut running = Running {
            first_seen: seen.collect(),
            max: vec![self.shape.before_any_score(); n],
            sum: vec![0.0; n],
            values: vec![0.0; n * hd],
        };

        let page_heads = self.page_heads();
        for (i, page) in page_heads.iter().enumerate() {
            let mut ahead = page_heads.get(i + 1);
            let mut first = page.queries.start;
            while first < page.queries.end {
                // Several queries at a time, so that what is read serves all of them.
                first += match page.queries.end - first {
                    1 => self.attend_some::<S, 1>(simd, page, ahead, first, &queries, &mut running),
                    2 | 3 => self.attend_some::<S, 2>(simd, page, ahead, first, &queries, &mut running),
                    _ => self.attend_some::<S, 4>(simd, page, ahead, first, &queries, &mut running),
                };
                ahead = None;
            }
        }
        for (i, (sequence, head)) in owners.into_iter().enumerate() {
            let inverse = 1.0 / running.sum[i];
            // SAFETY: this sequence's row and this head's columns are written by this task alone.
            unsafe {
                let to = self.out.get().add((sequence * self.shape.n_heads + head) * hd);
                for (c, value) in running.values[i * hd..(i + 1) * hd].iter().enumerate() {
                    *to.add(c) = value * inverse;
                }
            }
        }
    }
}

impl<'a> HeadRun<'a> {
    /// One page for `Q` queries from `first` on, with register tiles of as many vectors as `Q` rows of them leave
    /// room for. Returns `Q`.
    #[inline(always)]
    fn attend_some<S: Simd, const Q: usize>(
        &self,
        simd: S,
        page: &PageHead<'a>,
        ahead: Option<&PageHead<'a>>,
        first: usize,
        queries: &[&[f32]],
        running: &mut Running,
    ) -> usize {
        let queries: [&[f32]; Q] = std::array::from_fn(|q| queries[first + q]);
        match (S::F32_LANES, S::REGISTER_COUNT) {
            (16, _) => self.attend::<S, Q, 4, 1, 2>(simd, page, ahead, first, queries, running),
            (8, _) if Q == 4 => self.attend::<S, Q, 2, 2, 2>(simd, page, ahead, first, queries, running),
            (8, _) if Q == 1 => self.attend::<S, Q, 8, 2, 4>(simd, page, ahead, first, queries, running),
            (8, _) => self.attend::<S, Q, 4, 2, 4>(simd, page, ahead, first, queries, running),
            (_, 32) if Q == 4 => self.attend::<S, Q, 4, 4, 4>(simd, page, ahead, first, queries, running),
            (_, 32) => self.attend::<S, Q, 8, 4, 8>(simd, page, ahead, first, queries, running),
            _ => self.attend::<S, Q, 4, 4, 4>(simd, page, ahead, first, queries, running),
        }
        Q
    }

    /// One page for `Q` queries: `KV` vectors of scores at a time, `VV2` vectors of value columns, which are 32 or 16,
    /// and `VV` where only 16 are left.
    #[inline(always)]
    fn attend<S: Simd, const Q: usize, const KV: usize, const VV: usize, const VV2: usize>(
        &self,
        simd: S,
        page: &PageHead<'a>,
        ahead: Option<&PageHead<'a>>,
        first: usize,
        queries: [&[f32]; Q],
        running: &mut Running,
    ) {
        let (hd, scale) = (self.shape.head_dim, self.shape.scale());
        let &PageHead { numbers, count, first: position, .. } = page;
        let ahead = ahead.map(|page| page.numbers);
        let mut weights = [[0.0_f32; PAGE_TOKENS]; Q];
        for at in (0..PAGE_TOKENS).step_by(KV * S::F32_LANES) {
            let left = left_rows(queries, hd);
            // Which tokens the first and the second half of a tile's vectors are of.
            let (sums, halves) = match numbers {
                Numbers::F32 { keys, .. } => {
                    let next = match ahead {
                        Some(Numbers::F32 { keys, .. }) => Ahead::Far(&keys[at..]),
                        _ => Ahead::Nothing,
                    };
                    let sums = tile::<S, Q, KV>(simd, left, &keys[at..], PAGE_TOKENS, hd, next);
                    (sums, [at, at + KV * S::F32_LANES / 2])
                }
                Numbers::Bf16 { keys, .. } => {
                    let next = match ahead {
                        Some(Numbers::Bf16 { keys, .. }) => {
                            let next = bytemuck::cast_slice(&keys[at / 2 * hd..]);
                            Ahead::Share { next, step: KV * S::F32_LANES / 2 }
                        }
                        _ => Ahead::Nothing,
                    };
                    let sums = tile_bf16::<S, Q, KV>(simd, left, &keys[at / 2..], PAGE_TOKENS / 2, hd, next);
                    (sums, [at / 2, PAGE_TOKENS / 2 + at / 2])
                }
            };
            for q in 0..Q {
                for (half, sums) in halves.into_iter().zip(sums[q].chunks_exact(KV / 2)) {
                    let (vectors, _) = S::as_mut_simd_f32s(&mut weights[q][half..][..KV * S::F32_LANES / 2]);
                    vectors.copy_from_slice(sums);
                }
            }
        }
        for q in 0..Q {
            let before = running.max[first + q];
            let hidden = running.first_seen[first + q].saturating_sub(position).min(count);
            weights[q][..hidden].fill(f32::NEG_INFINITY);
            let seen = simd::first_blocks(weights[q].as_chunks_mut().0, count);
            let max = before.max(simd::max_of_blocks(simd, seen) * scale);
            let mut lanes = simd::NO_LANES;
            simd::exp_blocks_scaled(seen, scale, max, &mut lanes);
            let correction = simd::exp(before - max);
            running.max[first + q] = max;
            running.sum[first + q] = running.sum[first + q].mul_add(correction, simd::sum_lanes(lanes));
            for value in &mut running.values[(first + q) * hd..][..hd] {
                *value *= correction;
            }
        }
        let weights_of: [&[f32]; Q] = std::array::from_fn(|q| &weights[q][..]);
        let out = &mut running.values[first * hd..(first + Q) * hd];
        let values = match numbers {
            Numbers::F32 { values, .. } => values,
            Numbers::Bf16 { values, .. } => {
                let stride = Words::of(self.shape).value();
                let width = VV2 * S::F32_LANES;
                for run in (0..hd).step_by(PANEL) {
                    for at in (0..PANEL).step_by(width) {
                        let first = run / 2 + at / 2;
                        let ahead = match ahead {
                            Some(Numbers::Bf16 { values, .. }) => {
                                let next = bytemuck::cast_slice(&values[first * PAGE_TOKENS..]);
                                Ahead::Share { next, step: width / 2 }
                            }
                            _ => Ahead::Nothing,
                        };
                        let (left, words) = (left_rows(weights_of, count), &values[first..]);
                        let sums = tile_bf16::<S, Q, VV2>(simd, left, words, stride, count, ahead);
                        // A run of columns has its first half in the lower, its second in the upper halves of words.
                        for (half, column) in [run + at / 2, run + PANEL / 2 + at / 2].into_iter().enumerate()
                        {
                            for (row, sums) in out.chunks_exact_mut(hd).zip(&sums) {
                                let sums = &sums[half * (VV2 / 2)..][..VV2 / 2];
                                add_columns(simd, row.get_mut(column..).unwrap_or_default(), sums);
                            }
                        }
                    }
                }
                return;
            }
        };
        // 32 columns at a time where there are as many, and registers for them, keep more sums in flight.
        let width = VV2 * S::F32_LANES;
        let (wide, whole) = (hd - hd % width, hd - hd % 16);
        let ahead = |column: usize| match ahead {
            Some(Numbers::F32 { values, .. }) => Ahead::Far(&values[column..]),
            _ => Ahead::Nothing,
        };
        let sizes = (hd, count);
        for column in (0..wide).step_by(width) {
            add_weighted::<S, Q, VV2>(simd, weights_of, values, ahead(column), sizes, column, out);
        }
        for column in (wide..whole).step_by(16) {
            add_weighted::<S, Q, VV>(simd, weights_of, values, ahead(column), sizes, column, out);
        }
        for column in whole..hd {
            for q in 0..Q {
                let sum = (0..count).fold(0.0, |s, j| weights[q][j].mul_add(values[j * hd + column], s));
                out[q * hd + column] += sum;
            }
        }
    }
}

/// Weighs some columns of `count` values (`hd` columns each) and adds them to each query's sums (`Q` x head_dim),
/// from `column` on.
#[inline(always)]
fn add_weighted<S: Simd, const Q: usize, const VV: usize>(
    simd: S,
    weights: [&[f32]; Q],
    values: &[f32],
    ahead: Ahead,
    (hd, count): (usize, usize),
    column: usize,
    out: &mut [f32],
) {
    let left = left_rows(weights, count);
    let sums = tile::<S, Q, VV>(simd, left, &values[column..], hd, count, ahead);
    for (row, sums) in out.chunks_exact_mut(hd).zip(&sums) {
        add_columns(simd, &mut row[column..], sums);
    }
}

/// Adds vectors of sums to as many numbers as there are of them in `out`.
#[inline(always)]
fn add_columns<S: Simd>(simd: S, out: &mut [f32], sums: &[S::f32s]) {
    if let Some(out) = out.get_mut(..sums.len() * S::F32_LANES) {
        for (out, sum) in S::as_mut_simd_f32s(out).0.iter_mut().zip(sums) {
            *out = simd.add_f32s(*out, *sum);
        }
        return;
    }
    let mut all = [0.0_f32; PANEL];
    for (all, sum) in S::as_mut_simd_f32s(&mut all).0.iter_mut().zip(sums) {
        *all = *sum;
    }
    out.iter_mut().zip(all).for_each(|(out, sum)| *out += sum);
}
