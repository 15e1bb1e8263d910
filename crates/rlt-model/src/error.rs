//! The one error type of this crate.

use std::path::PathBuf;

/// What can go wrong with a model folder, its tokenizer or its use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of a model folder is missing, damaged or says something that is not supported.
    #[error("{}: {what}", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and, where there is one, the next step.
        what: String,
    },
    /// A chat template could not be parsed or rendered, or raised an exception of its own.
    #[error("chat template: {0}")]
    Template(String),
    /// Text could not be encoded or ids could not be decoded.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The call asked for something the model cannot do (a prompt longer than the context, ...).
    #[error("{0}")]
    Invalid(String),
    /// The work was asked to end ([`crate::Stop`]); what it had done is dropped.
    #[error("stopped before it was done")]
    Stopped,
}

impl From<rlt_files::Error> for Error {
    fn from(error: rlt_files::Error) -> Self {
        match error {
            rlt_files::Error::Io { path, source } => Self::Io { path, source },
            rlt_files::Error::Refused { path, what } => Self::ModelFile { path, what },
        }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
