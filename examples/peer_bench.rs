//! rlt's side of `benches/peers`: one work on one model, timed, as one JSON line.
//!
//! ```text
//! cargo run --release --example peer_bench -- MODEL_DIR train_step:16x256 --threads 2 --runs 5
//! ```
//!
//! The works, their shapes and the fields are described in `benches/peers/README.md`.

use std::convert::Infallible;
use std::path::Path;
use std::time::Instant;

use rlt::config::{KlEstimator, KlToReference, LossMean, OptimizerConfig, RewardConfig};
use rlt::progress::Silent;
use rlt::prompts::StudentSequence;
use rlt::score::{RltSample, Teacher, score_samples};
use rlt::training::Optimizer;
use rlt_engine::Tensor;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::matmul::{Output, matmul_nn, matmul_nt, matmul_tn};
use rlt_engine::random::RandomStream;
use rlt_model::batch::{Continuation, PackedBatch, ScoringGroup, micro_batches};
use rlt_model::config::ModelConfig;
use rlt_model::generate::{GenerationRequest, SamplingParams, generate};
use rlt_model::ids::TokenIds;
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Gradients, Stop};
use rlt_reward::advantage::group_advantages;
use rlt_reward::objective::{Counted, clipped_term, kl_term, token_weight};

/// Prompt tokens of the generating works, and new tokens of each completion.
const PROMPT: usize = 256;
const NEW: usize = 256;
const TEMPERATURE: f32 = 0.7;
const BETA: f32 = 0.04;
/// Rows of a training micro-batch.
const MICRO_BATCH_ROWS: usize = 8192;

/// Tokens of the scoring works: a student's prompt, a solution, and the tags about it. With 512 think tokens both
/// models read sequences of 1,100.
const QUESTION: usize = 300;
const SOLUTION: usize = 256;
const TAGS: usize = 32;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let threads = option("--threads").map_or(Ok(0), |n| n.parse())?;
    let runs: usize = option("--runs").map_or(Ok(5), |n| n.parse())?;
    let arithmetic = match option("--arithmetic").map(String::as_str) {
        None | Some("f32") => Arithmetic::F32,
        Some("bf16") => Arithmetic::Bf16,
        Some(other) => return Err(format!("--arithmetic {other}: f32 or bf16").into()),
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let usage = "usage: peer_bench MODEL_DIR NAME:SHAPE [NAME:SHAPE ..] [--threads N] [--runs R] [--arithmetic f32|bf16]";
    let is_value = |i: usize| i > 0 && arguments[i - 1].starts_with("--");
    let mut plain =
        arguments.iter().enumerate().filter(|(i, a)| !a.starts_with("--") && !is_value(*i)).map(|(_, a)| a);
    let model = plain.next().ok_or(usage)?;
    for item in plain {
        let (name, shape) = item.split_once(':').ok_or(usage)?;
        let numbers: Vec<usize> =
            shape.split('v').next().unwrap_or(shape).split('x').map(str::parse).collect::<Result<_, _>>()?;
        // As the commands that do such work load a model: what is only read stays in bf16 where the file has it so.
        let is_read = !matches!(name, "train_step" | "grpo_step" | "gemm");
        let load = if is_read { Decoder::load_frozen } else { Decoder::load };
        let bench = Bench { decoder: load(Path::new(model))?.in_arithmetic(arithmetic), runs };
        bench.run(name, shape, &numbers)?;
    }
    Ok(())
}

struct Bench {
    decoder: Decoder,
    runs: usize,
}

impl Bench {
    fn run(self, name: &str, shape: &str, numbers: &[usize]) -> Result<(), Failure> {
        match (name, numbers) {
            ("train_step", &[rows, tokens]) => self.train_step(shape, rows, tokens),
            ("generate", &[sequences]) => self.generate(shape, sequences),
            ("logprobs", &[rows, tokens]) => self.logprobs(shape, rows, tokens),
            ("grpo_step", &[questions, group, new]) => self.grpo_step(shape, questions, group, new),
            ("score" | "score_recorded", &[completions, think]) => {
                self.score(name, shape, completions, think)
            }
            ("score_long" | "score_long_full", &[vocab, tokens]) => {
                self.score_long(name, shape, vocab, tokens)
            }
            ("gemm", &[rows, tokens]) => {
                self.gemm(shape, rows * tokens);
                Ok(())
            }
            _ => Err(format!("unknown work {name}:{shape}").into()),
        }
    }

    /// Token ids that are no special tokens, different for every `sequence`.
    fn ids(&self, sequence: usize, n: usize) -> Vec<u32> {
        let vocab = self.decoder.config().vocab_size as f64 - 3.0;
        let stream = RandomStream::new(0, "peer bench");
        (0..n).map(|i| 3 + (stream.uniform([sequence as u64, 0, 0], i as u64) * vocab) as u32).collect()
    }

    /// One warm-up, then the timed runs; prints the line.
    fn time(
        &mut self,
        name: &str,
        shape: &str,
        tokens: usize,
        mut work: impl FnMut(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        work(self)?;
        let mut all_s = Vec::with_capacity(self.runs);
        let before = processor_s();
        for _ in 0..self.runs {
            let started = Instant::now();
            work(self)?;
            all_s.push(started.elapsed().as_secs_f64());
        }
        let processor_s = processor_s().zip(before).map(|(now, before)| now - before);
        let mut sorted = all_s.clone();
        sorted.sort_by(f64::total_cmp);
        let median_s = sorted[sorted.len() / 2];
        print(&serde_json::json!({
            "name": name, "shape": shape, "tokens_per_s": tokens as f64 / median_s, "median_s": median_s,
            "all_s": all_s, "processor_s": processor_s, "peak_rss_mb": peak_rss_mb(),
        }));
        Ok(())
    }

    fn optimizer(&self) -> Optimizer {
        let settings = OptimizerConfig { learning_rate: 1e-6, clip_norm: 1.0, ..OptimizerConfig::default() };
        Optimizer::new(&self.decoder, &settings, 1000)
    }

    fn train_step(mut self, shape: &str, rows: usize, tokens: usize) -> Result<(), Failure> {
        let groups: Vec<ScoringGroup> = (0..rows)
            .map(|row| {
                let scored = 1..tokens;
                ScoringGroup::single(self.ids(row, tokens), vec![scored])
            })
            .collect();
        let n = (rows * (tokens - 1)) as f32;
        let mut optimizer = self.optimizer();
        let mut gradients = Gradients::zeros(&self.decoder);
        self.time("train_step", shape, rows * tokens, |bench| {
            gradients.fill_zero();
            for part in micro_batches(&groups, MICRO_BATCH_ROWS) {
                let batch = PackedBatch::new(&part);
                let derivative = |_, logprobs: &[f32]| Ok::<_, Infallible>(vec![-1.0 / n; logprobs.len()]);
                bench.decoder.train_micro_batch(
                    &batch,
                    1.0,
                    Keep::Activations,
                    &mut gradients,
                    derivative,
                )?;
            }
            optimizer.update(&mut bench.decoder, &gradients)?;
            Ok(())
        })
    }

    fn sampling(new: usize) -> SamplingParams {
        SamplingParams {
            temperature: TEMPERATURE,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: new,
            stop_token_ids: Vec::new(),
            max_running: 64,
        }
    }

    fn generate(mut self, shape: &str, sequences: usize) -> Result<(), Failure> {
        let requests: Vec<GenerationRequest> = (0..sequences)
            .map(|i| GenerationRequest { prompt: self.ids(i, PROMPT).into(), n: 1, stream: [0, i as u64] })
            .collect();
        self.time("generate", shape, sequences * NEW, |bench| {
            let completions =
                generate(&bench.decoder, &requests, &Self::sampling(NEW), 0, Stop::never(), &mut |_| ())?;
            assert!(completions.iter().flatten().all(|c| c.ids.len() == NEW), "no completion ends early");
            Ok(())
        })
    }

    fn logprobs(mut self, shape: &str, rows: usize, tokens: usize) -> Result<(), Failure> {
        let groups: Vec<ScoringGroup> = (0..rows)
            .map(|row| {
                let scored = 1..tokens;
                ScoringGroup::single(self.ids(row, tokens), vec![scored])
            })
            .collect();
        self.time("logprobs", shape, rows * tokens, |bench| {
            bench.decoder.token_logprobs(&groups, 1.0, MICRO_BATCH_ROWS)?;
            Ok(())
        })
    }

    /// One completion of a question for the reward: `prompt` tokens of teacher or student before the thought, a
    /// solution of `solution` tokens after it.
    fn sample(&self, sequence: usize, think: usize) -> RltSample {
        // The same for all completions of the question.
        let question = self.ids(0, QUESTION);
        let suffix = self.ids(1, SOLUTION + TAGS);
        let thought = self.ids(2 + sequence, think);
        let solution = TAGS / 2..TAGS / 2 + SOLUTION;
        let without_thought = StudentSequence {
            prefix: question.clone().into(),
            thought: TokenIds::default(),
            suffix: suffix.clone().into(),
            solution: solution.clone(),
            n_boundary: 0,
        };
        RltSample {
            name: format!("completion {sequence}"),
            teacher_prefix: [question.as_slice(), suffix.as_slice()].concat().into(),
            student: StudentSequence {
                thought: thought.into(),
                suffix: suffix.into(),
                solution: think + solution.start..think + solution.end,
                ..without_thought.clone()
            },
            without_thought,
            has_end_tag: true,
            forged: None,
            is_blank: false,
        }
    }

    /// The RLT reward of the completions of one question; with `score_recorded` the teacher's log-probabilities
    /// come from sampling. Teacher and student have the same shape.
    fn score(mut self, name: &str, shape: &str, completions: usize, think: usize) -> Result<(), Failure> {
        let samples: Vec<RltSample> = (0..completions).map(|i| self.sample(i, think)).collect();
        let student = Decoder::random(self.decoder.config(), 2).in_arithmetic(self.decoder.arithmetic());
        let recorded = vec![-7.0; think];
        let recorded = vec![&recorded[..]; completions];
        self.time(name, shape, completions * think, |bench| {
            let teacher =
                if name == "score" { Teacher::Model(&bench.decoder) } else { Teacher::Recorded(&recorded) };
            let reward = RewardConfig::default();
            let scored = score_samples(&samples, teacher, &student, &reward, MICRO_BATCH_ROWS, &Silent)?;
            assert!(scored.iter().all(|scored| scored.score.parts.is_ok()), "every completion has a reward");
            Ok(())
        })
    }

    /// The reward of one long sequence under a large vocabulary: what counts is the peak of memory. With
    /// `score_long_full` D_j is the divergence over the vocabulary.
    fn score_long(mut self, name: &str, shape: &str, vocab: usize, tokens: usize) -> Result<(), Failure> {
        let config = ModelConfig {
            vocab_size: vocab,
            max_position_embeddings: tokens,
            ..self.decoder.config().clone()
        };
        let student = Decoder::random(&config, 2).in_arithmetic(self.decoder.arithmetic());
        self.decoder = Decoder::random(&config, 1).in_arithmetic(self.decoder.arithmetic());
        let samples = [self.sample(0, tokens - QUESTION - SOLUTION - TAGS)];
        let kl = if name == "score_long" { KlEstimator::Sampled } else { KlEstimator::Full };
        let reward = RewardConfig { kl, ..RewardConfig::default() };
        self.time(name, shape, tokens, |bench| {
            let teacher = Teacher::Model(&bench.decoder);
            let scored = score_samples(&samples, teacher, &student, &reward, tokens, &Silent)?;
            assert!(scored[0].score.parts.is_ok(), "the sequence has a reward");
            Ok(())
        })
    }

    /// Generation, reference log-probabilities, update: a step of `rlt train` with a free reward.
    fn grpo_step(mut self, shape: &str, questions: usize, group: usize, new: usize) -> Result<(), Failure> {
        let reference = self.decoder.with_weights(self.decoder.parameters().clone());
        let mut optimizer = self.optimizer();
        let mut gradients = Gradients::zeros(&self.decoder);
        let mut step = 0;
        self.time("grpo_step", shape, questions * group * new, |bench| {
            step += 1;
            let requests: Vec<GenerationRequest> = (0..questions)
                .map(|q| GenerationRequest {
                    prompt: bench.ids(q, PROMPT).into(),
                    n: group,
                    stream: [step, q as u64],
                })
                .collect();
            let completions =
                generate(&bench.decoder, &requests, &Self::sampling(new), 0, Stop::never(), &mut |_| ())?;
            let reward = |ids: &[u32]| ids.iter().filter(|id| **id % 7 == 0).count() as f32 / 100.0;
            let advantages: Vec<f32> = completions
                .iter()
                .flat_map(|g| group_advantages(&g.iter().map(|c| reward(&c.ids)).collect::<Vec<_>>()))
                .collect();
            let groups: Vec<ScoringGroup> = requests
                .iter()
                .zip(&completions)
                .map(|(request, completions)| ScoringGroup {
                    prefix: request.prompt.clone(),
                    continuations: completions.iter().map(|c| Continuation::whole(c.ids.clone())).collect(),
                })
                .collect();
            let references: Vec<f32> = reference
                .token_logprobs(&groups, TEMPERATURE, MICRO_BATCH_ROWS)?
                .into_iter()
                .flatten()
                .flatten()
                .collect();
            gradients.fill_zero();
            let completions = questions * group;
            let counted = Counted { completions, tokens: completions * new, longest: new };
            let weight = token_weight(LossMean::Sequence, new, counted);
            let mut done = 0;
            for part in micro_batches(&groups, MICRO_BATCH_ROWS) {
                let batch = PackedBatch::new(&part);
                let derivative = |first: usize, logprobs: &[f32]| {
                    let one = |(i, logprob): (usize, &f32)| {
                        let token = done + first + i;
                        let (advantage, reference) = (advantages[token / new], references[token]);
                        let policy = clipped_term(0.0, advantage.into(), 0.2, 0.2).derivative;
                        let (_, kl) = kl_term(KlToReference::K3, *logprob, reference);
                        (weight * (policy + f64::from(BETA) * kl)) as f32
                    };
                    Ok::<_, Infallible>(logprobs.iter().enumerate().map(one).collect())
                };
                let decoder = &bench.decoder;
                decoder.train_micro_batch(
                    &batch,
                    TEMPERATURE,
                    Keep::Activations,
                    &mut gradients,
                    derivative,
                )?;
                done += batch.targets.len();
            }
            optimizer.update(&mut bench.decoder, &gradients)?;
            Ok(())
        })
    }

    /// The matrix products of a training step over `m` rows, alone.
    fn gemm(&self, shape: &str, m: usize) {
        let config = self.decoder.config();
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let q = config.n_heads * config.head_dim;
        let qkv = q + 2 * config.n_kv_heads * config.head_dim;
        let layers = config.n_layers;
        let products =
            [(qkv, d, layers), (d, q, layers), (2 * f, d, layers), (d, f, layers), (config.vocab_size, d, 1)];
        let (mut flop, mut best) = (0.0, f64::INFINITY);
        for run in 0..=self.runs {
            let mut seconds = 0.0;
            flop = 0.0;
            for (n, k, times) in products {
                let (x, w, dy) =
                    (Tensor::full(m, k, 0.5), Tensor::full(n, k, 0.25), Tensor::full(m, n, 0.125));
                let (mut y, mut dx) = (Tensor::zeros(m, n), Tensor::zeros(m, k));
                let mut dw = Tensor::zeros(n, k);
                let started = Instant::now();
                for _ in 0..times {
                    matmul_nt(&x, &w, &mut y, Output::Replace);
                    matmul_nn(&dy, &w, &mut dx, Output::Replace);
                    matmul_tn(&dy, &x, &mut dw, Output::Accumulate);
                }
                seconds += started.elapsed().as_secs_f64();
                flop += 6.0 * (m * n * k * times) as f64;
            }
            if run > 0 {
                best = best.min(seconds);
            }
        }
        print(&serde_json::json!({
            "name": "gemm", "shape": shape, "gflops": flop / best / 1e9, "peak_rss_mb": peak_rss_mb(),
        }));
    }
}

#[expect(clippy::print_stdout, reason = "the line is what this program is for")]
fn print(line: &serde_json::Value) {
    println!("{line}");
}

/// Processor time of this process so far, seconds, where the system tells.
fn processor_s() -> Option<f64> {
    /// Of /proc on every common Linux.
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in brackets may hold spaces; utime and stime are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_S)
}

/// Peak resident set of this process, MiB; 0 where the system does not tell.
fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).map_or(0.0, |kb| kb / 1024.0)
}
