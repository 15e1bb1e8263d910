//! What carries bytes between ranks.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Moves bytes between the ranks of a job, and knows nothing of what they mean.
pub(crate) trait Transport: Send + Sync + Debug {
    /// This process's place among all.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// The machine of a rank, as it calls itself.
    fn host(&self, rank: usize) -> String;

    /// Sends every `outgoing` to its rank and fills every `incoming` from its rank, all at the same time, so that nobody
    /// waits for somebody who waits for him. Both sides know the lengths. Bytes between two ranks arrive in the order in
    /// which they were sent.
    ///
    /// # Errors
    /// [`Error::Lost`], [`Error::Failed`] or [`Error::Late`] naming a rank that lets `call` wait.
    fn exchange(
        &self,
        call: &Call,
        outgoing: &[(usize, &[u8])],
        incoming: &mut [(usize, &mut [u8])],
    ) -> Result<()>;

    /// Tells the others that this rank cannot go on. Where the transport can, it ends their processes.
    fn abort(&self, why: &str);

    /// This rank has done its work and leaves in good order.
    fn leave(&self);
}

/// Which collective waits, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub kind: Kind,
    /// How many collectives came before it.
    pub number: u64,
}

/// The collectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Kind {
    Barrier = 1,
    Broadcast,
    AllGather,
    Gather,
    AllToAll,
    ReduceShards,
    GatherShards,
}

impl Kind {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Barrier, "barrier"),
        (Self::Broadcast, "broadcast"),
        (Self::AllGather, "all-gather"),
        (Self::Gather, "gather"),
        (Self::AllToAll, "all-to-all"),
        (Self::ReduceShards, "reduction"),
        (Self::GatherShards, "gathering of shards"),
    ];

    /// What another rank's number for it means.
    pub fn of(number: u64) -> Option<Self> {
        Self::ALL.into_iter().map(|(kind, _)| kind).find(|kind| *kind as u64 == number)
    }

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or("?", |(_, name)| name)
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.number)
    }
}

/// Waits between two looks at whether bytes can move: briefly at first, since most waiting is short, then longer, since the
/// others may need this processor for what is waited for.
#[derive(Debug)]
pub(crate) struct Patience {
    deadline: Duration,
    since: Instant,
    idle_looks: u32,
}

impl Patience {
    /// Gives up `deadline` after bytes moved last.
    pub fn new(deadline: Duration) -> Self {
        Self { deadline, since: Instant::now(), idle_looks: 0 }
    }

    /// Bytes have moved.
    pub fn moved(&mut self) {
        self.idle_looks = 0;
        self.since = Instant::now();
    }

    /// Nothing has moved: waits a little for the rank that `waits_for` names.
    ///
    /// # Errors
    /// [`Error::Late`] once the deadline has passed.
    pub fn wait(&mut self, call: &Call, waits_for: impl FnOnce() -> (usize, String)) -> Result<()> {
        self.idle_looks += 1;
        if self.idle_looks < 50 {
            std::thread::yield_now();
            return Ok(());
        }
        if self.since.elapsed() > self.deadline {
            let (rank, host) = waits_for();
            return Err(late(rank, host, self.deadline, call));
        }
        let micros = if self.idle_looks < 500 { 50 } else { 1000 };
        std::thread::sleep(Duration::from_micros(micros));
        Ok(())
    }
}

pub(crate) fn late(rank: usize, host: String, deadline: Duration, call: &Call) -> Error {
    Error::Late { rank, host, seconds: deadline.as_secs(), call: call.to_string() }
}

/// What this machine calls itself.
pub(crate) fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_else(|_| "this machine".into());
    name
}
