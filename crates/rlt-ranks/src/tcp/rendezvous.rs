//! How ranks find each other: all come to rank 0, which tells them where the others are.
//!
//! Whoever connects says who he is before anything else, in a message of bounded size; what does not begin with our word is
//! dropped. There is no password: the ranks' network must be one where nobody else can connect.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::transport::host_name;

/// The first bytes of a connection between ranks, with the version of what follows.
const WORD: [u8; 8] = *b"rltrank1";

/// Longest name of a machine, bytes.
const LONGEST_HOST: usize = 255;

/// How long somebody who has connected may take to say who he is.
const GREETING: Duration = Duration::from_secs(5);

/// Everybody is here.
pub(super) struct Met {
    /// What each machine calls itself.
    pub hosts: Vec<String>,
    /// The connections that carry collectives, by rank; none at the own place.
    pub peers: Vec<Option<TcpStream>>,
    /// On rank 0 the farewell connections of all others, by rank; elsewhere the one to rank 0 at place 0.
    pub farewells: Vec<Option<TcpStream>>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Purpose {
    Collectives = 1,
    Farewells = 2,
}

/// What whoever connects says first.
#[derive(Debug)]
struct Greeting {
    purpose: Purpose,
    rank: usize,
    size: usize,
    /// Where this rank listens for those that come to it.
    port: u16,
    host: String,
}

impl Greeting {
    fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let host = &self.host.as_bytes()[..self.host.len().min(LONGEST_HOST)];
        let mut bytes = WORD.to_vec();
        bytes.push(self.purpose as u8);
        bytes.extend((self.rank as u32).to_le_bytes());
        bytes.extend((self.size as u32).to_le_bytes());
        bytes.extend(self.port.to_le_bytes());
        bytes.push(host.len() as u8);
        bytes.extend(host);
        stream.write_all(&bytes)
    }

    /// None where this is not a rank that speaks to us.
    fn read(stream: &mut TcpStream) -> Option<Self> {
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(GREETING)).ok()?;
        let mut head = [0; 20];
        stream.read_exact(&mut head).ok()?;
        let (word, rest) = head.split_at(8);
        if word != WORD {
            return None;
        }
        let number =
            |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]) as usize;
        let purpose = match rest[0] {
            1 => Purpose::Collectives,
            2 => Purpose::Farewells,
            _ => return None,
        };
        let mut host = vec![0; rest[11].into()];
        stream.read_exact(&mut host).ok()?;
        stream.set_read_timeout(None).ok()?;
        let host = String::from_utf8_lossy(&host).chars().filter(|c| !c.is_control()).collect();
        let port = u16::from_le_bytes([rest[9], rest[10]]);
        Some(Self { purpose, rank: number(1), size: number(5), port, host })
    }
}

/// Waits until all ranks are connected with each other.
///
/// # Errors
/// [`Error::Launch`] naming who did not come in time, or what cannot be listened at.
pub(super) fn meet(rank: usize, size: usize, address: &str, patience: Duration) -> Result<Met> {
    let until = Instant::now() + patience;
    let resolved = resolve(address)?;
    if rank == 0 { as_first(size, address, resolved, until) } else { as_other(rank, size, address, until) }
}

fn resolve(address: &str) -> Result<SocketAddr> {
    let wrong = |why: String| Error::Launch(format!("MASTER_ADDR:MASTER_PORT is {address:?}: {why}"));
    let mut found = address.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("it has no address".into()))
}

/// Rank 0: everybody comes here.
fn as_first(size: usize, address: &str, resolved: SocketAddr, until: Instant) -> Result<Met> {
    // The name may be that of a service in front of this machine, so only the loopback is taken at its word.
    let any = match resolved.ip() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let listener = TcpListener::bind((any, resolved.port()))
        .map_err(|error| Error::Launch(format!("rank 0 cannot listen at {address}: {error}")))?;
    let mut met = Met { hosts: vec![String::new(); size], peers: none(size), farewells: none(size) };
    met.hosts[0] = host_name();
    let mut places: Vec<Option<SocketAddr>> = vec![None; size];
    while met.peers[1..].iter().chain(&met.farewells[1..]).any(Option::is_none) {
        let missing = || {
            let missing = met.peers.iter().zip(&met.farewells).enumerate().skip(1);
            let missing =
                missing.filter(|(_, (a, b))| a.is_none() || b.is_none()).map(|(rank, _)| rank.to_string());
            format!(
                "of {size} ranks these did not come to {address}: {}",
                missing.collect::<Vec<_>>().join(", ")
            )
        };
        let (stream, greeting) = accept(&listener, until, missing)?;
        check(&greeting, 0, size)?;
        let ip = stream.peer_addr().map_err(|error| broken(greeting.rank, &error))?.ip();
        places[greeting.rank] = Some(SocketAddr::new(ip, greeting.port));
        met.hosts[greeting.rank] = greeting.host;
        let place = match greeting.purpose {
            Purpose::Collectives => &mut met.peers[greeting.rank],
            Purpose::Farewells => &mut met.farewells[greeting.rank],
        };
        if place.replace(stream).is_some() {
            let what = format!("two processes say that they are rank {} of {size}", greeting.rank);
            return Err(Error::Launch(what));
        }
    }
    // Where everybody is, a line a rank.
    let line = |(place, host): (&Option<SocketAddr>, &String)| {
        format!("{} {host}\n", place.map_or_else(|| "-".into(), |place| place.to_string()))
    };
    let table: String = places.iter().zip(&met.hosts).map(line).collect();
    for (rank, peer) in met.peers.iter_mut().enumerate() {
        if let Some(peer) = peer {
            let sent = peer.write_all(&(table.len() as u32).to_le_bytes());
            sent.and_then(|()| peer.write_all(table.as_bytes())).map_err(|error| broken(rank, &error))?;
        }
    }
    Ok(met)
}

/// Every other rank: comes to rank 0, then to those before it, then waits for those after it.
fn as_other(rank: usize, size: usize, address: &str, until: Instant) -> Result<Met> {
    let mut first = reach_first(rank, address, until)?;
    let own = first.local_addr().map_err(|error| broken(0, &error))?.ip();
    let listener = TcpListener::bind((own, 0))
        .map_err(|error| Error::Launch(format!("rank {rank} cannot listen at {own}: {error}")))?;
    let port = listener.local_addr().map_err(|error| broken(rank, &error))?.port();
    let greeting = |purpose| Greeting { purpose, rank, size, port, host: host_name() };
    let mut met = Met { hosts: Vec::new(), peers: none(size), farewells: none(size) };
    greeting(Purpose::Collectives).write(&mut first).map_err(|error| broken(0, &error))?;
    let mut farewell = reach_first(rank, address, until)?;
    greeting(Purpose::Farewells).write(&mut farewell).map_err(|error| broken(0, &error))?;
    met.farewells[0] = Some(farewell);
    let table = read_table(&mut first, size, until)?;
    met.peers[0] = Some(first);
    met.hosts = table.iter().map(|(_, host)| host.clone()).collect();
    for (other, (place, _)) in table.iter().enumerate().take(rank).skip(1) {
        let place =
            place.ok_or_else(|| Error::Launch(format!("rank 0 does not know where rank {other} is")))?;
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut stream = TcpStream::connect_timeout(&place, left).map_err(|error| broken(other, &error))?;
        greeting(Purpose::Collectives).write(&mut stream).map_err(|error| broken(other, &error))?;
        met.peers[other] = Some(stream);
    }
    while met.peers[rank + 1..].iter().any(Option::is_none) {
        let (stream, greeting) =
            accept(&listener, until, || format!("not all ranks after {rank} came to it on {own}"))?;
        check(&greeting, rank, size)?;
        met.peers[greeting.rank] = Some(stream);
    }
    Ok(met)
}

fn none(size: usize) -> Vec<Option<TcpStream>> {
    (0..size).map(|_| None).collect()
}

fn broken(rank: usize, error: &std::io::Error) -> Error {
    Error::Launch(format!("the connection with rank {rank} broke while the ranks met: {error}"))
}

fn check(greeting: &Greeting, own: usize, size: usize) -> Result<()> {
    if greeting.size != size || greeting.rank >= size || greeting.rank <= own {
        let what = format!(
            "a process on {} says that it is rank {} of {}, and this is rank {own} of {size}: is another job at this address?",
            greeting.host, greeting.rank, greeting.size
        );
        return Err(Error::Launch(what));
    }
    Ok(())
}

/// The next rank that connects; whoever is none is dropped.
fn accept(
    listener: &TcpListener,
    until: Instant,
    missing: impl Fn() -> String,
) -> Result<(TcpStream, Greeting)> {
    let refused = |error: std::io::Error| Error::Launch(format!("no rank can be waited for: {error}"));
    listener.set_nonblocking(true).map_err(refused)?;
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                if let Some(greeting) = Greeting::read(&mut stream) {
                    return Ok((stream, greeting));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() >= until {
                    return Err(Error::Launch(missing()));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(refused(error)),
        }
    }
}

/// A connection to rank 0, which may still be starting; its name may not be known yet, too.
fn reach_first(rank: usize, address: &str, until: Instant) -> Result<TcpStream> {
    loop {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let tried = resolve(address)
            .map_err(|error| error.to_string())
            .and_then(|place| TcpStream::connect_timeout(&place, left).map_err(|error| error.to_string()));
        match tried {
            Ok(stream) => return Ok(stream),
            Err(why) if Instant::now() >= until => {
                return Err(Error::Launch(format!("rank {rank} does not reach rank 0 at {address}: {why}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Where every rank is and what its machine calls itself, as rank 0 knows it.
fn read_table(
    first: &mut TcpStream,
    size: usize,
    until: Instant,
) -> Result<Vec<(Option<SocketAddr>, String)>> {
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut read = || -> std::io::Result<String> {
        first.set_read_timeout(Some(left))?;
        let mut length = [0; 4];
        first.read_exact(&mut length)?;
        let longest = size * (LONGEST_HOST + 64);
        let length = u32::from_le_bytes(length) as usize;
        if length > longest {
            return Err(std::io::Error::other("its table is longer than it can be"));
        }
        let mut table = vec![0; length];
        first.read_exact(&mut table)?;
        first.set_read_timeout(None)?;
        String::from_utf8(table).map_err(std::io::Error::other)
    };
    let text = read().map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Error::Launch("rank 0 waits for other ranks, which did not come in time".into())
        }
        _ => Error::Launch(format!("rank 0 did not say where the others are: {error}")),
    })?;
    let place = |line: &str| {
        let (place, host) = line.split_once(' ').unwrap_or((line, ""));
        (place.parse().ok(), host.to_string())
    };
    let table: Vec<_> = text.lines().map(place).collect();
    if table.len() != size {
        return Err(Error::Launch(format!("rank 0 knows {} ranks in place of {size}", table.len())));
    }
    Ok(table)
}
