//! The threads of a command: as many as were asked for and the system gives.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use rlt::progress::Progress;
use rlt::{Error, Result};
use rlt_ranks::{Launch, Ranks};

/// Threads a core that are worth having: results do not depend on their number, and more of them only wait.
const MOST_PER_CORE: usize = 4;
/// What may be asked for on a machine of few cores (to see that results do not depend on it, for one).
const ALWAYS_ALLOWED: usize = 64;

/// Starts the worker threads, `wanted` of them, or one a core (this rank's share of them) where that is 0. A number beyond reason is cut, and where
/// the system refuses some, those that it gave do the work; a note says either.
///
/// # Errors
/// [`Error::Failed`] if there is a pool already, which would be a fault of the caller.
pub fn start(wanted: usize, ranks: &Ranks, progress: &dyn Progress) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // Ranks on one machine share its cores.
    let ranks_here = if ranks.size() > 1 { Launch::ranks_of_this_machine() } else { 1 };
    let share = (cores / ranks_here).max(1);
    let wanted = if wanted > 0 { wanted } else { from_environment().unwrap_or(share) };
    let most = (MOST_PER_CORE * cores).max(ALWAYS_ALLOWED);
    if wanted > most {
        progress.note(&format!("{wanted} threads are too many for {cores} cores: {most} are started"));
    }
    let wanted = wanted.min(most);
    let seats = seats(wanted);
    if seats.len() < wanted {
        let given = seats.len().max(1);
        progress.note(&format!("the system refused {wanted} threads: {given} do the work"));
    }
    let builder = rayon::ThreadPoolBuilder::new();
    let built = if seats.is_empty() {
        builder.num_threads(1).use_current_thread().build_global()
    } else {
        let builder = builder.num_threads(seats.len());
        let mut seats = seats.into_iter();
        builder.spawn_handler(|worker| seat(seats.next(), worker)).build_global()
    };
    built.map_err(|e| Error::Failed(format!("cannot start worker threads: {e}")))
}

/// What rayon would read itself, were the number left to it.
fn from_environment() -> Option<usize> {
    std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|&n| n > 0)
}

type Seat = Sender<rayon::ThreadBuilder>;

/// Threads that wait for the worker they are to be, as many as the system gives, up to `wanted`. A pool is built once and
/// cannot be built smaller after a failure, so its threads come first.
fn seats(wanted: usize) -> Vec<Seat> {
    let mut seats = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        let (seat, worker) = channel::<rayon::ThreadBuilder>();
        let work = move || worker.recv().map(rayon::ThreadBuilder::run).unwrap_or_default();
        if thread::Builder::new().name("rlt worker".into()).spawn(work).is_err() {
            break;
        }
        seats.push(seat);
    }
    seats
}

fn seat(seat: Option<Seat>, worker: rayon::ThreadBuilder) -> std::io::Result<()> {
    let gone = || std::io::Error::other("a worker thread has gone");
    seat.ok_or_else(gone)?.send(worker).map_err(|_| gone())
}
