//! Folders that are this program's own: marked, and used by one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, at};

/// The mark of an owned folder: a file of this name. Its first line says what wrote the folder, its second which
/// process is at work or was the last; the process at work holds its lock.
pub const MARK: &str = ".rlt-run";

/// Longer than any mark.
const MOST_BYTES: u64 = 256;

/// A folder that files may be written to, replaced in and deleted from, by this process alone while the value lives.
#[derive(Debug)]
pub struct OwnedFolder {
    path: PathBuf,
    /// Locked.
    _mark: File,
}

impl OwnedFolder {
    /// Opens the folder `path` for work of this `kind` ("run"), and makes and marks it where it is missing or empty.
    /// A folder that is neither empty nor marked is refused, unless `is_known` recognises it as one that was made
    /// before there were marks. Until the folder is locked and known to be one's own, nothing in it is touched.
    ///
    /// # Errors
    /// [`Error::Refused`] for a folder that belongs to somebody else, to work of another kind, or to another process
    /// that is at work in it; [`Error::Io`].
    pub fn open(path: &Path, kind: &str, is_known: impl Fn(&Path) -> bool) -> Result<Self> {
        fs::create_dir_all(path).map_err(at(path))?;
        let mark = path.join(MARK);
        let line = format!("rlt {kind}, format 1\n");
        loop {
            match fs::symlink_metadata(&mark) {
                Ok(metadata) if metadata.is_file() => {
                    let mut file =
                        OpenOptions::new().read(true).write(true).open(&mark).map_err(at(&mark))?;
                    lock(&file, path)?;
                    check(&mut file, &mark, &line)?;
                    return Self::enter(path, file, &line);
                }
                Ok(_) => {
                    return Err(Error::refused(
                        &mark,
                        "is not a plain file, so it is not a mark that rlt wrote; remove it",
                    ));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(at(path)(e)),
            }
            let foreign = || Ok(first_entry(path)?.filter(|_| !is_known(path)));
            if let Some(name) = foreign()? {
                return Err(not_ours(path, &name));
            }
            match OpenOptions::new().read(true).write(true).create_new(true).open(&mark) {
                Ok(file) => {
                    lock(&file, path)?;
                    // Somebody may have put a file there in between.
                    if let Some(name) = foreign()? {
                        fs::remove_file(&mark).map_err(at(&mark))?;
                        return Err(not_ours(path, &name));
                    }
                    return Self::enter(path, file, &line);
                }
                // Another process was quicker.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(at(&mark)(e)),
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `path` is a folder that carries a mark: files of known names in it are this program's.
    pub fn is_marked(path: &Path) -> bool {
        fs::symlink_metadata(path.join(MARK)).is_ok_and(|metadata| metadata.is_file())
    }

    /// Writes the mark, with the process, over what is there: always as many bytes, so that no moment has less.
    fn enter(path: &Path, mut mark: File, line: &str) -> Result<Self> {
        let text = format!("{line}process {:<10}\n", std::process::id());
        mark.seek(SeekFrom::Start(0))
            .and_then(|_| mark.write_all(text.as_bytes()))
            .and_then(|()| mark.sync_data())
            .map_err(at(&path.join(MARK)))?;
        Ok(Self { path: path.to_path_buf(), _mark: mark })
    }
}

fn lock(mark: &File, path: &Path) -> Result<()> {
    match mark.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let holder = read(mark).ok().and_then(|text| {
                let id = text.lines().nth(1)?.strip_prefix("process ")?.trim().to_owned();
                Some(format!(" (process {id})"))
            });
            let what = format!(
                "another rlt{} is working in this run directory; wait for it, or name another one",
                holder.unwrap_or_default()
            );
            Err(Error::refused(path, what))
        }
        Err(TryLockError::Error(e)) => Err(at(&path.join(MARK))(e)),
    }
}

/// The mark's text.
fn read(mut mark: &File) -> io::Result<String> {
    let mut text = Vec::new();
    mark.seek(SeekFrom::Start(0))?;
    mark.take(MOST_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Refuses the mark of other work. An empty one is whoever's: a kill right after it was made leaves that, and a person
/// who puts it there by hand says that the folder is rlt's.
fn check(mark: &mut File, path: &Path, line: &str) -> Result<()> {
    let text = read(mark).map_err(at(path))?;
    match text.lines().next() {
        None => Ok(()),
        Some(first) if first == line.trim_end() => Ok(()),
        Some(first) if first.starts_with("rlt ") && first.contains(", format ") => {
            let folder = path.parent().unwrap_or(path);
            let wanted = line.trim_end();
            let what = format!("is the folder of an {first:?}, not of an {wanted:?}; name another one");
            Err(Error::refused(folder, what.replace('"', "`").replace(", format 1", "")))
        }
        Some(_) => Err(Error::refused(path, "is not a mark that rlt wrote; name another folder")),
    }
}

/// An entry of the folder; `None` when it is empty.
fn first_entry(path: &Path) -> Result<Option<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(at(path))? {
        let name = entry.map_err(at(path))?.file_name();
        if name != MARK {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names.into_iter().min())
}

fn not_ours(path: &Path, name: &str) -> Error {
    let what = format!(
        "is not empty (it holds {name:?}) and not a folder that rlt made, so nothing is written there; name an empty or a \
         new one, or, where an earlier rlt made it: touch '{}'",
        path.join(MARK).display()
    );
    Error::refused(path, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody(_: &Path) -> bool {
        false
    }

    #[test]
    fn one_process_at_a_time_and_a_dead_one_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = OwnedFolder::open(&path, "run", nobody).unwrap();
        assert!(OwnedFolder::is_marked(&path));
        let message = OwnedFolder::open(&path, "run", nobody).unwrap_err().to_string();
        assert!(
            message.contains(&format!("another rlt (process {}) is working", std::process::id())),
            "{message}"
        );
        drop(first);
        fs::write(path.join("metrics.jsonl"), "").unwrap();
        drop(OwnedFolder::open(&path, "run", nobody).unwrap());
        let message = OwnedFolder::open(&path, "demo", nobody).unwrap_err().to_string();
        assert!(message.contains("is the folder of an `rlt run`, not of an `rlt demo`"), "{message}");
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused_by_name_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::write(path.join("notes.txt"), "mine").unwrap();
        let message = OwnedFolder::open(path, "run", nobody).unwrap_err().to_string();
        assert!(message.contains("\"notes.txt\"") && message.contains("touch '"), "{message}");
        assert_eq!(fs::read_dir(path).unwrap().count(), 1);
        // One that is recognised, and one that a person says is rlt's.
        drop(OwnedFolder::open(path, "run", |path| path.join("notes.txt").exists()).unwrap());
        fs::write(path.join(MARK), "").unwrap();
        drop(OwnedFolder::open(path, "run", nobody).unwrap());
        fs::write(path.join(MARK), "my own file\n").unwrap();
        let message = OwnedFolder::open(path, "run", nobody).unwrap_err().to_string();
        assert!(message.contains("is not a mark that rlt wrote"), "{message}");
        assert_eq!(fs::read(path.join(MARK)).unwrap(), b"my own file\n");
    }
}
