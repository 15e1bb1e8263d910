//! Ranks that are threads of one process: for tests, and for trying ranks out on one machine.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::settings::Settings;
use crate::transport::{AHEAD, Call, Inflow, Transport, host_name, late};

/// Runs `work` once on each of `size` ranks, each a thread with its share of the processor's threads, and returns what they
/// came to, in their order. A rank that panics, or that ends while others wait for it, is an error to those; the panic is
/// passed on when all have ended.
pub fn on_threads<T: Send>(size: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    on_threads_with(size, Settings::default(), work)
}

/// As [`on_threads`], with other settings than the defaults.
pub fn on_threads_with<T: Send>(size: usize, settings: Settings, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    let post = Arc::new(Post::new(size));
    let threads = (rayon::current_num_threads() / size.max(1)).max(1);
    let work = &work;
    let outcomes: Vec<Result<T, Box<dyn Any + Send>>> = std::thread::scope(|scope| {
        let start = |rank: usize| {
            let post = Arc::clone(&post);
            // What a thread is called begins what is said about its fault.
            let name = format!("rank {rank} of {size} on {}", host_name());
            let thread = std::thread::Builder::new().name(name.clone());
            let work = move || {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let pool = pool.thread_name(move |_| name.clone()).build();
                let thread = Thread { rank, post: Arc::clone(&post), deadline: settings.deadline };
                let ranks = Ranks::over(Box::new(thread));
                // What a rank holds is not looked at again after its panic.
                let done = catch_unwind(AssertUnwindSafe(|| match pool {
                    Ok(pool) => pool.install(|| work(ranks)),
                    // No threads to be had: this one alone.
                    Err(_) => work(ranks),
                }));
                post.ended(rank, done.as_ref().err().map(|panic| said(panic.as_ref())));
                done
            };
            thread.spawn_scoped(scope, work).unwrap_or_else(|error| panic!("failed to spawn thread: {error}"))
        };
        let started: Vec<_> = (0..size).map(start).collect();
        started.into_iter().map(|rank| rank.join().unwrap_or_else(Err)).collect()
    });
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|panic| resume_unwind(panic))).collect()
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".into())
}

/// A rank that is a thread.
#[derive(Debug)]
struct Thread {
    rank: usize,
    post: Arc<Post>,
    deadline: Duration,
}

/// Where all ranks leave their messages.
#[derive(Debug)]
struct Post {
    size: usize,
    letters: Mutex<Letters>,
    arrived: Condvar,
}

/// Most words of a letter: longer messages go in several, so that one is read while the next is written.
const LETTER: usize = 64 << 10;

/// Bytes under way.
#[derive(Debug)]
struct Letter {
    /// Room for them, words so that numbers can be read where they lie.
    words: Vec<u32>,
    length: usize,
}

impl Letter {
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.length]
    }
}

#[derive(Debug)]
struct Letters {
    /// Under way from `[from][to]`.
    under_way: Vec<Vec<VecDeque<Letter>>>,
    /// Read, and kept for the next ones: fresh memory costs more than the copy.
    spare: Vec<Letter>,
    /// How each rank ended, if it has.
    ends: Vec<Option<End>>,
}

#[derive(Debug, Clone)]
enum End {
    Done,
    Failed(String),
}

impl Post {
    fn new(size: usize) -> Self {
        let under_way = (0..size).map(|_| (0..size).map(|_| VecDeque::new()).collect()).collect();
        let letters = Letters { under_way, spare: Vec::new(), ends: vec![None; size] };
        Self { size, letters: Mutex::new(letters), arrived: Condvar::new() }
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        // Whoever panics does so outside the lock's few lines.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A letter of these bytes, on paper that was written on before where there is some.
    fn letter(&self, bytes: &[u8]) -> Letter {
        let spare = self.letters().spare.pop();
        let mut letter = spare.unwrap_or(Letter { words: Vec::new(), length: 0 });
        let words = bytes.len().div_ceil(4);
        if letter.words.len() < words {
            letter.words.resize(words, 0);
        }
        letter.length = bytes.len();
        bytemuck::cast_slice_mut(&mut letter.words)[..bytes.len()].copy_from_slice(bytes);
        letter
    }

    /// Keeps a letter that has been read.
    fn keep(&self, letter: Letter) {
        let mut letters = self.letters();
        if letters.spare.len() < AHEAD * self.size * self.size {
            letters.spare.push(letter);
        }
    }

    fn ended(&self, rank: usize, failure: Option<String>) {
        let end = &mut self.letters().ends[rank];
        if end.is_none() {
            *end = Some(failure.map_or(End::Done, End::Failed));
        }
        self.arrived.notify_all();
    }
}

impl Thread {
    /// Posts a piece of each, where it has so many of `length` bytes.
    fn post_piece(&self, outgoing: &[(usize, &[u8])], length: usize, piece: usize) {
        for (to, bytes) in outgoing {
            if let Some(bytes) = bytes.chunks(length).nth(piece) {
                let letter = self.post.letter(bytes);
                self.post.letters().under_way[self.rank][*to].push_back(letter);
                self.post.arrived.notify_all();
            }
        }
    }

    /// The next letter of `from`, of so many bytes.
    fn receive(&self, call: &Call, from: usize, length: usize) -> Result<Letter> {
        let until = Instant::now() + self.deadline;
        let mut letters = self.post.letters();
        let letter = loop {
            if let Some(letter) = letters.under_way[from][self.rank].pop_front() {
                break letter;
            }
            // A rank that has failed is the cause, whoever is waited for.
            let failed = letters.ends.iter().enumerate().find_map(|(rank, end)| match end {
                Some(End::Failed(why)) => Some((rank, why.clone())),
                _ => None,
            });
            if let Some((rank, why)) = failed {
                return Err(Error::Failed { rank, host: self.host(rank), why });
            }
            if letters.ends[from].is_some() {
                let what = "it ended while the others went on".into();
                return Err(Error::Lost { rank: from, host: self.host(from), what });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late(from, self.host(from), self.deadline, call));
            }
            letters = self.post.arrived.wait_timeout(letters, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(letters);
        if letter.length != length {
            let what = format!("it sent {} bytes in place of {length}", letter.length);
            return Err(Error::Lost { rank: from, host: self.host(from), what });
        }
        Ok(letter)
    }
}

impl Transport for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.post.size
    }

    fn host(&self, _rank: usize) -> String {
        host_name()
    }

    fn exchange(
        &self,
        call: &Call,
        outgoing: &[(usize, &[u8])],
        incoming: &mut [(usize, &mut [u8])],
    ) -> Result<()> {
        let longest = outgoing.iter().map(|(_, bytes)| bytes.len());
        let longest = longest.chain(incoming.iter().map(|(_, buffer)| buffer.len())).max().unwrap_or(0);
        let pieces = longest.div_ceil(4 * LETTER);
        (0..AHEAD.min(pieces)).for_each(|piece| self.post_piece(outgoing, 4 * LETTER, piece));
        for piece in 0..pieces {
            for (from, buffer) in incoming.iter_mut() {
                let Some(buffer) = buffer.chunks_mut(4 * LETTER).nth(piece) else { continue };
                let letter = self.receive(call, *from, buffer.len())?;
                buffer.copy_from_slice(letter.bytes());
                self.post.keep(letter);
            }
            self.post_piece(outgoing, 4 * LETTER, piece + AHEAD);
        }
        Ok(())
    }

    fn stream(&self, call: &Call, outgoing: &[(usize, &[f32])], inflow: &mut Inflow) -> Result<()> {
        let outgoing: Vec<(usize, &[u8])> =
            outgoing.iter().map(|(to, part)| (*to, bytemuck::cast_slice(part))).collect();
        let longest = outgoing.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
        let length = 4 * inflow.piece;
        let pieces = longest.div_ceil(length).max(inflow.pieces());
        (0..AHEAD.min(pieces)).for_each(|piece| self.post_piece(&outgoing, length, piece));
        for piece in 0..pieces {
            if piece < inflow.pieces() {
                let range = inflow.range(piece);
                let receive = |from: &usize| self.receive(call, *from, 4 * range.len());
                let letters = inflow.from.iter().map(receive).collect::<Result<Vec<Letter>>>()?;
                let parts: Vec<&[f32]> =
                    letters.iter().map(|letter| bytemuck::cast_slice(letter.bytes())).collect();
                (inflow.take)(range, &parts);
                for letter in letters {
                    self.post.keep(letter);
                }
            }
            self.post_piece(&outgoing, length, piece + AHEAD);
        }
        Ok(())
    }

    fn abort(&self, why: &str) {
        self.post.ended(self.rank, Some(why.into()));
    }

    fn leave(&self) {
        self.post.ended(self.rank, None);
    }
}
