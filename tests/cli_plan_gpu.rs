//! `rlt plan --device cuda`: the paper's configurations on cards of 80 GiB, and a 7B model on smaller ones. Weights are files
//! of the right shapes with nothing in them: a plan reads no more than their headers.

mod emulated;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;

use emulated::under_emulation;
use rlt::worlds::lexicon::{ModelShape, write_model_folder};
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Tokens of the longest row: the warm-up's data set has rows of as many, `sft.max_tokens` cuts those beyond.
const LONGEST_ROW: usize = 15_500;

/// The shapes of Qwen2.5's 7B and 32B: features, of the feed-forward layer, blocks, heads.
const SHAPES: [(&str, [u64; 4]); 2] = [("7b", [3584, 18_944, 28, 28]), ("32b", [5120, 27_648, 64, 40])];

struct Made {
    folder: tempfile::TempDir,
}

/// A folder with one of Qwen2.5's shapes, in bf16, and a tokenizer of few words.
fn write_model(folder: &Path, [hidden, feed_forward, blocks, heads]: [u64; 4]) {
    let shape =
        ModelShape { hidden_size: 64, intermediate_size: 64, n_layers: 1, n_heads: 2, context: 32_768 };
    write_model_folder(folder, &shape).unwrap();
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "torch_dtype": "bfloat16",
        "hidden_size": hidden, "intermediate_size": feed_forward, "num_hidden_layers": blocks,
        "num_attention_heads": heads, "num_key_value_heads": if blocks == 28 { 4 } else { 8 },
        "vocab_size": 152_064, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0,
        "tie_word_embeddings": false, "use_sliding_window": false, "bos_token_id": 0, "eos_token_id": 0,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::from_dir(folder).unwrap();
    let mut header = serde_json::Map::new();
    let mut bytes = 0;
    for part in rlt_model::parameters::slots(&config).into_iter().flat_map(|slot| slot.parts) {
        let end = bytes + 2 * part.shape.iter().product::<usize>();
        header.insert(part.name, json!({"dtype": "BF16", "shape": part.shape, "data_offsets": [bytes, end]}));
        bytes = end;
    }
    let header = Value::Object(header).to_string();
    let path = folder.join("model.safetensors");
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((8 + header.len() + bytes) as u64).unwrap();
}

fn made() -> Made {
    let folder = tempfile::tempdir().unwrap();
    for (name, shape) in SHAPES {
        write_model(&folder.path().join(name), shape);
    }
    // Another folder, so that the student is another model.
    write_model(&folder.path().join("student"), SHAPES[0].1);
    let words = "Tom has 9 eggs. ";
    let tokenizer = Tokenizer::from_dir(&folder.path().join("7b")).unwrap();
    let of_words = tokenizer.encode(&words.repeat(100)).unwrap().len();
    let row = |index: usize| {
        let tokens = LONGEST_ROW * (8 + index % 25) / 32;
        let thought = words.repeat(100 * tokens / of_words - 20);
        let (question, solution) = ("Tom has 9 eggs. How many?", "Tom has 9 eggs.");
        json!({"question": question, "solution": solution, "reasoning_trace": thought}).to_string()
    };
    let rows: Vec<String> = (0..96).map(row).collect();
    std::fs::write(folder.path().join("rows.jsonl"), rows.join("\n")).unwrap();
    Made { folder }
}

impl Made {
    /// A plan of one of configs/paper.
    fn plan(&self, config: &str, more: &[&str]) -> Output {
        let folder = self.folder.path();
        let model = if config.contains("32b") { "32b" } else { "7b" };
        let path = |name: &str| folder.join(name).display().to_string();
        let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
        command
            .args(["plan", "-q", "--json", "--device", "cuda", "-c"])
            .arg(format!("{ROOT}/configs/paper/{config}.toml"))
            .args([format!("model.path={}", path(model)), format!("data.path={}", path("rows.jsonl"))])
            .args(more);
        if config == "teacher_rlt" {
            command.arg(format!("model.student={}", path("student")));
        }
        command.output().unwrap()
    }
}

fn configs() -> Vec<String> {
    let files = std::fs::read_dir(PathBuf::from(ROOT).join("configs/paper")).unwrap();
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What a plan says: its answer, and the line that refuses where it does not fit.
fn said(output: &Output) -> (Value, Option<String>) {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)) && line.lines().count() <= 1, "{line}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(answer["fits"], output.status.success(), "{line}");
    (answer, (!output.status.success()).then(|| line.trim().to_owned()))
}

const GIB: f64 = (1 << 30) as f64;

fn gib(bytes: &Value) -> String {
    format!("{:.1}", bytes.as_f64().unwrap() / GIB)
}

/// The settings that a refusal names, if they are built.
fn settings(refusal: &str) -> Option<Vec<&str>> {
    let (_, after) = refusal.split_once("; ")?;
    let (named, _) = after.split_once(" would need ")?;
    let is_built = !after.contains("not built") && !named.starts_with("even ");
    is_built.then(|| named.split(' ').collect())
}

/// One of a table's cells: what helps, by the refusal.
fn what_helps(refusal: Option<&str>) -> String {
    let Some(refusal) = refusal else { return "fits".into() };
    let (_, after) = refusal.split_once("; ").expect("a refusal says what helps");
    let (what, rest) = after.split_once(" would need ").unwrap_or((after, ""));
    let needs: String = rest.chars().take_while(|c| !matches!(c, ':' | ',')).collect();
    let not_built = if rest.contains("not built") { " (not built)" } else { "" };
    format!("{}: {needs}{not_built}", what.replace('|', "/"))
}

/// The part of docs/SCALING.md between two marks is what the code says; `RLT_WRITE_REFERENCE=1` writes it.
fn compare_with_docs(name: &str, text: &str) {
    // Each test writes its own part of the file.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock();
    let path = PathBuf::from(ROOT).join("docs/SCALING.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let [begin, end] = ["begin", "end"].map(|which| format!("<!-- {which}: {name} -->\n"));
    let (before, rest) = page.split_once(&begin).expect("a mark where it begins");
    let (was, after) = rest.split_once(&end).expect("a mark where it ends");
    if std::env::var_os("RLT_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, [before, &begin, text, &end, after].concat()).unwrap();
    } else {
        let hint = "RLT_WRITE_REFERENCE=1 cargo test --workspace --test cli_plan_gpu";
        assert!(was == text, "docs/SCALING.md is behind the code: {hint}\n{text}");
    }
}

#[test]
fn each_of_the_papers_configurations_fits_cards_of_80_gib_or_says_what_would() {
    if under_emulation("it maps no file of 60 GB, which the weights of a 32B model are") {
        return;
    }
    let made = made();
    let mut table =
        String::from("| configuration | cards | GiB a card | what fits 80 GiB |\n|---|---|---|---|\n");
    let mut changes = BTreeMap::new();
    for config in configs() {
        for ranks in [1, 8] {
            let of_ranks = format!("ranks={ranks}");
            let (answer, refusal) = said(&made.plan(&config, &["--memory", "80GiB", &of_ranks]));
            assert!(answer["bounds_s"]["H100"]["update"].as_f64().unwrap() > 0.0, "{answer}");
            let helps = what_helps(refusal.as_deref());
            writeln!(table, "| {config} | {ranks} | {} | {helps} |", gib(&answer["peak_bytes"])).unwrap();
            if let (Some(refusal), 1) = (refusal, ranks)
                && let Some(settings) = settings(&refusal)
            {
                let settings: Vec<String> = settings.into_iter().map(str::to_owned).collect();
                changes.insert(settings, config.clone());
            }
        }
    }
    assert_eq!(configs().len(), 9);
    // What is named does fit: each change once.
    for (settings, config) in &changes {
        let more: Vec<&str> =
            ["--memory", "80GiB"].into_iter().chain(settings.iter().map(String::as_str)).collect();
        let (answer, refusal) = said(&made.plan(config, &more));
        assert_eq!(refusal, None, "{config} with {settings:?}: {answer}");
    }
    compare_with_docs("paper's configurations on GPUs", &table);
}

#[test]
fn a_7b_model_on_24_and_on_80_gib() {
    let made = made();
    let mut table = String::from(
        "| fine-tuning of a 7B model | card, GiB | needs, GiB | of the host's memory, GiB | what fits |\n|---|---|---|---|---|\n",
    );
    let short = [
        "sft.max_tokens=8192",
        "model.arithmetic=bf16",
        "optimizer.moments=bf16",
        "sft.tokens_per_microbatch=1024",
    ];
    for (name, memory, more) in [
        ("all weights", "80GiB", &[][..]),
        ("all weights, moments offloaded", "80GiB", &["memory.offload=moments"]),
        ("LoRA", "24GiB", &["lora.rank=16"]),
    ] {
        let all: Vec<&str> =
            ["--memory", memory].into_iter().chain(short).chain(more.iter().copied()).collect();
        let (answer, refusal) = said(&made.plan("student_17k_7b", &all));
        let helps = what_helps(refusal.as_deref());
        writeln!(
            table,
            "| {name} | {} | {} | {} | {helps} |",
            memory.trim_end_matches("GiB"),
            gib(&answer["peak_bytes"]),
            gib(&answer["host_bytes"]["optimizer moments"]),
        )
        .unwrap();
    }
    compare_with_docs("7B on GPUs", &table);
}

/// An adapter's base is its reference, so that the student alone is left to wait in the host's memory.
#[test]
fn a_student_in_the_hosts_memory_makes_room_for_a_teachers_adapter() {
    let made = made();
    let on_40_gib = |more: &[&str]| {
        let small = "--memory 40GiB model.arithmetic=bf16 memory.idle=release grpo.tokens_per_microbatch=1024 \
                     sampling.max_running=8 lora.rank=16 grpo.reference_sync_every=0";
        let all: Vec<&str> = small.split_whitespace().chain(more.iter().copied()).collect();
        said(&made.plan("teacher_rlt", &all))
    };
    let (with_both, refusal) = on_40_gib(&[]);
    let refusal = refusal.expect("two models of 7B are too much");
    assert!(settings(&refusal).is_some_and(|named| named.contains(&"memory.offload=frozen")), "{refusal}");
    let (answer, refusal) = on_40_gib(&["memory.offload=frozen"]);
    assert_eq!(refusal, None, "{answer}");
    // 28 blocks: matrices in bf16, biases (left out) and norms in f32.
    let host = answer["host_bytes"]["frozen models"].as_u64().unwrap();
    let of_blocks = 2 * 28 * (3584 * (3 * 18_944 + 2 * 3584 + 2 * 512)) + 4 * 28 * 2 * 3584;
    assert!(host.abs_diff(of_blocks) < host / 1000, "{host} {of_blocks}");
    let stays = |answer: &Value| answer["stays_bytes"]["student"].as_u64().unwrap();
    // A GPU's blocks of memory are up to an eighth larger than what is in them.
    let spared = stays(&with_both) - stays(&answer);
    assert!((host..host + host / 7).contains(&spared), "{with_both} {answer}");
    assert_eq!(with_both["host_bytes"]["frozen models"], 0);
}

#[test]
fn memory_is_a_number_of_gib() {
    for wrong in ["80GB", "0", "many"] {
        let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
        let output = command.args(["plan", "--memory", wrong]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("80GiB"), "{wrong}");
    }
}
