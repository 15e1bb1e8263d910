//! `rlt sft` and `rlt train` as a library, on a small world with random weights: they learn, they can be
//! interrupted and go on bit for bit, and what they leave can be loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rlt::config::Config;
use rlt::metrics::{find, is_time};
use rlt::progress::{Progress, Silent};
use rlt::run_log::read_rows;
use rlt::training::Trained;
use rlt::worlds::{DatasetFiles, ModelShape, Sizes, World, WorldContent};
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
    fn warn(&self, _: &str) {}
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

/// The rows of `metrics.jsonl` without what measures time; every metric is one of the table.
fn metrics(run_dir: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let mut rows = read_rows(&run_dir.join("metrics.jsonl")).unwrap();
    for row in &mut rows {
        let unknown: Vec<&String> = row.keys().filter(|key| find(key).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        row.retain(|key, _| !is_time(key));
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
        let config = made.sft_config(&[&format!("sft.format={format}"), "sft.epochs=6"]);
        let run_dir = made.run_dir(format);
        let trained = run(rlt::start::sft, &config, &run_dir);
        assert_eq!(trained.steps, 36);
        let metrics = metrics(&run_dir);
        let losses: Vec<f64> = metrics.iter().map(|row| row["loss"].as_f64().unwrap()).collect();
        assert!(losses[35] < 0.8 * losses[0], "{format}: {losses:?}");
        assert_eq!(metrics[35]["epoch"], 6.0);
        Decoder::load(&trained.model).unwrap();
        for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            assert!(trained.model.join(file).exists(), "{file}");
        }
        assert!(trained.report.exists());
    }
}

#[test]
fn recomputation_changes_no_bit() {
    let made = world();
    let run_dirs = ["nothing", "blocks"].map(|recompute| {
        let config = made.sft_config(&[&format!("memory.recompute={recompute}"), "sft.epochs=1"]);
        let run_dir = made.run_dir(recompute);
        run(rlt::start::sft, &config, &run_dir);
        run_dir
    });
    assert_same_outcome(&run_dirs[0], &run_dirs[1]);
}

#[test]
fn the_final_model_is_saved_in_the_number_format_asked_for() {
    let made = world();
    let model = |name: &str, dtype: &str| {
        let config = made.sft_config(&[&format!("model.save_dtype={dtype}")]);
        run(rlt::start::sft, &config, &made.run_dir(name)).model
    };
    let (exact, rounded) = (model("exact", "f32"), model("rounded", "bf16"));
    let config = fs::read_to_string(rounded.join("config.json")).unwrap();
    assert!(config.contains("\"torch_dtype\": \"bfloat16\""), "{config}");
    let (exact, rounded) = (Decoder::load(&exact).unwrap(), Decoder::load_frozen(&rounded).unwrap());
    for (exact, rounded) in exact.parameters().tensors().iter().zip(rounded.parameters().tensors()) {
        assert_eq!(rounded.is_bf16(), rounded.rows() > 1);
        for (exact, rounded) in exact.to_host().iter().zip(rounded.to_host().iter()) {
            // Half a unit in the last of 8 bits.
            assert!((exact - rounded).abs() <= exact.abs() / 256.0, "{exact} {rounded}");
        }
    }
}

#[test]
fn sft_goes_on_bit_for_bit() {
    let made = world();
    assert_goes_on_bit_for_bit(rlt::start::sft, &made.sft_config(&[]), &made, 6);
}

#[test]
fn sft_refuses_rows_that_changed_under_a_run() {
    let made = world();
    let run_dir = made.run_dir("run");
    stop_after(rlt::start::sft, &made.sft_config(&[]), &run_dir, 2);
    fs::copy(&made.files.teacher_sft, &made.files.textbook).unwrap();
    let stop = AtomicBool::new(false);
    let error = rlt::start::sft(&made.sft_config(&[]), &run_dir, &Silent, &stop).unwrap_err();
    assert!(matches!(error, Error::Usage(_)));
    assert!(error.to_string().contains("was made with other rows (48 then, 40 now"), "{error}");
}

#[test]
fn models_that_changed_under_a_run_are_refused() {
    let made = world();
    let model = made.trained_model();
    let student = made.run_dir("student");
    fs::create_dir(&student).unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        fs::copy(model.join(name), student.join(name)).unwrap();
    }
    let student_key = format!("model.student={}", student.display());
    let config = made.train_config(&model, &[&student_key]);
    let run_dir = made.run_dir("run");
    stop_after(rlt::start::grpo, &config, &run_dir, 1);
    Decoder::random(Decoder::load(&student).unwrap().config(), 9).save(&student).unwrap();
    let error = rlt::start::grpo(&config, &run_dir, &Silent, &AtomicBool::new(false)).unwrap_err();
    assert!(
        matches!(error, Error::Usage(_)) && error.to_string().contains("another model.student"),
        "{error}"
    );
}

/// The divergence from the reference in the first step, whose policy is the model as training begins.
fn first_kl(run_dir: &Path) -> f64 {
    metrics(run_dir)[0]["kl_to_reference"].as_f64().unwrap()
}

#[test]
fn a_reference_of_its_own_is_in_the_checkpoints_when_it_moves_and_read_anew_when_not() {
    for (every, in_checkpoints) in [("2", true), ("0", false)] {
        let made = world();
        let model = made.trained_model();
        let other = run(rlt::start::sft, &made.sft_config(&["seed=8"]), &made.run_dir("other")).model;
        let reference = format!("model.reference={}", other.display());
        let config = made.train_config(&model, &[&reference, &format!("grpo.reference_sync_every={every}")]);
        assert_goes_on_bit_for_bit(rlt::start::grpo, &config, &made, 2);
        let whole = made.run_dir("whole");
        assert!(first_kl(&whole) > 1e-3, "{}", first_kl(&whole));
        let saved = whole.join("checkpoints/step-000003/reference.safetensors").exists();
        assert_eq!(saved, in_checkpoints);
    }
}

#[test]
fn a_reference_of_another_shape_cannot_move() {
    let made = world();
    let model = made.trained_model();
    let sizes = Sizes { textbook: 1, teacher_sft: 1, questions_train: 1, questions_heldout: 1 };
    let shape = ModelShape { hidden_size: 16, intermediate_size: 32, n_layers: 1, n_heads: 2, context: 512 };
    let small = World::Market.write_dataset(&made.run_dir("small"), 5, &sizes, &shape).unwrap().model;
    Decoder::random(&rlt_model::config::ModelConfig::from_dir(&small).unwrap(), 1).save(&small).unwrap();
    let reference = format!("model.reference={}", small.display());
    let stop = AtomicBool::new(false);
    let config = made.train_config(&model, &[&reference]);
    let error = rlt::start::grpo(&config, &made.run_dir("moving"), &Silent, &stop).unwrap_err();
    assert!(error.to_string().contains("another shape than model.path"), "{error}");
    let config = made.train_config(&model, &[&reference, "grpo.reference_sync_every=0"]);
    run(rlt::start::grpo, &config, &made.run_dir("fixed"));
    assert!(first_kl(&made.run_dir("fixed")) > 1e-3);
}

#[test]
fn matrices_padded_further_are_refused_where_whole_vocabularies_are_compared() {
    let made = world();
    let model = made.trained_model();
    // Of the same tokenizer, as the larger models of a family are.
    let padded = made.run_dir("padded");
    fs::create_dir_all(&padded).unwrap();
    for file in fs::read_dir(&model).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&file, padded.join(file.file_name().unwrap())).unwrap();
    }
    let config = fs::read_to_string(padded.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let rows = config["vocab_size"].as_u64().unwrap();
    config["vocab_size"] = (rows + 8).into();
    fs::write(padded.join("config.json"), config.to_string()).unwrap();
    let config = rlt_model::config::ModelConfig::from_dir(&padded).unwrap();
    Decoder::random(&config, 1).save(&padded).unwrap();

    let refusal = |train: Train, config: &Config, name: &str| {
        let stop = AtomicBool::new(false);
        train(config, &made.run_dir(name), &Silent, &stop).unwrap_err().to_string()
    };
    let reference = format!("model.reference={}", padded.display());
    let message = refusal(rlt::start::distill, &made.distill_config(&model, &[&reference]), "distilled");
    let says =
        format!("their output matrices have {rows} and {} rows; choose another model.reference", rows + 8);
    assert!(message.starts_with("distillation compares") && message.ends_with(&says), "{message}");
    let student = format!("model.student={}", padded.display());
    let full = made.train_config(&model, &[&student, "reward.kl=full"]);
    let message = refusal(rlt::start::grpo, &full, "full");
    assert!(
        message.starts_with("reward.kl = \"full\" compares two models over the whole vocabulary"),
        "{message}"
    );
    // Log-probabilities of single tokens compare.
    let fixed =
        made.train_config(&model, &[&student, &reference, "grpo.reference_sync_every=0", "grpo.steps=1"]);
    run(rlt::start::grpo, &fixed, &made.run_dir("single"));
}

#[test]
fn rows_that_do_not_fit_are_an_error_when_none_is_left() {
    let made = world();
    let config = made.sft_config(&["sft.max_tokens=5"]);
    let stop = AtomicBool::new(false);
    let error = rlt::start::sft(&config, &made.run_dir("run"), &Silent, &stop).unwrap_err();
    assert!(error.to_string().contains("none of the 48 rows can be learnt from"), "{error}");
}

impl Made {
    /// A model in the world's folder that has been trained for a few steps.
    fn trained_model(&self) -> PathBuf {
        run(rlt::start::sft, &self.sft_config(&["sft.format=teacher"]), &self.run_dir("base")).model
    }

    fn train_config(&self, model: &Path, overrides: &[&str]) -> Config {
        let mut all = vec![
            format!("model.path={}", model.display()),
            format!("model.student={}", model.display()),
            format!("data.path={}", self.files.questions_train.display()),
        ];
        all.extend(overrides.iter().map(|&o| o.to_owned()));
        Config::load(Some(&Path::new(CONFIGS).join("train.toml")), &all).unwrap()
    }
}

impl Made {
    /// The same for distillation, which has no reference of its own that moves.
    fn distill_config(&self, model: &Path, overrides: &[&str]) -> Config {
        let mut all = vec![
            format!("model.path={}", model.display()),
            format!("data.path={}", self.files.questions_train.display()),
            "distill.told={question} The answer is {solution}".to_owned(),
        ];
        all.extend(overrides.iter().map(|&o| o.to_owned()));
        Config::load(Some(&Path::new(CONFIGS).join("distill.toml")), &all).unwrap()
    }
}

/// Every number of `keys` is there and finite in every row.
fn assert_has(rows: &[serde_json::Map<String, serde_json::Value>], keys: &[&str]) {
    for (row, key) in rows.iter().flat_map(|row| keys.iter().map(move |key| (row, key))) {
        assert!(row.get(*key).and_then(serde_json::Value::as_f64).is_some(), "{key} in {row:?}");
    }
}

const METRICS: [&str; 19] = [
    "loss",
    "reward_mean",
    "reward_std",
    "reward_min",
    "reward_max",
    "reward_median",
    "reward_q25",
    "reward_q75",
    "format_rate",
    "completion_tokens_mean",
    "kl_to_reference",
    "zero_variance_groups",
    "learning_rate",
    "grad_norm",
    "wall_s",
    "tokens_per_s",
    "generate_s",
    "score_s",
    "update_s",
];

const RLT_METRICS: [&str; 12] = [
    "r_ss_mean",
    "r_kl_mean",
    "solution_logprob_mean",
    "solution_logprob_min",
    "kl_mean",
    "kl_max",
    "unscorable",
    "reward_no_entropy_mean",
    "think_tokens_mean",
    "solution_overlap_mean",
    "repeated_ngram_share_mean",
    "explanation_value_mean",
];

#[test]
fn grpo_runs_with_the_rlt_reward() {
    let made = world();
    let model = made.trained_model();
    let run_dir = made.run_dir("run");
    let trained = run(rlt::start::grpo, &made.train_config(&model, &[]), &run_dir);
    let rows = read_rows(&run_dir.join("metrics.jsonl")).unwrap();
    assert_eq!(rows.len(), 3);
    assert_has(&rows, &METRICS);
    assert_has(&rows, &RLT_METRICS);
    // The first step's policy is the reference itself.
    assert!(rows[0]["kl_to_reference"].as_f64().unwrap() < 1e-9);
    assert!(rows[1]["kl_to_reference"].as_f64().unwrap() > 1e-9);
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&model) != weights(&trained.model), "nothing was learnt");
    Decoder::load(&trained.model).unwrap();

    for (step, n) in [(1, 3), (2, 3), (3, 3)] {
        let samples = read_rows(&run_dir.join(format!("samples/step-{step:06}.jsonl"))).unwrap();
        assert_eq!(samples.len(), n);
        for sample in samples {
            let length = |key: &str| sample[key].as_array().unwrap().len();
            if sample["parts"]["status"] == "ok" {
                assert!(length("think_tokens") > 0 && length("solution_tokens") > 0);
                let explanation: String =
                    sample["think_tokens"].as_array().unwrap().iter().filter_map(|t| t.as_str()).collect();
                // Bytes that are no text alone may be text together.
                let spelled = explanation.contains('\u{fffd}');
                assert!(spelled || sample["explanation"].as_str().unwrap().starts_with(&explanation));
            }
            assert_eq!(length("think_tokens"), length("d_j"));
            assert!(sample["advantage"].is_number() && sample["reward"].is_number());
        }
    }
    let report = fs::read_to_string(&trained.report).unwrap();
    assert!(report.contains("think") && report.contains("<svg"));
}

#[test]
fn recorded_and_recomputed_teacher_log_probabilities_give_the_same_rewards() {
    let made = world();
    let model = made.trained_model();
    let rewards = |name: &str, temperature: &str| {
        let config = made.train_config(
            &model,
            &["grpo.steps=1", &format!("reward.teacher_temperature={temperature}"), "grpo.beta=0"],
        );
        let run_dir = made.run_dir(name);
        run(rlt::start::grpo, &config, &run_dir);
        let rows = metrics(&run_dir);
        assert!(!rows[0].contains_key("kl_to_reference"));
        rows[0]["reward_mean"].as_f64().unwrap()
    };
    let (recorded, computed) = (rewards("recorded", "0.7"), rewards("computed", "0.7000001"));
    assert!((recorded - computed).abs() < 1e-4, "{recorded} {computed}");
}

#[test]
fn grpo_runs_with_the_divergence_over_the_vocabulary() {
    let made = world();
    let model = made.trained_model();
    let kl_mean = |kl: &str| {
        let config = made.train_config(&model, &["grpo.steps=1", &format!("reward.kl={kl}")]);
        let run_dir = made.run_dir(kl);
        run(rlt::start::grpo, &config, &run_dir);
        let rows = metrics(&run_dir);
        assert_has(&rows, &RLT_METRICS);
        rows[0]["kl_mean"].as_f64().unwrap()
    };
    // The same completions: their mean log-ratio is an estimate of their mean divergence.
    let (full, sampled) = (kl_mean("full"), kl_mean("sampled"));
    assert!(full >= 0.0 && (full - sampled).abs() < 0.5 + 0.5 * full, "{full} in full, {sampled} sampled");
}

#[test]
fn grpo_runs_with_the_correctness_reward() {
    let made = world();
    let model = made.trained_model();
    let config = made.train_config(&model, &["reward.kind=correctness"]);
    let run_dir = made.run_dir("run");
    run(rlt::start::grpo, &config, &run_dir);
    let rows = read_rows(&run_dir.join("metrics.jsonl")).unwrap();
    assert_eq!(rows.len(), 3);
    assert_has(&rows, &METRICS);
    assert_has(&rows, &["accuracy"]);
    // A model that hardly knows words does not write the sections.
    assert_eq!(rows[0]["reward_mean"], -1.0);
    assert_eq!(rows[0]["zero_variance_groups"], 2);
}

#[test]
fn grpo_runs_with_the_likelihood_reward() {
    let made = world();
    let model = made.trained_model();
    let config = made.train_config(&model, &["reward.kind=likelihood", "reward.add.repetition=-0.5"]);
    let run_dir = made.run_dir("run");
    run(rlt::start::grpo, &config, &run_dir);
    let rows = metrics(&run_dir);
    assert_has(&rows, &METRICS[..10]);
    assert_has(&rows, &RLT_METRICS);
    assert_has(&rows, &["reward_likelihood_mean", "reward_repetition_mean"]);
    for sample in read_rows(&run_dir.join("samples/step-000001.jsonl")).unwrap() {
        let parts = &sample["parts"];
        if parts["status"] != "ok" {
            continue;
        }
        // The student's means with and without the explanation, as the ledger has them.
        let mean = |column: &str| {
            let values: Vec<f64> =
                sample[column].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let gain = mean("solution_logprobs") - mean("solution_logprobs_without_explanation");
        let expected = (1.0 - (-gain).exp()).max(-1.0) + parts["format_penalty"].as_f64().unwrap();
        let reward = sample["rewards"]["likelihood"].as_f64().unwrap();
        assert!((reward - expected).abs() < 1e-5, "{reward} {expected}");
        let sum = reward - 0.5 * sample["rewards"]["repetition"].as_f64().unwrap();
        assert!((sample["reward"].as_f64().unwrap() - sum).abs() < 1e-5, "{sample:?}");
    }
}

#[test]
fn grpo_runs_with_the_pedagogical_reward() {
    let made = world();
    let model = made.trained_model();
    let told = "distill.told={question} The answer is {solution}";
    let of_length = "reward.add.length=0.5";
    let pedagogical = ["reward.kind=pedagogical", told, of_length, "reward.spike_lambda=2"];
    let config = made.train_config(&model, &pedagogical);
    let run_dir = made.run_dir("run");
    run(rlt::start::grpo, &config, &run_dir);
    let rows = metrics(&run_dir);
    assert_has(&rows, &METRICS[..10]);
    assert_has(&rows, &["reward_pedagogical_mean", "accuracy", "format_rate", "unscorable"]);
    assert_has(&rows, &["learnability_mean", "surprise_gap_mean", "surprise_gap_max"]);
    for sample in read_rows(&run_dir.join("samples/step-000001.jsonl")).unwrap() {
        let numbers = |column: &str| -> Vec<f64> {
            sample[column].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let (gaps, logprobs) = (numbers("surprise_gaps"), numbers("reader_logprobs"));
        assert!(gaps.len() == logprobs.len() && !gaps.is_empty(), "{sample:?}");
        // A favourite's log-probability is none above 0.
        assert!(gaps.iter().zip(&logprobs).all(|(gap, logprob)| *gap >= 0.0 && gap + logprob <= 1e-6));
        let mean = gaps.iter().map(|gap| (5.0 * gap).exp()).sum::<f64>() / gaps.len() as f64;
        let expected = (-2.0 / 5.0 * mean.ln()).exp();
        let learnability = sample["parts"]["learnability"].as_f64().unwrap();
        assert!((learnability - expected).abs() < 1e-5, "{learnability} {expected}");
        let earned = if sample["parts"]["correct"] == true { learnability } else { 0.0 };
        assert!((sample["rewards"]["pedagogical"].as_f64().unwrap() - earned).abs() < 1e-6, "{sample:?}");
    }
    let goes_on = [&pedagogical[..], &["grpo.steps=5", "checkpoint.every=2"]].concat();
    assert_goes_on_bit_for_bit(rlt::start::grpo, &made.train_config(&model, &goes_on), &made, 3);
}

#[test]
fn a_student_that_cannot_read_a_whole_completion_is_a_reason_and_no_number() {
    let made = world();
    let model = made.trained_model();
    let student = made.run_dir("student");
    fs::create_dir(&student).unwrap();
    for entry in fs::read_dir(&model).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, student.join(path.file_name().unwrap())).unwrap();
    }
    // Room for the question and little else.
    let config = fs::read_to_string(student.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["max_position_embeddings"] = 40.into();
    fs::write(student.join("config.json"), config.to_string()).unwrap();
    let student = format!("model.student={}", student.display());
    let pedagogical = ["reward.kind=pedagogical", &student, "grpo.steps=1", "reward.unscorable_reward=-7"];
    let run_dir = made.run_dir("run");
    run(rlt::start::grpo, &made.train_config(&model, &pedagogical), &run_dir);
    let rows = metrics(&run_dir);
    assert!(rows[0]["unscorable"].as_u64().unwrap() > 0, "{rows:?}");
    let samples = read_rows(&run_dir.join("samples/step-000001.jsonl")).unwrap();
    let unread: Vec<_> = samples.iter().filter(|sample| sample["reward"] == -7.0).collect();
    assert!(!unread.is_empty(), "{samples:?}");
    for sample in unread {
        let status = sample["parts"]["status"].as_str().unwrap();
        assert!(
            status.starts_with("too long: ") && status.ends_with("the student's context is 40"),
            "{status}"
        );
        assert!(sample["parts"].get("learnability").is_none(), "{sample:?}");
    }
}

#[test]
fn gated_fine_tuning_goes_on_bit_for_bit() {
    let made = world();
    let gate = ["sft.gate_kappa=2", "sft.gate_gamma=-4", "sft.epochs=2", "checkpoint.every=2"];
    let config = made.sft_config(&gate);
    assert_goes_on_bit_for_bit(rlt::start::sft, &config, &made, 3);
    let rows = metrics(&made.run_dir("whole"));
    let gates: Vec<f64> = rows.iter().map(|row| row["gate_mean"].as_f64().unwrap()).collect();
    assert!(gates.iter().all(|gate| (0.0..=1.0).contains(gate)), "{gates:?}");
    assert!(gates.last() > gates.first(), "what is learnt surprises less: {gates:?}");
    let plain = made.run_dir("plain");
    run(rlt::start::sft, &made.sft_config(&[]), &plain);
    assert!(!metrics(&plain)[0].contains_key("gate_mean"));
}

#[test]
fn distillation_nears_its_teacher() {
    let made = world();
    let model = made.trained_model();
    // A teacher that has learnt more: models of this size hardly read what they are told.
    let longer = made.sft_config(&["sft.format=student", "sft.epochs=8", "optimizer.learning_rate=3e-3"]);
    let teacher = run(rlt::start::sft, &longer, &made.run_dir("teacher")).model;
    let teacher = format!("model.reference={}", teacher.display());
    let config = made.distill_config(
        &model,
        &[&teacher, "grpo.steps=12", "optimizer.learning_rate=3e-3", "checkpoint.every=0"],
    );
    let run_dir = made.run_dir("run");
    run(rlt::start::distill, &config, &run_dir);
    let rows = metrics(&run_dir);
    assert_has(&rows, &["divergence", "reward_mean", "accuracy", "grad_norm", "learning_rate"]);
    assert!(!rows[0].contains_key("loss") && !rows[0].contains_key("kl_to_reference"), "{:?}", rows[0]);
    let divergence = |row: usize| rows[row]["divergence"].as_f64().unwrap();
    assert!(divergence(0) > 0.1 && divergence(11) < 0.7 * divergence(0), "{rows:?}");
    let samples = read_rows(&run_dir.join("samples/step-000001.jsonl")).unwrap();
    assert!(samples.iter().all(|sample| !sample.contains_key("advantage")), "{samples:?}");
    let page = fs::read_to_string(run_dir.join("report.html")).unwrap();
    assert!(page.contains("On-policy distillation") && page.contains("Divergence from the teacher"));
}

#[test]
fn distillation_goes_on_bit_for_bit() {
    for own in
        [&[][..], &["grpo.reference_sync_every=1", "grpo.reference_mixup=0.1", "distill.divergence=forward"]]
    {
        let made = world();
        let model = made.trained_model();
        let overrides = [own, &["grpo.steps=5", "checkpoint.every=2"]].concat();
        let config = made.distill_config(&model, &overrides);
        assert_goes_on_bit_for_bit(rlt::start::distill, &config, &made, 3);
    }
}

#[test]
fn a_run_of_distillation_is_no_run_of_grpo_and_knows_what_it_told() {
    let made = world();
    let model = made.trained_model();
    let config = made.distill_config(&model, &[]);
    let run_dir = made.run_dir("run");
    run(rlt::start::distill, &config, &run_dir);
    let refusal = |train: Train, config: &Config| {
        train(config, &run_dir, &Silent, &AtomicBool::new(false)).unwrap_err().to_string()
    };
    let other = made.train_config(&model, &["reward.kind=correctness"]);
    let message = refusal(rlt::start::grpo, &other);
    assert!(message.contains("belongs to a run of distill, not grpo"), "{message}");
    let told = made.distill_config(&model, &["distill.told={solution}"]);
    let message = refusal(rlt::start::distill, &told);
    assert!(message.contains("distill.told was"), "{message}");
}

#[test]
fn grpo_goes_on_bit_for_bit() {
    let made = world();
    let model = made.trained_model();
    // The reference has drifted when the run is interrupted.
    let config = made.train_config(&model, &["grpo.steps=5", "checkpoint.every=2"]);
    assert_goes_on_bit_for_bit(rlt::start::grpo, &config, &made, 3);
}

#[test]
fn the_best_model_by_held_out_loss_is_kept() {
    let made = world();
    let held_out = format!("eval.data={}", made.files.questions_heldout.display());
    let config =
        made.sft_config(&[&held_out, "eval.every=4", "sft.epochs=4", "optimizer.learning_rate=0.05"]);
    let run_dir = made.run_dir("run");
    let trained = run(rlt::start::sft, &config, &run_dir);
    let evaluated: Vec<(u64, f64)> = metrics(&run_dir)
        .iter()
        .filter_map(|row| Some((row["step"].as_u64()?, row.get("eval_loss")?.as_f64()?)))
        .collect();
    let steps: Vec<u64> = evaluated.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [4, 8, 12, 16, 20, 24]);
    let (best, _) = *evaluated.iter().min_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap();
    let folder = run_dir.join(format!("best/step-{best:06}"));
    assert_eq!(trained.best.as_ref(), Some(&folder), "{evaluated:?}");
    Decoder::load(&folder).unwrap();
    assert_eq!(fs::read_dir(run_dir.join("best")).unwrap().count(), 1);
}

#[test]
fn a_run_without_gain_ends_early_and_stays_ended() {
    let made = world();
    let held_out = format!("eval.data={}", made.files.questions_heldout.display());
    let config =
        made.sft_config(&[&held_out, "eval.every=1", "eval.patience=2", "eval.min_gain=100", "sft.epochs=4"]);
    let run_dir = made.run_dir("run");
    for _ in 0..2 {
        let trained = run(rlt::start::sft, &config, &run_dir);
        assert_eq!((trained.steps, trained.best), (3, Some(run_dir.join("best/step-000001"))));
        assert_eq!(metrics(&run_dir).len(), 3);
    }
}

#[test]
fn grpo_is_evaluated_on_held_out_questions() {
    let made = world();
    let model = made.trained_model();
    let held_out = format!("eval.data={}", made.files.questions_heldout.display());
    let config = made.train_config(&model, &[&held_out, "eval.every=2", "eval.samples=3"]);
    let run_dir = made.run_dir("run");
    let trained = run(rlt::start::grpo, &config, &run_dir);
    let rows = read_rows(&run_dir.join("metrics.jsonl")).unwrap();
    let evaluated = [rows[1].clone(), rows[2].clone()];
    assert_has(&evaluated, &["eval_reward_mean", "eval_r_ss_mean", "eval_r_kl_mean", "eval_s"]);
    assert!(!rows[0].contains_key("eval_reward_mean"));
    let reward = |row: &serde_json::Map<String, serde_json::Value>| row["eval_reward_mean"].as_f64().unwrap();
    let best = if reward(&rows[2]) > reward(&rows[1]) { 3 } else { 2 };
    assert_eq!(trained.best, Some(run_dir.join(format!("best/step-{best:06}"))));
}

#[test]
fn several_updates_of_a_step_and_added_rewards_go_on_bit_for_bit() {
    let made = world();
    let model = made.trained_model();
    let settings = [
        "grpo.steps=5",
        "checkpoint.every=2",
        "grpo.objective=dapo",
        "grpo.mask_truncated=false",
        "grpo.epochs=2",
        "grpo.minibatches=2",
        "grpo.beta=0.1",
        "grpo.kl=k1",
        "reward.add.length=-0.5",
        "reward.add.correctness=1",
        "optimizer.schedule=linear",
    ];
    let config = made.train_config(&model, &settings);
    assert_goes_on_bit_for_bit(rlt::start::grpo, &config, &made, 3);
    let rows = metrics(&made.run_dir("whole"));
    assert_has(&rows, &METRICS[..10]);
    assert_has(
        &rows,
        &["reward_rlt_mean", "reward_length_mean", "reward_correctness_mean", "groups_sampled"],
    );
    assert_has(&rows, &["kl_penalty_mean", "clipped_share", "log_ratio_max", "masked_completions"]);
    for row in &rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        let sum = number("reward_rlt_mean") - 0.5 * number("reward_length_mean")
            + number("reward_correctness_mean");
        assert!((number("reward_mean") - sum).abs() < 1e-5, "{row:?}");
        // The policy has moved between the first update of a batch and its last.
        assert!(number("log_ratio_max") > 1e-4, "{row:?}");
    }
}

#[test]
fn groups_of_equal_rewards_are_drawn_again_and_the_order_of_rows_goes_on_after_them() {
    let made = world();
    let model = made.trained_model();
    // A model that hardly knows words never writes the sections: all rewards are equal.
    let settings =
        ["reward.kind=correctness", "grpo.objective=dapo", "grpo.resample_rounds=2", "checkpoint.every=1"];
    let config = made.train_config(&model, &settings);
    assert_goes_on_bit_for_bit(rlt::start::grpo, &config, &made, 2);
    for row in metrics(&made.run_dir("whole")) {
        assert_eq!((&row["groups_sampled"], &row["zero_variance_groups"]), (&6.into(), &6.into()));
    }
    let state = fs::read_to_string(made.run_dir("whole").join("checkpoints/step-000003/state.json")).unwrap();
    assert!(state.contains("\"rows_drawn\": 18"), "{state}");
}

/// One command line that has to succeed.
fn rlt(arguments: &[&str]) -> String {
    let output = assert_cmd::Command::cargo_bin("rlt").unwrap().args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_line_trains_a_teacher() {
    let made = world();
    let model = format!("model.path={}", made.files.model.display());
    let data = format!("data.path={}", made.files.teacher_sft.display());
    let sft_dir = made.run_dir("sft");
    let run_dir = format!("run_dir={}", sft_dir.display());
    let config = format!("{CONFIGS}/sft.toml");
    let answer = rlt(&["-q", "sft", "--config", &config, &model, &data, &run_dir, "sft.format=teacher"]);
    assert!(answer.contains("trained 10 steps") && answer.contains("report.html"), "{answer}");

    let teacher = format!("model.path={}", sft_dir.join("model").display());
    let student = format!("model.student={}", sft_dir.join("model").display());
    let data = format!("data.path={}", made.files.questions_train.display());
    let train_dir = made.run_dir("train");
    let run_dir = format!("run_dir={}", train_dir.display());
    let config = format!("{CONFIGS}/train.toml");
    let train = ["--json", "-q", "train", "--config", &config, &teacher, &student, &data, &run_dir];
    let answer: serde_json::Value = serde_json::from_str(&rlt(&train)).unwrap();
    assert_eq!(answer["steps"], 3);
    assert_eq!(metrics(&train_dir).len(), 3);
    assert!(train_dir.join("config.toml").exists() && train_dir.join("report.html").exists());
    // The same command again finds nothing left to do.
    let before = fs::read(train_dir.join("metrics.jsonl")).unwrap();
    rlt(&train);
    assert_eq!(fs::read(train_dir.join("metrics.jsonl")).unwrap(), before);
}

/// A process killed at any moment and started again ends with the same bits, at another number of threads
/// too.
#[test]
fn a_killed_process_goes_on_bit_for_bit() {
    let made = world();
    let overrides = [
        format!("model.path={}", made.files.model.display()),
        format!("data.path={}", made.files.textbook.display()),
        "checkpoint.every=1".into(),
        "sft.epochs=8".into(),
    ];
    let [whole, killed] = ["whole", "killed"].map(|name| made.run_dir(name));
    let command = |run_dir: &Path, threads: &str| {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("rlt"));
        let config = format!("{CONFIGS}/sft.toml");
        command.args(["-q", "--threads", threads, "sft", "--config", &config]).args(&overrides);
        command.arg(format!("run_dir={}", run_dir.display())).stdout(std::process::Stdio::null());
        command
    };
    assert!(command(&whole, "2").status().unwrap().success());
    let mut child = command(&killed, "1").spawn().unwrap();
    while !killed.join("checkpoints/step-000003").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!killed.join("model").exists(), "it ended before it could be killed");
    assert!(command(&killed, "1").status().unwrap().success());
    assert_same_outcome(&whole, &killed);
}
