//! `rlt sft` and `rlt train`, killed again and again at random moments (SIGKILL, also while a checkpoint is being
//! written, and SIGTERM), end with the files of a run that nobody disturbed: weights, optimizer state, reference, samples
//! and the best model byte for byte, metrics byte for byte but for the fields that measure time.
//!
//! `RLT_TEST_KILLS` sets how many kills each configuration has to survive; without it, it is 2 and not every
//! objective is tried with LoRA, too.

mod outcome;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use outcome::{assert_same, outcome};

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests");

/// A command that is killed.
struct Victim {
    command: &'static str,
    config: &'static str,
    overrides: Vec<&'static str>,
}

/// The short run's own setting is for weights that move.
const LORA: [&str; 2] = ["lora.rank=4", "grpo.reference_sync_every=0"];

/// What each objective is run with beside the short run's settings.
const OBJECTIVES: [&[&str]; 6] = [
    &["grpo.objective=grpo", "grpo.epochs=2"],
    &["grpo.objective=dr_grpo", "grpo.beta=0"],
    &["grpo.objective=dapo", "grpo.kl=k1"],
    &["grpo.objective=gspo", "grpo.minibatches=3"],
    &["grpo.objective=cispo", "grpo.kl=k2"],
    &["grpo.objective=rloo"],
];

/// Fine-tuning and every objective, with and without LoRA, and both with moments and products in bf16; with LoRA the first objective
/// only, unless `all`.
fn victims(all: bool) -> Vec<Victim> {
    let sft = ["sft.epochs=1", "eval.every=4"];
    let rl = ["grpo.steps=10", "grpo.questions_per_step=3", "grpo.group_size=4", "eval.every=2"];
    let mut victims = Vec::new();
    for (command, config, overrides) in [("sft", "short-sft.toml", &sft[..]), ("train", "short-rl.toml", &rl)]
    {
        let overrides =
            overrides.iter().chain(&["optimizer.moments=bf16", "model.arithmetic=bf16"]).copied().collect();
        victims.push(Victim { command, config, overrides });
    }
    let distil = ["grpo.steps=10", "grpo.questions_per_step=3", "grpo.group_size=4", "eval.every=2"];
    victims.push(Victim { command: "distill", config: "short-rl.toml", overrides: distil.to_vec() });
    for lora in [&[][..], &LORA] {
        let overrides = sft.iter().chain(lora).copied().collect();
        victims.push(Victim { command: "sft", config: "short-sft.toml", overrides });
        let n_objectives = if all || lora.is_empty() { OBJECTIVES.len() } else { 1 };
        for objective in &OBJECTIVES[..n_objectives] {
            let overrides = rl.iter().chain(*objective).chain(lora).copied().collect();
            victims.push(Victim { command: "train", config: "short-rl.toml", overrides });
        }
    }
    victims
}

/// When and how it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// After a random share of the time of a whole run.
    Any,
    /// While it writes a checkpoint.
    Saving,
    /// As [`Self::Any`], by a signal that lets it save.
    Asked,
}

/// A small generator (Knuth's MMIX constants).
struct Dice(u64);

impl Dice {
    /// Uniform in 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Victim {
    fn name(&self) -> String {
        format!("rlt {} {} {}", self.command, self.config, self.overrides.join(" "))
    }

    fn start(&self, run_dir: &Path, threads: usize) -> std::process::Child {
        Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
            .args(["-q", "--threads", &threads.to_string(), self.command, "--config"])
            .arg(format!("{CONFIGS}/{}", self.config))
            .args(&self.overrides)
            // The same words for every run: some files hold the path of the model.
            .current_dir(run_dir.parent().unwrap())
            .arg("run_dir=run")
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn finish(&self, run_dir: &Path, threads: usize) {
        assert!(self.start(run_dir, threads).wait().unwrap().success(), "{}", self.name());
    }

    /// Starts it and kills it, or asks it to end. False when it was done before.
    fn kill_once(
        &self,
        run_dir: &Path,
        threads: usize,
        moment: Moment,
        share: f64,
        whole_run: Duration,
    ) -> bool {
        let begun = SystemTime::now();
        let started = Instant::now();
        let mut child = self.start(run_dir, threads);
        let until = if moment == Moment::Saving {
            while !is_saving(run_dir, begun) {
                if child.try_wait().unwrap().is_some() {
                    return false;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            // A save of these small models takes a few milliseconds.
            started.elapsed() + Duration::from_secs_f64(0.005 * share)
        } else {
            whole_run.mul_f64(share)
        };
        loop {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            let left = until.saturating_sub(started.elapsed());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(Duration::from_millis(1)));
        }
        if moment == Moment::Asked {
            let sent = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
            assert!(sent.success());
            // With nothing left to do but the last files, it may be done.
            assert!(matches!(child.wait().unwrap().code(), Some(0 | 130)), "{}", self.name());
            return true;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        true
    }
}

/// Whether a checkpoint is being written that was begun after `since`.
fn is_saving(run_dir: &Path, since: SystemTime) -> bool {
    let Ok(listing) = fs::read_dir(run_dir.join("checkpoints")) else { return false };
    listing.flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with(".unfinished-")
            && entry.metadata().and_then(|m| m.modified()).is_ok_and(|modified| modified > since)
    })
}

#[test]
fn killed_runs_end_as_undisturbed_ones() {
    let asked = std::env::var("RLT_TEST_KILLS").ok();
    let kills: usize = asked.as_ref().map_or(2, |text| text.parse().unwrap());
    let mut dice = Dice(1);
    for victim in victims(asked.is_some()) {
        let dir = tempfile::tempdir().unwrap();
        let [whole, killed] = ["whole", "killed"].map(|name| dir.path().join(name).join("run"));
        for run_dir in [&whole, &killed] {
            fs::create_dir(run_dir.parent().unwrap()).unwrap();
        }
        let started = Instant::now();
        victim.finish(&whole, 2);
        let whole_run = started.elapsed();
        let whole = outcome(&whole);
        for required in ["model/model.safetensors", "metrics.jsonl"] {
            assert!(whole.contains_key(required), "{required}");
        }
        let (mut done, mut whole_lives) = (0, 0);
        while done < kills {
            // Threads change between the lives of a run, and nothing else does.
            let threads = 1 + done % 2;
            let moment = [Moment::Any, Moment::Saving, Moment::Asked, Moment::Saving][done % 4];
            if victim.kill_once(&killed, threads, moment, dice.roll(), whole_run) {
                done += 1;
                continue;
            }
            whole_lives += 1;
            assert!(whole_lives < 50, "{}: hardly ever killed in time", victim.name());
            assert_same(&whole, &killed, &victim.name());
            fs::remove_dir_all(&killed).unwrap();
        }
        victim.finish(&killed, 2);
        assert_same(&whole, &killed, &victim.name());
    }
}
