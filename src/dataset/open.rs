//! A data file opened: what is no file is refused by name, and nobody waits for ever.

use std::fs::{self, File, Metadata};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::files::{Kind, kind};
use super::source::file_error;
use crate::error::{Error, Result};

/// How long a named pipe may have nobody who writes to it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens `path` for reading from its start, once: it may be a pipe.
///
/// # Errors
/// [`Error::Io`] when there is no such file; [`Error::File`] when it is a device, a socket or a folder, of no kind
/// that is read, or a pipe that nobody writes to.
pub(super) fn open(path: &Path) -> Result<(File, Kind)> {
    open_within(path, PATIENCE)
}

fn open_within(path: &Path, patience: Duration) -> Result<(File, Kind)> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let metadata = fs::metadata(path).map_err(io)?;
    if metadata.is_file() {
        let kind = kind(path).ok_or_else(|| {
            file_error(path, "not a data file; a .jsonl, .json, .csv or .parquet file is expected")
        })?;
        return Ok((File::open(path).map_err(io)?, kind));
    }
    if metadata.is_dir() {
        return Err(file_error(path, "a folder; a .jsonl, .json, .csv or .parquet file is expected"));
    }
    if !is_pipe(&metadata) {
        return Err(file_error(path, "a device or a socket, not a data file"));
    }
    // `<(zcat rows.jsonl.gz)` has a number for a name: rows of JSON, unless the name says otherwise.
    let kind = kind(path).unwrap_or(Kind::Json);
    if kind == Kind::Parquet {
        return Err(file_error(path, "a pipe; parquet is read from its end, so it must be a file"));
    }
    let (sender, receiver) = channel();
    let of_thread = path.to_path_buf();
    // Opening waits for a writer. When none comes the thread is left waiting: it cannot be stopped from outside.
    thread::spawn(move || drop(sender.send(File::open(of_thread))));
    match receiver.recv_timeout(patience) {
        Ok(file) => Ok((file.map_err(io)?, kind)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let seconds = patience.as_secs_f64();
            Err(file_error(path, format!("a pipe that nobody has written to for {seconds} s")))
        }
    }
}

/// Refuses what can be read only once, for work that reads its rows twice.
///
/// # Errors
/// [`Error::File`] for a pipe.
pub fn check_can_be_read_again(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if is_pipe(&metadata) => Err(file_error(
            path,
            "a pipe, which can be read only once, and these rows are read twice; save it to a file",
        )),
        // What else may be wrong its reader says.
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn is_pipe(metadata: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_fifo()
}

#[cfg(not(unix))]
fn is_pipe(_: &Metadata) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};
    use std::process::Command;

    use super::*;

    #[test]
    fn devices_are_refused_and_pipes_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| open_within(path, Duration::from_millis(100)).unwrap_err().to_string();
        let endless = dir.path().join("rows.jsonl");
        std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
        assert!(error(&endless).ends_with("rows.jsonl: a device or a socket, not a data file"));
        let pipe = |name: &str| {
            let path = dir.path().join(name);
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            path
        };
        assert!(error(&pipe("a.parquet")).contains("parquet is read from its end"));
        let silent = pipe("b.jsonl");
        assert!(error(&silent).ends_with("b.jsonl: a pipe that nobody has written to for 0.1 s"));
        let written = pipe("63");
        let of_thread = written.clone();
        let writer = thread::spawn(move || File::create(of_thread)?.write_all(b"{}"));
        let (mut file, kind) = open(&written).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), kind), ("{}", Kind::Json));
        writer.join().unwrap().unwrap();
    }
}
