//! Who died, whatever this rank is doing: a thread that does nothing but listen for it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::settings::OnLoss;

/// Longest reason, bytes.
const LONGEST_REASON: usize = 8 * 1024;

/// The farewell connections and the threads that listen on them.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// On rank 0 by rank, elsewhere the one to rank 0.
    streams: Mutex<Vec<Option<TcpStream>>>,
    hosts: Vec<String>,
    rank: usize,
    /// That this rank fails, put together while there is memory.
    last_word: Vec<u8>,
    /// Whether the end of the job has come, well or not: nothing more is reported.
    over: AtomicBool,
}

/// What is said at the end.
enum Farewell {
    /// The work is done.
    Done,
    /// A rank failed and has told the user.
    Failed { rank: usize, why: String },
    /// Rank 0 has lost a rank, and has told the user.
    Lost { rank: usize, what: String },
}

impl Farewell {
    fn to_bytes(&self) -> Vec<u8> {
        let (kind, rank, text) = match self {
            Self::Done => (b'd', 0, ""),
            Self::Failed { rank, why } => (b'f', *rank, why.as_str()),
            Self::Lost { rank, what } => (b'l', *rank, what.as_str()),
        };
        let text = &text.as_bytes()[..text.len().min(LONGEST_REASON)];
        let mut bytes = vec![kind];
        bytes.extend((rank as u32).to_le_bytes());
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text);
        bytes
    }

    fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(&self.to_bytes())
    }

    /// None where the connection closed without one.
    fn read(stream: &mut TcpStream, ranks: usize) -> Option<Self> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (rank, length) = (number(1), number(5));
        if length > LONGEST_REASON || rank >= ranks {
            return None;
        }
        let mut text = vec![0; length];
        stream.read_exact(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        match head[0] {
            b'd' => Some(Self::Done),
            b'f' => Some(Self::Failed { rank, why: text }),
            b'l' => Some(Self::Lost { rank, what: text }),
            _ => None,
        }
    }
}

impl Watch {
    /// Listens on every farewell connection.
    pub fn start(
        rank: usize,
        streams: Vec<Option<TcpStream>>,
        hosts: &[String],
        on_loss: &OnLoss,
    ) -> std::io::Result<Self> {
        let mut ears = Vec::new();
        for (from, stream) in streams.iter().enumerate() {
            if let Some(stream) = stream {
                ears.push((from, stream.try_clone()?));
            }
        }
        let shared = Shared {
            streams: Mutex::new(streams),
            hosts: hosts.to_vec(),
            rank,
            last_word: Farewell::Failed { rank, why: "it has said why itself".into() }.to_bytes(),
            over: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        for (from, stream) in ears {
            let (shared, on_loss) = (Arc::clone(&shared), Arc::clone(on_loss));
            let listen = move || shared.listen(from, stream, &on_loss);
            std::thread::Builder::new().name(format!("watch {from}")).spawn(listen)?;
        }
        Ok(Self { shared })
    }

    /// This rank cannot go on.
    pub fn say_failed(&self, rank: usize, why: &str) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.shared.tell(&Farewell::Failed { rank, why: why.into() }, None);
    }

    /// This rank ends at once; see [`crate::transport::Transport::last_word`].
    pub fn last_word(&self) {
        self.shared.over.store(true, Ordering::SeqCst);
        if let Ok(mut streams) = self.shared.streams.try_lock() {
            for stream in streams.iter_mut().flatten() {
                // Who cannot be told hears that the connection closes.
                let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
                let _ = stream.write_all(&self.shared.last_word);
            }
        }
    }

    /// This rank has done its work.
    pub fn say_done(&self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.shared.tell(&Farewell::Done, None);
    }
}

impl Drop for Watch {
    /// Who leaves without a word is lost to the others, as a process that was killed.
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.iter().flatten() {
            // A connection that is closed already needs no closing.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn listen(&self, from: usize, mut stream: TcpStream, on_loss: &OnLoss) {
        let said = Farewell::read(&mut stream, self.hosts.len());
        let host = |rank: usize| self.hosts[rank].clone();
        let error = match said {
            Some(Farewell::Done) => return,
            Some(Farewell::Failed { rank, why }) => Error::Failed { rank, host: host(rank), why },
            Some(Farewell::Lost { rank, what }) => Error::Lost { rank, host: host(rank), what },
            None => Error::Lost { rank: from, host: host(from), what: "its process ended".into() },
        };
        if self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        if self.rank == 0 {
            let farewell = match &error {
                Error::Failed { rank, why, .. } => Farewell::Failed { rank: *rank, why: why.clone() },
                _ => Farewell::Lost { rank: from, what: "its process ended".into() },
            };
            self.tell(&farewell, Some(from));
        }
        on_loss(&error);
    }

    /// Tells everybody that this rank has a farewell connection with. Who cannot be told has gone itself.
    fn tell(&self, farewell: &Farewell, except: Option<usize>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for (to, stream) in streams.iter_mut().enumerate() {
            if let Some(stream) = stream.as_mut().filter(|_| Some(to) != except) {
                let _ = farewell.write(stream);
            }
        }
    }
}
