//! Which files a `data.path` stands for.

use std::fs;
use std::path::{Path, PathBuf};

use super::file_kind::{is_shard, training_split};
use super::hub;
use crate::error::{Error, Result};

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

#[cfg(test)]
mod tests {
    use super::*;

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
