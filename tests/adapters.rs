//! `lora.rank` in `rlt sft` and `rlt train`: what is learnt, what is left, and that a run goes on bit for bit.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rlt::config::Config;
use rlt::metrics::is_time;
use rlt::progress::Silent;
use rlt::run_log::read_rows;
use rlt::worlds::lexicon::TURN_END;
use rlt::worlds::{DatasetFiles, ModelShape, Sizes, World, WorldContent};
use rlt_model::Decoder;
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests");
const LORA: [&str; 3] = ["lora.rank=4", "lora.alpha=8", "grpo.reference_sync_every=0"];

/// A world's files, and a model of bf16 weights that has learnt a few steps of it.
struct Made {
    folder: tempfile::TempDir,
    files: DatasetFiles,
    model: PathBuf,
}

fn made() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { textbook: 48, teacher_sft: 40, questions_train: 12, questions_heldout: 2 };
    let shape = ModelShape { hidden_size: 32, intermediate_size: 64, n_layers: 2, n_heads: 2, context: 512 };
    let files = World::Market.write_dataset(&folder.path().join("world"), 5, &sizes, &shape).unwrap();
    let overrides = [
        format!("model.path={}", files.model.display()),
        format!("data.path={}", files.teacher_sft.display()),
        "sft.format=teacher".into(),
        "model.save_dtype=bf16".into(),
        "sft.epochs=12".into(),
    ];
    let config = Config::load(Some(&Path::new(CONFIGS).join("sft.toml")), &overrides).unwrap();
    let base = folder.path().join("base");
    let model = rlt::start::sft(&config, &base, &Silent, &AtomicBool::new(false)).unwrap().model;
    Made { folder, files, model }
}

impl Made {
    fn config(&self, file: &str, data: &Path, overrides: &[&str]) -> Config {
        let model = self.model.display();
        let mut all = vec![
            format!("model.path={model}"),
            format!("model.student={model}"),
            "model.from_scratch=false".into(),
            format!("data.path={}", data.display()),
        ];
        all.extend(LORA.iter().chain(overrides).map(|&o| o.to_owned()));
        Config::load(Some(&Path::new(CONFIGS).join(file)), &all).unwrap()
    }

    fn run_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn metrics(run_dir: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let mut rows = read_rows(&run_dir.join("metrics.jsonl")).unwrap();
    for row in &mut rows {
        row.retain(|key, _| !is_time(key));
    }
    rows
}

#[test]
fn fine_tuning_an_adapter_learns_and_leaves_it_alone_and_merged() {
    let made = made();
    let config =
        made.config("sft.toml", &made.files.textbook, &["sft.epochs=6", "optimizer.learning_rate=0.02"]);
    let run_dir = made.run_dir("run");
    let trained = rlt::start::sft(&config, &run_dir, &Silent, &AtomicBool::new(false)).unwrap();
    let losses: Vec<f64> = metrics(&run_dir).iter().map(|row| row["loss"].as_f64().unwrap()).collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[30..]) < 0.97 * mean(&losses[..6]), "{losses:?}");

    let checkpoint = run_dir.join("checkpoints/step-000036");
    assert!(checkpoint.join("adapter_model.safetensors").exists());
    assert!(!checkpoint.join("model.safetensors").exists(), "the frozen weights are not saved again");
    for file in ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"] {
        assert!(run_dir.join("adapter").join(file).exists(), "{file}");
    }
    // The adapter's folder is a model to read, and says what the merged one says.
    let adapted = Decoder::load_frozen(&run_dir.join("adapter")).unwrap();
    let merged = Decoder::load(&trained.model).unwrap();
    let counted = 1..55;
    let groups = [rlt_model::batch::ScoringGroup::single((5..60).collect::<Vec<u32>>(), vec![counted])];
    let logprobs =
        |decoder: &Decoder| decoder.token_logprobs(&groups, 1.0, 1000).unwrap().remove(0).remove(0);
    let before = logprobs(&adapted.base());
    for ((a, b), before) in logprobs(&adapted).iter().zip(logprobs(&merged)).zip(before) {
        assert!((a - b).abs() < 1e-3 && a.to_bits() != before.to_bits(), "{a} {b} {before}");
    }
}

#[test]
fn grpo_with_an_adapter_takes_the_base_model_as_its_reference() {
    let made = made();
    let data = &made.files.questions_train;
    let config = made.config("train.toml", data, &["optimizer.learning_rate=0.01"]);
    let run_dir = made.run_dir("run");
    rlt::start::grpo(&config, &run_dir, &Silent, &AtomicBool::new(false)).unwrap();
    let kl: Vec<f64> = metrics(&run_dir).iter().map(|row| row["kl_to_reference"].as_f64().unwrap()).collect();
    assert!(kl[0] < 1e-9 && kl[1] > 1e-7, "{kl:?}");
    assert!(!run_dir.join("checkpoints/step-000003/reference.safetensors").exists());
}

type Train = fn(&Config, &Path) -> rlt::Result<rlt::training::Trained>;

/// What a kill leaves is an earlier checkpoint and rows beyond it: a run that lost its last checkpoint.
#[test]
fn runs_with_an_adapter_go_on_bit_for_bit() {
    let made = made();
    let works: [(&str, Train, &Path); 2] = [
        (
            "sft.toml",
            |config, dir| rlt::start::sft(config, dir, &Silent, &AtomicBool::new(false)),
            &made.files.textbook,
        ),
        (
            "train.toml",
            |config, dir| rlt::start::grpo(config, dir, &Silent, &AtomicBool::new(false)),
            &made.files.questions_train,
        ),
    ];
    for (file, train, data) in works {
        let config = made.config(file, data, &["checkpoint.every=2", "grpo.steps=4", "sft.epochs=1"]);
        let (whole, killed) =
            (made.run_dir(&format!("whole-{file}")), made.run_dir(&format!("killed-{file}")));
        train(&config, &whole).unwrap();
        train(&config, &killed).unwrap();
        let last =
            fs::read_dir(killed.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).max().unwrap();
        fs::remove_dir_all(last).unwrap();
        fs::remove_dir_all(killed.join("adapter")).unwrap();
        train(&config, &killed).unwrap();
        assert_eq!(metrics(&whole), metrics(&killed));
        for folder in ["model/model.safetensors", "adapter/adapter_model.safetensors"] {
            assert!(
                fs::read(whole.join(folder)).unwrap() == fs::read(killed.join(folder)).unwrap(),
                "{folder}"
            );
        }
    }
}

#[test]
fn the_command_line_explains_with_an_adapter_s_folder() {
    let made = made();
    let config = made.config("sft.toml", &made.files.textbook, &["sft.epochs=1"]);
    let run_dir = made.run_dir("run");
    rlt::start::sft(&config, &run_dir, &Silent, &AtomicBool::new(false)).unwrap();
    let (adapter, data, out) =
        (run_dir.join("adapter"), &made.files.questions_train, made.run_dir("traces.jsonl"));
    let mut command = assert_cmd::Command::cargo_bin("rlt").unwrap();
    command.args(["-q", "explain", "sampling.max_new_tokens=8", "--model"]).arg(adapter);
    let output = command.arg("--data").arg(data).arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(out).unwrap().lines().count(), 12);
}

#[test]
fn everything_that_training_saves_ends_where_it_taught_to_and_keeps_the_base_s_settings() {
    let sft: Train = |config, dir| rlt::start::sft(config, dir, &Silent, &AtomicBool::new(false));
    let grpo: Train = |config, dir| rlt::start::grpo(config, dir, &Silent, &AtomicBool::new(false));
    let made = made();
    // A base that ends texts with a token of its own, as one that was not trained on turns.
    let turn_end = Tokenizer::from_dir(&made.model).unwrap().token_to_id(TURN_END).unwrap();
    let of_base = serde_json::json!({
        "bos_token_id": 1, "pad_token_id": 2, "eos_token_id": 3, "do_sample": true, "temperature": 0.6,
        "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05, "transformers_version": "4.51.0",
    });
    let name = "generation_config.json";
    fs::write(made.model.join(name), of_base.to_string()).unwrap();
    let mut expected = of_base;
    expected["eos_token_id"] = serde_json::json!([turn_end, 3]);
    let held_out = format!("eval.data={}", made.files.questions_heldout.display());
    for (file, train, data, evaluation) in [
        ("sft.toml", sft, &made.files.textbook, &[][..]),
        ("train.toml", grpo, &made.files.questions_train, &["eval.every=3", &held_out]),
    ] {
        for rank in ["lora.rank=0", "lora.rank=4"] {
            let settings = [&[rank, "checkpoint.every=1", "sft.epochs=0.5"], evaluation].concat();
            let config = made.config(file, data, &settings);
            let run_dir = made.run_dir(&format!("{file}-{rank}"));
            let trained = train(&config, &run_dir).unwrap();
            let mut folders = vec![trained.model.clone()];
            folders.extend(trained.best);
            folders.extend((rank == "lora.rank=4").then(|| run_dir.join("adapter")));
            let checkpoints =
                || fs::read_dir(run_dir.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
            folders.extend(checkpoints());
            assert!(folders.len() >= 3, "{folders:?}");
            for folder in folders {
                let saved: serde_json::Value =
                    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap();
                assert_eq!(saved, expected, "{}", folder.display());
            }
            let saved = ModelConfig::from_dir(&trained.model).unwrap();
            assert_eq!(saved.eos_token_ids, [turn_end, 3]);
            // A run that goes on from a checkpoint saves the same.
            let files =
                || ["config.json", name].map(|file| fs::read(run_dir.join("model").join(file)).unwrap());
            let before = files();
            fs::remove_dir_all(checkpoints().max().unwrap()).unwrap();
            train(&config, &run_dir).unwrap();
            assert!(before == files());
        }
    }
}
