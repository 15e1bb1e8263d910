//! What the names of files say: their kind, whether they hold rows, and of which split.

use std::path::{Path, PathBuf};

/// What a file name says about the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// JSON Lines, or one JSON array: told apart by the first character.
    Json,
    Csv,
    Parquet,
}

impl FileKind {
    /// The kind of a data file; `None` for other files.
    pub(super) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "json" | "ndjson" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Whether a file of a folder or repository holds rows: what `datasets` writes about them is not data.
pub(super) fn is_shard(path: &Path) -> bool {
    const ABOUT: [&str; 4] = ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && !ABOUT.contains(&name.as_ref()) && FileKind::of(path).is_some()
}

/// Where file names tell splits apart (`train-00000-of-00002.parquet`, `test.jsonl`), those of the training
/// split: rows held out for testing never slip in. Otherwise all files.
pub(super) fn training_split(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let of = |file: &PathBuf, split: &str| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(split).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    let held_out =
        |file: &PathBuf| ["test", "validation", "valid", "dev"].iter().any(|split| of(file, split));
    if files.iter().any(|file| of(file, "train")) && files.iter().any(held_out) {
        return files.into_iter().filter(|file| !held_out(file)).collect();
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> Vec<String> {
        let files = training_split(files.iter().map(PathBuf::from).collect());
        files.iter().map(|file| file.display().to_string()).collect()
    }

    #[test]
    fn held_out_splits_are_left_out() {
        assert_eq!(
            names(&["data/test-0-of-1.parquet", "data/train-0-of-2.parquet", "data/train-1-of-2.parquet"]),
            ["data/train-0-of-2.parquet", "data/train-1-of-2.parquet"]
        );
        assert_eq!(names(&["test.jsonl"]), ["test.jsonl"]);
        assert_eq!(names(&["testimony.jsonl", "train.jsonl"]), ["testimony.jsonl", "train.jsonl"]);
    }
}
