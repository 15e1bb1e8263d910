//! What carries bytes between ranks.

use std::fmt::Debug;
use std::ops::Range;
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

    /// Sends every `outgoing` to its rank while what others send is taken in piece by piece; see [`Inflow`]. All ranks cut what
    /// they send into pieces of the same length.
    ///
    /// # Errors
    /// As [`Self::exchange`].
    fn stream(&self, call: &Call, outgoing: &[(usize, &[f32])], inflow: &mut Inflow) -> Result<()>;

    /// Tells the others that this rank cannot go on. Where the transport can, it ends their processes.
    fn abort(&self, why: &str);

    /// As [`Self::abort`] for a process that has told the user why and ends now, whatever its threads hold: without memory of
    /// its own, and without waiting for a lock. Where a launcher notices the end of a process, there is nothing to say.
    fn last_word(&self) {}

    /// This rank has done its work and leaves in good order.
    fn leave(&self);
}

/// How many pieces are on their way between two ranks: one is used up while the next come.
pub(crate) const AHEAD: usize = 2;

/// As many numbers from each of several ranks, which are used up a piece of all of them at a time: so no rank needs room for
/// whole arrays of others, and what has come is still in the processor's cache when it is used.
pub(crate) struct Inflow<'a> {
    /// Who sends.
    pub from: &'a [usize],
    /// Numbers from each.
    pub len: usize,
    /// Numbers of a piece; the last may be shorter.
    pub piece: usize,
    /// Room for [`AHEAD`] pieces of each.
    pub room: &'a mut [f32],
    /// Is called for one piece after another with its range, and with what each rank sent of it, in the order of `from`.
    pub take: Take<'a>,
}

/// Uses up a range of what every sender sent.
pub(crate) type Take<'a> = &'a mut dyn FnMut(Range<usize>, &[&[f32]]);

impl Inflow<'_> {
    /// Pieces from each rank; none where nobody sends.
    pub fn pieces(&self) -> usize {
        if self.from.is_empty() { 0 } else { self.len.div_ceil(self.piece) }
    }

    /// The numbers of a piece.
    pub fn range(&self, piece: usize) -> Range<usize> {
        let start = piece * self.piece;
        start..(start + self.piece).min(self.len)
    }

    /// Where in the room a piece of the sender at place `sender` lies.
    pub fn place(&self, piece: usize, sender: usize) -> Range<usize> {
        let start = (sender * AHEAD + piece % AHEAD) * self.piece;
        start..start + self.range(piece).len()
    }

    /// Uses up a piece that lies in the room whole.
    pub fn take_from_room(&mut self, piece: usize) {
        let (range, place) = (self.range(piece), |sender| self.place(piece, sender));
        let parts: Vec<&[f32]> = (0..self.from.len()).map(|sender| &self.room[place(sender)]).collect();
        (self.take)(range, &parts);
    }
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
    Meeting,
    Lending,
    HandingIn,
}

impl Kind {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Barrier, "barrier"),
        (Self::Broadcast, "broadcast"),
        (Self::AllGather, "all-gather"),
        (Self::Gather, "gather"),
        (Self::AllToAll, "all-to-all"),
        (Self::ReduceShards, "reduction"),
        (Self::GatherShards, "gathering of shards"),
        (Self::Meeting, "meeting"),
        (Self::Lending, "lending"),
        (Self::HandingIn, "handing in"),
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

/// How long a rank only lets others have its turn: waking up from a sleep takes as long.
const BRIEFLY: Duration = Duration::from_micros(200);

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
        let micros = if self.idle_looks < 500 { 50 } else { 1000 };
        self.wait_by(call, waits_for, || std::thread::sleep(Duration::from_micros(micros)))
    }

    /// As [`Self::wait`], where `sleep` knows when bytes can move.
    ///
    /// # Errors
    /// As there.
    pub fn wait_by(
        &mut self,
        call: &Call,
        waits_for: impl FnOnce() -> (usize, String),
        sleep: impl FnOnce(),
    ) -> Result<()> {
        let waited = self.since.elapsed();
        if waited < BRIEFLY {
            std::thread::yield_now();
            return Ok(());
        }
        if waited > self.deadline {
            let (rank, host) = waits_for();
            return Err(late(rank, host, self.deadline, call));
        }
        self.idle_looks += 1;
        sleep();
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
