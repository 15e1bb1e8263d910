//! What waits for the engine: a bounded queue, in which work that fits together is taken together, and which a pause holds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rlt_model::batch::ScoringGroup;
use rlt_model::generate::{Completion, GenerationRequest, SamplingParams};

use crate::refusal::Refusal;
use crate::weights::Loaded;

/// How long the engine waits for company of the first request that arrives while it has nothing to do: a client that has
/// many in flight sends them within a moment, and together they take little longer than one.
const GATHERING: Duration = Duration::from_millis(2);

/// What is asked of the engine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    /// Log-probabilities, at temperature 1, of every token after the first of each sequence.
    Score(Vec<ScoringGroup>),
    /// Completions.
    Generate(Generation),
}

/// Completions of some prompts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Generation {
    /// Prompts, and how many completions of each.
    pub requests: Vec<GenerationRequest>,
    /// How tokens are drawn; work with the same settings is done together.
    pub params: SamplingParams,
    /// Seed of the draws, beside what the requests' streams say.
    pub seed: u64,
}

impl Work {
    /// Whether both can be done in one call of the engine.
    fn goes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Score(_), Self::Score(_)) => true,
            (Self::Generate(a), Self::Generate(b)) => a.params == b.params && a.seed == b.seed,
            _ => false,
        }
    }
}

/// What the engine found.
#[derive(Debug)]
pub(crate) enum Found {
    /// Log-probability of every token after the first, by sequence.
    Scores(Vec<Vec<f32>>),
    /// `[request][sample]`; none where it was aborted.
    Completions(Vec<Vec<Option<Completion>>>),
}

/// What the engine found, and with which weights.
#[derive(Debug)]
pub(crate) struct Done {
    pub found: Found,
    pub model: Arc<Loaded>,
}

pub(crate) type Answer = Result<Done, Refusal>;

/// Work with whoever waits for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub work: Work,
    number: u64,
    is_abandoned: Arc<AtomicBool>,
    answer: SyncSender<Answer>,
}

impl Job {
    /// Answers; whoever has gone is not told.
    pub fn answer(self, answer: Answer) {
        drop(self.answer.send(answer));
    }

    /// Whether nobody waits for it any more.
    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::SeqCst)
    }
}

/// Waits for an answer; dropped, it tells that nobody does.
pub(crate) struct Ticket {
    answer: Receiver<Answer>,
    is_abandoned: Arc<AtomicBool>,
}

impl Ticket {
    /// The answer, if it comes within a time.
    pub fn wait(&self, within: Duration) -> Option<Answer> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.answer.recv_timeout(within) {
            Ok(answer) => Some(answer),
            Err(Timeout) => None,
            Err(Disconnected) => Some(Err(Refusal::new(500, "the engine failed; the server's log has more"))),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.is_abandoned.store(true, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Number of the next job.
    next: u64,
    /// While it is paused: the first job that is held.
    held_from: Option<u64>,
    /// Whether the engine is at work.
    runs: bool,
    is_closing: bool,
}

impl State {
    fn may_begin(&self, job: &Job) -> bool {
        self.held_from.is_none_or(|first| job.number < first)
    }

    /// Whether nothing runs, and nothing that arrived before a pause waits.
    fn is_at_rest(&self) -> bool {
        !self.runs && !self.waiting.iter().any(|job| self.may_begin(job))
    }
}

/// Work that waits, and the pauses.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Ends the engine's call.
    ends_call: AtomicBool,
    most_waiting: usize,
}

impl Queue {
    /// For at most so many requests at a time.
    pub fn new(most_waiting: usize) -> Self {
        let ends_call = AtomicBool::new(false);
        Self { state: Mutex::default(), changed: Condvar::new(), ends_call, most_waiting }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What asks the engine's call to end.
    pub fn ends_call(&self) -> &AtomicBool {
        &self.ends_call
    }

    /// Puts work into the queue.
    ///
    /// # Errors
    /// [`Refusal::busy`] where there is no room, or the server is about to end.
    pub fn push(&self, work: Work) -> Result<Ticket, Refusal> {
        let mut state = self.state();
        if state.is_closing {
            return Err(Refusal::closing());
        }
        if state.waiting.len() >= self.most_waiting {
            state.waiting.retain(|job| !job.is_abandoned());
        }
        if state.waiting.len() >= self.most_waiting {
            return Err(Refusal::busy(format!("{} requests wait already", state.waiting.len())));
        }
        let (sender, answer) = sync_channel(1);
        let is_abandoned = Arc::<AtomicBool>::default();
        let number = state.next;
        state.next += 1;
        state.waiting.push_back(Job { work, number, is_abandoned: is_abandoned.clone(), answer: sender });
        drop(state);
        self.changed.notify_all();
        Ok(Ticket { answer, is_abandoned })
    }

    /// The next work for the engine, with all that can be done together with it; it waits for some. None once the server
    /// ends.
    pub fn take(&self) -> Option<Vec<Job>> {
        let mut state = self.state();
        state.runs = false;
        self.changed.notify_all();
        let mut gathers_until = None;
        loop {
            if state.is_closing {
                return None;
            }
            state.waiting.retain(|job| !job.is_abandoned());
            let n_ready = state.waiting.iter().filter(|job| state.may_begin(job)).count();
            let now = Instant::now();
            let until = *gathers_until.get_or_insert(now + GATHERING);
            if n_ready == 0 {
                gathers_until = None;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if n_ready == 1 && now < until {
                let (after, _) =
                    self.changed.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner);
                state = after;
            } else {
                break;
            }
        }
        state.runs = true;
        self.ends_call.store(false, Ordering::SeqCst);
        let waiting = std::mem::take(&mut state.waiting);
        let mut taken: Vec<Job> = Vec::new();
        for job in waiting {
            let fits = taken.first().is_none_or(|first| first.work.goes_with(&job.work));
            if fits && state.may_begin(&job) { taken.push(job) } else { state.waiting.push_back(job) }
        }
        Some(taken)
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.state().held_from.is_some()
    }

    /// Holds whatever arrives from now on, and waits until what came before is done, or until `gives_up`.
    pub fn pause_after_all(&self, gives_up: impl Fn() -> bool) {
        self.hold();
        let mut state = self.state();
        while !state.is_at_rest() && !state.is_closing && !gives_up() {
            let within = crate::http::LOOK_UP;
            state = self.changed.wait_timeout(state, within).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Holds whatever arrives from now on; what came before ends as it is: what it would be answered, `aborted` says.
    pub fn pause_at_once(&self, aborted: impl Fn(&Work) -> Answer, gives_up: impl Fn() -> bool) {
        self.hold();
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        let (ended, held): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|job| state.may_begin(job));
        state.waiting = held.into();
        if state.runs {
            self.ends_call.store(true, Ordering::SeqCst);
        }
        drop(state);
        for job in ended {
            let answer = aborted(&job.work);
            job.answer(answer);
        }
        self.pause_after_all(gives_up);
    }

    fn hold(&self) {
        let mut state = self.state();
        state.held_from = state.held_from.or(Some(state.next));
    }

    /// Goes on.
    pub fn resume(&self) {
        self.state().held_from = None;
        self.changed.notify_all();
    }

    /// Whether the engine is at work.
    pub fn runs(&self) -> bool {
        self.state().runs
    }

    /// Whether the server is about to end.
    pub fn is_closing(&self) -> bool {
        self.state().is_closing
    }

    /// Takes no more work, and tells whoever waits.
    pub fn close(&self) {
        let mut state = self.state();
        state.is_closing = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        for job in waiting {
            job.answer(Err(Refusal::closing()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(id: u32) -> Work {
        let second = 1..2;
        Work::Score(vec![ScoringGroup::single(vec![id, id], vec![second])])
    }

    fn generate(seed: u64) -> Work {
        let params = SamplingParams {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: 1,
            stop_token_ids: Vec::new(),
            max_running: 1,
        };
        Work::Generate(Generation { requests: Vec::new(), params, seed })
    }

    #[test]
    fn what_fits_together_is_taken_together_and_the_rest_keeps_its_place() {
        let queue = Queue::new(8);
        let works = [score(1), generate(1), score(2), generate(2), generate(1)];
        let _tickets: Vec<_> = works.iter().map(|work| queue.push(work.clone()).unwrap()).collect();
        let taken = || queue.take().unwrap().into_iter().map(|job| job.work).collect::<Vec<_>>();
        assert_eq!(taken(), [score(1), score(2)]);
        assert_eq!(taken(), [generate(1), generate(1)]);
        assert_eq!(taken(), [generate(2)]);
    }

    #[test]
    fn the_queue_is_bounded_and_forgets_whoever_has_gone() {
        let queue = Queue::new(2);
        let first = queue.push(score(1)).ok();
        let _second = queue.push(score(2)).ok();
        assert_eq!(queue.push(score(3)).err().map(|refusal| refusal.status), Some(503));
        drop(first);
        let _fourth = queue.push(score(4)).ok();
        let taken: Vec<_> = queue.take().unwrap().into_iter().map(|job| job.work).collect();
        assert_eq!(taken, [score(2), score(4)]);
    }

    #[test]
    fn a_pause_holds_what_comes_after_it() {
        let queue = Queue::new(8);
        let _before = queue.push(score(1)).ok();
        // Nobody works: it gives up waiting at once.
        queue.pause_after_all(|| true);
        let after = queue.push(score(2)).ok().unwrap();
        assert_eq!(queue.take().unwrap().len(), 1);
        assert!(queue.is_paused());
        let refused = |_: &Work| Err(Refusal::closing());
        queue.pause_at_once(refused, || true);
        assert!(after.wait(Duration::ZERO).is_none(), "it is held, not ended");
        queue.resume();
        assert_eq!(queue.take().unwrap()[0].work, score(2));
        queue.close();
        assert!(queue.take().is_none());
        assert!(queue.push(score(5)).is_err());
    }
}
