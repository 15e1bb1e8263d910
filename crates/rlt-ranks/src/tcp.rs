//! Ranks that are connected by TCP, every one with every other.
//!
//! Beside the connections that carry collectives, each rank keeps one to rank 0 on which nothing is said but farewells: who
//! dies closes it, whatever the others are doing, and rank 0 tells the rest.

mod rendezvous;
mod watch;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::settings::{OnLoss, Settings};
use crate::transport::{AHEAD, Call, Inflow, Patience, Transport};
use watch::Watch;

/// Joins the job whose rank 0 is at `address`.
///
/// # Errors
/// [`Error::Launch`] where the ranks do not find each other in time.
pub(crate) fn join(
    rank: usize,
    size: usize,
    address: &str,
    settings: Settings,
    on_loss: &OnLoss,
) -> Result<Tcp> {
    let met = rendezvous::meet(rank, size, address, settings.rendezvous)?;
    let broken = |error: std::io::Error| Error::Launch(format!("a connection cannot be set up: {error}"));
    for peer in met.peers.iter().flatten() {
        peer.set_nonblocking(true).and_then(|()| peer.set_nodelay(true)).map_err(broken)?;
    }
    let watch = Watch::start(rank, met.farewells, &met.hosts, on_loss).map_err(broken)?;
    Ok(Tcp { rank, hosts: met.hosts, peers: Mutex::new(met.peers), watch, deadline: settings.deadline })
}

/// A rank with a connection to every other.
#[derive(Debug)]
pub(crate) struct Tcp {
    rank: usize,
    /// What the machine of every rank calls itself.
    hosts: Vec<String>,
    /// By rank; none at its own place.
    peers: Mutex<Vec<Option<TcpStream>>>,
    watch: Watch,
    deadline: Duration,
}

impl Tcp {
    fn lost(&self, rank: usize, what: impl Into<String>) -> Error {
        Error::Lost { rank, host: self.hosts[rank].clone(), what: what.into() }
    }

    fn peer<'p>(&self, peers: &'p [Option<TcpStream>], rank: usize) -> Result<&'p TcpStream> {
        peers[rank].as_ref().ok_or_else(|| self.lost(rank, "there is no connection to it"))
    }

    /// Sends some of `bytes`, which are not empty; how many, or none where there is no room for them now.
    fn write(&self, peers: &[Option<TcpStream>], to: usize, bytes: &[u8]) -> Result<Option<usize>> {
        self.moved(to, self.peer(peers, to)?.write(bytes))
    }

    /// Reads what has come into `buffer`, which is not empty; how many bytes, or none where nothing has.
    fn read(&self, peers: &[Option<TcpStream>], from: usize, buffer: &mut [u8]) -> Result<Option<usize>> {
        self.moved(from, self.peer(peers, from)?.read(buffer))
    }

    fn moved(&self, rank: usize, done: std::io::Result<usize>) -> Result<Option<usize>> {
        match done {
            Ok(0) => Err(self.lost(rank, "its connection closed")),
            Ok(n) => Ok(Some(n)),
            Err(error) if waits(&error) => Ok(None),
            Err(error) => Err(self.lost(rank, closed(&error))),
        }
    }
}

impl Transport for Tcp {
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
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sent = vec![0; outgoing.len()];
        let mut read = vec![0; incoming.len()];
        let mut patience = Patience::new(self.deadline);
        loop {
            let (mut moved, mut waits_for) = (false, None);
            for ((to, bytes), sent) in outgoing.iter().zip(&mut sent) {
                while *sent < bytes.len() {
                    let Some(n) = self.write(&peers, *to, &bytes[*sent..])? else {
                        waits_for = Some(*to);
                        break;
                    };
                    (*sent, moved) = (*sent + n, true);
                }
            }
            for ((from, buffer), read) in incoming.iter_mut().zip(&mut read) {
                while *read < buffer.len() {
                    let Some(n) = self.read(&peers, *from, &mut buffer[*read..])? else {
                        waits_for = Some(*from);
                        break;
                    };
                    (*read, moved) = (*read + n, true);
                }
            }
            let Some(rank) = waits_for else { return Ok(()) };
            if moved {
                patience.moved();
            } else {
                let unsent = outgoing.iter().zip(&sent).filter(|((_, bytes), sent)| **sent < bytes.len());
                let unread = incoming.iter().zip(&read).filter(|((_, buffer), read)| **read < buffer.len());
                let (unsent, unread) = (unsent.map(|((to, _), _)| *to), unread.map(|((from, _), _)| *from));
                let sleep = || until_bytes_can_move(&peers, unsent, unread);
                patience.wait_by(call, || (rank, self.host(rank)), sleep)?;
            }
        }
    }

    fn stream(&self, call: &Call, outgoing: &[(usize, &[f32])], inflow: &mut Inflow) -> Result<()> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sends: Vec<(usize, &[u8])> =
            outgoing.iter().map(|(to, part)| (*to, bytemuck::cast_slice(part))).collect();
        // Bytes that each has sent.
        let mut read = vec![0; inflow.from.len()];
        let (pieces, mut taken) = (inflow.pieces(), 0);
        let mut patience = Patience::new(self.deadline);
        loop {
            let mut moved = false;
            for (to, left) in &mut sends {
                while !left.is_empty() {
                    let Some(n) = self.write(&peers, *to, left)? else { break };
                    (*left, moved) = (&left[n..], true);
                }
            }
            for (sender, read) in read.iter_mut().enumerate() {
                let free = (4 * inflow.piece * (taken + AHEAD)).min(4 * inflow.len);
                while *read < free {
                    // The piece that its next byte belongs to.
                    let piece = *read / (4 * inflow.piece);
                    let place = inflow.place(piece, sender);
                    let room = bytemuck::cast_slice_mut(&mut inflow.room[place]);
                    let left = &mut room[*read - 4 * piece * inflow.piece..];
                    let Some(n) = self.read(&peers, inflow.from[sender], left)? else { break };
                    (*read, moved) = (*read + n, true);
                }
            }
            while taken < pieces && read.iter().all(|read| *read >= 4 * inflow.range(taken).end) {
                inflow.take_from_room(taken);
                (taken, moved) = (taken + 1, true);
            }
            let unsent = sends.iter().filter(|(_, left)| !left.is_empty()).map(|(to, _)| *to);
            let wanted = 4 * inflow.range(taken.min(pieces)).end;
            let unread = inflow.from.iter().zip(&read).filter(|(_, read)| taken < pieces && **read < wanted);
            let unread = unread.map(|(from, _)| *from);
            let Some(rank) = unread.clone().chain(unsent.clone()).next() else { return Ok(()) };
            if moved {
                patience.moved();
            } else {
                let sleep = || until_bytes_can_move(&peers, unsent, unread);
                patience.wait_by(call, || (rank, self.host(rank)), sleep)?;
            }
        }
    }

    fn abort(&self, why: &str) {
        self.watch.say_failed(self.rank, why);
    }

    fn last_word(&self) {
        self.watch.last_word();
    }

    fn leave(&self) {
        self.watch.say_done();
    }
}

/// Sleeps until one of these connections has bytes or room for some, a little while at most.
fn until_bytes_can_move(
    peers: &[Option<TcpStream>],
    unsent: impl Iterator<Item = usize>,
    unread: impl Iterator<Item = usize>,
) {
    #[cfg(unix)]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let longest = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let of = |rank: usize, what| peers[rank].as_ref().map(|peer| PollFd::new(peer, what));
        let unsent = unsent.filter_map(|rank| of(rank, PollFlags::OUT));
        let unread = unread.filter_map(|rank| of(rank, PollFlags::IN));
        let mut all: Vec<PollFd> = unsent.chain(unread).collect();
        // Woken too early, it looks once more.
        let _ = poll(&mut all, Some(&longest));
    }
    #[cfg(not(unix))]
    {
        let _ = (peers, unsent.count(), unread.count());
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// A broken connection in few words.
fn closed(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            "its connection closed".into()
        }
        _ => format!("its connection broke ({error})"),
    }
}
