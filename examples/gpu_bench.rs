//! Operations and passes of a model of Qwen2.5-7B's shape on a GPU: what each takes at least, and what it takes.
//!
//! ```text
//! cargo build --release --example gpu_bench
//! target/release/examples/gpu_bench bounds                     # FLOPs, bytes and least time by card, as Markdown: needs no GPU
//! target/release/examples/gpu_bench time attention update:2048 # a JSON line for each item whose name begins so, on the first GPU
//! target/release/examples/gpu_bench bits                       # whether a product's bits are the same twice, and with fewer rows
//! ```
//!
//! Work is counted by the engine's device of sizes, each operand and result once; a bound is what the slower of multiplications
//! and memory takes at the card's published peak (`rlt plan` has the same). `--tiny` takes shapes for the emulated GPU, `--arithmetic
//! f32|bf16` the products' format (bf16), `--layers N` as many blocks (28; fewer where time is short, for both), `--width N` heads of so
//! many features.

#![expect(clippy::print_stdout, reason = "lines and tables are its answer")]

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Write;
use std::time::Instant;

use clap::Parser;
use rlt::plan::{CARDS, Card};
use rlt_engine::Tensor;
use rlt_engine::adamw::AdamW;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::attention::{AttentionShape, Layout, attention, attention_backward};
use rlt_engine::device::Device;
use rlt_engine::embedding::{embed, embed_backward};
use rlt_engine::head::{OutputMatrix, token_logprobs, token_logprobs_with_backward};
use rlt_engine::matmul::Output;
use rlt_engine::moment::Moment;
use rlt_engine::norm::{add_rms_norm, rms_norm, rms_norm_backward};
use rlt_engine::sizes::{Operation, Work};
use rlt_engine::swiglu::{swiglu, swiglu_backward};
use rlt_model::batch::{PackedBatch, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::generate::{GenerationRequest, SamplingParams, generate};
use rlt_model::gradients::Gradients;
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Stop};
use serde_json::json;

/// What the arguments ask for.
#[derive(Parser)]
struct Asked {
    /// `bounds`, or `time` and the beginnings of items' names.
    words: Vec<String>,
    #[arg(long)]
    tiny: bool,
    #[arg(long, default_value = "bf16")]
    arithmetic: String,
    #[arg(long)]
    layers: Option<usize>,
    #[arg(long)]
    width: Option<usize>,
}

/// The sizes of a model, and of what is done with it.
#[derive(Clone, Copy)]
struct Scale {
    hidden: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
    layers: usize,
    arithmetic: Arithmetic,
    /// Rows of a product, a norm and so on.
    rows: usize,
    /// Tokens of a sequence: in an update, and in attention.
    lengths: [usize; 3],
    /// Sequences that are decoded together, the tokens before them, and those that are drawn.
    decoded: [usize; 3],
    prompt: usize,
    drawn: usize,
}

impl Scale {
    fn of(asked: &Asked) -> Self {
        let arithmetic = if asked.arithmetic == "f32" { Arithmetic::F32 } else { Arithmetic::Bf16 };
        let large = Self {
            hidden: 3584,
            feed_forward: 18_944,
            heads: 28,
            kv_heads: 4,
            vocabulary: 152_064,
            layers: 28,
            arithmetic,
            rows: 4096,
            lengths: [2048, 4096, 16_384],
            decoded: [1, 64, 256],
            prompt: 1536,
            drawn: 64,
        };
        let tiny = Self {
            hidden: 32,
            feed_forward: 48,
            heads: 4,
            kv_heads: 2,
            vocabulary: 96,
            layers: 1,
            rows: 24,
            lengths: [16, 24, 40],
            decoded: [1, 2, 4],
            prompt: 12,
            drawn: 3,
            ..large
        };
        let chosen = if asked.tiny { tiny } else { large };
        let (mut heads, mut kv_heads) = (chosen.heads, chosen.kv_heads);
        if let Some(width) = asked.width {
            heads = (chosen.hidden / width).max(1);
            kv_heads = (heads / 7).max(1);
        }
        Self { layers: asked.layers.unwrap_or(chosen.layers), heads, kv_heads, ..chosen }
    }

    fn width(self) -> usize {
        self.hidden / self.heads
    }

    fn shape(self) -> AttentionShape {
        AttentionShape::full(self.heads, self.kv_heads, self.width())
    }

    fn config(self) -> ModelConfig {
        let config = json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
            "hidden_size": self.hidden, "intermediate_size": self.feed_forward, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "vocab_size": self.vocabulary,
            "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0,
            "tie_word_embeddings": false, "use_sliding_window": false, "bos_token_id": 0, "eos_token_id": 0,
        });
        ModelConfig::from_json(&config.to_string()).expect("the shape of a Qwen2")
    }
}

/// Something that is done again and again on a device.
type Ready = Box<dyn FnMut()>;

/// A name, the tokens that it is about, and what is done.
struct Item {
    name: String,
    tokens: usize,
    ready: Box<dyn Fn(&Device) -> Ready>,
}

fn filled(device: &Device, rows: usize, cols: usize) -> Tensor {
    let value = |i: usize| ((i * 7919) % 251) as f32 / 2048.0 - 0.06;
    Tensor::made_on(device, rows, cols, || (0..rows * cols).map(value).collect())
}

fn zeros(device: &Device, rows: usize, cols: usize) -> Tensor {
    Tensor::zeros_on(device, rows, cols)
}

/// Operations of a block, of the head and of the optimizer.
fn operations(scale: Scale) -> Vec<Item> {
    let Scale { hidden, feed_forward, rows, vocabulary, arithmetic, .. } = scale;
    let wide = 2 * feed_forward;
    let mut items = Vec::new();
    let mut add = |name: String, tokens: usize, ready: Box<dyn Fn(&Device) -> Ready>| {
        items.push(Item { name, tokens, ready });
    };
    add(
        format!("product forward {rows}x{wide}x{hidden}"),
        rows,
        Box::new(move |device| {
            let (x, w) = (filled(device, rows, hidden), filled(device, wide, hidden));
            let mut y = zeros(device, rows, wide);
            Box::new(move || arithmetic.nt(&x, &w, &mut y, Output::Replace))
        }),
    );
    add(
        format!("product input gradient {rows}x{hidden}x{wide}"),
        rows,
        Box::new(move |device| {
            let (dy, w) = (filled(device, rows, wide), filled(device, wide, hidden));
            let mut dx = zeros(device, rows, hidden);
            Box::new(move || arithmetic.nn(&dy, &w, &mut dx, Output::Replace))
        }),
    );
    add(
        format!("product weight gradient {wide}x{hidden}x{rows}"),
        rows,
        Box::new(move |device| {
            let (dy, x) = (filled(device, rows, wide), filled(device, rows, hidden));
            let mut dw = zeros(device, wide, hidden);
            Box::new(move || arithmetic.tn(&dy, &x, &mut dw, Output::Accumulate))
        }),
    );
    for tokens in scale.lengths {
        let shape = scale.shape();
        let layout = move || {
            let mut layout = Layout::new();
            layout.push(tokens, None);
            layout
        };
        add(
            format!("attention forward {tokens}"),
            tokens,
            Box::new(move |device| {
                let (qkv, layout) = (filled(device, tokens, shape.qkv_cols()), layout());
                Box::new(move || drop(attention(&qkv, &layout, shape, arithmetic)))
            }),
        );
        add(
            format!("attention backward {tokens}"),
            tokens,
            Box::new(move |device| {
                let (qkv, layout) = (filled(device, tokens, shape.qkv_cols()), layout());
                let (out, log_sums) = attention(&qkv, &layout, shape, arithmetic);
                let dout = filled(device, tokens, out.cols());
                Box::new(move || {
                    drop(attention_backward(&dout, &qkv, &out, &log_sums, &layout, shape, arithmetic));
                })
            }),
        );
    }
    add(
        format!("sum and RMS norm {rows}x{hidden}"),
        rows,
        Box::new(move |device| {
            let (mut x, y) = (filled(device, rows, hidden), zeros(device, rows, hidden));
            let weight = filled(device, 1, hidden);
            Box::new(move || drop(add_rms_norm(&mut x, &y, &weight, 1e-6)))
        }),
    );
    add(
        format!("RMS norm backward {rows}x{hidden}"),
        rows,
        Box::new(move |device| {
            let (x, dy) = (filled(device, rows, hidden), filled(device, rows, hidden));
            let weight = filled(device, 1, hidden);
            let (_, inverse) = rms_norm(&x, &weight, 1e-6);
            let (mut dx, mut dweight) = (zeros(device, rows, hidden), zeros(device, 1, hidden));
            Box::new(move || rms_norm_backward(&dy, &x, &weight, &inverse, &mut dx, Some(&mut dweight)))
        }),
    );
    add(
        format!("SwiGLU {rows}x{wide}"),
        rows,
        Box::new(move |device| {
            let gate_up = filled(device, rows, wide);
            Box::new(move || drop(swiglu(&gate_up)))
        }),
    );
    add(
        format!("SwiGLU backward {rows}x{wide}"),
        rows,
        Box::new(move |device| {
            let (mut dout, mut gate_up) = (filled(device, rows, feed_forward), filled(device, rows, wide));
            Box::new(move || swiglu_backward(&mut dout, &mut gate_up))
        }),
    );
    let ids = move || (0..rows).map(|i| (i * 31 % vocabulary) as u32).collect::<Vec<_>>();
    add(
        format!("embedding {rows}x{hidden}"),
        rows,
        Box::new(move |device| {
            let (ids, table) = (ids(), filled(device, vocabulary, hidden));
            Box::new(move || drop(embed(&ids, &table)))
        }),
    );
    add(
        format!("embedding backward {rows}x{hidden}"),
        rows,
        Box::new(move |device| {
            let (ids, dout) = (ids(), filled(device, rows, hidden));
            let mut dtable = zeros(device, vocabulary, hidden);
            Box::new(move || embed_backward(&ids, &dout, &mut dtable))
        }),
    );
    add(
        format!("log-probability head {rows}x{vocabulary}"),
        rows,
        Box::new(move |device| {
            let (hidden, weight) = (filled(device, rows, hidden), filled(device, vocabulary, hidden));
            let (all, targets): (Vec<usize>, Vec<u32>) = (0..rows).zip(ids()).unzip();
            Box::new(move || {
                let w = OutputMatrix { weight: &weight, arithmetic };
                drop(token_logprobs(&hidden, &all, w, &targets, 0.7));
            })
        }),
    );
    add(
        format!("log-probability head with gradients {rows}x{vocabulary}"),
        rows,
        Box::new(move |device| {
            let (states, weight) = (filled(device, rows, hidden), filled(device, vocabulary, hidden));
            let (mut dstates, mut dw) = (zeros(device, rows, hidden), zeros(device, vocabulary, hidden));
            let (all, targets): (Vec<usize>, Vec<u32>) = (0..rows).zip(ids()).unzip();
            Box::new(move || {
                let w = OutputMatrix { weight: &weight, arithmetic };
                let by = |_, logprobs: &[f32]| Ok::<_, Infallible>(vec![-1e-3; logprobs.len()]);
                let (dstates, dw) = (&mut dstates, Some(&mut dw));
                drop(token_logprobs_with_backward(&states, &all, w, &targets, 0.7, dstates, dw, by));
            })
        }),
    );
    add(
        format!("AdamW, bf16 moments {wide}x{hidden}"),
        0,
        Box::new(move |device| {
            let (mut value, gradient) = (filled(device, wide, hidden), filled(device, wide, hidden));
            let [mut first, mut second] = [0; 2].map(|_| Moment::zeros_bf16(device, wide, hidden));
            let adamw =
                AdamW { learning_rate: 1e-4, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.0 };
            Box::new(move || adamw.update(&mut value, &gradient, &mut first, &mut second, 1.0, 7, false, 0))
        }),
    );
    items
}

/// A sequence all of whose tokens but the first are scored.
fn sequence(scale: Scale, tokens: usize) -> ScoringGroup {
    let ids: Vec<u32> = (0..=tokens).map(|i| (i * 31 % scale.vocabulary) as u32).collect();
    ScoringGroup::single(ids, std::iter::once(1..tokens + 1).collect())
}

/// Passes of the whole model.
fn passes(scale: Scale) -> Vec<Item> {
    let model =
        move |device: &Device| Decoder::random_on(device, &scale.config(), 1).in_arithmetic(scale.arithmetic);
    let mut items = Vec::new();
    for tokens in scale.lengths {
        let ready = move |device: &Device| -> Ready {
            let decoder = model(device);
            let (mut gradients, batch) =
                (Gradients::zeros(&decoder), PackedBatch::new([&sequence(scale, tokens)]));
            Box::new(move || {
                let by = |_, logprobs: &[f32]| Ok::<_, Infallible>(vec![-1e-3; logprobs.len()]);
                drop(decoder.train_micro_batch(&batch, 1.0, Keep::BlockInputs, &mut gradients, by));
            })
        };
        items.push(Item { name: format!("update:{tokens}"), tokens, ready: Box::new(ready) });
    }
    let tokens = scale.lengths[0];
    let ready = move |device: &Device| -> Ready {
        let (decoder, batch) = (model(device), PackedBatch::new([&sequence(scale, tokens)]));
        Box::new(move || drop(decoder.logprobs(&batch, 0.7)))
    };
    items.push(Item { name: format!("score:{tokens}"), tokens, ready: Box::new(ready) });
    for n in scale.decoded {
        let ready = move |device: &Device| -> Ready {
            let decoder = model(device).ending_with(Vec::new());
            let prompt: Vec<u32> = (0..scale.prompt).map(|i| (i * 31 % scale.vocabulary) as u32).collect();
            let request = GenerationRequest { prompt: prompt.into(), n, stream: [1, 1] };
            let params = SamplingParams {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
                min_p: 0.0,
                repetition_penalty: 1.0,
                max_new_tokens: scale.drawn,
                stop_token_ids: Vec::new(),
                max_running: n,
            };
            Box::new(move || {
                let drawn = generate(
                    &decoder,
                    std::slice::from_ref(&request),
                    &params,
                    1,
                    Stop::never(),
                    &mut |_| (),
                );
                assert!(drawn.is_ok(), "the prompt fits the context");
            })
        };
        items.push(Item { name: format!("decode:{n}"), tokens: n * scale.drawn, ready: Box::new(ready) });
    }
    items
}

/// The work of an item.
fn counted(item: &Item) -> [(Operation, Work); Operation::ALL.len()] {
    let device = Device::sizes_of_gpu(None);
    let mut work = (item.ready)(&device);
    let Device::Sizes(sizes) = &device else { unreachable!("it was asked for") };
    sizes.take_work();
    work();
    sizes.take_work()
}

/// Floating-point operations of products and attention, and bytes of everything.
fn totals(work: &[(Operation, Work)]) -> (f64, f64) {
    let multiplies = |operation: &Operation| !matches!(operation, Operation::Rows | Operation::Sending);
    let flops = work.iter().filter(|(kind, _)| multiplies(kind)).map(|(_, work)| 2.0 * work.multiply_adds);
    (flops.sum(), work.iter().map(|(_, work)| work.bytes).sum())
}

fn bounds(items: &[Item], arithmetic: Arithmetic) -> String {
    let names: Vec<&str> = CARDS.iter().map(|card| card.name).collect();
    let columns = "---|".repeat(names.len());
    let mut table = format!("| item | GFLOP | GB | {} |\n|---|---|---|{columns}\n", names.join(" | "));
    for item in items {
        let work = counted(item);
        let (flops, bytes) = totals(&work);
        let of_card = |card: &Card| {
            let s = card.bound_s(&work, arithmetic);
            let rate = if item.name.contains(':') {
                format!(" ({:.0}/s)", item.tokens as f64 / s)
            } else {
                String::new()
            };
            format!("{} ms{rate}", short(1e3 * s))
        };
        let cells: Vec<String> = CARDS.iter().map(of_card).collect();
        let (flops, bytes) = (short(flops / 1e9), short(bytes / 1e9));
        writeln!(table, "| {} | {flops} | {bytes} | {} |", item.name, cells.join(" | ")).expect("text");
    }
    table
}

/// Three digits or so.
fn short(x: f64) -> String {
    match x {
        x if x >= 100.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        x if x >= 0.1 => format!("{x:.2}"),
        x => format!("{x:.4}"),
    }
}

/// Seconds that an item is repeated for at least, and least number of times.
const AT_LEAST: (f64, usize) = (1.0, 3);

/// The median seconds of one `work`, done before the clock is read.
fn seconds(device: &Device, work: &mut dyn FnMut()) -> f64 {
    let mut once = || {
        let before = Instant::now();
        work();
        device.wait();
        before.elapsed().as_secs_f64()
    };
    once();
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < AT_LEAST.1 || start.elapsed().as_secs_f64() < AT_LEAST.0 {
        times.push(once());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn time(items: &[Item], arithmetic: Arithmetic, layers: usize) -> Result<(), Box<dyn Error>> {
    let device = Device::cuda(0)?;
    for item in items {
        let work = counted(item);
        device.release_memory();
        device.take_peak();
        let s = seconds(&device, &mut *(item.ready)(&device));
        let (flops, bytes) = totals(&work);
        let bounds: serde_json::Map<_, _> = CARDS
            .iter()
            .map(|card| (card.name.to_owned(), json!(card.bound_s(&work, arithmetic) / s)))
            .collect();
        println!(
            "{}",
            json!({
                "item": item.name, "ms": 1e3 * s, "tflops": flops / s / 1e12, "gb_s": bytes / s / 1e9,
                "tokens_s": item.tokens as f64 / s, "peak_gib": device.take_peak() as f64 / f64::from(1 << 30),
                "layers": layers, "arithmetic": format!("{arithmetic:?}").to_lowercase(),
                "share_of_bound": bounds,
            })
        );
    }
    Ok(())
}

/// Whether a product of the same rows has the same bits twice, and how many of some rows have them when the others are left out.
fn bits(scale: Scale) -> Result<(), Box<dyn Error>> {
    let Scale { hidden, feed_forward, rows, arithmetic, .. } = scale;
    let device = Device::cuda(0)?;
    let (x, w) = (filled(&device, rows, hidden), filled(&device, 2 * feed_forward, hidden));
    let product = |x: &Tensor| {
        let mut y = zeros(&device, x.rows(), w.rows());
        arithmetic.nt(x, &w, &mut y, Output::Replace);
        y.to_host().iter().map(|number| number.to_bits()).collect::<Vec<_>>()
    };
    let (once, again) = (product(&x), product(&x));
    for few in [1, rows / 16, rows / 2] {
        let some = product(&x.gather_rows(&(0..few).collect::<Vec<_>>()));
        let of_rows = some.chunks(w.rows()).zip(once.chunks(w.rows()));
        let same = of_rows.filter(|(a, b)| a == b).count();
        println!(
            "{}",
            json!({
                "item": "bits of a product", "arithmetic": format!("{arithmetic:?}").to_lowercase(), "rows": rows,
                "same_twice": once == again, "of_rows": few, "same_rows": same,
            })
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let asked = Asked::parse();
    let scale = Scale::of(&asked);
    let (mut items, passes) = (operations(scale), passes(scale));
    items.extend(passes);
    let Some((what, names)) = asked.words.split_first() else {
        return Err("usage: gpu_bench bounds | time [ITEM ..] | bits".into());
    };
    let is_asked =
        |item: &Item| names.is_empty() || names.iter().any(|name| item.name.starts_with(name.as_str()));
    items.retain(is_asked);
    match what.as_str() {
        "bounds" => print!("{}", bounds(&items, scale.arithmetic)),
        "time" => time(&items, scale.arithmetic, scale.layers)?,
        "bits" => bits(scale)?,
        other => return Err(format!("{other}: bounds, time or bits is expected").into()),
    }
    Ok(())
}
