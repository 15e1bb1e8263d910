//! The paper in miniature at a scale where nothing is learnt but every stage runs: the files, the tables, what
//! happens after an interruption, and the recipes of the real scale.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rlt::progress::{Progress, Silent};
use rlt::reproduce::scale::Scale;
use rlt::reproduce::{Recipe, ReproduceOptions, run};
use rlt::worlds::{ModelShape, Sizes, World, WorldContent};
use rlt::{Error, Result};
use rlt_model::Decoder;
use rlt_model::config::ModelConfig;

fn options(recipes: &[Recipe], seeds: u64, run_dir: &Path) -> ReproduceOptions {
    ReproduceOptions { recipes: recipes.to_vec(), seeds, scale: Scale::tiny(), run_dir: run_dir.into() }
}

fn reproduce(options: &ReproduceOptions) -> Result<PathBuf> {
    Ok(run(options, &Silent, &AtomicBool::new(false))?.page)
}

/// Byte for byte, figure 4b.
fn assert_same_tables(pieces: &Path, whole: &Path) {
    for file in ["table.csv", "table.md", "figure.svg"] {
        let read = |dir: &Path| fs::read(dir.join("fig4b").join(file)).unwrap();
        assert_eq!(read(pieces), read(whole), "{file}");
    }
}

/// Sets the flag after so many units of work of whatever kind.
struct StopAfter<'a>(AtomicUsize, &'a AtomicBool);

impl Progress for StopAfter<'_> {
    fn start(&self, _: &str, _: u64, _: &str) {}
    fn advance(&self, n: u64, _: &str) {
        self.count(n);
    }
    fn finish(&self, _: &str) {}
    // Seeds side by side show no bars.
    fn note(&self, _: &str) {
        self.count(1);
    }
    fn warn(&self, _: &str) {}
}

impl StopAfter<'_> {
    fn count(&self, n: u64) {
        let left = |before: usize| Some(before.saturating_sub(n as usize));
        let before = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).unwrap_or(0);
        if before <= n as usize {
            self.1.store(true, Ordering::SeqCst);
        }
    }
}

/// Keeps what is noted.
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn start(&self, _: &str, _: u64, _: &str) {}
    fn advance(&self, _: u64, _: &str) {}
    fn finish(&self, _: &str) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.into());
    }
    fn warn(&self, _: &str) {}
}

#[test]
fn every_recipe_writes_its_files_and_one_page_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Notes(Mutex::new(Vec::new()));
    let page = run(&options(&Recipe::ALL, 2, dir.path()), &notes, &AtomicBool::new(false)).unwrap().page;
    // Every stage was planned: "[k of n] seed-2/..". A few are not run, such as a student of no usable traces.
    let notes = notes.0.into_inner().unwrap();
    let numbers =
        notes.iter().filter_map(|note| note.strip_prefix('[')?.split_once(']')?.0.split_once(" of "));
    let numbers: Vec<(usize, usize)> =
        numbers.map(|(k, n)| (k.parse().unwrap(), n.parse().unwrap())).collect();
    assert!(numbers.len() > 100 && numbers.iter().all(|(k, n)| k <= n), "{numbers:?}");
    let html = fs::read_to_string(page).unwrap();
    for recipe in Recipe::ALL {
        let name = recipe.name();
        assert!(html.contains(&format!("id=\"{name}\"")), "{name} is not on the page");
        let folder = dir.path().join(name);
        let csv = fs::read_to_string(folder.join("table.csv")).unwrap();
        assert!(csv.lines().count() > 3, "{csv}");
        let columns = csv.lines().next().unwrap().split(',').count();
        assert!(columns >= 4, "{csv}");
        assert!(fs::read_to_string(folder.join("table.md")).unwrap().contains("|---|"));
        assert!(fs::read_to_string(folder.join("figure.svg")).unwrap().starts_with("<svg"));
    }
    // Both seeds were measured, and each stage once.
    let times = fs::read_to_string(dir.path().join("times.csv")).unwrap();
    let names: Vec<&str> = times.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert!(names.contains(&"seed-1/base") && names.contains(&"seed-2/base"));
    let unique: std::collections::BTreeSet<&&str> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    // A recipe alone leaves the others' sections on the page.
    let page = reproduce(&options(&[Recipe::Fig4b], 2, dir.path())).unwrap();
    assert!(fs::read_to_string(page).unwrap().contains("id=\"table1\""));
}

#[test]
fn stopped_anywhere_and_called_again_gives_the_same_tables() {
    for seeds in [1, 2] {
        // Seeds one after another; then, with threads enough, side by side.
        let whole = tempfile::tempdir().unwrap();
        in_pool(1, || reproduce(&options(&[Recipe::Fig4b], seeds, whole.path())).unwrap());
        let pieces = tempfile::tempdir().unwrap();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let stop = AtomicBool::new(false);
            let watcher = StopAfter(AtomicUsize::new(3 * attempts), &stop);
            let options = options(&[Recipe::Fig4b], seeds, pieces.path());
            match in_pool(3, || run(&options, &watcher, &stop)) {
                Ok(_) => break,
                Err(Error::Interrupted(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(attempts > 2, "{attempts} attempts");
        assert_same_tables(pieces.path(), whole.path());
    }
}

fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Where the child of [`killed_anywhere_and_called_again_gives_the_same_tables`] works. Absent in an ordinary test run.
const RUN_DIR: &str = "RLT_TEST_KILLED_RECIPE_DIR";

/// Not a test of its own: the body of the process that is killed.
#[test]
fn child() {
    if let Some(run_dir) = std::env::var_os(RUN_DIR) {
        reproduce(&options(&[Recipe::Fig4b], 1, Path::new(&run_dir))).unwrap();
    }
}

#[test]
fn killed_anywhere_and_called_again_gives_the_same_tables() {
    let whole = tempfile::tempdir().unwrap();
    let started = Instant::now();
    reproduce(&options(&[Recipe::Fig4b], 1, whole.path())).unwrap();
    let whole_run = started.elapsed();
    let pieces = tempfile::tempdir().unwrap();
    let mut kills = 0;
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env(RUN_DIR, pieces.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Ever longer, so that it ends; a stage that was cut off begins anew.
        let deadline = Instant::now() + whole_run.mul_f64(0.07 * f64::from(kills + 1));
        let status = loop {
            match child.try_wait().unwrap() {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                status => break status,
            }
        };
        if let Some(status) = status {
            assert!(status.success(), "after {kills} kills: {status}");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 1, "{kills} kills");
    assert_same_tables(pieces.path(), whole.path());
}

#[test]
fn a_folder_of_another_scale_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    reproduce(&options(&[Recipe::Fig4b], 1, dir.path())).unwrap();
    let mut other = options(&[Recipe::Fig4b], 1, dir.path());
    other.scale.pool_samples = 6;
    let error = reproduce(&other).unwrap_err();
    assert!(matches!(error, Error::Usage(_)));
    assert!(
        error.to_string().contains("made with other settings (`24 samples, 4 groups by relative reward`"),
        "{error}"
    );
}

#[test]
fn wrong_calls_end_in_one_line() {
    for arguments in [&["reproduce"][..], &["reproduce", "table3"], &["reproduce", "all", "--seeds", "0"]] {
        let output = assert_cmd::Command::cargo_bin("rlt").unwrap().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    fs::write(&blocked, "").unwrap();
    let output = assert_cmd::Command::cargo_bin("rlt")
        .unwrap()
        .args(["-q", "reproduce", "fig4b", "--quick", "--run-dir"])
        .arg(&blocked)
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

/// A model of random weights under a tokenizer and a chat template that are not the worlds' own; none without ../shared.
fn pretrained(folder: &Path) -> Option<PathBuf> {
    let tokenizer = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/tokenizers/tiny"));
    if !tokenizer.exists() {
        tell("../shared is not here: nothing is checked on a pretrained base");
        return None;
    }
    fs::create_dir_all(folder).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::write(folder.join(file), fs::read(tokenizer.join(file)).unwrap()).unwrap();
    }
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0, "max_position_embeddings": 1024, "vocab_size": 2048, "hidden_act": "silu",
        "tie_word_embeddings": true
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    Decoder::random(&ModelConfig::from_dir(folder).unwrap(), 3).save(folder).unwrap();
    Some(folder.to_owned())
}

#[expect(clippy::print_stdout, reason = "says what was not checked")]
fn tell(line: &str) {
    println!("{line}");
}

/// Runs `rlt` on a base and returns its exit status and what it said.
fn on_base(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut rlt = assert_cmd::Command::cargo_bin("rlt").unwrap();
    let output = rlt.current_dir(dir).args(["-q"]).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_demo_and_the_recipes_that_one_base_is_enough_for_run_on_a_pretrained_one() {
    let dir = tempfile::tempdir().unwrap();
    if pretrained(&dir.path().join("base")).is_none() {
        return;
    }
    fn call<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
        [first, &["--base", "base", "--rows", "10", "--steps", "1"], more].concat()
    }
    let (status, said) = on_base(dir.path(), &call(&["demo"], &["--lora", "2"]));
    assert_eq!(status, Some(0), "{said}");
    let demo = fs::read_to_string(dir.path().join("runs/demo-base/demo.json")).unwrap();
    assert!(demo.contains("Held-out questions") && !demo.contains("random weights"), "{demo}");
    // What was warmed up is the base with what an adapter learnt. (Its explanations never end, so no student learns.)
    let teacher = dir.path().join("runs/demo-base/teacher/model");
    let tokenizers =
        [teacher, dir.path().join("base")].map(|model| fs::read(model.join("tokenizer.json")).unwrap());
    assert_eq!(tokenizers[0], tokenizers[1]);
    for (recipe, lora) in [("table1", "0"), ("ablations", "2")] {
        let folder = format!("runs/{recipe}");
        let (status, said) =
            on_base(dir.path(), &call(&["reproduce", recipe], &["--lora", lora, "--run-dir", &folder]));
        assert_eq!(status, Some(0), "{recipe}: {said}");
        let table = fs::read_to_string(dir.path().join(folder).join(recipe).join("table.csv")).unwrap();
        assert!(table.lines().count() > 3 && !table.contains("weak base"), "{table}");
    }
}

#[test]
fn what_cannot_begin_from_a_pretrained_base_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let Some(base) = pretrained(&dir.path().join("base")) else { return };
    let refused = |arguments: &[&str], words: &str| {
        let (status, said) = on_base(dir.path(), arguments);
        assert!(status == Some(2) || status == Some(1), "{arguments:?}: {status:?} {said}");
        assert!(said.trim().lines().count() <= 1 || status == Some(2), "{said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(!dir.path().join("runs").exists(), "{arguments:?} wrote something");
    };
    for recipe in ["table2", "fig4a", "fig4b", "all"] {
        refused(&["reproduce", recipe, "--base", "base"], "does not begin from one pretrained base");
    }
    refused(&["reproduce", "table1", "--base", "base", "--quick"], "--quick does not go with --base");
    refused(&["reproduce", "table1", "--base", "nowhere"], "no such folder");
    refused(&["demo", "--base", "nowhere"], "no such folder");
    refused(&["demo", "--rows", "3"], "--base");
    refused(&["demo", "--base", "base", "--lora", "65537"], "65537 is not in 0..=65536");
    let config = fs::read_to_string(base.join("config.json")).unwrap();
    fs::write(base.join("config.json"), config.replace("1024", "512")).unwrap();
    refused(&["demo", "--base", "base"], "a context of 512 tokens");
    refused(&["reproduce", "table1", "--base", "base"], "a context of 512 tokens");
    fs::remove_file(base.join("tokenizer_config.json")).unwrap();
    fs::write(base.join("config.json"), config).unwrap();
    refused(&["demo", "--base", "base"], "template");
}

#[test]
fn the_recipes_of_the_real_scale_can_be_planned() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Sizes { textbook: 16, teacher_sft: 4, questions_train: 8, questions_heldout: 2 };
    let shape = ModelShape { context: 40_000, ..ModelShape::default() };
    let files = World::Market.write_dataset(dir.path(), 1, &sizes, &shape).unwrap();
    let config = ModelConfig::from_dir(&files.model).unwrap();
    Decoder::random(&config, 1).save(&files.model).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper");
    let mut n = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let model = files.model.display();
        let output = assert_cmd::Command::cargo_bin("rlt")
            .unwrap()
            .args(["-q", "plan", "--memory", "4000", "--config"])
            .arg(&path)
            .args([format!("model.path={model}"), format!("model.student={model}")])
            .arg(format!("data.path={}", files.textbook.display()))
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {message}", path.display());
        n += 1;
    }
    assert_eq!(n, 9);
}
