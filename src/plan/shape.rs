//! A decoder by its shape alone: what its passes ask of memory, and how much they compute.

use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::row_blocks::block_rows;
use rlt_model::adapter::{LoraSettings, adapter_slots};
use rlt_model::batch::{Continuation, GroupPart, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::parameters::{Slot, slots};
use rlt_model::training_pass::Keep;

use super::pool::{Block, Pool};

/// Output features of a panel of packed weights.
const PANEL: usize = 32;
/// Keys of a tile of attention in bf16.
const TILE_KEYS: usize = 128;
/// Features of frozen weights that the backward pass widens at a time.
const WIDENED: usize = 1024;
/// Logits that the head holds at a time, and how many rows it takes.
const HEAD_ELEMENTS: usize = 16 << 20;
/// Tokens of a page of keys and values.
const PAGE_TOKENS: usize = 64;
/// Rows of prompts that are computed together.
const PREFILL_ROWS: usize = 4096;

/// A decoder's shape, and what of it is trained.
#[derive(Debug, Clone)]
pub struct Shape {
    config: ModelConfig,
    /// Whether matrices are kept in bf16.
    bf16: bool,
    lora: Option<LoraSettings>,
    /// Number format of the products.
    arithmetic: Arithmetic,
}

/// Rows that go through a model together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroBatch {
    /// Rows computed.
    pub rows: usize,
    /// Tokens that are scored.
    pub targets: usize,
    /// Keys seen, summed over the rows.
    pub keys: u64,
    /// Panels of keys that attention packs: whole ones for every segment.
    pub panels: usize,
    /// Tiles of keys that attention in bf16 lays out.
    pub tiles: usize,
    /// Groups: each is a family of segments, over which attention goes backward by itself.
    pub families: usize,
    /// Panels of the longest of them.
    pub family_panels: usize,
}

impl MicroBatch {
    /// What a packed batch of `groups` comes to.
    pub fn of(groups: &[GroupPart]) -> Self {
        let mut batch = Self {
            rows: 0,
            targets: 0,
            keys: 0,
            panels: 0,
            tiles: 0,
            families: groups.len(),
            family_panels: 0,
        };
        for group in groups {
            batch.rows += group.n_rows();
            let (prefix, before) = (group.prefix.len(), batch.panels);
            batch.keys += triangle(prefix);
            batch.panels += prefix.div_ceil(PANEL);
            batch.tiles += prefix.div_ceil(TILE_KEYS);
            for continuation in group.continuations {
                let n = continuation.n_rows();
                batch.targets += continuation.n_scored();
                batch.keys += (prefix * n) as u64 + triangle(n);
                batch.panels += n.div_ceil(PANEL);
                batch.tiles += n.div_ceil(TILE_KEYS);
            }
            batch.family_panels = batch.family_panels.max(batch.panels - before);
        }
        batch
    }

    /// Prompts of these lengths, all but the last token of each.
    pub fn prompts(lengths: &[usize]) -> Self {
        let prompt = |&length: &usize| ScoringGroup {
            prefix: rlt_model::ids::TokenIds::default(),
            continuations: vec![Continuation::whole(vec![0; length])],
        };
        Self {
            targets: 0,
            ..Self::of(
                &lengths.iter().map(prompt).collect::<Vec<_>>().iter().map(Into::into).collect::<Vec<_>>(),
            )
        }
    }
}

/// Elements of a factor of a product in bf16, two numbers each, filled up to whole tiles.
fn half_words(columns: usize, inner: usize) -> usize {
    columns.next_multiple_of(PANEL) * inner.next_multiple_of(PANEL) / 2
}

/// A chain of row-wise operations over `m` rows: `work(pool, rows)`, for as many blocks of rows as run at the same time,
/// takes and returns what one of them holds. Where rows are cut into blocks, each has copies of `copied` numbers a row
/// besides.
fn chain(pool: &mut Pool, m: usize, copied: &[usize], mut work: impl FnMut(&mut Pool, usize) -> Vec<Block>) {
    let rows = block_rows(m).min(m);
    let at_once = m.div_ceil(rows.max(1)).min(rayon::current_num_threads());
    let mut held = Vec::new();
    for _ in 0..at_once {
        if rows < m {
            held.extend(copied.iter().map(|columns| pool.take(rows * columns)));
        }
        held.extend(work(pool, rows));
    }
    pool.give_all(held);
}

/// `1 + 2 + .. + n`.
fn triangle(n: usize) -> u64 {
    let n = n as u64;
    n * (n + 1) / 2
}

/// A matrix of a block: output features, input features, output features of each of its terms.
struct Matrix {
    n: usize,
    k: usize,
    terms: Vec<usize>,
}

impl Shape {
    /// A decoder of `config`, of bf16 weights or f32 ones, with or without an adapter.
    pub fn new(config: ModelConfig, bf16: bool, lora: Option<LoraSettings>, arithmetic: Arithmetic) -> Self {
        Self { config, bf16, lora, arithmetic }
    }

    /// The shape as it is read only: without an adapter.
    #[must_use]
    pub fn base(&self) -> Self {
        Self { lora: None, ..self.clone() }
    }

    fn slot_bytes(&self, slot: &Slot) -> u64 {
        let (bf16, rows) =
            (self.bf16 && slot.decay, if slot.decay { slot.rows.next_multiple_of(PANEL) } else { slot.rows });
        if bf16 { 2 * (rows * slot.cols) as u64 } else { 4 * (slot.rows * slot.cols) as u64 }
    }

    /// Names and shapes of what is trained.
    pub fn trained(&self) -> Vec<Slot> {
        match &self.lora {
            Some(settings) => adapter_slots(&self.config, settings),
            None => slots(&self.config),
        }
    }

    /// Takes the weights, reading them from files of numbers of `file_size` bytes, whose pages count while a
    /// tensor is read.
    pub fn load(&self, pool: &mut Pool, file_size: usize) -> Vec<Block> {
        let mut blocks = Vec::new();
        for slot in slots(&self.config) {
            let numbers = slot.rows * slot.cols;
            blocks.push(pool.take(self.slot_bytes(&slot) as usize / 4));
            pool.pass((numbers * file_size) as u64);
        }
        if self.lora.is_some() {
            blocks.extend(self.trained().iter().map(|slot| pool.take(slot.rows * slot.cols)));
        }
        blocks
    }

    /// Query, key and value columns together.
    fn qkv(&self) -> usize {
        (self.config.n_heads + 2 * self.config.n_kv_heads) * self.config.head_dim
    }

    fn matrices(&self) -> [Matrix; 4] {
        let c = &self.config;
        let (d, f, q) = (c.hidden_size, c.intermediate_size, c.n_heads * c.head_dim);
        let kv = c.n_kv_heads * c.head_dim;
        let terms = |of: &[(&str, usize)]| match &self.lora {
            None => Vec::new(),
            Some(lora) => {
                let has = |name: &str| lora.targets.iter().any(|target| target.module() == name);
                of.iter().filter(|(name, _)| has(name)).map(|(_, n)| *n).collect()
            }
        };
        let qkv = terms(&[("q_proj", q), ("k_proj", kv), ("v_proj", kv)]);
        let gate_up = terms(&[("gate_proj", f), ("up_proj", f)]);
        [
            Matrix { n: self.qkv(), k: d, terms: qkv },
            Matrix { n: d, k: q, terms: terms(&[("o_proj", d)]) },
            Matrix { n: 2 * f, k: d, terms: gate_up },
            Matrix { n: d, k: f, terms: terms(&[("down_proj", d)]) },
        ]
    }

    fn rank(&self) -> usize {
        self.lora.as_ref().map_or(0, |lora| lora.rank)
    }

    fn packed_elements(&self, n: usize, k: usize) -> usize {
        match self.arithmetic {
            Arithmetic::Bf16 => half_words(n, k),
            // Weights kept in bf16 lie in the panels that products read.
            Arithmetic::F32 if self.bf16 => 0,
            Arithmetic::F32 => n.next_multiple_of(PANEL) * k,
        }
    }

    /// Takes, for a moment, what the gradient of the input of a product by n x k weights lays out.
    fn lay_out_backward(&self, pool: &mut Pool, n: usize, k: usize) {
        match (self.arithmetic, self.bf16) {
            (Arithmetic::F32, false) => {}
            (Arithmetic::F32, true) => pool.touch(k * WIDENED.min(n)),
            (Arithmetic::Bf16, false) => pool.touch(half_words(k, n)),
            (Arithmetic::Bf16, true) => {
                let n = WIDENED.min(n);
                let wide = pool.take(k * n);
                pool.touch(half_words(k, n));
                pool.give(wide);
            }
        }
    }

    /// Takes the packed weights of a block that is only read.
    fn packed_block(&self, pool: &mut Pool) -> Vec<Block> {
        let mut packed = Vec::new();
        for matrix in self.matrices() {
            packed.push(pool.take(self.packed_elements(matrix.n, matrix.k)));
            for n in matrix.terms {
                packed.push(pool.take(self.rank().next_multiple_of(PANEL) * matrix.k));
                packed.push(pool.take(n.next_multiple_of(PANEL) * self.rank()));
            }
        }
        packed
    }

    /// The low-rank terms of a product of `m` rows.
    fn terms(&self, pool: &mut Pool, matrix: &Matrix, m: usize) {
        for &n in &matrix.terms {
            let u = pool.take(m * self.rank());
            pool.touch(m * n);
            pool.give(u);
        }
    }

    /// The gradient of a product's input; returns it.
    fn product_backward(&self, pool: &mut Pool, matrix: &Matrix, m: usize) -> Block {
        if self.arithmetic == Arithmetic::Bf16 && matrix.terms.is_empty() {
            // The input, for the gradient of the weights.
            pool.touch(half_words(matrix.k, m));
        }
        let dx = pool.take(m * matrix.k);
        self.lay_out_backward(pool, matrix.n, matrix.k);
        // Gradients inside the terms wait for the input.
        let through: Vec<Block> = matrix.terms.iter().map(|_| pool.take(m * self.rank())).collect();
        self.terms(pool, matrix, m);
        pool.give_all(through);
        dx
    }

    /// One block forward: its output and what is saved of it.
    fn block_forward(&self, pool: &mut Pool, batch: MicroBatch) -> (Block, Vec<Block>) {
        let (c, m) = (&self.config, batch.rows);
        let (d, f) = (c.hidden_size, c.intermediate_size);
        let [qkv, attention_out, gate_up, down] = &self.matrices();
        let packed = self.packed_block(pool);
        let normed = pool.take(m * d);
        let mut saved = vec![pool.take(m), pool.take(m * self.qkv())];
        self.terms(pool, qkv, m);
        pool.give(normed);
        if c.qk_norm {
            saved.push(pool.take(m * self.qkv()));
        }
        saved.extend(self.attention(pool, batch));
        saved.push(pool.take(m * d));
        self.terms(pool, attention_out, m);
        let out = pool.take(m * d);
        let normed = pool.take(m * d);
        saved.extend([pool.take(m), pool.take(m * 2 * f)]);
        self.terms(pool, gate_up, m);
        pool.give(normed);
        let activated = pool.take(m * f);
        self.terms(pool, down, m);
        pool.give_all(packed.into_iter().chain([activated]));
        (out, saved)
    }

    /// Attention forward: its output, and the logs of its denominators.
    fn attention(&self, pool: &mut Pool, batch: MicroBatch) -> [Block; 2] {
        let c = &self.config;
        let out = [c.n_heads * c.head_dim, c.n_heads].map(|cols| pool.take(batch.rows * cols));
        // Keys and values are packed by panels, or rounded by tiles.
        let padded = c.head_dim.next_multiple_of(PANEL);
        let packed: Vec<Block> = match self.arithmetic {
            Arithmetic::F32 => [c.head_dim, padded]
                .map(|columns| pool.take(batch.panels * PANEL * c.n_kv_heads * columns))
                .into(),
            Arithmetic::Bf16 => vec![pool.take(batch.tiles * c.n_kv_heads * TILE_KEYS * padded)],
        };
        pool.give_all(packed);
        out
    }

    fn block_backward(&self, pool: &mut Pool, batch: MicroBatch, saved: Vec<Block>) {
        let (c, m) = (&self.config, batch.rows);
        let [qkv, attention_out, gate_up, down] = self.matrices();
        // The activations come to lie where their gradient was.
        let dactivated = self.product_backward(pool, &down, m);
        pool.give(dactivated);
        let normed = pool.take(m * c.hidden_size);
        let dnormed = self.product_backward(pool, &gate_up, m);
        pool.give(normed);
        pool.give(dnormed);
        let dattended = self.product_backward(pool, &attention_out, m);
        let dqkv = pool.take(m * self.qkv());
        if self.arithmetic == Arithmetic::F32 {
            // Of each task: keys and values across, keys once more, and the gradients of both.
            let tasks = (batch.families * c.n_kv_heads).min(rayon::current_num_threads());
            let padded = c.head_dim.next_multiple_of(PANEL);
            let columns = [c.head_dim, c.head_dim, padded, padded, padded];
            let held: Vec<Block> = (0..tasks)
                .flat_map(|_| columns)
                .map(|columns| pool.take(batch.family_panels * PANEL * columns))
                .collect();
            pool.give_all(held);
        }
        pool.give(dattended);
        let normed = pool.take(m * c.hidden_size);
        let dnormed = self.product_backward(pool, &qkv, m);
        pool.give_all([dqkv, normed, dnormed].into_iter().chain(saved));
    }

    /// The head over `targets` rows, with or without its backward pass.
    fn head(&self, pool: &mut Pool, targets: usize, learns: bool) {
        let (v, d) = (self.config.vocab_size, self.config.hidden_size);
        let chunk = (HEAD_ELEMENTS / v).clamp(64, 512);
        for rows in [chunk.min(targets), targets % chunk] {
            let blocks = [pool.take(rows * d), pool.take(rows * v)];
            pool.touch(self.packed_elements(v, d));
            if learns {
                let dh = pool.take(rows * d);
                self.lay_out_backward(pool, v, d);
                pool.give(dh);
            }
            pool.give_all(blocks);
        }
    }

    /// The blocks of a forward pass that keeps nothing, beside their input, in whose place they leave their output. Of
    /// prompts, whose continuations are `decoded` next, the weights are packed already, and of the last block only keys and
    /// values are wanted.
    fn read_blocks(&self, pool: &mut Pool, batch: MicroBatch, decoded: bool) {
        let (c, m) = (&self.config, batch.rows);
        let (d, f, q) = (c.hidden_size, c.intermediate_size, c.n_heads * c.head_dim);
        let [qkv_weights, attention_out, gate_up, down] = &self.matrices();
        for layer in 0..c.n_layers {
            let packed = if decoded { Vec::new() } else { self.packed_block(pool) };
            let qkv = pool.take(m * self.qkv());
            chain(pool, m, &[d, self.qkv()], |pool, rows| {
                let normed = [rows * d, rows].map(|elements| pool.take(elements));
                self.terms(pool, qkv_weights, rows);
                normed.into()
            });
            if decoded && layer + 1 == c.n_layers {
                return pool.give(qkv);
            }
            let attended = self.attention(pool, batch);
            pool.give(qkv);
            chain(pool, m, &[d, q], |pool, rows| {
                self.terms(pool, attention_out, rows);
                let (normed, inverse) = (pool.take(rows * d), pool.take(rows));
                let between = pool.take(rows * 2 * f);
                self.terms(pool, gate_up, rows);
                pool.give(normed);
                let activated = pool.take(rows * f);
                self.terms(pool, down, rows);
                vec![inverse, between, activated]
            });
            pool.give_all(packed.into_iter().chain(attended));
        }
    }

    /// Log-probabilities of a batch.
    pub fn score(&self, pool: &mut Pool, batch: MicroBatch) {
        let (m, d) = (batch.rows, self.config.hidden_size);
        let x = pool.take(m * d);
        self.read_blocks(pool, batch, false);
        let hidden = pool.take(m * d);
        pool.give(x);
        self.head(pool, batch.targets, false);
        pool.give(hidden);
    }

    /// Forward and backward pass of a batch.
    pub fn learn(&self, pool: &mut Pool, batch: MicroBatch, keep: Keep) {
        let (m, d) = (batch.rows, self.config.hidden_size);
        let mut x = pool.take(m * d);
        let (mut inputs, mut kept) = (Vec::new(), Vec::new());
        for _ in 0..self.config.n_layers {
            let (out, saved) = self.block_forward(pool, batch);
            inputs.push(std::mem::replace(&mut x, out));
            match keep {
                Keep::Activations => kept.push(saved),
                Keep::BlockInputs => pool.give_all(saved),
            }
        }
        let around = [pool.take(m * d), pool.take(m), pool.take(m * d)];
        self.head(pool, batch.targets, true);
        let dx = pool.take(m * d);
        while let Some(input) = inputs.pop() {
            let saved = kept.pop().unwrap_or_else(|| {
                let (out, saved) = self.block_forward(pool, batch);
                pool.give(out);
                saved
            });
            self.block_backward(pool, batch, saved);
            pool.give(input);
        }
        pool.give_all(around.into_iter().chain([dx, x]));
    }

    /// Completions of `new` tokens, `n` after each of `prompts`, at most `running` at a time.
    pub fn generate(&self, pool: &mut Pool, prompts: &[usize], n: usize, new: usize, running: usize) {
        let c = &self.config;
        let mut packed: Vec<Block> = Vec::new();
        for _ in 0..c.n_layers {
            packed.extend(self.packed_block(pool));
        }
        packed.push(pool.take(self.packed_elements(c.vocab_size, c.hidden_size)));

        let of_token = match self.arithmetic {
            Arithmetic::F32 => 2 * c.head_dim,
            // Halves of elements; values are filled up to whole panels.
            Arithmetic::Bf16 => c.head_dim.div_ceil(2) + c.head_dim.next_multiple_of(PANEL) / 2,
        };
        let page = c.n_layers * c.n_kv_heads * of_token * PAGE_TOKENS;
        let mut rest = prompts;
        while !rest.is_empty() {
            // Prompts that run at the same time; the first ones are computed together.
            let (mut together, mut rows) = (0, 0);
            while together < rest.len()
                && (together == 0 || (rows + rest[together] <= PREFILL_ROWS && together * n < running))
            {
                rows += rest[together];
                together += 1;
            }
            let now;
            (now, rest) = rest.split_at(together);
            let batch = MicroBatch::prompts(now);
            let x = pool.take(batch.rows * c.hidden_size);
            self.read_blocks(pool, batch, true);
            pool.give(x);
            let sequences = (together * n).min(running);
            let mut pages: Vec<Block> = Vec::new();
            for prompt in now {
                pages.extend((0..prompt.div_ceil(PAGE_TOKENS)).map(|_| pool.take(page)));
            }
            for _ in 0..sequences * new.div_ceil(PAGE_TOKENS) {
                pages.push(pool.take(page));
            }
            let m = sequences;
            let step =
                [c.hidden_size, self.qkv(), 2 * c.intermediate_size, c.intermediate_size, c.vocab_size];
            let blocks: Vec<Block> = step.iter().map(|cols| pool.take(m * cols)).collect();
            // Logits of the prompts' last tokens wait in the allocator's memory.
            pool.pass((4 * together * c.vocab_size) as u64);
            pool.give_all(blocks.into_iter().chain(pages));
        }
        pool.give_all(packed);
    }

    /// Writing the model as it is used afterwards: bf16 matrices are widened, and terms merged, one matrix at a time.
    pub fn save(&self, pool: &mut Pool) {
        if self.bf16 {
            let largest = slots(&self.config).iter().map(|slot| slot.rows * slot.cols).max();
            pool.pass(4 * largest.unwrap_or(0) as u64);
        }
        for matrix in self.matrices().iter().filter(|matrix| !matrix.terms.is_empty()) {
            let merged = pool.take(matrix.n * matrix.k);
            pool.touch(matrix.terms.iter().max().unwrap_or(&0) * matrix.k);
            pool.pass((4 * matrix.n * matrix.k) as u64);
            pool.give(merged);
        }
    }

    /// Numbers of the largest tensor that is trained.
    pub fn largest_trained(&self) -> usize {
        self.trained().iter().map(|slot| slot.rows * slot.cols).max().unwrap_or(0)
    }

    /// Multiply-adds of one row's products with a block's matrices, over all blocks.
    fn row_work(&self) -> f64 {
        let per_matrix =
            |m: &Matrix| m.n * m.k + m.terms.iter().map(|n| self.rank() * (m.k + n)).sum::<usize>();
        (self.config.n_layers * self.matrices().iter().map(per_matrix).sum::<usize>()) as f64
    }

    fn attention_work(&self, keys: u64) -> f64 {
        2.0 * keys as f64 * (self.config.n_heads * self.config.head_dim * self.config.n_layers) as f64
    }

    fn head_work(&self, targets: usize) -> f64 {
        targets as f64 * (self.config.vocab_size * self.config.hidden_size) as f64
    }

    /// Multiply-adds of scoring a batch.
    pub fn score_work(&self, batch: MicroBatch) -> f64 {
        self.row_work() * batch.rows as f64 + self.attention_work(batch.keys) + self.head_work(batch.targets)
    }

    /// Multiply-adds of learning from a batch.
    pub fn learn_work(&self, batch: MicroBatch, keep: Keep) -> f64 {
        // The gradient of frozen weights is not computed.
        let passes = if self.lora.is_some() { 2.0 } else { 3.0 };
        let again = if keep == Keep::BlockInputs { 1.0 } else { 0.0 };
        self.row_work() * batch.rows as f64 * (passes + again)
            + self.attention_work(batch.keys) * (3.5 + again)
            + self.head_work(batch.targets) * passes
    }

    /// Multiply-adds of a decoding step of one sequence.
    pub fn step_work(&self, keys: u64) -> f64 {
        self.row_work() + self.attention_work(keys) + self.head_work(1)
    }

    /// Width, and the widest matrix's output features: what speed is measured on.
    pub fn product_shape(&self) -> (usize, usize) {
        (self.config.hidden_size, 2 * self.config.intermediate_size)
    }

    /// Whether matrices are kept in bf16.
    pub fn is_bf16(&self) -> bool {
        self.bf16
    }

    /// The number format of the products.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }
}
