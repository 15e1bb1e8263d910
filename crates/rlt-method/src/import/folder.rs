//! A new folder that appears whole or not at all.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::io_error;
use crate::error::{Error, Result};

/// Refuses a folder that holds something, or a file in its place.
///
/// # Errors
/// [`Error::Usage`].
pub(super) fn check_free(out: &Path) -> Result<()> {
    let taken = |what: &str| Err(Error::Usage(format!("--out {}: {what}", out.display())));
    if out.file_name().is_none() {
        return taken("is no name for a new folder");
    }
    match fs::read_dir(out).map(|mut entries| entries.next().is_none()) {
        Ok(false) => taken("the folder is not empty; name a new one, nothing in it was touched"),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => taken("is a file; name a new folder"),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(out)(e)),
        _ => Ok(()),
    }
}

/// Fills a folder beside `out` and gives it that name when it is complete and on disk; on an error it is removed.
///
/// # Errors
/// What `write` returns; [`Error::Io`], also when `out` has been filled by somebody else in the meantime.
pub(super) fn write_new(out: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = out.with_file_name(format!(".{name}.{}.unfinished", std::process::id()));
    if let Some(parent) = out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(io_error(parent))?;
    }
    fs::create_dir(&unfinished).map_err(io_error(&unfinished))?;
    let written = write(&unfinished).and_then(|()| {
        // Only an empty folder can be removed so.
        match fs::remove_dir(out) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(out)(e)),
            _ => fs::rename(&unfinished, out).map_err(io_error(out)),
        }
    });
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_dir_all(&unfinished);
    }
    written
}

/// Puts a file of the folder in its place.
pub(super) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    Ok(rlt_files::write_atomic(path, format!("{value:#}\n").as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new/model");
        check_free(&out).unwrap();
        let fill = |folder: &Path| fs::write(folder.join("a"), "1").map_err(io_error(folder));
        let failed = write_new(&out, |folder| {
            fill(folder)?;
            Err(Error::Failed("disk full".into()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 0, "nothing is left behind");
        fs::create_dir(&out).unwrap();
        check_free(&out).unwrap();
        write_new(&out, fill).unwrap();
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "1");
        assert!(check_free(&out).unwrap_err().to_string().contains("is not empty"));
        assert!(write_new(&out, fill).is_err(), "filled in the meantime");
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1);
        assert!(check_free(&out.join("a")).unwrap_err().to_string().contains("is a file"));
        assert!(check_free(Path::new("..")).is_err());
    }
}
