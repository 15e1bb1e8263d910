//! `rlt sft` and `rlt train` as a library, on a small world with random weights: they learn, they can be
//! interrupted and go on bit for bit, and what they leave can be loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rlt::config::Config;
use rlt::progress::{Progress, Silent};
use rlt::run_log::{TIME_FIELDS, read_rows};
use rlt::training::Trained;
use rlt::worlds::{DatasetFiles, ModelShape, Sizes, World};
use rlt::{Error, Result};
use rlt_model::Decoder;

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests");

/// A world's files in a folder of its own.
struct Made {
    folder: tempfile::TempDir,
    files: DatasetFiles,
}

fn world() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { textbook: 48, teacher_sft: 40, questions_train: 12, questions_heldout: 2 };
    let shape = ModelShape { hidden_size: 32, intermediate_size: 64, n_layers: 2, n_heads: 2, context: 512 };
    let files = World::Market.write_dataset(&folder.path().join("world"), 5, &sizes, &shape).unwrap();
    Made { folder, files }
}

impl Made {
    fn run_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sft_config(&self, overrides: &[&str]) -> Config {
        let mut all = vec![
            format!("model.path={}", self.files.model.display()),
            format!("data.path={}", self.files.textbook.display()),
        ];
        all.extend(overrides.iter().map(|&o| o.to_owned()));
        Config::load(Some(&Path::new(CONFIGS).join("sft.toml")), &all).unwrap()
    }
}

/// Sets the flag once so many steps are done.
struct StopAfter<'a> {
    steps: std::sync::atomic::AtomicU64,
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
}

type Train = fn(&Config, &Path, &dyn Progress, &AtomicBool) -> Result<Trained>;

fn run(train: Train, config: &Config, run_dir: &Path) -> Trained {
    train(config, run_dir, &Silent, &AtomicBool::new(false)).unwrap()
}

fn stop_after(train: Train, config: &Config, run_dir: &Path, steps: u64) {
    let stop = AtomicBool::new(false);
    let progress = StopAfter { steps: steps.into(), stop: &stop };
    let error = train(config, run_dir, &progress, &stop).unwrap_err();
    assert!(matches!(error, Error::Interrupted(_)), "{error}");
    assert!(error.to_string().contains(&format!("saved after step {steps} of")), "{error}");
}

/// The rows of `metrics.jsonl` without what measures time.
fn metrics(run_dir: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let mut rows = read_rows(&run_dir.join("metrics.jsonl")).unwrap();
    for row in &mut rows {
        row.retain(|key, _| !TIME_FIELDS.contains(&key.as_str()));
    }
    rows
}

fn assert_same_outcome(a: &Path, b: &Path) {
    assert_eq!(metrics(a), metrics(b));
    let weights = |run_dir: &Path| fs::read(run_dir.join("model/model.safetensors")).unwrap();
    assert!(weights(a) == weights(b), "the final weights differ");
}

/// Runs once through, once with an interruption after `steps`, and once killed after it: what a kill
/// leaves behind is a checkpoint of an earlier step and rows that it does not cover.
fn assert_goes_on_bit_for_bit(train: Train, config: &Config, made: &Made, steps: u64) {
    let [whole, stopped, killed] = ["whole", "stopped", "killed"].map(|name| made.run_dir(name));
    run(train, config, &whole);
    stop_after(train, config, &stopped, steps);
    assert_eq!(metrics(&stopped).len() as u64, steps);
    run(train, config, &stopped);
    assert_same_outcome(&whole, &stopped);

    stop_after(train, config, &killed, steps);
    let checkpoint = killed.join(format!("checkpoints/step-{steps:06}"));
    fs::remove_file(checkpoint.join("optimizer.safetensors")).unwrap();
    run(train, config, &killed);
    assert_same_outcome(&whole, &killed);
}

#[test]
fn sft_learns_and_leaves_a_model() {
    let made = world();
    for format in ["student", "teacher", "text"] {
        let config = made.sft_config(&[&format!("sft.format={format}"), "sft.epochs=4"]);
        let run_dir = made.run_dir(format);
        let trained = run(rlt::sft::train, &config, &run_dir);
        assert_eq!(trained.steps, 24);
        let metrics = metrics(&run_dir);
        let losses: Vec<f64> = metrics.iter().map(|row| row["loss"].as_f64().unwrap()).collect();
        assert!(losses[23] < 0.8 * losses[0], "{format}: {losses:?}");
        assert_eq!(metrics[23]["epoch"], 4.0);
        Decoder::load(&trained.model).unwrap();
        for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            assert!(trained.model.join(file).exists(), "{file}");
        }
        assert!(trained.report.exists());
    }
}

#[test]
fn sft_goes_on_bit_for_bit() {
    let made = world();
    assert_goes_on_bit_for_bit(rlt::sft::train, &made.sft_config(&[]), &made, 6);
}

#[test]
fn sft_refuses_rows_that_changed_under_a_run() {
    let made = world();
    let run_dir = made.run_dir("run");
    stop_after(rlt::sft::train, &made.sft_config(&[]), &run_dir, 2);
    fs::copy(&made.files.teacher_sft, &made.files.textbook).unwrap();
    let stop = AtomicBool::new(false);
    let error = rlt::sft::train(&made.sft_config(&[]), &run_dir, &Silent, &stop).unwrap_err();
    assert!(matches!(error, Error::Usage(_)));
    assert!(error.to_string().contains("was made with other rows (48 then, 40 now"), "{error}");
}

#[test]
fn rows_that_do_not_fit_are_an_error_when_none_is_left() {
    let made = world();
    let config = made.sft_config(&["sft.max_tokens=5"]);
    let stop = AtomicBool::new(false);
    let error = rlt::sft::train(&config, &made.run_dir("run"), &Silent, &stop).unwrap_err();
    assert!(error.to_string().contains("none of the 48 rows can be learnt from"), "{error}");
}
