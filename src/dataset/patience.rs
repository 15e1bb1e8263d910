//! Work that waits for somebody else, and is given up when nothing comes any more.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// How the work tells that something has come.
#[derive(Debug, Clone)]
pub(super) struct Alive(Sender<()>);

impl Alive {
    pub(super) fn tell(&self) {
        // Nobody listens once the work is given up.
        let _ = self.0.send(());
    }
}

impl hf_hub::api::Progress for Alive {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.tell();
    }

    fn update(&mut self, _size: usize) {
        self.tell();
    }

    fn finish(&mut self) {
        self.tell();
    }
}

/// What `work` gives, or `None` once it has told of nothing for `patience`. It runs on a thread of its own, which is
/// then left waiting: the hub's client has no time limits of its own, and a thread cannot be stopped from outside.
pub(super) fn watched<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce(&Alive) -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = channel();
    let thread = thread::spawn(move || work(&Alive(sender)));
    loop {
        match receiver.recv_timeout(patience) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return None,
            // The work is over and has dropped its end.
            Err(RecvTimeoutError::Disconnected) => {
                return Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_the_waiting_and_slowness_does_not() {
        let patience = Duration::from_millis(300);
        let slow = watched(patience, |alive| {
            for _ in 0..10 {
                thread::sleep(Duration::from_millis(60));
                alive.tell();
            }
            "done"
        });
        assert_eq!(slow, Some("done"));
        assert_eq!(watched(patience, |_| thread::sleep(Duration::from_secs(600))), None);
    }
}
