//! Threads that ask servers: as many as requests may be under way, kept from one call to the next and never those that
//! compute.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

/// Something to do that waits for others.
pub(super) type Task = Box<dyn FnOnce() + Send>;

/// A bounded number of threads, made when they are needed. They end when this is dropped, each with what it does.
#[derive(Debug)]
pub(super) struct Threads {
    line: Arc<Line>,
    most: usize,
}

/// What waits for a thread.
struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    n_threads: usize,
    n_idle: usize,
    is_closed: bool,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Line").field("n_tasks", &self.lock().tasks.len()).finish_non_exhaustive()
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does: what waits, until nothing ever will.
    fn work(&self) {
        loop {
            let mut state = self.lock();
            let task = loop {
                if state.is_closed {
                    return;
                }
                if let Some(task) = state.tasks.pop_front() {
                    break task;
                }
                state.n_idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.n_idle -= 1;
            };
            drop(state);
            task();
        }
    }
}

impl Threads {
    /// None yet; `most` later on.
    pub fn new(most: usize) -> Self {
        let line = Line { state: Mutex::default(), changed: Condvar::new() };
        Self { line: Arc::new(line), most }
    }

    /// Has a thread do `task`, after all that was given before.
    ///
    /// # Errors
    /// There is no thread, and none can be made.
    pub fn give(&self, task: Task) -> io::Result<()> {
        let mut state = self.line.lock();
        state.tasks.push_back(task);
        if state.tasks.len() > state.n_idle && state.n_threads < self.most {
            let line = self.line.clone();
            let spawned =
                thread::Builder::new().name("server".into()).stack_size(1 << 20).spawn(move || line.work());
            match spawned {
                Ok(_) => state.n_threads += 1,
                Err(error) if state.n_threads == 0 => {
                    state.tasks.clear();
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        drop(state);
        self.line.changed.notify_one();
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut state = self.line.lock();
        state.is_closed = true;
        state.tasks.clear();
        drop(state);
        self.line.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn as_many_work_as_there_may_be_and_they_serve_again() {
        let threads = Threads::new(3);
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let names = Arc::new(Mutex::new(std::collections::HashSet::new()));
        let (tell, told) = mpsc::channel();
        for _ in 0..2 {
            for _ in 0..12 {
                let (at_once, most, names, tell) =
                    (at_once.clone(), most.clone(), names.clone(), tell.clone());
                let task = move || {
                    most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    names.lock().unwrap().insert(thread::current().id());
                    thread::sleep(Duration::from_millis(5));
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    tell.send(()).unwrap();
                };
                threads.give(Box::new(task)).unwrap();
            }
            assert_eq!(told.iter().take(12).count(), 12);
        }
        assert_eq!((most.load(Ordering::SeqCst), names.lock().unwrap().len()), (3, 3));
        let line = Arc::downgrade(&threads.line);
        drop(threads);
        // The threads end, and with them all that they held.
        for _ in 0..200 {
            if line.upgrade().is_none() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("threads outlive what they work for");
    }
}
