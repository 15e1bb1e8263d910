//! Rows out, one at a time, by work that may be killed at any moment and goes on where it stood.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checksum::sum_of;
use crate::claim::claim;
use crate::error::{Error, Result, at};
use crate::place::{Place, folder_of, open_stream};
use crate::read::{MOST_DESCRIPTION, read_bytes};
use crate::replace::sync_dir;
use crate::whole::{WholeFile, beside, write_atomic};

/// Least time between two commits: a commit waits for the disk.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Rows as JSON Lines that grow as `.NAME.rlt-partial` beside their final place. What was committed, and the caller's
/// state at that moment (`.NAME.rlt-state`), survives a kill, a full disk and any other error; what came after is cut off
/// and written again. While it lives, no other process writes the same file.
///
/// Rows that go to a device or a pipe are written as they come, and are never gone on with.
#[derive(Debug)]
pub struct ResumableWriter<S> {
    /// As the caller named it.
    path: PathBuf,
    /// `None` for a stream.
    files: Option<Files>,
    /// `None` once it is finished or given up.
    file: Option<BufWriter<File>>,
    /// What the work is, so that only the same work goes on.
    work: String,
    /// The caller's state after the rows written so far.
    state: S,
    bytes: u64,
    crc: u32,
    /// Bytes that are safe, with their state.
    committed: u64,
    last_commit: Instant,
}

#[derive(Debug)]
struct Files {
    target: PathBuf,
    partial: PathBuf,
    state: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Committed<S> {
    work: String,
    bytes: u64,
    crc32c: u32,
    state: S,
}

/// The description of the work that an earlier attempt at `path` left unfinished, where there is one.
pub fn unfinished_work(path: &Path) -> Option<String> {
    let Place::File(target) = Place::of(path).ok()? else { return None };
    let state = read_bytes(&beside(&target, "state"), MOST_DESCRIPTION).ok()?;
    let Committed { work, .. } = serde_json::from_slice::<Committed<serde_json::Value>>(&state).ok()?;
    Some(work)
}

impl<S: Clone + Default + Serialize + DeserializeOwned> ResumableWriter<S> {
    /// Begins `path`, or goes on with it when the last attempt had the same `work` (a description of everything
    /// that decides the bytes). Missing parent folders are made.
    ///
    /// # Errors
    /// As [`Place::of`]; [`Error::Refused`] when another process is writing it; [`Error::Io`] when the folder or the
    /// file cannot be made.
    pub fn begin(path: &Path, work: &str) -> Result<Self> {
        let begun = |files, file| Self {
            path: path.to_path_buf(),
            files,
            file: Some(BufWriter::new(file)),
            work: work.to_owned(),
            state: S::default(),
            bytes: 0,
            crc: 0,
            committed: 0,
            last_commit: Instant::now(),
        };
        let target = match Place::of(path)? {
            Place::Stream(_) => return Ok(begun(None, open_stream(path)?)),
            Place::File(target) => target,
        };
        fs::create_dir_all(folder_of(&target)).map_err(at(path))?;
        let (partial, state) = (beside(&target, "partial"), beside(&target, "state"));
        let mut file = claim(&partial, path)?;
        let committed = read_bytes(&state, MOST_DESCRIPTION)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Committed<S>>(&bytes).ok())
            .filter(|committed| committed.work == work)
            .filter(|committed| {
                let rows = sum_of(&mut (&mut file).take(committed.bytes));
                rows.is_ok_and(|rows| rows == (committed.bytes, committed.crc32c))
            });
        let bytes = committed.as_ref().map_or(0, |committed| committed.bytes);
        let mut writer = begun(Some(Files { target, partial, state }), file);
        let file = writer.open();
        file.get_mut().set_len(bytes).and_then(|()| file.seek(SeekFrom::Start(bytes))).map_err(at(path))?;
        if let Some(Committed { bytes, crc32c, state, .. }) = committed {
            (writer.bytes, writer.crc, writer.committed, writer.state) = (bytes, crc32c, bytes, state);
        }
        // A state of other work must not be taken for this one's.
        writer.commit()?;
        Ok(writer)
    }

    /// The state after the rows written so far; the default one at the very beginning.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Whether an attempt that is broken off can be gone on with.
    pub fn is_resumable(&self) -> bool {
        self.files.is_some()
    }

    /// Whether there are rows that an attempt that fails now would leave to go on with.
    pub fn has_committed(&self) -> bool {
        self.committed > 0
    }

    /// The rows written so far, from the first; none of a stream.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn written(&mut self) -> Result<Box<dyn Read + Send>> {
        let path = self.path.clone();
        self.open().flush().map_err(at(&path))?;
        let Some(files) = &self.files else { return Ok(Box::new(std::io::empty())) };
        let rows = File::open(&files.partial).map_err(at(&path))?;
        Ok(Box::new(BufReader::new(rows).take(self.bytes)))
    }

    /// Appends rows after which the state is `state`, and commits about once a second.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be written (a full disk, for example).
    pub fn append(&mut self, rows: &[impl Serialize], state: S) -> Result<()> {
        let mut text = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut text, row).map_err(|e| at(&self.path)(e.into()))?;
            text.push(b'\n');
        }
        let path = &self.path;
        let file = self.file.as_mut().expect("open until the writer is consumed");
        file.write_all(&text).map_err(at(path))?;
        self.bytes += text.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &text);
        self.state = state;
        if self.last_commit.elapsed() >= COMMIT_EVERY { self.commit() } else { Ok(()) }
    }

    /// Makes everything so far durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn commit(&mut self) -> Result<()> {
        let path = &self.path;
        let file = self.file.as_mut().expect("open until the writer is consumed");
        file.flush().map_err(at(path))?;
        if let Some(files) = &self.files {
            file.get_ref().sync_data().map_err(at(path))?;
            let (work, state) = (self.work.clone(), self.state.clone());
            let committed = Committed { work, bytes: self.bytes, crc32c: self.crc, state };
            let text = serde_json::to_vec(&committed).map_err(|e| at(path)(e.into()))?;
            // The error names what the user named, not what stands in for it.
            write_atomic(&files.state, &text).map_err(|error| match error {
                Error::Io { source, .. } => at(path)(source),
                refused @ Error::Refused { .. } => refused,
            })?;
            self.committed = self.bytes;
        }
        self.last_commit = Instant::now();
        Ok(())
    }

    /// Commits and leaves everything to go on with. Returns the state.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn suspend(mut self) -> Result<S> {
        self.commit()?;
        self.file = None;
        Ok(self.state.clone())
    }

    /// Makes the file durable and gives it its name. Returns the last state.
    ///
    /// # Errors
    /// [`Error::Io`]; what was committed is still there to go on with.
    pub fn finish(mut self) -> Result<S> {
        self.commit()?;
        if let Some(Files { target, partial, state }) = &self.files {
            fs::rename(partial, target).map_err(at(&self.path))?;
            self.file = None;
            remove(state).map_err(at(&self.path))?;
            sync_dir(folder_of(target)).map_err(at(&self.path))?;
        }
        self.file = None;
        Ok(self.state.clone())
    }

    /// As [`Self::finish`], but what appears under the name is what `write` makes of the rows.
    ///
    /// # Errors
    /// Whatever `write` returns; as [`Self::finish`].
    pub fn finish_as<E: From<Error>>(
        mut self,
        write: impl FnOnce(Box<dyn Read + Send>, &mut WholeFile) -> Result<(), E>,
    ) -> Result<S, E> {
        self.commit()?;
        let mut whole = WholeFile::create(&self.path)?;
        write(self.written()?, &mut whole)?;
        whole.finish()?;
        let state = self.state.clone();
        self.discard()?;
        Ok(state)
    }

    /// Removes what there is to go on with: the work is done, and its result stands elsewhere, or it came to nothing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn discard(mut self) -> Result<()> {
        let removed = self.remove_all();
        self.file = None;
        removed.map_err(at(&self.path))
    }
}

impl<S> ResumableWriter<S> {
    fn open(&mut self) -> &mut BufWriter<File> {
        self.file.as_mut().expect("open until the writer is consumed")
    }

    fn remove_all(&self) -> std::io::Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        remove(&files.state)?;
        remove(&files.partial)
    }
}

impl<S> Drop for ResumableWriter<S> {
    /// Work that failed leaves what it has committed, and nothing where that is nothing.
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        // What is still in memory is not committed.
        let (file, _) = file.into_parts();
        if self.committed == 0 {
            // Nothing useful can be done about a failure here.
            let _ = self.remove_all();
        }
        // The lock goes last.
        drop(file);
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_not_committed_is_written_again_and_what_is_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let begin = |work: &str| ResumableWriter::<u64>::begin(&path, work).unwrap();
        let mut writer = begin("a");
        assert_eq!(*writer.state(), 0);
        writer.append(&[1, 2], 2).unwrap();
        writer.commit().unwrap();
        writer.append(&[3], 3).unwrap();
        // As `kill -9` leaves it: the last row reached the file, the state did not.
        writer.open().flush().unwrap();
        let partial = dir.path().join(".rows.jsonl.rlt-partial");
        assert_eq!(fs::read_to_string(&partial).unwrap(), "1\n2\n3\n");
        assert!(ResumableWriter::<u64>::begin(&path, "a").is_err(), "two writers");
        // An error drops it, and what was committed stays.
        drop(writer);

        let mut writer = begin("a");
        assert_eq!(*writer.state(), 2);
        let mut text = String::new();
        writer.written().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "1\n2\n");
        assert!(!path.exists());
        writer.append(&[4], 4).unwrap();
        assert_eq!(writer.suspend().unwrap(), 4);
        assert_eq!(begin("a").finish().unwrap(), 4);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n4\n");
        assert_eq!(files(dir.path()), ["rows.jsonl"]);
    }

    #[test]
    fn other_work_and_damaged_rows_begin_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/rows.jsonl");
        let partial = dir.path().join("new/.rows.jsonl.rlt-partial");
        let suspended = |work: &str| {
            let mut writer = ResumableWriter::<u64>::begin(&path, work).unwrap();
            writer.append(&[1], 1).unwrap();
            writer.suspend().unwrap();
        };
        suspended("a");
        let writer = ResumableWriter::<u64>::begin(&path, "b").unwrap();
        assert_eq!(*writer.state(), 0);
        drop(writer);
        assert!(files(path.parent().unwrap()).is_empty(), "nothing was committed");
        suspended("a");
        fs::write(&partial, "2\n").unwrap();
        assert_eq!(*ResumableWriter::<u64>::begin(&path, "a").unwrap().state(), 0);
    }

    #[test]
    fn what_becomes_of_the_rows_is_up_to_the_caller() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sum");
        let mut writer = ResumableWriter::<u64>::begin(&path, "a").unwrap();
        writer.append(&[1, 2], 2).unwrap();
        let state = writer.finish_as(|mut rows, file| {
            let mut text = String::new();
            rows.read_to_string(&mut text).map_err(at(&path))?;
            write!(file, "{}", text.lines().count()).map_err(at(&path))
        });
        assert_eq!((state.unwrap(), fs::read_to_string(&path).unwrap().as_str()), (2, "2"));
        assert_eq!(files(dir.path()), ["sum"]);
        let mut writer = ResumableWriter::<u64>::begin(&path, "a").unwrap();
        writer.append(&[1, 2], 2).unwrap();
        writer.commit().unwrap();
        writer.discard().unwrap();
        assert_eq!(files(dir.path()), ["sum"]);
    }
}
