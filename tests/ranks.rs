//! Training on several ranks, here threads of this process: however many share the lanes, a run leaves the same bytes. It may
//! stop on so many and go on on others, and what one rank finds wrong ends all of them in the same words.

mod outcome;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use outcome::{assert_same, outcome};
use rlt::config::{Config, TrainConfig};
use rlt::progress::{Progress, Silent};
use rlt::run_dir::RunDir;
use rlt::start;
use rlt::training::{Host, Trained};
use rlt::worlds::{DatasetFiles, ModelShape, Sizes, World, WorldContent};
use rlt::{Error, Result, grpo, sft};
use rlt_model::Decoder;
use rlt_model::config::ModelConfig;
use rlt_ranks::on_threads;

/// Questions, texts and a model of random weights, outside any run.
struct Made {
    folder: tempfile::TempDir,
    files: DatasetFiles,
}

fn made() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { textbook: 24, teacher_sft: 0, questions_train: 24, questions_heldout: 3 };
    // Weights of several of the blocks that shards are made of.
    let shape = ModelShape { hidden_size: 64, intermediate_size: 512, n_layers: 2, n_heads: 4, context: 384 };
    let files = World::Market.write_dataset(&folder.path().join("world"), 5, &sizes, &shape).unwrap();
    let model = ModelConfig::from_dir(&files.model).unwrap();
    Decoder::random(&model, 3).save(&files.model).unwrap();
    Made { folder, files }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Sft,
    Grpo,
    Distill,
}

impl Made {
    fn config(&self, work: Work, overrides: &[&str]) -> Config {
        let data = if work == Work::Sft { &self.files.textbook } else { &self.files.questions_train };
        let (model, heldout) = (self.files.model.display(), self.files.questions_heldout.display());
        let mut all = vec![
            format!("model.path={model}"),
            format!("model.student={model}"),
            format!("data.path={}", data.display()),
            format!("eval.data={heldout}"),
        ];
        if work == Work::Distill {
            all.push("grpo.reference_mixup=0.5".to_owned());
        }
        let settings = [
            "seed=4",
            "train.lanes=8",
            "prompts.teacher_system=\"\"",
            "prompts.student_system=\"\"",
            "sampling.max_new_tokens=12",
            "sampling.temperature=0.8",
            "grpo.steps=4",
            "grpo.questions_per_step=6",
            "grpo.group_size=3",
            "grpo.reference_sync_every=2",
            "grpo.samples_every=1",
            "sft.batch_rows=11",
            "sft.epochs=1.8",
            "sft.tokens_per_microbatch=512",
            "eval.every=2",
            "optimizer.learning_rate=1e-3",
            "checkpoint.every=2",
            "checkpoint.keep=0",
        ];
        all.extend(settings.iter().chain(overrides).map(|&setting| setting.to_owned()));
        Config::load(None, &all).unwrap()
    }

    fn run_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Trains on so many ranks. Each has a flag of its own; `progress` and `stop` are the first rank's.
fn train(
    work: Work,
    config: &Config,
    run_dir: &Path,
    ranks: usize,
    progress: &(dyn Progress + Sync),
    stop: &AtomicBool,
) -> Vec<Result<Trained>> {
    let own = Config { run_dir: run_dir.to_owned(), ..config.clone() };
    let _folder = RunDir::open(&own).unwrap();
    on_threads(ranks, |ranks| {
        let others = AtomicBool::new(false);
        let stop = if ranks.is_first() { stop } else { &others };
        let host = Host { ranks, ..start::host(progress, stop) };
        let train = match work {
            Work::Sft => sft::train,
            Work::Grpo => grpo::train,
            Work::Distill => grpo::distill,
        };
        train(&own, run_dir, &host)
    })
}

fn finish(work: Work, config: &Config, run_dir: &Path, ranks: usize) {
    for outcome in train(work, config, run_dir, ranks, &Silent, &AtomicBool::new(false)) {
        outcome.unwrap();
    }
}

/// Sets the flag once so many steps are done.
struct StopAfter<'a> {
    steps: AtomicU64,
    stop: &'a AtomicBool,
}

impl Progress for StopAfter<'_> {
    fn start(&self, _stage: &str, _total: u64, _unit: &str) {}
    fn advance(&self, n: u64, _message: &str) {
        if self.steps.fetch_sub(n, Ordering::SeqCst) == n {
            self.stop.store(true, Ordering::SeqCst);
        }
    }
    fn finish(&self, _message: &str) {}
    fn note(&self, _line: &str) {}
    fn warn(&self, _: &str) {}
}

fn stop_after(work: Work, config: &Config, run_dir: &Path, ranks: usize, steps: u64) {
    let stop = AtomicBool::new(false);
    let progress = StopAfter { steps: steps.into(), stop: &stop };
    for outcome in train(work, config, run_dir, ranks, &progress, &stop) {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Interrupted(_)), "{error}");
        assert!(error.to_string().contains("saved after step"), "{error}");
    }
}

/// Returns the metrics, without those of time, that any number of ranks leaves.
fn assert_any_number_of_ranks_leaves_the_same(work: Work, overrides: &[&str]) -> String {
    let made = made();
    let config = made.config(work, overrides);
    let one = made.run_dir("1");
    finish(work, &config, &one, 1);
    let whole = outcome(&one);
    assert!(
        whole.keys().any(|name| name.starts_with("checkpoints/step-000002/optimizer")),
        "{:?}",
        whole.keys()
    );
    for ranks in [2, 4, 8] {
        let run_dir = made.run_dir(&ranks.to_string());
        finish(work, &config, &run_dir, ranks);
        assert_same(&whole, &run_dir, &format!("{ranks} ranks, {overrides:?}"));
    }
    String::from_utf8(whole["metrics.jsonl"].clone()).unwrap()
}

#[test]
fn the_dense_reward_in_minibatches_with_moments_in_bf16() {
    let overrides =
        ["grpo.minibatches=2", "grpo.epochs=2", "optimizer.moments=bf16", "reward.add.length=0.1"];
    assert_any_number_of_ranks_leaves_the_same(Work::Grpo, &overrides);
}

#[test]
fn correctness_with_groups_drawn_again() {
    let overrides = [
        "reward.kind=correctness",
        "reward.add.length=0.5",
        "grpo.objective=dapo",
        "grpo.resample_rounds=2",
        "grpo.kl=k1",
        "sampling.temperature=1.3",
        "sampling.max_new_tokens=3",
        "grpo.group_size=2",
    ];
    let metrics = assert_any_number_of_ranks_leaves_the_same(Work::Grpo, &overrides);
    assert!(!metrics.contains("\"groups_sampled\":6,"), "groups are drawn again in every step: {metrics}");
}

#[test]
fn the_pedagogical_reward_and_gated_imitation() {
    for weights in ["memory.weights=whole", "memory.weights=sharded"] {
        let overrides = ["reward.kind=pedagogical", "reward.add.length=0.5", weights];
        let metrics = assert_any_number_of_ranks_leaves_the_same(Work::Grpo, &overrides);
        assert!(metrics.contains("\"learnability_mean\":"), "{metrics}");
    }
    let metrics = assert_any_number_of_ranks_leaves_the_same(Work::Sft, &["sft.gate_kappa=2"]);
    assert!(metrics.contains("\"gate_mean\":"), "{metrics}");
}

#[test]
fn distillation() {
    // Several micro-batches a lane, and a teacher that moves.
    let metrics =
        assert_any_number_of_ranks_leaves_the_same(Work::Distill, &["grpo.tokens_per_microbatch=160"]);
    assert!(metrics.contains("\"divergence\":"), "{metrics}");
    let made = made();
    let config = made.config(Work::Distill, &["memory.weights=sharded"]);
    let outcomes = train(Work::Distill, &config, &made.run_dir("run"), 2, &Silent, &AtomicBool::new(false));
    for outcome in outcomes {
        let message = outcome.unwrap_err().to_string();
        assert!(message.starts_with("memory.weights=sharded does not go with distillation"), "{message}");
    }
}

#[test]
fn adapters() {
    let lora = ["lora.rank=4", "grpo.reference_sync_every=0"];
    assert_any_number_of_ranks_leaves_the_same(Work::Grpo, &lora);
    assert_any_number_of_ranks_leaves_the_same(Work::Sft, &[&lora[..], &["optimizer.moments=bf16"]].concat());
}

#[test]
fn fine_tuning() {
    let metrics = assert_any_number_of_ranks_leaves_the_same(Work::Sft, &[]);
    // The lanes decide the bits, in the last digits.
    let other = assert_any_number_of_ranks_leaves_the_same(Work::Sft, &["train.lanes=16"]);
    assert_ne!(metrics, other);
}

#[test]
fn weights_in_shares() {
    let sharded = "memory.weights=sharded";
    // Several micro-batches a lane, and a reference that moves.
    let cut =
        [sharded, "grpo.tokens_per_microbatch=160", "memory.recompute=blocks", "optimizer.moments=bf16"];
    assert_any_number_of_ranks_leaves_the_same(Work::Grpo, &cut);
    assert_any_number_of_ranks_leaves_the_same(Work::Sft, &[sharded, "sft.tokens_per_microbatch=128"]);
    // Lanes without a row.
    assert_any_number_of_ranks_leaves_the_same(Work::Sft, &[sharded, "sft.batch_rows=5"]);
}

#[test]
fn weights_in_shares_are_the_whole_ones_where_nothing_is_summed_in_another_order() {
    // A micro-batch holds all that a lane has; an adapter is whole on every rank.
    for (work, overrides) in [
        (Work::Sft, &["sft.tokens_per_microbatch=100000"][..]),
        (Work::Grpo, &["grpo.tokens_per_microbatch=100000"]),
        (Work::Grpo, &["lora.rank=4", "grpo.reference_sync_every=0", "grpo.tokens_per_microbatch=160"]),
    ] {
        let made = made();
        let [whole, shares] = ["whole", "sharded"].map(|weights| {
            let weights_are = format!("memory.weights={weights}");
            let config = made.config(work, &[overrides, &[&weights_are]].concat());
            let run_dir = made.run_dir(weights);
            finish(work, &config, &run_dir, 4);
            run_dir
        });
        let [whole, shares] = [&whole, &shares].map(|run_dir| {
            let mut files = outcome(run_dir);
            // The state has the configuration.
            files.retain(|name, _| !["state.json", "checksums.json"].iter().any(|file| name.ends_with(file)));
            files
        });
        assert!(whole.len() > 5 && whole.keys().eq(shares.keys()), "{:?}", shares.keys());
        for (name, bytes) in &whole {
            assert!(shares[name] == *bytes, "{work:?}, {overrides:?}: {name}");
        }
    }
}

#[test]
fn how_weights_are_held_is_not_changed_in_the_middle_of_a_run() {
    let made = made();
    let config = made.config(Work::Sft, &["memory.weights=sharded"]);
    let run_dir = made.run_dir("run");
    stop_after(Work::Sft, &config, &run_dir, 2, 1);
    let whole = made.config(Work::Sft, &[]);
    let outcomes = on_threads(2, |ranks| {
        let stop = AtomicBool::new(false);
        sft::train(&whole, &run_dir, &Host { ranks, ..start::host(&Silent, &stop) })
    });
    for outcome in outcomes {
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains("memory.weights was \"sharded\", now \"whole\""), "{message}");
    }
    // Six lanes are three subtrees of two for three ranks, but no two waves of three.
    let six = made.config(Work::Sft, &["memory.weights=sharded", "train.lanes=6"]);
    for outcome in train(Work::Sft, &six, &made.run_dir("three"), 3, &Silent, &AtomicBool::new(false)) {
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains("3 ranks cannot share them with memory.weights=sharded"), "{message}");
    }
}

#[test]
fn a_run_that_stops_on_four_ranks_goes_on_on_one_and_ends_on_two() {
    for (work, weights) in
        [(Work::Sft, "whole"), (Work::Grpo, "whole"), (Work::Sft, "sharded"), (Work::Grpo, "sharded")]
    {
        let made = made();
        let held = format!("memory.weights={weights}");
        let config = made.config(work, &["checkpoint.every=3", "checkpoint.keep=1", &held]);
        let [whole, resumed] = ["whole", "resumed"].map(|name| made.run_dir(name));
        finish(work, &config, &whole, 8);
        stop_after(work, &config, &resumed, 4, 1);
        // What is left out the run's state has.
        let unset = Config { train: TrainConfig::default(), ..config.clone() };
        stop_after(work, &unset, &resumed, 1, 1);
        finish(work, &unset, &resumed, 2);
        assert_same(&outcome(&whole), &resumed, &format!("{work:?}, {weights}"));
    }
}

#[test]
fn other_lanes_than_the_run_began_with_are_refused_on_all_ranks() {
    let made = made();
    let config = made.config(Work::Sft, &[]);
    let run_dir = made.run_dir("run");
    stop_after(Work::Sft, &config, &run_dir, 2, 1);
    let mut other = config.clone();
    other.train.lanes = Some(2);
    for outcome in train(Work::Sft, &other, &run_dir, 2, &Silent, &AtomicBool::new(false)) {
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains("belongs to a run of train.lanes=8, not 2"), "{message}");
    }
    for outcome in train(Work::Sft, &config, &run_dir, 3, &Silent, &AtomicBool::new(false)) {
        let message = outcome.unwrap_err().to_string();
        assert!(message.starts_with("the run has 8, and 3 ranks cannot share"), "{message}");
    }
}

#[test]
fn ranks_that_read_other_things_are_named_before_anything_is_written() {
    let made = made();
    let config = made.config(Work::Grpo, &[]);
    let run_dir = made.run_dir("run");
    let outcomes = on_threads(3, |ranks| {
        let stop = AtomicBool::new(false);
        let mut own = config.clone();
        if ranks.rank() == 1 {
            own.data.max_rows = 20;
        }
        let host = Host { ranks, ..start::host(&Silent, &stop) };
        grpo::train(&own, &run_dir, &host).unwrap_err().to_string()
    });
    for line in outcomes {
        assert!(
            line.starts_with("rank 1 of 3 on ") && line.contains("data.max_rows is 0 there, here 20"),
            "{line}"
        );
    }
    assert!(!run_dir.exists());
}

#[test]
fn what_is_not_finite_ends_all_ranks_and_keeps_the_batch_with_the_whole_state() {
    let made = made();
    let mut model = Decoder::load(&made.files.model).unwrap();
    let norm = &mut model.parameters_mut().final_norm;
    *norm = rlt_engine::Tensor::full(norm.rows(), norm.cols(), f32::INFINITY);
    model.save(&made.files.model).unwrap();
    let config = made.config(Work::Sft, &["optimizer.moments=bf16"]);
    let kept = |ranks: usize| {
        let run_dir = made.run_dir(&ranks.to_string());
        for outcome in train(Work::Sft, &config, &run_dir, ranks, &Silent, &AtomicBool::new(false)) {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::NonFinite(_)), "{error}");
            let place = if ranks > 1 { "rank 0 of 4 on " } else { "step 1, row " };
            assert!(error.to_string().starts_with(place), "{error}");
        }
        let folder = run_dir.join("failed/step-000001");
        rlt::replay::Replay::of(&folder.join("batch.json")).unwrap();
        ["model.safetensors", "optimizer.safetensors", "state.json"]
            .map(|file| std::fs::read(folder.join(file)).unwrap())
    };
    assert!(kept(1) == kept(4));
}
