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
use crate::transport::{Call, Patience, Transport};
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
        let stream =
            |rank: usize| peers[rank].as_ref().ok_or_else(|| self.lost(rank, "there is no connection to it"));
        let mut sent = vec![0; outgoing.len()];
        let mut read = vec![0; incoming.len()];
        let mut patience = Patience::new(self.deadline);
        loop {
            let (mut moved, mut waits_for) = (false, None);
            for ((to, bytes), sent) in outgoing.iter().zip(&mut sent) {
                while *sent < bytes.len() {
                    match stream(*to)?.write(&bytes[*sent..]) {
                        Ok(0) => return Err(self.lost(*to, "its connection closed")),
                        Ok(n) => (*sent, moved) = (*sent + n, true),
                        Err(error) if waits(&error) => {
                            waits_for = Some(*to);
                            break;
                        }
                        Err(error) => return Err(self.lost(*to, closed(&error))),
                    }
                }
            }
            for ((from, buffer), read) in incoming.iter_mut().zip(&mut read) {
                while *read < buffer.len() {
                    match stream(*from)?.read(&mut buffer[*read..]) {
                        Ok(0) => return Err(self.lost(*from, "its connection closed")),
                        Ok(n) => (*read, moved) = (*read + n, true),
                        Err(error) if waits(&error) => {
                            waits_for = Some(*from);
                            break;
                        }
                        Err(error) => return Err(self.lost(*from, closed(&error))),
                    }
                }
            }
            let Some(rank) = waits_for else { return Ok(()) };
            if moved {
                patience.moved();
            } else {
                patience.wait(call, || (rank, self.host(rank)))?;
            }
        }
    }

    fn abort(&self, why: &str) {
        self.watch.say_failed(self.rank, why);
    }

    fn leave(&self) {
        self.watch.say_done();
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
