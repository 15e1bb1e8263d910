//! The one error type of the `rlt` library.

use std::io;
use std::path::{Path, PathBuf};

/// How a row lacks what it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// The column is there, and nothing stands in it.
    Empty,
    /// There is no such column.
    Absent,
}

/// What can go wrong. Each message names the file, row, token or tensor, and the next step where
/// there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call or its configuration was wrong: nothing was started. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A row of a data file cannot be used.
    #[error("{}, row {row}: {what}", path.display())]
    Row {
        /// The data file.
        path: PathBuf,
        /// Row number, from 1.
        row: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A row lacks its question, its solution or its explanation. Work on many rows leaves it out, says so and goes on.
    #[error("{}, row {row}: {what}", path.display())]
    Gap {
        /// The data file.
        path: PathBuf,
        /// Row number, from 1.
        row: usize,
        /// What it lacks.
        what: String,
        /// Whether the row has no column for it: where no row has one, the call names the wrong column.
        lack: Lack,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file's content is not what it should be.
    #[error("{}: {what}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do about it.
        what: String,
    },
    /// The model, its tokenizer or its folder.
    #[error(transparent)]
    Model(#[from] rlt_model::Error),
    /// Another rank of the job, or the way to it.
    #[error(transparent)]
    Ranks(#[from] rlt_ranks::Error),
    /// A GGUF file.
    #[error(transparent)]
    Gguf(#[from] rlt_gguf::Error),
    /// A number that must be finite is not: the work stops before it spreads.
    #[error("{0}")]
    NonFinite(String),
    /// A run stopped because of `source`; what it has left stands after it.
    #[error("{source}; {left}")]
    Stopped {
        /// What went wrong.
        source: Box<Self>,
        /// What is still there, and what to do next.
        left: String,
    },
    /// The work itself failed.
    #[error("{0}")]
    Failed(String),
    /// Stopped by a signal after the state was saved. Exit code 130.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

impl Error {
    /// Of work that did not come to its end because of this error, of which `what` is done and kept.
    pub(crate) fn of_unfinished(self, what: String) -> Self {
        match self {
            Self::Model(rlt_model::Error::Stopped) => Self::Interrupted(what),
            other => Self::Stopped { source: Box::new(other), left: what },
        }
    }
}

impl From<rlt_reward::rlt::NonFinite> for Error {
    fn from(error: rlt_reward::rlt::NonFinite) -> Self {
        Self::NonFinite(error.to_string())
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl From<rlt_files::Error> for Error {
    fn from(error: rlt_files::Error) -> Self {
        match error {
            rlt_files::Error::Io { path, source } => Self::Io { path, source },
            rlt_files::Error::Refused { path, what } => Self::File { path, what },
        }
    }
}

/// `error` of writing rows of which earlier ones are kept (or not), with what to do next.
pub(crate) fn with_rows_kept(error: impl Into<Error>, kept: bool) -> Error {
    let error = error.into();
    if !kept {
        return error;
    }
    let left = "the rows before are kept beside it: once this is fixed, the same command continues".into();
    Error::Stopped { source: Box::new(error), left }
}

/// For `map_err`: an I/O error with the file it belongs to.
pub fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}
