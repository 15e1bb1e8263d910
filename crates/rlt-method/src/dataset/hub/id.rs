//! The names of data sets of the hub, and which of their files hold rows.

use std::path::{Path, PathBuf};

use super::answers::plain_path;
use crate::dataset::file_kind::{FileKind, is_shard, training_split};
use crate::error::{Error, Result};

/// `OWNER/NAME`, with `@REVISION` and `/FILE-OR-FOLDER` after it where they are wanted; `hf://datasets/` may
/// stand before it, as in `datasets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dataset) struct DatasetId {
    /// `OWNER/NAME`.
    pub(super) repository: String,
    pub(super) revision: String,
    /// A file or folder of the repository; empty for all of it.
    pub(super) below: String,
}

impl DatasetId {
    /// `None` for what can only be meant as a path: absolute, dotted, of another depth, or (without
    /// `hf://`) with a data file's name in the place of the repository's.
    pub(in crate::dataset) fn parse(path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        let (text, explicit) =
            match text.strip_prefix("hf://datasets/").or(text.strip_prefix("hf:/datasets/")) {
                Some(rest) => (rest, true),
                None => (text, false),
            };
        let (owner, rest) = text.split_once('/')?;
        let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let part = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let is_file = FileKind::of(Path::new(name)).is_some();
        let plain = below.split('/').all(|step| step != "..");
        (part(owner)
            && part(name)
            && plain
            // It becomes the name of a file in the cache.
            && plain_path(revision).is_some()
            && (explicit || (!is_file && below.is_empty())))
        .then(|| Self {
            repository: format!("{owner}/{name}"),
            revision: revision.to_owned(),
            below: below.trim_matches('/').to_owned(),
        })
    }

    pub(super) fn error(&self, what: String) -> Error {
        Error::File { path: PathBuf::from(format!("hf://datasets/{}", self.repository)), what }
    }

    /// The repository's folder in the cache.
    pub(super) fn folder(&self, cache: &Path) -> PathBuf {
        cache.join(format!("datasets--{}", self.repository.replace('/', "--")))
    }

    /// The data files among the repository's that are asked for, in the order of their names.
    pub(super) fn select(&self, mut names: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
        names.retain(|name| is_shard(name) && name.starts_with(&self.below));
        names.sort();
        let names = if names.iter().any(|name| name.as_os_str() == self.below.as_str()) {
            names
        } else {
            training_split(names)
        };
        if names.is_empty() {
            let place = if self.below.is_empty() { String::new() } else { format!(" at {:?}", self.below) };
            return Err(self.error(format!("holds no .jsonl, .json, .csv or .parquet file{place}")));
        }
        Ok(names)
    }
}
