//! What ARCHITECTURE.md and docs/PAPER_MAP.md say about the code, as far as it can be checked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rlt::config::Config;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder` (or the file itself) that is not a test's, with its code up to its unit tests.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let path = root().join(folder);
    let mut paths = vec![path];
    let mut sources = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ext| ext == "rs")
            && !["tests.rs", "parity.rs", "test_chat.rs", "shared_data.rs"]
                .iter()
                .any(|name| path.ends_with(name))
        {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("\nmod tests {").next().unwrap_or_default();
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            sources.push((path, code.collect::<Vec<_>>().join("\n")));
        }
    }
    assert!(!sources.is_empty(), "{folder} has no source");
    sources
}

/// Lines of `folder` that hold one of `words`.
fn uses(folder: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, code) in sources(folder) {
        let path = path.strip_prefix(root()).unwrap().display().to_string();
        for line in code.lines().filter(|line| words.iter().any(|word| line.contains(word))) {
            found.push(format!("{path}: {}", line.trim()));
        }
    }
    found
}

/// The crates of the workspace but for the command line's.
fn crates() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Names of a crate's dependencies.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
}

#[test]
fn each_crate_knows_those_below_it_and_no_other() {
    let known: [(&str, &[&str]); 13] = [
        ("rlt-cuda", &[]),
        ("rlt-cuda-emulator", &[]),
        ("rlt-engine", &["cuda"]),
        ("rlt-files", &[]),
        ("rlt-gguf", &[]),
        ("rlt-grade", &[]),
        ("rlt-lab", &["files", "grade", "method", "model", "report", "reward"]),
        ("rlt-method", &["engine", "files", "gguf", "grade", "model", "ranks", "reward"]),
        ("rlt-model", &["engine", "files"]),
        ("rlt-ranks", &[]),
        ("rlt-report", &["files", "method"]),
        ("rlt-reward", &[]),
        ("rlt-serve", &["model"]),
    ];
    assert_eq!(crates(), known.map(|(name, _)| name));
    for (name, below) in known {
        let ours = dependencies(&format!("crates/{name}/Cargo.toml"));
        let ours: Vec<&str> = ours.iter().filter_map(|other| other.strip_prefix("rlt-")).collect();
        assert_eq!(ours, below, "{name}");
    }
}

#[test]
fn crates_point_one_way_and_the_engine_knows_no_text() {
    let engine = dependencies("crates/rlt-engine/Cargo.toml");
    for text in ["tokenizers", "minijinja", "serde", "serde_json", "safetensors", "rlt", "rlt-model"] {
        assert!(!engine.contains(text), "rlt-engine depends on {text}");
    }
    assert!(!dependencies("crates/rlt-model/Cargo.toml").contains("rlt"));
    let files = ["crc32c", "serde", "serde_json", "thiserror"].map(str::to_owned);
    assert_eq!(dependencies("crates/rlt-files/Cargo.toml"), BTreeSet::from(files), "rlt-files is a leaf");
    let grade = ["num-bigint", "num-integer", "num-traits"].map(str::to_owned);
    assert_eq!(
        dependencies("crates/rlt-grade/Cargo.toml"),
        BTreeSet::from(grade),
        "rlt-grade is useful alone"
    );
    assert_eq!(uses("crates/rlt-engine/src", &["std::fs", "std::io"]), [""; 0]);
    assert_eq!(uses("crates/rlt-model/src", &["reward", "advantage"]), [""; 0]);
    let gguf = dependencies("crates/rlt-gguf/Cargo.toml");
    assert!(!gguf.iter().any(|name| name.starts_with("rlt")), "rlt-gguf is a leaf: {gguf:?}");
    let generation = ["okenizer", "ChatTemplate", "String"];
    let mut found = uses("crates/rlt-model/src/generate.rs", &generation);
    found.extend(uses("crates/rlt-model/src/decode.rs", &generation));
    assert_eq!(found, [""; 0], "generation sees token ids only");
}

#[test]
fn equations_do_no_input_or_output_and_name_no_family() {
    let words = ["std::fs", "std::io", "std::env", "std::time", "Decoder", "Qwen", "qwen", "Llama", "llama"];
    for folder in ["crates/rlt-reward/src", "crates/rlt-grade/src"] {
        assert_eq!(uses(folder, &words), [""; 0]);
    }
}

#[test]
fn the_report_reads_run_files_only() {
    let state = [
        "::grpo",
        "::sft",
        "::training",
        "CheckpointStore",
        "rlt_model",
        "rlt_engine",
        "rlt_method::checkpoint",
    ];
    assert_eq!(uses("crates/rlt-report/src", &state), [""; 0]);
}

#[test]
fn only_the_command_line_prints_or_exits() {
    let words = ["println!", "eprintln!", "print!(", "process::exit", "stdout()", "stderr()"];
    let mut library: Vec<String> =
        uses("src", &words).into_iter().filter(|line| !line.starts_with("src/cli/")).collect();
    for name in crates() {
        library.extend(uses(&format!("crates/{name}/src"), &words));
    }
    assert_eq!(library, [""; 0]);
}

#[test]
fn nothing_is_read_whole_without_a_bound() {
    let words = ["fs::read(", "fs::read_to_string", "fs::read)", "io::read_to_string"];
    let mut found = uses("src", &words);
    for name in crates() {
        found.extend(uses(&format!("crates/{name}/src"), &words));
    }
    // The kernel's own files are as long as it says.
    found.retain(|line| {
        !line.contains("/proc/") && !line.starts_with("crates/rlt-method/src/plan/machine.rs")
    });
    assert_eq!(found, [""; 0], "rlt_files::read_text and read_bytes have a bound, and wait for nobody");
}

/// The `[text](target)` links of a page.
fn links(page: &str) -> Vec<(&str, &str)> {
    let mut links = Vec::new();
    let mut rest = page;
    while let Some(middle) = rest.find("](") {
        let (before, after) = (&rest[..middle], &rest[middle + 2..]);
        let Some(end) = after.find(')') else { break };
        if let Some(start) = before.rfind('[') {
            links.push((&before[start + 1..], &after[..end]));
        }
        rest = &after[end..];
    }
    links
}

#[test]
fn links_lead_somewhere() {
    let in_docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let of_docs: Vec<String> = in_docs
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| format!("docs/{}", path.file_name().unwrap().display()))
        .collect();
    assert!(of_docs.len() > 15, "{of_docs:?}");
    let others = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "python/README.md"].map(str::to_owned);
    for page in others.iter().chain(&of_docs) {
        let path = root().join(page);
        let text = fs::read_to_string(&path).unwrap();
        for (name, target) in links(&text) {
            let external = target.starts_with("https://") || target.starts_with('#');
            let file = target.split('#').next().unwrap_or(target);
            assert!(external || path.parent().unwrap().join(file).exists(), "{page}: [{name}]({target})");
        }
    }
}

/// A page that the site's table of contents does not name is on no site.
#[test]
fn every_page_of_the_documentation_is_on_the_site() {
    let contents = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    for folder in ["docs", "docs/figures"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root().join("docs")).unwrap().display().to_string();
            if path.extension().is_some_and(|extension| extension == "md") && name != "SUMMARY.md" {
                assert!(contents.contains(&format!("({name})")), "docs/SUMMARY.md does not name {name}");
            }
        }
    }
}

#[test]
fn the_paper_map_names_functions_and_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/PAPER_MAP.md")).unwrap();
    let links = links(&page);
    assert!(links.len() > 80, "{} links", links.len());
    for (name, target) in links {
        let name = name.trim_matches('`');
        let code = fs::read_to_string(root().join("docs").join(target)).unwrap_or_default();
        let defined = ["(", "<"].iter().any(|after| code.contains(&format!("fn {name}{after}")));
        assert!(defined, "docs/PAPER_MAP.md: {target} has no function {name}");
    }
}

#[test]
fn the_paper_map_and_the_equations_agree_both_ways() {
    let page = fs::read_to_string(root().join("docs/PAPER_MAP.md")).unwrap();
    for file in [
        "crates/rlt-reward/src/objective.rs",
        "crates/rlt-reward/src/advantage.rs",
        "crates/rlt-reward/src/supervised.rs",
        "crates/rlt-reward/src/rlt.rs",
        "crates/rlt-reward/src/correctness.rs",
    ] {
        let (_, code) = sources(file).remove(0);
        for line in code.lines().filter_map(|line| line.strip_prefix("pub fn ")) {
            let name = line.split(['(', '<']).next().unwrap();
            let helper = ["has_zero_variance", "check_finite"].contains(&name);
            assert!(
                helper || page.contains(&format!("[`{name}`](../{file})")),
                "{file}: {name} is not in the map"
            );
        }
    }
}

#[test]
fn the_paper_map_names_settings_that_exist_and_all_that_change_the_method() {
    let page = fs::read_to_string(root().join("docs/PAPER_MAP.md")).unwrap();
    let known = Config::default().settings().unwrap();
    // Parts of a style, the weights that replace alpha, and what an objective sets are unset by default.
    let style =
        ["teacher_system", "student_system", "delimiter", "padding", "begin_of_thought", "end_of_thought"]
            .into_iter()
            .chain(["begin_of_solution", "end_of_solution", "begin_of_explanation", "end_of_explanation"]);
    let known: BTreeSet<String> =
        known.into_keys().chain(style.map(|part| format!("prompts.{part}"))).collect();
    let weights = [
        "reward.grader",
        "reward.alpha_min",
        "reward.alpha_max",
        "reward.unscorable_reward",
        "reward.add.overlong_cache",
        "grpo.reference_sync_every",
    ]
    .map(str::to_owned);
    let of_objective =
        ["baseline", "scale", "loss_mean", "clip_low", "clip_high", "mask_truncated", "resample_rounds"];
    let unset = weights.into_iter().chain(of_objective.map(|key| format!("grpo.{key}")));
    let known = &known | &unset.collect();
    let tables = ["reward.", "grpo.", "sft.", "optimizer.", "sampling.", "prompts.", "data.", "model."];
    let words: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
    for word in words.iter().filter(|word| tables.iter().any(|table| word.starts_with(table))) {
        assert!(known.contains(*word), "docs/PAPER_MAP.md: there is no setting {word}");
    }
    for key in &known {
        let changes_the_method =
            ["reward.", "grpo.", "optimizer."].iter().any(|table| key.starts_with(table));
        let logged_only = key.starts_with("grpo.samples_");
        assert!(
            !changes_the_method || logged_only || words.contains(key.as_str()),
            "{key} is not in the map"
        );
    }
}

/// Name to versions of every package in a lock file.
fn locked(file: &str) -> std::collections::BTreeMap<String, BTreeSet<String>> {
    let lock: toml::Table = fs::read_to_string(root().join(file)).unwrap().parse().unwrap();
    let mut versions = std::collections::BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let text = |key: &str| package[key].as_str().unwrap().to_owned();
        versions.entry(text("name")).or_insert_with(BTreeSet::new).insert(text("version"));
    }
    versions
}

/// The wheel is built of the same sources: its manifest stands outside the workspace and repeats what it cannot inherit.
#[test]
fn the_python_package_follows_the_workspace() {
    let table =
        |file: &str| -> toml::Table { fs::read_to_string(root().join(file)).unwrap().parse().unwrap() };
    let (workspace, python) = (table("Cargo.toml"), table("python/Cargo.toml"));
    for key in ["version", "edition", "rust-version", "license", "repository"] {
        assert_eq!(
            python["package"][key], workspace["workspace"]["package"][key],
            "python/Cargo.toml: {key}"
        );
    }
    assert_eq!(python["profile"], workspace["profile"], "the profiles");
    let (ours, theirs) = (locked("Cargo.lock"), locked("python/Cargo.lock"));
    for (name, versions) in &theirs {
        let Some(known) = ours.get(name) else { continue };
        assert!(
            versions.is_subset(known),
            "python/Cargo.lock has {name} {versions:?}, Cargo.lock {known:?}: cp Cargo.lock python/ && cargo metadata \
             --manifest-path python/Cargo.toml >/dev/null"
        );
    }
    let needed = ["rlt", "rlt-grade", "rlt-model", "pyo3"];
    assert!(needed.iter().all(|name| theirs.contains_key(*name)), "{:?}", theirs.keys());
}
