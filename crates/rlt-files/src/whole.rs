//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::claim::claim;
use crate::error::{Result, at};
use crate::place::{Place, folder_of, open_stream};
use crate::replace::sync_dir;

/// The unfinished files of this process that nobody could go on with.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes every [`WholeFile`] of this process that is not finished, and keeps all of its threads from beginning or
/// finishing another: for a process that is about to end at once, because of a signal. Rows of a
/// [`crate::ResumableWriter`] stay, to go on with.
pub fn remove_unfinished() {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    for path in unfinished.drain(..) {
        // Nothing useful can be done about a failure here.
        let _ = fs::remove_file(path);
    }
    // Whoever wants to finish a file waits here until the process is gone.
    mem::forget(unfinished);
}

/// A file that is written under a temporary name beside its place; [`Self::finish`] makes it durable and gives it its
/// name. Dropped before that, nothing is left behind, and what stood there still does.
///
/// A device or a pipe is written to directly.
#[derive(Debug)]
pub struct WholeFile {
    /// As the caller named it.
    path: PathBuf,
    /// The place and the temporary name; `None` for a stream.
    target: Option<(PathBuf, PathBuf)>,
    /// `None` once finished.
    file: Option<BufWriter<File>>,
}

impl WholeFile {
    /// Starts a file that will be called `path`. Missing parent folders are made.
    ///
    /// # Errors
    /// As [`Place::of`]; [`crate::Error::Refused`] when another process is writing it; [`crate::Error::Io`].
    pub fn create(path: &Path) -> Result<Self> {
        let target = match Place::of(path)? {
            Place::Stream(_) => {
                let file = Some(BufWriter::new(open_stream(path)?));
                return Ok(Self { path: path.to_path_buf(), target: None, file });
            }
            Place::File(target) => target,
        };
        fs::create_dir_all(folder_of(&target)).map_err(at(path))?;
        let temporary = beside(&target, "tmp");
        let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        let file = claim(&temporary, path)?;
        unfinished.push(temporary.clone());
        drop(unfinished);
        // From here on, dropping removes it. What a dead process left in it goes first.
        let whole = Self {
            path: path.to_path_buf(),
            target: Some((target, temporary)),
            file: Some(BufWriter::new(file)),
        };
        whole.file.as_ref().expect("just opened").get_ref().set_len(0).map_err(at(path))?;
        Ok(whole)
    }

    /// The name it will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes, syncs and renames.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when the data cannot be made durable; the temporary file is then removed.
    pub fn finish(mut self) -> Result<()> {
        let file = self.file.as_mut().expect("open until `finish` consumes the writer");
        file.flush().map_err(at(&self.path))?;
        if let Some((target, temporary)) = &self.target {
            file.get_ref().sync_all().map_err(at(&self.path))?;
            let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
            fs::rename(temporary, target).map_err(at(&self.path))?;
            unfinished.retain(|path| path != temporary);
            drop(unfinished);
            // The name is durable only once its folder is.
            self.file = None;
            sync_dir(folder_of(target)).map_err(at(&self.path))?;
        }
        self.file = None;
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("open until `finish` consumes the writer").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().expect("open until `finish` consumes the writer").flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        // What is still in memory is of no use to anybody.
        let (file, _) = file.into_parts();
        if let Some((_, temporary)) = &self.target {
            let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
            // Nothing useful can be done about a failure here.
            let _ = fs::remove_file(temporary);
            unfinished.retain(|path| path != temporary);
        }
        // The lock goes last.
        drop(file);
    }
}

/// Writes a whole file so that a reader sees the old content or the new, never a part of it.
///
/// # Errors
/// As [`WholeFile::create`] and [`WholeFile::finish`]; the old content is untouched then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = WholeFile::create(path)?;
    file.write_all(bytes).map_err(at(path))?;
    file.finish()
}

/// `.NAME.rlt-ENDING` beside `target`.
pub(crate) fn beside(target: &Path, ending: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".rlt-");
    name.push(ending);
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::names;

    #[test]
    fn the_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/rows");
        let mut file = WholeFile::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        assert!(!path.exists());
        file.finish().unwrap();
        let mut abandoned = WholeFile::create(&path).unwrap();
        abandoned.write_all(b"two").unwrap();
        assert!(WholeFile::create(&path).is_err(), "two writers");
        drop(abandoned);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(names(path.parent().unwrap()), ["rows"]);
        // What a dead process left is taken over.
        fs::write(dir.path().join("new/.rows.rlt-tmp"), "left by the dead, and longer").unwrap();
        write_atomic(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(names(path.parent().unwrap()), ["rows"]);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plain");
        fs::write(&file, "x").unwrap();
        let error = WholeFile::create(&file.join("rows.jsonl")).unwrap_err();
        assert!(error.to_string().contains("rows.jsonl"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_a_device_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("deep/file"), dir.path().join("link"));
        fs::create_dir(dir.path().join("deep")).unwrap();
        std::os::unix::fs::symlink("deep/file", &link).unwrap();
        for text in ["one", "two"] {
            write_atomic(&link, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        }
        assert_eq!(names(dir.path()), ["deep", "link"]);
        write_atomic(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
