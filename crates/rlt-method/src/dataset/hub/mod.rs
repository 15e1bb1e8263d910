//! Data sets of the Hugging Face hub, in the cache that `huggingface_hub` shares with them.
//!
//! The variables are those of the Python libraries: `HF_HUB_CACHE` or `HF_HOME` for the cache, `HF_TOKEN`
//! (else the file that `hf auth login` writes) for private data, `HF_ENDPOINT` for a mirror,
//! `HF_HUB_DOWNLOAD_TIMEOUT` for the patience with a silent hub, and `HF_HUB_OFFLINE` or `HF_DATASETS_OFFLINE` to
//! ask nobody. The cache's layout is that of the Python library: contents under their hash in `blobs`, names that
//! link to them in `snapshots/COMMIT`, and `refs` from branches and tags to commits.

mod answers;
mod client;
mod id;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rlt_files::{MOST_SETTINGS, read_text};

use self::answers::hex;
use self::client::{Client, Refusal};
pub(super) use self::id::DatasetId;
use crate::error::{Error, Result};

/// For a request and its answer together, which is why it is more than the 10 s that Python gives each.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// Local paths of the data files of `id`: downloaded where they are not cached, unless an offline variable is
/// set.
pub(super) fn dataset_files(id: &DatasetId) -> Result<Vec<PathBuf>> {
    let cache = cache_folder()
        .ok_or_else(|| id.error("no home folder for the cache; set HF_HOME or HF_HUB_CACHE".into()))?;
    let flag = |name: &str| {
        env::var(name).is_ok_and(|v| matches!(v.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
    };
    if let Some(variable) = ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"].into_iter().find(|name| flag(name)) {
        return cached_files(id, &cache)?.ok_or_else(|| {
            let at = if id.revision == "main" { String::new() } else { format!(" at {}", id.revision) };
            id.error(format!(
                "no local file or folder, and not in the cache {}{at} while {variable} is set; unset it to download",
                cache.display()
            ))
        });
    }
    let patience = patience().map_err(|what| id.error(what))?;
    downloaded_files(id, &cache, patience).map_err(|refusal| {
        let cached = use_the_cache(snapshot(id, &cache).is_some());
        match refusal {
            Refusal::Cache(path, source) => Error::Io { path, source },
            Refusal::Denied => id.error(
                "no local file or folder, and the hub refuses it: it does not exist, or it is private and HF_TOKEN \
                 does not open it"
                    .into(),
            ),
            Refusal::Absent => {
                id.error("no local file or folder, and the hub has no such data set or revision".into())
            }
            Refusal::Silent => id.error(format!(
                "no local file or folder, and the hub has not answered for {} s{cached}; see that it can be \
                 reached, or give it longer with HF_HUB_DOWNLOAD_TIMEOUT (seconds)",
                patience.as_secs_f64()
            )),
            Refusal::Unreachable(what) => {
                id.error(format!("no local file or folder, and the hub cannot be asked ({what}){cached}"))
            }
            Refusal::Distrusted(what) => id.error(format!(
                "the hub is not to be trusted: {what}; nothing of it was kept (is HF_ENDPOINT the hub you mean?)"
            )),
            Refusal::Other(error) => *error,
        }
    })
}

/// How long the hub may say nothing: `HF_HUB_DOWNLOAD_TIMEOUT` seconds, where the Python libraries look, too.
fn patience() -> std::result::Result<Duration, String> {
    let Ok(text) = env::var("HF_HUB_DOWNLOAD_TIMEOUT") else { return Ok(DEFAULT_PATIENCE) };
    let seconds = text.trim().parse().ok().filter(|&seconds: &f64| seconds > 0.0);
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        format!("HF_HUB_DOWNLOAD_TIMEOUT is {text:?}; a number of seconds above 0 is expected")
    })
}

fn cache_folder() -> Option<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(home()?.join("hub")))
}

/// `HF_HOME`, by default `~/.cache/huggingface`.
fn home() -> Option<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HF_HOME")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface")))
        .or_else(|| Some(env::home_dir()?.join(".cache/huggingface")))
}

fn token() -> Option<String> {
    let text = env::var("HF_TOKEN")
        .ok()
        .or_else(|| read_text(Path::new(&env::var_os("HF_TOKEN_PATH")?), MOST_SETTINGS).ok())
        .or_else(|| read_text(&home()?.join("token"), MOST_SETTINGS).ok())?;
    Some(text.trim().to_owned()).filter(|token| !token.is_empty())
}

/// `snapshots/COMMIT` of a revision, which is a branch, tag or commit, where the cache has it.
fn snapshot(id: &DatasetId, cache: &Path) -> Option<PathBuf> {
    let folder = id.folder(cache);
    let commit = match read_text(&folder.join("refs").join(&id.revision), MOST_SETTINGS) {
        Ok(commit) => commit.trim().to_owned(),
        Err(_) => id.revision.clone(),
    };
    Some(folder.join("snapshots").join(hex(&commit)?)).filter(|snapshot| snapshot.is_dir())
}

/// The files of the cached snapshot; `None` when there is none.
fn cached_files(id: &DatasetId, cache: &Path) -> Result<Option<Vec<PathBuf>>> {
    let Some(snapshot) = snapshot(id, cache) else { return Ok(None) };
    let mut names = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let at = snapshot.join(&folder);
        for entry in fs::read_dir(&at).map_err(|source| Error::Io { path: at.clone(), source })? {
            let name =
                folder.join(entry.map_err(|source| Error::Io { path: at.clone(), source })?.file_name());
            // Through the links: files are links into `blobs`.
            if snapshot.join(&name).is_dir() { folders.push(name) } else { names.push(name) }
        }
    }
    Ok(Some(id.select(names)?.into_iter().map(|name| snapshot.join(name)).collect()))
}

fn downloaded_files(
    id: &DatasetId,
    cache: &Path,
    patience: Duration,
) -> std::result::Result<Vec<PathBuf>, Refusal> {
    let client = Client::new(env::var("HF_ENDPOINT").ok(), token(), patience);
    let listing = client.listing(id)?;
    // Files are asked for by commit, so that all are of one version.
    let folder = id.folder(cache);
    let snapshot = folder.join("snapshots").join(&listing.commit);
    let mut files = Vec::new();
    for name in id.select(listing.files).map_err(|error| Refusal::Other(Box::new(error)))? {
        let file = snapshot.join(&name);
        if !file.exists() {
            let blobs = folder.join("blobs");
            fs::create_dir_all(&blobs).map_err(|source| Refusal::Cache(blobs.clone(), source))?;
            let blob = client.blob(id, &listing.commit, &name.to_string_lossy(), &blobs)?;
            link(&blob, &name, &file).map_err(|source| Refusal::Cache(file.clone(), source))?;
        }
        files.push(file);
    }
    let reference = folder.join("refs").join(&id.revision);
    let written = reference.parent().map_or(Ok(()), fs::create_dir_all);
    written
        .and_then(|()| fs::write(&reference, &listing.commit))
        .map_err(|source| Refusal::Cache(reference, source))?;
    Ok(files)
}

/// Makes `file`, which is `name` below a snapshot, stand for `blob`: a relative link where there are any, so that the
/// cache can be moved, else the content itself.
fn link(blob: &Path, name: &Path, file: &Path) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    #[cfg(unix)]
    {
        let up: PathBuf = std::iter::repeat_n("..", name.components().count() + 1).collect();
        let target = up.join("blobs").join(blob.file_name().unwrap_or_default());
        match std::os::unix::fs::symlink(&target, file) {
            // Another process was faster.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && file.exists() => Ok(()),
            // A link whose content is gone.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                fs::remove_file(file)?;
                std::os::unix::fs::symlink(&target, file)
            }
            outcome => outcome,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = name;
        fs::rename(blob, file)
    }
}

fn use_the_cache(is_cached: bool) -> &'static str {
    if is_cached { "; set HF_HUB_OFFLINE=1 to use the copy in the cache" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Option<(String, String, String)> {
        DatasetId::parse(Path::new(text)).map(|id| (id.repository, id.revision, id.below))
    }

    #[test]
    fn ids_and_paths_are_told_apart() {
        let parts = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(id("GAIR/LIMO"), parts("GAIR/LIMO", "main", ""));
        assert_eq!(id("a/b@v1.0"), parts("a/b", "v1.0", ""));
        assert_eq!(id("hf://datasets/a/b@x/data/f.csv"), parts("a/b", "x", "data/f.csv"));
        for path in ["rows.jsonl", "runs/rows.jsonl", "./a/b", "../a/b", "/a/b", "a/b/c", "a/b@", "a", "a/.b"]
        {
            assert_eq!(id(path), None, "{path}");
        }
        for revision in ["../../x", "..", "/x", "a/../../b", "a\0b"] {
            assert_eq!(id(&format!("a/b@{revision}")), None, "{revision}");
            assert_eq!(id(&format!("hf://datasets/a/b@{revision}/f.csv")), None, "{revision}");
        }
    }

    #[test]
    fn a_cached_snapshot_is_found_by_branch_and_commit() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("datasets--a--b");
        let snapshot = repository.join("snapshots/c0ffee");
        for folder in ["snapshots/c0ffee/data", "refs", "blobs"] {
            fs::create_dir_all(repository.join(folder)).unwrap();
        }
        fs::write(repository.join("refs/main"), "c0ffee").unwrap();
        for name in ["README.md", "data/train-1.csv", "data/train-0.csv", "data/test-0.csv"] {
            fs::write(snapshot.join(name), "").unwrap();
        }
        let files = |text: &str| {
            let id = DatasetId::parse(Path::new(text)).unwrap();
            let files = cached_files(&id, dir.path()).unwrap()?;
            Some(
                files
                    .iter()
                    .map(|f| f.strip_prefix(&snapshot).unwrap().display().to_string())
                    .collect::<Vec<_>>(),
            )
        };
        let train = Some(vec!["data/train-0.csv".to_owned(), "data/train-1.csv".to_owned()]);
        assert_eq!(files("a/b"), train);
        assert_eq!(files("a/b@c0ffee"), train);
        assert_eq!(files("hf://datasets/a/b/data/test-0.csv"), Some(vec!["data/test-0.csv".to_owned()]));
        assert_eq!(files("a/b@v2"), None);
        assert_eq!(files("a/c"), None);
        let id = DatasetId::parse(Path::new("hf://datasets/a/b/other")).unwrap();
        let error = cached_files(&id, dir.path()).unwrap_err().to_string();
        assert_eq!(error, "hf://datasets/a/b: holds no .jsonl, .json, .csv or .parquet file at \"other\"");
    }
}
