//! Which files a `data.path` stands for.

use std::fs;
use std::path::{Path, PathBuf};

use super::hub;
use crate::error::{Error, Result};

/// What a file name says about the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// JSON Lines, or one JSON array: told apart by the first character.
    Json,
    Csv,
    Parquet,
}

/// The kind of a data file; `None` for other files.
pub(super) fn kind(path: &Path) -> Option<Kind> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jsonl" | "json" | "ndjson" => Some(Kind::Json),
        "csv" => Some(Kind::Csv),
        "parquet" => Some(Kind::Parquet),
        _ => None,
    }
}

/// `path` itself, or the data files of the folder or of the hub's data set that it names, in the order of
/// their names.
pub(super) fn data_files(path: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Ok(vec![path.to_path_buf()]),
        Ok(_) => folder_files(path),
        Err(error) => match hub::DatasetId::parse(path) {
            Some(id) => hub::dataset_files(&id),
            None => Err(io(error)),
        },
    }
}

/// The data files of a folder; those of its folder `data`, where clones of hub repositories keep them,
/// when it has none itself.
fn folder_files(path: &Path) -> Result<Vec<PathBuf>> {
    for folder in [path.to_path_buf(), path.join("data")] {
        if !folder.is_dir() {
            continue;
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|source| Error::Io { path: folder.clone(), source })? {
            let file = entry.map_err(|source| Error::Io { path: folder.clone(), source })?.path();
            if file.is_file() && is_shard(&file) {
                files.push(file);
            }
        }
        if !files.is_empty() {
            files.sort();
            return Ok(training_split(files));
        }
    }
    let what = "the folder holds no .jsonl, .json, .csv or .parquet file".into();
    Err(Error::File { path: path.to_path_buf(), what })
}

/// Whether a file of a folder or repository holds rows: what `datasets` writes about them is not data.
pub(super) fn is_shard(path: &Path) -> bool {
    const ABOUT: [&str; 4] = ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && !ABOUT.contains(&name.as_ref()) && kind(path).is_some()
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

    #[test]
    fn a_clone_keeps_its_shards_below_data() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        for name in ["README.md", "dataset_infos.json", "data/train-1.csv", "data/train-0.csv", "data/.x.csv"]
        {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let data = dir.path().join("data");
        assert_eq!(data_files(dir.path()).unwrap(), [data.join("train-0.csv"), data.join("train-1.csv")]);
    }
}
