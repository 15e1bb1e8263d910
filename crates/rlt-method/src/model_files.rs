//! What tells one state of a model folder from another: the checksums of everything in it that decides a number.
//!
//! Weights are read whole, whatever their size and time say: both can stay the same when a file is replaced, and the time
//! changes when nothing did (a copy, a download). A model that is loaded has to be read anyway, and the second reading comes
//! from the system's cache where that has room for it; what may take a moment is said beforehand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rlt_files::{FileSum, checksum};
use rlt_model::adapter_folder::base_folder;
use serde::{Deserialize, Serialize};

use crate::error::{Result, io_error};
use crate::progress::Progress;

/// Files beside the weights that decide what a model reads, computes and writes: its shape, its tokens, its template and
/// what ends a text.
const TEXTS: [&str; 11] = [
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

/// Weights beyond this many bytes take a moment, so reading them is announced: 2 GiB.
const ANNOUNCED_BYTES: u64 = 2 << 30;

/// Which of a folder's files decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deciding {
    /// All: its weights are used.
    WithWeights,
    /// All but the weights: only its shape and its text side are used.
    WithoutWeights,
}

/// Length and checksum (CRC-32C) of the files of a model folder that decide a number, by name; an adapter's folder has those
/// of its base model as well, under `base/`. Empty where there is no such model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelFiles(BTreeMap<String, FileSum>);

impl ModelFiles {
    /// Reads the files in `folder`.
    ///
    /// # Errors
    /// The folder or a file cannot be read; what [`base_folder`] reports.
    pub fn of(folder: &Path, deciding: Deciding, progress: &dyn Progress) -> Result<Self> {
        let mut paths = files(folder, deciding)?;
        let base = base_folder(folder)?;
        if base != folder {
            let of_base = files(&base, deciding)?;
            paths.extend(of_base.into_iter().map(|(name, path)| (format!("base/{name}"), path)));
        }
        let bytes: u64 = paths.iter().filter_map(|(_, path)| fs::metadata(path).ok()).map(|m| m.len()).sum();
        if bytes > ANNOUNCED_BYTES {
            let (gb, folder) = (bytes as f64 / 1e9, folder.display());
            progress.note(&format!("{folder}: reading {gb:.1} GB for their checksums"));
        }
        let sums = paths.into_par_iter().map(|(name, path)| {
            let sum = checksum(&path).map_err(io_error(&path))?;
            Ok((name, sum))
        });
        Ok(Self(sums.collect::<Result<_>>()?))
    }

    /// The first file that differs, and how: "tokenizer.json changed".
    pub fn first_change(&self, now: &Self) -> Option<String> {
        let names = self.0.keys().chain(now.0.keys());
        names.into_iter().find_map(|name| match (self.0.get(name), now.0.get(name)) {
            (Some(was), Some(is)) if was == is => None,
            (Some(_), Some(_)) => Some(format!("{name} changed")),
            (Some(_), None) => Some(format!("{name} is gone")),
            (None, _) => Some(format!("{name} is new")),
        })
    }
}

/// The deciding files in `folder`, by name.
fn files(folder: &Path, deciding: Deciding) -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let is_weights = path.extension().is_some_and(|extension| extension == "safetensors");
        let decides = TEXTS.contains(&name.as_str()) || (is_weights && deciding == Deciding::WithWeights);
        // Links (of the hub's cache) are followed; whatever is not a plain file holds no model.
        if decides && fs::metadata(&path).map_err(io_error(&path))?.is_file() {
            files.push((name, path));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn of(folder: &Path, deciding: Deciding) -> ModelFiles {
        ModelFiles::of(folder, deciding, &Silent).unwrap()
    }

    #[test]
    fn a_changed_a_missing_and_a_new_file_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "12345");
        write("README.md", "one");
        let began = of(dir.path(), Deciding::WithWeights);
        write("README.md", "another");
        assert_eq!(began.first_change(&of(dir.path(), Deciding::WithWeights)), None);

        let weights = dir.path().join("model.safetensors");
        let modified = fs::metadata(&weights).unwrap().modified().unwrap();
        write("model.safetensors", "12346");
        fs::File::options().append(true).open(&weights).unwrap().set_modified(modified).unwrap();
        let change = |began: &ModelFiles, deciding| began.first_change(&of(dir.path(), deciding));
        assert_eq!(change(&began, Deciding::WithWeights).unwrap(), "model.safetensors changed");

        let texts = of(dir.path(), Deciding::WithoutWeights);
        write("model.safetensors", "1");
        assert_eq!(change(&texts, Deciding::WithoutWeights), None);
        write("chat_template.jinja", "x");
        assert_eq!(change(&texts, Deciding::WithoutWeights).unwrap(), "chat_template.jinja is new");
        fs::remove_file(dir.path().join("config.json")).unwrap();
        assert_eq!(change(&texts, Deciding::WithoutWeights).unwrap(), "config.json is gone");
    }
}
