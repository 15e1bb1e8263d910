//! A bounded number of requests under way, over all addresses, on threads of their own: never on those that compute.

use std::collections::BTreeMap;
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
use super::threads::Threads;
use super::wire::{Ask, Wire};
use crate::error::{Error, Result};

/// How often waiting looks whether it is asked to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Requests of a call that are made for each that can be under way: while one is answered others wait, so that a thread
/// which is done finds the next, also while the caller makes what was answered safe, which takes a disk a moment.
const MADE: usize = 6;

/// Requests that may be ahead of the first that has no answer, for each that can be under way: their answers are held.
const AHEAD: usize = 8;

/// What makes an answer of the bytes that come back, or says what is wrong with them.
type Reader<T> = dyn Fn(&[u8]) -> std::result::Result<T, Fault> + Send;

/// A request, and how its answer is read.
pub(super) struct Question<T> {
    pub ask: Ask,
    pub read: Box<Reader<T>>,
}

/// Addresses that serve the same model.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Threads,
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
        let threads = Threads::new(in_flight * wires.len());
        let shared = Arc::new(Shared { wires, loads, freed, in_flight, retries, n_retries, n_under_way });
        Self { shared, threads, journal: Mutex::new(None) }
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

    /// How many answers were kept so far, where they are kept.
    pub fn answered(&self) -> u64 {
        self.journal().as_ref().map_or(0, Journal::answered)
    }

    /// The first `n` of them stand in rows.
    ///
    /// # Errors
    /// The file of answers cannot be written.
    pub fn release(&self, n: u64) -> Result<()> {
        self.journal().as_mut().map_or(Ok(()), |journal| journal.release(n))
    }

    /// Asks everything that `questions` gives, as many at a time as the pool allows and a bounded number ahead, and hands
    /// each answer to `done` with its place as soon as it is there. Several calls share what the pool allows. Threads that
    /// still wait for an answer when it returns early end with that.
    ///
    /// # Errors
    /// [`rlt_model::Error::Stopped`] at once when it is asked to stop; [`Error::Failed`] with the address and the server's
    /// words when a request cannot be answered; what `questions` and `done` report. What was answered has been handed over.
    pub fn run<T: Send + Serialize + DeserializeOwned + 'static>(
        &self,
        questions: &mut dyn Iterator<Item = Result<Question<T>>>,
        stop: Stop,
        done: &mut dyn FnMut(usize, T) -> Result<()>,
    ) -> Result<()> {
        let (tell, answers) = mpsc::channel();
        let mut call =
            Call { pool: self, open: BTreeMap::new(), n_asked: 0, tell, abandoned: Arc::default() };
        let outcome = call.ask_all(questions, &answers, stop, done);
        let Err(error) = outcome else { return Ok(()) };
        call.abandoned.store(true, Ordering::SeqCst);
        self.shared.freed.notify_all();
        // What had been answered by then is not lost.
        for (place, answer) in answers.try_iter() {
            if let Ok(answer) = answer {
                call.keep(place, &answer)?;
                done(place, answer)?;
            }
        }
        self.journal().as_mut().map_or(Ok(()), Journal::commit)?;
        Err(error)
    }
}

/// What comes back of a request: its place, and the answer or why there will be none.
type Told<T> = (usize, std::result::Result<T, String>);

/// Requests that are made together.
struct Call<'a, T> {
    pool: &'a Pool,
    /// Those that have no answer, by place, with what tells them from every other where answers are kept.
    open: BTreeMap<usize, Option<Key>>,
    n_asked: usize,
    tell: mpsc::Sender<Told<T>>,
    /// Nobody wants anything any more.
    abandoned: Arc<AtomicBool>,
}

impl<T: Send + Serialize + DeserializeOwned + 'static> Call<'_, T> {
    fn ask_all(
        &mut self,
        questions: &mut dyn Iterator<Item = Result<Question<T>>>,
        answers: &mpsc::Receiver<Told<T>>,
        stop: Stop,
        done: &mut dyn FnMut(usize, T) -> Result<()>,
    ) -> Result<()> {
        let mut questions = questions.fuse();
        loop {
            while self.has_room() {
                stop.check()?;
                let Some(question) = questions.next() else { break };
                self.ask(question?, done)?;
            }
            if self.open.is_empty() {
                return Ok(());
            }
            stop.check()?;
            match answers.recv_timeout(LOOK) {
                Ok((place, Ok(answer))) => {
                    self.keep(place, &answer)?;
                    done(place, answer)?;
                }
                Ok((_, Err(what))) => return Err(Error::Failed(what)),
                Err(_) => {}
            }
        }
    }

    fn has_room(&self) -> bool {
        let capacity = self.pool.capacity();
        let first = self.open.keys().next().unwrap_or(&self.n_asked);
        self.open.len() < MADE * capacity && self.n_asked - first < AHEAD * capacity
    }

    /// Has a thread ask, or finds the answer among those that an earlier attempt has left.
    fn ask(
        &mut self,
        Question { ask, read }: Question<T>,
        done: &mut dyn FnMut(usize, T) -> Result<()>,
    ) -> Result<()> {
        let place = self.n_asked;
        self.n_asked += 1;
        let (mut key_of_ask, mut found) = (None, None);
        if let Some(journal) = self.pool.journal().as_mut() {
            let key = key(&ask);
            if let Some(answer) = journal.find::<T>(&key) {
                journal.keep(&key, &answer)?;
                found = Some(answer);
            }
            key_of_ask = Some(key);
        }
        if let Some(answer) = found {
            return done(place, answer);
        }
        self.open.insert(place, key_of_ask);
        let (shared, tell, abandoned) = (self.pool.shared.clone(), self.tell.clone(), self.abandoned.clone());
        let task = move || {
            if let Some(answer) = persist(&shared, &abandoned, place, &ask, &*read) {
                // What cannot be answered ends the call: no more is asked from here on.
                abandoned.fetch_or(answer.is_err(), Ordering::SeqCst);
                // Whoever asked may have gone.
                let _ = tell.send((place, answer));
            }
        };
        let failed = |e| Error::Failed(format!("no thread to ask a server with: {e}"));
        self.pool.threads.give(Box::new(task)).map_err(failed)
    }

    /// The request at `place` has its answer.
    fn keep(&mut self, place: usize, answer: &T) -> Result<()> {
        let key = self.open.remove(&place).flatten();
        match (self.pool.journal().as_mut(), key) {
            (Some(journal), Some(key)) => journal.keep(&key, answer),
            _ => Ok(()),
        }
    }
}

/// Asks until there is an answer, or none will come; nothing where nobody wants it any more.
fn persist<T>(
    shared: &Shared,
    abandoned: &AtomicBool,
    place: usize,
    ask: &Ask,
    read: &Reader<T>,
) -> Option<std::result::Result<T, String>> {
    let started = Instant::now();
    let mut attempt = 0;
    loop {
        let lease = shared.lease(abandoned)?;
        let wire = &shared.wires[lease.at];
        let fault = match wire.ask(ask).and_then(|bytes| read(&bytes)) {
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
            if abandoned.load(Ordering::SeqCst) {
                return None;
            }
            thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

impl Shared {
    /// The address with least under way of those that are not left alone; where all are, the first that will not be.
    fn lease(&self, abandoned: &AtomicBool) -> Option<Lease<'_>> {
        let mut loads = lock(&self.loads);
        loop {
            if abandoned.load(Ordering::SeqCst) {
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
