//! Files that are read whole: no longer than the reader allows, and nobody waits for ever.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// The longest file of settings that people write: configurations, styles, tasks.
pub const MOST_SETTINGS: u64 = 16 << 20;

/// The longest file that a program wrote about other files: descriptions, manifests, tokenizers.
pub const MOST_DESCRIPTION: u64 = 512 << 20;

/// The longest file of rows that is held in memory at once.
pub const MOST_ROWS: u64 = 4 << 30;

/// How long a named pipe may have nobody who writes to it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens an ordinary file, through links.
///
/// # Errors
/// There is none, it may not be read, or it is a folder, a device, a socket or a pipe: those have no length, and a pipe
/// would be waited for.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() { File::open(path) } else { Err(not_a_file(&metadata)) }
}

/// Opens an ordinary file, or a pipe that somebody writes to: it can be read from its start, once.
///
/// # Errors
/// As [`open_regular`]; [`io::ErrorKind::TimedOut`] for a pipe that nobody opens for writing within half a minute.
pub fn open_once(path: &Path) -> io::Result<File> {
    open_within(path, PATIENCE)
}

/// All of a file, or of what comes out of a pipe, of at most `most` bytes.
///
/// # Errors
/// As [`open_once`]; [`io::ErrorKind::FileTooLarge`] for more than `most` bytes, of which none is kept.
pub fn read_bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_once(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let what = format!("has more than {} MB, which is not the kind of file it is read as", most >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

/// As [`read_bytes`], for text in UTF-8.
///
/// # Errors
/// As there; [`io::ErrorKind::InvalidData`] for what is no text.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read_bytes(path, most)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "is not text (UTF-8)"))
}

/// Whether `metadata` is a named pipe's.
#[cfg(unix)]
#[must_use]
pub fn is_pipe(metadata: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_fifo()
}

/// Whether `metadata` is a named pipe's.
#[cfg(not(unix))]
#[must_use]
pub fn is_pipe(_: &Metadata) -> bool {
    false
}

fn not_a_file(metadata: &Metadata) -> io::Error {
    let what = match metadata {
        folder if folder.is_dir() => "a folder, not a file",
        pipe if is_pipe(pipe) => "a pipe, not a file",
        _ => "a device or a socket, not a file",
    };
    io::Error::other(what)
}

fn open_within(path: &Path, patience: Duration) -> io::Result<File> {
    let metadata = fs::metadata(path)?;
    if !is_pipe(&metadata) {
        return open_regular(path);
    }
    let (sender, receiver) = channel();
    let of_thread = path.to_path_buf();
    // Opening waits for a writer. When none comes the thread is left waiting: it cannot be stopped from outside.
    thread::spawn(move || drop(sender.send(File::open(of_thread))));
    receiver.recv_timeout(patience).unwrap_or_else(|_| {
        let what = format!("a pipe that nobody has written to for {} s", patience.as_secs_f64());
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Write;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// A pipe at `path`. No program makes it: until that is another program, it has the locks of other tests, too.
    fn make_pipe(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    #[test]
    fn devices_are_refused_and_pipes_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| open_within(path, Duration::from_millis(100)).unwrap_err().to_string();
        let endless = dir.path().join("endless");
        std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
        assert_eq!(error(&endless), "a device or a socket, not a file");
        assert_eq!(read_bytes(&endless, 10).unwrap_err().to_string(), "a device or a socket, not a file");
        assert_eq!(error(dir.path()), "a folder, not a file");
        let pipe = dir.path().join("pipe");
        make_pipe(&pipe);
        assert_eq!(open_regular(&pipe).unwrap_err().to_string(), "a pipe, not a file");
        assert_eq!(error(&pipe), "a pipe that nobody has written to for 0.1 s");
        let written = dir.path().join("written");
        make_pipe(&written);
        let of_thread = written.clone();
        let writer = thread::spawn(move || File::options().write(true).open(of_thread)?.write_all(b"seven"));
        assert_eq!(read_text(&written, 5).unwrap(), "seven");
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn no_more_is_read_than_was_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert_eq!(read_text(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 4).unwrap_err().to_string(), "is not text (UTF-8)");
    }
}
