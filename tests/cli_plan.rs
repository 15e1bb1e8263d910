//! `rlt plan`: what it says is what the run takes, and what cannot fit is refused.

#[cfg(target_os = "linux")]
mod emulated;

use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use emulated::under_emulation;
use rlt::worlds::{DatasetFiles, ModelShape, Sizes, World, WorldContent};
use rlt_model::Decoder;
use rlt_model::config::ModelConfig;
use rlt_model::weights::Dtype;
use serde_json::Value;

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests");

struct Made {
    folder: tempfile::TempDir,
    files: DatasetFiles,
}

/// Wide enough that activations are most of the memory.
fn made() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { textbook: 64, teacher_sft: 4, questions_train: 16, questions_heldout: 2 };
    let shape =
        ModelShape { hidden_size: 256, intermediate_size: 1024, n_layers: 4, n_heads: 4, context: 512 };
    let files = World::Market.write_dataset(&folder.path().join("world"), 5, &sizes, &shape).unwrap();
    Made { folder, files }
}

impl Made {
    fn arguments(&self, command: &[&str], overrides: &[&str]) -> Vec<String> {
        let mut all: Vec<String> =
            ["-q", "--json"].into_iter().chain(command.iter().copied()).map(Into::into).collect();
        all.extend(["--config".into(), format!("{CONFIGS}/sft.toml")]);
        all.push(format!("model.path={}", self.files.model.display()));
        all.push(format!("data.path={}", self.files.textbook.display()));
        all.push(format!("run_dir={}", self.folder.path().join("run").display()));
        all.extend(["sft.epochs=0.5", "sft.batch_rows=32", "sft.tokens_per_microbatch=8192"].map(Into::into));
        all.extend(overrides.iter().map(|&o| o.to_owned()));
        all
    }

    fn plan(&self, overrides: &[&str]) -> std::process::Output {
        let arguments = self.arguments(&["plan"], overrides);
        assert_cmd::Command::cargo_bin("rlt").unwrap().args(arguments).output().unwrap()
    }
}

fn planned_peak(output: &std::process::Output) -> u64 {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["fits"], true);
    assert!(answer["step_s"]["update"].as_f64().unwrap() > 0.0);
    answer["peak_bytes"].as_u64().unwrap()
}

/// The peak of a process, bytes, read while it runs.
#[cfg(target_os = "linux")]
fn measured_peak(arguments: &[String]) -> u64 {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("rlt"));
    let mut child = command.args(arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
    let status: PathBuf = Path::new("/proc").join(child.id().to_string()).join("status");
    let mut peak = 0;
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        if let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
            peak = line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10;
        }
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    assert!(ended.success());
    peak
}

#[test]
#[cfg(target_os = "linux")]
fn a_run_takes_the_memory_that_was_planned() {
    if under_emulation("its own memory counts") {
        return;
    }
    let made = made();
    let held_out = format!("eval.data={}", made.files.textbook.display());
    let evaluated =
        ["memory.recompute=blocks", "optimizer.moments=bf16", "eval.every=1", "eval.max_rows=20", &held_out];
    for overrides in [&["memory.recompute=nothing"][..], &["memory.recompute=blocks"], &evaluated] {
        let planned = planned_peak(&made.plan(overrides)) as f64;
        let run = made.folder.path().join("run");
        let measured = measured_peak(&made.arguments(&["sft"], overrides)) as f64;
        std::fs::remove_dir_all(run).unwrap();
        let ratio = planned / measured;
        assert!((0.9..1.1).contains(&ratio), "{overrides:?}: {planned} planned, {measured} measured");
    }
}

/// As [`Made::arguments`], of GRPO with a student, on a model that was saved in `dtype`.
#[cfg(target_os = "linux")]
fn train_arguments(made: &Made, command: &[&str], overrides: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = ["-q", "--json"].iter().chain(command).map(|&word| word.into()).collect();
    let (model, folder) = (made.files.model.display(), made.folder.path().display());
    all.extend([
        format!("model.path={model}"),
        format!("model.student={model}"),
        format!("data.path={}", made.files.questions_train.display()),
        format!("run_dir={folder}/run"),
    ]);
    let common = [
        "prompts.teacher_system=",
        "prompts.student_system=",
        "grpo.steps=2",
        "grpo.questions_per_step=8",
        "grpo.group_size=8",
        "grpo.samples_logged=0",
        "grpo.tokens_per_microbatch=4096",
        "sampling.max_new_tokens=48",
        "sampling.max_running=32",
        "optimizer.learning_rate=1e-6",
    ];
    all.extend(common.iter().chain(overrides).map(|&setting| setting.into()));
    all
}

/// Some of the configurations of `tests/parity/plan_peak.py`, on a model small enough for every day.
#[test]
#[cfg(target_os = "linux")]
fn training_by_rewards_takes_the_memory_that_was_planned() {
    if under_emulation("its own memory counts") {
        return;
    }
    let made = made();
    let config = ModelConfig::from_dir(&made.files.model).unwrap();
    let cases: [(&str, Dtype, &[&str]); 3] = [
        ("moving reference", Dtype::F32, &[]),
        ("LoRA", Dtype::Bf16, &["lora.rank=8", "grpo.reference_sync_every=0"]),
        (
            "gspo, k1, full divergence; bf16",
            Dtype::F32,
            &[
                "grpo.objective=gspo",
                "grpo.kl=k1",
                "reward.kl=full",
                "memory.idle=release",
                "model.arithmetic=bf16",
            ],
        ),
    ];
    for (name, dtype, overrides) in cases {
        Decoder::random(&config, 1).save_as(&made.files.model, dtype).unwrap();
        let plan = train_arguments(&made, &["plan", "--for", "train"], overrides);
        let planned =
            planned_peak(&assert_cmd::Command::cargo_bin("rlt").unwrap().args(plan).output().unwrap());
        let measured = measured_peak(&train_arguments(&made, &["train"], overrides));
        std::fs::remove_dir_all(made.folder.path().join("run")).unwrap();
        let ratio = planned as f64 / measured as f64;
        assert!((0.9..1.1).contains(&ratio), "{name}: {planned} planned, {measured} measured, {ratio:.3}");
    }
}

#[test]
fn what_cannot_fit_is_refused_with_what_would() {
    let made = made();
    let whole = planned_peak(&made.plan(&[]));
    let less = planned_peak(&made.plan(&["memory.recompute=blocks"]));
    assert!(less < whole, "{less} {whole}");
    let gib = |bytes: u64| format!("{}", bytes as f64 / f64::from(1 << 30));
    let output = made.plan(&["--memory", &gib(u64::midpoint(whole, less))]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("this needs") && message.contains(" would need 0."), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    let output = made.plan(&["--memory", "0.001"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("take a smaller model"));
}

#[test]
fn a_plan_has_to_know_its_command() {
    let made = made();
    let arguments = ["-q", "plan", &format!("model.path={}", made.files.model.display())];
    let output = assert_cmd::Command::cargo_bin("rlt").unwrap().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--for sft or --for train"));
}

#[test]
fn a_rank_of_several_has_its_share_and_sends_the_rest() {
    let made = made();
    let plan = |more: &[&str]| -> Value {
        let arguments = made.arguments(&["plan"], more);
        let output = assert_cmd::Command::cargo_bin("rlt").unwrap().args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (one, four) = (plan(&[]), plan(&["ranks=4", "--bandwidth=2", "train.lanes=8"]));
    let number = |plan: &Value, path: &str| plan.pointer(path).and_then(Value::as_f64).unwrap();
    let moments = |plan| number(plan, "/stays_bytes/optimizer moments");
    let share = moments(&four) / moments(&one);
    assert!((0.25..0.27).contains(&share), "{share}");
    // Two lanes of each rank: one sum while the other's gradient is made.
    let gradients = |plan| number(plan, "/stays_bytes/gradients");
    assert_eq!(gradients(&four), 2.0 * gradients(&one));
    assert!(number(&four, "/step_s/update") < 0.6 * number(&one, "/step_s/update"));
    let trained = number(&four, "/trained");
    assert_eq!(
        (number(&four, "/sent_bytes/gradients"), number(&four, "/sent_bytes/weights")),
        (3.0 * trained, 3.0 * trained)
    );
    assert_eq!(number(&four, "/network_s"), 6.0 * trained / 2e9);
    assert_eq!(one["sent_bytes"], serde_json::json!({}));

    for (more, line) in [
        (&["ranks=3", "train.lanes=8"][..], "train.lanes is 8, and 3 ranks cannot share"),
        (&["--bandwidth=0"], "--bandwidth is 0"),
    ] {
        let output = made.plan(more);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(line), "{said}");
    }
}
