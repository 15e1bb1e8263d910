//! How long ranks wait for each other, and who hears that one is gone.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// How long ranks wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Without a byte from a rank that is waited for, the job ends after this time. It must be longer than the ranks'
    /// work between two collectives may differ.
    pub deadline: Duration,
    /// How long the ranks may take to find each other at the start.
    pub rendezvous: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(1800), rendezvous: Duration::from_secs(120) }
    }
}

/// Hears that another rank failed, was lost or is late, on any thread and at any time: it tells the user and ends the
/// process, since the job cannot go on.
pub type OnLoss = Arc<dyn Fn(&Error) + Send + Sync>;
