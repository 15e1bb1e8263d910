//! A bounded number of requests under way, over all addresses, on threads of their own: never on those that compute.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rlt_model::Stop;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::journal::{Journal, Key, key};
use super::retry::wait;
use super::wire::{Ask, Wire};
use crate::error::{Error, Result};

/// How often waiting looks whether it is asked to stop.
const LOOK: Duration = Duration::from_millis(50);

/// What makes an answer of its bytes, or says what is wrong with them.
pub(super) type Reader<T> = dyn Fn(usize, &[u8]) -> std::result::Result<T, Fault> + Send + Sync;

/// Addresses that serve the same model.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    journal: Mutex<Option<Journal>>,
}

#[derive(Debug)]
struct Shared {
    wires: Vec<Wire>,
    /// Requests under way at each address, and until when it is left alone.
    loads: Mutex<Vec<Load>>,
    freed: Condvar,
    /// Most requests under way at one address.
    in_flight: usize,
    retries: usize,
    n_retries: AtomicUsize,
    n_under_way: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
struct Load {
    under_way: usize,
    not_before: Instant,
}

/// Requests that wait for a thread, and how their caller is told.
struct Queue {
    waiting: Mutex<VecDeque<(usize, Ask)>>,
    filled: Condvar,
    /// Nothing more will come.
    closed: AtomicBool,
    /// Whoever asked wants nothing any more.
    abandoned: AtomicBool,
}

/// A number of an address, given back when it is dropped.
struct Lease<'a> {
    shared: &'a Shared,
    at: usize,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        lock(&self.shared.loads)[self.at].under_way -= 1;
        self.shared.n_under_way.fetch_sub(1, Ordering::Relaxed);
        self.shared.freed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// At most `in_flight` requests under way at each address; one that fails in passing is asked `retries` times more.
    pub fn new(wires: Vec<Wire>, in_flight: usize, retries: usize) -> Self {
        let now = Instant::now();
        let loads = Mutex::new(vec![Load { under_way: 0, not_before: now }; wires.len()]);
        let (n_retries, n_under_way) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let freed = Condvar::new();
        let shared = Arc::new(Shared { wires, loads, freed, in_flight, retries, n_retries, n_under_way });
        Self { shared, journal: Mutex::new(None) }
    }

    /// The addresses.
    pub fn wires(&self) -> &[Wire] {
        &self.shared.wires
    }

    /// Most requests under way.
    pub fn capacity(&self) -> usize {
        self.shared.in_flight * self.shared.wires.len()
    }

    /// Requests that were asked again, so far.
    pub fn n_retries(&self) -> usize {
        self.shared.n_retries.load(Ordering::Relaxed)
    }

    /// Requests under way.
    pub fn n_under_way(&self) -> usize {
        self.shared.n_under_way.load(Ordering::Relaxed)
    }

    /// Where answers are kept that are in no row yet.
    pub fn journal(&self) -> MutexGuard<'_, Option<Journal>> {
        lock(&self.journal)
    }

    /// Asks everything that `asks` gives, as many at a time as the pool allows and no further ahead, and hands each answer
    /// to `done` with its place as soon as it is there. Threads that still wait for an answer when it returns early end
    /// with that.
    ///
    /// # Errors
    /// [`rlt_model::Error::Stopped`] at once when it is asked to stop; [`Error::Failed`] with the address and the server's
    /// words when a request cannot be answered. What was answered has been handed over.
    pub fn run<T: Send + Serialize + DeserializeOwned + 'static>(
        &self,
        asks: &mut dyn Iterator<Item = Ask>,
        read: &Arc<Reader<T>>,
        stop: Stop,
        done: &mut dyn FnMut(usize, T),
    ) -> Result<()> {
        let mut journal = self.journal();
        if let Some(journal) = journal.as_mut() {
            journal.begin()?;
        }
        let mut asks = asks.enumerate();
        // Of the requests that are open.
        let mut keys: HashMap<usize, Key> = HashMap::new();
        let queue = Arc::new(Queue {
            waiting: Mutex::new(VecDeque::new()),
            filled: Condvar::new(),
            closed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        });
        let (tell, answers) = mpsc::channel();
        let (mut n_threads, mut n_open) = (0, 0);
        let outcome = loop {
            // One more than there are threads waits: a thread that is done finds it at once.
            while n_open < self.capacity() + 1
                && let Some((place, ask)) = asks.next()
            {
                if let Some(journal) = journal.as_mut() {
                    let key = key(&ask);
                    if let Some(answer) = journal.find(&key) {
                        journal.keep(key, &answer)?;
                        done(place, answer);
                        continue;
                    }
                    keys.insert(place, key);
                }
                lock(&queue.waiting).push_back((place, ask));
                queue.filled.notify_one();
                n_open += 1;
                if n_threads < self.capacity().min(n_open) {
                    n_threads += 1;
                    let (shared, queue, read) = (self.shared.clone(), queue.clone(), read.clone());
                    let tell: mpsc::Sender<_> = tell.clone();
                    let work = move || work(&shared, &queue, &read, &tell);
                    if let Err(e) =
                        thread::Builder::new().name("server".into()).stack_size(1 << 20).spawn(work)
                    {
                        n_threads -= 1;
                        if n_threads == 0 {
                            return Err(Error::Failed(format!("no thread to ask a server with: {e}")));
                        }
                    }
                }
            }
            if n_open == 0 {
                break Ok(());
            }
            if stop.is_asked() {
                break Err(rlt_model::Error::Stopped.into());
            }
            match answers.recv_timeout(LOOK) {
                Ok((place, Ok(answer))) => {
                    n_open -= 1;
                    if let (Some(journal), Some(key)) = (journal.as_mut(), keys.remove(&place))
                        && let Err(error) = journal.keep(key, &answer)
                    {
                        break Err(error);
                    }
                    done(place, answer);
                }
                Ok((_, Err(what))) => break Err(Error::Failed(what)),
                Err(_) => {}
            }
        };
        queue.closed.store(true, Ordering::SeqCst);
        queue.abandoned.store(outcome.is_err(), Ordering::SeqCst);
        queue.filled.notify_all();
        self.shared.freed.notify_all();
        // What had been answered by then is not lost.
        for (place, answer) in answers.try_iter() {
            if let Ok(answer) = answer {
                if let (Some(journal), Some(key)) = (journal.as_mut(), keys.remove(&place)) {
                    journal.keep(key, &answer)?;
                }
                done(place, answer);
            }
        }
        match (&outcome, journal.as_mut()) {
            (Err(_), Some(journal)) => journal.commit().and(outcome),
            _ => outcome,
        }
    }
}

/// What a thread does: asks what waits, until nothing does.
fn work<T>(
    shared: &Shared,
    queue: &Queue,
    read: &Arc<Reader<T>>,
    tell: &mpsc::Sender<(usize, std::result::Result<T, String>)>,
) {
    loop {
        let next = {
            let mut waiting = lock(&queue.waiting);
            loop {
                if queue.abandoned.load(Ordering::SeqCst) {
                    break None;
                }
                if let Some(next) = waiting.pop_front() {
                    break Some(next);
                }
                if queue.closed.load(Ordering::SeqCst) {
                    break None;
                }
                waiting = queue.filled.wait_timeout(waiting, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        let Some((place, ask)) = next else { return };
        let Some(answer) = persist(shared, queue, place, &ask, read) else { return };
        if tell.send((place, answer)).is_err() {
            return;
        }
    }
}

/// Asks until there is an answer, or none will come; nothing where nobody wants it any more.
fn persist<T>(
    shared: &Shared,
    queue: &Queue,
    place: usize,
    ask: &Ask,
    read: &Arc<Reader<T>>,
) -> Option<std::result::Result<T, String>> {
    let started = Instant::now();
    let mut attempt = 0;
    loop {
        let lease = shared.lease(queue)?;
        let wire = &shared.wires[lease.at];
        let fault = match wire.ask(ask).and_then(|bytes| read(place, &bytes)) {
            Ok(answer) => return Some(Ok(answer)),
            Err(fault) => fault,
        };
        attempt += 1;
        let what = format!("{}{}: {}", wire.address(), ask.path, fault.what());
        let Fault::Passing { after, .. } = fault else { return Some(Err(what)) };
        if attempt > shared.retries {
            let seconds = started.elapsed().as_secs_f64();
            return Some(Err(format!("{what}; given up after {attempt} attempts in {seconds:.0} s")));
        }
        shared.n_retries.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + wait(attempt, place as u64, after);
        // Where there are others, they are asked meanwhile.
        lock(&shared.loads)[lease.at].not_before = until;
        drop(lease);
        while shared.wires.len() == 1 && Instant::now() < until {
            if queue.abandoned.load(Ordering::SeqCst) {
                return None;
            }
            thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

impl Shared {
    /// The address with least under way of those that are not left alone; where all are, the first that will not be.
    fn lease(&self, queue: &Queue) -> Option<Lease<'_>> {
        let mut loads = lock(&self.loads);
        loop {
            if queue.abandoned.load(Ordering::SeqCst) {
                return None;
            }
            let now = Instant::now();
            let alone = loads.len() == 1;
            let free = loads
                .iter()
                .enumerate()
                .filter(|(_, load)| load.under_way < self.in_flight && (alone || load.not_before <= now));
            if let Some(at) = free.min_by_key(|(_, load)| load.under_way).map(|(at, _)| at) {
                loads[at].under_way += 1;
                self.n_under_way.fetch_add(1, Ordering::Relaxed);
                return Some(Lease { shared: self, at });
            }
            loads = self.freed.wait_timeout(loads, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
