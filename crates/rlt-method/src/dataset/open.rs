//! A data file opened: what is no file is refused by name, and nobody waits for ever.

use std::fs::{self, File};
use std::path::Path;

use rlt_files::{is_pipe, open_once};

use super::file_kind::FileKind;
use super::record::file_error;
use crate::error::{Error, Result};

/// Opens `path` for reading from its start, once: it may be a pipe.
///
/// # Errors
/// [`Error::Io`] when there is no such file; [`Error::File`] when it is a device, a socket or a folder, of no kind
/// that is read, or a pipe that nobody writes to.
pub(super) fn open(path: &Path) -> Result<(File, FileKind)> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let metadata = fs::metadata(path).map_err(io)?;
    if metadata.is_file() {
        let kind = FileKind::of(path).ok_or_else(|| {
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
    let kind = FileKind::of(path).unwrap_or(FileKind::Json);
    if kind == FileKind::Parquet {
        return Err(file_error(path, "a pipe; parquet is read from its end, so it must be a file"));
    }
    Ok((open_once(path).map_err(io)?, kind))
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

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};
    use std::process::Command;
    use std::thread;

    use super::*;

    #[test]
    fn devices_are_refused_and_pipes_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| open(path).unwrap_err().to_string();
        let endless = dir.path().join("rows.jsonl");
        std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
        assert!(error(&endless).ends_with("rows.jsonl: a device or a socket, not a data file"));
        let pipe = |name: &str| {
            let path = dir.path().join(name);
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            path
        };
        assert!(error(&pipe("a.parquet")).contains("parquet is read from its end"));
        let written = pipe("63");
        let of_thread = written.clone();
        let writer = thread::spawn(move || File::create(of_thread)?.write_all(b"{}"));
        let (mut file, kind) = open(&written).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), kind), ("{}", FileKind::Json));
        writer.join().unwrap().unwrap();
    }
}
