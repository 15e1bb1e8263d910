//! Work on a GPU that cannot go on. There is nothing to return to: the driver reports what went wrong at whichever call comes
//! after it, and from then on refuses every other.
//!
//! So it is a panic, whose message says everything; and a panic hook that wants to know what it was asks
//! [`Failure::of_this_panic`].

use std::cell::RefCell;

use cudarc::driver::result::DriverError;

use crate::error::describe;

/// Why work on a GPU ended; each a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its memory is used up.
    #[error(
        "{gpu}: its memory is used up: {} MiB more than the {} MiB in use are not there{}",
        mebibytes(*asked),
        in_use >> 20,
        of_all(*all)
    )]
    Memory {
        /// Number and name.
        gpu: String,
        /// Bytes that were asked for.
        asked: u64,
        /// Bytes in use by this process.
        in_use: u64,
        /// Bytes that are free and bytes that there are, by the driver's count; none where it does not say.
        all: Option<(u64, u64)>,
    },
    /// There is no more of the host's memory that it may copy from and to by itself.
    #[error("{gpu}: {} MiB more of the host's memory are not there for its copies", mebibytes(*asked))]
    Host {
        /// Number and name.
        gpu: String,
        /// Bytes that were asked for.
        asked: u64,
    },
    /// The driver or cuBLASLt reports an error.
    #[error("{gpu} failed at {what}: {why}")]
    Work {
        /// Number and name.
        gpu: String,
        /// The call that reported it, which may come after what caused it.
        what: String,
        /// The driver's words.
        why: String,
    },
}

thread_local! {
    /// The failure that this thread is ending with.
    static ENDING: RefCell<Option<Failure>> = const { RefCell::new(None) };
}

impl Failure {
    /// What the driver reports of a call.
    pub(crate) fn of(gpu: String, what: &str, error: DriverError) -> Self {
        Self::Work { gpu, what: what.to_owned(), why: describe(error) }
    }

    /// Ends this thread's work with it.
    pub(crate) fn end(self) -> ! {
        let line = self.to_string();
        ENDING.set(Some(self));
        panic!("{line}")
    }

    /// For panic hooks: the failure whose panic this is, asked once; none if it is another's.
    pub fn of_this_panic() -> Option<Self> {
        ENDING.take()
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn of_all(all: Option<(u64, u64)>) -> String {
    let said = |(free, all)| format!(" ({} MiB of {} are free)", free >> 20, all >> 20);
    all.map(said).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_a_line_that_its_panic_carries_once() {
        let failure = Failure::Memory {
            gpu: "GPU 1 (a card)".into(),
            asked: 1 << 20,
            in_use: 5 << 20,
            all: Some((0, 6 << 20)),
        };
        let expected = "GPU 1 (a card): its memory is used up: 1 MiB more than the 5 MiB in use are not there (0 MiB of 6 are free)";
        let ended = failure.clone();
        let panic = std::panic::catch_unwind(move || ended.end()).unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some(expected));
        assert_eq!((Failure::of_this_panic(), Failure::of_this_panic()), (Some(failure), None));
    }
}
