//! A Qwen2 forward pass written out in f64, one token after the other: a second implementation to
//! check the fast one and everything above it against.

use std::path::Path;

use rlt::scorer::TokenScorer;
use rlt_model::batch::ScoringGroup;
use rlt_model::config::ModelConfig;
use rlt_model::weights::Weights;

/// A row-major matrix.
struct Matrix {
    columns: usize,
    data: Vec<f64>,
}

impl Matrix {
    fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.columns..(i + 1) * self.columns]
    }

    /// `self` times `x`, plus `bias` where there is one.
    fn apply(&self, x: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
        let rows = self.data.len() / self.columns;
        (0..rows).map(|i| dot(self.row(i), x) + bias.map_or(0.0, |bias| bias[i])).collect()
    }
}

struct Layer {
    input_norm: Vec<f64>,
    post_norm: Vec<f64>,
    /// Query, key and value projections with their biases.
    qkv: [(Matrix, Vec<f64>); 3],
    output: Matrix,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

/// A Qwen2 model in f64.
pub struct ReferenceQwen2 {
    config: ModelConfig,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f64>,
    /// `None` when it is the embedding.
    head: Option<Matrix>,
}

impl ReferenceQwen2 {
    pub fn load(dir: &Path) -> Self {
        let config = ModelConfig::from_dir(dir).unwrap();
        let weights = Weights::open(dir).unwrap();
        let read = |name: &str, shape: &[usize]| -> Vec<f64> {
            weights.read_f32(name, shape).unwrap().into_iter().map(f64::from).collect()
        };
        let matrix = |name: &str, rows, columns| Matrix { columns, data: read(name, &[rows, columns]) };
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let layers = (0..config.n_layers).map(|i| {
            let name = |part: &str| format!("model.layers.{i}.{part}");
            let projection = |part: &str, heads: usize| {
                let rows = heads * config.head_dim;
                let bias = read(&name(&format!("self_attn.{part}.bias")), &[rows]);
                (matrix(&name(&format!("self_attn.{part}.weight")), rows, hidden), bias)
            };
            Layer {
                input_norm: read(&name("input_layernorm.weight"), &[hidden]),
                post_norm: read(&name("post_attention_layernorm.weight"), &[hidden]),
                qkv: [
                    projection("q_proj", config.n_heads),
                    projection("k_proj", config.n_kv_heads),
                    projection("v_proj", config.n_kv_heads),
                ],
                output: matrix(&name("self_attn.o_proj.weight"), hidden, config.n_heads * config.head_dim),
                gate: matrix(&name("mlp.gate_proj.weight"), inner, hidden),
                up: matrix(&name("mlp.up_proj.weight"), inner, hidden),
                down: matrix(&name("mlp.down_proj.weight"), hidden, inner),
            }
        });
        Self {
            embedding: matrix("model.embed_tokens.weight", config.vocab_size, hidden),
            layers: layers.collect(),
            norm: read("model.norm.weight", &[hidden]),
            head: (!config.tie_word_embeddings).then(|| matrix("lm_head.weight", config.vocab_size, hidden)),
            config,
        }
    }

    /// Final hidden state of every position.
    fn hidden(&self, ids: &[u32]) -> Vec<Vec<f64>> {
        let mut x: Vec<Vec<f64>> = ids.iter().map(|&id| self.embedding.row(id as usize).to_vec()).collect();
        for layer in &self.layers {
            let attended = self.attention(layer, &x);
            for (x, attended) in x.iter_mut().zip(attended) {
                add(x, &layer.output.apply(&attended, None));
                let normed = self.rms_norm(x, &layer.post_norm);
                let (gate, up) = (layer.gate.apply(&normed, None), layer.up.apply(&normed, None));
                let inner: Vec<f64> = gate.iter().zip(up).map(|(&g, u)| g / (1.0 + (-g).exp()) * u).collect();
                add(x, &layer.down.apply(&inner, None));
            }
        }
        x.iter().map(|x| self.rms_norm(x, &self.norm)).collect()
    }

    /// Causal attention of every position, heads side by side, before the output projection.
    fn attention(&self, layer: &Layer, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let width = self.config.head_dim;
        let group = self.config.n_heads / self.config.n_kv_heads;
        let [q, k, v] = [0, 1, 2].map(|part| {
            let (weight, bias) = &layer.qkv[part];
            let project = |(position, x): (usize, &Vec<f64>)| {
                let mut row = weight.apply(&self.rms_norm(x, &layer.input_norm), Some(bias));
                if part < 2 {
                    row.chunks_mut(width).for_each(|head| self.rotate(head, position));
                }
                row
            };
            x.iter().enumerate().map(project).collect::<Vec<_>>()
        });
        let attend = |position: usize| {
            let mut out = vec![0.0; self.config.n_heads * width];
            for (head, out) in out.chunks_mut(width).enumerate() {
                let own = head * width..(head + 1) * width;
                let shared = head / group * width..(head / group + 1) * width;
                let query = &q[position][own];
                let scores: Vec<f64> = k[..=position]
                    .iter()
                    .map(|key| dot(query, &key[shared.clone()]) / (width as f64).sqrt())
                    .collect();
                let normaliser = log_sum_exp(&scores);
                for (score, value) in scores.iter().zip(&v) {
                    let weight = (score - normaliser).exp();
                    out.iter_mut().zip(&value[shared.clone()]).for_each(|(out, v)| *out += weight * v);
                }
            }
            out
        };
        (0..x.len()).map(attend).collect()
    }

    /// Rotary position embedding of one head, halves paired.
    fn rotate(&self, head: &mut [f64], position: usize) {
        let half = head.len() / 2;
        for i in 0..half {
            let angle = position as f64 * self.config.rope_theta.powf(-(i as f64) / half as f64);
            let (a, b) = (head[i], head[i + half]);
            head[i] = a * angle.cos() - b * angle.sin();
            head[i + half] = b * angle.cos() + a * angle.sin();
        }
    }

    fn rms_norm(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let scale = (dot(x, x) / x.len() as f64 + f64::from(self.config.rms_norm_eps)).sqrt().recip();
        x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
    }
}

impl TokenScorer for ReferenceQwen2 {
    fn context_tokens(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        _tokens_per_batch: usize,
    ) -> rlt::Result<Vec<Vec<Vec<f32>>>> {
        let score = |prefix: &[u32], ids: &[u32], scored: &[std::ops::Range<usize>]| {
            let hidden = self.hidden(&[prefix, ids].concat());
            let logprob = |at: usize| {
                let logits =
                    self.head.as_ref().unwrap_or(&self.embedding).apply(&hidden[prefix.len() + at - 1], None);
                let logits: Vec<f64> = logits.iter().map(|x| x / f64::from(temperature)).collect();
                (logits[ids[at] as usize] - log_sum_exp(&logits)) as f32
            };
            scored.iter().cloned().flatten().map(logprob).collect()
        };
        let group = |group: &ScoringGroup| {
            group.continuations.iter().map(|c| score(&group.prefix, &c.ids, &c.scored)).collect()
        };
        Ok(groups.iter().map(group).collect())
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + values.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
}
