//! Libraries that read strangers' files, kept from ending the process: a fault of theirs that a damaged file brings to
//! light is an error about that file.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// What `work` gives, or the message that it panicked with. What `work` changes must not be used after a panic.
///
/// # Errors
/// The message of a panic, in one line.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    outcome.map_err(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text =
            text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        format!("the library that reads it gives up ({text})")
    })
}

/// Whether a panic on this thread now would be caught by [`guarded`]: then it is nobody else's to tell of.
pub fn is_guarded() -> bool {
    DEPTH.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_guard_ends_with_it() {
        assert_eq!(guarded(is_guarded), Ok(true));
        let error = guarded(|| guarded(|| 1).map(|n: usize| [0][n])).unwrap_err();
        assert!(error.contains("index out of bounds"), "{error}");
        assert!(!is_guarded());
    }
}
