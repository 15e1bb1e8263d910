//! The server: a listener, a thread a connection, and the engine's.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rlt_model::Decoder;
use rlt_model::tokenizer::Tokenizer;

use crate::endpoints::{LAST_ANSWERS, Service, now};
use crate::engine;
use crate::http::{Connection, NoRequest};
use crate::queue::Queue;
use crate::refusal::Refusal;
use crate::weights::Weights;

/// Most connections at a time; one more is turned away.
const MAX_CONNECTIONS: usize = 512;
/// Most bytes of all bodies in memory.
const MAX_BODIES: usize = 256 << 20;
/// The stack of a connection's thread, bytes: it reads a request, and now and then a model.
const STACK_BYTES: usize = 1 << 20;
/// How long running work may still take once the server is asked to end.
const LAST_WORK: Duration = Duration::from_millis(300);

/// How a model is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What clients call the model.
    pub name: String,
    /// What clients have to send as a bearer token; without one whoever reaches the server is answered.
    pub key: Option<String>,
    /// Folder below which weights may be loaded from, at a client's word.
    pub reload_dir: Option<PathBuf>,
    /// Sequences that decode at the same time.
    pub max_running: usize,
    /// Tokens that are scored at a time.
    pub tokens_per_batch: usize,
    /// Requests that may wait.
    pub most_waiting: usize,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    service: Arc<Service>,
    tokens_per_batch: usize,
}

/// What a server has done when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Requests that were answered, refusals included.
    pub requests: u64,
}

impl Server {
    /// Serves `decoder`, which was loaded from `folder`, at an address. Port 0 is one that is free.
    ///
    /// # Errors
    /// The address cannot be used, or the folder for reloading is not there.
    pub fn bind(
        decoder: Decoder,
        tokenizer: Option<Tokenizer>,
        folder: &Path,
        settings: Settings,
        address: impl ToSocketAddrs,
    ) -> std::io::Result<Self> {
        let Settings { name, key, reload_dir, max_running, tokens_per_batch, most_waiting } = settings;
        let allowed = reload_dir.map(|dir| dir.canonicalize()).transpose()?;
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let service = Service {
            queue: Queue::new(most_waiting),
            weights: Weights::new(decoder, folder.to_owned(), allowed),
            name,
            root: folder.display().to_string(),
            tokenizer,
            key,
            max_running,
            started: now(),
            n_requests: AtomicU64::new(0),
            body_bytes: AtomicUsize::new(0),
        };
        Ok(Self { listener, address, service: Arc::new(service), tokens_per_batch })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is set; then what runs has a moment to end, and everybody is told.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn run(self, stop: &AtomicBool) -> std::io::Result<Served> {
        let Self { listener, address, service, tokens_per_batch } = self;
        let busy = Arc::new(AtomicUsize::new(0));
        let (of_engine, of_listener) = (service.clone(), service.clone());
        thread::Builder::new().name("engine".into()).spawn(move || {
            engine::work(&of_engine.queue, &of_engine.weights, tokens_per_batch);
        })?;
        let accepting = Accepting { service: of_listener, busy: busy.clone(), open: Arc::default() };
        thread::Builder::new().name("listener".into()).spawn(move || accepting.accept(&listener))?;
        while !stop.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(20));
        }
        let wait = |most: Duration, until: &dyn Fn() -> bool| {
            let end = Instant::now() + most;
            while !until() && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
        };
        service.queue.close();
        // The listener looks up with the next connection, and closes.
        drop(TcpStream::connect_timeout(&reachable(address), Duration::from_millis(100)));
        wait(LAST_WORK, &|| !service.queue.runs());
        service.queue.ends_call().store(true, Ordering::SeqCst);
        wait(LAST_ANSWERS, &|| busy.load(Ordering::SeqCst) == 0);
        Ok(Served { requests: service.n_requests.load(Ordering::SeqCst) })
    }
}

/// Where this machine reaches a listener: one for all addresses has none of its own.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => ([0_u16, 0, 0, 0, 0, 0, 0, 1], v6.port()).into(),
        other => other,
    }
}

/// Counts up, and down again when it is dropped.
struct Counted(Arc<AtomicUsize>, usize);

impl Counted {
    fn new(count: &Arc<AtomicUsize>, by: usize) -> Self {
        count.fetch_add(by, Ordering::SeqCst);
        Self(count.clone(), by)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Accepting {
    service: Arc<Service>,
    /// Requests that were read and not answered.
    busy: Arc<AtomicUsize>,
    /// Connections.
    open: Arc<AtomicUsize>,
}

impl Accepting {
    fn accept(&self, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            if self.service.queue.is_closing() {
                return;
            }
            match accepted {
                Ok((stream, _)) => self.begin(stream),
                // No more files or memory for a moment, or a client that has gone.
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn begin(&self, stream: TcpStream) {
        let counted = Counted::new(&self.open, 1);
        if self.open.load(Ordering::SeqCst) > MAX_CONNECTIONS {
            return turn_away(stream);
        }
        let of_thread = self.clone();
        let serve = move || {
            let _counted = counted;
            of_thread.serve(stream);
        };
        // Where the system gives no thread the connection ends, and its client asks again.
        drop(thread::Builder::new().name("connection".into()).stack_size(STACK_BYTES).spawn(serve));
    }

    /// Answers one client's requests, one after the other.
    fn serve(&self, stream: TcpStream) {
        let mut connection = Connection::new(stream);
        let service = &self.service;
        loop {
            let read = connection.read(|| service.queue.is_closing(), |bytes| self.admit(bytes));
            let (request, (_bytes, _busy)) = match read {
                Ok(read) => read,
                Err(NoRequest::Gone) => return,
                Err(NoRequest::Refused(refusal)) => {
                    service.n_requests.fetch_add(1, Ordering::SeqCst);
                    drop(connection.write(refusal.status, refusal.to_json().to_string().as_bytes(), false));
                    return connection.finish();
                }
            };
            service.n_requests.fetch_add(1, Ordering::SeqCst);
            let answer = || {
                service.check_caller(&request)?;
                service.answer(&request, &|| connection.is_gone())
            };
            let answer = catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| {
                Err(Refusal::new(500, "this request failed in rlt itself; the server's log has more"))
            });
            let keeps_alive = request.keeps_alive && !service.queue.is_closing();
            let written = match answer {
                Ok(body) => connection.write(200, &body, keeps_alive),
                Err(refusal) => {
                    connection.write(refusal.status, refusal.to_json().to_string().as_bytes(), keeps_alive)
                }
            };
            match written {
                Ok(()) if keeps_alive => {}
                Ok(()) => return connection.finish(),
                Err(_) => return,
            }
        }
    }

    /// Makes room for a body, and counts its request among those that are to be answered.
    fn admit(&self, bytes: usize) -> Result<(Bytes, Counted), Refusal> {
        let busy = Counted::new(&self.busy, 1);
        let held = Bytes(self.service.clone(), bytes);
        let before = self.service.body_bytes.fetch_add(bytes, Ordering::SeqCst);
        if before + bytes > MAX_BODIES {
            return Err(Refusal::busy("too many large requests at once"));
        }
        Ok((held, busy))
    }
}

/// Bytes of a body, given back when its request is done.
struct Bytes(Arc<Service>, usize);

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.body_bytes.fetch_sub(self.1, Ordering::SeqCst);
    }
}

/// Tells a client that there is no room, if it can be told at once.
fn turn_away(stream: TcpStream) {
    use std::io::Write;
    let body = Refusal::busy("too many connections").to_json().to_string();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: 1\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = stream;
    if stream.set_nonblocking(true).is_ok() {
        drop(stream.write(answer.as_bytes()));
        drop(stream.shutdown(std::net::Shutdown::Write));
    }
}
