//! Where an output's name really leads, and whether that is an input of the same work.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result, at};

/// Links in a row that are followed before they count as a circle, as Linux does.
const MOST_LINKS: usize = 40;

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A plain file, or a free name. The path is the one behind every link, so that a file that is put in its place
    /// replaces the file and not the link.
    File(PathBuf),
    /// A terminal, `/dev/null`, a pipe (`/dev/stdout`, `>(gzip > rows.gz)`): written to as it is, from the beginning,
    /// and never replaced.
    Stream(PathBuf),
}

impl Place {
    /// Follows `path`. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Refused`] for folders, sockets, disks, a pipe that nobody reads, a file that is write-protected;
    /// [`Error::Io`].
    pub fn of(path: &Path) -> Result<Self> {
        let target = behind_links(path)?;
        if target.file_name().is_none() {
            return Err(Error::refused(path, "not a file name; name the file to write"));
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::File(target)),
            Err(e) => return Err(at(path)(e)),
        };
        if metadata.is_file() {
            if metadata.permissions().readonly() {
                return Err(Error::refused(path, "is write-protected; name another file"));
            }
            return Ok(Self::File(target));
        }
        if metadata.is_dir() {
            return Err(Error::refused(path, "is a folder; name the file to write"));
        }
        if is_stream(&metadata) {
            return Ok(Self::Stream(path.to_path_buf()));
        }
        Err(Error::refused(path, "is a disk or a socket, which nothing is written to; name a file"))
    }
}

#[cfg(unix)]
fn is_stream(metadata: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_char_device() || metadata.file_type().is_fifo()
}

#[cfg(not(unix))]
fn is_stream(_: &Metadata) -> bool {
    false
}

/// Opens a stream to write. A pipe without a reader is an error: waiting for one might take for ever.
pub(crate) fn open_stream(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        options.custom_flags(flags.bits() as i32);
        let file = options.open(path).map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::NXIO) => Error::refused(path, "nobody reads from this pipe; start its reader first"),
            _ => at(path)(e),
        })?;
        // A full pipe is waited for, as anywhere else.
        let flags = rustix::fs::fcntl_getfl(&file).map_err(|e| at(path)(e.into()))?;
        rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK)
            .map_err(|e| at(path)(e.into()))?;
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path).map_err(at(path))
}

/// `path` without the links at its end: a link may lead to a file that is still to be made.
fn behind_links(path: &Path) -> Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&target) {
            Ok(metadata) if metadata.is_symlink() => {
                let next = fs::read_link(&target).map_err(at(path))?;
                target = folder_of(&target).join(next);
            }
            _ => return Ok(target),
        }
    }
    Err(Error::refused(path, "its links lead in a circle"))
}

/// The folder that `path` is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What a piece of work reads, so that nothing it writes is put in the place of it.
#[derive(Debug, Default)]
pub struct Inputs {
    /// What it is (`--data`), where it was named, and where that is.
    known: Vec<(String, PathBuf, PathBuf)>,
}

impl Inputs {
    /// No input yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file or a folder, called `name` in errors. A path that does not exist is left out: it is the name of
    /// something else.
    #[must_use]
    pub fn with(mut self, name: &str, path: &Path) -> Self {
        if let Ok(real) = fs::canonicalize(path) {
            self.known.push((name.to_owned(), path.to_path_buf(), real));
        }
        self
    }

    /// Refuses an output that is one of the inputs, or stands in a folder that is one: the same file, whatever links
    /// and relative paths name it.
    ///
    /// # Errors
    /// [`Error::Refused`], as of [`Place::of`] too.
    pub fn refuse(&self, output: &Path) -> Result<()> {
        let Place::File(target) = Place::of(output)? else { return Ok(()) };
        let Ok(metadata) = fs::metadata(&target) else { return Ok(()) };
        let real = fs::canonicalize(&target).map_err(at(output))?;
        for (name, path, input) in &self.known {
            if real == *input || fs::metadata(input).is_ok_and(|input| is_same_file(&metadata, &input)) {
                let what = format!("is the input of {name}, which it would replace; name another file");
                return Err(Error::refused(output, what));
            }
            if input.is_dir() && real.starts_with(input) {
                let what = format!("stands in {}, an input ({name}); name a file elsewhere", path.display());
                return Err(Error::refused(output, what));
            }
        }
        Ok(())
    }

    /// Refuses inputs that lie in one of `folders` of `home`, all of which the work will replace or delete from.
    ///
    /// # Errors
    /// [`Error::Refused`], naming the input.
    pub fn refuse_inside(&self, home: &Path, folders: &[&str]) -> Result<()> {
        let home_by_its_real_name = existing_part(home);
        for (name, path, input) in &self.known {
            for folder in folders {
                if input.starts_with(home_by_its_real_name.join(folder)) {
                    let what = format!(
                        "the input of {name} lies in {}, which is written anew; move it, or write elsewhere",
                        home.join(folder).display()
                    );
                    return Err(Error::refused(path, what));
                }
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn is_same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same_file(_: &Metadata, _: &Metadata) -> bool {
    false
}

/// `path` with the part of it that exists by its real name.
fn existing_part(path: &Path) -> PathBuf {
    let mut real = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut rest: Vec<std::ffi::OsString> = Vec::new();
    loop {
        if let Ok(found) = fs::canonicalize(&real) {
            return rest.iter().rev().fold(found, |path, part| path.join(part));
        }
        match real.components().next_back() {
            Some(Component::Normal(part)) => rest.push(part.to_owned()),
            Some(Component::ParentDir) => rest.push("..".into()),
            _ => return path.to_path_buf(),
        }
        real.pop();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn links_are_followed_to_files_and_to_free_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("link", at("twice")).unwrap();
        symlink(at("new"), at("dangling")).unwrap();
        symlink("circle", at("circle")).unwrap();
        assert_eq!(Place::of(&at("twice")).unwrap(), Place::File(at("file")));
        assert_eq!(Place::of(&at("dangling")).unwrap(), Place::File(at("new")));
        assert_eq!(Place::of(&at("free")).unwrap(), Place::File(at("free")));
        let said = |name: &str| Place::of(&at(name)).unwrap_err().to_string();
        assert!(said("circle").contains("circle"), "{}", said("circle"));
        assert!(said("").contains("folder"), "{}", said(""));
        let mut permissions = fs::metadata(at("file")).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(at("file"), permissions).unwrap();
        assert!(said("twice").contains("write-protected"));
    }

    #[test]
    fn devices_and_pipes_are_streams_and_sockets_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let null = PathBuf::from("/dev/null");
        assert_eq!(Place::of(&null).unwrap(), Place::Stream(null.clone()));
        drop(open_stream(&null).unwrap());
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert!(Place::of(&socket).unwrap_err().to_string().contains("socket"));
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(Place::of(&pipe).unwrap(), Place::Stream(pipe.clone()));
        // Without a reader it is an error at once.
        assert!(open_stream(&pipe).unwrap_err().to_string().contains("nobody reads"));
    }

    #[test]
    fn an_input_is_recognised_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("model")).unwrap();
        fs::write(at("model/config.json"), "{}").unwrap();
        fs::write(at("rows"), "x").unwrap();
        symlink("rows", at("link")).unwrap();
        fs::hard_link(at("rows"), at("hard")).unwrap();
        fs::write(at("other"), "x").unwrap();
        let inputs =
            Inputs::new().with("--data", &at("link")).with("--model", &at("model")).with("x", &at("no"));
        for name in ["rows", "link", "hard", "model/../rows"] {
            let message = inputs.refuse(&at(name)).unwrap_err().to_string();
            assert!(message.contains("the input of --data"), "{message}");
        }
        let message = inputs.refuse(&at("model/config.json")).unwrap_err().to_string();
        assert!(message.contains("an input (--model)"), "{message}");
        for name in ["other", "new", "model/new.jsonl"] {
            inputs.refuse(&at(name)).unwrap();
        }
        symlink(dir.path(), at("home")).unwrap();
        let message = inputs.refuse_inside(&at("home"), &["model"]).unwrap_err().to_string();
        assert!(message.contains("the input of --model lies in"), "{message}");
        inputs.refuse_inside(&at("elsewhere/run"), &["model"]).unwrap();
        inputs.refuse_inside(dir.path(), &["best"]).unwrap();
    }
}
