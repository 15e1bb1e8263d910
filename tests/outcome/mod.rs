//! What a run leaves, for comparing two runs of the same work.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rlt::metrics::is_time;
use rlt::run_log::read_rows;
use serde_json::Value;

/// Files by their path in the run directory.
pub type Outcome = BTreeMap<String, Vec<u8>>;

/// Everything that a run leaves and that may not differ: the files' bytes, and the metrics without what measures
/// time.
pub fn outcome(run_dir: &Path) -> Outcome {
    let mut files = BTreeMap::new();
    let mut folders = vec![run_dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(run_dir).unwrap().display().to_string();
            // The events and the page show times; the configuration names the folder.
            match name.as_str() {
                "tb" | "report.html" | "config.toml" | ".rlt-run" => {}
                "metrics.jsonl" => drop(files.insert(name, timeless_metrics(&path))),
                _ if path.is_dir() => folders.push(path),
                _ => drop(files.insert(name, fs::read(&path).unwrap())),
            }
        }
    }
    files
}

fn timeless_metrics(path: &Path) -> Vec<u8> {
    let rows = read_rows(path).unwrap().into_iter().map(|mut row| {
        row.retain(|key, _| !is_time(key));
        format!("{}\n", Value::Object(row))
    });
    rows.collect::<String>().into_bytes()
}

/// Panics where the files in `run_dir` are not those of `whole`.
pub fn assert_same(whole: &Outcome, run_dir: &Path, what: &str) {
    let resumed = outcome(run_dir);
    assert!(resumed.keys().eq(whole.keys()), "{what}: {:?}, not {:?}", resumed.keys(), whole.keys());
    for (name, bytes) in whole {
        assert!(resumed[name] == *bytes, "{what}: {name} differs from the undisturbed run's");
    }
}
