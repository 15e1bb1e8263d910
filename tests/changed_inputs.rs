//! What a run must find unchanged to go on: everything that decides a number and is read anew. Each change is refused by
//! name, and nothing of the run is touched. A date is no such input: it is the run's, however often it goes on.

mod outcome;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use outcome::{assert_same, outcome};
use rlt::config::Config;
use rlt::progress::{Progress, Silent};
use rlt::run_dir::RunDir;
use rlt::training::{State, Trained};
use rlt::worlds::{DatasetFiles, ModelShape, Sizes, World, WorldContent};
use rlt::{Error, Result};
use rlt_model::Decoder;
use rlt_model::config::ModelConfig;
use serde_json::{Value, json};

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests");

/// A world's files with random weights beside the model's shape, and a student that is a copy.
struct Made {
    folder: tempfile::TempDir,
    files: DatasetFiles,
    student: PathBuf,
}

fn made() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { textbook: 24, teacher_sft: 16, questions_train: 8, questions_heldout: 3 };
    let shape = ModelShape { hidden_size: 32, intermediate_size: 64, n_layers: 2, n_heads: 2, context: 512 };
    let files = World::Market.write_dataset(&folder.path().join("world"), 5, &sizes, &shape).unwrap();
    Decoder::random(&ModelConfig::from_dir(&files.model).unwrap(), 3).save(&files.model).unwrap();
    let student = folder.path().join("student");
    fs::create_dir(&student).unwrap();
    for entry in fs::read_dir(&files.model).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, student.join(path.file_name().unwrap())).unwrap();
    }
    Made { folder, files, student }
}

impl Made {
    fn run_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The overrides of a run: its paths, then `more`.
    fn overrides(&self, work: Work, more: &[&str]) -> Vec<String> {
        let data = match work {
            Work::Sft => &self.files.textbook,
            Work::Train => &self.files.questions_train,
        };
        let paths = [
            ("model.path", &self.files.model),
            ("model.student", &self.student),
            ("data.path", data),
            ("eval.data", &self.files.questions_heldout),
        ];
        let paths = paths.map(|(key, path)| format!("{key}={}", path.display()));
        let fixed = ["eval.every=2", "checkpoint.every=1", "checkpoint.keep=9", "sft.epochs=1"];
        let fixed = fixed.into_iter().chain(more.iter().copied()).map(str::to_owned);
        paths.into_iter().chain(fixed).collect()
    }

    fn config(&self, work: Work, more: &[&str]) -> Config {
        let mut overrides = self.overrides(work, more);
        if work == Work::Sft {
            overrides.retain(|key| !key.starts_with("eval."));
            overrides.push("model.from_scratch=false".into());
        }
        Config::load(Some(&Path::new(CONFIGS).join(work.file())), &overrides).unwrap()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Sft,
    Train,
}

impl Work {
    fn file(self) -> &'static str {
        match self {
            Self::Sft => "sft.toml",
            Self::Train => "train.toml",
        }
    }

    fn call(
        self,
        config: &Config,
        run_dir: &Path,
        progress: &dyn Progress,
        stop: &AtomicBool,
    ) -> Result<Trained> {
        match self {
            Self::Sft => rlt::start::sft(config, run_dir, progress, stop),
            Self::Train => rlt::start::grpo(config, run_dir, progress, stop),
        }
    }

    fn run(self, config: &Config, run_dir: &Path) -> Result<Trained> {
        self.call(config, run_dir, &Silent, &AtomicBool::new(false))
    }

    /// The line with which a run is refused that began in `run_dir`; no file of it has changed.
    fn refusal(self, config: &Config, run_dir: &Path) -> String {
        let before = outcome(run_dir);
        let error = self.run(config, run_dir).expect_err("the change was not noticed");
        assert!(before == outcome(run_dir), "something was changed: {error}");
        error.to_string()
    }
}

/// Sets the flag once so many steps are done.
struct StopAfter<'a>(AtomicU64, &'a AtomicBool);

impl Progress for StopAfter<'_> {
    fn start(&self, _: &str, _: u64, _: &str) {}
    fn advance(&self, n: u64, _: &str) {
        if self.0.fetch_sub(n, Ordering::SeqCst) == n {
            self.1.store(true, Ordering::SeqCst);
        }
    }
    fn finish(&self, _: &str) {}
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}

fn stopped_after(steps: u64, work: Work, config: &Config, run_dir: &Path) {
    let stop = AtomicBool::new(false);
    let error = work.call(config, run_dir, &StopAfter(steps.into(), &stop), &stop).unwrap_err();
    assert!(matches!(error, Error::Interrupted(_)), "{error}");
}

/// Rewrites the rows of a file of JSON lines.
fn edit_rows(path: &Path, edit: impl Fn(&mut Value)) {
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().map(|line| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        edit(&mut row);
        format!("{row}\n")
    });
    fs::write(path, rows.collect::<String>()).unwrap();
}

/// Changes the folder's chat template.
fn edit_template(folder: &Path, edit: impl Fn(&str) -> String) {
    let path = folder.join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["chat_template"] = edit(config["chat_template"].as_str().unwrap()).into();
    fs::write(path, config.to_string()).unwrap();
}

/// Flips a bit of the file's last byte; size and time stay.
fn flip_bit(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    fs::File::options().append(true).open(path).unwrap().set_modified(modified).unwrap();
}

/// Keeps what a run warns of.
#[derive(Default)]
struct Warnings(std::sync::Mutex<Vec<String>>);

impl Progress for Warnings {
    fn start(&self, _stage: &str, _total: u64, _unit: &str) {}
    fn advance(&self, _n: u64, _message: &str) {}
    fn finish(&self, _message: &str) {}
    fn note(&self, _line: &str) {}
    fn warn(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

/// Rows without a solution are left out of training, counted and named; what is learnt is what the others teach.
#[test]
fn training_leaves_out_rows_without_a_solution() {
    for work in [Work::Sft, Work::Train] {
        let made = made();
        let plain = made.run_dir("plain");
        let config = made.config(work, &[]);
        work.run(&config, &plain).unwrap();
        // The same rows, with a null and a blank solution among them.
        let rows = fs::read_to_string(&config.data.path).unwrap();
        let lines: Vec<&str> = rows.lines().collect();
        let with = |solution: Value| {
            let mut row: Value = serde_json::from_str(lines[0]).unwrap();
            row["solution"] = solution;
            row.to_string()
        };
        let (null, blank) = (with(Value::Null), with(json!(" \n")));
        let mut all = vec![lines[0], &null];
        all.extend(&lines[1..]);
        all.push(&blank);
        fs::write(&config.data.path, all.join("\n")).unwrap();
        let (gaps, warnings) = (made.run_dir("gaps"), Warnings::default());
        work.call(&config, &gaps, &warnings, &AtomicBool::new(false)).unwrap();
        let n = all.len();
        let expected = format!(
            "left out 2 of {n} rows (row 2: the solution is empty (null); row {n}: the solution is empty)"
        );
        let warnings = warnings.0.into_inner().unwrap();
        assert!(warnings.iter().any(|line| line.ends_with(&expected)), "{work:?}: {warnings:?}");
        let weights = |run: &Path| fs::read(run.join("model/model.safetensors")).unwrap();
        assert!(weights(&plain) == weights(&gaps), "{work:?}: the rows left out taught something");
    }
}

#[test]
fn gold_answers_that_changed_are_noticed() {
    let made = made();
    let config = made.config(Work::Train, &["reward.kind=correctness"]);
    let run_dir = made.run_dir("run");
    stopped_after(1, Work::Train, &config, &run_dir);
    // The prompts, which do not hold the solutions, are the same.
    edit_rows(&made.files.questions_train, |row| row["solution"] = "Tom has 1 egg.".into());
    let line = Work::Train.refusal(&config, &run_dir);
    assert!(line.contains("other answers to the same rows of data.path"), "{line}");
}

#[test]
fn held_out_rows_that_changed_are_noticed() {
    for kind in ["rlt", "correctness"] {
        let made = made();
        let config = made.config(Work::Train, &[&format!("reward.kind={kind}")]);
        let run_dir = made.run_dir("run");
        stopped_after(1, Work::Train, &config, &run_dir);
        edit_rows(&made.files.questions_heldout, |row| row["solution"] = "Tom has 1 egg.".into());
        let line = Work::Train.refusal(&config, &run_dir);
        assert!(line.contains("was evaluated on other rows of eval.data (3 then, 3 now"), "{line}");
    }
}

#[test]
fn the_student_s_template_and_tokenizer_are_noticed() {
    let made = made();
    let config = made.config(Work::Train, &[]);
    let run_dir = made.run_dir("run");
    stopped_after(1, Work::Train, &config, &run_dir);
    let kept = fs::read(made.student.join("tokenizer_config.json")).unwrap();
    edit_template(&made.student, |template| format!("{template} "));
    let line = Work::Train.refusal(&config, &run_dir);
    assert!(line.contains("another model.student: tokenizer_config.json changed"), "{line}");
    fs::write(made.student.join("tokenizer_config.json"), kept).unwrap();

    // The same vocabulary, cut in another way.
    let path = made.student.join("tokenizer.json");
    let tokenizer = fs::read_to_string(&path).unwrap();
    fs::write(&path, tokenizer.replacen("\"ignore_merges\":true", "\"ignore_merges\":false", 1) + "\n")
        .unwrap();
    let line = Work::Train.refusal(&config, &run_dir);
    assert!(line.contains("another model.student: tokenizer.json changed"), "{line}");
    fs::write(&path, tokenizer).unwrap();
    Work::Train.run(&config, &run_dir).unwrap();
}

#[test]
fn weights_that_changed_under_equal_size_and_time_are_noticed() {
    for (work, key) in
        [(Work::Sft, "model.path"), (Work::Train, "model.path"), (Work::Train, "model.student")]
    {
        let made = made();
        let config = made.config(work, &[]);
        let run_dir = made.run_dir("run");
        stopped_after(1, work, &config, &run_dir);
        let folder = if key == "model.path" { &made.files.model } else { &made.student };
        flip_bit(&folder.join("model.safetensors"));
        let line = work.refusal(&config, &run_dir);
        assert!(line.contains(&format!("another {key}: model.safetensors changed")), "{line}");
        flip_bit(&folder.join("model.safetensors"));
        work.run(&config, &run_dir).unwrap();
    }
}

#[test]
fn a_checkpoint_of_another_seed_is_noticed() {
    let made = made();
    let [mine, other] = ["mine", "other"].map(|name| made.run_dir(name));
    let config = made.config(Work::Sft, &[]);
    stopped_after(1, Work::Sft, &config, &mine);
    stopped_after(1, Work::Sft, &made.config(Work::Sft, &["seed=8"]), &other);
    fs::remove_dir_all(mine.join("checkpoints")).unwrap();
    fs::rename(other.join("checkpoints"), mine.join("checkpoints")).unwrap();
    let line = Work::Sft.refusal(&config, &mine);
    assert!(line.contains("belongs to a run of seed 8, not 7"), "{line}");
}

#[test]
fn other_settings_are_noticed_without_the_configuration_beside_them() {
    let made = made();
    let run_dir = made.run_dir("run");
    let in_run_dir = format!("run_dir={}", run_dir.display());
    let config = made.config(Work::Sft, &[&in_run_dir]);
    drop(RunDir::open(&config).unwrap());
    stopped_after(1, Work::Sft, &config, &run_dir);
    fs::remove_file(run_dir.join("config.toml")).unwrap();
    let other = made.config(Work::Sft, &[&in_run_dir, "optimizer.learning_rate=0.1"]);
    // The library's own check, and that of whoever opens the directory, which writes no wrong configuration.
    let line = Work::Sft.refusal(&other, &run_dir);
    assert!(line.contains("(optimizer.learning_rate was 0.003, now 0.1)"), "{line}");
    let Err(error) = RunDir::open(&other) else { panic!("the directory was opened") };
    assert!(error.to_string().contains("(optimizer.learning_rate was 0.003, now 0.1)"), "{error}");
    assert!(!run_dir.join("config.toml").exists());
    drop(RunDir::open(&config).unwrap());
    // What changes no number may differ.
    let config = made.config(Work::Sft, &["threads=3", "checkpoint.every=2", "memory.recompute=blocks"]);
    Work::Sft.run(&config, &run_dir).unwrap();
}

#[test]
fn metrics_that_were_removed_or_shortened_are_noticed() {
    let made = made();
    let config = made.config(Work::Sft, &[]);
    let run_dir = made.run_dir("run");
    stopped_after(2, Work::Sft, &config, &run_dir);
    let path = run_dir.join("metrics.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let first = whole.split_inclusive('\n').next().unwrap();
    for (text, says) in [
        (None, "the row of step 1 is not there, but the run's checkpoint is of step 2"),
        (Some(String::new()), "the row of step 1 is not there"),
        (Some(first.to_owned()), "the row of step 2 is not there"),
        (Some(whole[first.len()..].to_owned()), "the row of step 1 is not there"),
        (Some(format!("{whole}{first}")), "rows stand twice"),
    ] {
        fs::remove_file(&path).unwrap();
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let line = Work::Sft.refusal(&config, &run_dir);
        assert!(line.contains("metrics.jsonl: ") && line.contains(says), "{line}");
        fs::write(&path, &whole).unwrap();
    }
    Work::Sft.run(&config, &run_dir).unwrap();
}

#[test]
fn a_checkpoint_of_the_version_before_goes_on_and_what_it_lacks_is_told() {
    let made = made();
    let config = made.config(Work::Sft, &[]);
    let [whole, before] = ["whole", "before"].map(|name| made.run_dir(name));
    Work::Sft.run(&config, &whole).unwrap();
    stopped_after(1, Work::Sft, &config, &before);
    let folder = before.join("checkpoints/step-000001");
    let state = State::read(&folder).unwrap();
    let rows = state.began_with.rows.clone().unwrap();
    let earlier = json!({
        "work": "sft", "step": state.step, "updates": state.updates, "seed": 7, "rows_drawn": state.rows_drawn,
        "n_rows": rows.n, "data_checksum": rows.checksum, "models_checksum": "00000000",
    });
    fs::write(folder.join("state.json"), earlier.to_string()).unwrap();
    let mut sums: Value = serde_json::from_slice(&fs::read(folder.join("checksums.json")).unwrap()).unwrap();
    let bytes = earlier.to_string();
    sums["files"]["state.json"] =
        json!({"bytes": bytes.len(), "crc32c": format!("{:08x}", crc32c::crc32c(bytes.as_bytes()))});
    fs::write(folder.join("checksums.json"), sums.to_string()).unwrap();

    struct Notes(std::sync::Mutex<String>);
    impl Progress for Notes {
        fn start(&self, _: &str, _: u64, _: &str) {}
        fn advance(&self, _: u64, _: &str) {}
        fn finish(&self, _: &str) {}
        fn note(&self, _: &str) {}
        fn warn(&self, line: &str) {
            self.0.lock().unwrap().push_str(line);
        }
    }
    let notes = Notes(std::sync::Mutex::default());
    Work::Sft.call(&config, &before, &notes, &AtomicBool::new(false)).unwrap();
    let notes = notes.0.into_inner().unwrap();
    assert!(notes.contains("of an earlier version, which did not record the configuration"), "{notes}");
    assert!(!notes.contains("the rows"), "those are compared: {notes}");
    let model = |run_dir: &Path| fs::read(run_dir.join("model/model.safetensors")).unwrap();
    assert!(model(&whole) == model(&before));
}

#[test]
fn an_evaluation_is_left_when_it_is_asked_to_and_made_up_for() {
    for work in [Work::Train, Work::Sft] {
        let made = made();
        let more = ["grpo.samples_every=1", "eval.samples=300", "checkpoint.every=2", "checkpoint.keep=1"];
        let mut config = made.config(work, &more);
        // Much more to evaluate on than to learn from.
        (config.eval.every, config.eval.data) = match work {
            Work::Sft => (1, made.files.textbook.clone()),
            Work::Train => (2, made.files.questions_heldout.clone()),
        };
        let whole = made.run_dir("whole");
        work.run(&config, &whole).unwrap();
        let whole = outcome(&whole);
        let left = (0..30).any(|attempt| {
            let run_dir = made.run_dir(&format!("stopped-{attempt}"));
            let stop = AtomicBool::new(false);
            // Samples are written before the evaluation; without them, what follows the first row is likely one.
            let begun = || match work {
                Work::Train => run_dir.join("samples/step-000002.jsonl").exists(),
                Work::Sft => fs::metadata(run_dir.join("metrics.jsonl")).is_ok_and(|file| file.len() > 0),
            };
            let result = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !begun() {
                        std::thread::sleep(Duration::from_micros(300));
                    }
                    std::thread::sleep(Duration::from_millis(attempt));
                    stop.store(true, Ordering::SeqCst);
                });
                work.call(&config, &run_dir, &Silent, &stop)
            });
            let left = result.as_ref().is_err_and(|error| {
                assert!(matches!(error, Error::Interrupted(_)), "{error}");
                error.to_string().contains("saved after step 2 of 3, before its evaluation in ")
            });
            if left {
                let rows = fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
                assert_eq!(rows.lines().count(), 1, "the second row waits for its evaluation");
                // Asked again at once, it is still to be made.
                let error = work.call(&config, &run_dir, &Silent, &AtomicBool::new(true)).unwrap_err();
                assert!(error.to_string().contains("before its evaluation"), "{error}");
            }
            work.run(&config, &run_dir).unwrap();
            assert_same(&whole, &run_dir, "after a stopped evaluation");
            left
        });
        assert!(left, "{work:?}: no evaluation was met");
    }
}

/// `rlt` in a time zone whose date is never that of the other one.
fn on_day(day: &str) -> Command {
    let zone = match day {
        "first" => "AAA-14",
        _ => "BBB+11",
    };
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
    command.env("TZ", zone);
    command
}

#[test]
fn a_run_keeps_the_date_that_it_began_with() {
    for work in [Work::Sft, Work::Train] {
        let made = made();
        for folder in [&made.files.model, &made.student] {
            edit_template(folder, |template| format!("{{{{ strftime_now('%d %b %Y') }}}}{template}"));
        }
        let call = |day: &str, name: &str| {
            let mut overrides = made.overrides(work, &[]);
            overrides.push(format!("run_dir={}", made.run_dir(name).display()));
            if work == Work::Sft {
                overrides.retain(|key| !key.starts_with("eval."));
            }
            let command = if work == Work::Sft { "sft" } else { "train" };
            let config = Path::new(CONFIGS).join(work.file());
            on_day(day).args(["-q", command, "--config"]).arg(config).args(overrides).output().unwrap()
        };
        let done = |day: &str, name: &str| {
            let output = call(day, name);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            outcome(&made.run_dir(name))
        };
        let mut whole = done("first", "whole");
        fs::remove_dir_all(made.run_dir("whole/checkpoints/step-000003")).unwrap();
        fs::remove_dir_all(made.run_dir("whole/model")).unwrap();
        assert!(done("other", "whole") == whole, "another day changed the run");
        // A new run has a date of its own.
        let mut other = done("other", "other");
        for outcome in [&mut whole, &mut other] {
            outcome.retain(|name, _| name == "metrics.jsonl");
        }
        assert!(whole != other, "the date counts");
    }
}
