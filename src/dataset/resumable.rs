//! Rows out, one at a time, by work that may be killed at any moment and goes on where it stood.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{io_error, write_atomic};
use crate::error::{Error, Result};

/// Least time between two commits: a commit waits for the disk.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// A .jsonl file that grows as `.NAME.partial` beside its final place. What was committed, and the caller's state
/// at that moment, survives `kill -9`; the rest is cut off and written again.
pub struct ResumableWriter<S> {
    path: PathBuf,
    partial: PathBuf,
    state_path: PathBuf,
    /// `None` once it is finished or given up.
    file: Option<BufWriter<File>>,
    /// What the work is, so that only the same work goes on.
    work: String,
    /// The caller's state after the rows written so far.
    state: S,
    bytes: u64,
    last_commit: Instant,
}

#[derive(Serialize, Deserialize)]
struct Committed<S> {
    work: String,
    bytes: u64,
    state: S,
}

impl<S: Clone + Default + Serialize + DeserializeOwned> ResumableWriter<S> {
    /// Begins `path`, or goes on with it when the last attempt had the same `work` (a description of everything
    /// that decides the bytes). Missing parent folders are made.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder or the file cannot be made, [`Error::Failed`] when another process is at it.
    pub fn begin(path: &Path, work: &str) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Error::File {
            path: path.to_path_buf(),
            what: "not a file name; name the file to write".into(),
        })?;
        let beside = |ending: &str| path.with_file_name(format!(".{}.{ending}", name.to_string_lossy()));
        let (partial, state_path) = (beside("partial"), beside("state"));
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(io_error(path))?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&partial)
            .map_err(io_error(path))?;
        if file.try_lock().is_err() {
            let what = format!(
                "{}: another process is writing it; wait for it or name another file",
                path.display()
            );
            return Err(Error::Failed(what));
        }
        let committed = fs::read(&state_path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Committed<S>>(&bytes).ok())
            .filter(|committed| committed.work == work)
            .filter(|committed| file.metadata().is_ok_and(|metadata| metadata.len() >= committed.bytes));
        let (bytes, state) = committed.map_or((0, S::default()), |c| (c.bytes, c.state));
        file.set_len(bytes).and_then(|()| file.seek(SeekFrom::Start(bytes))).map_err(io_error(path))?;
        let mut writer = Self {
            path: path.to_path_buf(),
            partial,
            state_path,
            file: Some(BufWriter::new(file)),
            work: work.to_owned(),
            state,
            bytes,
            last_commit: Instant::now(),
        };
        // A state of other work must not be taken for this one's.
        writer.commit()?;
        Ok(writer)
    }

    /// The state after the rows written so far; the default one at the very beginning.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Appends rows after which the state is `state`, and commits about once a second.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be written (a full disk, for example).
    pub fn append(&mut self, rows: &[impl Serialize], state: S) -> Result<()> {
        let mut text = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut text, row).map_err(|e| io_error(&self.path)(e.into()))?;
            text.push(b'\n');
        }
        let file = self.file.as_mut().expect("open until the writer is consumed");
        file.write_all(&text).map_err(io_error(&self.path))?;
        self.bytes += text.len() as u64;
        self.state = state;
        if self.last_commit.elapsed() >= COMMIT_EVERY { self.commit() } else { Ok(()) }
    }

    /// Makes everything so far durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn commit(&mut self) -> Result<()> {
        let file = self.file.as_mut().expect("open until the writer is consumed");
        file.flush().and_then(|()| file.get_ref().sync_data()).map_err(io_error(&self.path))?;
        let committed = Committed { work: self.work.clone(), bytes: self.bytes, state: self.state.clone() };
        let text = serde_json::to_vec(&committed).map_err(|e| io_error(&self.path)(e.into()))?;
        write_atomic(&self.state_path, &text)?;
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
    /// [`Error::Io`]; what was written is then removed.
    pub fn finish(mut self) -> Result<S> {
        self.commit()?;
        fs::rename(&self.partial, &self.path).map_err(io_error(&self.path))?;
        self.file = None;
        fs::remove_file(&self.state_path).map_err(io_error(&self.path))?;
        Ok(self.state.clone())
    }
}

impl<S> Drop for ResumableWriter<S> {
    /// Work that failed leaves nothing behind. (Work that is killed is not dropped.)
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Nothing useful can be done about a failure here.
            let _ = fs::remove_file(&self.partial);
            let _ = fs::remove_file(&self.state_path);
        }
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
        writer.file.as_mut().unwrap().flush().unwrap();
        assert_eq!(fs::read_to_string(&writer.partial).unwrap(), "1\n2\n3\n");
        std::mem::forget(writer.file.take());
        drop(writer);
        // The lock of the forgotten file goes with its process; here it is in the way.
        assert!(ResumableWriter::<u64>::begin(&path, "a").is_err());
        fs::copy(dir.path().join(".rows.jsonl.partial"), dir.path().join("copy")).unwrap();
        fs::rename(dir.path().join("copy"), dir.path().join(".rows.jsonl.partial")).unwrap();

        let mut writer = begin("a");
        assert_eq!(*writer.state(), 2);
        assert!(!path.exists());
        writer.append(&[4], 4).unwrap();
        assert_eq!(writer.suspend().unwrap(), 4);
        assert_eq!(begin("a").finish().unwrap(), 4);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n4\n");
        assert_eq!(files(dir.path()), ["rows.jsonl"]);
    }

    #[test]
    fn other_work_begins_anew_and_failed_work_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/rows.jsonl");
        let mut writer = ResumableWriter::<u64>::begin(&path, "a").unwrap();
        writer.append(&[1], 1).unwrap();
        writer.suspend().unwrap();
        let writer = ResumableWriter::<u64>::begin(&path, "b").unwrap();
        assert_eq!(*writer.state(), 0);
        drop(writer);
        assert!(files(path.parent().unwrap()).is_empty());
    }
}
