//! The one error type of this crate.

/// What can go wrong among ranks. Each message is one line that names the rank, and its host where it is known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A rank's process ended, or its machine cannot be reached any more.
    #[error("rank {rank} on {host} is gone: {what}")]
    Lost {
        /// Which.
        rank: usize,
        /// Its machine.
        host: String,
        /// How it showed.
        what: String,
    },
    /// A rank said that it cannot go on. It has told the user why itself.
    #[error("rank {rank} on {host} failed: {why}")]
    Failed {
        /// Which.
        rank: usize,
        /// Its machine.
        host: String,
        /// In its own words.
        why: String,
    },
    /// A rank did not come to a collective in time.
    #[error(
        "rank {rank} on {host} did not answer for {seconds} s ({call}); RLT_RANKS_DEADLINE sets how long ranks wait for \
         each other, in seconds"
    )]
    Late {
        /// Which.
        rank: usize,
        /// Its machine.
        host: String,
        /// How long it was waited for.
        seconds: u64,
        /// Which collective waited.
        call: String,
    },
    /// A rank is at another collective: the processes do not do the same work.
    #[error("rank {rank} on {host} is at {theirs}, this one at {ours}: do all ranks run the same program?")]
    Elsewhere {
        /// Which.
        rank: usize,
        /// Its machine.
        host: String,
        /// Where it is.
        theirs: String,
        /// Where this rank is.
        ours: String,
    },
    /// The job cannot be put together.
    #[error("{0}")]
    Launch(String),
    /// The library that carries the bytes refuses.
    #[error("{0}")]
    Transport(String),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The rank that is to blame, where one is known.
    pub fn rank(&self) -> Option<usize> {
        match self {
            Self::Lost { rank, .. }
            | Self::Failed { rank, .. }
            | Self::Late { rank, .. }
            | Self::Elsewhere { rank, .. } => Some(*rank),
            Self::Launch(_) | Self::Transport(_) => None,
        }
    }
}
