//! Ranks that an MPI launcher started: point-to-point messages of whatever MPI library is installed, loaded while the
//! program runs.
//!
//! Only sending, receiving and asking whether that is done are used, not MPI's own collectives: its sums have an order of
//! their own choice, and its waiting has no deadline.

mod abi;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::settings::{OnLoss, Settings};
use crate::transport::{AHEAD, Call, Inflow, Kind, Patience, Transport, host_name};
use abi::{Library, Request};

pub(crate) use abi::library_names;

/// Most bytes of one message: MPI counts in `int`.
const LONGEST_PIECE: usize = 1 << 30;

/// Joins the job that an MPI launcher started.
///
/// # Errors
/// [`Error::Launch`] where no library can be loaded, or it refuses.
pub(crate) fn join(names: &[String], settings: Settings, on_loss: &OnLoss) -> Result<Mpi> {
    let library = Library::open(names)?;
    library.init()?;
    let (rank, size) = (library.rank()?, library.size()?);
    let hosts = vec![String::new(); size];
    let (deadline, on_loss) = (settings.deadline, OnLoss::clone(on_loss));
    let mut mpi = Mpi { rank, hosts, library, turn: Mutex::new(()), deadline, on_loss };
    mpi.learn_hosts()?;
    Ok(mpi)
}

/// A rank of `MPI_COMM_WORLD`.
pub(crate) struct Mpi {
    rank: usize,
    hosts: Vec<String>,
    library: Library,
    /// One thread at a time speaks to the library.
    turn: Mutex<()>,
    deadline: Duration,
    on_loss: OnLoss,
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { rank, hosts, library, deadline, .. } = self;
        f.debug_struct("Mpi")
            .field("rank", rank)
            .field("hosts", hosts)
            .field("library", library)
            .field("deadline", deadline)
            .finish()
    }
}

/// Bytes of a machine's name that the ranks tell each other.
const HOST_BYTES: usize = 64;

impl Mpi {
    fn learn_hosts(&mut self) -> Result<()> {
        let mut own = [0; HOST_BYTES];
        let name = host_name();
        let length = name.len().min(HOST_BYTES);
        own[..length].copy_from_slice(&name.as_bytes()[..length]);
        let mut theirs = vec![own; self.hosts.len()];
        let others = (0..self.hosts.len()).filter(|other| *other != self.rank);
        let outgoing: Vec<(usize, &[u8])> = others.map(|to| (to, &own[..])).collect();
        let incoming = theirs.iter_mut().enumerate().filter(|(from, _)| *from != self.rank);
        let mut incoming: Vec<(usize, &mut [u8])> =
            incoming.map(|(from, name)| (from, &mut name[..])).collect();
        let call = Call { kind: Kind::AllGather, number: 0 };
        self.exchange(&call, &outgoing, &mut incoming)?;
        let text = |name: &[u8; HOST_BYTES]| {
            String::from_utf8_lossy(name).trim_end_matches('\0').chars().filter(|c| !c.is_control()).collect()
        };
        self.hosts = theirs.iter().map(text).collect();
        Ok(())
    }
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hosts.len()
    }

    fn host(&self, rank: usize) -> String {
        self.hosts[rank].clone()
    }

    fn exchange(
        &self,
        call: &Call,
        outgoing: &[(usize, &[u8])],
        incoming: &mut [(usize, &mut [u8])],
    ) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut requests: Vec<(usize, Request)> = Vec::new();
        // Receives first: a message that is expected need not be kept on its way.
        for (from, buffer) in incoming.iter_mut() {
            for piece in buffer.chunks_mut(LONGEST_PIECE) {
                // SAFETY: the buffer is borrowed until this function ends, and it ends only when the library is done with
                // every request, or with the process (`give_up`).
                requests.push((*from, unsafe { self.library.receive(*from, piece) }));
            }
        }
        for (to, bytes) in outgoing {
            for piece in bytes.chunks(LONGEST_PIECE) {
                // SAFETY: as above.
                requests.push((*to, unsafe { self.library.send(*to, piece) }));
            }
        }
        let mut patience = Patience::new(self.deadline);
        while let Some(&(rank, _)) = requests.last() {
            let before = requests.len();
            // Every look lets the library work on all of them: one that is not done is enough.
            while requests.last_mut().is_some_and(|(_, request)| self.library.is_done(request)) {
                requests.pop();
            }
            if requests.len() < before {
                patience.moved();
            } else if let Err(error) = patience.wait(call, || (rank, self.host(rank))) {
                self.give_up(&error);
            }
        }
        Ok(())
    }

    fn stream(&self, call: &Call, outgoing: &[(usize, &[f32])], inflow: &mut Inflow) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut under_way = UnderWay::default();
        let mut sends: Vec<_> = outgoing.iter().map(|(to, part)| (*to, part.chunks(inflow.piece))).collect();
        under_way.sends.resize_with(sends.len(), VecDeque::new);
        let (pieces, senders) = (inflow.pieces(), inflow.from.len());
        let (mut expected, mut taken) = (0, 0);
        let mut patience = Patience::new(self.deadline);
        loop {
            let mut moved = false;
            while expected < pieces.min(taken + AHEAD) {
                let receives = (0..senders).map(|sender| {
                    let place = inflow.place(expected, sender);
                    // SAFETY: this place of the room is looked at again when the request is done, and the room is borrowed
                    // until all are (`UnderWay`).
                    let request = unsafe {
                        self.library
                            .receive(inflow.from[sender], bytemuck::cast_slice_mut(&mut inflow.room[place]))
                    };
                    (inflow.from[sender], request)
                });
                let receives = receives.collect();
                under_way.receives.push_back(receives);
                expected += 1;
            }
            for ((to, pieces), requests) in sends.iter_mut().zip(&mut under_way.sends) {
                while requests.front_mut().is_some_and(|request| self.library.is_done(request)) {
                    requests.pop_front();
                    moved = true;
                }
                while requests.len() < AHEAD
                    && let Some(piece) = pieces.next()
                {
                    // SAFETY: what is sent is borrowed until all requests are done (`UnderWay`).
                    requests.push_back(unsafe { self.library.send(*to, bytemuck::cast_slice(piece)) });
                }
            }
            if let Some(receives) = under_way.receives.front_mut() {
                let before = receives.len();
                receives.retain_mut(|(_, request)| !self.library.is_done(request));
                moved |= receives.len() < before;
                if receives.is_empty() {
                    under_way.receives.pop_front();
                    inflow.take_from_room(taken);
                    taken += 1;
                }
            }
            let Some(rank) = under_way.waits_for(&sends) else { return Ok(()) };
            if moved {
                patience.moved();
            } else if let Err(error) = patience.wait(call, || (rank, self.host(rank))) {
                self.give_up(&error);
            }
        }
    }

    fn abort(&self, _why: &str) {
        self.library.abort();
    }

    fn leave(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.library.finalize();
    }
}

/// Messages whose memory the library still has its hands on, each list in the order of its messages.
#[derive(Default)]
struct UnderWay {
    /// One list a rank that is sent to.
    sends: Vec<VecDeque<Request>>,
    /// One list a piece, with who sends it.
    receives: VecDeque<Vec<(usize, Request)>>,
}

impl UnderWay {
    /// A rank that is waited for; none where all is done.
    fn waits_for<T>(&self, sends: &[(usize, T)]) -> Option<usize> {
        let sender = self.receives.front().and_then(|piece| piece.first()).map(|(from, _)| *from);
        let receiver = || sends.iter().zip(&self.sends).find(|(_, requests)| !requests.is_empty());
        sender.or_else(|| receiver().map(|((to, _), _)| *to))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // A panic between two messages must not free what the library writes to.
        if self.waits_for::<()>(&vec![(0, ()); self.sends.len()]).is_some() {
            std::process::abort();
        }
    }
}

impl Mpi {
    /// Ends the job while the library still has its hands on borrowed memory.
    fn give_up(&self, error: &Error) -> ! {
        (self.on_loss)(error);
        self.library.abort();
        // Not reached in any library that keeps MPI's promise.
        std::process::abort()
    }
}
