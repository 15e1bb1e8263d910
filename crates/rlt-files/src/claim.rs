//! The exclusive right to an unfinished file, held by a lock of the system's for as long as the process lives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use crate::error::{Error, Result, at};

/// Opens `unfinished` (made when missing, its content kept), which stands in for `path`, and locks it.
///
/// # Errors
/// [`Error::Refused`] when another process is at it, or when it is no plain file; [`Error::Io`].
pub(crate) fn claim(unfinished: &Path, path: &Path) -> Result<File> {
    loop {
        let file = open(unfinished).map_err(at(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who =
                    holder(&file).map_or_else(|| "another process".into(), |id| format!("process {id}"));
                let what = format!("{who} is writing it; wait for it, or name another file");
                return Err(Error::refused(path, what));
            }
            // Some file systems of clusters have no locks; without them, writing is as safe as one takes care.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(at(path)(e)),
        }
        match is_still(unfinished, &file) {
            Ok(true) => return Ok(file),
            // Its owner finished between our opening and our locking it; what stands there now is another file.
            Ok(false) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(at(path)(e)),
        }
    }
}

/// Opens a plain file to read and write; a link in its place is an error, not a way out of the folder.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits() as i32);
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other(format!("{} is in the way and is not a plain file", path.display())))
}

/// Whether `path` still names `file`.
fn is_still(path: &Path, file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (named, open) = (fs::symlink_metadata(path)?, file.metadata()?);
        Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        fs::symlink_metadata(path).map(|_| true)
    }
}

/// The process that holds the lock of `file`, where the system tells (Linux).
fn holder(file: &File) -> Option<u32> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = file.metadata().ok()?.ino().to_string();
        // `1: FLOCK  ADVISORY  WRITE 3219 fe:00:5693443 0 EOF`
        fs::read_to_string("/proc/locks").ok()?.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (kind, id, place) = (words.next()?, words.nth(2)?, words.next()?);
            let here = kind == "FLOCK" && place.rsplit(':').next() == Some(&inode);
            id.parse().ok().filter(|&id| here && id > 0)
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        None
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time_and_never_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (unfinished, path) = (dir.path().join(".a.rlt-tmp"), dir.path().join("a"));
        let first = claim(&unfinished, &path).unwrap();
        let message = claim(&unfinished, &path).unwrap_err().to_string();
        if Path::new("/proc/locks").exists() {
            assert!(message.contains(&format!("process {} is writing it", std::process::id())), "{message}");
        }
        drop(first);
        drop(claim(&unfinished, &path).unwrap());
        fs::remove_file(&unfinished).unwrap();
        let user = dir.path().join("user");
        fs::write(&user, "mine").unwrap();
        std::os::unix::fs::symlink(&user, &unfinished).unwrap();
        claim(&unfinished, &path).unwrap_err();
        assert_eq!(fs::read(&user).unwrap(), b"mine");
    }
}
