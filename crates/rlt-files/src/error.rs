//! The one error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with a file. Each message is one line that names it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder, as the caller named it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The place is taken, is not what it must be, or belongs to somebody else. Nothing was touched.
    #[error("{}: {what}", path.display())]
    Refused {
        /// The file or folder, as the caller named it.
        path: PathBuf,
        /// Why, and what to do about it.
        what: String,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn refused(path: &Path, what: impl Into<String>) -> Self {
        Self::Refused { path: path.to_path_buf(), what: what.into() }
    }
}

/// For `map_err`: an I/O error with the file it belongs to.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}
